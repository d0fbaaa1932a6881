/* Backward passes of norms whose parameters lie along the reduced axes.
 *
 * With g = dy * weight and xhat = (x - mean) * rstd - shift, where shift is what rounding left in the saved mean, each
 * kept index gets
 *
 *   dx = rstd * (g - average(g) - xhat * average(g * xhat))
 *
 * and each reduced one dweight = sum of dy * xhat and dbias = sum of dy over the kept indices. RMS norms have neither
 * mean, shift nor average(g). Products are taken in the compute type, four or eight of them added there, and their
 * sums in double, as in norm_stats.h. Kept indices are worked on as rows, four at a time; what is not a row in memory
 * becomes one in a tile. An index that the compute type cannot hold is done in double (the careful way below).
 */

enum { FN(TOGETHER) = 16 };

/* Scratch of a thread. */
typedef struct {
  T x[FN_VISIT], dy[FN_VISIT]; /* what is not a row in memory */
  T out[FN_VISIT];             /* columns: dx before it is written; rows: weights that do not follow each other */
  T dx[FN_TILE];               /* rows: dx */
  T weight[FN_VISIT / FN(TOGETHER)]; /* columns: weights */
  T slow[2 * FN_FLUSH];
  unsigned char mask[FN_VISIT], slow_mask[FN_FLUSH];
} FN(room);
_Static_assert(sizeof(FN(room)) <= FN_SCRATCH_BYTES, "a room is no larger than the scratch of a thread");

/* Up to FN(TOGETHER) neighbouring kept indices as rows of elements that follow each other. */
typedef struct {
  int rows;
  const T *x[FN(TOGETHER)], *dy[FN(TOGETHER)];
  const unsigned char *mask; /* one row after the other; NULL: all count */
  int64_t ahead;             /* bytes from x and dy to what the next batch will read; 0: unknown */
} FN(batch);

/* What dx is made with, in the compute type. */
typedef struct {
  T mean, rstd, shift, mean_g, dot;
} FN(factors);

/* Offsets in array `which` (FN_P: places) of the kept indices from k on; they do not cross the end of `inner`. */
static void FN(kept_offsets)(const fn_job *job, int which, int64_t k, int rows, int64_t *to) {
  const int64_t width = job->inner.size, p = which == FN_P ? job->p : 0;
  if (width == 1 && job->kept_ndim > 1) {
    for (int r = 0; r < rows; r++) to[r] = p + fn_offset(job->kept, job->kept_ndim, k + r, which);
    return;
  }
  const int lined_up = width == 1 && job->kept_ndim == 1;
  const int64_t step = lined_up ? job->kept[0].step[which] : job->inner.step[which];
  int64_t first = k * step;
  if (!lined_up && width > 1) first = fn_offset(job->kept, job->kept_ndim, k / width, which) + k % width * step;
  for (int r = 0; r < rows; r++) to[r] = p + first + r * step;
}

/* How many kept indices from k on are worked on together. */
static int FN(batch_rows)(const fn_job *job, int64_t k, int64_t end) {
  const int64_t fit = FN_TILE / job->n / 4 * 4, width = job->inner.size;
  int64_t most = job->columns || fit > FN(TOGETHER) ? FN(TOGETHER) : fit < 4 ? 4 : fit;
  if (width > 1 && width - k % width < most) most = width - k % width;
  return (int)(end - k < most ? end - k : most);
}

/* ---- between memory and rows ------------------------------------------------------------------------------------- */

/* Are the reduced elements of a kept index a row in memory? By the layout of the job, not by its address. */
static inline int FN(in_rows)(const fn_job *job, int which) {
  return FN(native)(&job->array[which]) &&
         (job->n == 1 || (job->reduced_ndim == 1 && fn_step(job, which) == (int64_t)sizeof(T)));
}

