"""Channel norms: how their axes become a job, their drivers and their doors."""

cdef enum:
    # To what statistics belong: a channel; a channel of a sample; all samples of an element of a channel.
    BY_CHANNEL, BY_SAMPLE, BY_ELEMENT


cdef bint plan_channels(fn_job *job, int axis, int64_t groups, int by, cnp.ndarray x, cnp.ndarray y=None,
                        cnp.ndarray z=None, cnp.ndarray where=None, cnp.ndarray s=None) noexcept:
    """Describe arrays of one shape to the kernels, channels along `axis` and samples along the first; weight and bias
    are set. With `groups`, statistics belong to each of so many groups of neighbouring channels of a sample. False for
    a storage type that kernels do not know."""
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
        roles[a] = FN_KEPT if a == axis or (a > 0 if by == BY_ELEMENT else a == 0 and by == BY_SAMPLE) else FN_SHARED
    job.period = channels
    job.unit = 1
    job.shortest = FN_RUN
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


cdef bint is_table(object value, int64_t rows, int64_t cols, int typenum, const void **data) noexcept:
    """Where the elements of an array of shape (rows, cols), or (cols,) where rows is negative, are. False unless
    contiguous, of that type and shape."""
    cdef int ndim = 1 if rows < 0 else 2
    if not cnp.PyArray_CheckExact(value) or cnp.PyArray_TYPE(value) != typenum:
        return False
    if not cnp.PyArray_ISCARRAY_RO(value) or cnp.PyArray_NDIM(value) != ndim:
        return False
    data[0] = cnp.PyArray_DATA(value)
    return cnp.PyArray_DIM(value, ndim - 1) == cols and (rows < 0 or cnp.PyArray_DIM(value, 0) == rows)


cdef bint one_each(object value, int64_t channels, int typenum, const void **data) noexcept:
    """Likewise, of weight or bias of each channel; NULL for None."""
    data[0] = NULL
    return value is None or is_table(value, -1, channels, typenum, data)


cdef object as_affine(object value, object x):
    """A weight or bias as the kernels of x take it, as far as that needs no check."""
    return as_parameter(value, type_number(compute_type(storage_type(x)))) if cnp.PyArray_CheckExact(x) else value


cdef bint is_running(object value, int64_t channels) noexcept:
    """Whether a running statistic can be read and changed where it is."""
    return (
        cnp.PyArray_CheckExact(value)
        and (cnp.PyArray_TYPE(value) == cnp.NPY_FLOAT32 or cnp.PyArray_TYPE(value) == cnp.NPY_FLOAT64)
        and cnp.PyArray_NDIM(value) == 1
        and cnp.PyArray_DIM(value, 0) == channels
        and cnp.PyArray_ISCARRAY(value)
    )


cdef bint are_running(object mean, object var, int64_t channels, cnp.ndarray y) noexcept:
    """Whether that goes for both, and neither shares memory with the other or with y."""
    return (
        is_running(mean, channels) and is_running(var, channels)
        and apart(mean, y) and apart(var, y) and apart(mean, var)
    )


cdef double running_at(cnp.ndarray values, int64_t c) noexcept:
    if cnp.PyArray_TYPE(values) == cnp.NPY_FLOAT32:
        return (<float *>cnp.PyArray_DATA(values))[c]
    return (<double *>cnp.PyArray_DATA(values))[c]


cdef void bring_running(cnp.ndarray values, int64_t channels, double *to) noexcept:
    """Running statistics as doubles."""
    cdef const float *floats = <const float *>cnp.PyArray_DATA(values)
    cdef const double *doubles = <const double *>cnp.PyArray_DATA(values)
    cdef int64_t c
    if cnp.PyArray_TYPE(values) == cnp.NPY_FLOAT32:
        for c in range(channels):
            to[c] = floats[c]
    else:
        for c in range(channels):
            to[c] = doubles[c]


cdef double as_stored(cnp.ndarray values, double value) noexcept:
    """A number as a running statistic would hold it."""
    return <float>value if cnp.PyArray_TYPE(values) == cnp.NPY_FLOAT32 else value


