"""Doors of the norms."""

cdef void extent(cnp.ndarray x, uintptr_t *lo, uintptr_t *hi) noexcept:
    """The first byte of an array and the one behind its last."""
    cdef int a
    cdef int64_t reach
    lo[0] = hi[0] = <uintptr_t>cnp.PyArray_DATA(x)
    hi[0] += cnp.PyArray_ITEMSIZE(x)
    for a in range(cnp.PyArray_NDIM(x)):
        reach = (cnp.PyArray_DIM(x, a) - 1) * cnp.PyArray_STRIDE(x, a)
        if reach > 0:
            hi[0] += <uintptr_t>reach
        else:
            lo[0] -= <uintptr_t>(-reach)


cdef bint apart(cnp.ndarray a, cnp.ndarray b) noexcept:
    """Whether two arrays lie in separate stretches of memory."""
    cdef uintptr_t a_lo, a_hi, b_lo, b_hi
    extent(a, &a_lo, &a_hi)
    extent(b, &b_lo, &b_hi)
    return a_hi <= b_lo or b_hi <= a_lo


cdef bint same_place(cnp.ndarray a, cnp.ndarray b) noexcept:
    """Whether two arrays of one shape are the same elements of the same type."""
    cdef int axis
    if cnp.PyArray_DATA(a) != cnp.PyArray_DATA(b) or cnp.PyArray_TYPE(a) != cnp.PyArray_TYPE(b):
        return False
    if not cnp.PyArray_ISNOTSWAPPED(a):
        return False
    for axis in range(cnp.PyArray_NDIM(a)):
        if cnp.PyArray_DIM(a, axis) > 1 and cnp.PyArray_STRIDE(a, axis) != cnp.PyArray_STRIDE(b, axis):
            return False
    return True


cdef bint same_shape(cnp.ndarray a, cnp.ndarray b) noexcept:
    cdef int axis
    if cnp.PyArray_NDIM(a) != cnp.PyArray_NDIM(b):
        return False
    for axis in range(cnp.PyArray_NDIM(a)):
        if cnp.PyArray_DIM(a, axis) != cnp.PyArray_DIM(b, axis):
            return False
    return True


cdef bint goes_with(object value, cnp.ndarray x) noexcept:
    """Whether an array has the shape of x and is computed in the same type, which kernels know."""
    return (
        cnp.PyArray_CheckExact(value)
        and same_shape(value, x)
        and storage_type(x) >= 0
        and storage_type(value) >= 0
        and compute_type(storage_type(value)) == compute_type(storage_type(x))
    )


cdef bint lies_along(bint reduced_axes, object value, cnp.ndarray x, const char *reduced, int typenum,
                     const void **data) noexcept:
    """Where the elements of an array along the reduced, or the kept, axes of x are. False unless contiguous, of the
    right type and of the shape of these axes."""
    cdef int a, at = 0
    if not cnp.PyArray_CheckExact(value) or cnp.PyArray_TYPE(value) != typenum:
        return False
    if not cnp.PyArray_ISCARRAY_RO(value):
        return False
    for a in range(cnp.PyArray_NDIM(x)):
        if reduced[a] == reduced_axes:
            if at == cnp.PyArray_NDIM(value) or cnp.PyArray_DIM(value, at) != cnp.PyArray_DIM(x, a):
                return False
            at += 1
    data[0] = cnp.PyArray_DATA(value)
    return at == cnp.PyArray_NDIM(value)


cdef bint parameter(object value, cnp.ndarray x, const char *reduced, int typenum, const void **data) noexcept:
    """Likewise, of weight or bias; NULL for None."""
    data[0] = NULL
    return value is None or lies_along(True, value, x, reduced, typenum, data)


cdef object as_parameter(object value, int typenum):
    """A half-precision weight or bias in float, as the kernels take it; anything else as it is."""
    cdef fn_job job
    cdef int storage
    if not cnp.PyArray_CheckExact(value) or typenum != cnp.NPY_FLOAT32:
        return value
    storage = storage_type(value)
    if storage != FN_F16 and storage != FN_BF16:
        return value
    if not cnp.PyArray_IS_C_CONTIGUOUS(value) or not cnp.PyArray_ISNOTSWAPPED(value):
        return cnp.PyArray_Cast(value, typenum)
    wide = cnp.PyArray_EMPTY(cnp.PyArray_NDIM(value), cnp.PyArray_DIMS(value), typenum, 0)
    describe(&job.array[<int>FN_X], value, storage)
    describe(&job.array[<int>FN_Y], wide, FN_F32)
    run(fn_active_table().widen_halves, &job, 0, cnp.PyArray_SIZE(wide), NULL)
    return wide


