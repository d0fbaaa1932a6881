"""Doors of pictures: constants of channels, and pixels that become normalized floats or the other way round."""

from libc.math cimport fabs, fma, isfinite, rint

# Results of fewer bytes than so many times the stream threshold stay in the cache: what is made of them comes next, and
# x takes a quarter of their room at most.
cdef int64_t PICTURE_STREAM = 2

# Pictures of fewer elements than so many times the work threshold are left to one thread: who loads data prepares many
# of them side by side.
cdef int64_t PICTURE_SHARE = 32

# More channels than this are not meant by an axis of unknown meaning.
cdef int64_t FEW = 4

cdef double MOST_LEVEL = 65535

cdef enum:
    FOLD_CENTER, FOLD_CENTER_LO, FOLD_FACTOR, FOLD_OFFSET, FOLD_GAIN, FOLDS
    HWC = 0, CHW = 1, EITHER = 2


cdef object fold_constants(const double *mean, const double *std, int64_t channels, double scale, bint divides):
    """An array of constants from one mean and one std per channel; None if a constant is not finite."""
    cdef cnp.npy_intp[2] shape = [FOLDS, channels]
    cdef cnp.ndarray folded = cnp.PyArray_EMPTY(2, shape, cnp.NPY_FLOAT64, 0)
    cdef double *to = <double *>cnp.PyArray_DATA(folded)
    cdef double center, rest, level, stored, gain
    cdef int64_t c
    for c in range(channels):
        center = mean[c] * scale if divides else mean[c] / scale
        rest = fma(mean[c], scale, -center) if divides else fma(-center, scale, mean[c]) / scale
        gain = std[c] * scale if divides else std[c] / scale
        level = rint(center)
        stored = level / scale if divides else level * scale
        if stored == mean[c] and fabs(level) <= MOST_LEVEL:  # what is stored as this number is the mean
            center = level
            rest = 0
        to[FOLD_CENTER * channels + c] = to[FOLD_OFFSET * channels + c] = center
        to[FOLD_CENTER_LO * channels + c] = rest
        to[FOLD_FACTOR * channels + c] = 1 / gain
        to[FOLD_GAIN * channels + c] = gain
        if not (isfinite(center) and isfinite(rest) and isfinite(gain) and isfinite(1 / gain)):
            return None
    return folded


def fold_picture(cnp.ndarray mean not None, cnp.ndarray std not None, double scale, bint divides):
    """The constants of `picture` as float64 of shape (5, C): center, center_lo and factor of normalizing, offset and
    gain of restoring; None if one is not finite. What is stored is multiplied by `scale`, or with `divides` divided by
    it. The arrays are contiguous, of float64 and of one size."""
    return fold_constants(<const double *>cnp.PyArray_DATA(mean), <const double *>cnp.PyArray_DATA(std),
                          cnp.PyArray_SIZE(mean), scale, divides)


cdef void set_axis(fn_axis *axis, int64_t size, int64_t x_step, int64_t y_step) noexcept:
    cdef int k
    axis.size = size
    for k in range(FN_STEPS):
        axis.step[k] = 0
    axis.step[<int>FN_X] = x_step
    axis.step[<int>FN_Y] = y_step


cdef bint split_axes(cnp.ndarray x, bint channels_first, int64_t *size, int64_t *step) noexcept:
    """Pictures, rows, columns and channels of an array of two, three or four dimensions. False for any other."""
    cdef int ndim = cnp.PyArray_NDIM(x), a, at, to
    cdef int channels = -1 if ndim == 2 else ndim - 3 if channels_first else ndim - 1
    if not 2 <= ndim <= 4:
        return False
    for a in range(4):
        size[a] = 1
        step[a] = 0
    to = 1
    for a in range(ndim):
        if a == channels:
            size[3] = cnp.PyArray_DIM(x, a)
            step[3] = cnp.PyArray_STRIDE(x, a)
        else:
            at = 0 if ndim == 4 and a == 0 else to
            size[at] = cnp.PyArray_DIM(x, a)
            step[at] = cnp.PyArray_STRIDE(x, a)
            to += at > 0
    return True


