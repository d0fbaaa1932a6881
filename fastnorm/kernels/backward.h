/* Backward passes of norms whose parameters lie along the reduced axes.
 *
 * With g = dy * weight and xhat = (x - mean) * rstd - shift, where shift is what rounding left in the saved mean, each
 * kept index gets
 *
 *   dx = rstd * (g - average(g) - xhat * average(g * xhat))
 *
 * and each reduced one dweight = sum of dy * xhat and dbias = sum of dy over the kept indices. RMS norms have neither
 * mean, shift nor average(g). Products are taken in the compute type, up to 32 of them added there, and their sums in
 * double. Kept indices are worked on as rows, four at a time; what is not a row in memory becomes one in a tile. An
 * index that the compute type cannot hold is done in double (the careful way below).
 */

enum { FN(TOGETHER) = 16 };

/* Scratch of a thread. */
typedef struct {
  T x[FN_VISIT], dy[FN_VISIT];       /* what is not a row in memory */
  T out[FN_VISIT];                   /* columns: dx before it is written; rows: weights that do not follow each other */
  T dx[FN_TILE];                     /* rows: dx */
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

/* Of some kept indices: sums at first, then averages: of c = x - mean (rounding left it in the saved mean), of g, and
 * of g * xhat. `careful` is not 0 where dx is taken in double. */
typedef struct {
  double count[FN(TOGETHER)], shift[FN(TOGETHER)], mean_g[FN(TOGETHER)], dot[FN(TOGETHER)], careful[FN(TOGETHER)];
} FN(slopes);

/* What dx is made with, in the compute type. */
typedef struct {
  T mean[FN(TOGETHER)], rstd[FN(TOGETHER)], shift[FN(TOGETHER)], mean_g[FN(TOGETHER)], dot[FN(TOGETHER)];
} FN(factors);

/* Do the kept indices from k on lie along one axis? */
static int FN(side_by_side)(const fn_job *job, int64_t k, int rows) {
  return job->inner.size == 1 ? job->kept_ndim <= 1 : k % job->inner.size + rows <= job->inner.size;
}

/* Offsets in array `which` (FN_P: places) of the kept indices from k on. */
static void FN(kept_offsets)(const fn_job *job, int which, int64_t k, int rows, int64_t *to) {
  const int64_t width = job->inner.size, p = which == FN_P ? job->p : 0, across = job->inner.step[which];
  const int64_t step = width == 1 && job->kept_ndim == 1 ? job->kept[0].step[which] : across;
  const int one_axis = FN(side_by_side)(job, k, rows);
  const int64_t first = fn_offset(job->kept, job->kept_ndim, k / width, which) + k % width * across;
  for (int r = 0; r < rows && one_axis; r++) to[r] = p + first + r * step;
  for (int r = 0; r < rows && !one_axis; r++)
    to[r] = p + fn_offset(job->kept, job->kept_ndim, (k + r) / width, which) + (k + r) % width * across;
}

/* How many kept indices from k on are worked on together: as many as if nothing was written. */
static int FN(batch_rows)(const fn_job *job, int64_t k, int64_t end) {
  const int64_t fit = FN_TILE / job->n / 4 * 4, width = job->beside;
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
  if (job->columns && FN(side_by_side)(job, k, rows)) {
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
  if (!FN(side_by_side)(job, k, cols)) {
    for (int c = 0; c < cols; c++)
      FN(store)(job, FN_Y, job->array[FN_Y].data + offset[c], start, count, dx + c * count);
    return;
  }
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
#define FN_CENTRED(x, mean) (kind & FN(CENTERED) ? (x) - (mean) : (x))
#define FN_SCALED(dy, weight) (kind & FN(WEIGHTED) ? (dy) * (weight) : (dy))

static inline int FN(backward_kind)(const fn_job *job) {
  return (job->norm == FN_LAYER ? FN(CENTERED) : 0) | (job->weight ? FN(WEIGHTED) : 0);
}

/* Sums of c = x - mean, g and g * c over FN_LANES lanes, of which the upper half was added to the lower. */
typedef struct {
  double c[FN(TOGETHER)][FN_LANES / 2], g[FN(TOGETHER)][FN_LANES / 2], gc[FN(TOGETHER)][FN_LANES / 2];
} FN(lanes);

#define FN_C(k) FN_CENTRED(x[i + (k) * L + l], m)
#define FN_G(k) FN_SCALED(dy[i + (k) * L + l], weight[i + (k) * L + l])
#define FN_GC(k) (FN_G(k) * FN_C(k))
#define FN_REST_C(k) (rest_c[(k) * L + l])
#define FN_REST_G(k) (rest_g[(k) * L + l])
#define FN_REST_GC(k) (FN_REST_G(k) * FN_REST_C(k))

/* Eight products are added in the compute type, four such sums too, and what comes of these in double. Memory is asked
 * for what stands `ahead` bytes further, the row after the next: rows of a page each are too short to be foreseen. */
FN_INLINE void FN(backward_sums_of_kind)(const T *x, const T *dy, const T *weight, int64_t n, T m,
                                         double *restrict to_c, double *restrict to_g, double *restrict to_gc,
                                         uintptr_t ahead, int kind) {
  enum { L = FN_LANES, FEW = 32 * FN_LANES };
  double total_c[L] = {0}, total_g[L] = {0}, total_gc[L] = {0};
  int64_t i = 0;
  for (int64_t end; i < n;) {
    T c[L] = {0}, g[L] = {0}, gc[L] = {0};
    end = n - i < FEW ? n : i + FEW;
    for (; i + 8 * L <= end; i += 8 * L) {
      for (int k = 0; k < 8 * L; k += FN(LINE)) {
        __builtin_prefetch((const void *)((uintptr_t)(x + i + k) + ahead));
        __builtin_prefetch((const void *)((uintptr_t)(dy + i + k) + ahead));
      }
      for (int l = 0; l < L; l++) {
        if (kind & FN(CENTERED)) c[l] += FN_SUM_4(FN_C, 0) + FN_SUM_4(FN_C, 4);
        if (kind & FN(CENTERED)) g[l] += FN_SUM_4(FN_G, 0) + FN_SUM_4(FN_G, 4);
        gc[l] += FN_SUM_4(FN_GC, 0) + FN_SUM_4(FN_GC, 4);
      }
    }
    for (; i + 4 * L <= end; i += 4 * L)
      for (int l = 0; l < L; l++) {
        if (kind & FN(CENTERED)) c[l] += FN_SUM_4(FN_C, 0);
        if (kind & FN(CENTERED)) g[l] += FN_SUM_4(FN_G, 0);
        gc[l] += FN_SUM_4(FN_GC, 0);
      }
    if (i < end) {
      T rest_c[4 * L] = {0}, rest_g[4 * L] = {0};
      FN_IVDEP
      for (int64_t l = 0; l < end - i; l++) {
        rest_c[l] = FN_C(0);
        rest_g[l] = FN_G(0);
      }
      for (int l = 0; l < L; l++) {
        if (kind & FN(CENTERED)) c[l] += FN_SUM_4(FN_REST_C, 0);
        if (kind & FN(CENTERED)) g[l] += FN_SUM_4(FN_REST_G, 0);
        gc[l] += FN_SUM_4(FN_REST_GC, 0);
      }
      i = end;
    }
    for (int l = 0; l < L; l++) {
      if (kind & FN(CENTERED)) total_c[l] += (double)c[l];
      if (kind & FN(CENTERED)) total_g[l] += (double)g[l];
      total_gc[l] += (double)gc[l];
    }
  }
  for (int l = 0; l < L / 2; l++) {
    to_c[l] = total_c[l] + total_c[l + L / 2];
    to_g[l] = total_g[l] + total_g[l + L / 2];
    to_gc[l] = total_gc[l] + total_gc[l + L / 2];
  }
}

/* totals[r] = the sum of row r of half as many lanes. */
static void FN(fold_halves)(double (*lanes)[FN_LANES / 2], int rows, double *totals) {
  double quarters[FN(TOGETHER)][4];
  for (int r = 0; r < rows; r++)
    for (int l = 0; l < 4; l++) quarters[r][l] = lanes[r][l] + lanes[r][l + 4];
  for (int r = 0; r < rows; r++) totals[r] = (quarters[r][0] + quarters[r][2]) + (quarters[r][1] + quarters[r][3]);
}

static void FN(backward_sums_of_rows)(const fn_job *job, const FN(batch) *batch, const T *weight, int64_t n,
                                      const T *mean, FN(slopes) *to, int first) {
  FN(lanes) lanes;
  switch (FN(backward_kind)(job)) {
#define FN_CASE(kind)                                                                                                  \
  case kind:                                                                                                           \
    for (int r = 0; r < batch->rows; r++)                                                                              \
      FN(backward_sums_of_kind)(batch->x[r], batch->dy[r], weight, n, mean[r], lanes.c[r], lanes.g[r], lanes.gc[r],    \
                                (uintptr_t)n * 2 * sizeof(T), kind);                                                   \
    break;
    FN_BACKWARD_KINDS(FN_CASE)
#undef FN_CASE
  }
  FN(fold_halves)(lanes.c, batch->rows, to->shift + first);
  FN(fold_halves)(lanes.g, batch->rows, to->mean_g + first);
  FN(fold_halves)(lanes.gc, batch->rows, to->dot + first);
  for (int r = 0; r < batch->rows; r++) to->count[first + r] = (double)n;
  for (int r = 0; batch->mask && r < batch->rows; r++) {
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++) count += batch->mask[r * n + i];
    to->count[first + r] = (double)count;
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

/* ---- averages ---------------------------------------------------------------------------------------------------- */

/* Sums become averages. `careful` marks what the compute type cannot hold: its products or sums overflowed, or may have
 * lost digits to underflow. */
static void FN(settle_slopes)(const fn_job *job, const T *mean, const T *rstd, FN(slopes) *slopes, int rows) {
  const double usual = job->weight && !(job->most >= FN_LEAST_SCALE && job->most <= FN_MOST_SCALE) ? 0 : 1;
  const double unusual = job->most == 0 ? 0 : 1 - usual;
  FN_IVDEP
  for (int r = 0; r < rows; r++) {
    const double count = slopes->count[r], part = 1 / (count > 0 ? count : 1), scale = (double)rstd[r];
    const double shift = slopes->shift[r] * part, mean_g = slopes->mean_g[r] * part;
    const double dot = (slopes->dot[r] * part - shift * mean_g) * scale;
    const double size = fabs(mean_g) + fabs(dot);
    double careful = scale >= FN_LEAST_SCALE ? unusual : 1;
    careful = scale <= FN_MOST_SCALE ? careful : 1;
    careful = fabs((double)mean[r]) <= FN_LARGE ? careful : 1;
    careful = fabs(shift) <= FN_LARGE ? careful : 1;
    careful = size <= FN_MOST_SCALE ? careful : 1;
    careful = size > 0 && size < FN_LEAST_SCALE ? 1 : careful;
    slopes->careful[r] = count > 0 ? careful : 0;
    slopes->shift[r] = count > 0 ? shift : 0; /* of nothing: the saved mean may be NaN */
    slopes->mean_g[r] = count > 0 ? mean_g : 0;
    slopes->dot[r] = count > 0 ? dot : 0;
  }
}

/* ---- dx, dweight, dbias ------------------------------------------------------------------------------------------ */

#define FN_XHAT(x, r) (kind & FN(CENTERED) ? (FN_CENTRED(x, mean##r) - shift##r) * rstd##r : (x) * rstd##r)
#define FN_DX(g, h, r) (rstd##r * ((kind & FN(CENTERED) ? (g) - mean_g##r : (g)) - (h) * dot##r))
#define FN_FACTORS(r, f, at)                                                                                           \
  const T mean##r = (f)->mean[at], rstd##r = (f)->rstd[at], shift##r = (f)->shift[at], mean_g##r = (f)->mean_g[at],    \
          dot##r = (f)->dot[at]

/* Four rows, whose terms are added before they meet dweight and dbias. */
FN_INLINE void FN(apply_four)(T *const *dx, const T *const *x, const T *const *dy, const T *weight,
                              double *restrict dweight, double *restrict dbias, int64_t start, int64_t end,
                              const FN(factors) *f, const int *at, int kind) {
  T *dx0 = dx[0], *dx1 = dx[1], *dx2 = dx[2], *dx3 = dx[3];
  const T *x0 = x[0], *x1 = x[1], *x2 = x[2], *x3 = x[3], *dy0 = dy[0], *dy1 = dy[1], *dy2 = dy[2], *dy3 = dy[3];
  FN_FACTORS(0, f, at[0]);
  FN_FACTORS(1, f, at[1]);
  FN_FACTORS(2, f, at[2]);
  FN_FACTORS(3, f, at[3]);
  FN_IVDEP
  for (int64_t i = start; i < end; i++) {
    const T d0 = dy0[i], d1 = dy1[i], d2 = dy2[i], d3 = dy3[i];
    const T h0 = FN_XHAT(x0[i], 0), h1 = FN_XHAT(x1[i], 1), h2 = FN_XHAT(x2[i], 2), h3 = FN_XHAT(x3[i], 3);
    dx0[i] = FN_DX(FN_SCALED(d0, weight[i]), h0, 0);
    dx1[i] = FN_DX(FN_SCALED(d1, weight[i]), h1, 1);
    dx2[i] = FN_DX(FN_SCALED(d2, weight[i]), h2, 2);
    dx3[i] = FN_DX(FN_SCALED(d3, weight[i]), h3, 3);
    if (kind & FN(WEIGHTED)) dweight[i] += (double)((d0 * h0 + d1 * h1) + (d2 * h2 + d3 * h3));
    if (kind & FN(CENTERED)) dbias[i] += (double)((d0 + d1) + (d2 + d3));
  }
}

FN_INLINE void FN(apply_one)(T *dx, const T *x, const T *dy, const T *weight, double *restrict dweight,
                             double *restrict dbias, int64_t n, const FN(factors) *f, int at, int kind) {
  FN_FACTORS(0, f, at);
  FN_IVDEP
  for (int64_t i = 0; i < n; i++) {
    const T d = dy[i], h = FN_XHAT(x[i], 0);
    dx[i] = FN_DX(FN_SCALED(d, weight[i]), h, 0);
    if (kind & FN(WEIGHTED)) dweight[i] += (double)(d * h);
    if (kind & FN(CENTERED)) dbias[i] += (double)d;
  }
}

/* Rows `order` of a batch, from element `at` on: n elements of dx each. */
FN_INLINE void FN(apply_batch_of_kind)(T *const *dx, const FN(batch) *batch, const int *order, int count, int64_t at,
                                       const T *weight, double *dweight, double *dbias, int64_t n,
                                       const FN(factors) *factors, int kind) {
  enum { PART = 8 * FN(LINE) };
  int i = 0;
  for (; i + 4 <= count; i += 4) {
    const T *x[4], *dy[4];
    T *to[4];
    for (int r = 0; r < 4; r++) {
      x[r] = batch->x[order[i + r]] + at;
      dy[r] = batch->dy[order[i + r]] + at;
      to[r] = dx[order[i + r]];
    }
    for (int64_t j = 0, end; j < n; j = end) { /* memory is asked for the next batch meanwhile */
      end = n - j < PART ? n : j + PART;
      for (int64_t l = j; batch->ahead && l < end; l += FN(LINE))
        for (int r = 0; r < 4; r++) {
          __builtin_prefetch((const void *)((uintptr_t)(x[r] + l) + (uintptr_t)batch->ahead));
          __builtin_prefetch((const void *)((uintptr_t)(dy[r] + l) + (uintptr_t)batch->ahead));
        }
      FN(apply_four)(to, x, dy, weight, dweight, dbias, j, end, factors, order + i, kind);
    }
  }
  for (; i < count; i++)
    FN(apply_one)(dx[order[i]], batch->x[order[i]] + at, batch->dy[order[i]] + at, weight, dweight, dbias, n, factors,
                  order[i], kind);
}

static void FN(apply_batch)(const fn_job *job, T *const *dx, const FN(batch) *batch, const int *order, int count,
                            int64_t at, const T *weight, double *dweight, double *dbias, int64_t n,
                            const FN(factors) *factors) {
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

/* The averages of some kept indices, known already or from the whole rows that `batch` holds or are brought now. */
static void FN(slopes_of)(const fn_job *job, int64_t k, int rows, int64_t count, const T *weight, const T *mean,
                          const T *rstd, FN(room) *room, FN(batch) *batch, int fits, FN(slopes) *to, fn_slope *slow) {
  for (int r = 0; job->slopes && r < rows; r++) {
    slow[r] = job->slopes[k + r];
    to->count[r] = slow[r].count;
    to->shift[r] = slow[r].shift;
    to->mean_g[r] = slow[r].mean_g;
    to->dot[r] = slow[r].dot;
    to->careful[r] = slow[r].careful;
  }
  if (job->slopes) return;
  if (fits) FN(backward_sums_of_rows)(job, batch, weight, count, mean, to, 0);
  for (int r = 0; r < rows && !fits; r++) {
    FN(bring)(job, k + r, 1, 0, count, mean + r, room, batch);
    FN(backward_sums_of_rows)(job, batch, weight, count, mean + r, to, r);
  }
  FN(settle_slopes)(job, mean, rstd, to, rows);
  for (int r = 0; r < rows; r++)
    if (to->careful[r] != 0) FN(careful_slope)(job, k + r, mean[r], rstd[r], room, slow + r);
}

/* Elements start <= i < start + count of some kept indices: their slopes unless these are known, dx, and what is added
 * to dweight and dbias. */
static void FN(backward_batch)(const fn_job *job, int64_t k, int rows, int64_t start, int64_t count, const T *weight,
                               double *dweight, double *dbias, FN(room) *room) {
  enum { MOST = FN(TOGETHER) };
  T mean[MOST] = {0}, rstd[MOST] = {0}, *dx[MOST];
  FN(slopes) slopes;
  fn_slope slow[MOST];
  FN(batch) batch;
  FN(factors) factors;
  int order[MOST], held = 0;
  FN(bring_statistics)(job, k, rows, mean, rstd);
  const int fits = rows * count <= FN_VISIT;
  if (fits) FN(bring)(job, k, rows, start, count, mean, room, &batch);
  FN(slopes_of)(job, k, rows, count, weight, mean, rstd, room, &batch, fits, &slopes, slow);
  for (int r = 0; r < rows; r++) factors.shift[r] = (T)slopes.shift[r];
  for (int r = 0; r < rows; r++) factors.mean_g[r] = (T)slopes.mean_g[r];
  for (int r = 0; r < rows; r++) factors.dot[r] = (T)slopes.dot[r];
  for (int r = 0; r < rows; r++) factors.mean[r] = slopes.count[r] == 0 ? 0 : mean[r];
  for (int r = 0; r < rows; r++) factors.rstd[r] = slopes.count[r] == 0 ? 0 : rstd[r];
  for (int r = 0; r < rows; r++) {
    order[held] = r;
    held += slopes.careful[r] == 0;
  }

  int64_t offset[MOST];
  const int in_rows = FN(in_rows)(job, FN_Y), turned = job->columns && !in_rows, direct = in_rows && !job->stream;
  const int64_t segment = job->columns || count <= FN_TILE / 4 ? count : FN_STRIP;
  T *tile = job->columns ? room->out : room->dx;
  int64_t next = segment;
  if (in_rows) FN(kept_offsets)(job, FN_Y, k, rows, offset);
  if (segment < count && in_rows) { /* whole cache lines of dx */
    const uintptr_t to = (uintptr_t)(job->array[FN_Y].data + offset[0]) + (uintptr_t)start * sizeof(T);
    next += (int64_t)((-to & 63) / sizeof(T)) - FN(LINE);
  }
  for (int64_t at = 0; at < count; at = next, next += segment) {
    const int64_t n = (next < count ? next : count) - at, from = fits ? at : 0;
    const T *w = weight ? weight + at : NULL;
    double *dw = dweight + at, *db = dbias + at;
    for (int r = 0; r < rows; r++)
      dx[r] = direct ? (T *)(void *)(job->array[FN_Y].data + offset[r]) + start + at : tile + r * n;
    if (!fits) FN(bring)(job, k, rows, start + at, n, mean, room, &batch);
    FN(apply_batch)(job, dx, &batch, order, held, from, w, dw, db, n, &factors);
    for (int r = 0; r < rows && (held < rows || batch.mask); r++) {
      const unsigned char *mask = batch.mask ? batch.mask + r * (fits ? count : n) + from : NULL;
      if (slopes.careful[r] != 0)
        FN(careful_run)(job, slow + r, mean[r], rstd[r], dx[r], batch.x[r] + from, batch.dy[r] + from, w, mask, dw, db,
                        n);
      for (int64_t i = 0; mask && i < n; i++) dx[r][i] = mask[i] ? dx[r][i] : 0;
    }
    if (turned)
      FN(put_columns)(job, k, rows, start + at, n, tile, room->x);
    else if (!direct)
      FN(put_rows)(job, k, rows, start + at, n, tile);
  }
}

/* ---- kernels ----------------------------------------------------------------------------------------------------- */

static void FN(backward_weight)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  const T *weight = job->weight;
  T most = 0;
  int special = 0;
  FN_IVDEP
  for (int64_t i = lo; i < hi; i++) {
    const T v = weight[i], magnitude = v < 0 ? -v : v;
    special |= !(v - v == 0);
    most = magnitude > most ? magnitude : most;
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
      FN(slopes) sums;
      FN(batch) batch;
      rows = FN(batch_rows)(job, k, end);
      if (rows * count > FN_VISIT) rows = 1;
      FN(bring_statistics)(job, k, (int)rows, mean, rstd);
      FN(bring)(job, k, (int)rows, start, count, mean, room, &batch);
      FN(backward_sums_of_rows)(job, &batch, weight, count, mean, &sums, 0);
      for (int r = 0; r < rows; r++)
        job->slopes[chunk * kept + k + r] =
            (fn_slope){.count = sums.count[r], .shift = sums.shift[r], .mean_g = sums.mean_g[r], .dot = sums.dot[r]};
    }
  }
}

static void FN(backward_settle)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  const int64_t kept = job->outer * job->inner.size, chunks = (job->n + job->chunk - 1) / job->chunk;
  for (int64_t k = lo; k < hi; k++) {
    fn_slope *slope = job->slopes + k;
    T mean = 0, rstd = 0;
    FN(slopes) sums = {{0}, {0}, {0}, {0}, {0}};
    for (int64_t chunk = 0; chunk < chunks; chunk++) {
      const fn_slope *part = slope + chunk * kept;
      sums.count[0] += part->count;
      sums.shift[0] += part->shift;
      sums.mean_g[0] += part->mean_g;
      sums.dot[0] += part->dot;
    }
    FN(bring_statistics)(job, k, 1, &mean, &rstd);
    FN(settle_slopes)(job, &mean, &rstd, &sums, 1);
    *slope = (fn_slope){sums.count[0], sums.shift[0], sums.mean_g[0], sums.dot[0], sums.careful[0] != 0, 0, 0};
    if (slope->careful) FN(careful_slope)(job, k, mean, rstd, scratch, slope);
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
