# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
# cython: autotestdict=False
"""The one door to native code: fills a job, runs a driver.

A door function takes what a public function got and answers, or returns None for anything it does not know, before it
has written a byte. It never judges: `_arguments` brings the call into canonical form or refuses it, and the door is
asked again. What the drivers below decide (pieces, threads, waves) never decides a bit of the result.
"""
import os

from cython.parallel cimport prange, threadid
from libc.stdint cimport int64_t, uintptr_t
from libc.stdlib cimport free, malloc

cimport numpy as cnp

cnp.import_array()

# ---- runtime: the machine as Python sees it --------------------------------------------------------------------------

cdef extern from *:
    """
    #ifdef _OPENMP
    #include <omp.h>
    #define FN_OPENMP _OPENMP
    static inline int fn_omp_thread_limit(void) { return omp_get_thread_limit(); }
    static inline int fn_omp_max_threads(void) { return omp_get_max_threads(); }
    #else
    #define FN_OPENMP 0
    static inline int fn_omp_thread_limit(void) { return 1; }
    static inline int fn_omp_max_threads(void) { return 1; }
    #endif

    /* What OpenMP allows the calling thread: OMP_NUM_THREADS, OMP_THREAD_LIMIT, omp_set_num_threads by others. */
    static inline int fn_omp_max(void) {
      int threads = fn_omp_max_threads(), limit = fn_omp_thread_limit();
      return threads < limit ? threads : limit;
    }

    #if defined(__clang__)
    #define FN_COMPILER "clang " __clang_version__
    #elif defined(__GNUC__)
    #define FN_COMPILER "gcc " __VERSION__
    #else
    #define FN_COMPILER "unknown"
    #endif
    """
    int FN_OPENMP
    const char *FN_COMPILER
    int fn_omp_thread_limit() noexcept nogil
    int fn_omp_max_threads() noexcept nogil
    int fn_omp_max() noexcept nogil


cdef extern from "<stdlib.h>":
    void *aligned_alloc(size_t alignment, size_t size) noexcept nogil


cdef extern from "kernels.h":
    enum:
        FN_CHUNK, FN_STRIP, FN_SHORT, FN_TALL, FN_WAVE, FN_MAX_AXES, FN_PLANES
        FN_F32, FN_F64, FN_I8, FN_U8, FN_I16, FN_U16, FN_I32, FN_U32, FN_I64, FN_U64
        FN_VARIANCE, FN_DEVIATION, FN_RECIPROCAL
    size_t FN_SCRATCH_BYTES

    ctypedef struct fn_axis:
        int64_t size, x, y, p

    ctypedef struct fn_job:
        const char *x
        char *y
        const void *weight
        const void *bias
        void *mean
        void *spread
        void *min
        void *max
        double *state
        int64_t state_stride, p, outer, n, chunk, strip, index, first
        double eps, ddof
        int x_dtype, dtype, out_dtype, swapped, aligned, columns, finish, extrema, resume, stream, quiet
        int kept_ndim, reduced_ndim
        fn_axis inner

    ctypedef void (*fn_kernel)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) noexcept nogil

    ctypedef struct fn_table:
        fn_kernel *moments_chunks
        fn_kernel *moments_rows
        fn_kernel *moments_columns
        fn_kernel *norm_rows
        fn_kernel *norm_columns
        fn_kernel *norm_careful_only
        fn_kernel *find_special
        fn_kernel *apply_rows
        fn_kernel *apply_columns
        fn_kernel begin_columns
        fn_kernel merge_slots
        fn_kernel finish_columns
        fn_kernel *extrema_rows
        fn_kernel *extrema_columns

    int64_t fn_block_rows(int64_t columns) noexcept nogil
    void fn_plan(fn_job *job, int ndim, const int64_t *shape, const int64_t *x, const int64_t *y,
                 const char *reduced) noexcept nogil


