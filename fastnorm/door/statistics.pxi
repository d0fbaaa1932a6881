"""Doors of the statistics."""

cdef bint is_mask(object value, cnp.ndarray x) noexcept:
    """Whether `where` is None or an exact array of booleans of the shape of x."""
    return value is None or (
        cnp.PyArray_CheckExact(value) and cnp.PyArray_TYPE(value) == cnp.NPY_BOOL and same_shape(value, x)
    )


ctypedef fused real:
    float
    double


cdef bint are_up_to(const real *values, int64_t count, double most) noexcept nogil:
    """Whether no number is negative, NaN or above `most`."""
    cdef bint found = True
    cdef int64_t i
    for i in range(count):
        found &= (0 <= values[i]) & (values[i] <= most)
    return found


def can_weigh(cnp.ndarray weights, cnp.ndarray x):
    """Whether no weight is negative, infinite or NaN, and a double holds the sum of as many as x has elements."""
    cdef int64_t size = cnp.PyArray_SIZE(weights)
    cdef double most = 0.5 * DBL_MAX / max(<int64_t>1, cnp.PyArray_SIZE(x))  # half: beyond, the product decides
    cdef const void *data = cnp.PyArray_DATA(weights)
    cdef int typenum = cnp.PyArray_TYPE(weights)
    if size == 0:
        return True
    if size < GIL_THRESHOLD and cnp.PyArray_ISCARRAY_RO(weights):  # a call to minmax takes longer than to look at few
        if typenum == cnp.NPY_FLOAT32 and are_up_to(<const float *>data, size, most):
            return True
        if typenum == cnp.NPY_FLOAT64 and are_up_to(<const double *>data, size, most):
            return True
    found = minmax(weights, None, False)
    return found is not None and <double>found[0] >= 0 and <double>found[1] * cnp.PyArray_SIZE(x) <= DBL_MAX


cdef bint fill_masked(fn_job *job, const char *reduced, cnp.ndarray x, object where, object weights,
                      bint omit) noexcept:
    """Describe x and what counts of it to the kernels. Weights must have been found finite and not negative."""
    if not is_mask(where, x) or not (weights is None or cnp.PyArray_CheckExact(weights)):
        return False
    if not fill_job(job, reduced, x, None, None, where, weights):
        return False
    job.omit = omit and float_storage(cnp.PyArray_TYPE(x)) >= 0
    return True


def mean_var(x, axis, ddof, bint keepdims, dtype, bint want_mean, bint want_spread, bint root, where=None, weights=None,
             bint omit=False, bint checked=False):
    """(mean, var or std); an element that is not wanted is None. `dtype`: None or a floating type as np.dtype.
    `checked`: weights were found to be such that they can weigh."""
    cdef char reduced[FN_MAX_AXES]
    cdef fn_job job
    cdef cnp.ndarray array, mean = None, spread = None
    cdef int typenum
    if not cnp.PyArray_CheckExact(x):
        return None
    array = x
    begin(&job)
    if not number(ddof, &job.ddof):
        return None
    if not mark_axes(axis, cnp.PyArray_NDIM(array), reduced):
        return None
    if not fill_masked(&job, reduced, array, where, weights, omit):
        return None
    if weights is not None and not checked and not can_weigh(weights, array):
        return None
    job.out_dtype = result_storage(job.array[FN_X].dtype)
    if dtype is not None:
        if not isinstance(dtype, cnp.dtype):
            return None
        job.out_dtype = float_storage((<cnp.dtype>dtype).type_num)
        if job.out_dtype < 0:
            return None
    typenum = type_number(job.out_dtype)
    job.finish = FN_DEVIATION if root else FN_VARIANCE
    if want_mean:
        mean = new_kept(array, reduced, keepdims, typenum)
        job.mean = cnp.PyArray_DATA(mean)
    if want_spread:
        spread = new_kept(array, reduced, keepdims, typenum)
        job.spread = cnp.PyArray_DATA(spread)
    with nogil:
        drive(share_moments, &job)
    return unwrap(mean) if want_mean else None, unwrap(spread) if want_spread else None


cdef int order_of(cnp.ndarray state) noexcept:
    """The order of the moments that a state of so many rows holds."""
    return 2 if cnp.PyArray_DIM(state, 0) <= FN_M3 else 3 if cnp.PyArray_DIM(state, 0) <= FN_M4 else 4


def update(cnp.ndarray state, cnp.ndarray x, axis, bint extrema, where=None, weights=None, bint omit=False):
    """Fold x, in canonical form, into a state: one row per plane of its order, one column per kept element."""
    cdef char reduced[FN_MAX_AXES]
    cdef fn_job job
    begin(&job)
    if not mark_axes(axis, cnp.PyArray_NDIM(x), reduced) or not fill_masked(&job, reduced, x, where, weights, omit):
        raise AssertionError("the caller has brought x, axis, where and weights into canonical form")
    job.state = <double *>cnp.PyArray_DATA(state)
    job.state_stride = cnp.PyArray_DIM(state, 1)
    job.order = order_of(state)
    job.extrema = extrema
    job.resume = 1
    with nogil:
        drive(share_moments, &job)


