/* y = ((x - center) - center_lo) * scale * weight + bias, for rows and for strips of columns.
 *
 * Layer norm: the mean and the reciprocal deviation. RMS norm: no center. Range: the minimum, and the ratio of the
 * ranges. The mean is kept as a rounded value and its residual until both are subtracted, so that a mean of 1e4
 * standard deviations costs no digits.
 */

/* What is applied to each of some rows or columns. A scale of NaN leaves it to the careful way. */
typedef struct {
  __attribute__((aligned(64))) T center[FN_STRIP], center_lo[FN_STRIP], scale[FN_STRIP], shift[FN_STRIP];
  int with_lo, all;     /* some residual is not 0; nothing is left to the careful way */
  int at_zero;          /* centers are 0 by the kind of norm */
  int with_shift, relu; /* weight and bias are those of a row or column: in scale and shift */
  int with_top;         /* what lies above `top` is cut off */
  T top;
} FN(params);

/* Means, in two parts, and variances become parameters. A residual of less than half a rounding error of y is left out.
 * A variance of exactly 0 is that of a constant; squares summed in double lose nothing above 2^-960. */
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
  to->at_zero = to->with_shift = to->relu = to->with_top = 0;
  to->all = all;
}

/* The weights and biases of `count` entries from number `first` on, whose statistics stand `step` apart from p on, join
 * scales and shifts. A product near the ends of the range is left to the careful way. */
