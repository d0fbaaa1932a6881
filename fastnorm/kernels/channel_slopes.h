/* Backward passes of channel norms: what sums become.
 *
 * A place is where the statistics of a kept index stand: c for batch norm, n * C + c for the others. `span` places side
 * by side share a mean and an rstd: the channels of a group, else one. With u = x - mean, where the saved mean was
 * rounded, and averages over all that shares it
 *
 *   shift = average(u)    g = weight * dy    dot = rstd * average(g * (u - shift))    xhat = (u - shift) * rstd
 *   dx = rstd * (g - average(g) - xhat * dot) = a * dy - b - u * k
 *
 *   a = weight * rstd    k = rstd^2 * dot    b = rstd * average(g) - shift * k
 *
 * so that the sums of u, dy and dy * u over each place are enough. Statistics that are `given` do not depend on x:
 * shift, b and k are 0. What the compute type cannot hold has an a of NaN and is done in double, scaled by powers of
 * two.
 */

/* Where a place begins in an array: places are numbered by the axes' own steps, in whatever order these are walked. */
static inline char *FN(located)(const fn_job *job, int which, int64_t place) {
  char *at = job->array[which].data;
  for (int a = 0; a <= job->kept_ndim; a++) {
    const fn_axis *axis = a < job->kept_ndim ? job->kept + a : &job->inner;
    if (axis->size > 1) at += place / axis->step[FN_P] % axis->size * axis->step[which];
  }
  return at;
}

static inline double FN(weight_at)(const fn_job *job, int64_t place) {
  return job->weight ? (double)((const T *)job->weight)[place % job->period] : 1;
}

/* Can a factor be worked with in the compute type? */
static inline int FN(held)(double v) { return v == 0 || (fabs(v) >= FN_LEAST_SCALE && fabs(v) <= FN_MOST_SCALE); }

/* ---- the careful way --------------------------------------------------------------------------------------------- */

/* Which power of two brings the largest weight of a cell near one. */
static int64_t FN(weight_power)(const fn_job *job, int64_t cell) {
  double most = 0;
  for (int64_t p = cell * job->span; job->weight && p < (cell + 1) * job->span; p++)
    most = FN(larger)(most, (T)FN(weight_at)(job, p));
  return FN(reverse)(most);
}

/* What does not count becomes x = mean and dy = 0, which adds nothing to any sum. */
static void FN(leave_out)(T *x_to, T *dy_to, const T *x, const T *dy, const unsigned char *mask, T mean, int64_t n) {
  const T m = mean - mean == 0 ? mean : 0;
  FN_IVDEP
  for (int64_t i = 0; i < n; i++) {
    const T v = x[i], d = dy[i];
    x_to[i] = mask[i] ? v : m;
    dy_to[i] = mask[i] ? d : 0;
  }
}

/* The gradient before a ReLU; NaN lets it pass. */
static void FN(before_relu)(T *to, const T *dy, const T *y, int64_t n) {
  FN_IVDEP
  for (int64_t i = 0; i < n; i++) {
    const T d = dy[i], v = y[i];
    to[i] = v <= 0 ? 0 : d;
  }
}

