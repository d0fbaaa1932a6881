"""normalize and the local response norm, forward and backward: their drivers and their doors."""


cdef int share_normalize(fn_job *job, crew *team) except -1 nogil:
    """In one visit where rows or columns fit a cache, else sums first."""
    cdef int64_t cols = job.inner.size, kept = job.outer * cols, chunks
    cdef const fn_table *table = team.table
    if not job.columns and job.n <= FN_CHUNK:
        share(table.normalize_rows[job.dtype], job, 0, job.outer, job.n, team)
        return 0
    if job.columns and job.n <= FN_TALL:
        job.strip = strip_in_cache(job.n)
        share(table.normalize_columns[job.dtype], job, 0, job.outer * parts(cols, job.strip), job.strip * job.n, team)
        return 0
    job.block = min(job.chunk, <int64_t>FN_TALL) if job.columns else <int64_t>FN_CHUNK
    job.chunk = FN_TALL if job.columns else FN_CHUNK
    job.state_stride = kept
    chunks = parts(job.n, job.chunk)
    job.state = <double *>malloc(3 * chunks * kept * sizeof(double))
    if job.state == NULL:
        with gil:
            raise MemoryError(f"sums of {kept} columns")
    share(table.normalize_parts[job.dtype], job, 0, job.outer * chunks, job.chunk * cols, team)
    share(table.normalize_settle[job.dtype], job, 0, kept, chunks, team)
    share(table.normalize_apply[job.dtype], job, 0, job.outer * chunks, job.chunk * cols, team)
    free(job.state)
    return 0


cdef int share_response(fn_job *job, crew *team) except -1 nogil:
    """Strips of columns, as wide as the windows of all of them fit the scratch; one column, on one thread, if none."""
    cdef fn_kernel kernel
    cdef int64_t width = job.before + 1 + job.after, column = 32 * (width + 4)  # bytes that a backward pass takes
    if not job.columns and job.kept_ndim > 0:  # channels are what is walked, however they lie in memory
        job.kept_ndim -= 1
        job.inner = job.kept[job.kept_ndim]
        job.outer //= job.inner.size
        job.columns = 1
    if column > <int64_t>FN_SCRATCH_BYTES:
        fn_scratch_give(team.scratch)
        team.threads = 1
        team.scratch = <char *>fn_scratch_take(column)
        if team.scratch == NULL:
            with gil:
                raise MemoryError(f"a window of {width} channels")
    job.strip = max(<int64_t>1, min(<int64_t>FN_STRIP // 2, <int64_t>FN_SCRATCH_BYTES // column))
    kernel = (team.table.response_columns if job.array[FN_Z].data == NULL else team.table.response_backward)[job.dtype]
    share(kernel, job, 0, job.outer * parts(job.inner.size, job.strip), job.n * min(job.inner.size, job.strip), team)
    return 0


cdef object local_result(cnp.ndarray x, object out, int typenum, bint checked, bint *in_place):
    """Where the result of x goes; None for anything unusual."""
    in_place[0] = False
    if out is None:
        return cnp.PyArray_EMPTY(cnp.PyArray_NDIM(x), cnp.PyArray_DIMS(x), typenum, 0)
    if not is_result(out, x, typenum):
        return None
    in_place[0] = same_place(x, out)
    return out if checked or may_write(out, (x,)) else None


cdef object run_local(fn_job *job, fn_driver driver, object x, object dy, const char *reduced,
                      object out, bint checked):
    """y, or dx where there is a dy, of a job whose numbers are set; None for anything unusual."""
    cdef cnp.ndarray y
    cdef bint in_place
    cdef int storage
    if not cnp.PyArray_CheckExact(x):
        return None
    storage = storage_type(x)
    if storage < 0:
        return None
    if dy is not None and not goes_with(dy, x):
        return None
    y = local_result(x, out, type_number(result_storage(storage)), checked, &in_place)
    if y is None:
        return None
    fill_job(job, reduced, x, y, dy)
    if cnp.PyArray_SIZE(x) == 0:
        return y
    job.written = IN_CACHE if in_place else cnp.PyArray_NBYTES(y)
    drive_released(driver, job)
    return y


cdef object p_norm(object x, object dy, object p, object axis, object eps, object out, bint checked,
                   int *found=NULL):
    cdef char reduced[FN_MAX_AXES]
    cdef fn_job job
    if not cnp.PyArray_CheckExact(x) or is_empty(axis) or not mark_axes(axis, cnp.PyArray_NDIM(x), reduced):
        return None
    begin(&job)
    if not number(p, &job.exponent) or not number(eps, &job.eps) or job.eps < 0:
        return None
    job.found = found
    job.shortest = FN_SHORT_NORM
    return run_local(&job, share_normalize, x, dy, reduced, out, checked)


cdef object response(object x, object dy, object size, object alpha, object beta, object k, object out, bint checked):
    cdef char reduced[FN_MAX_AXES]
    cdef fn_job job
    cdef int64_t channels
    if not cnp.PyArray_CheckExact(x) or cnp.PyArray_NDIM(x) < 3 or not mark_axes(1, cnp.PyArray_NDIM(x), reduced):
        return None
    begin(&job)
    if not number(alpha, &job.alpha) or not number(beta, &job.exponent) or not number(k, &job.k):
        return None
    if not (-DBL_MAX <= job.alpha <= DBL_MAX and -DBL_MAX <= job.exponent <= DBL_MAX and -DBL_MAX <= job.k <= DBL_MAX):
        return None
    if type(size) is not int or not 1 <= size < 1 << 53:
        return None
    job.alpha /= <double>size
    channels = cnp.PyArray_DIM(x, 1)
    job.before = min(<int64_t>size // 2, channels)
    job.after = min((<int64_t>size - 1) // 2, channels)
    return run_local(&job, share_response, x, dy, reduced, out, checked)


def normalize_by_norm(x, p, axis, eps, out, bint checked=False):
    """As `normalize`, or None. `checked`: `out` was found to share no element with x, unless it is x."""
    return p_norm(x, None, p, axis, eps, out, checked)


def normalize_telling(x, p, axis, eps, out):
    """(y, flag) as `normalize_by_norm`, checked, or None. The flag is 0 where no norm is NaN, infinite or rare."""
    cdef int found = 0
    y = p_norm(x, None, p, axis, eps, out, True, &found)
    return None if y is None else (y, found)


def normalize_backward(dy, x, p, axis, eps):
    """As the function of that name, or None."""
    return None if dy is None else p_norm(x, dy, p, axis, eps, None, False)


def local_response_norm(x, size, alpha, beta, k, out, bint checked=False):
    """As the function of that name, or None. `checked`: as for `normalize_by_norm`."""
    return response(x, None, size, alpha, beta, k, out, checked)


def local_response_norm_backward(dy, x, size, alpha, beta, k):
    """As the function of that name, or None."""
    return None if dy is None else response(x, dy, size, alpha, beta, k, None, False)