cdef bint mark_normalized(cnp.ndarray x, object normalized_shape, object weight, object axis, char *reduced) noexcept:
    """Mark the axes that a norm reduces. False for anything but ints and tuples that match x."""
    cdef int a, ndim = cnp.PyArray_NDIM(x), trailing = 1
    if axis is not None:
        return normalized_shape is None and not is_empty(axis) and mark_axes(axis, ndim, reduced)
    if type(normalized_shape) is int:
        normalized_shape = (normalized_shape,)
    if type(normalized_shape) is tuple:
        trailing = <int>len(<tuple>normalized_shape)
    elif normalized_shape is not None:
        return False
    elif cnp.PyArray_CheckExact(weight):
        trailing = cnp.PyArray_NDIM(weight)
    if not 1 <= trailing <= ndim:
        return False
    for a in range(ndim):
        reduced[a] = a >= ndim - trailing
    if normalized_shape is not None:
        for a in range(trailing):
            size = (<tuple>normalized_shape)[a]
            if type(size) is not int or size != cnp.PyArray_DIM(x, ndim - trailing + a):
                return False
    return True


cdef bint is_result(object value, cnp.ndarray x, int typenum) noexcept:
    """Whether a result of x can be written there: an array of its shape, writeable, in this machine's byte order."""
    return (
        cnp.PyArray_CheckExact(value)
        and cnp.PyArray_TYPE(value) == typenum
        and same_shape(value, x)
        and cnp.PyArray_ISNOTSWAPPED(value)
        and cnp.PyArray_ISWRITEABLE(value)
    )


cdef bint may_write(cnp.ndarray y, tuple inputs) noexcept:
    """Whether y is one of the inputs, or apart from each, and its elements from each other."""
    if not cnp.PyArray_IS_C_CONTIGUOUS(y):
        return False
    for value in inputs:
        if value is not None and not apart(value, y) and not (same_shape(value, y) and same_place(value, y)):
            return False
    return True


cdef void fill_nan(object mean, object spread):
    """The statistics of nothing, as far as they are wanted."""
    for value in (mean, spread):
        if value is not None:
            value.fill(float("nan"))


cdef struct request:
    # What is asked of a norm beside its arrays.
    int norm, finish
    bint omit, return_stats, checked


