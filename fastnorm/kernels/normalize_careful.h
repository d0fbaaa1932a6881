/* normalize, the careful way: one kept index, any p, any layout, any range.
 *
 * Works in double, with magnitudes in units of the largest (p < 0: of the least), whose powers neither overflow nor,
 * where they count, underflow. Slow for p = 1, 2 and infinity, and rarely needed there.
 */

/* What is known of a kept index: its norm times 2^scale, and what became of dy * 2^dy_scale. */
typedef struct {
  double norm, unit, ties; /* unit: the magnitude that others are measured by */
  int64_t scale, dy_scale;
} FN(careful_size);

static inline const T *FN(careful_load)(const fn_job *job, int which, int64_t outer, int64_t j, int64_t start,
                                        T *tile) {
  const int64_t count = job->n - start < FN_CHUNK ? job->n - start : FN_CHUNK;
  return FN(load)(job, which, fn_base(job, which, outer, j), start, count, tile);
}

static void FN(careful_norm)(const fn_job *job, int64_t outer, int64_t j, T *tile, FN(careful_size) *to) {
  const double p = job->exponent, infinity = __builtin_inf();
  double most = 0, least = infinity, nonzero = 0, none = 0, dy_most = 0, sum = 0, sum_lo = 0, ties = 0;
  for (int64_t start = 0; start < job->n; start += FN_CHUNK) {
    const int64_t count = job->n - start < FN_CHUNK ? job->n - start : FN_CHUNK;
    const T *x = FN(careful_load)(job, FN_X, outer, j, start, tile);
    for (int64_t i = 0; i < count; i++) {
      const double size = fabs((double)x[i]);
      most = size > most ? size : most;
      least = size < least ? size : least;
      nonzero += size != 0;
      none = size != size ? size : none;
    }
    if (!job->array[FN_Z].data) continue;
    const T *dy = FN(careful_load)(job, FN_Z, outer, j, start, tile);
    for (int64_t i = 0; i < count; i++) dy_most = FN(larger)(dy_most, dy[i]);
  }
  const double unit = p > 0 ? most : least;
  *to = (FN(careful_size)){unit, unit, 1, 0, FN(reverse)(dy_most)};
  if (p == 0) to->norm = nonzero;
  if (p == 0 || none != none || unit == 0 || !fn_finite(unit)) {
    if (p != 0 && none != none) to->norm = none;
    return;
  }
  to->scale = FN(reverse)(unit);
  for (int64_t start = 0; start < job->n; start += FN_CHUNK) {
    const int64_t count = job->n - start < FN_CHUNK ? job->n - start : FN_CHUNK;
    const T *x = FN(careful_load)(job, FN_X, outer, j, start, tile);
    for (int64_t i = 0; i < count; i++) {
      const double size = fabs((double)x[i]), ratio = size / unit;
      ties += size == unit;
      if (fn_finite(p)) fn_add(&sum, &sum_lo, p == 1 ? ratio : p == 2 ? ratio * ratio : fn_power(ratio, p));
    }
  }
  to->ties = ties;
  to->norm = unit * FN(power)(to->scale);
  if (fn_finite(p)) to->norm *= p == 1 ? sum : p == 2 ? sqrt(sum) : fn_root(sum, p);
}

/* d||x|| / dx of an element y = x / ||x||. */
static inline double FN(careful_slope_of_norm)(double x, double y, double p, const FN(careful_size) *size) {
  const double sign = x > 0 ? 1 : x < 0 ? -1 : x;
  if (p == 2) return y;
  if (!fn_finite(p)) return fabs(x) == size->unit ? sign / size->ties : sign * 0;
  return p == 1 || x == 0 ? sign : sign * fn_power(fabs(y), p - 1);
}

static void FN(normalize_careful)(const fn_job *job, int64_t outer, int64_t j, void *scratch) {
  T *tile = scratch, *dy_tile = tile + FN_CHUNK, *out = dy_tile + FN_CHUNK;
  const double p = job->exponent;
  const int backward = job->array[FN_Z].data != NULL;
  FN(careful_size) size;
  FN(careful_norm)(job, outer, j, tile, &size);
  const double up = FN(power)(size.scale), dy_up = FN(power)(size.dy_scale);
  const int by_norm = !(size.norm < job->eps * up), slopes = by_norm && p != 0;
  double dot = 0, dot_lo = 0;
  for (int visit = backward && slopes ? 0 : 1; visit < 2; visit++) {
    for (int64_t start = 0; start < job->n; start += FN_CHUNK) {
      const int64_t count = job->n - start < FN_CHUNK ? job->n - start : FN_CHUNK;
      const T *x = FN(careful_load)(job, FN_X, outer, j, start, tile);
      const T *dy = backward ? FN(careful_load)(job, FN_Z, outer, j, start, dy_tile) : x;
      for (int64_t i = 0; i < count; i++) {
        const double v = (double)x[i], d = (double)dy[i], y = by_norm ? v * up / size.norm : v / job->eps;
        if (visit == 0)
          fn_add(&dot, &dot_lo, d * dy_up * y);
        else if (!backward)
          out[i] = (T)fn_quiet(y);
        else if (!slopes)
          out[i] = (T)fn_quiet(d / (by_norm ? size.norm : job->eps));
        else {
          const double back = (d * dy_up - FN(careful_slope_of_norm)(v, y, p, &size) * dot) / size.norm;
          out[i] = (T)fn_quiet(FN(times_power)(back, size.scale - size.dy_scale));
        }
      }
      if (visit == 1) FN(store)(job, FN_Y, fn_base(job, FN_Y, outer, j), start, count, out);
    }
  }
}
