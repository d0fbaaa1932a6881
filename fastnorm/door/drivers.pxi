"""Drivers: who works on which part of a job, and how partial results are folded."""

# A call on fewer elements keeps the GIL, but for statistics.
cdef int64_t GIL_THRESHOLD = 4096
# Private hooks, which tests lower: a call on fewer elements runs on one thread, and what one thread writes stays in the
# cache if it is fewer bytes.
cdef int64_t work_threshold = 32768
cdef int64_t stream_threshold = 10 << 20


def set_work_threshold(int64_t elements):
    """Set the size from which a call uses several threads; return the old one."""
    global work_threshold
    old, work_threshold = work_threshold, elements
    return old


def set_stream_threshold(int64_t n_bytes):
    """Set the output size from which one thread's stores go past the cache; return the old one."""
    global stream_threshold
    old, stream_threshold = stream_threshold, n_bytes
    return old


cdef struct crew:
    # Who works on a call: the kernels of one ISA, so many threads, and their scratch.
    const fn_table *table
    char *scratch
    int threads


cdef int gather_crew(crew *team, fn_job *job, int64_t share=1) except -1 nogil:
    """As many threads as there may be, but one below `share` times the work threshold; how they store their results."""
    cdef int64_t work = job.n * job.outer * job.inner.size, written
    team.table = fn_active_table()
    team.threads = 1
    if work // share >= work_threshold:
        team.threads = <int>min(<int64_t>fn_thread_count(fn_omp_max()), max(<int64_t>1, work))
    # Several threads wait for less when they write to a shared cache.
    written = job.written if team.threads == 1 else job.written - job.written // 3
    job.stream = job.written >= 0 and written >= stream_threshold
    team.scratch = <char *>fn_scratch_take(team.threads * FN_SCRATCH_BYTES)
    if team.scratch == NULL:
        with gil:
            raise MemoryError(f"scratch for {team.threads} threads")
    return 0


cdef inline void run(fn_kernel kernel, const fn_job *job, int64_t lo, int64_t hi, void *scratch) noexcept nogil:
    cdef unsigned word = fn_fp_enter()
    kernel(job, lo, hi, scratch)
    fn_fp_leave(word)


cdef inline int64_t parts(int64_t whole, int64_t part) noexcept nogil:
    return (whole + part - 1) // part


cdef inline void run_piece(fn_kernel kernel, const fn_job *job, int64_t lo, int64_t hi, int64_t grain, char *scratch,
                           int thread) noexcept nogil:
    run(kernel, job, lo, min(lo + grain, hi), scratch + thread * FN_SCRATCH_BYTES)