cdef void move(cnp.ndarray values, int64_t c, double momentum, double value) noexcept:
    value = (1 - momentum) * running_at(values, c) + momentum * value
    if cnp.PyArray_TYPE(values) == cnp.NPY_FLOAT32:
        (<float *>cnp.PyArray_DATA(values))[c] = <float>value
    else:
        (<double *>cnp.PyArray_DATA(values))[c] = value


cdef void move_running(cnp.ndarray mean, cnp.ndarray var, double momentum, const double *saved, int64_t samples,
                       int64_t channels, bint skip) noexcept:
    """Running statistics move towards the averages, over the samples, of means and unbiased variances. Those of a
    channel of which nothing counts stay; with `skip` all stay, if one would move to infinity or NaN."""
    cdef unsigned word = fn_fp_enter()
    cdef int64_t kept = samples * channels, c, n
    cdef double average, spread, count
    cdef int visit
    for visit in range(1 - skip, 2):
        for c in range(channels):
            average = spread = 0
            for n in range(samples):
                count = saved[n * channels + c]
                average += saved[kept + n * channels + c]
                spread += saved[2 * kept + n * channels + c] * (count / (count - 1))
            average /= samples
            spread /= samples
            if saved[c] == 0:
                continue
            if visit:
                move(mean, c, momentum, average)
                move(var, c, momentum, spread)
            elif not (as_stored(mean, average) - as_stored(mean, average) == 0
                      and as_stored(var, spread) - as_stored(var, spread) == 0):
                fn_fp_leave(word)
                return
    fn_fp_leave(word)


cdef object from_front(object axis, object x):
    """An axis that may be counted from the end, counted from the front; anything unusual as it is."""
    if type(axis) is int and axis < 0 and cnp.PyArray_CheckExact(x):
        return axis + cnp.PyArray_NDIM(x)
    return axis


cdef object begin_channels(fn_job *job, object x, object axis, object weight, object bias, object eps, object where,
                           object out, bint checked):
    """The array to write, with parameters and `eps` in the job; None for anything unusual."""
    cdef int storage, parameters, typenum
    cdef int64_t channels
    begin(job)
    if not cnp.PyArray_CheckExact(x) or type(axis) is not int or cnp.PyArray_NDIM(x) < 2:
        return None
    if not 0 <= axis < cnp.PyArray_NDIM(x):
        return None
    storage = storage_type(x)
    if storage < 0:
        return None
    channels = cnp.PyArray_DIM(x, axis)
    parameters = type_number(compute_type(storage))
    typenum = type_number(result_storage(storage))
    if not one_each(weight, channels, parameters, &job.weight) or not one_each(bias, channels, parameters, &job.bias):
        return None
    if not number(eps, &job.eps) or job.eps < 0 or not is_mask(where, x):
        return None
    job.finish = FN_RECIPROCAL
    if out is None:
        if cnp.PyArray_IS_C_CONTIGUOUS(x):
            return cnp.PyArray_EMPTY(cnp.PyArray_NDIM(x), cnp.PyArray_DIMS(x), typenum, 0)
        return numpy.empty_like(x, cnp.PyArray_DescrFromType(typenum), "K", False)  # in the order of x
    if not is_result(out, x, typenum):
        return None
    if not checked and not (may_write(out, (x,)) and all_apart(out, (weight, bias, where))):
        return None
    return out


cdef int share_scale(fn_job *job, crew *team) except -1 nogil:
    """Apply statistics that are known: those of `state`, one column per channel."""
    cdef int64_t channels = job.period, chunks
    job.folded = malloc(4 * max(<int64_t>1, channels) * sizeof(double))
    if job.folded == NULL:
        with gil:
            raise MemoryError(f"parameters of {channels} channels")
    run(team.table.find_special[job.dtype], job, 0, channels, &job.quiet)
    run(team.table.fold_channels[job.dtype], job, 0, channels, NULL)
    if job.columns:
        chunks = job.outer * parts(job.n, job.chunk)
        share(team.table.scale_columns[job.dtype], job, 0, chunks * parts(job.inner.size, FN_STRIP),
              min(job.n, job.chunk) * min(job.inner.size, <int64_t>FN_STRIP), team)
    else:
        share_chunks(team.table.scale_rows, job, team)
    free(job.folded)
    return 0


