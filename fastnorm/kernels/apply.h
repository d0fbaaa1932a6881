/* y = ((x - mean) - mean_lo) * rstd * weight + bias, for rows and for strips of columns.
 *
 * The mean is kept as a rounded value and its residual until both are subtracted, so that a mean of 1e4 standard
 * deviations costs no digits.
 */

/* What is applied to each of some rows or columns. A scale of NaN leaves it to the careful way. */
typedef struct {
  T center[FN_STRIP], center_lo[FN_STRIP], scale[FN_STRIP];
  int with_lo, all; /* some residual is not 0; nothing is left to the careful way */
} FN(params);

/* Means, in two parts, and variances become parameters. A residual of less
 * than half a rounding error of y is left out. A variance of exactly 0 is that of a constant; squares summed in double
 * lose nothing above 2^-960. */
static void FN(fill_params)(const double *mean, const double *mean_lo, const double *var, int64_t count, double eps,
                            FN(params) *to) {
  T *center = to->center, *center_lo = to->center_lo, *scale = to->scale;
  const double none = __builtin_nan("");
  FN_IVDEP
  for (int64_t j = 0; j < count; j++) {
    const double square = var[j] + eps, inverse = 1 / sqrt(square), reciprocal = square == 0 ? 0 : inverse;
    const T c = (T)(mean[j] + mean_lo[j]), lo = (T)((mean[j] - (double)c) + mean_lo[j]);
    double held = square > 0x1p-960 ? inverse : none;
    held = inverse >= FN_LEAST_SCALE ? held : none;
    held = inverse <= FN_MOST_SCALE ? held : none;
    held = fabs((double)c) <= FN_LARGE ? held : none;
    held = square == 0 ? 0 : held;
    center[j] = c;
    center_lo[j] = fabs((double)lo) * reciprocal < FN_EPS / 4 ? 0 : lo;
    scale[j] = (T)held;
  }
  int with_lo = 0, all = 1;
  for (int64_t j = 0; j < count; j++) with_lo |= center_lo[j] != 0;
  for (int64_t j = 0; j < count; j++) all &= scale[j] == scale[j];
  to->with_lo = with_lo;
  to->all = all;
}

/* Only infinite or NaN weights and biases can make a NaN of a normalized value; its sign then is the processor's
 * choice. Sets the int that `scratch` points at where there is one. */
static void FN(find_special)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  const T *lists[2] = {job->weight, job->bias};
  int special = 0;
  for (int k = 0; k < 2; k++)
    for (int64_t i = lo; lists[k] && i < hi; i++) special |= !(lists[k][i] - lists[k][i] == 0);
  if (special) *(int *)scratch = 1;
}

static void FN(quiet)(T *y, int64_t n) {
  for (int64_t i = 0; i < n; i++) y[i] = y[i] == y[i] ? y[i] : (T)__builtin_nan("");
}