cdef extern from "runtime.h":
    enum:
        FN_PATH_SIZE
    ctypedef struct fn_thread_limits:
        int affinity, quota, set, forced, forked

    void fn_isa_init() noexcept nogil
    int fn_isa_count() noexcept nogil
    const char *fn_isa_name(int isa) noexcept nogil
    bint fn_isa_supported(int isa) noexcept nogil
    void fn_isa_set_default(int isa) noexcept nogil
    int fn_isa_force(int isa) noexcept nogil
    int fn_isa_active() noexcept nogil
    const fn_table *fn_active_table() noexcept nogil

    int fn_threads_init() noexcept nogil
    void fn_threads_set(int n) noexcept nogil
    int fn_threads_force(int n) noexcept nogil
    int fn_thread_count(int omp_max) noexcept nogil
    fn_thread_limits fn_threads_limits() noexcept nogil
    int fn_cgroup_quota(const char *root, char *file) noexcept nogil

    unsigned fn_fp_enter() noexcept nogil
    void fn_fp_leave(unsigned word) noexcept nogil


fn_isa_init()
if fn_threads_init():
    raise MemoryError("the fork handler of fastnorm could not be installed")


cdef str isa_name(int isa):
    return None if isa < 0 else fn_isa_name(isa).decode()


cdef int isa_index(name) except -2:
    """The index of a supported ISA's name; -1 for None. The names were checked in runtime.py."""
    if name is None:
        return -1
    for isa in range(fn_isa_count()):
        if fn_isa_supported(isa) and isa_name(isa) == name:
            return isa
    raise ValueError(f"unknown or unsupported ISA {name!r}")


def isa_names():
    """The ISAs that this build has and this machine runs, best first."""
    return tuple([isa_name(isa) for isa in range(fn_isa_count()) if fn_isa_supported(isa)])


def isa_active():
    """The ISA that a call from this thread uses."""
    return isa_name(fn_isa_active())


def set_default_isa(name):
    """Choose the ISA of every thread that forces none."""
    fn_isa_set_default(isa_index(name))


def force_isa(name):
    """Force an ISA (None: none) in the calling thread; return what was forced before."""
    return isa_name(fn_isa_force(isa_index(name)))


def set_threads(int n):
    """Set the thread count of the process; 0 returns to the limits and reads them again."""
    fn_threads_set(n)


def get_threads():
    """The number of threads that a call from this thread may use."""
    return fn_thread_count(fn_omp_max())


def force_threads(int n):
    """Force a thread count (0: none) in the calling thread; return what was forced before."""
    return fn_threads_force(n)


def cgroup_quota(root=""):
    """(CPUs, path of the file that decided) of the control group found below `root`; (0, "") without a quota."""
    cdef char file[FN_PATH_SIZE]
    cdef bytes prefix = os.fsencode(root)
    cdef int cpus = fn_cgroup_quota(prefix, file)
    return cpus, os.fsdecode(<bytes>file)


def thread_limits():
    """Every limit on the thread count, in the terms of runtime.h; 0: not set, no limit."""
    cdef fn_thread_limits limits = fn_threads_limits()
    cdef int most = fn_omp_thread_limit()
    return {
        "affinity": limits.affinity,
        "quota": limits.quota,
        "quota_file": cgroup_quota()[1] if limits.quota else "",
        "omp_max_threads": fn_omp_max_threads(),
        "omp_thread_limit": 0 if most == 0x7fffffff else most,
        "set": limits.set,
        "forced": limits.forced,
        "forked": bool(limits.forked),
    }


def config():
    """How this module was built: the compiler, and the date of the OpenMP specification (0: none)."""
    return {"compiler": FN_COMPILER.decode().strip(), "openmp": FN_OPENMP}


# ---- drivers: partition, fold ----------------------------------------------------------------------------------------

# A norm of fewer elements keeps the GIL.
cdef int64_t GIL_THRESHOLD = 4096
# Private hooks, which tests lower: a call on fewer elements runs on one thread, one on fewer bytes stays in the cache.
cdef int64_t work_threshold = 32768
cdef int64_t stream_threshold = 8 << 20


def set_work_threshold(int64_t elements):
    """Set the size from which a call uses several threads; return the old one."""
    global work_threshold
    old, work_threshold = work_threshold, elements
    return old


def set_stream_threshold(int64_t n_bytes):
    """Set the output size from which stores go past the cache; return the old one."""
    global stream_threshold
    old, stream_threshold = stream_threshold, n_bytes
    return old


cdef struct crew:
    # Who works on a call: the kernels of one ISA, so many threads, and their scratch.
    const fn_table *table
    char *scratch
    int threads