/* The sums of one cell in double, and with them its slope. One that NaN or infinity spoils gets NaN. */
static void FN(careful_cell)(const fn_job *job, int64_t cell, FN(room) *room) {
  const T mean = ((const T *)job->mean)[cell], rstd = ((const T *)job->spread)[cell];
  const int64_t places = job->width, first = cell * job->span, end = first + job->span;
  const int64_t weight_power = FN(weight_power)(job, cell);
  double *sum_dy = job->slots + FN_SUM_DY * places, *sum_dyh = job->slots + FN_SUM_DYU * places;
  double count = 0, h = 0, g = 0, gh = 0, most_x = 0, most_dy = 0;
  fn_slope *slope = job->slopes + cell;
  for (int visit = 0; visit < 2; visit++) {
    for (int64_t p = first; p < end; p++) {
      double place_dy = 0, place_dyh = 0;
      for (int64_t start = 0, n; start < job->n; start += n) {
        n = job->n - start < FN_FLUSH ? job->n - start : FN_FLUSH;
        const T *x = FN(load)(job, FN_X, FN(located)(job, FN_X, p), start, n, room->slow);
        const T *dy = FN(load)(job, FN_Z, FN(located)(job, FN_Z, p), start, n, room->slow + FN_FLUSH);
        if (job->relu) {
          FN(before_relu)(room->slow + FN_FLUSH, dy, FN(load)(job, FN_S, FN(located)(job, FN_S, p), start, n, room->dx),
                          n);
          dy = room->slow + FN_FLUSH;
        }
        const unsigned char *mask = NULL;
        if (job->array[FN_WHERE].data)
          mask = load_u8(job, FN_WHERE, FN(located)(job, FN_WHERE, p), start, n, room->slow_mask);
        double part_h = 0, part_dy = 0, part_dyh = 0;
        for (int64_t i = 0; i < n; i++) {
          if (mask && !mask[i]) continue;
          if (visit == 0) {
            most_x = FN(larger)(most_x, x[i]);
            most_dy = FN(larger)(most_dy, dy[i]);
            count += 1;
            continue;
          }
          const double v = FN(careful_h)(job, slope, x[i], mean, rstd), d = (double)dy[i] * FN(power)(slope->dy_power);
          part_h += v;
          part_dy += d;
          part_dyh += d * v;
        }
        h += part_h;
        place_dy += part_dy;
        place_dyh += part_dyh;
      }
      if (visit == 0) continue;
      const double weight = FN(weight_at)(job, p) * FN(power)(weight_power);
      sum_dy[p] = place_dy;
      sum_dyh[p] = place_dyh;
      g += weight * place_dy;
      gh += weight * place_dyh;
    }
    slope->x_power = FN(reverse)(most_x);
    slope->dy_power = FN(reverse)(most_dy);
  }
  const double part = count > 0 && !job->given ? 1 / count : 0;
  slope->shift = job->given ? 0 : h * part;
  slope->mean_g = job->given ? 0 : g * part;
  slope->dot = job->given ? 0 : gh * part - slope->shift * slope->mean_g;
  if (!fn_finite(slope->shift) || !fn_finite(slope->mean_g) || !fn_finite(slope->dot)) slope->dot = __builtin_nan("");
  for (int64_t p = first; p < end; p++) {
    sum_dyh[p] = FN(times_power)(sum_dyh[p] - slope->shift * sum_dy[p], -slope->dy_power);
    sum_dy[p] = FN(times_power)(sum_dy[p], -slope->dy_power);
    ((T *)job->factors)[FN_OF_DY * places + p] = (T)__builtin_nan("");
    ((T *)job->factors)[FN_OF_MEAN * places + p] = mean;
  }
}

/* dx of `n` elements of a place; x and dy lie `step` elements apart, dx `dx_step`. */
static void FN(careful_dx)(const fn_job *job, int64_t place, T *dx, int64_t dx_step, const T *x, int64_t x_step,
                           const T *dy, int64_t dy_step, int64_t n) {
  const int64_t cell = place / job->span, weight_power = FN(weight_power)(job, cell);
  const fn_slope *slope = job->slopes + cell;
  const T mean = ((const T *)job->mean)[cell], rstd = ((const T *)job->spread)[cell];
  const double weight = FN(weight_at)(job, place) * FN(power)(weight_power);
  const double scale = FN(times_power)((double)rstd, -slope->x_power);
  const T a = (T)((double)rstd * FN(weight_at)(job, place));
  for (int64_t i = 0; job->given && FN(held)((double)a) && i < n; i++) { /* only the sums were not held */
    const T v = dy[i * dy_step] * a;
    dx[i * dx_step] = v == v ? v : (T)__builtin_nan("");
  }
  if (job->given && FN(held)((double)a)) return;
  for (int64_t i = 0; i < n; i++) {
    const double g = (double)dy[i * dy_step] * FN(power)(slope->dy_power) * weight;
    double v = g;
    if (!job->given) {
      const double xhat = FN(careful_h)(job, slope, x[i * x_step], mean, rstd) - slope->shift;
      v = (g - slope->mean_g) - xhat * slope->dot;
    }
    v = FN(times_power)(v * scale, slope->x_power - slope->dy_power - weight_power);
    dx[i * dx_step] = (T)fn_quiet(v);
  }
}