/* Elements start <= i < start + count of `rows` kept indices: pointers to rows in memory or in `tile`. */
static void FN(bring_rows)(const fn_job *job, int which, int64_t k, int rows, int64_t start, int64_t count, T *tile,
                           T *spare, const T **to) {
  int64_t offset[FN(TOGETHER)];
  FN(kept_offsets)(job, which, k, rows, offset);
  const char *data = job->array[which].data;
  if (FN(in_rows)(job, which)) {
    for (int r = 0; r < rows; r++) to[r] = (const T *)(const void *)(data + offset[r]) + start;
    return;
  }
  for (int r = 0; r < rows; r++) to[r] = tile + r * count;
  if (job->columns) {
    int64_t stride;
    const T *from = FN(load_columns)(job, which, data + offset[0], start, count, rows, spare, &stride);
    FN(turn)(tile, count, from, stride, count, rows);
  } else {
    for (int r = 0; r < rows; r++) to[r] = FN(load)(job, which, data + offset[r], start, count, tile + r * count);
  }
}

/* The same of the mask: one byte per element, one row after the other. */
static void FN(bring_mask)(const fn_job *job, int64_t k, int rows, int64_t start, int64_t count, unsigned char *mask) {
  int64_t offset[FN(TOGETHER)];
  FN(kept_offsets)(job, FN_WHERE, k, rows, offset);
  const char *data = job->array[FN_WHERE].data;
  const int64_t step = fn_step(job, FN_WHERE);
  for (int64_t at = 0; at < count;) {
    const fn_run run = fn_next_run(job, FN_WHERE, start + at, count - at);
    if (job->columns)
      for (int64_t i = 0; i < run.count; i++)
        for (int r = 0; r < rows; r++)
          mask[r * count + at + i] = (unsigned char)data[offset[r] + run.offset + i * step];
    else
      for (int r = 0; r < rows; r++)
        for (int64_t i = 0; i < run.count; i++)
          mask[r * count + at + i] = (unsigned char)data[offset[r] + run.offset + i * step];
    at += run.count;
  }
}

/* x and dy of a batch. What does not count becomes x = mean and dy = 0, which adds nothing to any sum. */
static void FN(bring)(const fn_job *job, int64_t k, int rows, int64_t start, int64_t count, const T *mean,
                      FN(room) *room, FN(batch) *batch) {
  batch->rows = rows;
  batch->mask = NULL;
  const int64_t step = job->kept_ndim ? job->kept[job->kept_ndim - 1].step[FN_X] : 0;
  /* Longer rows are streams that processors follow by themselves; asking for them only takes their cache away. */
  const int alike = !job->columns && job->n <= 4 * FN_SHORT && job->kept_ndim == 1 && step == job->kept[0].step[FN_Z];
  batch->ahead = alike && FN(in_rows)(job, FN_X) && FN(in_rows)(job, FN_Z) ? rows * step : 0;
  FN(bring_rows)(job, FN_X, k, rows, start, count, room->x, room->out, batch->x);
  FN(bring_rows)(job, FN_Z, k, rows, start, count, room->dy, room->out, batch->dy);
  if (!job->array[FN_WHERE].data) return;
  FN(bring_mask)(job, k, rows, start, count, room->mask);
  batch->mask = room->mask;
  for (int r = 0; r < rows; r++) {
    const unsigned char *mask = room->mask + r * count;
    const T *x = batch->x[r], *dy = batch->dy[r], m = mean[r] - mean[r] == 0 ? mean[r] : 0;
    T *x_to = room->x + r * count, *dy_to = room->dy + r * count;
    FN_IVDEP
    for (int64_t i = 0; i < count; i++) {
      const T v = x[i], d = dy[i];
      x_to[i] = mask[i] ? v : m;
      dy_to[i] = mask[i] ? d : 0;
    }
    batch->x[r] = x_to;
    batch->dy[r] = dy_to;
  }
}

/* Weights start <= i < start + count: contiguous, in memory or in `tile`; NULL: all one. */
static const T *FN(bring_weight)(const fn_job *job, int64_t start, int64_t count, T *tile) {
  const T *weight = job->weight;
  if (!weight) return NULL;
  for (int64_t at = 0; at < count;) {
    const fn_run run = fn_next_run(job, FN_P, start + at, count - at);
    const int64_t step = fn_step(job, FN_P);
    if (run.count == count && (step == 1 || count == 1)) return weight + run.offset;
    for (int64_t i = 0; i < run.count; i++) tile[at + i] = weight[run.offset + i * step];
    at += run.count;
  }
  return tile;
}