cdef int share_batch(fn_job *job, fn_job *by_sample, crew *team) except -1 nogil:
    """Normalize each channel: in one visit where it fits a cache, else statistics first, applied in memory's order."""
    cdef int64_t channels = job.period
    if in_one_visit(job):
        share_norm(job, team)
        return 0
    job.state = by_sample.state = <double *>malloc(FN_PLANES * channels * sizeof(double))
    if job.state == NULL:
        with gil:
            raise MemoryError(f"states of {channels} channels")
    job.state_stride = by_sample.state_stride = channels
    try:
        run(team.table.find_special[job.dtype], job, 0, channels, &job.quiet)
        share_moments(job, team)
        share(team.table.norm_careful_only[job.dtype], job, 0, channels, 1, team)
        share_scale(by_sample, team)
    finally:
        free(job.state)
    return 0


cdef int run_batch(fn_job *job, fn_job *by_sample) except -1 nogil:
    """`by_sample`: the same arrays as planes of samples and channels; with `given` all that is asked for."""
    cdef crew team
    gather_crew(&team, job)
    by_sample.stream = job.stream
    try:
        if job.given:
            share_scale(by_sample, &team)
        else:
            share_batch(job, by_sample, &team)
    finally:
        fn_scratch_give(team.scratch)
    return 0


cdef tuple new_statistics(fn_job *job, int64_t samples, int64_t channels):
    """Empty arrays for the mean and the spread of channels, or (samples >= 0) of those of each sample."""
    cdef cnp.npy_intp shape[2]
    cdef int ndim = 1 if samples < 0 else 2, typenum = type_number(job.out_dtype)
    shape[0] = samples
    shape[ndim - 1] = channels
    mean = cnp.PyArray_EMPTY(ndim, shape, typenum, 0)
    spread = cnp.PyArray_EMPTY(ndim, shape, typenum, 0)
    job.mean = cnp.PyArray_DATA(mean)
    job.spread = cnp.PyArray_DATA(spread)
    return mean, spread


cdef object normalize_channels(fn_job *job, cnp.ndarray x, cnp.ndarray y, int64_t samples, int64_t kinds,
                               bint return_stats):
    """y, with the statistics of each of so many kinds of each sample."""
    cdef cnp.ndarray mean = None, spread = None
    if return_stats:
        mean, spread = new_statistics(job, samples, kinds)
    if cnp.PyArray_SIZE(x) == 0:
        fill_nan(mean, spread)
    else:
        job.written = IN_CACHE if same_place(x, y) else cnp.PyArray_NBYTES(y)
        with nogil:
            drive(share_norm, job)
    return (y, mean, spread) if return_stats else y


