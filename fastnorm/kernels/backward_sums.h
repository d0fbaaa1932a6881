/* Backward passes: sums over rows, and the averages that they become. */

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
