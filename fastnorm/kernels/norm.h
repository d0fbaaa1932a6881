/* Normalize and affine: y = ((x - mean) - mean_lo) * rstd * weight + bias.
 *
 * Statistics and apply meet where the data fits a cache (norm_rows, norm_columns); longer problems take their statistics
 * from moments.h and come here to have them applied. The mean is kept as a rounded value and its residual until both are
 * subtracted, so that a mean of 1e4 standard deviations costs no digits. What the compute type cannot hold (squares that
 * overflow or underflow, a scale near the ends of its range) is done again in double, scaled by a power of two.
 */

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
    fn_merge(state, 1, part, 1, 1);
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

typedef struct {
  T center, center_lo, scale;
} FN(params);

/* The mean in two parts, as it will be subtracted. A residual of less than half a rounding error of y is left out.
 * Returns whether the compute type can hold all this. */
static inline int FN(fill_params)(double mean, double mean_lo, double scale, FN(params) *to) {
  to->center = (T)(mean + mean_lo);
  to->center_lo = (T)((mean - (double)to->center) + mean_lo);
  to->scale = (T)scale;
  if (fabs((double)to->center_lo) * scale < FN_EPS / 4) to->center_lo = 0;
  return fabs((double)to->center) <= FN_LARGE && scale >= FN_LEAST_SCALE && scale <= FN_MOST_SCALE;
}

/* A state becomes the parameters of a column, in the planes `param`; a scale of NaN stands for the careful way. Squares
 * summed in double lose nothing above 2^-960. A variance of exactly 0 is that of a constant. */
