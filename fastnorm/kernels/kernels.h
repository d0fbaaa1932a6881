/* The contract between the Python door (_ops.pyx) and native code.
 *
 * Every kernel has one signature, (job, lo, hi, scratch): it works on the units lo <= u < hi of a job, keeps what it
 * needs in `scratch` (FN_SCRATCH_BYTES per thread, allocated before the loop) and cannot fail. What a unit is stands
 * beside each kernel in FN_KERNELS. The result of a unit depends neither on lo and hi nor on the thread.
 */
#ifndef FASTNORM_KERNELS_H
#define FASTNORM_KERNELS_H

#include <stddef.h>
#include <stdint.h>

/* Sizes that fix the order of additions: changing one changes bits. */
enum {
  FN_CHUNK = 32768,   /* elements summed about one provisional mean: what threads share and folds merge */
  FN_FLUSH = 1024,    /* elements of a row summed before the lanes are added to their totals */
  FN_STRIP = 512,     /* columns that are worked on together */
  FN_SHORT = 64,      /* rows shorter than this are worked on side by side, as columns */
  FN_SHORT_NORM = 48, /* likewise, by the norms of rows */
  FN_TALL = 512,      /* columns longer than this are read twice by a norm: once for statistics, once to apply them */
  FN_VISIT = 16384,   /* elements that a backward pass brings into cache: longer rows are read twice */
  FN_PLANE = 131072,  /* channels of more elements are read twice by a norm */
  FN_RUN = 32         /* shorter runs are brought together first */
};

/* Sizes that do not. */
enum {
  FN_WAVE = 64,         /* chunk states in flight before they are folded */
  FN_SEGMENT = 64,      /* columns visited between two requests to memory */
  FN_BROAD = 2048,      /* columns that are rescaled together */
  FN_TILE = 4096,       /* elements computed in cache before they are streamed out */
  FN_EARLY = 20480,     /* bytes that memory is asked for before they are read */
  FN_ASKED = 2048,      /* bytes that memory is asked for at once, where extrema are compared */
  FN_CACHED = 1 << 20,  /* bytes that are likely to be in a cache of the core that reads them again */
  FN_DISTANT = 1 << 23, /* bytes that, if anything, a cache holds which cores share */
  FN_PROBABILITIES = 3, /* quantiles found together */
  FN_MAX_AXES = 64      /* NumPy's own limit */
};

/* Storage types. The first FN_COMPUTE_TYPES are also compute types, for which the kernels are stamped; float16 and
 * bfloat16 are computed in float. */
enum fn_dtype {
  FN_F32, FN_F64, FN_F16, FN_BF16, FN_I8, FN_U8, FN_I16, FN_U16, FN_I32, FN_U32, FN_I64, FN_U64, FN_DTYPES
};
enum { FN_COMPUTE_TYPES = 2 };

/* The arrays of a job, which are also the steps of an axis. */
enum fn_which {
  FN_X,       /* what is read */
  FN_Z,       /* a second array that is read: the residual, or dy of a backward pass */
  FN_WHERE,   /* one byte per element, which counts if that is not 0 */
  FN_WEIGHTS, /* how much they count; not negative */
  FN_Y,       /* what is written: y, or dx */
  FN_S,       /* x + residual, written; or y, which the gradient of a ReLU reads */
  FN_ARRAYS,
  FN_P = FN_ARRAYS, /* weight and bias along a reduced axis, the statistics along a kept one: counts elements */
  FN_STEPS
};

/* All arrays of a job have the shape of x; repeated elements have a step of 0. No data: not wanted. */
typedef struct fn_array {
  char *data;
  int dtype, swapped; /* storage type; in the other byte order */
  int aligned;        /* may be read and written as its type */
} fn_array;

/* One axis after neighbours were collapsed. Steps are in bytes, but for FN_P. */
typedef struct fn_axis {
  int64_t size, step[FN_STEPS];
} fn_axis;

/* The state of Welford's algorithm, one plane of doubles after the other. Mean and variance are unevaluated sums of
 * two doubles, so that folding any number of chunks loses nothing; so is the count, which may pass 2^53 and is a sum of
 * weights where there are any. Variance stands here and not the sum of squares, which overflows first; so do the means
 * of the third and fourth powers about the mean, which only jobs of such an order touch. */
enum fn_plane {
  FN_COUNT, FN_COUNT_LO, FN_MEAN, FN_MEAN_LO, FN_VAR, FN_VAR_LO, FN_MIN, FN_MAX,
  FN_M3, FN_M3_LO, FN_M4, FN_M4_LO, FN_PLANES
};