static void FN(fold_affine)(const fn_job *job, int64_t p, int64_t step, int64_t first, int64_t count, FN(params) *to) {
  const T *weight = job->weight, *bias = job->bias;
  T weights[FN_STRIP], *scale = to->scale + first, *shift = to->shift + first;
  int64_t at = p % job->period;
  for (int64_t j = 0; j < count; j++) {
    weights[j] = weight ? weight[at] : 1;
    shift[j] = bias ? bias[at] : 0;
    at += step;
    if (at >= job->period) at %= job->period;
  }
  int all = 1;
  FN_IVDEP
  for (int64_t j = 0; j < count; j++) {
    const T product = scale[j] * weights[j], size = product < 0 ? -product : product;
    const int none = (scale[j] == 0) | (weights[j] == 0); /* else a product of 0 has underflowed */
    const int held = ((size >= (T)FN_LEAST_SCALE) & (size <= (T)FN_MOST_SCALE)) | ((product == 0) & none);
    scale[j] = held ? product : (T)__builtin_nan("");
    all &= held;
  }
  to->all &= all;
  to->with_shift = 1;
  to->relu = job->relu;
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

/* What is left to do to normalized values: what does not count is 0, NaN is the canonical one. */
static void FN(touch_up)(const fn_job *job, T *y, const uint8_t *where, int64_t n) {
  for (int64_t i = 0; where && i < n; i++) y[i] = where[i] ? y[i] : 0;
  for (int64_t i = 0; job->quiet && i < n; i++) y[i] = y[i] == y[i] ? y[i] : (T)__builtin_nan("");
}
static inline int FN(is_touched_up)(const fn_job *job) { return job->quiet || job->array[FN_WHERE].data; }

/* For a range: the least element becomes `least` and the greatest `most`, exactly: the scale is rounded up until it
 * reaches that, and what lies above is cut off. */
static void FN(fill_range)(const fn_job *job, const double *state, int64_t stride, int64_t step, int64_t cols,
                           FN(params) *to) {
  to->with_lo = to->at_zero = to->relu = 0;
  to->with_shift = to->with_top = to->all = 1;
  to->top = (T)job->most;
  for (int64_t j = 0; j < cols; j++) {
    const double min = state[FN_MIN * stride + j * step], max = state[FN_MAX * stride + j * step];
    const double range = max - min, ratio = (job->most - job->least) / range;
    const T center = (T)min, top = (T)max - center;
    T scale = range == 0 ? 0 : (T)ratio;
    const int held = range == 0 || (ratio >= FN_LEAST_SCALE && ratio <= FN_MOST_SCALE);
    if (!held || !(fabs(min) <= FN_LARGE) || !(top < FN_LARGE)) scale = (T)__builtin_nan("");
    for (int up = 0; up < 4 && top * scale + (T)job->least < (T)job->most; up++) scale *= 1 + (T)FN_EPS;
    to->center[j] = center;
    to->center_lo[j] = 0;
    to->scale[j] = scale;
    to->shift[j] = (T)job->least;
    to->all &= scale == scale;
  }
}

/* Parameters from the states of columns j, a `step` of doubles apart. */
static void FN(params_without_affine)(const fn_job *job, const double *state, int64_t stride, int64_t step,
                                      int64_t cols, FN(params) *params) {
  double mean[FN_STRIP], mean_lo[FN_STRIP], var[FN_STRIP];
  if (job->norm == FN_RANGE) {
    FN(fill_range)(job, state, stride, step, cols, params);
    return;
  }
  if (cols < 1) return; /* never, which compilers do not know */
  for (int64_t j = 0; j < cols; j++) {
    const double *column = state + j * step;
    const int centred = job->norm != FN_RMS;
    mean[j] = centred ? column[FN_MEAN * stride] : 0;
    mean_lo[j] = centred ? column[FN_MEAN_LO * stride] : 0;
    var[j] = fn_square_of(job, column, stride);
    /* A deviation is saved without eps: the careful way if its square has vanished. */
    if (job->finish == FN_DEVIATION && var[j] > 0 && var[j] < 0x1p-960) var[j] = __builtin_nan("");
    if (job->given && var[j] + job->eps == 0) var[j] = __builtin_nan(""); /* else taken for that of a constant */
  }
  FN(fill_params)(mean, mean_lo, var, cols, job->eps, params);
  params->at_zero = job->norm == FN_RMS;
}

/* Likewise, with the weights and biases of channels, whose statistics stand from p on. */
static void FN(params_of)(const fn_job *job, const double *state, int64_t stride, int64_t step, int64_t p, int64_t cols,
                          FN(params) *params) {
  FN(params_without_affine)(job, state, stride, step, cols, params);
  if (fn_is_shifted(job)) FN(fold_affine)(job, p, job->inner.step[FN_P], 0, cols, params);
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

/* For numbers and vectors alike. What a kind is without is known when this is compiled, and costs nothing. */
#define FN_AFFINE(y, x, center, center_lo, scale, shift, weight, bias, kind)                                           \
  do {                                                                                                                 \
    (y) = (x);                                                                                                         \
    if (!((kind) & FN_AT_ZERO)) (y) -= (center);                                                                       \
    if ((kind) & FN_WITH_LO) (y) -= (center_lo);                                                                       \
    (y) *= (scale);                                                                                                    \
    if ((kind) & FN_WITH_WEIGHT) (y) *= (weight);                                                                      \
    if ((kind) & FN_WITH_BIAS) (y) += (bias);                                                                          \
    if ((kind) & FN_WITH_SHIFT) (y) += (shift);                                                                        \
  } while (0)

/* NaN stays NaN. */
static inline FN(vector) FN(rectified_vector)(FN(vector) y) {
  return (FN(vector))((FN(keys))y & ~(FN(keys))(y <= (FN(vector)){0}));
}
static inline T FN(rectified)(T y) { return y <= 0 ? 0 : y; }

/* Likewise, for what is no greater than `top`. */
static inline FN(vector) FN(topped_vector)(FN(vector) y, T top) {
  return FN(choose)((FN(keys))(y > top), FN(every)(top), y);
}
static inline T FN(topped)(T y, T top) { return y > top ? top : y; }

/* The last of what a kind does. */
FN_INLINE FN(vector) FN(finished_vector)(FN(vector) y, T top, int kind) {
  if (kind & FN_WITH_SHIFT) y = FN(quiet_vector)(y);
  if (kind & FN_WITH_RELU) y = FN(rectified_vector)(y);
  if (kind & FN_WITH_TOP) y = FN(topped_vector)(y, top);
  return y;
}
FN_INLINE T FN(finished)(T y, T top, int kind) {
  if (kind & FN_WITH_SHIFT) y = FN(quiet)(y);
  if (kind & FN_WITH_RELU) y = FN(rectified)(y);
  if (kind & FN_WITH_TOP) y = FN(topped)(y, top);
  return y;
}

/* Elements i <= j < i + FN(LINE) of a row, to `to`; past the cache only if that is aligned. */
FN_INLINE void FN(apply_line)(T *to, const T *x, const T *weight, const T *bias, int64_t i, T center, T center_lo,
                              T scale, T shift, T top, int kind) {
#define FN_LOAD(from) (*(const FN(loose_vector) *)(const void *)((from) + i + k))
  for (int k = 0; k < FN(LINE); k += FN(WIDTH)) {
    FN(vector) y;
    FN_AFFINE(y, FN_LOAD(x), center, center_lo, scale, shift, FN_LOAD(weight), FN_LOAD(bias), kind);
    FN(store_by)(to + k, FN(finished_vector)(y, top, kind), kind & FN_PAST_CACHE);
  }
#undef FN_LOAD
}

/* Stores that straddle cache lines cost double, so long rows go by whole lines of y. The elements before the first and
 * after the last line lie in two pieces that overlap these; they are computed before anything is written, since y may
 * be x. */
FN_INLINE void FN(apply_row)(T *y, const T *x, const T *weight, const T *bias, int64_t n, const FN(params) *params,
                             int r, const T *ahead, const T *also, int kind) {
  enum { W = FN(LINE) };
  const T center = params->center[r], center_lo = params->center_lo[r];
  const T scale = params->scale[r], shift = params->shift[r], top = params->top;
  if (n < W) {
    FN_IVDEP
    for (int64_t i = 0; i < n; i++) {
      FN_AFFINE(y[i], x[i], center, center_lo, scale, shift, weight[i], bias[i], kind);
      y[i] = FN(finished)(y[i], top, kind);
    }
    return;
  }
  T head[W], tail[W];
  if (n <= 8 * W) { /* too short for the first piece to pay */
    FN(apply_line)(tail, x, weight, bias, n - W, center, center_lo, scale, shift, top, kind & ~FN_PAST_CACHE);
    for (int64_t i = 0; i + W <= n; i += W) {
      FN(apply_line)(y + i, x, weight, bias, i, center, center_lo, scale, shift, top, kind & ~FN_PAST_CACHE);
      __builtin_prefetch(ahead + i);
      __builtin_prefetch(also + i);
    }
    memcpy(y + n - W, tail, sizeof tail);
    return;
  }
  FN(apply_line)(head, x, weight, bias, 0, center, center_lo, scale, shift, top, kind & ~FN_PAST_CACHE);
  FN(apply_line)(tail, x, weight, bias, n - W, center, center_lo, scale, shift, top, kind & ~FN_PAST_CACHE);
  const int64_t first = (int64_t)((-(uintptr_t)y & 63) / sizeof(T)), last = n - (n - first) % W;
  for (int64_t i = first; i < last; i += W) {
    FN(apply_line)(y + i, x, weight, bias, i, center, center_lo, scale, shift, top, kind);
    __builtin_prefetch(ahead + i);
    __builtin_prefetch(also + i);
  }
  if (kind & FN_PAST_CACHE) { /* what has gone past the cache would be fetched back to be written again */
    memcpy(y, head, (size_t)first * sizeof(T));
    memcpy(y + last, tail + W - (n - last), (size_t)(n - last) * sizeof(T));
    return;
  }
  memcpy(y, head, sizeof head);
  memcpy(y + n - W, tail, sizeof tail);
}

static inline int FN(kind_of)(const FN(params) *params, const T *weight, const T *bias, int past_cache) {
  const int shifted = FN_WITH_SHIFT | (params->relu ? FN_WITH_RELU : 0) | (params->with_lo ? FN_WITH_LO : 0) |
                      (params->with_top ? FN_WITH_TOP : 0) | (past_cache ? FN_PAST_CACHE : 0);
  return params->with_shift ? shifted : fn_kind(params->with_lo, params->at_zero, weight, bias, past_cache);
}

/* Applies parameters number `first` and on to `count` rows of n elements. A row of y may be that of x. */
static void FN(apply_to_rows)(T *const *y, const T *const *x, const T *const *ahead, const T *const *also, int count,
                              const T *weight, const T *bias, int64_t n, const FN(params) *params, int first,
                              int past_cache) {
  switch (FN(kind_of)(params, weight, bias, past_cache)) {
#define FN_CASE(kind)                                                                                                  \
  case kind:                                                                                                           \
    for (int r = 0; r < count; r++)                                                                                    \
      FN(apply_row)(y[r], x[r], weight, bias, n, params, first + r, ahead[r], also[r], kind);                          \
    break;
    FN_KINDS(FN_CASE)
#undef FN_CASE
  }
}

/* Elements i <= j < i + FN(LINE), of which the first `own` belong to row r, the others to the next. */
FN_INLINE void FN(apply_border)(T *y, const T *x, int64_t i, int64_t own, const FN(params) *params, int r, int kind) {
  for (int k = 0; k < FN(LINE); k += FN(WIDTH)) {
#define FN_EITHER(list) FN(border)(own - k, params->list[r], params->list[r + 1])
    FN(vector) v = FN(load_all)(x + i + k);
    FN_AFFINE(v, v, FN_EITHER(center), FN_EITHER(center_lo), FN_EITHER(scale), FN_EITHER(shift), v, v, kind);
#undef FN_EITHER
    FN(store_by)(y + i + k, FN(finished_vector)(v, params->top, kind), kind & FN_PAST_CACHE);
  }
}

FN_INLINE void FN(apply_adjacent_of)(T *y, const T *x, int64_t n, int count, const FN(params) *params, int first,
                                     int kind) {
  enum { W = FN(LINE) };
  const int64_t all = count * n, begin = (int64_t)((-(uintptr_t)y & 63) / sizeof(T));
  const int last = first + count - 1, inside = kind & ~FN_PAST_CACHE;
  T head[W], tail[W];
  FN(apply_line)(head, x, x, x, 0, params->center[first], params->center_lo[first], params->scale[first],
                 params->shift[first], params->top, inside);
  FN(apply_line)(tail, x, x, x, all - W, params->center[last], params->center_lo[last], params->scale[last],
                 params->shift[last], params->top, inside);
  int64_t i = begin;
  for (int r = first; r <= last; r++) {
    const int64_t end = (r - first + 1) * n;
    const T center = params->center[r], center_lo = params->center_lo[r];
    const T scale = params->scale[r], shift = params->shift[r], top = params->top;
    for (; i + W <= end; i += W) {
      FN(apply_line)(y + i, x, x, x, i, center, center_lo, scale, shift, top, kind);
      __builtin_prefetch((const void *)((uintptr_t)(x + i) + 8192));
    }
    if (r == last || i == end) continue;
    FN(apply_border)(y, x, i, end - i, params, r, kind);
    i += W;
  }
  if (kind & FN_PAST_CACHE) {
    memcpy(y, head, (size_t)begin * sizeof(T));
    memcpy(y + i, tail + W - (all - i), (size_t)(all - i) * sizeof(T));
    return;
  }
  memcpy(y, head, sizeof head);
  memcpy(y + all - W, tail, sizeof tail);
}

/* Applies parameters number `first` and on, with shifts, to `count` rows of n >= FN(LINE) elements that follow each
 * other in x and in y, which may be the same: by whole lines of y, whichever rows these belong to. */
static void FN(apply_adjacent)(T *y, const T *x, int64_t n, int count, const FN(params) *params, int first,
                               int past_cache) {
  switch (FN(kind_of)(params, NULL, NULL, past_cache)) {
#define FN_CASE(kind)                                                                                                  \
  case kind:                                                                                                           \
    FN(apply_adjacent_of)(y, x, n, count, params, first, kind);                                                        \
    break;
    FN_SHIFT_KINDS(FN_CASE)
#undef FN_CASE
  }
}

/* Do weight and bias lie in one piece each? */
static inline int FN(affine_is_plain)(const fn_job *job) {
  return !(job->weight || job->bias) || job->n == 1 || (job->stretch[FN_P] == job->n && fn_step(job, FN_P) == 1);
}

/* Do the reduced elements of an array follow each other? */
static inline int FN(in_line)(const fn_job *job, int which) {
  const int64_t size = fn_is_half(job->array[which].dtype) ? 2 : (int64_t)sizeof(T);
  return job->n == 1 || (job->stretch[which] == job->n && fn_step(job, which) == size);
}

/* Applies parameters number r to `n` elements of a row from number `start` on, or to as many as can be done together:
 * whose weights and biases, at `weight` and `bias`, change from run to run. Returns how many. */
static int64_t FN(apply_shared)(const fn_job *job, T *y, const T *x, const T *weight, const T *bias, int64_t start,
                                int64_t n, const FN(params) *params, int r, int past_cache) {
  enum { MOST = 64 };
  FN(params) shared;
  const T scale = params->scale[r];
  const int64_t length = fn_next_run(job, FN_P, start, n).count;
  int count = 0, held = 1;
  for (int64_t at = 0; held && at + length <= n && count < MOST; at += length) {
    const fn_run run = fn_next_run(job, FN_P, start + at, n - at);
    const T by = weight ? weight[run.offset] : 1, product = scale * by, size = product < 0 ? -product : product;
    const int fits = product == 0 ? by == 0 || scale == 0 : size >= (T)FN_LEAST_SCALE && size <= (T)FN_MOST_SCALE;
    if (count && (!fits || run.count != length)) break;
    shared.center[count] = params->center[r];
    shared.center_lo[count] = params->center_lo[r];
    shared.scale[count] = fits ? product : scale;
    shared.shift[count] = fits && bias ? bias[run.offset] : 0;
    held = fits; /* what does not fit is done alone, in two steps */
    count++;
  }
  shared.with_lo = params->with_lo;
  shared.with_shift = 1;
  shared.relu = shared.with_top = 0;
  shared.top = 0;
  if (length >= FN(LINE))
    FN(apply_adjacent)(y, x, length, count, &shared, 0, past_cache && held);
  else
    for (int c = 0; c < count; c++) {
      T *y_run = y + c * length;
      const T *x_run = x + c * length;
      FN(apply_to_rows)(&y_run, &x_run, &x_run, &x_run, 1, NULL, NULL, length, &shared, c, 0);
    }
  if (held) return count * length;
  const int64_t p = fn_next_run(job, FN_P, start, n).offset;
  for (int64_t i = 0; i < length; i++) y[i] = y[i] * (weight ? weight[p] : 1) + (bias ? bias[p] : 0);
  return length;
}

/* Applies parameters number r to `n` loaded elements of row `outer`, from number `start` on; asks for those at `ahead`.
 */
static void FN(apply_run)(const fn_job *job, const T *x, const T *ahead, int64_t outer, int64_t start, int64_t n,
                          const FN(params) *params, int r, T *tile, uint8_t *counts) {
  const int direct = FN(native)(&job->array[FN_Y]) && FN(in_line)(job, FN_Y), shifted = params->with_shift;
  const int plain = shifted || FN(affine_is_plain)(job), shared = !plain && fn_step(job, FN_P) == 0;
  const int past_cache = direct && job->stream && !FN(is_touched_up)(job);
  const int64_t set = shifted ? 0 : fn_set(job, fn_place(job, outer, 0));
  const T *weight = job->weight && !shifted ? (const T *)job->weight + set : NULL;
  const T *bias = job->bias && !shifted ? (const T *)job->bias + set : NULL;
  char *y_base = fn_base(job, FN_Y, outer, 0);
  T *y = direct ? (T *)(void *)y_base + start : tile;
  if (plain) {
    const T *weights = weight ? weight + start : NULL, *biases = bias ? bias + start : NULL;
    FN(apply_to_rows)(&y, &x, &ahead, &ahead, 1, weights, biases, n, params, r, past_cache);
  } else if (!shared) {
    FN(apply_to_rows)(&y, &x, &x, &x, 1, NULL, NULL, n, params, r, 0);
  }
  for (int64_t at = 0; shared && at < n;)
    at += FN(apply_shared)(job, y + at, x + at, weight, bias, start + at, n - at, params, r, past_cache);
  for (int64_t at = 0; !plain && !shared && at < n;) {
    const fn_run run = fn_next_run(job, FN_P, start + at, n - at);
    const int64_t step = fn_step(job, FN_P);
    for (int64_t i = 0; weight && i < run.count; i++) y[at + i] *= weight[run.offset + i * step];
    for (int64_t i = 0; bias && i < run.count; i++) y[at + i] += bias[run.offset + i * step];
    at += run.count;
  }
  FN(touch_up)(job, y, fn_dense_where(job, outer, 0, start, n, 1, counts), n);
  if (!direct) FN(store)(job, FN_Y, y_base, start, n, tile);
}

/* ---- columns ----------------------------------------------------------------------------------------------------- */

FN_INLINE void FN(apply_across_of_kind)(T *y, const T *x, int64_t n, const T *center, const T *center_lo,
                                        const T *scale, const T *shift, T top, T weight, T bias, int kind) {
#define FN_LOAD(from) (*(const FN(loose_vector) *)(const void *)((from) + i))
  for (int64_t i = 0; kind & FN_PAST_CACHE && i < n; i += FN(WIDTH)) {
    FN(vector) v;
    FN_AFFINE(v, FN_LOAD(x), FN_LOAD(center), FN_LOAD(center_lo), FN_LOAD(scale), FN_LOAD(shift), weight, bias, kind);
    FN(store_by)(y + i, FN(finished_vector)(v, top, kind), 1);
  }
#undef FN_LOAD
  if (kind & FN_PAST_CACHE) return;
  FN_IVDEP
  for (int64_t i = 0; i < n; i++) {
    T v;
    FN_AFFINE(v, x[i], center[i], center_lo[i], scale[i], shift[i], weight, bias, kind);
    y[i] = FN(finished)(v, top, kind);
  }
}

/* One row of a strip, from column `from` on; past the cache only whole lines. */
static void FN(apply_across)(T *y, const T *x, int64_t n, const FN(params) *params, int64_t from, const T *weight,
                             const T *bias, int past_cache) {
  const T *center = params->center + from, *center_lo = params->center_lo + from, *scale = params->scale + from;
  const T *shift = params->shift + from;
  switch (FN(kind_of)(params, weight, bias, past_cache)) {
#define FN_CASE(kind)                                                                                                  \
  case kind:                                                                                                           \
    FN(apply_across_of_kind)(y, x, n, center, center_lo, scale, shift, params->top, weight ? *weight : 1,              \
                             bias ? *bias : 0, kind);                                                                  \
    break;
    FN_KINDS(FN_CASE)
#undef FN_CASE
  }
}

/* Entries 0 <= j < cols of the parameters are repeated up to `wide`, from entry `first` on. */
static void FN(repeat_params)(FN(params) *params, int64_t cols, int64_t wide, int64_t first) {
  T *lists[] = {params->center, params->center_lo, params->scale, params->shift}, once[FN_STRIP];
  for (int k = 0; k < 4; k++) {
    T *list = lists[k];
    if (first) {
      memcpy(once, list, (size_t)first * sizeof(T));
      memmove(list, list + first, (size_t)(cols - first) * sizeof(T));
      memcpy(list + cols - first, once, (size_t)first * sizeof(T));
    }
    for (int64_t held = cols, count; held < wide; held += count) {
      count = wide - held < held ? wide - held : held;
      memcpy(list + held, list, (size_t)count * sizeof(T));
    }
  }
}

/* Dense rows without an affine part along them follow each other as one run, worked on several rows at a time, from a
 * cache line of y on. */
static void FN(apply_dense)(const T *x, T *y, int64_t n, int64_t cols, FN(params) *params, int stream) {
  const int64_t wide = cols * fn_group_rows(cols);
  const int64_t head = (int64_t)((-(uintptr_t)y & 63) / sizeof(T)), first = head < cols && head < n ? head : 0;
  FN(apply_across)(y, x, first, params, 0, NULL, NULL, 0);
  FN(repeat_params)(params, cols, wide, first);
  x += first, y += first, n -= first;
  for (int64_t i = 0; i < n; i += wide) {
    const int64_t count = n - i < wide ? n - i : wide;
    const int64_t lines = stream && ((uintptr_t)(y + i) & 63) == 0 ? count - count % FN(LINE) : 0;
    for (int64_t k = 0; k < wide; k += FN(LINE)) __builtin_prefetch((const void *)((uintptr_t)(x + i + k) + 8192));
    FN(apply_across)(y + i, x + i, lines, params, 0, NULL, NULL, 1);
    FN(apply_across)(y + i + lines, x + i + lines, count - lines, params, lines, NULL, NULL, 0);
  }
}

/* Rows of a strip that go to memory as they stand in `from`, dense. Short rows are turned back. */
static void FN(store_strip)(const fn_job *job, int which, char *base, int64_t start, int64_t rows, int64_t cols,
                            const T *from, T *spare, int stream) {
  const int64_t size = (int64_t)sizeof(T), across = job->inner.step[which];
  const int dtype = job->array[which].dtype;
  const int64_t width = fn_is_half(dtype) ? 2 : size;
  if (rows > 1 && rows == job->n && FN(in_line)(job, which) && across == rows * width) {
    const int direct = FN(native)(&job->array[which]) && !stream;
    T *turned = direct ? (T *)(void *)base : spare;
    FN(turn)(turned, rows, from, cols, rows, cols);
    if (!direct && FN(native)(&job->array[which]))
      fn_stream(base, (const char *)turned, rows * cols * size);
    else if (!direct)
      FN(scatter_run)(base, turned, rows * cols, width, dtype);
    return;
  }
  if (FN(packs_halves)(job, which, cols)) {
    FN(leave)(base + start * fn_step(job, which), from, rows * cols, dtype, stream, spare);
    return;
  }
  for (int64_t i = 0; i < rows; i++) {
    char *to = base + fn_along(job, which, start + i);
    if (stream && across == size && dtype == FN_TYPE)
      fn_stream(to, (const char *)(from + i * cols), cols * size);
    else
      FN(scatter_run)(to, from + i * cols, cols, across, dtype);
  }
}

/* Columns of several groups have weights and biases of their own, which change along them, too: those of the rows from
 * `start` on, dense. */
static void FN(spread_affine)(const fn_job *job, int64_t outer, int64_t j, int64_t start, int64_t rows, int64_t cols,
                              T *weights, T *biases) {
  const T *weight = job->weight, *bias = job->bias;
  int64_t set[FN_STRIP];
  for (int64_t c = 0; c < cols; c++) set[c] = fn_set(job, fn_place(job, outer, j + c));
  for (int64_t i = 0; i < rows; i++) {
    const int64_t p = fn_along(job, FN_P, start + i);
    for (int64_t c = 0; c < cols; c++) weights[i * cols + c] = weight ? weight[set[c] + p] : 1;
    for (int64_t c = 0; c < cols; c++) biases[i * cols + c] = bias ? bias[set[c] + p] : 0;
  }
}

static void FN(apply_spread)(T *y, const T *x, int64_t n, const FN(params) *params, int64_t from, const T *weight,
                             const T *bias) {
  const T *center = params->center + from, *center_lo = params->center_lo + from, *scale = params->scale + from;
  FN_IVDEP
  for (int64_t i = 0; i < n; i++) y[i] = ((x[i] - center[i]) - center_lo[i]) * scale[i] * weight[i] + bias[i];
}

/* Rows start <= i < start + rows of the strip of columns j and on. `x` was loaded; `tile` has room for two strips. Of
 * groups, `spread` holds the weights and behind them the biases; NULL: they are found here. */
static void FN(apply_strip)(const fn_job *job, const T *x, int64_t stride, int64_t outer, int64_t j, int64_t start,
                            int64_t rows, int64_t cols, FN(params) *params, const T *spread, T *tile, uint8_t *counts) {
  const int64_t size = (int64_t)sizeof(T), across = job->inner.step[FN_Y];
  const int64_t y_step = job->stretch[FN_Y] == job->n ? fn_step(job, FN_Y) : 0;
  const int in_line = FN(native)(&job->array[FN_Y]) && across == size, touched_up = FN(is_touched_up)(job);
  const T *weight = params->with_shift ? NULL : job->weight, *bias = params->with_shift ? NULL : job->bias;
  char *y_base = fn_base(job, FN_Y, outer, j);
  if (in_line && stride == cols && y_step == cols * size && params->all && !weight && !bias && !touched_up) {
    FN(apply_dense)(x, (T *)(void *)(y_base + start * y_step), rows * cols, cols, params, job->stream);
    return;
  }
  if (fn_is_half(job->array[FN_Y].dtype) && stride == cols && params->all && !weight && !bias && !touched_up) {
    FN(apply_dense)(x, tile, rows * cols, cols, params, 0);
    FN(store_strip)(job, FN_Y, y_base, start, rows, cols, tile, tile + rows * cols, job->stream);
    return;
  }
  int64_t where_stride = 0;
  const uint8_t *where = fn_where(job, outer, j, start, rows, cols, counts, &where_stride);
  const int direct = in_line && !job->stream;
  T weights[FN_STRIP], biases[FN_STRIP];
  const int each = job->unit > 1 && (weight || bias);
  for (int64_t i = 0; i < rows; i++) {
    const int64_t p = fn_along(job, FN_P, start + i);
    const T *row_weights = spread ? spread + i * cols : weights;
    const T *row_biases = spread ? row_weights + rows * cols : biases;
    if (each && !spread) FN(spread_affine)(job, outer, j, start + i, 1, cols, weights, biases);
    char *to = y_base + fn_along(job, FN_Y, start + i);
    for (int64_t c = 0, end; c < cols; c = end) { /* columns that are not left to the careful way */
      end = params->all ? cols : c + 1;
      if (params->scale[c] != params->scale[c]) continue;
      T *y = direct ? (T *)(void *)(to + c * across) : tile + i * cols + c;
      const T *x_c = x + i * stride + c;
      if (each)
        FN(apply_spread)(y, x_c, end - c, params, c, row_weights + c, row_biases + c);
      else
        FN(apply_across)(y, x_c, end - c, params, c, weight ? weight + p : NULL, bias ? bias + p : NULL, 0);
      if (touched_up) FN(touch_up)(job, y, where ? where + i * where_stride + c : NULL, end - c);
      if (!direct && !params->all) FN(scatter_run)(to + c * across, y, 1, across, job->array[FN_Y].dtype);
    }
  }
  if (!direct && params->all)
    FN(store_strip)(job, FN_Y, y_base, start, rows, cols, tile, tile + rows * cols, job->stream);
}