/* Rows of dx, `count` elements from number `start` on, leave the tile in which they follow each other. */
static void FN(put_rows)(const fn_job *job, int64_t k, int rows, int64_t start, int64_t count, const T *dx) {
  int64_t offset[FN(TOGETHER)];
  FN(kept_offsets)(job, FN_Y, k, rows, offset);
  char *data = job->array[FN_Y].data;
  if (!FN(in_rows)(job, FN_Y)) {
    for (int r = 0; r < rows; r++) FN(store)(job, FN_Y, data + offset[r], start, count, dx + r * count);
    return;
  }
  const int64_t bytes = count * (int64_t)sizeof(T);
  int adjacent = 1;
  for (int r = 1; r < rows; r++) adjacent &= offset[r] - offset[r - 1] == bytes;
  const int pieces = adjacent ? 1 : rows;
  for (int r = 0; r < pieces; r++) {
    char *to = data + offset[r] + start * (int64_t)sizeof(T);
    if (job->stream)
      fn_stream(to, (const char *)(dx + r * count), bytes * (rows / pieces));
    else
      memcpy(to, dx + r * count, (size_t)(bytes * (rows / pieces)));
  }
}

/* Columns of dx, worked on as rows, are turned back by way of another tile. */
static void FN(put_columns)(const fn_job *job, int64_t k, int cols, int64_t start, int64_t count, const T *dx,
                            T *turned) {
  int64_t offset[FN(TOGETHER)];
  FN(kept_offsets)(job, FN_Y, k, cols, offset);
  FN(turn)(turned, cols, dx, count, cols, count);
  char *data = job->array[FN_Y].data + offset[0];
  for (int64_t i = 0; i < count; i++)
    FN(scatter_run)(data + fn_along(job, FN_Y, start + i), turned + i * cols, cols, job->inner.step[FN_Y],
                    job->array[FN_Y].dtype);
}

/* ---- sums -------------------------------------------------------------------------------------------------------- */

/* For numbers and vectors alike. What a kind is without is known when this is compiled, and costs nothing. */
enum { FN(CENTERED) = 1, FN(WEIGHTED) = 2 };
#define FN_BACKWARD_KINDS(X) X(0) X(1) X(2) X(3)
#define FN_UNSHIFTED(x, mean, rstd) ((kind & FN(CENTERED) ? (x) - (mean) : (x)) * (rstd))
#define FN_SCALED(dy, weight) (kind & FN(WEIGHTED) ? (dy) * (weight) : (dy))

static inline int FN(backward_kind)(const fn_job *job) {
  return (job->norm == FN_LAYER ? FN(CENTERED) : 0) | (job->weight ? FN(WEIGHTED) : 0);
}

/* Sums over FN_LANES lanes of h = (x - mean) * rstd, g and g * h, and the largest |dy|. */
typedef struct {
  double h[FN(TOGETHER)][FN_LANES], g[FN(TOGETHER)][FN_LANES], gh[FN(TOGETHER)][FN_LANES];
  T most[FN(TOGETHER)][FN_LANES];
} FN(lanes);

#define FN_H(k) FN_UNSHIFTED(x[i + (k) * L + l], m, s)
#define FN_DY(k) dy[i + (k) * L + l]
#define FN_G(k) FN_SCALED(FN_DY(k), weight[i + (k) * L + l])
#define FN_GH(k) (FN_G(k) * FN_H(k))
#define FN_REST_H(k) (rest_h[(k) * L + l])
#define FN_REST_G(k) (rest_g[(k) * L + l])
#define FN_REST_GH(k) (FN_REST_G(k) * FN_REST_H(k))
#define FN_MAX(a, b) ((a) > (b) ? (a) : (b))
#define FN_MAGNITUDE(v) ((T)(FN_TYPE == FN_F32 ? __builtin_fabsf((float)(v)) : __builtin_fabs((double)(v))))
#define FN_MOST_4(d, k)                                                                                                \
  FN_MAX(FN_MAX(FN_MAGNITUDE(d(k)), FN_MAGNITUDE(d((k) + 1))),                                                         \
         FN_MAX(FN_MAGNITUDE(d((k) + 2)), FN_MAGNITUDE(d((k) + 3))))

