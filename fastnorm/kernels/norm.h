/* Normalize and affine: y = ((x - mean) - mean_lo) * rstd * weight + bias.
 *
 * Statistics and apply meet where the data fits a cache (norm_rows, norm_columns); longer problems take their statistics
 * from moments.h and come here to have them applied. The mean is kept as a rounded value and its residual until both are
 * subtracted, so that a mean of 1e4 standard deviations costs no digits. What the compute type cannot hold (squares that
 * overflow or underflow, a scale near the ends of its range) is done again in double, scaled by a power of two.
 */

static void FN(scatter_run)(char *to, const T *from, int64_t count, int64_t step) {
  for (int64_t i = 0; i < count; i++) memcpy(to + i * step, from + i, sizeof *from);
}

/* `from` becomes the elements of y from number `start` on: the way back from convert.h. */
static void FN(store)(const fn_job *job, char *base, int64_t start, int64_t count, const T *from) {
  const fn_axis *axes = job->reduced;
  const int64_t step = job->reduced_ndim ? axes[job->reduced_ndim - 1].y : 0;
  for (int64_t at = 0; at < count;) {
    fn_run run = fn_next_run(axes, job->reduced_ndim, start + at, count - at, offsetof(fn_axis, y));
    FN(scatter_run)(base + run.offset, from + at, run.count, step);
    at += run.count;
  }
}

/* ---- the careful way: one kept index, any layout, any range ------------------------------------------------------ */

/* A power of two that brings the largest magnitude near one. Floats need none: their squares fit a double. */
static double FN(prescale)(const fn_job *job, const char *base, T *tile) {
  double most = 0;
  for (int64_t start = 0; FN_TYPE == FN_F64 && start < job->n; start += FN_CHUNK) {
    const int64_t n = job->n - start < FN_CHUNK ? job->n - start : FN_CHUNK;
    const T *x = FN(load)(job, base, start, n, tile);
    for (int64_t i = 0; i < n; i++) {
      double magnitude = fabs((double)x[i]);
      most = magnitude > most && fn_finite(magnitude) ? magnitude : most;
    }
  }
  if (most == 0) return 1;
  uint64_t bits;
  memcpy(&bits, &most, sizeof bits);
  int64_t exponent = (int64_t)(bits >> 52) - 1023, reverse = exponent < -1000 ? 1000 : exponent > 1000 ? -1000 : -exponent;
  bits = (uint64_t)(1023 + reverse) << 52;
  memcpy(&most, &bits, sizeof most);
  return most;
}

/* y = normalized x, and the statistics at p. */
static void FN(norm_careful)(const fn_job *job, const char *x_base, char *y_base, int64_t p, T *tile) {
  const double pre = FN(prescale)(job, x_base, tile);
  double state[FN_PLANES], part[FN_PLANES];
  fn_clear(state, 1, 1);
  fn_clear(part, 1, 1);
  for (int64_t start = 0; start < job->n; start += FN_CHUNK) {
    const int64_t count = job->n - start < FN_CHUNK ? job->n - start : FN_CHUNK;
    part[FN_COUNT] = (double)count;
    FN(careful_moments)(FN(load)(job, x_base, start, count, tile), 1, count, pre, part + FN_MEAN, part + FN_MEAN_LO,
                        part + FN_VAR);
    fn_merge(state, 1, part, 1, 1, 0);
  }
  const double mean = state[FN_MEAN], mean_lo = state[FN_MEAN_LO], var = fn_variance(state, 1, job->ddof);
  const double root = sqrt(var + job->eps * pre * pre), scale = root == 0 ? 0 : 1 / root;
  if (job->mean) fn_put(job->mean, job->out_dtype, p, (mean + mean_lo) / pre);
  if (job->spread) fn_put(job->spread, job->out_dtype, p, job->finish == FN_DEVIATION ? sqrt(var) / pre : 1 / root * pre);

  const T *weight = job->weight, *bias = job->bias;
  for (int64_t start = 0; start < job->n; start += FN_CHUNK) {
    const int64_t count = job->n - start < FN_CHUNK ? job->n - start : FN_CHUNK;
    const T *x = FN(load)(job, x_base, start, count, tile);
    for (int64_t i = 0; i < count; i++) {
      const int64_t at = FN_OFFSET(job->reduced, job->reduced_ndim, start + i, p);
      double v = (((double)x[i] * pre - mean) - mean_lo) * scale;
      if (weight) v *= (double)weight[at];
      if (bias) v += (double)bias[at];
      tile[i] = (T)fn_quiet(v);
    }
    FN(store)(job, y_base, start, count, tile);
  }
}

