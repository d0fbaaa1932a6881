/* The careful way to normalize: one kept index, any layout, any range.
 *
 * For what the compute type cannot hold: squares that overflow or underflow, a scale near the ends of its range, NaN
 * and infinity. Works in double, on values scaled by a power of two; slow, and rarely needed.
 */

/* A power of two that brings the largest magnitude near one. Floats need none: their squares fit a double. */
static double FN(prescale)(const fn_job *job, const char *base, T *tile) {
  double most = 0;
  for (int64_t start = 0; FN_TYPE == FN_F64 && start < job->n; start += FN_CHUNK) {
    const int64_t n = job->n - start < FN_CHUNK ? job->n - start : FN_CHUNK;
    const T *x = FN(load)(job, FN_X, base, start, n, tile);
    for (int64_t i = 0; i < n; i++) {
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

/* y = normalized x, and the statistics at p. */
static void FN(norm_careful)(const fn_job *job, const char *x_base, char *y_base, int64_t p, T *tile) {
  const double pre = FN(prescale)(job, x_base, tile);
  double state[FN_PLANES] = {0}, part[FN_PLANES] = {0};
  for (int64_t start = 0; start < job->n; start += FN_CHUNK) {
    const int64_t count = job->n - start < FN_CHUNK ? job->n - start : FN_CHUNK;
    part[FN_COUNT] = (double)count;
    FN(careful_moments)(FN(load)(job, FN_X, x_base, start, count, tile), 1, count, pre, part + FN_MEAN, part + FN_MEAN_LO,
                        part + FN_VAR);
    fn_merge(state, 1, part, 1, 1, 0);
  }
  const double mean = state[FN_MEAN], mean_lo = state[FN_MEAN_LO], var = fn_variance(state, 1, job->ddof);
  const double eps = job->eps * pre * pre; /* where that overflows, eps is all that counts */
  const double root = fn_finite(eps) ? sqrt(var + eps) : sqrt(job->eps) * pre, scale = root == 0 ? 0 : 1 / root;
  if (job->mean) fn_put(job->mean, job->out_dtype, p, (mean + mean_lo) / pre);
  if (job->spread)
    fn_put(job->spread, job->out_dtype, p, job->finish == FN_DEVIATION ? sqrt(var) / pre : 1 / root * pre);

  const T *weight = job->weight, *bias = job->bias;
  for (int64_t start = 0; start < job->n; start += FN_CHUNK) {
    const int64_t count = job->n - start < FN_CHUNK ? job->n - start : FN_CHUNK;
    const T *x = FN(load)(job, FN_X, x_base, start, count, tile);
    for (int64_t i = 0; i < count; i++) {
      const int64_t at = fn_along(job, FN_P, start + i);
      double v = (((double)x[i] * pre - mean) - mean_lo) * scale;
      if (weight) v *= (double)weight[at];
      if (bias) v += (double)bias[at];
      tile[i] = (T)fn_quiet(v);
    }
    FN(store)(job, FN_Y, y_base, start, count, tile);
  }
}