FN_INLINE void FN(backward_sums_of_kind)(const T *x, const T *dy, const T *weight, int64_t n, T m, T s,
                                         double *restrict to_h, double *restrict to_g, double *restrict to_gh,
                                         T *restrict to_most, int kind) {
  enum { L = FN_LANES };
  double h[L] = {0}, g[L] = {0}, gh[L] = {0};
  T most[L] = {0};
  int64_t i = 0;
  for (; i + 8 * L <= n; i += 8 * L)
    for (int l = 0; l < L; l++) {
      const T a = FN_MOST_4(FN_DY, 0), b = FN_MOST_4(FN_DY, 4), c = FN_MAX(a, b);
      if (kind & FN(CENTERED)) h[l] += (double)(FN_SUM_4(FN_H, 0) + FN_SUM_4(FN_H, 4));
      if (kind & FN(CENTERED)) g[l] += (double)(FN_SUM_4(FN_G, 0) + FN_SUM_4(FN_G, 4));
      gh[l] += (double)(FN_SUM_4(FN_GH, 0) + FN_SUM_4(FN_GH, 4));
      most[l] = FN_MAX(c, most[l]);
    }
  for (; i + 4 * L <= n; i += 4 * L)
    for (int l = 0; l < L; l++) {
      const T a = FN_MOST_4(FN_DY, 0);
      if (kind & FN(CENTERED)) h[l] += (double)FN_SUM_4(FN_H, 0);
      if (kind & FN(CENTERED)) g[l] += (double)FN_SUM_4(FN_G, 0);
      gh[l] += (double)FN_SUM_4(FN_GH, 0);
      most[l] = FN_MAX(a, most[l]);
    }
  if (i < n) {
    T rest_h[4 * L] = {0}, rest_g[4 * L] = {0}, rest_dy[4 * L] = {0};
    FN_IVDEP
    for (int64_t l = 0; l < n - i; l++) {
      rest_h[l] = FN_H(0);
      rest_g[l] = FN_G(0);
      rest_dy[l] = FN_DY(0);
    }
    for (int l = 0; l < L; l++) {
      if (kind & FN(CENTERED)) h[l] += (double)FN_SUM_4(FN_REST_H, 0);
      if (kind & FN(CENTERED)) g[l] += (double)FN_SUM_4(FN_REST_G, 0);
      gh[l] += (double)FN_SUM_4(FN_REST_GH, 0);
    }
    for (int k = 0; k < 4 * L; k += L)
      for (int l = 0; l < L; l++) {
        const T a = FN_MAGNITUDE(rest_dy[k + l]);
        most[l] = FN_MAX(a, most[l]);
      }
  }
  for (int l = 0; l < L; l++) {
    to_h[l] = h[l];
    to_g[l] = g[l];
    to_gh[l] = gh[l];
    to_most[l] = most[l];
  }
}

static void FN(backward_sums_of_rows)(const fn_job *job, const FN(batch) *batch, const T *weight, int64_t n,
                                      const T *mean, const T *rstd, fn_slope *slopes) {
  FN(lanes) lanes;
  double h[FN(TOGETHER)], g[FN(TOGETHER)], gh[FN(TOGETHER)];
  switch (FN(backward_kind)(job)) {
#define FN_CASE(kind)                                                                                                  \
  case kind:                                                                                                           \
    for (int r = 0; r < batch->rows; r++)                                                                              \
      FN(backward_sums_of_kind)(batch->x[r], batch->dy[r], weight, n, mean[r], rstd[r], lanes.h[r], lanes.g[r],        \
                                lanes.gh[r], lanes.most[r], kind);                                                     \
    break;
    FN_BACKWARD_KINDS(FN_CASE)
#undef FN_CASE
  }
  FN_FOLD_LANES(double, lanes.h, batch->rows, h, 1);
  FN_FOLD_LANES(double, lanes.g, batch->rows, g, 1);
  FN_FOLD_LANES(double, lanes.gh, batch->rows, gh, 1);
  for (int r = 0; r < batch->rows; r++) {
    T *most = lanes.most[r];
    for (int l = 0; l < 8; l++) most[l] = FN_MAX(most[l], most[l + 8]);
    for (int l = 0; l < 4; l++) most[l] = FN_MAX(most[l], most[l + 4]);
    const T low = FN_MAX(most[0], most[2]), high = FN_MAX(most[1], most[3]);
    int64_t count = batch->mask ? 0 : n;
    for (int64_t i = 0; batch->mask && i < n; i++) count += batch->mask[r * n + i];
    slopes[r] = (fn_slope){.count = (double)count, .shift = h[r], .mean_g = g[r], .dot = gh[r]};
    slopes[r].most = (double)FN_MAX(low, high);
  }
}

