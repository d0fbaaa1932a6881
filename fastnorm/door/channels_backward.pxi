"""Backward passes of channel norms: their driver and their doors."""

# Bytes of x and dy that one visit brings into a core's own cache.
cdef int64_t VISIT_BYTES = 800 << 10
# Means in flight: samples are worked on some at a time, so that no memory grows with their count. Decides bits.
cdef int64_t PLACES = 16384
# Elements of a channel of a sample below which groups are left to the kernels of layer norm. Decides bits.
cdef int64_t LEAST = 16
# Places of all slots of a wave.
cdef int64_t WAVE_PLACES = 131072


cdef bint is_in_order(const fn_job *job) noexcept nogil:
    """Whether kept indices are walked in the order of their places."""
    cdef int64_t size = job.inner.size
    cdef int a
    if size > 1 and job.inner.step[FN_P] != 1:
        return False
    for a in range(job.kept_ndim - 1, -1, -1):
        if job.kept[a].step[FN_P] != size:
            return False
        size *= job.kept[a].size
    return True


cdef bint cut_channels(fn_job *job) noexcept nogil:
    """Set chunks, which decide bits, and blocks, which do not; return whether a block can be worked on in one visit."""
    cdef int64_t pair = 2 * (4 if job.dtype == FN_F32 else 8), run = job.stretch[FN_X], cols = job.inner.size, size
    if job.columns:
        job.chunk = fn_block_rows(job.beside)
        if job.n >= 16 * job.chunk:
            job.chunk *= 4
        job.strip = FN_STRIP
        size = min(FN_STRIP, cols)
        if job.n < FN_SHORT:
            while job.strip * job.n > FN_VISIT:
                job.strip //= 2
            size = min(job.strip, cols)
        while job.n >= FN_SHORT and job.beside > FN_STRIP // 2 and size > 64 and size * job.n * pair > VISIT_BYTES:
            size //= 2
        if size * job.n * pair > VISIT_BYTES or (job.span > 1 and (size % job.span or cols % job.span)):
            return False
        job.strip = size
        return job.span == 1 or is_in_order(job)
    job.chunk = FN_CHUNK if run > FN_CHUNK else FN_CHUNK // run * run
    job.block = max(<int64_t>1, min(<int64_t>16, FN_TILE // run))
    size = job.block
    while size > 1 and 2 * size * job.n * pair > VISIT_BYTES:
        size //= 2
    size = parts(size, job.span) * job.span
    if size * job.n * pair > VISIT_BYTES or not (job.span == 1 or is_in_order(job)):
        return False
    job.block = size
    return True


cdef int64_t slots_of(const fn_job *job) noexcept nogil:
    """How many slots a wave of chunks may have."""
    cdef int64_t chunks = parts(job.n, job.chunk)
    return max(<int64_t>1, min(min(chunks, <int64_t>FN_WAVE), WAVE_PLACES // (job.outer * job.inner.size)))


cdef int64_t take_sums(fn_job *job) noexcept nogil:
    """Take memory for what `share_channels` sums, of this job and of others with no more kept indices; return how many
    slots there are, 0 where memory ran out."""
    cdef int64_t kept = job.outer * job.inner.size, size = 4 if job.dtype == FN_F32 else 8, slots
    cdef fn_job cut = job[0]
    cut_channels(&cut)
    slots = slots_of(&cut)
    job.slots = <double *>malloc((1 + slots) * FN_SUMS * kept * sizeof(double))
    job.factors = malloc(FN_FACTORS * kept * size)
    job.slopes = <fn_slope *>malloc(kept // job.span * sizeof(fn_slope))
    return slots if job.slots != NULL and job.factors != NULL and job.slopes != NULL else 0


cdef void share_channels(fn_job *job, int64_t most_slots, crew *team) noexcept nogil:
    """dx, and what is added to dweight and dbias: in one visit where blocks fit a cache, else sums first."""
    cdef int64_t kept = job.outer * job.inner.size
    cdef bint visit = cut_channels(job)
    cdef int64_t chunks = parts(job.n, job.chunk), blocks, block, slots
    cdef const fn_table *table = team.table
    if job.columns:
        blocks = job.outer * parts(job.inner.size, job.strip)
        block = min(job.strip, job.inner.size)
    else:
        blocks = parts(kept, job.block)
        block = job.block
    visit = visit and (blocks >= 2 * team.threads or team.threads == 1)
    slots = min(slots_of(job), most_slots)
    job.width = kept
    if visit:
        share(table.channel_visit[job.dtype], job, 0, blocks, job.n * block, team)
    else:
        job.first = 0
        while job.first < chunks:
            job.wave = min(slots, chunks - job.first)
            share(table.channel_sums[job.dtype], job, 0, job.wave * blocks, job.chunk * block, team)
            share(table.channel_fold[job.dtype], job, 0, kept, job.wave, team)
            job.first += job.wave
        share(table.channel_settle[job.dtype], job, 0, kept // job.span, 1, team)
        share(table.channel_dx[job.dtype], job, 0, chunks * blocks, job.chunk * block, team)
    run(table.channel_totals[job.dtype], job, 0, job.period, NULL)


cdef struct channel_request:
    # What is asked of a backward pass beside its arrays. groups: 0 where each channel has statistics of its own.
    int64_t groups
    bint by_sample, given, relu


cdef object channel_backward(object dy, object x, object mean, object rstd, object weight, object channel_axis,
                             object y, object where, object out, object dtype, channel_request ask):
    """(dx, dweight, dbias); None for anything unusual. `dtype`: that of dweight and dbias; out then shares no element
    with what is read, unless it is x or dy itself."""
    cdef fn_job job
    cdef cnp.ndarray dx, dweight = None, dbias
    cdef cnp.npy_intp shape[1]
    cdef const char *means
    cdef const char *rstds
    cdef int storage, typenum, written, parameter_storage, axis
    cdef int64_t channels, samples, cells, step, at, offset, slots
    cdef bint in_place = False
    cdef crew team
    if not cnp.PyArray_CheckExact(x) or not goes_with(dy, x):
        return None
    if type(channel_axis) is not int or not -cnp.PyArray_NDIM(x) <= channel_axis < cnp.PyArray_NDIM(x):
        return None
    axis = channel_axis
    if axis < 0:
        axis += cnp.PyArray_NDIM(x)
    if cnp.PyArray_NDIM(x) < 2 or (ask.by_sample and axis == 0):
        return None
    begin(&job)
    storage = storage_type(x)
    if not ask.relu:
        y = None
    elif not goes_with(y, x):
        return None
    typenum = type_number(compute_type(storage))
    parameter_storage = result_storage(storage)
    if dtype is not None:
        parameter_storage = float_storage((<cnp.dtype>dtype).type_num)
    elif cnp.PyArray_CheckExact(weight):
        parameter_storage = storage_type(weight)
    weight = as_parameter(weight, typenum)
    channels = cnp.PyArray_DIM(x, axis)
    samples = cnp.PyArray_DIM(x, 0) if ask.by_sample else -1
    cells = ask.groups if ask.groups else channels
    if ask.groups and (channels % ask.groups or cnp.PyArray_SIZE(x) < LEAST * channels * samples):
        return None  # too few elements of each channel
    if not one_each(weight, channels, typenum, &job.weight):
        return None
    if not (is_table(mean, samples, cells, typenum, <const void **>&means)
            and is_table(rstd, samples, cells, typenum, <const void **>&rstds)):
        return None
    if not is_mask(where, x):
        return None
    written = type_number(result_storage(storage))
    if out is None:
        dx = cnp.PyArray_EMPTY(cnp.PyArray_NDIM(x), cnp.PyArray_DIMS(x), written, 0)
    else:
        if not is_result(out, x, written):
            return None
        dx = out
        in_place = same_place(x, dx) or same_place(dy, dx)
        if dtype is None and not (may_write(dx, (x, dy)) and all_apart(dx, (mean, rstd, weight, where, y))):
            return None
    shape[0] = channels
    dbias = cnp.PyArray_ZEROS(1, shape, type_number(parameter_storage), 0)
    if weight is not None:
        dweight = cnp.PyArray_ZEROS(1, shape, type_number(parameter_storage), 0)
    if cnp.PyArray_SIZE(x) == 0:
        return dx, dweight, dbias
    step = max(<int64_t>1, PLACES // channels) if ask.by_sample else cnp.PyArray_DIM(x, 0)
    job.parameter_dtype = parameter_storage
    job.span = channels // cells
    job.given = ask.given
    job.relu = ask.relu
    job.written = IN_CACHE if in_place else cnp.PyArray_NBYTES(dx)
    job.dbias = cnp.PyArray_DATA(dbias)
    if dweight is not None:
        job.dweight = cnp.PyArray_DATA(dweight)
    describe_samples(&job, axis, ask.by_sample, 0, step, x, dx, dy, where, y)
    gather_crew(&team, &job)
    job.totals = <double *>calloc(2 * channels, sizeof(double))
    slots = take_sums(&job)
    try:
        if slots == 0 or job.totals == NULL:
            raise MemoryError(f"sums of {channels} channels")
        at = 0
        while at < cnp.PyArray_DIM(x, 0):
            offset = at * cells * cnp.PyArray_ITEMSIZE(mean) if ask.by_sample else 0
            job.mean = <void *>(means + offset)
            job.spread = <void *>(rstds + offset)
            if at > 0:
                describe_samples(&job, axis, ask.by_sample, at, step, x, dx, dy, where, y)
            if keeps_gil(&job):
                share_channels(&job, slots, &team)
            else:
                with nogil:
                    share_channels(&job, slots, &team)
            at += step
        run(team.table.channel_finish[job.dtype], &job, 0, channels, NULL)
    finally:
        free(job.slots)
        free(job.factors)
        free(job.slopes)
        free(job.totals)
        fn_scratch_give(team.scratch)
    return dx, dweight, dbias


cdef int describe_samples(fn_job *job, int axis, bint by_sample, int64_t start, int64_t count, object x, object dx,
                          object dy, object where, object y) except -1:
    """Describe `count` samples from `start` on to the kernels."""
    if start > 0 or count < cnp.PyArray_DIM(x, 0):
        x, dx, dy, where, y = (None if v is None else v[start:start + count] for v in (x, dx, dy, where, y))
    plan_channels(job, axis, 0, by_sample, x, dx, dy, where, y)
    return 0


def batch_norm_backward(dy, x, mean, rstd, weight, bint training, channel_axis, activation, y, where, out, dtype=None):
    """As `functional.batch_norm_backward`, or None. `dtype`, that of dweight and dbias: the call was checked."""
    cdef channel_request ask = channel_request(0, False, not training, activation is not None)
    if activation is not None and not (type(activation) is str and activation == "relu" and y is not None):
        return None
    return channel_backward(dy, x, mean, rstd, weight, channel_axis, y, where, out, dtype, ask)


def group_norm_backward(dy, x, mean, rstd, num_groups, weight, channel_axis, out, dtype=None):
    """As `functional.group_norm_backward`, or None. `dtype`, that of dweight and dbias: the call was checked."""
    cdef channel_request ask = channel_request(0, True, False, False)
    if type(num_groups) is not int or not 0 < num_groups < 1 << 62:
        return None
    ask.groups = num_groups
    return channel_backward(dy, x, mean, rstd, weight, channel_axis, None, None, out, dtype, ask)


def instance_norm_backward(dy, x, mean, rstd, weight, bint use_input_stats, channel_axis, out, dtype=None):
    """As `functional.instance_norm_backward`, or None. `dtype`, that of dweight and dbias: the call was checked."""
    cdef channel_request ask = channel_request(0, use_input_stats, not use_input_stats, False)
    return channel_backward(dy, x, mean, rstd, weight, channel_axis, None, None, out, dtype, ask)


def sum_positions(cnp.ndarray values, dtype):
    """The sums of float64 rows that follow each other, rounded once to a floating type."""
    cdef fn_job job
    cdef int64_t channels = cnp.PyArray_DIM(values, 0), positions = cnp.PyArray_DIM(values, 1), c, i
    cdef const double *from_ = <const double *>cnp.PyArray_DATA(values)
    cdef unsigned word
    cdef cnp.ndarray totals = numpy.zeros(channels), result = numpy.empty(channels, dtype)
    begin(&job)
    job.totals = <double *>cnp.PyArray_DATA(totals)
    job.dweight = cnp.PyArray_DATA(result)
    job.parameter_dtype = float_storage(cnp.PyArray_TYPE(result))
    word = fn_fp_enter()
    for c in range(channels):
        for i in range(positions):
            job.totals[c] += from_[c * positions + i]
    fn_fp_leave(word)
    run(fn_active_table().channel_finish[FN_F64], &job, 0, channels, NULL)
    return result