/* What a backward pass knows of a kept index: sums at first, then averages (backward_sums.h). */
typedef struct fn_slope {
  double count, shift, mean_g, dot;
  int64_t careful, x_power, dy_power; /* taken in double, of x and dy scaled by these powers of two */
} fn_slope;

/* What the backward pass of a channel norm sums over a kept index, and what dx is made with: planes over the places of
 * its kept indices among the statistics (channel_slopes.h). */
enum fn_sum { FN_SUM_COUNT, FN_SUM_U, FN_SUM_DY, FN_SUM_DYU, FN_SUMS };
enum fn_factor { FN_OF_DY, FN_OF_ONE, FN_OF_U, FN_OF_MEAN, FN_FACTORS };

typedef struct fn_job {
  /* What is read and written, and in which types. */
  fn_array array[FN_ARRAYS];
  const void *weight, *bias; /* compute type, laid out by step[FN_P] of the reduced axes; NULL: one and zero */
  void *mean, *spread;       /* by step[FN_P] of the kept axes (spread: as `finish` says); NULL: not wanted */
  void *min, *max;           /* extrema, of x's dtype */
  int dtype;                 /* compute type */
  int out_dtype;             /* of mean and spread */

  /* The canonical form (fn_plan), but for its axes, which stand last. */
  int columns;               /* memory runs along a kept axis, `inner` */
  int dense;                 /* rows of `beside` columns of x follow each other without a gap */
  int64_t outer;             /* product of kept[] */
  int64_t n;                 /* product of reduced[] */
  int64_t p;                 /* where the statistics of kept index 0 stand */
  int64_t shortest;          /* shorter rows are worked on side by side, as columns; read by fn_plan */
  int64_t stretch[FN_STEPS]; /* reduced elements that lie one step apart before one does not; n: all */
  int64_t beside;            /* how long `inner` were if nothing was written; decides bits */
  int64_t chunk;             /* how many of the n make a chunk */
  int64_t strip;             /* columns per unit */

  /* What a driver is at. */
  int64_t index;   /* which of the `outer` problems; backward: the reduced element that slots begin with */
  int64_t first;   /* the chunk that slot 0 holds; backward: the block */
  int resume;      /* `state` holds states that go on; otherwise they begin */
  int64_t written; /* bytes of results that may go past the cache; negative: none may */
  int stream;      /* they do */

  /* Statistics. */
  double *state;        /* planes: chunk slots or states by FN_P; NULL: results are enough */
  int64_t state_stride; /* doubles per plane of `state`; extrema: results per piece */
  double ddof;
  int finish;  /* enum fn_finish: what `spread` is */
  int order;   /* of moments: 2, 3 or 4 */
  int extrema; /* FN_MIN and FN_MAX are wanted */
  int omit;    /* NaN counts as little as what FN_WHERE leaves out */

  /* Norms. */
  double eps;
  double least, most; /* FN_RANGE: where the extrema go; backward: most is the largest |weight| */
  int norm;           /* enum fn_norm: what is taken away and divided by */
  int source;         /* which array is normalized: FN_X, or FN_S where a residual was added */
  int quiet;          /* weight or bias holds infinity or NaN */

  /* Norms of channels. */
  int64_t period, unit; /* kept indices whose statistics stand `period` apart share weight and bias: `unit` of each */
  int64_t places;       /* how many kept indices in a row belong to a channel, where numbers are given */
  double *saved;        /* count, mean and variance of the kept indices, one plane after the other; NULL: not wanted */
  void *folded;         /* compute type, one plane per channel: center, center_lo, scale and shift of the apply loops */
  int relu;             /* what is below 0 becomes 0; backward: FN_S is read and holds the result */
  int given;            /* what is applied are not the moments of x: it is in `state`; backward: in mean and spread */

  /* Backward passes. */
  void *dweight, *dbias; /* sums over the kept indices, by FN_P of the reduced axes; NULL: not wanted */
  int parameter_dtype;   /* of dweight and dbias */
  fn_slope *slopes;      /* one per kept index, chunk after chunk; NULL: found on the way */
  double *slots;         /* sums: the totals, then one slot per block (channels: per chunk) of a wave */
  int64_t width;         /* elements of each sum in a slot */
  int64_t block;         /* kept indices per slot; normalize: reduced elements that are loaded together */
  int64_t wave;          /* slots in use */
  int64_t span;          /* channels: places side by side that share a mean and an rstd */
  double *totals;        /* channels: sums of dweight and of dbias, by channel */
  void *factors;         /* channels: planes of the compute type (enum fn_factor) */

  /* p-norms and local response norms. */
  double exponent;       /* p; beta */
  double alpha, k;       /* alpha / size, and k */
  int64_t before, after; /* how many channels of a window lie on either side */

  /* Rescaling, which is clipped to [least, most]. */
  const double *center, *center_lo, *scale, *shift; /* of each channel; NULL: not given */
  int inverse;                                      /* the way back */
  int *found;                                       /* enum fn_found, shared by all threads */

  /* Pictures: x and y of `inner` channels, constants of `period` channels in center, center_lo and scale. */
  int swap; /* the first and the third channel change places */

  /* Quantiles, written to `mean`, `state_stride` from one probability to the next. */
  const double *probability; /* ascending, at most FN_PROBABILITIES */
  int probabilities;
  int64_t *counts; /* by FN_P of the kept axes: how many numbers there are */
  char *infinite;  /* likewise: whether one of them is infinite */

  /* The axes of the canonical form. */
  int kept_ndim, reduced_ndim;
  fn_axis inner;                                   /* size 1 for rows */
  fn_axis kept[FN_MAX_AXES], reduced[FN_MAX_AXES]; /* outermost first; kept[] without `inner` */
} fn_job;