def contains_nan(cnp.ndarray x, where, weights):
    """Whether there is NaN among what counts of x; all in canonical form."""
    cdef char reduced[FN_MAX_AXES]
    cdef double state[FN_PLANES]
    cdef fn_job job
    begin(&job)
    if not mark_axes(None, cnp.PyArray_NDIM(x), reduced) or not fill_masked(&job, reduced, x, where, weights, False):
        raise AssertionError("the caller has brought x, where and weights into canonical form")
    job.state = state
    job.state_stride = 1
    job.norm = FN_RANGE
    job.extrema = 1
    with nogil:
        drive(share_moments, &job)
    return state[FN_MIN] != state[FN_MIN]


cdef void whole_state(fn_job *job, cnp.ndarray state) noexcept:
    """A job on the columns of a state."""
    begin(job)
    job.state = <double *>cnp.PyArray_DATA(state)
    job.state_stride = cnp.PyArray_DIM(state, 1)
    job.order = order_of(state)
    job.kept_ndim = job.reduced_ndim = 0
    job.inner.size = job.state_stride
    job.inner.step[FN_P] = 1
    job.p = 0


def merge(cnp.ndarray into, cnp.ndarray state):
    """Merge one state into another of the same shape."""
    cdef fn_job job
    whole_state(&job, state)
    job.extrema = 1
    run(fn_active_table().merge_slots, &job, 0, 1, cnp.PyArray_DATA(into))


cdef dict FINISH = {"var": FN_VARIANCE, "std": FN_DEVIATION, "skewness": FN_SKEWNESS, "kurtosis": FN_KURTOSIS}


def finish(cnp.ndarray state, str what, double ddof, cnp.ndarray out):
    """Write the means of a state, or what else FINISH names, into a float64 array of as many elements."""
    cdef fn_job job
    whole_state(&job, state)
    job.state = NULL
    job.out_dtype = FN_F64
    job.ddof = ddof
    if what == "mean":
        job.mean = cnp.PyArray_DATA(out)
    else:
        job.finish = FINISH[what]
        job.spread = cnp.PyArray_DATA(out)
    run(fn_active_table().finish_columns, &job, 0, job.inner.size, cnp.PyArray_DATA(state))


def block_rows(int64_t columns):
    """The number of rows that one chunk of so many columns has."""
    return fn_block_rows(columns)


def minmax(x, axis, bint keepdims, where=None, bint omit=False):
    """(min, max) in the dtype of x; NaN of nothing. Integers need a mask that leaves something to every result."""
    cdef char reduced[FN_MAX_AXES]
    cdef fn_job job
    cdef crew team
    cdef cnp.ndarray array, low, high, lows, highs
    cdef int typenum
    cdef int64_t kept, units, few, pieces = 1
    cdef cnp.npy_intp shape[2]
    if not cnp.PyArray_CheckExact(x):
        return None
    array = x
    begin(&job)
    if not mark_axes(axis, cnp.PyArray_NDIM(array), reduced):
        return None
    if not fill_masked(&job, reduced, array, where, None, omit):
        return None
    kept = job.outer * job.inner.size
    if job.n == 0 and kept:
        return None
    typenum = cnp.PyArray_TYPE(array)
    low = new_kept(array, reduced, keepdims, typenum)
    high = new_kept(array, reduced, keepdims, typenum)
    few = 2 * fn_thread_count(fn_omp_max())
    while few > 2 and job.strip > 64 and job.outer * parts(job.inner.size, job.strip) < few:
        job.strip //= 2  # costs less than pieces
    units = job.outer * parts(job.inner.size, job.strip)
    if units < few and job.n * job.inner.size >= 4 * FN_CHUNK:
        # Extrema of pieces first, then of these.
        pieces = min(parts(job.n * job.inner.size, FN_CHUNK), <int64_t>FN_WAVE)
    job.chunk = max(<int64_t>1, parts(job.n, pieces))
    pieces = max(<int64_t>1, parts(job.n, job.chunk))
    shape[0] = pieces
    shape[1] = kept
    lows = low if pieces == 1 else cnp.PyArray_EMPTY(2, shape, typenum, 0)
    highs = high if pieces == 1 else cnp.PyArray_EMPTY(2, shape, typenum, 0)
    job.state_stride = kept
    job.min = cnp.PyArray_DATA(lows)
    job.max = cnp.PyArray_DATA(highs)
    with nogil:
        gather_crew(&team, &job)
        share((team.table.extrema_columns if job.columns else team.table.extrema_rows)[job.array[FN_X].dtype], &job, 0,
              units * pieces, job.chunk * min(job.inner.size, job.strip), &team)
        fn_scratch_give(team.scratch)
    if pieces > 1:
        shape_of = (<object>low).shape
        low = minmax(lows, 0, False)[0].reshape(shape_of)
        high = minmax(highs, 0, False)[1].reshape(shape_of)
    if (where is not None or omit) and float_storage(typenum) >= 0:
        nothing = (<object>low) > (<object>high)
        (<object>low)[nothing] = (<object>high)[nothing] = float("nan")
    return unwrap(low), unwrap(high)