/* ---- parameters -------------------------------------------------------------------------------------------------- */

/* What is applied to each of some rows or columns. A scale of NaN leaves it to the careful way. */
typedef struct {
  T center[FN_STRIP], center_lo[FN_STRIP], scale[FN_STRIP];
  int with_lo, all; /* some residual is not 0; nothing is left to the careful way */
} FN(params);

/* Means, in two parts, and variances become parameters; all three may be turned into them in place. A residual of less
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

/* Only infinite or NaN parameters can make a NaN of a normalized value; its sign then is the processor's choice. */
static int FN(needs_quiet)(const fn_job *job) {
  const T *lists[2] = {job->weight, job->bias};
  int special = 0;
  for (int k = 0; k < 2; k++)
    for (int64_t i = 0; lists[k] && i < job->n; i++) special |= !(lists[k][i] - lists[k][i] == 0);
  return special;
}

static void FN(quiet)(T *y, int64_t n) {
  for (int64_t i = 0; i < n; i++) y[i] = y[i] == y[i] ? y[i] : (T)__builtin_nan("");
}

/* y[i] for i < n. y may be x. `weight` and `bias` are expressions, as are the others. */
#define FN_APPLY(with_lo, with_weight, with_bias, hi, lo, scale, weight, bias)                                         \
  do {                                                                                                                 \
    if (with_lo)                                                                                                       \
      FN_APPLY_AFFINE(((x[i] - (hi)) - (lo)) * (scale), with_weight, with_bias, weight, bias);                         \
    else                                                                                                               \
      FN_APPLY_AFFINE((x[i] - (hi)) * (scale), with_weight, with_bias, weight, bias);                                  \
  } while (0)

#define FN_APPLY_AFFINE(normalized, with_weight, with_bias, weight, bias)                                              \
  do {                                                                                                                 \
    if ((with_weight) && (with_bias))                                                                                  \
      FN_APPLY_LOOP((normalized) * (weight) + (bias));                                                                 \
    else if (with_weight)                                                                                              \
      FN_APPLY_LOOP((normalized) * (weight));                                                                          \
    else if (with_bias)                                                                                                \
      FN_APPLY_LOOP((normalized) + (bias));                                                                            \
    else                                                                                                               \
      FN_APPLY_LOOP(normalized);                                                                                       \
  } while (0)

/* Stores that straddle cache lines cost double, so the middle goes by whole lines of y. The elements before the first and
 * after the last of them lie in two vectors that overlap it; they are computed before anything is written. */
#define FN_APPLY_LOOP(value)                                                                                           \
  do {                                                                                                                 \
    enum { W = 64 / sizeof(T) };                                                                                       \
    T head[W], tail[W];                                                                                                \
    if (n < 8 * W) {                                                                                                   \
      FN_IVDEP                                                                                                         \
      for (int64_t i = 0; i < n; i++) y[i] = (value);                                                                  \
      break;                                                                                                           \
    }                                                                                                                  \
    for (int64_t i = 0; i < W; i++) head[i] = (value);                                                                 \
    for (int64_t l = 0; l < W; l++) {                                                                                  \
      const int64_t i = n - W + l;                                                                                     \
      tail[l] = (value);                                                                                               \
    }                                                                                                                  \
    for (int64_t line = (int64_t)((-(uintptr_t)y & 63) / sizeof(T)); line + W <= n; line += W) {                       \
      FN_IVDEP                                                                                                         \
      for (int l = 0; l < W; l++) {                                                                                    \
        const int64_t i = line + l;                                                                                    \
        y[i] = (value);                                                                                                \
      }                                                                                                                \
    }                                                                                                                  \
    memcpy(y, head, sizeof head);                                                                                      \
    memcpy(y + n - W, tail, sizeof tail);                                                                              \
  } while (0)