cdef int64_t piece_elements(int64_t work, int threads) noexcept nogil:
    """How many elements a thread takes at a time: long pieces, which the processor foresees and whose pages no other
    thread asks for at the same time, but some for each thread, so that all end together."""
    return max(<int64_t>FN_CHUNK, min(<int64_t>16 * FN_CHUNK, work // (4 * threads)))


cdef void share(fn_kernel kernel, const fn_job *job, int64_t lo, int64_t hi, int64_t size, crew *team) noexcept nogil:
    """Run the units lo <= u < hi, of about `size` elements each, on the whole crew."""
    cdef int64_t units = hi - lo, piece, grain
    cdef int threads = <int>min(<int64_t>team.threads, units)
    if threads <= 1:
        run(kernel, job, lo, hi, team.scratch)
    elif units * size <= 32 * FN_CHUNK:  # an even share each, so that what a core has in its cache stays there
        grain = parts(units, threads)
        for piece in prange(parts(units, grain), schedule="static", num_threads=threads):
            run_piece(kernel, job, lo + piece * grain, hi, grain, team.scratch, threadid())
    else:
        grain = max(<int64_t>1, piece_elements(units * size, threads) // max(<int64_t>1, size))
        for piece in prange(parts(units, grain), schedule="dynamic", num_threads=threads):
            run_piece(kernel, job, lo + piece * grain, hi, grain, team.scratch, threadid())


cdef bint narrows(const fn_job *job) noexcept nogil:
    """Whether rows are long and the bits of a column do not depend on how many are worked on together."""
    return (job.beside > FN_STRIP // 2 and job.order == 2 and not job.omit and job.array[<int>FN_WHERE].data == NULL
            and job.array[<int>FN_WEIGHTS].data == NULL)


cdef void share_columns(const fn_job *job, int64_t units, crew *team) noexcept nogil:
    """Statistics of every kept index, each the work of one thread."""
    share((team.table.moments_columns if job.columns else team.table.moments_rows)[job.dtype], job, 0, units,
          job.n * min(job.inner.size, job.strip), team)


cdef int share_moments(fn_job *job, crew *team) except -1 nogil:
    """Statistics of every kept index. Long columns that are few are shared chunk by chunk, in waves."""
    cdef int64_t chunks = parts(job.n, job.chunk), cols = job.inner.size, strip = job.strip, units, slots, outer, count
    cdef fn_job whole, wave
    cdef double *running
    while narrows(job) and strip > 64 and job.outer * parts(cols, strip) < 2 * team.threads:
        strip //= 2  # costs less than to merge the chunks of each column
    if job.outer * parts(cols, strip) >= 2 * team.threads:
        job.strip = strip
    units = job.outer * parts(cols, job.strip)
    if team.threads == 1 or chunks <= 1 or units >= 2 * team.threads:
        share_columns(job, units, team)
        return 0
    slots = min(chunks, <int64_t>FN_WAVE)
    running = <double *>malloc(FN_PLANES * cols * (slots + 1) * sizeof(double))
    if running == NULL:  # by whole columns it takes longer and no memory
        share_columns(job, units, team)
        return 0
    whole = job[0]
    wave = job[0]
    wave.state = running + FN_PLANES * cols
    wave.state_stride = slots * cols
    for outer in range(job.outer):
        whole.index = wave.index = outer
        wave.first = 0
        run(team.table.begin_columns, &whole, 0, cols, running)
        while wave.first < chunks:
            count = min(slots, chunks - wave.first)
            share(team.table.moments_chunks[job.dtype], &wave, wave.first, wave.first + count, job.chunk * cols, team)
            run(team.table.merge_slots, &wave, 0, count, running)
            wave.first += count
        run(team.table.finish_columns, &whole, 0, cols, running)
    free(running)
    return 0


cdef void share_chunks(const fn_kernel *kernels, const fn_job *job, crew *team) noexcept nogil:
    """Run a kernel whose units are chunks of rows, or of the rows of columns."""
    cdef int64_t chunk = job.chunk if job.columns else FN_CHUNK
    share(kernels[job.dtype], job, 0, job.outer * parts(job.n, chunk), min(chunk, job.n) * job.inner.size, team)


cdef int64_t strip_in_cache(int64_t rows) noexcept nogil:
    """How many columns of so many rows are worked on in one visit."""
    cdef int64_t strip = FN_STRIP // 4 if rows < FN_SHORT else FN_STRIP
    while strip > 16 and strip * rows > FN_CHUNK:
        strip //= 2
    return strip


cdef bint in_planes(const fn_job *job) noexcept nogil:
    """Whether rows of a channel norm are runs in memory that are long enough to be worked on where they are."""
    return (not job.columns and job.unit == 1 and job.n <= FN_PLANE and job.stretch[<int>FN_X] < job.n
            and job.stretch[<int>FN_X] >= FN_RUN and job.array[<int>FN_WHERE].data == NULL)


cdef bint in_one_visit(const fn_job *job) noexcept nogil:
    """Whether statistics are taken and applied in one visit."""
    return job.n <= (FN_TALL if job.columns else FN_CHUNK) or in_planes(job)


cdef int share_norm(fn_job *job, crew *team) except -1 nogil:
    """Normalize: in one visit where rows or columns fit a cache, else statistics first."""
    cdef int64_t cols = job.inner.size, kept = job.outer * cols, strip
    cdef const fn_table *table = team.table
    run(table.find_special[job.dtype], job, 0, job.period * job.unit if job.unit else job.n, &job.quiet)
    if in_planes(job):
        job.strip = max(<int64_t>1, min(<int64_t>16, parts(2 * FN_CHUNK, job.n)))
        share(table.norm_planes[job.dtype], job, 0, parts(job.outer, job.strip), job.strip * job.n, team)
    elif not job.columns and in_one_visit(job):
        share(table.norm_rows[job.dtype], job, 0, job.outer, job.n, team)
    elif in_one_visit(job):
        strip = strip_in_cache(job.n)
        if job.period < strip:
            strip -= strip % job.period  # every strip begins with the same group
        job.strip = strip
        share(table.norm_columns[job.dtype], job, 0, job.outer * parts(cols, strip), strip * job.n, team)
    else:
        job.state = <double *>malloc(FN_PLANES * kept * sizeof(double))
        if job.state == NULL:
            with gil:
                raise MemoryError(f"states of {kept} columns")
        job.state_stride = kept
        try:
            if job.source == FN_S:
                share_chunks(table.residual_columns if job.columns else table.residual_rows, job, team)
            share_moments(job, team)
            share(table.norm_careful_only[job.dtype], job, 0, kept, 1, team)
            share_chunks(table.apply_columns if job.columns else table.apply_rows, job, team)
        finally:
            free(job.state)
    return 0


ctypedef int (*fn_driver)(fn_job *job, crew *team) except -1 nogil


cdef int drive(fn_driver driver, fn_job *job, int64_t share=1) except -1 nogil:
    """Gather a crew and let a driver share a job among it."""
    cdef crew team
    gather_crew(&team, job, share)
    try:
        driver(job, &team)
    finally:
        fn_scratch_give(team.scratch)
    return 0


cdef inline bint keeps_gil(const fn_job *job) noexcept nogil:
    """Whether a call takes less than to hand the GIL over."""
    return job.n * job.outer * job.inner.size < min(GIL_THRESHOLD, work_threshold)


cdef int drive_released(fn_driver driver, fn_job *job, int64_t share=1) except -1:
    """Likewise, without the GIL where that takes longer than to hand it over."""
    if keeps_gil(job):
        drive(driver, job, share)
    else:
        with nogil:
            drive(driver, job, share)
    return 0