def batch_norm(x, running_mean, running_var, weight, bias, bint training, momentum, eps, axis, bint relu, where,
               bint skip, out, bint return_stats, bint checked=False):
    """As `functional.batch_norm`, or None. With `checked`, `where` leaves no channel with a single value."""
    cdef fn_job job, by_sample
    cdef cnp.ndarray y, mean = None, spread = None
    cdef int64_t channels, c
    cdef double moved
    cdef bint known = running_mean is not None
    weight, bias = as_affine(weight, x), as_affine(bias, x)
    axis = from_front(axis, x)
    y = begin_channels(&job, x, axis, weight, bias, eps, where, out, checked)
    if y is None or not number(momentum, &moved) or (where is not None and not checked):
        return None
    channels = cnp.PyArray_DIM(x, axis)
    if known != (running_var is not None) or not (known or training):
        return None
    if known and not are_running(running_mean, running_var, channels, y):
        return None
    if training and cnp.PyArray_SIZE(x) > 0 and (job.eps == 0 or (where is None and cnp.PyArray_SIZE(x) == channels)):
        return None
    job.relu = relu
    plan_channels(&job, axis, 0, BY_CHANNEL, x, y, None, where)
    job.written = IN_CACHE if same_place(x, y) else cnp.PyArray_NBYTES(y)
    job.given = not training
    if return_stats:
        mean, spread = new_statistics(&job, -1, channels)
    if training and cnp.PyArray_SIZE(x) == 0:
        fill_nan(mean, spread)
        return (y, mean, spread) if return_stats else y
    fn_copy(&by_sample, &job)
    if not job.columns:
        plan_channels(&by_sample, axis, 0, BY_SAMPLE, x, y, None, where)
    if not job.columns and by_sample.columns and axis == 1:  # short planes: samples as rows of all their elements
        plan_channels(&by_sample, axis, 0, BY_ELEMENT, x, y, None, where)
        by_sample.places = cnp.PyArray_SIZE(x) // max(<int64_t>1, cnp.PyArray_DIM(x, 0) * channels)
    saved = bytearray((3 if training else FN_PLANES) * channels * sizeof(double)) if known else None
    if known:
        job.saved = <double *><char *>saved
    if not training:
        by_sample.state = job.saved
        by_sample.state_stride = channels
        job.saved = NULL
        for c in range(channels):
            by_sample.state[FN_COUNT * channels + c] = 1
        bring_running(running_mean, channels, by_sample.state + FN_MEAN * channels)
        bring_running(running_var, channels, by_sample.state + FN_VAR * channels)
    else:
        by_sample.mean = by_sample.spread = NULL
        by_sample.saved = NULL
    with nogil:
        run_batch(&job, &by_sample)
    if training and known:
        move_running(running_mean, running_var, moved, job.saved, 1, channels, skip)
    return (y, mean, spread) if return_stats else y


def instance_norm(x, running_mean, running_var, weight, bias, momentum, eps, axis, out, bint return_stats,
                  bint checked=False):
    """As `functional.instance_norm` by the statistics of x, or None."""
    cdef fn_job job
    cdef cnp.ndarray y
    cdef int64_t channels, samples
    cdef double moved
    cdef bint known = running_mean is not None
    weight, bias = as_affine(weight, x), as_affine(bias, x)
    axis = from_front(axis, x)
    y = begin_channels(&job, x, axis, weight, bias, eps, None, out, checked)
    if y is None or axis == 0 or not number(momentum, &moved) or known != (running_var is not None):
        return None
    samples = cnp.PyArray_DIM(x, 0)
    channels = cnp.PyArray_DIM(x, axis)
    if known and not are_running(running_mean, running_var, channels, y):
        return None
    if cnp.PyArray_SIZE(x) > 0 and cnp.PyArray_SIZE(x) == samples * channels:
        return None
    plan_channels(&job, axis, 0, BY_SAMPLE, x, y)
    saved = bytearray(3 * samples * channels * sizeof(double)) if known else None
    if known:
        job.saved = <double *><char *>saved
    result = normalize_channels(&job, x, y, samples, channels, return_stats)
    if known and cnp.PyArray_SIZE(x) > 0:
        move_running(running_mean, running_var, moved, job.saved, samples, channels, False)
    return result


def group_norm(x, groups, weight, bias, eps, axis, out, bint return_stats, bint checked=False):
    """As `functional.group_norm`, or None."""
    cdef fn_job job
    cdef cnp.ndarray y
    cdef int64_t channels, count
    weight, bias = as_affine(weight, x), as_affine(bias, x)
    axis = from_front(axis, x)
    y = begin_channels(&job, x, axis, weight, bias, eps, None, out, checked)
    if y is None or axis == 0 or type(groups) is not int or groups <= 0 or groups > 1 << 40:
        return None
    channels = cnp.PyArray_DIM(x, axis)
    count = groups
    if channels % count or cnp.PyArray_SIZE(x) == count:
        return None
    plan_channels(&job, axis, count, BY_SAMPLE, x, y)
    return normalize_channels(&job, x, y, cnp.PyArray_DIM(x, 0), count, return_stats)
