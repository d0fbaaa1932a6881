"""Doors of pictures: constants of channels, and pixels that become normalized floats or the other way round."""

from libc.math cimport fma, isfinite, rint

# Results of fewer bytes than so many times the stream threshold stay in the cache: what is made of them comes next, and
# x takes a quarter of their room at most.
cdef int64_t PICTURE_STREAM = 4

# Pictures of fewer elements than so many times the work threshold are left to one thread: who loads data prepares many
# of them side by side.
cdef int64_t PICTURE_SHARE = 32

cdef enum:
    FOLD_CENTER, FOLD_CENTER_LO, FOLD_FACTOR, FOLD_OFFSET, FOLD_GAIN, FOLDS
    HWC = 0, CHW = 1, EITHER = 2


def fold_picture(cnp.ndarray means not None, cnp.ndarray stds not None, double scale, double unit):
    """The constants of `picture` as float64 of shape (5, C): center, center_lo and factor of normalizing, offset and
    gain of restoring; None if one is not finite. What is stored counts in `unit` parts; NaN: it is multiplied by
    `scale`. The arrays are contiguous, of float64 and of one size."""
    cdef int64_t channels = cnp.PyArray_SIZE(means), c
    cdef cnp.npy_intp[2] shape = [FOLDS, channels]
    cdef cnp.ndarray folded = cnp.PyArray_EMPTY(2, shape, cnp.NPY_FLOAT64, 0)
    cdef double *to = <double *>cnp.PyArray_DATA(folded)
    cdef const double *mean = <const double *>cnp.PyArray_DATA(means)
    cdef const double *std = <const double *>cnp.PyArray_DATA(stds)
    cdef double center, rest, level, gain
    cdef bint counts = unit == unit
    for c in range(channels):
        center = mean[c] * unit if counts else mean[c] / scale
        rest = fma(mean[c], unit, -center) if counts else fma(-center, scale, mean[c]) / scale
        gain = std[c] * unit if counts else std[c] / scale
        level = rint(center)
        if (level / unit if counts else level * scale) == mean[c]:  # what is stored as this number is the mean
            center = level
            rest = 0
        to[FOLD_CENTER * channels + c] = to[FOLD_OFFSET * channels + c] = center
        to[FOLD_CENTER_LO * channels + c] = rest
        to[FOLD_FACTOR * channels + c] = 1 / gain
        to[FOLD_GAIN * channels + c] = gain
        if not (isfinite(center) and isfinite(rest) and isfinite(gain) and isfinite(1 / gain)):
            return None
    return folded


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
    job.chunk = max(<int64_t>64, FN_CHUNK // size[3] // 64 * 64)  # whole lines, but for the last


cdef int share_pictures(fn_job *job) except -1 nogil:
    cdef crew team
    gather_crew(&team, job, PICTURE_SHARE * work_threshold)
    share(team.table.pictures, job, 0, job.outer * parts(job.n, job.chunk), min(job.n, job.chunk) * job.inner.size,
          &team)
    free(team.scratch)
    return 0


cdef int pixel_storage(int number) noexcept:
    """The storage type of a type number that pictures have; -1 for any other."""
    if number == cnp.NPY_UINT8 or number == cnp.NPY_BOOL:
        return FN_U8
    return FN_U16 if number == cnp.NPY_UINT16 else float_storage(number)


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


def picture(x, cnp.ndarray folded not None, cnp.dtype dtype not None, int order, bint channels_first, bint swap,
            out=None, bint inverse=False, bint checked=False):
    """Pixels normalized, or restored, with constants from `fold_picture`; None for anything unusual.

    `order` tells whether channels come first in x (2: where only that fits the constants), `channels_first` whether in
    the result. `checked`: `out` was found to share no element with x, or to be x, and bytes of bools
    to be 0 and 1."""
    cdef fn_job job
    cdef cnp.ndarray source, target
    cdef int64_t size[4]
    cdef int64_t x_step[4]
    cdef int64_t y_step[4]
    cdef cnp.npy_intp shape[4]
    cdef int64_t channels
    cdef int ndim, typenum
    if not cnp.PyArray_CheckExact(x):
        return None
    source = x
    typenum = dtype.type_num
    if pixel_storage(cnp.PyArray_TYPE(source)) < 0 or pixel_storage(typenum) < 0:
        return None
    if cnp.PyArray_TYPE(source) == cnp.NPY_BOOL and not checked:  # its bytes may be others than 0 and 1
        return None
    channels = cnp.PyArray_DIM(folded, 1)
    if not split_axes(source, order == CHW, size, x_step):
        return None
    if order == EITHER and size[3] != channels and cnp.PyArray_NDIM(source) > 2 and size[1] == channels:
        split_axes(source, True, size, x_step)
    if (channels != 1 and size[3] != channels) or (swap and not 3 <= size[3] <= 4) or size[3] > FN_TILE:
        return None
    ndim = max(3, cnp.PyArray_NDIM(source))
    shape[0] = size[0]
    shape[ndim - 3] = size[3] if channels_first else size[1]
    shape[ndim - 2] = size[1] if channels_first else size[2]
    shape[ndim - 1] = size[2] if channels_first else size[3]
    target = picture_result(out, ndim, shape, typenum, source, checked)
    if target is None:
        return None
    if cnp.PyArray_SIZE(target) == 0:
        return target
    begin(&job)
    describe(&job.array[<int>FN_X], source, pixel_storage(cnp.PyArray_TYPE(source)))
    describe(&job.array[<int>FN_Y], target, pixel_storage(typenum))
    split_axes(target, channels_first, size, y_step)
    plan_pictures(&job, size, x_step, y_step)
    job.period = channels
    job.center = <const double *>cnp.PyArray_DATA(folded) + (FOLD_OFFSET if inverse else FOLD_CENTER) * channels
    if not inverse:
        job.center_lo = job.center + channels
    job.scale = <const double *>cnp.PyArray_DATA(folded) + (FOLD_GAIN if inverse else FOLD_FACTOR) * channels
    job.most = 1 if typenum == cnp.NPY_BOOL else 255 if typenum == cnp.NPY_UINT8 else 65535
    job.inverse = inverse
    job.swap = swap
    job.stream = cnp.PyArray_DATA(source) != cnp.PyArray_DATA(target) and (
        cnp.PyArray_NBYTES(target) >= PICTURE_STREAM * stream_threshold)
    if job.outer * job.n * channels < min(GIL_THRESHOLD, work_threshold):
        share_pictures(&job)
    else:
        with nogil:
            share_pictures(&job)
    return target