/* ---- rows -------------------------------------------------------------------------------------------------------- */

/* Sums over FN_LANES lanes of x - m and of its square. Four or eight differences are added in the compute type, their
 * sums in double. */
#define FN_SUM_4(d, k) ((d(k) + d((k) + 1)) + (d((k) + 2) + d((k) + 3)))
#define FN_SQUARES_4(d, k)                                                                                             \
  ((d(k) * d(k) + d((k) + 1) * d((k) + 1)) + (d((k) + 2) * d((k) + 2) + d((k) + 3) * d((k) + 3)))
#define FN_FROM_ROW(k) (x[i + (k)*L + l] - m)
#define FN_FROM_REST(k) (rest[(k)*L + l])

static void FN(norm_sums)(const T *x, int64_t n, T m, double *restrict sums, double *restrict squares) {
  enum { L = FN_LANES };
  int64_t i = 0;
  if (n >= 8 * L) {
    double t[L] = {0}, q[L] = {0};
    for (; i + 8 * L <= n; i += 8 * L)
      for (int l = 0; l < L; l++) {
        t[l] += (double)(FN_SUM_4(FN_FROM_ROW, 0) + FN_SUM_4(FN_FROM_ROW, 4));
        q[l] += (double)(FN_SQUARES_4(FN_FROM_ROW, 0) + FN_SQUARES_4(FN_FROM_ROW, 4));
      }
    for (int l = 0; l < L; l++) sums[l] = t[l];
    for (int l = 0; l < L; l++) squares[l] = q[l];
  } else {
    for (int l = 0; l < L; l++) sums[l] = squares[l] = 0;
  }
  if (i + 4 * L <= n) {
    for (int l = 0; l < L; l++) {
      sums[l] += (double)FN_SUM_4(FN_FROM_ROW, 0);
      squares[l] += (double)FN_SQUARES_4(FN_FROM_ROW, 0);
    }
    i += 4 * L;
  }
  if (i < n) {
    T rest[4 * L] = {0};
    for (int64_t l = 0; i + l < n; l++) rest[l] = x[i + l] - m;
    for (int l = 0; l < L; l++) {
      sums[l] += (double)FN_SUM_4(FN_FROM_REST, 0);
      squares[l] += (double)FN_SQUARES_4(FN_FROM_REST, 0);
    }
  }
}

/* Rows whose statistics are worked out together, so that lanes are folded and roots and divisions taken in packed code.
 */
enum { FN(BATCH) = 16 };

typedef struct {
  const T *x[FN(BATCH)];
  T guess[FN(BATCH)];
  double sums[FN(BATCH)][FN_LANES], squares[FN(BATCH)][FN_LANES];
  double correction[FN(BATCH)], square[FN(BATCH)]; /* means of x - guess and of its square */
  double mean[FN(BATCH)], mean_lo[FN(BATCH)], var[FN(BATCH)];
} FN(batch);

/* totals[r] = factor * the sum of row r of lanes. */
#define FN_FOLD_LANES(type, lanes, rows, totals, factor)                                                               \
  do {                                                                                                                 \
    type quarters[FN(BATCH)][4];                                                                                       \
    for (int r = 0; r < (rows); r++)                                                                                   \
      for (int l = 0; l < 4; l++)                                                                                      \
        quarters[r][l] = ((lanes)[r][l] + (lanes)[r][l + 8]) + ((lanes)[r][l + 4] + (lanes)[r][l + 12]);               \
    for (int r = 0; r < (rows); r++)                                                                                   \
      (totals)[r] = ((quarters[r][0] + quarters[r][2]) + (quarters[r][1] + quarters[r][3])) * (factor);                \
  } while (0)

