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


cdef bint parameter(object value, cnp.ndarray x, const char *reduced, int typenum, const void **data) noexcept:
    """Where the elements of weight or bias are (NULL: None). False unless contiguous, of the right type and shape."""
    cdef int a, at = 0
    data[0] = NULL
    if value is None:
        return True
    if not cnp.PyArray_CheckExact(value) or cnp.PyArray_TYPE(value) != typenum:
        return False
    if not cnp.PyArray_ISCARRAY_RO(value):
        return False
    for a in range(cnp.PyArray_NDIM(x)):
        if reduced[a]:
            if at == cnp.PyArray_NDIM(value) or cnp.PyArray_DIM(value, at) != cnp.PyArray_DIM(x, a):
                return False
            at += 1
    data[0] = cnp.PyArray_DATA(value)
    return at == cnp.PyArray_NDIM(value)


cdef object normalize(cnp.ndarray x, const char *reduced, object weight, object bias, object eps, object ddof, int kind,
                      object out, bint return_stats, bint checked):
    """y, or (y, mean, spread); None for anything unusual. `checked`: out was found to share no element with x."""
    cdef fn_job job
    cdef cnp.ndarray y, mean = None, spread = None
    cdef int dtype = storage_type(x), typenum = cnp.NPY_FLOAT32 if dtype == FN_F32 else cnp.NPY_FLOAT64
    cdef bint in_place = False
    begin(&job)
    if dtype < 0 or not parameter(weight, x, reduced, typenum, &job.weight):
        return None
    if not parameter(bias, x, reduced, typenum, &job.bias):
        return None
    if not number(eps, &job.eps) or not number(ddof, &job.ddof) or job.eps < 0:
        return None
    if out is None:
        y = cnp.PyArray_EMPTY(cnp.PyArray_NDIM(x), cnp.PyArray_DIMS(x), typenum, 0)
    else:
        if not cnp.PyArray_CheckExact(out) or cnp.PyArray_TYPE(out) != typenum or not same_shape(out, x):
            return None
        y = out
        if not cnp.PyArray_ISNOTSWAPPED(y) or not cnp.PyArray_ISWRITEABLE(y):
            return None
        in_place = same_place(x, y)
        if not checked:
            if not in_place and not apart(x, y):
                return None
            if not cnp.PyArray_IS_C_CONTIGUOUS(y):  # its elements might overlap each other
                return None
            if (weight is not None and not apart(weight, y)) or (bias is not None and not apart(bias, y)):
                return None
    job.finish = kind
    if return_stats:
        mean = new_kept(x, reduced, False, typenum)
        spread = new_kept(x, reduced, False, typenum)
        job.mean = cnp.PyArray_DATA(mean)
        job.spread = cnp.PyArray_DATA(spread)
    fill_job(&job, reduced, x, y)
    if cnp.PyArray_SIZE(x) == 0:
        if return_stats:
            mean.fill(float("nan"))
            spread.fill(float("nan"))
    else:
        job.stream = not in_place and cnp.PyArray_NBYTES(y) >= stream_threshold
        if cnp.PyArray_SIZE(x) < min(GIL_THRESHOLD, work_threshold):  # sooner done than the GIL is handed over
            run_norm(&job)
        else:
            with nogil:
                run_norm(&job)
    return (y, unwrap(mean), unwrap(spread)) if return_stats else y


def layer_norm(x, normalized_shape, weight, bias, eps, axis, out, bint return_stats, bint checked=False):
    """As `functional.layer_norm`, or None."""
    cdef char reduced[FN_MAX_AXES]
    cdef int a, ndim, trailing = 1
    if not cnp.PyArray_CheckExact(x):
        return None
    ndim = cnp.PyArray_NDIM(x)
    if axis is not None:
        if normalized_shape is not None or axis == () or not mark_axes(axis, ndim, reduced):
            return None
    else:
        if type(normalized_shape) is tuple:
            trailing = <int>len(<tuple>normalized_shape)
        elif normalized_shape is None and cnp.PyArray_CheckExact(weight):
            trailing = cnp.PyArray_NDIM(weight)
        elif normalized_shape is not None and type(normalized_shape) is not int:
            return None
        if not 1 <= trailing <= ndim:
            return None
        for a in range(ndim):
            reduced[a] = a >= ndim - trailing
        if type(normalized_shape) is int and normalized_shape != cnp.PyArray_DIM(x, ndim - 1):
            return None
        if type(normalized_shape) is tuple:
            for a in range(trailing):
                size = (<tuple>normalized_shape)[a]
                if type(size) is not int or size != cnp.PyArray_DIM(x, ndim - trailing + a):
                    return None
    return normalize(x, reduced, weight, bias, eps, 0, FN_RECIPROCAL, out, return_stats, checked)


def standardize(x, axis, ddof, eps, out, bint return_stats, bint checked=False):
    """As `functional.standardize`, or None."""
    cdef char reduced[FN_MAX_AXES]
    if not cnp.PyArray_CheckExact(x) or not mark_axes(axis, cnp.PyArray_NDIM(x), reduced):
        return None
    return normalize(x, reduced, None, None, eps, ddof, FN_DEVIATION, out, return_stats, checked)