cdef object normalize(cnp.ndarray x, object residual, object where, const char *reduced, object weight, object bias,
                      object eps, object ddof, object least, object most, object out, request ask):
    """y, or (y, s) with a residual; with `return_stats` the statistics after these. None for anything unusual.

    `checked`: `out` was found to share no element with an input that it is not.
    """
    cdef fn_job job
    cdef cnp.ndarray y, s = None, mean = None, spread = None
    cdef int storage = storage_type(x), parameters = type_number(compute_type(storage)), typenum, saved
    cdef bint in_place = False
    begin(&job)
    if storage < 0:
        return None
    typenum = type_number(result_storage(storage))
    weight, bias = as_parameter(weight, parameters), as_parameter(bias, parameters)
    if not parameter(weight, x, reduced, parameters, &job.weight):
        return None
    if not parameter(bias, x, reduced, parameters, &job.bias):
        return None
    if not number(eps, &job.eps) or not number(ddof, &job.ddof) or job.eps < 0:
        return None
    if not number(least, &job.least) or not number(most, &job.most):
        return None
    if not is_mask(where, x):
        return None
    if residual is not None:
        if not cnp.PyArray_CheckExact(residual) or not same_shape(residual, x):
            return None
        if storage_type(residual) < 0 or result_storage(storage_type(residual)) != result_storage(storage):
            return None
    if out is None:
        y = cnp.PyArray_EMPTY(cnp.PyArray_NDIM(x), cnp.PyArray_DIMS(x), typenum, 0)
        if residual is not None:
            s = cnp.PyArray_EMPTY(cnp.PyArray_NDIM(x), cnp.PyArray_DIMS(x), typenum, 0)
    else:
        if residual is None:
            out = (out, None)
        if type(out) is not tuple or len(<tuple>out) != 2 or not is_result((<tuple>out)[0], x, typenum):
            return None
        y = (<tuple>out)[0]
        in_place = same_place(x, y)
        if residual is not None:
            if not is_result((<tuple>out)[1], x, typenum):
                return None
            s = (<tuple>out)[1]
            in_place = in_place or same_place(residual, y) or same_place(x, s) or same_place(residual, s)
        if not ask.checked:
            if not may_write(y, (x, residual)) or not all_apart(y, (weight, bias, where)):
                return None
            if s is not None and not (apart(y, s) and may_write(s, (x, residual)) and all_apart(s, (weight, bias))):
                return None
    job.norm = ask.norm
    job.shortest = FN_SHORT_NORM
    job.finish = ask.finish
    job.omit = job.quiet = ask.omit  # NaN that is left alone comes out as the canonical one
    job.extrema = ask.norm == FN_RANGE
    fill_job(&job, reduced, x, y, residual, where, None, s)
    if s is not None:
        job.source = FN_S
    if ask.return_stats:
        if ask.norm == FN_RANGE:
            job.out_dtype = result_storage(storage)
        saved = type_number(job.out_dtype)
        spread = new_kept(x, reduced, False, saved)
        job.spread = cnp.PyArray_DATA(spread)
        if ask.norm != FN_RMS:
            mean = new_kept(x, reduced, False, saved)
            job.mean = cnp.PyArray_DATA(mean)
    if cnp.PyArray_SIZE(x) == 0:
        fill_nan(mean, spread)
    else:
        job.written = IN_CACHE if in_place else cnp.PyArray_NBYTES(y)
        drive_released(share_norm, &job)
    if not ask.return_stats:
        return y if s is None else (y, s)
    if ask.norm == FN_RMS:
        return (y, unwrap(spread)) if s is None else (y, s, unwrap(spread))
    return (y, unwrap(mean), unwrap(spread)) if s is None else (y, s, unwrap(mean), unwrap(spread))


def layer_norm(x, residual, normalized_shape, weight, bias, eps, axis, where, out, bint return_stats,
               bint checked=False):
    """As `functional.layer_norm`, with a residual as `functional.add_layer_norm`, or None."""
    cdef char reduced[FN_MAX_AXES]
    if not cnp.PyArray_CheckExact(x) or not mark_normalized(x, normalized_shape, weight, axis, reduced):
        return None
    return normalize(x, residual, where, reduced, weight, bias, eps, 0, 0, 0, out,
                     request(FN_LAYER, FN_RECIPROCAL, False, return_stats, checked))


def rms_norm(x, residual, normalized_shape, weight, eps, axis, out, bint return_stats, bint checked=False):
    """As `functional.rms_norm`, with a residual as `functional.add_rms_norm`, or None."""
    cdef char reduced[FN_MAX_AXES]
    if not cnp.PyArray_CheckExact(x) or not mark_normalized(x, normalized_shape, weight, axis, reduced):
        return None
    if eps is None:
        eps = FLT_EPSILON if compute_type(storage_type(x)) == FN_F32 else DBL_EPSILON
    return normalize(x, residual, None, reduced, weight, None, eps, 0, 0, 0, out,
                     request(FN_RMS, FN_RECIPROCAL, False, return_stats, checked))


def standardize(x, axis, ddof, eps, bint omit, out, bint return_stats, bint checked=False):
    """As `functional.standardize`, or None."""
    cdef char reduced[FN_MAX_AXES]
    if not cnp.PyArray_CheckExact(x) or not mark_axes(axis, cnp.PyArray_NDIM(x), reduced):
        return None
    return normalize(x, None, None, reduced, None, None, eps, ddof, 0, 0, out,
                     request(FN_LAYER, FN_DEVIATION, omit, return_stats, checked))


def min_max_scale(x, axis, least, most, bint omit, out, bint return_stats, bint checked=False):
    """As `functional.min_max_scale`, or None."""
    cdef char reduced[FN_MAX_AXES]
    if not cnp.PyArray_CheckExact(x) or not mark_axes(axis, cnp.PyArray_NDIM(x), reduced):
        return None
    return normalize(x, None, None, reduced, None, None, 0, 0, least, most, out,
                     request(FN_RANGE, FN_DEVIATION, omit, return_stats, checked))
