/* The careful way to normalize: one kept index, any layout, any range.
 *
 * For what the compute type cannot hold: squares that overflow or underflow, a scale near the ends of its range, NaN
 * and infinity. Works in double, on values scaled by a power of two; slow, and rarely needed.
 */

/* The elements from number `start` on that count, in `found`: how many. `counts` tells which they were. */
static int64_t FN(load_counted)(const fn_job *job, int64_t outer, int64_t j, int64_t start, int64_t count, T *tile,
                                uint8_t *counts, const T **found) {
  const T *x = FN(load)(job, job->source, fn_base(job, job->source, outer, j), start, count, tile);
  const uint8_t *given = fn_dense_where(job, outer, j, start, count, 1, counts);
  int64_t k = count;
  *found = x;
  if (given || job->omit) {
    k = 0;
    for (int64_t i = 0; i < count; i++) {
      const uint8_t counted = (!given || given[i]) && !(job->omit && x[i] != x[i]);
      tile[k] = x[i]; /* x may be tile: k is never ahead of i */
      counts[i] = counted;
      k += counted;
    }
    *found = tile;
  }
  return k;
}

/* A power of two that brings the largest magnitude near one. Floats need none: their squares fit a double. */
static double FN(prescale)(const fn_job *job, int64_t outer, int64_t j, T *tile, uint8_t *counts) {
  double most = 0;
  for (int64_t start = 0; FN_TYPE == FN_F64 && start < job->n; start += FN_CHUNK) {
    const T *x;
    const int64_t n = job->n - start < FN_CHUNK ? job->n - start : FN_CHUNK;
    const int64_t count = FN(load_counted)(job, outer, j, start, n, tile, counts, &x);
    for (int64_t i = 0; i < count; i++) {
      double magnitude = fabs((double)x[i]);
      most = magnitude > most && fn_finite(magnitude) ? magnitude : most;
    }
  }
  if (most == 0) return 1;
  uint64_t bits;
  memcpy(&bits, &most, sizeof bits);
  int64_t exponent = (int64_t)(bits >> 52) - 1023;
  int64_t reverse = exponent < -1000 ? 1000 : exponent > 1000 ? -1000 : -exponent;
  bits = (uint64_t)(1023 + reverse) << 52;
  memcpy(&most, &bits, sizeof most);
  return most;
}

/* Moments and extrema of all that counts, of values times `pre`. */
static void FN(careful_state)(const fn_job *job, int64_t outer, int64_t j, double pre, double *state, T *tile,
                              uint8_t *counts) {
  double part[FN_PLANES] = {0};
  for (int plane = 0; plane < FN_PLANES; plane++) state[plane] = 0;
  for (int64_t start = 0; start < job->n; start += FN_CHUNK) {
    const T *x;
    const int64_t n = job->n - start < FN_CHUNK ? job->n - start : FN_CHUNK;
    const int64_t count = FN(load_counted)(job, outer, j, start, n, tile, counts, &x);
    if (count == 0) continue;
    part[FN_COUNT] = (double)count;
    FN(careful_moments)(x, 1, count, pre, part + FN_MEAN, part + FN_MEAN_LO, part + FN_VAR);
    FN(extremes)(x, 1, count, 1, part + FN_MIN, part + FN_MAX);
    part[FN_MIN] *= pre;
    part[FN_MAX] *= pre;
    fn_merge(state, 1, part, 1, 1, 1);
  }
}

/* y = normalized x, and the statistics. */
static void FN(norm_careful)(const fn_job *job, int64_t outer, int64_t j, void *scratch) {
  T *tile = scratch;
  uint8_t *counts = (uint8_t *)(tile + FN_CHUNK);
  const double pre = job->given ? 1 : FN(prescale)(job, outer, j, tile, counts);
  const int64_t p = fn_place(job, outer, j);
  double state[FN_PLANES];
  if (job->given)
    for (int plane = 0; plane < FN_M3; plane++)
      state[plane] = job->state[plane * job->state_stride + p / job->places % job->period];
  else
    FN(careful_state)(job, outer, j, pre, state, tile, counts);
  const int centred = job->norm != FN_RMS, range = job->norm == FN_RANGE;
  const double var = fn_square_of(job, state, 1), none = __builtin_nan("");
  /* Of a constant all that counts is eps, of which `pre` may keep nothing; likewise where that overflows. */
  const int constant = !range && !job->given && var == 0;
  const double eps = job->eps * pre * pre;
  const double root = range                         ? (state[FN_MAX] - state[FN_MIN]) / (job->most - job->least)
                      : var != var                  ? none
                      : constant || !fn_finite(eps) ? sqrt(job->eps) * pre
                                                    : sqrt(var + eps);
  const double scale = constant || (root == 0 && !job->given) ? 0 : fn_finite(root) || job->given ? 1 / root : none;
  const double mean = range ? state[FN_MIN] : centred ? state[FN_MEAN] : 0;
  const double mean_lo = range || !centred ? 0 : state[FN_MEAN_LO];
  const double empty = state[FN_COUNT] == 0 ? none : 0; /* of nothing, the statistics are NaN */
  const double inverse = constant ? 1 / sqrt(job->eps) : 1 / root * pre;
  const double spread = job->finish == FN_DEVIATION ? sqrt(var) / pre : inverse;
  const int saves = !range && !job->given; /* extrema were saved unscaled, what is given is known */
  if (saves && job->mean) fn_put(job->mean, job->out_dtype, p, (mean + mean_lo) / pre + empty);
  if (saves && job->spread) fn_put(job->spread, job->out_dtype, p, spread + empty);
  if (job->saved) fn_save(job, p, state[FN_COUNT], (mean + mean_lo) / pre, var / pre / pre);

  const T *weight = job->weight, *bias = job->bias;
  const int64_t set = fn_set(job, p / job->places);
  for (int64_t start = 0; start < job->n; start += FN_CHUNK) {
    const int64_t count = job->n - start < FN_CHUNK ? job->n - start : FN_CHUNK;
    const T *x = FN(load)(job, job->source, fn_base(job, job->source, outer, j), start, count, tile);
    const uint8_t *counted = fn_dense_where(job, outer, j, start, count, 1, counts);
    for (int64_t i = 0; i < count; i++) {
      const int64_t at = set + fn_along(job, FN_P, start + i);
      const double d = ((double)x[i] * pre - mean) - mean_lo;
      double v = d == 0 && root == 0 ? d : d * scale;
      if (weight) v *= (double)weight[at];
      if (bias) v += (double)bias[at];
      if (range) v = (double)x[i] * pre == state[FN_MAX] && scale > 0 ? job->most : v + job->least;
      if (job->relu && v <= 0) v = 0;
      tile[i] = counted && !counted[i] ? 0 : (T)fn_quiet(v);
    }
    FN(store)(job, FN_Y, fn_base(job, FN_Y, outer, j), start, count, tile);
  }
}