/* The averages of 4 * FN_LANES elements of each row, in four groups spread over it; n >= FN_LANES. */
static void FN(norm_guess)(FN(batch) *batch, int rows, int64_t n) {
  enum { L = FN_LANES };
  const int64_t step = (n - L) / 3;
  T lanes[FN(BATCH)][L];
  for (int r = 0; r < rows; r++) {
    const T *x = batch->x[r];
    for (int l = 0; l < L; l++) lanes[r][l] = (x[l] + x[step + l]) + (x[2 * step + l] + x[3 * step + l]);
  }
  FN_FOLD_LANES(T, lanes, rows, batch->guess, (T)(1.0 / (4 * L)));
}

/* Statistics of a batch: guess, sum and verify as in moments.h. What the compute type could not sum gets a variance of
 * NaN. */
static void FN(norm_stats)(const fn_job *job, FN(batch) *batch, int rows) {
  const double part = 1 / (double)job->n, freedom = (double)job->n - job->ddof;
  const double unbias = job->ddof == 0 ? 1 : freedom > 0 ? (double)job->n / freedom : __builtin_nan("");
  double *correction = batch->correction, *square = batch->square;
  FN(norm_guess)(batch, rows, job->n);
  for (int visit = 0, again = 1; again; visit++) {
    for (int r = 0; r < rows; r++) /* the second visit is for the rows whose guess missed */
      if (visit == 0 || correction[r] * correction[r] > 0.5 * square[r]) {
        if (visit) batch->guess[r] = (T)((double)batch->guess[r] + correction[r]);
        FN(norm_sums)(batch->x[r], job->n, batch->guess[r], batch->sums[r], batch->squares[r]);
      }
    FN_FOLD_LANES(double, batch->sums, rows, correction, part);
    FN_FOLD_LANES(double, batch->squares, rows, square, part);
    again = 0;
    for (int r = 0; visit == 0 && r < rows; r++) again |= correction[r] * correction[r] > 0.5 * square[r];
  }
  const double none = __builtin_nan("");
  FN_IVDEP
  for (int r = 0; r < rows; r++) {
    const double left = square[r] - correction[r] * correction[r], var = (left > 0 ? left : 0) * unbias;
    const double summed = fn_finite(square[r]) ? var : none;
    batch->mean[r] = (double)batch->guess[r];
    batch->mean_lo[r] = correction[r];
    batch->var[r] = square[r] + job->eps > FN_LEAST_SQUARE ? summed : none;
  }
}

/* Applies the parameters of row r to n elements. */
static inline void FN(apply_row)(T *y, const T *x, const T *weight, const T *bias, int64_t n, const FN(params) *params,
                                 int r) {
  const T hi = params->center[r], lo = params->center_lo[r], scale = params->scale[r];
  FN_APPLY(lo != 0, weight, bias, hi, lo, scale, weight[i], bias[i]);
}

/* Does the row of y that is worked on, with its weight and bias, lie in one piece? */
static inline int FN(y_is_plain)(const fn_job *job) {
  const fn_axis *along = job->reduced;
  return job->aligned && (job->n == 1 || (job->reduced_ndim == 1 && along->y == (int64_t)sizeof(T) &&
                                          (along->p == 1 || !(job->weight || job->bias))));
}