enum fn_finish { FN_VARIANCE, FN_DEVIATION, FN_RECIPROCAL, FN_SKEWNESS, FN_KURTOSIS };

/* Mean and standard deviation; nothing and the root mean square; minimum and range. */
enum fn_norm { FN_LAYER, FN_RMS, FN_RANGE };

/* Rows of a chunk of so many columns. */
int64_t fn_block_rows(int64_t columns);

/* What is not finite in x. */
enum fn_found { FN_FOUND_NAN = 1, FN_FOUND_INFINITY = 2, FN_FOUND_UNUSUAL = 4 /* a norm of either, or a rare one */ };

/* What an axis is to a job: kept; reduced, with weight and bias along it; reduced, with these repeated along it. */
enum fn_role { FN_KEPT, FN_REDUCED, FN_SHARED };

/* Brings any strided problem into canonical form (axes.c): sets the fields of a job that describe it, and moves arrays
 * to their lowest address where x has negative strides and nothing is written. steps[w][a] is the stride of
 * array w along axis a (NULL: no such array), roles[a] what that axis is. Needs array[], weight and bias. */
void fn_plan(fn_job *job, int ndim, const int64_t *shape, const int64_t *const *steps, const char *roles);

/* Copies a planned job, of its axes those that there are. */
void fn_copy(fn_job *to, const fn_job *from);

typedef void (*fn_kernel)(const fn_job *job, int64_t lo, int64_t hi, void *scratch);