static void FN(params_of)(const fn_job *job, const double *state, int64_t state_stride, double *param, int64_t stride) {
  const double mean = state[FN_MEAN * state_stride], mean_lo = state[FN_MEAN_LO * state_stride];
  const double var = fn_variance(state, state_stride, job->ddof), square = var + job->eps;
  FN(params) params;
  int held = square > 0x1p-960 && FN(fill_params)(mean, mean_lo, 1 / sqrt(square), &params);
  if (square == 0) held = FN(fill_params)(mean, mean_lo, 1, &params), params.scale = 0;
  param[FN_CENTER * stride] = held ? (double)params.center : 0;
  param[FN_CENTER_LO * stride] = held ? (double)params.center_lo : 0;
  param[FN_SCALE * stride] = held ? (double)params.scale : __builtin_nan("");
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

#define FN_APPLY_LOOP(value)                                                                                           \
  do {                                                                                                                 \
    FN_IVDEP                                                                                                           \
    for (int64_t i = 0; i < n; i++) y[i] = (value);                                                                    \
  } while (0)

/* ---- rows -------------------------------------------------------------------------------------------------------- */

/* t[l] += x - m, q[l] += (x - m)^2 over 4 * FN_LANES elements: by fours in the compute type, from there in double. */
#define FN_NORM_STEP(l, x0, x1, x2, x3)                                                                                \
  do {                                                                                                                 \
    const T a = (x0), b = (x1), c = (x2), d = (x3);                                                                    \
    t[l] += (double)((a + b) + (c + d));                                                                               \
    q[l] += (double)((a * a + b * b) + (c * c + d * d));                                                               \
  } while (0)

static inline void FN(norm_sums)(const T *x, int64_t n, T m, double *sum, double *squares) {
  enum { L = FN_LANES };
  double t[L] = {0}, q[L] = {0};
  int64_t i = 0;
  for (; i + 4 * L <= n; i += 4 * L)
    for (int l = 0; l < L; l++)
      FN_NORM_STEP(l, x[i + l] - m, x[i + L + l] - m, x[i + 2 * L + l] - m, x[i + 3 * L + l] - m);
  if (i < n) {
    T rest[4 * L] = {0};
    for (int64_t l = 0; i + l < n; l++) rest[l] = x[i + l] - m;
    for (int l = 0; l < L; l++) FN_NORM_STEP(l, rest[l], rest[L + l], rest[2 * L + l], rest[3 * L + l]);
  }
  FN_TREE(t);
  FN_TREE(q);
  *sum = t[0];
  *squares = q[0];
}

/* The average of 4 * FN_LANES elements in four groups spread over the row; n >= FN_SHORT. */
static inline T FN(norm_guess)(const T *x, int64_t n) {
  enum { L = FN_LANES };
  const int64_t step = (n - L) / 3;
  T lanes[L];
  for (int l = 0; l < L; l++) lanes[l] = (x[l] + x[step + l]) + (x[2 * step + l] + x[3 * step + l]);
  FN_TREE(lanes);
  return lanes[0] * (T)(1.0 / (4 * L));
}

/* Statistics and parameters of a row: guess, sum and verify as in moments.h. Returns 0 for the careful way. */
static inline int FN(norm_row)(const fn_job *job, const T *x, int64_t p, FN(params) *params) {
  const double n = (double)job->n;
  T m = FN(norm_guess)(x, job->n);
  double sum, squares, correction, square;
  FN(norm_sums)(x, job->n, m, &sum, &squares);
  correction = sum / n, square = squares / n;
  if (correction * correction > 0.5 * square) {
    m = (T)((double)m + correction);
    FN(norm_sums)(x, job->n, m, &sum, &squares);
    correction = sum / n, square = squares / n;
  }
  if (!(square + job->eps > FN_LEAST_SQUARE) || !fn_finite(square)) return 0;
  double var = square - correction * correction;
  var = var > 0 ? var : 0;
  if (job->ddof != 0) {
    if (!(n > job->ddof)) return 0;
    var *= n / (n - job->ddof);
  }
  const double scale = 1 / sqrt(var + job->eps);
  if (job->mean) fn_put(job->mean, job->out_dtype, p, (double)m + correction);
  if (job->spread) fn_put(job->spread, job->out_dtype, p, job->finish == FN_DEVIATION ? sqrt(var) : scale);
  return FN(fill_params)((double)m, correction, scale, params);
}

static inline void FN(apply_row)(T *y, const T *x, const T *weight, const T *bias, int64_t n, FN(params) params) {
  const T hi = params.center, lo = params.center_lo, scale = params.scale;
  FN_APPLY(lo != 0, weight, bias, hi, lo, scale, weight[i], bias[i]);
}

/* Does the row of y that is worked on, with its weight and bias, lie in one piece? */
static inline int FN(y_is_plain)(const fn_job *job) {
  const fn_axis *along = job->reduced;
  return job->aligned && (job->n == 1 || (job->reduced_ndim == 1 && along->y == (int64_t)sizeof(T) &&
                                          (along->p == 1 || !(job->weight || job->bias))));
}

/* Applies parameters to `n` loaded elements of a row, number `start` on. */
static void FN(apply_run)(const fn_job *job, const T *x, char *y_base, int64_t start, int64_t n, FN(params) params,
                          int quiet, T *tile) {
  const T *weight = job->weight ? (const T *)job->weight + start : NULL;
  const T *bias = job->bias ? (const T *)job->bias + start : NULL;
  if (FN(y_is_plain)(job)) {
    T *y = (T *)(void *)y_base + start;
    for (int64_t i = 0; i < n; i += job->stream ? FN_TILE : n) {
      const int64_t count = job->stream && n - i > FN_TILE ? FN_TILE : n - i;
      T *to = job->stream ? tile : y + i;
      FN(apply_row)(to, x + i, weight ? weight + i : NULL, bias ? bias + i : NULL, count, params);
      if (quiet) FN(quiet)(to, count);
      if (job->stream) fn_stream((char *)(y + i), (const char *)tile, count * (int64_t)sizeof(T));
    }
    return;
  }
  FN(apply_row)(tile, x, NULL, NULL, n, params);
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
  T *tile = scratch;
  FN(params) params;
  const int quiet = FN(needs_quiet)(job);
  const int64_t bytes = job->n * (int64_t)sizeof(T);
  /* Rows that follow each other in memory are streamed out several at a time. */
  const int adjacent = FN(y_is_plain)(job) && job->kept_ndim == 1 && job->kept[0].y == bytes;
  const int64_t most = job->stream && adjacent && !quiet ? FN_TILE / job->n : 0;
  int64_t held = 0;
  for (int64_t row = lo; row < hi; row++) {
    const char *x_base = job->x + FN_OFFSET(job->kept, job->kept_ndim, row, x);
    char *y_base = job->y + FN_OFFSET(job->kept, job->kept_ndim, row, y);
    const int64_t p = job->p + FN_OFFSET(job->kept, job->kept_ndim, row, p);
    const T *x = FN(load)(job, x_base, 0, job->n, tile + FN_CHUNK);
    const int ordinary = FN(norm_row)(job, x, p, &params);
    if (ordinary && most > 1)
      FN(apply_row)(tile + held++ * job->n, x, job->weight, job->bias, job->n, params);
    else if (ordinary)
      FN(apply_run)(job, x, y_base, 0, job->n, params, quiet, tile);
    if (held == most || !ordinary || row + 1 == hi) {
      const int64_t first = ordinary ? 1 - held : -held; /* held rows end with this one, or before it */
      if (held) fn_stream(y_base + first * bytes, (const char *)tile, held * bytes);
      held = 0;
    }
    if (!ordinary) FN(norm_careful)(job, x_base, y_base, p, tile);
  }
  fn_stream_end();
}

/* A unit is a kept index of the canonical problem, whose state stands in job->state. */
static void FN(norm_params)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  for (int64_t unit = lo; unit < hi; unit++) {
    const int64_t outer = unit / job->inner.size, j = unit % job->inner.size;
    const int64_t p = job->p + FN_OFFSET(job->kept, job->kept_ndim, outer, p) + j * job->inner.p;
    double *column = job->state + p;
    FN(params_of)(job, column, job->state_stride, column, job->state_stride);
    if (column[FN_SCALE * job->state_stride] != column[FN_SCALE * job->state_stride])
      FN(norm_careful)(job, job->x + FN_OFFSET(job->kept, job->kept_ndim, outer, x) + j * job->inner.x,
                       job->y + FN_OFFSET(job->kept, job->kept_ndim, outer, y) + j * job->inner.y, p, scratch);
  }
}