/* Applies parameters to `n` loaded elements of a row, number `start` on. */
static void FN(apply_run)(const fn_job *job, const T *x, char *y_base, int64_t start, int64_t n,
                          const FN(params) *params, int r, int quiet, T *tile) {
  const T *weight = job->weight ? (const T *)job->weight + start : NULL;
  const T *bias = job->bias ? (const T *)job->bias + start : NULL;
  if (FN(y_is_plain)(job)) {
    T *y = (T *)(void *)y_base + start;
    for (int64_t i = 0; i < n; i += job->stream ? FN_TILE : n) {
      const int64_t count = job->stream && n - i > FN_TILE ? FN_TILE : n - i;
      T *to = job->stream ? tile : y + i;
      FN(apply_row)(to, x + i, weight ? weight + i : NULL, bias ? bias + i : NULL, count, params, r);
      if (quiet) FN(quiet)(to, count);
      if (job->stream) fn_stream((char *)(y + i), (const char *)tile, count * (int64_t)sizeof(T));
    }
    return;
  }
  FN(apply_row)(tile, x, NULL, NULL, n, params, r);
  for (int64_t at = 0; (weight || bias) && at < n;) {
    const fn_axis *axes = job->reduced;
    const fn_run run = fn_next_run(axes, job->reduced_ndim, start + at, n - at, offsetof(fn_axis, p));
    const int64_t step = axes[job->reduced_ndim - 1].p;
    const T *w = (const T *)job->weight + run.offset, *b = (const T *)job->bias + run.offset;
    for (int64_t i = 0; weight && i < run.count; i++) tile[at + i] *= w[i * step];
    for (int64_t i = 0; bias && i < run.count; i++) tile[at + i] += b[i * step];
    at += run.count;
  }
  if (quiet) FN(quiet)(tile, n);
  FN(store)(job, y_base, start, n, tile);
}

static void FN(norm_rows)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  T *tile = scratch, *rows_tile = tile + FN_CHUNK;
  FN(batch) batch;
  FN(params) params;
  const int quiet = FN(needs_quiet)(job);
  const int direct = FN(native)(job) && job->reduced_ndim == 1 && job->reduced[0].x == (int64_t)sizeof(T);
  const int64_t n = job->n, bytes = n * (int64_t)sizeof(T), most = FN_TILE / n;
  const int together = most < 1 ? 1 : most > FN(BATCH) ? FN(BATCH) : (int)most;
  /* Short rows are written in place, or together in a tile that is streamed out if they follow each other in memory. */
  const int plain = FN(y_is_plain)(job) && !quiet && n <= FN_TILE;
  const int adjacent = job->kept_ndim <= 1 && (job->kept_ndim == 0 || job->kept[0].y == bytes);
  for (int64_t row = lo; row < hi; row += together) {
    const int rows = hi - row < together ? (int)(hi - row) : together;
    for (int r = 0; r < rows; r++) {
      const char *x_base = job->x + FN_OFFSET(job->kept, job->kept_ndim, row + r, x);
      batch.x[r] = direct ? (const T *)(const void *)x_base : FN(load)(job, x_base, 0, n, rows_tile + r * n);
    }
    FN(norm_stats)(job, &batch, rows);
    FN(fill_params)(batch.mean, batch.mean_lo, batch.var, rows, job->eps, &params);
    const int stream = job->stream && plain && adjacent && params.all;
    for (int r = 0; r < rows; r++) {
      char *y_base = job->y + FN_OFFSET(job->kept, job->kept_ndim, row + r, y);
      if (params.scale[r] != params.scale[r])
        FN(norm_careful)(job, job->x + FN_OFFSET(job->kept, job->kept_ndim, row + r, x), y_base,
                         job->p + FN_OFFSET(job->kept, job->kept_ndim, row + r, p), tile);
      else if (stream || (plain && !job->stream))
        FN(apply_row)(stream ? tile + r * n : (T *)(void *)y_base, batch.x[r], job->weight, job->bias, n, &params, r);
      else
        FN(apply_run)(job, batch.x[r], y_base, 0, n, &params, r, quiet, tile);
    }
    if (stream)
      fn_stream(job->y + FN_OFFSET(job->kept, job->kept_ndim, row, y), (const char *)tile, rows * bytes);
    for (int r = 0; (job->mean || job->spread) && r < rows; r++) {
      const int64_t p = job->p + FN_OFFSET(job->kept, job->kept_ndim, row + r, p);
      if (params.scale[r] != params.scale[r]) continue; /* saved by the careful way */
      if (job->mean) fn_put(job->mean, job->out_dtype, p, batch.mean[r] + batch.mean_lo[r]);
      if (job->spread) fn_put(job->spread, job->out_dtype, p, fn_spread(job, batch.var[r]));
    }
  }
  fn_stream_end();
}