/* ---- the careful way --------------------------------------------------------------------------------------------- */

/* For what the compute type cannot hold. Works in double; powers of two bring the largest |x|, |dy| and |weight| near
 * one, so that no product in double overflows either. */

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

/* dx of `n` loaded elements of kept index k, and what they add to dweight and dbias. */
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
    const double xhat = FN(careful_h)(job, slope, x[i], mean, rstd) - slope->shift;
    const double g = (double)dy[i] * FN(power)(dy_power) * ((weight ? (double)weight[i] : 1) * FN(power)(weight_power));
    const double v = ((g - slope->mean_g) - xhat * slope->dot) * scale;
    dx[i] = (T)fn_quiet(FN(times_power)(v, x_power - dy_power - weight_power));
    if (weight) dweight[i] += (double)dy[i] * xhat;
    if (job->norm == FN_LAYER) dbias[i] += (double)dy[i];
  }
}

/* Sums become averages; says which way dx goes. `most` keeps products and sums of four in the compute type's range. */
static void FN(settle_slope)(const fn_job *job, int64_t k, T mean, T rstd, FN(room) *room, fn_slope *slope) {
  const double part = slope->count > 0 ? 1 / slope->count : 0, scale = fabs((double)rstd);
  const double sum_g = slope->mean_g, above = job->most > 1 ? job->most : 1;
  const double below = job->most > 0 && job->most < 1 ? job->most : 1;
  slope->shift *= part;
  slope->mean_g *= part;
  slope->dot = (slope->dot - slope->shift * sum_g) * part;
  slope->careful = 0;
  if (slope->count == 0) return;
  const int held = scale >= FN_LEAST_SCALE && scale <= FN_MOST_SCALE && fn_finite((double)mean) &&
                   fabs(slope->shift) <= FN_LARGE && fabs(slope->mean_g) <= FN_LARGE && fabs(slope->dot) <= FN_LARGE &&
                   slope->most * above <= FN_MOST_SCALE && (slope->most == 0 || slope->most * below >= FN_LEAST_SCALE);
  if (held) return;
  slope->careful = 1;
  FN(careful_slope)(job, k, mean, rstd, room, slope);
}

/* ---- dx, dweight, dbias ------------------------------------------------------------------------------------------ */

#define FN_XHAT(x, f) (kind & FN(CENTERED) ? FN_UNSHIFTED(x, (f).mean, (f).rstd) - (f).shift : (x) * (f).rstd)
#define FN_DX(g, h, f) ((f).rstd * ((kind & FN(CENTERED) ? (g) - (f).mean_g : (g)) - (h) * (f).dot))

/* Four rows, whose terms are added before they meet dweight and dbias. */
FN_INLINE void FN(apply_four)(T *const *dx, const T *const *x, const T *const *dy, const T *weight,
                              double *restrict dweight, double *restrict dbias, int64_t start, int64_t end,
                              const FN(factors) *f, int kind) {
  T *restrict dx0 = dx[0], *restrict dx1 = dx[1], *restrict dx2 = dx[2], *restrict dx3 = dx[3];
  const T *x0 = x[0], *x1 = x[1], *x2 = x[2], *x3 = x[3], *dy0 = dy[0], *dy1 = dy[1], *dy2 = dy[2], *dy3 = dy[3];
  const FN(factors) f0 = f[0], f1 = f[1], f2 = f[2], f3 = f[3];
  FN_IVDEP
  for (int64_t i = start; i < end; i++) {
    const T d0 = dy0[i], d1 = dy1[i], d2 = dy2[i], d3 = dy3[i];
    const T h0 = FN_XHAT(x0[i], f0), h1 = FN_XHAT(x1[i], f1), h2 = FN_XHAT(x2[i], f2), h3 = FN_XHAT(x3[i], f3);
    dx0[i] = FN_DX(FN_SCALED(d0, weight[i]), h0, f0);
    dx1[i] = FN_DX(FN_SCALED(d1, weight[i]), h1, f1);
    dx2[i] = FN_DX(FN_SCALED(d2, weight[i]), h2, f2);
    dx3[i] = FN_DX(FN_SCALED(d3, weight[i]), h3, f3);
    if (kind & FN(WEIGHTED)) dweight[i] += (double)((d0 * h0 + d1 * h1) + (d2 * h2 + d3 * h3));
    if (kind & FN(CENTERED)) dbias[i] += (double)((d0 + d1) + (d2 + d3));
  }
}

