"""Doors of the scalers: rescaling by given numbers, and whether there is NaN or infinity."""


cdef bint plan_rescale(fn_job *job, int axis, cnp.ndarray x, cnp.ndarray y) noexcept:
    """Describe arrays to the kernels so that memory is walked in its own order: rows of what lies inside a channel,
    else columns. False for a storage type that kernels do not know."""
    cdef const int64_t *steps[FN_ARRAYS]
    cdef char roles[FN_MAX_AXES]
    cdef int ndim = cnp.PyArray_NDIM(x), a
    cdef int64_t inside = 1, outside = 1, step, size
    cdef int64_t pitch = abs(<int64_t>cnp.PyArray_STRIDE(x, axis))
    cdef bint whole = cnp.PyArray_DIM(x, axis) == 1 or pitch == 0, by_columns
    if not (use(job, FN_X, x, steps) and use(job, FN_Z, None, steps) and use(job, FN_WHERE, None, steps)
            and use(job, FN_WEIGHTS, None, steps) and use(job, FN_Y, y, steps) and use(job, FN_S, None, steps)):
        return False
    for a in range(ndim):
        step = abs(<int64_t>cnp.PyArray_STRIDE(x, a))
        roles[a] = a != axis and (whole or 0 < step < pitch)
        if roles[a]:
            inside *= cnp.PyArray_DIM(x, a)
        elif a != axis:
            outside *= cnp.PyArray_DIM(x, a)
    by_columns = inside == 1 or (inside < FN_SHORT and outside > 1)  # also of channels with what lies inside
    job.period = cnp.PyArray_DIM(x, axis)
    job.places = 1
    for a in range(ndim):
        size = cnp.PyArray_DIM(x, a)
        if a == axis:
            roles[a] = FN_KEPT
        elif by_columns:
            roles[a] = FN_KEPT if roles[a] else FN_SHARED
        else:
            roles[a] = FN_SHARED if roles[a] else FN_KEPT
        if a > axis and roles[a] == FN_KEPT:
            job.places *= size
    job.dtype = job.out_dtype = compute_type(job.array[FN_X].dtype)
    fn_plan(job, ndim, <const int64_t *>cnp.PyArray_DIMS(x), steps, roles)
    return True


cdef void share_broad(const fn_kernel *rows, const fn_kernel *columns, const fn_job *job, crew *team) noexcept nogil:
    """Run the kernel of rows or of broad columns on a job that was so planned."""
    if not job.columns:
        share_chunks(rows, job, team)
        return
    share(columns[job.dtype], job, 0, job.outer * parts(job.n, job.chunk) * parts(job.inner.size, FN_BROAD),
          min(job.n, job.chunk) * min(job.inner.size, <int64_t>FN_BROAD), team)


cdef int share_rescale(fn_job *job, crew *team) except -1 nogil:
    share_broad(team.table.rescale_rows, team.table.rescale_columns, job, team)
    return 0


cdef bint spreads_out(cnp.ndarray y) noexcept:
    """Whether the strides alone show that no two elements of an array share memory."""
    cdef int a, b, ndim = cnp.PyArray_NDIM(y)
    cdef int64_t step, reach
    for a in range(ndim):
        if cnp.PyArray_DIM(y, a) <= 1:
            continue
        step = abs(<int64_t>cnp.PyArray_STRIDE(y, a))
        reach = cnp.PyArray_ITEMSIZE(y)  # of the axes that lie within a step
        for b in range(ndim):
            if b != a and cnp.PyArray_DIM(y, b) > 1 and abs(<int64_t>cnp.PyArray_STRIDE(y, b)) <= step:
                reach += (cnp.PyArray_DIM(y, b) - 1) * abs(<int64_t>cnp.PyArray_STRIDE(y, b))
        if step < reach:
            return False
    return True


cdef object rescaled_result(cnp.ndarray x, object out, tuple operands, bint checked):
    """Where the result of x goes; None for anything unusual."""
    cdef int typenum = type_number(result_storage(storage_type(x)))
    if out is None:
        if cnp.PyArray_IS_C_CONTIGUOUS(x):
            return cnp.PyArray_EMPTY(cnp.PyArray_NDIM(x), cnp.PyArray_DIMS(x), typenum, 0)
        return numpy.empty_like(x, cnp.PyArray_DescrFromType(typenum), "K", False)  # in the order of x
    if not is_result(out, x, typenum):
        return None
    if checked or cnp.PyArray_SIZE(x) == 0:
        return out
    if not (same_place(x, out) or apart(x, out)) or not spreads_out(out) or not all_apart(out, operands):
        return None
    return out


def rescale(x, axis, center, center_lo, scale, shift, least, most, bint inverse, out, bint checked=False):
    """(y, flags): ((x - center) - center_lo) / scale + shift along an axis or the `inverse` of it, clipped, and what of
    x is not finite (1: NaN, 2: infinity). None for anything unusual. Operands: None or float64. `checked`: `out` was
    found to share no element with an input that it is not."""
    cdef fn_job job
    cdef cnp.ndarray y
    cdef int64_t channels
    cdef int found = 0
    begin(&job)
    if not cnp.PyArray_CheckExact(x) or type(axis) is not int or not 0 <= axis < cnp.PyArray_NDIM(x):
        return None
    if storage_type(x) < 0 or not number(least, &job.least) or not number(most, &job.most):
        return None
    channels = cnp.PyArray_DIM(x, axis)
    if not (one_each(center, channels, cnp.NPY_FLOAT64, <const void **>&job.center)
            and one_each(center_lo, channels, cnp.NPY_FLOAT64, <const void **>&job.center_lo)
            and one_each(scale, channels, cnp.NPY_FLOAT64, <const void **>&job.scale)
            and one_each(shift, channels, cnp.NPY_FLOAT64, <const void **>&job.shift)):
        return None
    y = rescaled_result(x, out, (center, center_lo, scale, shift), checked)
    if y is None:
        return None
    if cnp.PyArray_SIZE(x) == 0:
        return y, 0
    job.inverse = inverse
    job.found = &found
    plan_rescale(&job, axis, x, y)
    job.written = IN_CACHE if same_place(x, y) else cnp.PyArray_NBYTES(y)
    drive_released(share_rescale, &job)
    return y, found


cdef int share_find_nonfinite(fn_job *job, crew *team) except -1 nogil:
    share_chunks(team.table.find_nonfinite, job, team)
    return 0


def find_nonfinite(x):
    """What of x is not finite (1: NaN, 2: infinity); None for what kernels do not read."""
    cdef char reduced[FN_MAX_AXES]
    cdef fn_job job
    cdef int found = 0
    if not cnp.PyArray_CheckExact(x) or storage_type(x) < 0:
        return None
    if float_storage(cnp.PyArray_TYPE(x)) < 0 or cnp.PyArray_SIZE(x) == 0:
        return 0
    begin(&job)
    mark_axes(None, cnp.PyArray_NDIM(x), reduced)
    fill_job(&job, reduced, x)
    job.found = &found
    drive_released(share_find_nonfinite, &job)
    return found