cdef int gather_crew(crew *team, const fn_job *job) except -1 nogil:
    cdef int64_t work = job.n * job.outer * job.inner.size
    team.table = fn_active_table()
    team.threads = 1
    if work >= work_threshold:
        team.threads = <int>min(<int64_t>fn_thread_count(fn_omp_max()), max(<int64_t>1, work))
    team.scratch = <char *>aligned_alloc(64, team.threads * FN_SCRATCH_BYTES)
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
        grain = max(<int64_t>1, FN_CHUNK // max(<int64_t>1, size))
        for piece in prange(parts(units, grain), schedule="dynamic", num_threads=threads):
            run_piece(kernel, job, lo + piece * grain, hi, grain, team.scratch, threadid())


cdef int share_moments(const fn_job *job, crew *team) except -1 nogil:
    """Statistics of every kept index. Long columns that are few are shared chunk by chunk, in waves."""
    cdef int64_t chunks = parts(job.n, job.chunk), cols = job.inner.size, units = job.outer * parts(cols, job.strip)
    cdef int64_t slots, outer, count
    cdef fn_job whole, wave
    cdef double *running
    if team.threads == 1 or chunks <= 1 or units >= 2 * team.threads:
        share((team.table.moments_columns if job.columns else team.table.moments_rows)[job.dtype], job, 0, units,
              job.n * min(cols, job.strip), team)
        return 0
    slots = min(chunks, <int64_t>FN_WAVE)
    running = <double *>malloc(FN_PLANES * cols * (slots + 1) * sizeof(double))
    if running == NULL:
        with gil:
            raise MemoryError(f"states of {slots} chunks")
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


cdef int share_norm(fn_job *job, crew *team) except -1 nogil:
    """Normalize: in one visit where rows or columns fit a cache, else statistics first."""
    cdef int64_t cols = job.inner.size, kept = job.outer * cols, strip
    cdef const fn_table *table = team.table
    run(table.find_special[job.dtype], job, 0, job.n, &job.quiet)
    if not job.columns and job.n <= FN_CHUNK:
        share(table.norm_rows[job.dtype], job, 0, job.outer, job.n, team)
    elif job.columns and job.n <= FN_TALL:
        strip = FN_STRIP // 4 if job.n < FN_SHORT else FN_STRIP
        while strip > 16 and strip * job.n > FN_CHUNK:
            strip //= 2
        job.strip = strip
        share(table.norm_columns[job.dtype], job, 0, job.outer * parts(cols, strip), strip * job.n, team)
    else:
        job.state = <double *>malloc(FN_PLANES * kept * sizeof(double))
        if job.state == NULL:
            with gil:
                raise MemoryError(f"states of {kept} columns")
        job.state_stride = kept
        try:
            share_moments(job, team)
            share(table.norm_careful_only[job.dtype], job, 0, kept, 1, team)
            if job.columns:
                share(table.apply_columns[job.dtype], job, 0, job.outer * parts(job.n, job.chunk), job.chunk * cols,
                      team)
            else:
                share(table.apply_rows[job.dtype], job, 0, job.outer * parts(job.n, FN_CHUNK), FN_CHUNK, team)
        finally:
            free(job.state)
    return 0


cdef int run_moments(const fn_job *job) except -1 nogil:
    cdef crew team
    gather_crew(&team, job)
    try:
        share_moments(job, &team)
    finally:
        free(team.scratch)
    return 0


cdef int run_norm(fn_job *job) except -1 nogil:
    cdef crew team
    gather_crew(&team, job)
    try:
        share_norm(job, &team)
    finally:
        free(team.scratch)
    return 0


# ---- filling a job ---------------------------------------------------------------------------------------------------

cdef int storage_type(cnp.ndarray x) noexcept:
    """The storage type of an array; -1 for one that kernels do not read."""
    cdef int number = cnp.PyArray_TYPE(x)
    cdef int size = <int>cnp.PyArray_ITEMSIZE(x)
    if number == cnp.NPY_FLOAT32:
        return FN_F32
    if number == cnp.NPY_FLOAT64:
        return FN_F64
    if number == cnp.NPY_BOOL:
        return FN_U8
    if cnp.PyTypeNum_ISSIGNED(number) and cnp.PyTypeNum_ISINTEGER(number):
        return FN_I8 if size == 1 else FN_I16 if size == 2 else FN_I32 if size == 4 else FN_I64
    if cnp.PyTypeNum_ISUNSIGNED(number):
        return FN_U8 if size == 1 else FN_U16 if size == 2 else FN_U32 if size == 4 else FN_U64
    return -1


cdef bint number(object value, double *to) noexcept:
    """A float that is not NaN, or an int that a double holds."""
    if type(value) is float:
        to[0] = value
        return to[0] == to[0]
    if type(value) is int and -(1 << 53) <= value <= 1 << 53:
        to[0] = value
        return True
    return False


cdef bint mark_axes(object axis, int ndim, char *reduced) noexcept:
    """Mark the reduced axes. False for an axis that is not an int or a tuple of ints, repeated, or out of range."""
    cdef int a
    cdef long long index
    for a in range(ndim):
        reduced[a] = axis is None
    if axis is None:
        return True
    if type(axis) is int:
        axis = (axis,)
    if type(axis) is not tuple:
        return False
    for item in <tuple>axis:
        if type(item) is not int or not -ndim <= item < ndim:
            return False
        index = item
        a = <int>(index + ndim if index < 0 else index)
        if reduced[a]:
            return False
        reduced[a] = 1
    return True


cdef bint fill_job(fn_job *job, cnp.ndarray x, cnp.ndarray y, const char *reduced) noexcept:
    """Describe x (and y) to the kernels; the caller has set weight and bias. False for an unknown storage type."""
    cdef int ndim = cnp.PyArray_NDIM(x)
    job.x_dtype = storage_type(x)
    if job.x_dtype < 0:
        return False
    job.dtype = FN_F32 if job.x_dtype == FN_F32 else FN_F64
    job.out_dtype = job.dtype
    job.swapped = not cnp.PyArray_ISNOTSWAPPED(x)
    job.aligned = cnp.PyArray_ISALIGNED(x) and (y is None or cnp.PyArray_ISALIGNED(y))
    job.x = <const char *>cnp.PyArray_DATA(x)
    job.y = NULL if y is None else <char *>cnp.PyArray_DATA(y)
    fn_plan(job, ndim, <const int64_t *>cnp.PyArray_DIMS(x), <const int64_t *>cnp.PyArray_STRIDES(x),
            NULL if y is None else <const int64_t *>cnp.PyArray_STRIDES(y), reduced)
    return True


cdef void begin(fn_job *job) noexcept:
    """Nothing wanted, nothing known."""
    job.weight = job.bias = NULL
    job.mean = job.spread = job.min = job.max = NULL
    job.state = NULL
    job.state_stride = job.index = job.first = 0
    job.eps = job.ddof = 0
    job.finish = FN_VARIANCE
    job.extrema = job.resume = job.stream = job.quiet = 0


cdef cnp.ndarray new_kept(cnp.ndarray x, const char *reduced, bint keepdims, int typenum):
    """An empty array for the statistics of x: its shape without the reduced axes."""
    cdef cnp.npy_intp shape[FN_MAX_AXES]
    cdef int a, ndim = 0
    for a in range(cnp.PyArray_NDIM(x)):
        if keepdims or not reduced[a]:
            shape[ndim] = 1 if reduced[a] else cnp.PyArray_DIM(x, a)
            ndim += 1
    return cnp.PyArray_EMPTY(ndim, shape, typenum, 0)


cdef inline object unwrap(cnp.ndarray result):
    """A NumPy scalar for a result of no dimensions."""
    return result if cnp.PyArray_NDIM(result) else result[()]


# ---- doors: statistics -----------------------------------------------------------------------------------------------

def mean_var(x, axis, ddof, bint keepdims, dtype, bint want_mean, bint want_spread, bint root):
    """(mean, var or std); an element that is not wanted is None. `dtype`: None, float32 or float64 as np.dtype."""
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
    if not mark_axes(axis, cnp.PyArray_NDIM(array), reduced) or not fill_job(&job, array, None, reduced):
        return None
    if dtype is not None:
        if not isinstance(dtype, cnp.dtype):
            return None
        typenum = (<cnp.dtype>dtype).type_num
        if typenum != cnp.NPY_FLOAT32 and typenum != cnp.NPY_FLOAT64:
            return None
        job.out_dtype = FN_F32 if typenum == cnp.NPY_FLOAT32 else FN_F64
    typenum = cnp.NPY_FLOAT32 if job.out_dtype == FN_F32 else cnp.NPY_FLOAT64
    job.finish = FN_DEVIATION if root else FN_VARIANCE
    if want_mean:
        mean = new_kept(array, reduced, keepdims, typenum)
        job.mean = cnp.PyArray_DATA(mean)
    if want_spread:
        spread = new_kept(array, reduced, keepdims, typenum)
        job.spread = cnp.PyArray_DATA(spread)
    with nogil:
        run_moments(&job)
    return unwrap(mean) if want_mean else None, unwrap(spread) if want_spread else None


def update(cnp.ndarray state, cnp.ndarray x, axis, bint extrema):
    """Fold x, in canonical form, into a state of FN_PLANES rows, one column per kept element."""
    cdef char reduced[FN_MAX_AXES]
    cdef fn_job job
    begin(&job)
    if not mark_axes(axis, cnp.PyArray_NDIM(x), reduced) or not fill_job(&job, x, None, reduced):
        raise AssertionError("the caller has brought x and axis into canonical form")
    job.state = <double *>cnp.PyArray_DATA(state)
    job.state_stride = cnp.PyArray_DIM(state, 1)
    job.extrema = extrema
    job.resume = 1
    with nogil:
        run_moments(&job)


cdef void whole_state(fn_job *job, cnp.ndarray state) noexcept:
    """A job on the columns of a state."""
    begin(job)
    job.state = <double *>cnp.PyArray_DATA(state)
    job.state_stride = cnp.PyArray_DIM(state, 1)
    job.kept_ndim = job.reduced_ndim = 0
    job.inner.size = job.state_stride
    job.inner.p = 1
    job.p = 0


def merge(cnp.ndarray into, cnp.ndarray state):
    """Merge one state into another of the same shape."""
    cdef fn_job job
    whole_state(&job, state)
    job.extrema = 1
    run(fn_active_table().merge_slots, &job, 0, 1, cnp.PyArray_DATA(into))


def finish(cnp.ndarray state, double ddof, bint want_mean, bint root, cnp.ndarray out):
    """Write the means, variances or standard deviations of a state into a float64 array of as many elements."""
    cdef fn_job job
    whole_state(&job, state)
    job.state = NULL
    job.out_dtype = FN_F64
    job.ddof = ddof
    job.finish = FN_DEVIATION if root else FN_VARIANCE
    if want_mean:
        job.mean = cnp.PyArray_DATA(out)
    else:
        job.spread = cnp.PyArray_DATA(out)
    run(fn_active_table().finish_columns, &job, 0, job.inner.size, cnp.PyArray_DATA(state))


def block_rows(int64_t columns):
    """The number of rows that one chunk of so many columns has."""
    return fn_block_rows(columns)


def minmax(x, axis, bint keepdims):
    """(min, max) in the dtype of x."""
    cdef char reduced[FN_MAX_AXES]
    cdef fn_job job
    cdef crew team
    cdef cnp.ndarray array, low, high, lows, highs
    cdef int typenum
    cdef int64_t kept, units, pieces = 1
    cdef cnp.npy_intp shape[2]
    if not cnp.PyArray_CheckExact(x):
        return None
    array = x
    begin(&job)
    if not mark_axes(axis, cnp.PyArray_NDIM(array), reduced) or not fill_job(&job, array, None, reduced):
        return None
    kept = job.outer * job.inner.size
    if job.n == 0 and kept:
        return None
    typenum = cnp.PyArray_TYPE(array)
    low = new_kept(array, reduced, keepdims, typenum)
    high = new_kept(array, reduced, keepdims, typenum)
    units = job.outer * parts(job.inner.size, job.strip)
    if units < 2 * fn_thread_count(fn_omp_max()) and job.n * job.inner.size >= 4 * FN_CHUNK:
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
        share((team.table.extrema_columns if job.columns else team.table.extrema_rows)[job.x_dtype], &job, 0,
              units * pieces, job.chunk * min(job.inner.size, job.strip), &team)
        free(team.scratch)
    if pieces > 1:
        shape_of = (<object>low).shape
        low = minmax(lows, 0, False)[0].reshape(shape_of)
        high = minmax(highs, 0, False)[1].reshape(shape_of)
    return unwrap(low), unwrap(high)


# ---- doors: norms ----------------------------------------------------------------------------------------------------

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
    fill_job(&job, x, y, reduced)
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