/* Parameters from the states of columns j, a `step` of doubles apart. */
static void FN(params_of)(const fn_job *job, const double *state, int64_t stride, int64_t step, int64_t cols,
                          FN(params) *params) {
  double mean[FN_STRIP], mean_lo[FN_STRIP], var[FN_STRIP];
  for (int64_t j = 0; j < cols; j++) {
    mean[j] = state[FN_MEAN * stride + j * step];
    mean_lo[j] = state[FN_MEAN_LO * stride + j * step];
    var[j] = fn_variance(state + j * step, stride, job->ddof);
  }
  FN(fill_params)(mean, mean_lo, var, cols, job->eps, params);
}

/* Kept indices that the compute type cannot hold are done here; the apply kernels pass them over. */
static void FN(norm_careful_only)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  FN(params) params;
  for (int64_t unit = lo; unit < hi; unit++) {
    const int64_t outer = unit / job->inner.size, j = unit % job->inner.size;
    const int64_t p = job->p + FN_OFFSET(job->kept, job->kept_ndim, outer, p) + j * job->inner.p;
    FN(params_of)(job, job->state + p, job->state_stride, 1, 1, &params);
    if (!params.all)
      FN(norm_careful)(job, job->x + FN_OFFSET(job->kept, job->kept_ndim, outer, x) + j * job->inner.x,
                       job->y + FN_OFFSET(job->kept, job->kept_ndim, outer, y) + j * job->inner.y, p, scratch);
  }
}

static void FN(apply_rows)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  T *tile = scratch;
  FN(params) params;
  const int quiet = FN(needs_quiet)(job);
  const int64_t chunks = (job->n + FN_CHUNK - 1) / FN_CHUNK;
  for (int64_t unit = lo; unit < hi; unit++) {
    const int64_t row = unit / chunks, start = unit % chunks * FN_CHUNK;
    const int64_t n = job->n - start < FN_CHUNK ? job->n - start : FN_CHUNK;
    FN(params_of)(job, job->state + job->p + FN_OFFSET(job->kept, job->kept_ndim, row, p), job->state_stride, 1, 1,
                  &params);
    if (!params.all) continue;
    const T *x = FN(load)(job, job->x + FN_OFFSET(job->kept, job->kept_ndim, row, x), start, n, tile + FN_CHUNK);
    FN(apply_run)(job, x, job->y + FN_OFFSET(job->kept, job->kept_ndim, row, y), start, n, &params, 0, quiet, tile);
  }
  fn_stream_end();
}

/* ---- columns ----------------------------------------------------------------------------------------------------- */

/* One row of a strip, from column `from` on. */
static inline void FN(apply_across)(T *y, const T *x, int64_t n, const FN(params) *params, int64_t from,
                                    const T *weight, const T *bias) {
  const T *hi = params->center + from, *lo = params->center_lo + from, *scale = params->scale + from;
  const T w = weight ? *weight : 1, b = bias ? *bias : 0;
  FN_APPLY(params->with_lo, weight, bias, hi[i], lo[i], scale[i], w, b);
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
                            int64_t cols, FN(params) *params, int quiet, T *tile) {
  const int64_t size = (int64_t)sizeof(T), y_step = job->reduced_ndim == 1 ? job->reduced[0].y : 0;
  const int in_line = job->aligned && job->inner.y == size;
  const T *weight = job->weight, *bias = job->bias;
  if (in_line && stride == cols && y_step == cols * size && params->all && !weight && !bias) {
    FN(apply_dense)(x, (T *)(void *)(y_base + start * y_step), rows * cols, cols, params, job->stream, tile);
    return;
  }
  /* Short rows side by side: turned in a tile, so that they are streamed out in one piece. */
  const int turned = job->stream && params->all && job->reduced_ndim == 1 && y_step == size &&
                     job->inner.y == rows * size && rows * cols <= FN_CHUNK - FN_STRIP;
  char *base = turned ? (char *)(tile + FN_STRIP) : y_base;
  for (int64_t i = 0; i < rows; i++) {
    const int64_t p = FN_OFFSET(job->reduced, job->reduced_ndim, start + i, p);
    char *to = base + (turned ? i * size : FN_OFFSET(job->reduced, job->reduced_ndim, start + i, y));
    for (int64_t j = 0, end; j < cols; j = end) { /* columns that are not left to the careful way */
      end = params->all ? cols : j + 1;
      if (params->scale[j] != params->scale[j]) continue;
      char *at = to + j * job->inner.y;
      const int direct = in_line && !job->stream;
      T *y = direct ? (T *)(void *)at : tile;
      FN(apply_across)(y, x + i * stride + j, end - j, params, j, weight ? weight + p : NULL, bias ? bias + p : NULL);
      if (quiet) FN(quiet)(y, end - j);
      if (!direct && in_line)
        fn_stream(at, (const char *)tile, (end - j) * size);
      else if (!direct)
        FN(scatter_run)(at, tile, end - j, job->inner.y);
    }
  }
  if (turned) fn_stream(y_base, base, rows * cols * size);
}