/* kernel           unit */
#define FN_KERNELS(X)                                                                                                  \
  X(moments_chunks)    /* a chunk of problem `index`; its state goes into slot (unit - first) */                       \
  X(moments_rows)      /* a row: states, or finished results */                                                        \
  X(moments_columns)   /* a strip of one of the `outer` problems: states, or finished results */                       \
  X(norm_rows)         /* a row of at most FN_CHUNK elements: statistics and apply in one visit */                     \
  X(norm_columns)      /* a strip of at most FN_TALL rows: likewise */                                                 \
  X(norm_planes)       /* `strip` rows of at most FN_PLANE elements, in runs: likewise */                              \
  X(residual_rows)     /* a chunk of a row: x + residual */                                                            \
  X(residual_columns)  /* a chunk of rows of one of the `outer` problems: likewise */                                  \
  X(norm_careful_only) /* a kept index: all of it, if the compute type cannot hold it; else nothing */                 \
  X(find_special)      /* an element of weight and bias: sets the int at `scratch` if it is infinite or NaN */         \
  X(apply_rows)        /* a chunk of a row */                                                                          \
  X(apply_columns)     /* a chunk of rows of one of the `outer` problems */                                            \
  X(fold_channels)     /* a channel: `folded` from `state`, weight and bias */                                         \
  X(scale_rows)        /* a chunk of a row: `folded` applied */                                                        \
  X(scale_columns)     /* a chunk of rows of one of the `outer` problems: likewise */                                  \
  X(backward_weight)   /* an element of weight: the largest magnitude goes to the double at `scratch` */               \
  X(backward_sums)     /* a block of kept indices of a chunk: sums for their slopes; unit = chunk * blocks + block */  \
  X(backward_settle)   /* a kept index: its slope from the sums of all chunks */                                       \
  X(backward_blocks)   /* a chunk of a block: dx, and a slot of sums; unit = block * chunks + chunk, from `first` and  \
                          `index` on */                                                                                \
  X(backward_fold)     /* an element of a slot: all slots of the wave join the totals */                               \
  X(backward_finish)   /* an element of the totals: dweight and dbias of element `index` + unit */                     \
  X(channel_sums)      /* a block of kept indices of a chunk: a slot of sums; unit = (chunk - `first`) * blocks +      \
                          block */                                                                                     \
  X(channel_fold)      /* a place: all slots of the wave join the totals */                                            \
  X(channel_settle)    /* a mean: what dx is made with, and what its places add to dweight and dbias */                \
  X(channel_dx)        /* a block of kept indices of a chunk: dx; the last unit is number 0 */                         \
  X(channel_visit)     /* a block of kept indices: all of this */                                                      \
  X(channel_totals)    /* a channel: what its places add joins the totals */                                           \
  X(channel_finish)    /* a channel: dweight and dbias */                                                              \
  X(normalize_rows)    /* a row of at most FN_CHUNK elements, by its p-norm: y, or with FN_Z, which is dy, dx */       \
  X(normalize_columns) /* a strip of at most FN_TALL rows: likewise */                                                 \
  X(normalize_parts)   /* a chunk of a row, or of the rows of one of the `outer` problems: its sums, to `state` */     \
  X(normalize_settle)  /* a kept index: its sums from those of all chunks */                                           \
  X(normalize_apply)   /* as normalize_parts: y or dx */                                                               \
  X(response_columns)  /* a strip of one of the `outer` problems: y of all channels */                                 \
  X(response_backward) /* likewise: dx */                                                                              \
  X(rescale_rows)      /* a chunk of a row: rescaled by the numbers of its channel */                                  \
  X(rescale_columns)   /* a chunk of rows of FN_BROAD columns of one of the `outer` problems */                        \
  X(fold_rows)         /* a chunk of a row: times the scale of its channel */                                          \
  X(fold_columns)      /* a chunk of rows of FN_BROAD columns of one of the `outer` problems: likewise */              \
  X(find_nonfinite)    /* a chunk of a row: tells what it holds */                                                     \
  X(quantiles_rows)    /* a row: its quantiles */                                                                      \
  X(quantiles_columns) /* a strip of one of the `outer` problems: likewise */

/* Kernels that do not depend on the compute type. */
#define FN_STATE_KERNELS(X)                                                                                            \
  X(begin_columns)  /* a column of the running state that `scratch` points at: empty, or resumed */                    \
  X(merge_slots)    /* a slot: merged into the running state that `scratch` points at */                               \
  X(finish_columns) /* a column of the running state that `scratch` points at: finished results */                     \
  X(widen_halves)   /* an element of x, whose halves follow each other: a float of y */                                \
  X(round_doubles)  /* an element of x, whose doubles follow each other: of y, rounded once */                         \
  X(pictures)       /* `chunk` pixels of a picture: normalized, or with `inverse` restored */

/* Kernels for every storage type. */
#define FN_EXTREMA_KERNELS(X)                                                                                          \
  X(extrema_rows)    /* a piece of `chunk` elements of a row; unit = piece * outer + row */                            \
  X(extrema_columns) /* a piece of `chunk` rows of a strip; pieces outermost, then `outer`, then strips */

typedef struct fn_table {
  const char *isa;
#define FN_SLOT(name) fn_kernel name[FN_COMPUTE_TYPES];
  FN_KERNELS(FN_SLOT)
#undef FN_SLOT
#define FN_SLOT(name) fn_kernel name;
  FN_STATE_KERNELS(FN_SLOT)
#undef FN_SLOT
#define FN_SLOT(name) fn_kernel name[FN_DTYPES];
  FN_EXTREMA_KERNELS(FN_SLOT)
#undef FN_SLOT
} fn_table;

extern const fn_table fn_table_baseline;
#if defined(__x86_64__)
extern const fn_table fn_table_avx2, fn_table_avx512;
#endif

/* Scratch for one thread, in bytes: three tiles of FN_CHUNK doubles. In the masked family the second holds weights, the
 * third a byte for each element that counts and two states of a strip. */
#define FN_SCRATCH_WEIGHTS ((size_t)FN_CHUNK * sizeof(double))
#define FN_SCRATCH_WHERE (2 * FN_SCRATCH_WEIGHTS)
#define FN_SCRATCH_STATES (FN_SCRATCH_WHERE + FN_CHUNK)
#define FN_SCRATCH_BYTES (3 * FN_SCRATCH_WEIGHTS)

#endif
