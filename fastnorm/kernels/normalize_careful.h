/* normalize, the careful way: one kept index, any p, any layout, any range.
 *
 * Works in double, with magnitudes in units of the largest (p < 0: of the least), whose powers neither overflow nor,
 * where they count, underflow. Reads x two or three times; for p = 1, 2 and infinity it is rarely needed.
 */

/* What is known of a kept index. */
typedef struct {
  double norm;             /* times 2^scale */
  double unit;             /* the magnitude that others are measured by */
  double ties;             /* how many have it */
  int64_t scale, dy_scale; /* powers of two that bring it, and the largest |dy|, near one */
} FN(careful_size);

/* Elements start <= i < start + FN_STRIP, or as many as there are, in double: how many. */
static int64_t FN(careful_load)(const fn_job *job, int which, int64_t outer, int64_t j, int64_t start, double *to) {
  const int64_t count = job->n - start < FN_STRIP ? job->n - start : FN_STRIP;
  T tile[FN_STRIP];
  const T *from = FN(load)(job, which, fn_base(job, which, outer, j), start, count, tile);
  for (int64_t i = 0; i < count; i++) to[i] = (double)from[i];
  return count;
}

/* The sum of some terms joins an unevaluated sum. */
static void FN(careful_add)(double *hi, double *lo, const double *terms, int64_t count) {
  double lanes[FN_LANES] = {0};
  int64_t i = 0;
  for (; i + FN_LANES <= count; i += FN_LANES)
    for (int l = 0; l < FN_LANES; l++) lanes[l] += terms[i + l];
  for (int l = 0; i + l < count; l++) lanes[l] += terms[i + l];
  fn_add(hi, lo, fn_fold(lanes));
}

/* |x| / unit to the power p. */
static void FN(careful_terms)(double *to, const double *x, int64_t count, double unit, double p) {
  double ratio[FN_STRIP];
  for (int64_t i = 0; i < count; i++) ratio[i] = fabs(x[i]) / unit;
  if (p == 1 || p == 2)
    for (int64_t i = 0; i < count; i++) to[i] = p == 1 ? ratio[i] : ratio[i] * ratio[i];
  else
    fn_powers(to, ratio, count, p);
}

static void FN(careful_norm)(const fn_job *job, int64_t outer, int64_t j, FN(careful_size) *to) {
  const double p = job->exponent;
  double most = 0, least = __builtin_inf(), nonzero = 0, none = 0, dy_most = 0, sum = 0, sum_lo = 0, ties = 0;
  double x[FN_STRIP], terms[FN_STRIP];
  for (int64_t start = 0, count; start < job->n; start += count) {
    count = FN(careful_load)(job, FN_X, outer, j, start, x);
    for (int64_t i = 0; i < count; i++) {
      const double size = fabs(x[i]);
      most = size > most ? size : most;
      least = size < least ? size : least;
      nonzero += size != 0;
      none = size != size ? size : none;
    }
    if (job->array[FN_Z].data) FN(careful_load)(job, FN_Z, outer, j, start, x);
    for (int64_t i = 0; job->array[FN_Z].data && i < count; i++) dy_most = FN(larger)(dy_most, (T)x[i]);
  }
  const double unit = p > 0 ? most : least;
  *to = (FN(careful_size)){none != 0 ? none : unit, unit, 1, 0, FN(reverse)(dy_most)};
  if (p == 0) to->norm = nonzero;
  if (p == 0 || none != 0 || unit == 0 || !fn_finite(unit)) return;
  to->scale = FN(reverse)(unit);
  for (int64_t start = 0, count; start < job->n; start += count) {
    count = FN(careful_load)(job, FN_X, outer, j, start, x);
    for (int64_t i = 0; i < count; i++) ties += fabs(x[i]) == unit;
    if (!fn_finite(p)) continue;
    FN(careful_terms)(terms, x, count, unit, p);
    FN(careful_add)(&sum, &sum_lo, terms, count);
  }
  to->ties = ties;
  to->norm = unit * FN(power)(to->scale);
  if (fn_finite(p)) to->norm *= p == 1 ? sum : p == 2 ? sqrt(sum) : fn_root(sum, p);
}

/* slope = d||x|| / dx of elements whose y = x / ||x|| is known. */
static void FN(careful_slopes)(double *slope, const double *x, const double *y, int64_t count, double p,
                               const FN(careful_size) *size) {
  if (p == 2) {
    memcpy(slope, y, (size_t)count * sizeof *slope);
    return;
  }
  if (fn_finite(p) && p != 1) FN(careful_terms)(slope, y, count, 1, p - 1);
  for (int64_t i = 0; i < count; i++) {
    const double sign = x[i] > 0 ? 1 : x[i] < 0 ? -1 : x[i];
    if (p == 1 || x[i] == 0)
      slope[i] = sign;
    else if (fn_finite(p))
      slope[i] *= sign;
    else
      slope[i] = fabs(x[i]) == size->unit ? sign / size->ties : sign * 0;
  }
}

static void FN(normalize_careful)(const fn_job *job, int64_t outer, int64_t j) {
  const double p = job->exponent;
  const int backward = job->array[FN_Z].data != NULL;
  FN(careful_size) size;
  FN(careful_norm)(job, outer, j, &size);
  const double up = FN(power)(size.scale), dy_up = FN(power)(size.dy_scale);
  const int by_norm = !(size.norm < job->eps * up), sloped = backward && by_norm && p != 0;
  double x[FN_STRIP], y[FN_STRIP], dy[FN_STRIP], slope[FN_STRIP], dot = 0, dot_lo = 0;
  T out[FN_STRIP];
  for (int visit = sloped ? 0 : 1; visit < 2; visit++)
    for (int64_t start = 0, count; start < job->n; start += count) {
      count = FN(careful_load)(job, FN_X, outer, j, start, x);
      if (backward) FN(careful_load)(job, FN_Z, outer, j, start, dy);
      for (int64_t i = 0; i < count; i++) y[i] = by_norm ? x[i] * up / size.norm : x[i] / job->eps;
      if (visit == 0) {
        for (int64_t i = 0; i < count; i++) slope[i] = dy[i] * dy_up * y[i];
        FN(careful_add)(&dot, &dot_lo, slope, count);
        continue;
      }
      if (sloped) FN(careful_slopes)(slope, x, y, count, p, &size);
      for (int64_t i = 0; i < count; i++) {
        double v = y[i];
        if (sloped)
          v = FN(times_power)((dy[i] * dy_up - slope[i] * dot) / size.norm, size.scale - size.dy_scale);
        else if (backward)
          v = dy[i] / (by_norm ? size.norm : job->eps);
        out[i] = (T)fn_quiet(v);
      }
      FN(store)(job, FN_Y, fn_base(job, FN_Y, outer, j), start, count, out);
    }
}