static void FN(norm_columns)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  T *tile = scratch, *out = tile + FN_CHUNK;
  double *state = (double *)(out + FN_CHUNK);
  const int quiet = FN(needs_quiet)(job);
  const int64_t strips = (job->inner.size + job->strip - 1) / job->strip;
  FN(params) params;
  for (int64_t unit = lo; unit < hi; unit++) {
    const int64_t outer = unit / strips, j = unit % strips * job->strip;
    const int64_t cols = job->inner.size - j < job->strip ? job->inner.size - j : job->strip;
    const char *x_base = job->x + FN_OFFSET(job->kept, job->kept_ndim, outer, x) + j * job->inner.x;
    char *y_base = job->y + FN_OFFSET(job->kept, job->kept_ndim, outer, y) + j * job->inner.y;
    const int64_t p = job->p + FN_OFFSET(job->kept, job->kept_ndim, outer, p) + j * job->inner.p;
    int64_t stride;
    const T *x = FN(load_columns)(job, x_base, 0, job->n, cols, tile, &stride);
    FN(chunk_columns)(job, x, stride, job->n, cols, state, FN_STRIP);
    fn_finish(job, state, FN_STRIP, cols, p, job->inner.p);
    FN(params_of)(job, state, FN_STRIP, 1, cols, &params);
    FN(apply_strip)(job, x, stride, y_base, 0, job->n, cols, &params, quiet, out);
    for (int64_t c = 0; c < cols && !params.all; c++)
      if (params.scale[c] != params.scale[c])
        FN(norm_careful)(job, x_base + c * job->inner.x, y_base + c * job->inner.y, p + c * job->inner.p, tile);
  }
  fn_stream_end();
}

static void FN(apply_columns)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  T *tile = scratch;
  const int quiet = FN(needs_quiet)(job);
  const int64_t chunks = (job->n + job->chunk - 1) / job->chunk;
  FN(params) params;
  for (int64_t unit = lo; unit < hi; unit++) {
    const int64_t outer = unit / chunks, start = unit % chunks * job->chunk;
    const int64_t rows = job->n - start < job->chunk ? job->n - start : job->chunk;
    const char *x_base = job->x + FN_OFFSET(job->kept, job->kept_ndim, outer, x);
    char *y_base = job->y + FN_OFFSET(job->kept, job->kept_ndim, outer, y);
    const double *state = job->state + job->p + FN_OFFSET(job->kept, job->kept_ndim, outer, p);
    for (int64_t j = 0; j < job->inner.size; j += FN_STRIP) {
      const int64_t cols = job->inner.size - j < FN_STRIP ? job->inner.size - j : FN_STRIP;
      int64_t stride;
      const T *x = FN(load_columns)(job, x_base + j * job->inner.x, start, rows, cols, tile, &stride);
      FN(params_of)(job, state + j * job->inner.p, job->state_stride, job->inner.p, cols, &params);
      FN(apply_strip)(job, x, stride, y_base + j * job->inner.y, start, rows, cols, &params, quiet, tile + FN_CHUNK);
    }
  }
  fn_stream_end();
}