/* ---- averages ---------------------------------------------------------------------------------------------------- */

/* Sums become the factors of dx and what is added to dweight and dbias. */
static void FN(settle_cell)(const fn_job *job, int64_t cell, FN(room) *room) {
  const int64_t places = job->width, first = cell * job->span, end = first + job->span;
  const double *counts = job->slots + FN_SUM_COUNT * places, *sum_u = job->slots + FN_SUM_U * places;
  const double *sum_dy = job->slots + FN_SUM_DY * places;
  double *sum_dyu = job->slots + FN_SUM_DYU * places;
  T *of_dy = job->factors, *of_one = of_dy + FN_OF_ONE * places, *of_u = of_dy + FN_OF_U * places;
  T *of_mean = of_dy + FN_OF_MEAN * places;
  const T mean = ((const T *)job->mean)[cell];
  const double rstd = (double)((const T *)job->spread)[cell];
  double count = 0, u = 0, g = 0, gu = 0, size = 0;
  for (int64_t p = first; p < end; p++) count += counts[p];
  for (int64_t p = first; p < end; p++) u += sum_u[p];
  const double part = 1 / (count > 0 ? count : 1), shift = job->given ? 0 : u * part;
  int held = rstd >= FN_LEAST_SCALE && rstd <= FN_MOST_SCALE && fabs((double)mean) <= FN_LARGE;
  held &= fabs(shift) <= FN_LARGE;
  const T *weight = job->weight ? (const T *)job->weight + first % job->period : NULL;
  for (int64_t p = first; p < end; p++) {
    const double a = weight ? (double)(T)(rstd * (double)weight[p - first]) : rstd;
    const double dyu = sum_dyu[p] - shift * sum_dy[p];
    held &= FN(held)(a);
    g += a * sum_dy[p];
    gu += a * dyu;
    size += fabs(sum_dy[p]) + fabs(dyu) * rstd;
    of_dy[p] = (T)a;
    of_mean[p] = mean;
    sum_dyu[p] = dyu * rstd;
  }
  const double k = job->given ? 0 : gu * part * rstd * rstd, b = job->given ? 0 : g * part - shift * k;
  size *= part; /* of dy; that of dy * u is 1 / rstd of it */
  held &= FN(held)(k) && FN(held)(size) && fabs(b) <= FN_MOST_SCALE;
  held &= size == 0 || (size >= rstd * FN_LEAST_SCALE && size <= rstd * FN_MOST_SCALE);
  if (count == 0) { /* the saved statistics of nothing may be NaN */
    for (int64_t p = first; p < end; p++) of_dy[p] = of_one[p] = of_u[p] = of_mean[p] = 0;
    for (int64_t p = first; p < end; p++) sum_dyu[p] = 0;
  } else if (!held) {
    FN(careful_cell)(job, cell, room);
  } else {
    for (int64_t p = first; p < end; p++) of_one[p] = (T)b;
    for (int64_t p = first; p < end; p++) of_u[p] = (T)k;
  }
}

