"""The door of exact quantiles."""

# Columns of a strip: at most so many are worked on side by side, and fewer would use little of what memory sends.
cdef enum:
    WIDEST_STRIP = 16
    NARROWEST_STRIP = 4


cdef int share_quantiles(fn_job *job, crew *team) except -1 nogil:
    """Quantiles of every kept index. Strips are as many as keep the crew busy: how they are cut decides no bit."""
    cdef int64_t cols = job.inner.size, strips = parts(parts(cols, WIDEST_STRIP), team.threads) * team.threads
    if not job.columns:
        share(team.table.quantiles_rows[job.dtype], job, 0, job.outer, job.n, team)
        return 0
    job.strip = max(min(parts(cols, strips), <int64_t>WIDEST_STRIP), min(cols, <int64_t>NARROWEST_STRIP))
    share(team.table.quantiles_columns[job.dtype], job, 0, job.outer * parts(cols, job.strip), job.n * job.strip, team)
    return 0


def quantiles(x, axis, q):
    """(values, counts, flags) of each index of an axis over all others; NaN does not count.

    `q`: ascending probabilities, float64. Values: float64 of shape (len(q), features), interpolated between the exact
    order statistics in double as numpy.nanpercentile does it; NaN of nothing. Flags: 2 if something is infinite.
    """
    cdef char reduced[FN_MAX_AXES]
    cdef fn_job job
    cdef cnp.ndarray array, probabilities, values, counts
    cdef cnp.npy_intp shape[2]
    cdef const double *p
    cdef char *infinite
    cdef int64_t features, i, first, wanted
    cdef int a, flags = 0
    if not cnp.PyArray_CheckExact(x) or type(axis) is not int or not cnp.PyArray_CheckExact(q):
        return None
    array, probabilities = x, q
    if not 0 <= axis < cnp.PyArray_NDIM(array) or cnp.PyArray_TYPE(probabilities) != cnp.NPY_FLOAT64:
        return None
    if cnp.PyArray_NDIM(probabilities) != 1 or not cnp.PyArray_ISCARRAY_RO(probabilities):
        return None
    wanted = cnp.PyArray_DIM(probabilities, 0)
    if wanted == 0:
        return None
    p = <const double *>cnp.PyArray_DATA(probabilities)
    for i in range(wanted):
        if not (0 <= p[i] <= 1) or (i > 0 and p[i] < p[i - 1]):
            return None
    for a in range(cnp.PyArray_NDIM(array)):
        reduced[a] = FN_REDUCED
    reduced[<int>axis] = FN_KEPT
    begin(&job)
    if not fill_job(&job, reduced, array):
        return None
    shape[0] = wanted
    shape[1] = features = cnp.PyArray_DIM(array, axis)
    values = cnp.PyArray_EMPTY(2, shape, cnp.NPY_FLOAT64, 0)
    counts = cnp.PyArray_EMPTY(1, shape + 1, cnp.NPY_INT64, 0)
    infinite = <char *>malloc(max(features, <int64_t>1))
    if infinite == NULL:
        raise MemoryError(f"flags of {features} features")
    job.counts = <int64_t *>cnp.PyArray_DATA(counts)
    job.infinite = infinite
    job.state_stride = features
    try:
        for first in range(0, wanted, FN_PROBABILITIES):
            job.mean = <double *>cnp.PyArray_DATA(values) + first * features
            job.probability = p + first
            job.probabilities = <int>min(wanted - first, <int64_t>FN_PROBABILITIES)
            drive_released(share_quantiles, &job)
        for i in range(features):
            flags |= 2 * infinite[i]
    finally:
        free(infinite)
    return values, counts, flags
