/* Backward passes, the careful way: one kept index, for what the compute type cannot hold.
 *
 * Works in double; powers of two bring the largest |x|, |dy| and |weight| near one, so that no product in double
 * overflows either.
 */

static double FN(power)(int64_t exponent) { /* of two, within the normal doubles */
  const uint64_t bits = (uint64_t)(1023 + (exponent < -1000 ? -1000 : exponent > 1000 ? 1000 : exponent)) << 52;
  double v;
  memcpy(&v, &bits, sizeof v);
  return v;
}

static double FN(times_power)(double v, int64_t exponent) {
  for (; exponent > 1000; exponent -= 1000) v *= FN(power)(1000);
  for (; exponent < -1000; exponent += 1000) v *= FN(power)(-1000);
  return v * FN(power)(exponent);
}

/* Which power brings a magnitude near one. */
static int64_t FN(reverse)(double magnitude) {
  uint64_t bits;
  memcpy(&bits, &magnitude, sizeof bits);
  const int64_t exponent = (int64_t)(bits >> 52 & 0x7ff) - 1023;
  return magnitude == 0 || exponent == 1024 ? 0 : exponent < -1000 ? 1000 : exponent > 1000 ? -1000 : -exponent;
}

static inline double FN(larger)(double most, T v) {
  const double magnitude = fabs((double)v);
  return magnitude > most && fn_finite(magnitude) ? magnitude : most;
}

/* xhat of one element before its shift is taken away, scaled as `slope` says. */
static inline double FN(careful_h)(const fn_job *job, const fn_slope *slope, T x, T mean, T rstd) {
  const double m = job->norm == FN_LAYER ? (double)mean : 0, by = FN(power)(slope->x_power);
  return ((double)x * by - m * by) * FN(times_power)((double)rstd, -slope->x_power);
}

/* The averages of kept index k. One that NaN or infinity spoils gets NaN. */
static void FN(careful_slope)(const fn_job *job, int64_t k, T mean, T rstd, FN(room) *room, fn_slope *slope) {
  int64_t at[1];
  unsigned char *mask = job->array[FN_WHERE].data ? room->slow_mask : NULL;
  const T *weight = job->weight;
  double count = 0, h = 0, g = 0, gh = 0, most_x = 0, most_dy = 0;
  for (int visit = 0; visit < 2; visit++) {
    for (int64_t start = 0; start < job->n; start += FN_FLUSH) {
      const int64_t n = job->n - start < FN_FLUSH ? job->n - start : FN_FLUSH;
      FN(kept_offsets)(job, FN_X, k, 1, at);
      const T *x = FN(load)(job, FN_X, job->array[FN_X].data + at[0], start, n, room->slow);
      FN(kept_offsets)(job, FN_Z, k, 1, at);
      const T *dy = FN(load)(job, FN_Z, job->array[FN_Z].data + at[0], start, n, room->slow + FN_FLUSH);
      if (mask) FN(bring_mask)(job, k, 1, start, n, mask);
      double part_h = 0, part_g = 0, part_gh = 0;
      for (int64_t i = 0; i < n; i++) {
        if (mask && !mask[i]) continue;
        if (visit == 0) {
          most_x = FN(larger)(most_x, x[i]);
          most_dy = FN(larger)(most_dy, dy[i]);
          count += 1;
          continue;
        }
        const double w = weight ? (double)weight[fn_along(job, FN_P, start + i)] : 1;
        const double v = FN(careful_h)(job, slope, x[i], mean, rstd);
        const double d = (double)dy[i] * FN(power)(slope->dy_power) * (w * FN(power)(FN(reverse)(job->most)));
        part_h += v;
        part_g += d;
        part_gh += d * v;
      }
      h += part_h;
      g += part_g;
      gh += part_gh;
    }
    slope->x_power = FN(reverse)(most_x);
    slope->dy_power = FN(reverse)(most_dy);
  }
  const int centered = job->norm == FN_LAYER;
  const double none = __builtin_nan("");
  slope->count = count;
  slope->shift = centered ? h / count : 0;
  slope->mean_g = centered ? g / count : 0;
  slope->dot = gh / count - slope->shift * (g / count);
  if (!fn_finite(slope->shift) || !fn_finite(slope->mean_g) || !fn_finite(slope->dot)) slope->dot = none;
}

/* dx, which may be x or dy, of `n` loaded elements of a kept index, and what they add to dweight and dbias. */
static void FN(careful_run)(const fn_job *job, const fn_slope *slope, T mean, T rstd, T *dx, const T *x, const T *dy,
                            const T *weight, const unsigned char *mask, double *dweight, double *dbias, int64_t n) {
  const int64_t x_power = slope->x_power, dy_power = slope->dy_power;
  const int64_t weight_power = FN(reverse)(job->most);
  const double scale = FN(times_power)((double)rstd, -x_power);
  for (int64_t i = 0; i < n; i++) {
    if (mask && !mask[i]) {
      dx[i] = 0;
      continue;
    }
    const double d = (double)dy[i], xhat = FN(careful_h)(job, slope, x[i], mean, rstd) - slope->shift;
    const double g = d * FN(power)(dy_power) * ((weight ? (double)weight[i] : 1) * FN(power)(weight_power));
    const double v = ((g - slope->mean_g) - xhat * slope->dot) * scale;
    dx[i] = (T)fn_quiet(FN(times_power)(v, x_power - dy_power - weight_power));
    if (weight) dweight[i] += d * xhat;
    if (job->norm == FN_LAYER) dbias[i] += d;
  }
}
