# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
# cython: autotestdict=False, freethreading_compatible=True
"""The one door to native code: fills a job, runs a driver.

A door function takes what a public function got and answers, or returns None for anything it does not know, before it
has written a byte. It never judges: `_arguments` brings the call into canonical form or refuses it, and the door is
asked again. What the drivers decide (pieces, threads, waves) never decides a bit of the result.

The rooms behind the door are text, included at the end: door/*.pxi.
"""
import os

from cython.parallel cimport prange, threadid
from libc.float cimport DBL_EPSILON, DBL_MAX, FLT_EPSILON
from libc.math cimport sqrt
from libc.stdint cimport int64_t, uintptr_t
from libc.stdlib cimport calloc, free, malloc

import numpy

cimport numpy as cnp

cnp.import_array()

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


cdef extern from "kernels.h":
    enum:
        FN_CHUNK, FN_VISIT, FN_STRIP, FN_SHORT, FN_SHORT_NORM, FN_TALL, FN_PLANE, FN_RUN
        FN_BROAD, FN_TILE, FN_WAVE, FN_MAX_AXES
        FN_COUNT, FN_MEAN, FN_VAR, FN_MIN, FN_M3, FN_M4, FN_PLANES
        FN_F32, FN_F64, FN_F16, FN_BF16, FN_I8, FN_U8, FN_I16, FN_U16, FN_I32, FN_U32, FN_I64, FN_U64
        FN_X, FN_Z, FN_WHERE, FN_WEIGHTS, FN_Y, FN_S, FN_ARRAYS, FN_P, FN_STEPS
        FN_VARIANCE, FN_DEVIATION, FN_RECIPROCAL, FN_SKEWNESS, FN_KURTOSIS
        FN_LAYER, FN_RMS, FN_RANGE
        FN_KEPT, FN_REDUCED, FN_SHARED
        FN_SUMS, FN_FACTORS, FN_PROBABILITIES
    size_t FN_SCRATCH_BYTES

    ctypedef struct fn_array:
        char *data
        int dtype, swapped, aligned

    ctypedef struct fn_axis:
        int64_t size
        int64_t *step

    ctypedef struct fn_slope:
        pass

    ctypedef struct fn_job:
        fn_array *array
        const void *weight
        const void *bias
        void *mean
        void *spread
        void *min
        void *max
        int dtype, out_dtype
        int columns
        int64_t outer, n, shortest, beside, chunk, strip
        int64_t *stretch
        int64_t index, first
        int resume, stream
        int64_t written
        double *state
        int64_t state_stride, p
        double ddof
        int finish, order, extrema, omit
        double eps, least, most
        int norm, source, quiet
        int64_t period, unit, places
        double *saved
        void *folded
        int relu, given
        void *dweight
        void *dbias
        int parameter_dtype
        fn_slope *slopes
        double *slots
        int64_t width, block, wave, span
        double *totals
        void *factors
        double exponent, alpha, k
        int64_t before, after
        const double *center
        const double *center_lo
        const double *scale
        const double *shift
        int inverse
        int *found
        int swap
        const double *probability
        int probabilities
        int64_t *counts
        char *infinite
        int kept_ndim, reduced_ndim
        fn_axis inner
        fn_axis *kept
        fn_axis *reduced

    ctypedef void (*fn_kernel)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) noexcept nogil

    ctypedef struct fn_table:
        const fn_kernel *moments_chunks
        const fn_kernel *moments_rows
        const fn_kernel *moments_columns
        const fn_kernel *norm_rows
        const fn_kernel *norm_columns
        const fn_kernel *norm_planes
        const fn_kernel *residual_rows
        const fn_kernel *residual_columns
        const fn_kernel *norm_careful_only
        const fn_kernel *find_special
        const fn_kernel *apply_rows
        const fn_kernel *apply_columns
        const fn_kernel *fold_channels
        const fn_kernel *scale_rows
        const fn_kernel *scale_columns
        const fn_kernel *backward_weight
        const fn_kernel *backward_sums
        const fn_kernel *backward_settle
        const fn_kernel *backward_blocks
        const fn_kernel *backward_fold
        const fn_kernel *backward_finish
        const fn_kernel *channel_sums
        const fn_kernel *channel_fold
        const fn_kernel *channel_settle
        const fn_kernel *channel_dx
        const fn_kernel *channel_visit
        const fn_kernel *channel_totals
        const fn_kernel *channel_finish
        const fn_kernel *normalize_rows
        const fn_kernel *normalize_columns
        const fn_kernel *normalize_parts
        const fn_kernel *normalize_settle
        const fn_kernel *normalize_apply
        const fn_kernel *response_columns
        const fn_kernel *response_backward
        const fn_kernel *rescale_rows
        const fn_kernel *rescale_columns
        const fn_kernel *fold_rows
        const fn_kernel *fold_columns
        const fn_kernel *find_nonfinite
        const fn_kernel *quantiles_rows
        const fn_kernel *quantiles_columns
        fn_kernel begin_columns
        fn_kernel merge_slots
        fn_kernel finish_columns
        fn_kernel widen_halves
        fn_kernel round_doubles
        fn_kernel pictures
        const fn_kernel *extrema_rows
        const fn_kernel *extrema_columns

    int64_t fn_block_rows(int64_t columns) noexcept nogil
    void fn_plan(fn_job *job, int ndim, const int64_t *shape, const int64_t **steps,
                 const char *roles) noexcept nogil
    void fn_copy(fn_job *to, const fn_job *origin)


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

    void *fn_scratch_take(size_t n_bytes) noexcept nogil
    void fn_scratch_give(void *scratch) noexcept nogil

    unsigned fn_fp_enter() noexcept nogil
    void fn_fp_leave(unsigned word) noexcept nogil


include "door/runtime.pxi"
include "door/drivers.pxi"
include "door/jobs.pxi"
include "door/statistics.pxi"
include "door/norms.pxi"
include "door/backward.pxi"
include "door/channels.pxi"
include "door/channels_backward.pxi"
include "door/local.pxi"
include "door/rescale.pxi"
include "door/fold.pxi"
include "door/quantiles.pxi"
include "door/picture.pxi"