FN_INLINE void FN(apply_one)(T *restrict dx, const T *x, const T *dy, const T *weight, double *restrict dweight,
                             double *restrict dbias, int64_t n, const FN(factors) *factors, int kind) {
  const FN(factors) f = *factors;
  FN_IVDEP
  for (int64_t i = 0; i < n; i++) {
    const T d = dy[i], h = FN_XHAT(x[i], f);
    dx[i] = FN_DX(FN_SCALED(d, weight[i]), h, f);
    if (kind & FN(WEIGHTED)) dweight[i] += (double)(d * h);
    if (kind & FN(CENTERED)) dbias[i] += (double)d;
  }
}

/* Rows `order` of a batch, from element `at` on: n elements of dx each, one row after the other. */
FN_INLINE void FN(apply_batch_of_kind)(T *dx, const FN(batch) *batch, const int *order, int count, int64_t at,
                                       const T *weight, double *dweight, double *dbias, int64_t n,
                                       const FN(factors) *factors, int kind) {
  enum { PART = 8 * FN(LINE) };
  int i = 0;
  for (; i + 4 <= count; i += 4) {
    const T *x[4], *dy[4];
    T *to[4];
    FN(factors) f[4];
    for (int r = 0; r < 4; r++) {
      x[r] = batch->x[order[i + r]] + at;
      dy[r] = batch->dy[order[i + r]] + at;
      to[r] = dx + order[i + r] * n;
      f[r] = factors[order[i + r]];
    }
    for (int64_t j = 0, end; j < n; j = end) { /* memory is asked for the next batch meanwhile */
      end = n - j < PART ? n : j + PART;
      for (int64_t l = j; batch->ahead && l < end; l += FN(LINE))
        for (int r = 0; r < 4; r++) {
          __builtin_prefetch((const void *)((uintptr_t)(x[r] + l) + (uintptr_t)batch->ahead));
          __builtin_prefetch((const void *)((uintptr_t)(dy[r] + l) + (uintptr_t)batch->ahead));
        }
      FN(apply_four)(to, x, dy, weight, dweight, dbias, j, end, f, kind);
    }
  }
  for (; i < count; i++)
    FN(apply_one)(dx + order[i] * n, batch->x[order[i]] + at, batch->dy[order[i]] + at, weight, dweight, dbias, n,
                  factors + order[i], kind);
}

static void FN(apply_batch)(const fn_job *job, T *dx, const FN(batch) *batch, const int *order, int count, int64_t at,
                            const T *weight, double *dweight, double *dbias, int64_t n, const FN(factors) *factors) {
  switch (FN(backward_kind)(job)) {
#define FN_CASE(kind)                                                                                                  \
  case kind:                                                                                                           \
    FN(apply_batch_of_kind)(dx, batch, order, count, at, weight, dweight, dbias, n, factors, kind);                    \
    break;
    FN_BACKWARD_KINDS(FN_CASE)
#undef FN_CASE
  }
}

/* The saved statistics of the kept indices from k on. */
static void FN(bring_statistics)(const fn_job *job, int64_t k, int rows, T *mean, T *rstd) {
  int64_t place[FN(TOGETHER)];
  FN(kept_offsets)(job, FN_P, k, rows, place);
  for (int r = 0; r < rows; r++) mean[r] = job->mean ? ((const T *)job->mean)[place[r]] : 0;
  for (int r = 0; r < rows; r++) rstd[r] = ((const T *)job->spread)[place[r]];
}

