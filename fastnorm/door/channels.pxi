"""Channel norms: how their axes become a job."""

cdef bint plan_channels(fn_job *job, int axis, int64_t groups, bint by_sample, cnp.ndarray x, cnp.ndarray y=None,
                        cnp.ndarray z=None, cnp.ndarray where=None, cnp.ndarray s=None) noexcept:
    """Describe arrays of one shape, channels along `axis`, to the kernels; weight and bias are set. Statistics belong
    to each channel, or `by_sample` to each channel of each sample (samples lie along the first axis), or to each of
    the `groups` of neighbouring channels of a sample. False for a storage type that kernels do not know."""
    cdef const int64_t *steps[FN_ARRAYS]
    cdef int64_t split[FN_ARRAYS][FN_MAX_AXES + 1]
    cdef int64_t shape[FN_MAX_AXES + 1]
    cdef char roles[FN_MAX_AXES + 1]
    cdef int ndim = cnp.PyArray_NDIM(x), a, which
    cdef int64_t channels = cnp.PyArray_DIM(x, axis), size = channels // groups if groups else 0
    if not (use(job, FN_X, x, steps) and use(job, FN_Z, z, steps) and use(job, FN_WHERE, where, steps)
            and use(job, FN_WEIGHTS, None, steps) and use(job, FN_Y, y, steps) and use(job, FN_S, s, steps)):
        return False
    for a in range(ndim):
        shape[a] = cnp.PyArray_DIM(x, a)
        roles[a] = FN_KEPT if a == axis or (by_sample and a == 0) else FN_SHARED
    job.period = channels
    job.unit = 1
    if groups:
        for a in range(ndim, axis, -1):
            shape[a] = shape[a - 1]
            roles[a] = FN_SHARED
        shape[axis] = groups
        shape[axis + 1] = size
        roles[axis + 1] = FN_REDUCED
        for which in range(FN_ARRAYS):
            if steps[which] != NULL:
                for a in range(ndim + 1):
                    split[which][a] = steps[which][a if a <= axis else a - 1]
                split[which][axis] *= size
                steps[which] = split[which]
        ndim += 1
        job.period = groups
        job.unit = size
    job.dtype = job.out_dtype = compute_type(job.array[FN_X].dtype)
    fn_plan(job, ndim, shape, steps, roles)
    return True