static void FN(apply_rows)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  T *tile = scratch;
  const int quiet = FN(needs_quiet)(job);
  const int64_t chunks = (job->n + FN_CHUNK - 1) / FN_CHUNK;
  for (int64_t unit = lo; unit < hi; unit++) {
    const int64_t row = unit / chunks, start = unit % chunks * FN_CHUNK;
    const int64_t n = job->n - start < FN_CHUNK ? job->n - start : FN_CHUNK;
    const double *column = job->state + job->p + FN_OFFSET(job->kept, job->kept_ndim, row, p);
    const FN(params) params = {(T)column[FN_CENTER * job->state_stride], (T)column[FN_CENTER_LO * job->state_stride],
                               (T)column[FN_SCALE * job->state_stride]};
    if (params.scale != params.scale) continue; /* done by norm_params */
    const T *x = FN(load)(job, job->x + FN_OFFSET(job->kept, job->kept_ndim, row, x), start, n, tile + FN_CHUNK);
    FN(apply_run)(job, x, job->y + FN_OFFSET(job->kept, job->kept_ndim, row, y), start, n, params, quiet, tile);
  }
  fn_stream_end();
}

/* ---- columns ----------------------------------------------------------------------------------------------------- */

/* Parameters of a strip in the compute type, and what holds for all of its columns. */
typedef struct {
  T center[FN_STRIP], center_lo[FN_STRIP], scale[FN_STRIP];
  int with_lo, all; /* some residual is not 0; no column is left to the careful way */
} FN(strip_params);

static void FN(load_params)(const double *param, int64_t stride, int64_t step, int64_t cols, FN(strip_params) *to) {
  to->with_lo = 0;
  to->all = 1;
  for (int64_t j = 0; j < cols; j++) {
    to->center[j] = (T)param[FN_CENTER * stride + j * step];
    to->center_lo[j] = (T)param[FN_CENTER_LO * stride + j * step];
    to->scale[j] = (T)param[FN_SCALE * stride + j * step];
    to->with_lo |= to->center_lo[j] != 0;
    to->all &= to->scale[j] == to->scale[j];
  }
}

/* One row of a strip, from column `from` on. */
static inline void FN(apply_across)(T *y, const T *x, int64_t n, const FN(strip_params) *params, int64_t from,
                                    const T *weight, const T *bias) {
  const T *hi = params->center + from, *lo = params->center_lo + from, *scale = params->scale + from;
  const T w = weight ? *weight : 1, b = bias ? *bias : 0;
  FN_APPLY(params->with_lo, weight, bias, hi[i], lo[i], scale[i], w, b);
}

/* Dense rows without an affine part follow each other as one run, worked on several rows at a time. */
static void FN(apply_dense)(const T *x, T *y, int64_t n, int64_t cols, FN(strip_params) *params, int stream, T *tile) {
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
                            int64_t cols, FN(strip_params) *params, int quiet, T *tile) {
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
  double *state = (double *)(out + FN_CHUNK), *param = state + FN_PLANES * FN_STRIP;
  const int quiet = FN(needs_quiet)(job);
  const int64_t strips = (job->inner.size + job->strip - 1) / job->strip;
  FN(strip_params) params;
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
    for (int64_t c = 0; c < cols; c++) FN(params_of)(job, state + c, FN_STRIP, param + c, FN_STRIP);
    FN(load_params)(param, FN_STRIP, 1, cols, &params);
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
  FN(strip_params) params;
  for (int64_t unit = lo; unit < hi; unit++) {
    const int64_t outer = unit / chunks, start = unit % chunks * job->chunk;
    const int64_t rows = job->n - start < job->chunk ? job->n - start : job->chunk;
    const char *x_base = job->x + FN_OFFSET(job->kept, job->kept_ndim, outer, x);
    char *y_base = job->y + FN_OFFSET(job->kept, job->kept_ndim, outer, y);
    const double *param = job->state + job->p + FN_OFFSET(job->kept, job->kept_ndim, outer, p);
    for (int64_t j = 0; j < job->inner.size; j += FN_STRIP) {
      const int64_t cols = job->inner.size - j < FN_STRIP ? job->inner.size - j : FN_STRIP;
      int64_t stride;
      const T *x = FN(load_columns)(job, x_base + j * job->inner.x, start, rows, cols, tile, &stride);
      FN(load_params)(param + j * job->inner.p, job->state_stride, job->inner.p, cols, &params);
      FN(apply_strip)(job, x, stride, y_base + j * job->inner.y, start, rows, cols, &params, quiet, tile + FN_CHUNK);
    }
  }
  fn_stream_end();
}