/* Elements start <= i < start + count of some kept indices: their slopes unless these are known, dx, and what is added
 * to dweight and dbias. */
static void FN(backward_batch)(const fn_job *job, int64_t k, int rows, int64_t start, int64_t count, const T *weight,
                               double *dweight, double *dbias, FN(room) *room) {
  enum { MOST = FN(TOGETHER) };
  T mean[MOST] = {0}, rstd[MOST] = {0};
  fn_slope slopes[MOST];
  FN(batch) batch;
  FN(bring_statistics)(job, k, rows, mean, rstd);
  const int fits = rows * count <= FN_VISIT;
  if (fits) FN(bring)(job, k, rows, start, count, mean, room, &batch);
  if (job->slopes) {
    for (int r = 0; r < rows; r++) slopes[r] = job->slopes[k + r];
  } else {
    if (fits) FN(backward_sums_of_rows)(job, &batch, weight, count, mean, rstd, slopes);
    for (int r = 0; r < rows && !fits; r++) {
      FN(bring)(job, k + r, 1, start, count, mean + r, room, &batch);
      FN(backward_sums_of_rows)(job, &batch, weight, count, mean + r, rstd + r, slopes + r);
    }
    for (int r = 0; r < rows; r++) FN(settle_slope)(job, k + r, mean[r], rstd[r], room, slopes + r);
  }

  FN(factors) factors[MOST];
  int order[MOST], held = 0;
  for (int r = 0; r < rows; r++) {
    const T zero = slopes[r].count == 0 ? 0 : 1; /* statistics of nothing may be NaN */
    factors[r] = (FN(factors)){0};
    if (zero != 0)
      factors[r] = (FN(factors)){mean[r], rstd[r], (T)slopes[r].shift, (T)slopes[r].mean_g, (T)slopes[r].dot};
    if (!slopes[r].careful) order[held++] = r;
  }

  const int turned = job->columns && !FN(in_rows)(job, FN_Y);
  const int64_t segment = job->columns || count <= FN_TILE / 4 ? count : FN_STRIP;
  T *dx = job->columns ? room->out : room->dx;
  int64_t next = segment;
  if (segment < count && FN(in_rows)(job, FN_Y)) { /* whole cache lines of dx */
    int64_t offset[1];
    FN(kept_offsets)(job, FN_Y, k, 1, offset);
    const uintptr_t to = (uintptr_t)(job->array[FN_Y].data + offset[0]) + (uintptr_t)start * sizeof(T);
    next += (int64_t)((-to & 63) / sizeof(T)) - FN(LINE);
  }
  for (int64_t at = 0; at < count; at = next, next += segment) {
    const int64_t n = (next < count ? next : count) - at, from = fits ? at : 0;
    const T *w = weight ? weight + at : NULL;
    double *dw = dweight + at, *db = dbias + at;
    if (!fits) FN(bring)(job, k, rows, start + at, n, mean, room, &batch);
    FN(apply_batch)(job, dx, &batch, order, held, from, w, dw, db, n, factors);
    for (int r = 0; r < rows; r++) {
      const unsigned char *mask = batch.mask ? batch.mask + r * (fits ? count : n) + from : NULL;
      if (slopes[r].careful)
        FN(careful_run)(job, slopes + r, mean[r], rstd[r], dx + r * n, batch.x[r] + from, batch.dy[r] + from, w, mask,
                        dw, db, n);
      for (int64_t i = 0; mask && i < n; i++) dx[r * n + i] = mask[i] ? dx[r * n + i] : 0;
    }
    if (turned)
      FN(put_columns)(job, k, rows, start + at, n, dx, room->x);
    else
      FN(put_rows)(job, k, rows, start + at, n, dx);
  }
}

/* ---- kernels ----------------------------------------------------------------------------------------------------- */

static void FN(backward_weight)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  const T *weight = job->weight;
  T most = 0;
  int special = 0;
  FN_IVDEP
  for (int64_t i = lo; i < hi; i++) {
    const T v = weight[i], magnitude = FN_MAGNITUDE(v);
    special |= !(v - v == 0);
    most = FN_MAX(magnitude, most);
  }
  *(double *)scratch = special ? __builtin_inf() : (double)most;
}

