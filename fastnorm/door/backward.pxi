"""Backward passes of norms whose parameters lie along the reduced axes: their driver and their doors."""

# Elements of the sums in flight (dweight and dbias, 16 bytes): what a wave of blocks takes beside its totals.
cdef int64_t SLOTS = 131072
# Elements of x that share a slot, and half of that where there are few: else one thread would do it all. Decides bits.
cdef int64_t BLOCK = 65536


cdef void share_blocks(fn_job *job, int64_t blocks, int64_t chunks, int64_t slots, crew *team) noexcept nogil:
    """dx, and dweight and dbias of the reduced elements from `index` on: blocks in waves, folded in their order."""
    job.first = 0
    while job.first < blocks:
        job.wave = min(slots, blocks - job.first)
        share(team.table.backward_blocks[job.dtype], job, 0, job.wave * chunks, job.block * job.chunk, team)
        share(team.table.backward_fold[job.dtype], job, 0, 2 * job.width, job.wave, team)
        job.first += job.wave
    run(team.table.backward_finish[job.dtype], job, 0, job.width, NULL)


cdef int share_backward(fn_job *job, crew *team) except -1 nogil:
    """Rows of at most FN_VISIT elements in one visit; longer ones, and tall columns, are summed by chunks first."""
    cdef int64_t kept = job.outer * job.inner.size, chunks, blocks, width, slots
    cdef const fn_table *table = team.table
    cdef bint few
    job.most = 1
    if job.weight != NULL:
        run(table.backward_weight[job.dtype], job, 0, job.n, &job.most)
    job.chunk = min(job.n, <int64_t>FN_VISIT // 16 if job.columns else <int64_t>FN_VISIT)
    few = job.n * kept < 16 * BLOCK
    job.block = 8 if few else 16
    while 2 * job.block * job.n <= (BLOCK // 2 if few else BLOCK):
        job.block *= 2
    chunks = parts(job.n, job.chunk)
    blocks = parts(kept, job.block)
    width = min(job.n, max(<int64_t>1, SLOTS // (job.chunk * min(blocks, <int64_t>8))) * job.chunk)
    slots = min(min(blocks, <int64_t>FN_WAVE), max(<int64_t>1, SLOTS // width))
    job.slots = <double *>malloc((1 + slots) * 2 * width * sizeof(double))
    job.slopes = <fn_slope *>malloc(chunks * kept * sizeof(fn_slope)) if chunks > 1 else NULL
    try:
        if job.slots == NULL or (chunks > 1 and job.slopes == NULL):
            with gil:
                raise MemoryError(f"sums of {kept} rows")
        if chunks > 1:
            share(table.backward_sums[job.dtype], job, 0, chunks * blocks, job.block * job.chunk, team)
            share(table.backward_settle[job.dtype], job, 0, kept, chunks, team)
        job.index = 0
        while job.index < job.n:
            job.width = min(width, job.n - job.index)
            share_blocks(job, blocks, parts(job.width, job.chunk), slots, team)
            job.index += job.width
    finally:
        free(job.slots)
        free(job.slopes)
    return 0


cdef cnp.ndarray new_parameter(cnp.ndarray x, const char *reduced, int typenum):
    """An empty array for the gradient of a parameter: the reduced axes of x."""
    cdef char kept[FN_MAX_AXES]
    cdef int a
    for a in range(cnp.PyArray_NDIM(x)):
        kept[a] = not reduced[a]
    return new_kept(x, kept, False, typenum)


cdef bint all_apart(cnp.ndarray y, tuple inputs) noexcept:
    for value in inputs:
        if value is not None and not apart(value, y):
            return False
    return True


cdef object backward(object dy, object x, object mean, object rstd, object weight, object normalized_shape, object axis,
                     object where, object out, object dtype, int norm):
    """(dx, dweight, dbias); None for anything unusual. `dtype`: that of dweight and dbias; out then shares no element
    with what is read, unless it is x or dy itself."""
    cdef char reduced[FN_MAX_AXES]
    cdef fn_job job
    cdef cnp.ndarray dx, dweight = None, dbias = None
    cdef int storage, typenum, written
    cdef bint in_place = False
    if not cnp.PyArray_CheckExact(x) or not goes_with(dy, x):
        return None
    if not mark_normalized(x, normalized_shape, weight, axis, reduced):
        return None
    begin(&job)
    storage = storage_type(x)
    typenum = type_number(compute_type(storage))
    job.parameter_dtype = result_storage(storage)
    if dtype is not None:
        job.parameter_dtype = float_storage((<cnp.dtype>dtype).type_num)
    elif cnp.PyArray_CheckExact(weight):
        job.parameter_dtype = storage_type(weight)
    weight = as_parameter(weight, typenum)
    if not parameter(weight, x, reduced, typenum, &job.weight):
        return None
    if norm == FN_LAYER and not lies_along(False, mean, x, reduced, typenum, <const void **>&job.mean):
        return None
    if not lies_along(False, rstd, x, reduced, typenum, <const void **>&job.spread):
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
        if dtype is None and not (may_write(dx, (x, dy)) and all_apart(dx, (mean, rstd, weight, where))):
            return None
    if weight is not None:
        dweight = new_parameter(x, reduced, type_number(job.parameter_dtype))
        job.dweight = cnp.PyArray_DATA(dweight)
    if norm == FN_LAYER:
        dbias = new_parameter(x, reduced, type_number(job.parameter_dtype))
        job.dbias = cnp.PyArray_DATA(dbias)
    job.norm = norm
    fill_job(&job, reduced, x, dx, dy, where)
    if cnp.PyArray_SIZE(x) == 0:
        if dweight is not None:
            dweight.fill(0)
        if dbias is not None:
            dbias.fill(0)
    else:
        job.written = IN_CACHE if in_place else cnp.PyArray_NBYTES(dx)
        drive_released(share_backward, &job)
    return (dx, dweight, dbias) if norm == FN_LAYER else (dx, dweight)


def layer_norm_backward(dy, x, mean, rstd, weight, normalized_shape, axis, where, out, dtype=None):
    """As `functional.layer_norm_backward`, or None. `dtype`, that of dweight and dbias: the call was checked."""
    return backward(dy, x, mean, rstd, weight, normalized_shape, axis, where, out, dtype, FN_LAYER)


def rms_norm_backward(dy, x, rstd, weight, normalized_shape, axis, out, dtype=None):
    """As `functional.rms_norm_backward`, or None. `dtype`, that of dweight: the call was checked."""
    return backward(dy, x, None, rstd, weight, normalized_shape, axis, None, out, dtype, FN_RMS)