/* Parameters from the states of columns j, a `step` of doubles apart. */
static void FN(params_of)(const fn_job *job, const double *state, int64_t stride, int64_t step, int64_t cols,
                          FN(params) *params) {
  double mean[FN_STRIP], mean_lo[FN_STRIP], var[FN_STRIP];
  for (int64_t j = 0; j < cols; j++) {
    mean[j] = state[FN_MEAN * stride + j * step];
    mean_lo[j] = state[FN_MEAN_LO * stride + j * step];
    var[j] = fn_variance(state + j * step, stride, job->ddof);
    /* A deviation is saved without eps: the careful way if its square has vanished. */
    if (job->finish == FN_DEVIATION && var[j] > 0 && var[j] < 0x1p-960) var[j] = __builtin_nan("");
  }
  FN(fill_params)(mean, mean_lo, var, cols, job->eps, params);
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

/* For numbers and vectors alike. What a kind is without is known when this is compiled, and costs nothing. */
#define FN_AFFINE(y, x, center, center_lo, scale, weight, bias, kind)                                                  \
  do {                                                                                                                 \
    (y) = (x) - (center);                                                                                              \
    if ((kind) & FN_WITH_LO) (y) -= (center_lo);                                                                       \
    (y) *= (scale);                                                                                                    \
    if ((kind) & FN_WITH_WEIGHT) (y) *= (weight);                                                                      \
    if ((kind) & FN_WITH_BIAS) (y) += (bias);                                                                          \
  } while (0)

typedef T FN(vector) __attribute__((vector_size(FN_VECTOR), may_alias));
typedef T FN(loose_vector) __attribute__((vector_size(FN_VECTOR), aligned(sizeof(T)), may_alias));
enum { FN(WIDTH) = FN_VECTOR / sizeof(T), FN(LINE) = 64 / sizeof(T) };

/* Elements i <= j < i + FN(LINE) of a row, to `to`; past the cache only if that is aligned. */
FN_INLINE void FN(apply_line)(T *to, const T *x, const T *weight, const T *bias, int64_t i, T center, T center_lo,
                              T scale, int kind) {
#define FN_LOAD(from) (*(const FN(loose_vector) *)(const void *)((from) + i + k))
  for (int k = 0; k < FN(LINE); k += FN(WIDTH)) {
    FN(vector) y;
    FN_AFFINE(y, FN_LOAD(x), center, center_lo, scale, FN_LOAD(weight), FN_LOAD(bias), kind);
    if (kind & FN_PAST_CACHE)
      fn_store_past_cache(to + k, &y);
    else
      *(FN(loose_vector) *)(void *)(to + k) = y;
  }
#undef FN_LOAD
}

/* Stores that straddle cache lines cost double, so long rows go by whole lines of y. The elements before the first and
 * after the last line lie in two pieces that overlap these; they are computed before anything is written, since y may
 * be x. */
FN_INLINE void FN(apply_row)(T *y, const T *x, const T *weight, const T *bias, int64_t n, const FN(params) *params,
                             int r, const T *ahead, int kind) {
  enum { W = FN(LINE) };
  const T center = params->center[r], center_lo = params->center_lo[r], scale = params->scale[r];
  if (n <= 4 * W) {
    FN_IVDEP
    for (int64_t i = 0; i < n; i++) FN_AFFINE(y[i], x[i], center, center_lo, scale, weight[i], bias[i], kind);
    return;
  }
  T head[W], tail[W];
  FN(apply_line)(head, x, weight, bias, 0, center, center_lo, scale, kind & ~FN_PAST_CACHE);
  FN(apply_line)(tail, x, weight, bias, n - W, center, center_lo, scale, kind & ~FN_PAST_CACHE);
  for (int64_t i = (int64_t)((-(uintptr_t)y & 63) / sizeof(T)); i + W <= n; i += W) {
    FN(apply_line)(y + i, x, weight, bias, i, center, center_lo, scale, kind);
    __builtin_prefetch(ahead + i);
  }
  memcpy(y, head, sizeof head);
  memcpy(y + n - W, tail, sizeof tail);
}

/* Applies parameters number `first` and on to `count` rows of n elements. A row of y may be that of x. */
static void FN(apply_to_rows)(T *const *y, const T *const *x, const T *const *ahead, int count, const T *weight,
                              const T *bias, int64_t n, const FN(params) *params, int first, int past_cache) {
  switch (fn_kind(params->with_lo, weight, bias, past_cache)) {
#define FN_CASE(kind)                                                                                                  \
  case kind:                                                                                                           \
    for (int r = 0; r < count; r++) FN(apply_row)(y[r], x[r], weight, bias, n, params, first + r, ahead[r], kind);     \
    break;
    FN_KINDS(FN_CASE)
#undef FN_CASE
  }
}

/* Does the row of y that is worked on, with its weight and bias, lie in one piece? */
static inline int FN(y_is_plain)(const fn_job *job) {
  const int affine = job->weight || job->bias;
  return FN(native)(&job->array[FN_Y]) &&
         (job->n == 1 || (job->reduced_ndim == 1 && fn_step(job, FN_Y) == (int64_t)sizeof(T) &&
                          (!affine || fn_step(job, FN_P) == 1)));
}

/* Applies parameters to `n` loaded elements of a row, number `start` on. */
static void FN(apply_run)(const fn_job *job, const T *x, char *y_base, int64_t start, int64_t n,
                          const FN(params) *params, int r, T *tile) {
  const T *weight = job->weight ? (const T *)job->weight + start : NULL;
  const T *bias = job->bias ? (const T *)job->bias + start : NULL;
  if (FN(y_is_plain)(job)) {
    T *y = (T *)(void *)y_base + start;
    FN(apply_to_rows)(&y, &x, &x, 1, weight, bias, n, params, r, job->stream && !job->quiet);
    if (job->quiet) FN(quiet)(y, n);
    return;
  }
  FN(apply_to_rows)(&tile, &x, &x, 1, NULL, NULL, n, params, r, 0);
  for (int64_t at = 0; (weight || bias) && at < n;) {
    const fn_run run = fn_next_run(job, FN_P, start + at, n - at);
    const int64_t step = fn_step(job, FN_P);
    for (int64_t i = 0; weight && i < run.count; i++) tile[at + i] *= ((const T *)job->weight)[run.offset + i * step];
    for (int64_t i = 0; bias && i < run.count; i++) tile[at + i] += ((const T *)job->bias)[run.offset + i * step];
    at += run.count;
  }
  if (job->quiet) FN(quiet)(tile, n);
  FN(store)(job, FN_Y, y_base, start, n, tile);
}

/* ---- columns ----------------------------------------------------------------------------------------------------- */

FN_INLINE void FN(apply_across_of_kind)(T *y, const T *x, int64_t n, const T *center, const T *center_lo,
                                        const T *scale, T weight, T bias, int kind) {
  FN_IVDEP
  for (int64_t i = 0; i < n; i++) FN_AFFINE(y[i], x[i], center[i], center_lo[i], scale[i], weight, bias, kind);
}

/* One row of a strip, from column `from` on. */
static void FN(apply_across)(T *y, const T *x, int64_t n, const FN(params) *params, int64_t from, const T *weight,
                             const T *bias) {
  const T *center = params->center + from, *center_lo = params->center_lo + from, *scale = params->scale + from;
  switch (fn_kind(params->with_lo, weight, bias, 0)) {
#define FN_CASE(kind)                                                                                                  \
  case kind:                                                                                                           \
    FN(apply_across_of_kind)(y, x, n, center, center_lo, scale, weight ? *weight : 1, bias ? *bias : 0, kind);         \
    break;
    FN_KINDS_IN_CACHE(FN_CASE)
#undef FN_CASE
  }
}

/* Dense rows without an affine part follow each other as one run, worked on several rows at a time. */
static void FN(apply_dense)(const T *x, T *y, int64_t n, int64_t cols, FN(params) *params, int stream, T *tile) {
  const int64_t wide = cols * fn_group_rows(cols), block = stream ? FN_TILE / wide * wide : n;
  for (int64_t j = cols; j < wide; j++) {
    params->center[j] = params->center[j - cols];
    params->center_lo[j] = params->center_lo[j - cols];
    params->scale[j] = params->scale[j - cols];
  }
  for (int64_t start = 0; start < n; start += block) {
    const int64_t end = n - start < block ? n : start + block;
    T *to = stream ? tile : y + start;
    for (int64_t i = start; i < end; i += wide)
      FN(apply_across)(to + (i - start), x + i, end - i < wide ? end - i : wide, params, 0, NULL, NULL);
    if (stream) fn_stream((char *)(y + start), (const char *)tile, (end - start) * (int64_t)sizeof(T));
  }
}

/* Rows start <= i < start + rows of a strip whose first column begins at y_base. `x` was loaded. */
static void FN(apply_strip)(const fn_job *job, const T *x, int64_t stride, char *y_base, int64_t start, int64_t rows,
                            int64_t cols, FN(params) *params, T *tile) {
  const int64_t size = (int64_t)sizeof(T), across = job->inner.step[FN_Y];
  const int64_t y_step = job->reduced_ndim == 1 ? job->reduced[0].step[FN_Y] : 0;
  const int native = FN(native)(&job->array[FN_Y]), in_line = native && across == size;
  const T *weight = job->weight, *bias = job->bias;
  if (in_line && stride == cols && y_step == cols * size && params->all && !weight && !bias) {
    FN(apply_dense)(x, (T *)(void *)(y_base + start * y_step), rows * cols, cols, params, job->stream, tile);
    return;
  }
  /* Short rows that follow each other in memory: normalized side by side in the tile, then turned back. */
  const int turned = params->all && native && job->reduced_ndim == 1 && y_step == size &&
                     across == rows * size && 2 * rows * cols + FN_STRIP <= FN_CHUNK;
  T *side_by_side = tile + FN_STRIP;
  for (int64_t i = 0; i < rows; i++) {
    const int64_t p = fn_along(job, FN_P, start + i);
    char *to = y_base + fn_along(job, FN_Y, start + i);
    for (int64_t j = 0, end; j < cols; j = end) { /* columns that are not left to the careful way */
      end = params->all ? cols : j + 1;
      if (params->scale[j] != params->scale[j]) continue;
      char *at = to + j * across;
      const int direct = in_line && !job->stream;
      T *y = turned ? side_by_side + i * cols : direct ? (T *)(void *)at : tile;
      FN(apply_across)(y, x + i * stride + j, end - j, params, j, weight ? weight + p : NULL, bias ? bias + p : NULL);
      if (job->quiet) FN(quiet)(y, end - j);
      if (turned || direct) continue;
      if (in_line)
        fn_stream(at, (const char *)tile, (end - j) * size);
      else
        FN(scatter_run)(at, tile, end - j, across, job->array[FN_Y].dtype);
    }
  }
  if (turned) {
    T *y = job->stream ? side_by_side + rows * cols : (T *)(void *)y_base;
    FN(turn)(y, rows, side_by_side, cols, rows, cols);
    if (job->stream) fn_stream(y_base, (const char *)y, rows * cols * size);
  }
}