static void FN(backward_sums)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  FN(room) *room = scratch;
  const int64_t kept = job->outer * job->inner.size, blocks = (kept + job->block - 1) / job->block;
  for (int64_t unit = lo; unit < hi; unit++) {
    const int64_t chunk = unit / blocks, start = chunk * job->chunk, first = unit % blocks * job->block;
    const int64_t count = job->n - start < job->chunk ? job->n - start : job->chunk;
    const int64_t end = kept - first < job->block ? kept : first + job->block;
    const T *weight = FN(bring_weight)(job, start, count, job->columns ? room->weight : room->out);
    for (int64_t k = first, rows; k < end; k += rows) {
      T mean[FN(TOGETHER)] = {0}, rstd[FN(TOGETHER)] = {0};
      FN(batch) batch;
      rows = FN(batch_rows)(job, k, end);
      if (rows * count > FN_VISIT) rows = 1;
      FN(bring_statistics)(job, k, (int)rows, mean, rstd);
      FN(bring)(job, k, (int)rows, start, count, mean, room, &batch);
      FN(backward_sums_of_rows)(job, &batch, weight, count, mean, rstd, job->slopes + chunk * kept + k);
    }
  }
}

static void FN(backward_settle)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  const int64_t kept = job->outer * job->inner.size, chunks = (job->n + job->chunk - 1) / job->chunk;
  for (int64_t k = lo; k < hi; k++) {
    fn_slope *slope = job->slopes + k;
    T mean = 0, rstd = 0;
    for (int64_t chunk = 1; chunk < chunks; chunk++) {
      const fn_slope *part = slope + chunk * kept;
      slope->count += part->count;
      slope->shift += part->shift;
      slope->mean_g += part->mean_g;
      slope->dot += part->dot;
      slope->most = FN_MAX(part->most, slope->most);
    }
    FN(bring_statistics)(job, k, 1, &mean, &rstd);
    FN(settle_slope)(job, k, mean, rstd, scratch, slope);
  }
}

static void FN(backward_blocks)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  FN(room) *room = scratch;
  const int64_t kept = job->outer * job->inner.size, chunks = (job->width + job->chunk - 1) / job->chunk;
  for (int64_t unit = lo; unit < hi; unit++) {
    const int64_t slot = unit / chunks, first = (job->first + slot) * job->block, within = unit % chunks * job->chunk;
    const int64_t start = job->index + within, end = kept - first < job->block ? kept : first + job->block;
    const int64_t count = job->n - start < job->chunk ? job->n - start : job->chunk;
    const T *weight = FN(bring_weight)(job, start, count, job->columns ? room->weight : room->out);
    double *dweight = job->slots + (1 + slot) * 2 * job->width + within, *dbias = dweight + job->width;
    for (int64_t i = 0; i < count; i++) dweight[i] = dbias[i] = 0;
    for (int64_t k = first, rows; k < end; k += rows) {
      rows = FN(batch_rows)(job, k, end);
      FN(backward_batch)(job, k, (int)rows, start, count, weight, dweight, dbias, room);
    }
  }
  fn_stream_end();
}

/* Slots of one wave of blocks join the totals, which stand before them, in the order of the blocks. */
static void FN(backward_fold)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  const int64_t stride = 2 * job->width;
  double *totals = job->slots;
  (void)scratch;
  for (int64_t i = lo; job->first == 0 && i < hi; i++) totals[i] = 0;
  for (int64_t slot = 1; slot <= job->wave; slot++)
    for (int64_t i = lo; i < hi; i++) totals[i] += totals[slot * stride + i];
}

/* Totals become dweight and dbias, rounded once. */
static void FN(backward_finish)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  (void)scratch;
  for (int64_t i = lo; i < hi; i++) {
    const int64_t place = fn_along(job, FN_P, job->index + i);
    if (job->dweight) fn_put(job->dweight, job->parameter_dtype, place, job->slots[i]);
    if (job->dbias) fn_put(job->dbias, job->parameter_dtype, place, job->slots[job->width + i]);
  }
}