/* Cells of a single place each that stand side by side, as do their weights: the same in packed code. */
static void FN(settle_places)(const fn_job *job, int64_t first, int count, FN(room) *room) {
  enum { MOST = FN(TOGETHER) };
  const int64_t places = job->width;
  const double *counts = job->slots + FN_SUM_COUNT * places + first, *sum_u = job->slots + FN_SUM_U * places + first;
  const double *sum_dy = job->slots + FN_SUM_DY * places + first;
  double *sum_dyu = job->slots + FN_SUM_DYU * places + first, ones[MOST], shifts[MOST], of[3][MOST], dyh[MOST];
  const T *mean = (const T *)job->mean + first, *rstds = (const T *)job->spread + first;
  const T *weight = job->weight ? (const T *)job->weight + first % job->period : NULL;
  T *of_dy = (T *)job->factors + first, *of_one = of_dy + FN_OF_ONE * places, *of_u = of_dy + FN_OF_U * places;
  T *of_mean = of_dy + FN_OF_MEAN * places;
  const double varies = job->given ? 0 : 1;
  double held[MOST], all = 1;
  for (int r = 0; r < count; r++)
    ones[r] = weight ? (double)(T)((double)rstds[r] * (double)weight[r]) : (double)rstds[r];
  for (int r = 0; r < count; r++) shifts[r] = job->given ? 0 : sum_u[r] * (1 / (counts[r] > 0 ? counts[r] : 1));
  FN_IVDEP
  for (int r = 0; r < count; r++) { /* by choices, which compilers pack; for a 0, which is held, stands what fits */
    const double part = 1 / (counts[r] > 0 ? counts[r] : 1), rstd = (double)rstds[r], shift = shifts[r], a = ones[r];
    const double dyu = sum_dyu[r] - shift * sum_dy[r], gu = a * dyu, g = a * sum_dy[r];
    const double k = varies == 0 ? 0 : gu * part * rstd * rstd, b = varies == 0 ? 0 : g * part - shift * k;
    const double sum = (fabs(sum_dy[r]) + fabs(dyu) * rstd) * part, size = sum == 0 ? rstd : sum;
    const double size_of_a = a == 0 ? 1 : fabs(a), size_of_k = k == 0 ? 1 : fabs(k);
    double fits = rstd >= FN_LEAST_SCALE ? 1 : 0;
    fits = rstd <= FN_MOST_SCALE ? fits : 0;
    fits = fabs((double)mean[r]) <= FN_LARGE ? fits : 0;
    fits = fabs(shift) <= FN_LARGE ? fits : 0;
    fits = fabs(b) <= FN_MOST_SCALE ? fits : 0;
    fits = counts[r] > 0 ? fits : 0;
    fits = size_of_a >= FN_LEAST_SCALE ? fits : 0;
    fits = size_of_a <= FN_MOST_SCALE ? fits : 0;
    fits = size_of_k >= FN_LEAST_SCALE ? fits : 0;
    fits = size_of_k <= FN_MOST_SCALE ? fits : 0;
    fits = size >= FN_LEAST_SCALE ? fits : 0;
    fits = size <= FN_MOST_SCALE ? fits : 0;
    fits = size >= rstd * FN_LEAST_SCALE ? fits : 0;
    held[r] = size <= rstd * FN_MOST_SCALE ? fits : 0;
    of[FN_OF_DY][r] = a;
    of[FN_OF_ONE][r] = b;
    of[FN_OF_U][r] = k;
    dyh[r] = dyu * rstd;
  }
  for (int r = 0; r < count; r++) all = held[r] != 0 ? all : 0;
  for (int r = 0; all == 0 && r < count; r++) FN(settle_cell)(job, first + r, room);
  if (all == 0) return;
  for (int r = 0; r < count; r++) {
    of_dy[r] = (T)of[FN_OF_DY][r];
    of_one[r] = (T)of[FN_OF_ONE][r];
    of_u[r] = (T)of[FN_OF_U][r];
    of_mean[r] = mean[r];
    sum_dyu[r] = dyh[r];
  }
}