cdef void plan_pictures(fn_job *job, const int64_t *size, const int64_t *x_step, const int64_t *y_step) noexcept:
    """Describe pictures, rows, columns and channels to the kernels: rows that follow each other are one."""
    cdef bint joined = x_step[1] == size[2] * x_step[2] and y_step[1] == size[2] * y_step[2]
    cdef int which
    set_axis(&job.kept[0], size[0], x_step[0], y_step[0])
    set_axis(&job.inner, size[3], x_step[3], y_step[3])
    set_axis(&job.reduced[0], size[1], x_step[1], y_step[1])
    set_axis(&job.reduced[0 if joined else 1], size[1] * size[2] if joined else size[2], x_step[2], y_step[2])
    job.kept_ndim = 1
    job.reduced_ndim = 1 if joined else 2
    job.outer = size[0]
    job.n = size[1] * size[2]
    for which in range(FN_STEPS):
        job.stretch[which] = job.n if joined else size[2]


cdef int share_pictures(fn_job *job, crew *team) except -1 nogil:
    """Long pieces are streams that a processor foresees (a frame takes a fifth less time); several are left to each
    thread. They are whole lines of y, but for the last."""
    cdef int64_t channels = job.inner.size
    cdef int64_t pixels = min(job.n * job.outer // (4 * team.threads), 16 * FN_CHUNK // channels)
    job.chunk = max(max(pixels, FN_CHUNK // channels) // 64 * 64, <int64_t>64)
    share(team.table.pictures, job, 0, job.outer * parts(job.n, job.chunk), min(job.n, job.chunk) * channels, team)
    return 0


cdef int pixel_storage(int number) noexcept:
    """The storage type of a type number that pictures have; -1 for any other."""
    if number == cnp.NPY_UINT8 or number == cnp.NPY_BOOL:
        return FN_U8
    return FN_U16 if number == cnp.NPY_UINT16 else float_storage(number)


cdef bint is_result_of(int stored, bint inverse) noexcept:
    """Whether pictures are normalized, or restored, to a storage type."""
    if stored == FN_U8 or stored == FN_U16:
        return inverse
    return stored == FN_F32 or stored == FN_F16 or stored == FN_BF16


cdef cnp.ndarray picture_result(object out, int ndim, cnp.npy_intp *shape, int typenum, cnp.ndarray x, bint checked):
    """Where the result goes; None for anything unusual."""
    cdef int a
    if out is None:
        return cnp.PyArray_EMPTY(ndim, shape, typenum, 0)
    if not (cnp.PyArray_CheckExact(out) and cnp.PyArray_TYPE(out) == typenum and cnp.PyArray_NDIM(out) == ndim
            and cnp.PyArray_ISNOTSWAPPED(out) and cnp.PyArray_ISWRITEABLE(out)):
        return None
    for a in range(ndim):
        if cnp.PyArray_DIM(out, a) != shape[a]:
            return None
    return out if checked or (apart(x, out) and spreads_out(out)) else None


cdef bint has_channels_first(cnp.ndarray x, int64_t count) noexcept:
    """Whether only the first axis of a picture fits so many channels. One constant fits any: then few are meant."""
    cdef int ndim = cnp.PyArray_NDIM(x)
    cdef int64_t first, last
    if ndim < 3:
        return False
    first = cnp.PyArray_DIM(x, ndim - 3)
    last = cnp.PyArray_DIM(x, ndim - 1)
    return (last > FEW and first <= FEW) if count == 1 else (last != count and first == count)


def is_channels_first(cnp.ndarray x not None, int64_t count):
    """Whether channels come first in a picture of unknown layout for which there are so many constants."""
    return has_channels_first(x, count)


cdef void fill_pictures(fn_job *job, cnp.ndarray x, cnp.ndarray y, const double *constants, int64_t channels,
                        bint inverse) noexcept:
    """Describe arrays and the constants of so many channels to the kernels; the axes stand."""
    cdef int typenum = cnp.PyArray_TYPE(y)
    describe(&job.array[<int>FN_X], x, pixel_storage(cnp.PyArray_TYPE(x)))
    describe(&job.array[<int>FN_Y], y, pixel_storage(typenum))
    job.period = channels
    job.center = constants + (FOLD_OFFSET if inverse else FOLD_CENTER) * channels
    job.scale = constants + (FOLD_GAIN if inverse else FOLD_FACTOR) * channels
    if not inverse:
        job.center_lo = constants + FOLD_CENTER_LO * channels
    job.most = 1 if typenum == cnp.NPY_BOOL else 255 if typenum == cnp.NPY_UINT8 else 65535
    job.inverse = inverse
    job.written = IN_CACHE if cnp.PyArray_DATA(x) == cnp.PyArray_DATA(y) else cnp.PyArray_NBYTES(y) // PICTURE_STREAM


def picture(x, cnp.ndarray folded not None, cnp.dtype dtype not None, int order, bint channels_first, bint swap,
            out=None, bint inverse=False, bint checked=False):
    """Pixels normalized, or restored, with constants from `fold_picture`; None for anything unusual.

    `order` tells where channels are in x (HWC, CHW, EITHER), `channels_first` where in the result. `checked`: `out` was
    found to share no element with x, or to be x, and bytes of bools to be 0 and 1."""
    cdef fn_job job
    cdef cnp.ndarray source, target
    cdef int64_t size[4]
    cdef int64_t x_step[4]
    cdef int64_t y_step[4]
    cdef cnp.npy_intp shape[4]
    cdef int64_t channels
    cdef int stored = pixel_storage(dtype.type_num), ndim
    cdef bint first
    cdef const double *constants
    if not cnp.PyArray_CheckExact(x):
        return None
    source = x
    channels = cnp.PyArray_DIM(folded, 1) if cnp.PyArray_NDIM(folded) == 2 else 0
    if channels == 0 or not is_table(folded, FOLDS, channels, cnp.NPY_FLOAT64, <const void **>&constants):
        return None
    if pixel_storage(cnp.PyArray_TYPE(source)) < 0 or not is_result_of(stored, inverse):
        return None
    if cnp.PyArray_TYPE(source) == cnp.NPY_BOOL and not checked:  # its bytes may be others than 0 and 1
        return None
    first = order == CHW or (order == EITHER and has_channels_first(source, channels))
    if not split_axes(source, first, size, x_step):
        return None
    if (channels != 1 and size[3] != channels) or (swap and not 3 <= size[3] <= 4) or size[3] > FN_TILE:
        return None
    ndim = max(3, cnp.PyArray_NDIM(source))
    shape[0] = size[0]
    shape[ndim - 3] = size[3] if channels_first else size[1]
    shape[ndim - 2] = size[1] if channels_first else size[2]
    shape[ndim - 1] = size[2] if channels_first else size[3]
    target = picture_result(out, ndim, shape, dtype.type_num, source, checked)
    if target is None or cnp.PyArray_SIZE(target) == 0:
        return target
    begin(&job)
    fill_pictures(&job, source, target, constants, channels, inverse)
    split_axes(target, channels_first, size, y_step)
    plan_pictures(&job, size, x_step, y_step)
    job.swap = swap
    drive_released(share_pictures, &job, PICTURE_SHARE)
    return target


cdef double unit_of(int typenum) noexcept:
    """What stands for 1 in a picture of that type; 0 if that is not known here."""
    if typenum == cnp.NPY_UINT8:
        return 255
    if typenum == cnp.NPY_UINT16:
        return 65535
    return 1 if float_storage(typenum) >= 0 else 0


cdef int64_t few_numbers(object value, double *to) except -1:
    """How many floats a tuple or a list holds, up to FEW; 0 for anything else."""
    cdef int64_t count = 0
    if type(value) is not tuple and type(value) is not list or len(value) > FEW:
        return 0
    for item in value:
        if type(item) is not float:
            return 0
        to[count] = item
        count += 1
    return count


def normalize_picture(x, mean, std, layout, input_layout, swap, dtype, out):
    """`picture` of what is given as numbers, for each channel, to float32; None for anything unusual."""
    cdef double[4] means, stds
    cdef int64_t channels = few_numbers(mean, means)
    cdef double unit
    if channels == 0 or few_numbers(std, stds) != channels or dtype is not numpy.float32 or type(swap) is not bool:
        return None
    if not cnp.PyArray_CheckExact(x) or input_layout is not None:
        return None
    if type(layout) is not str or layout not in ("CHW", "HWC"):
        return None
    unit = unit_of(cnp.PyArray_TYPE(x))
    folded = fold_constants(means, stds, channels, unit, True) if unit > 0 else None
    if folded is None:
        return None
    return picture(x, folded, cnp.PyArray_DescrFromType(cnp.NPY_FLOAT32), EITHER, layout == "CHW", swap, out)
