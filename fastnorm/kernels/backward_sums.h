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

FN_INLINE FN(vector) FN(centred)(FN(vector) x, T mean, int kind) {
  if (kind & FN(CENTERED)) x -= mean;
  return x;
}
FN_INLINE FN(vector) FN(scaled)(FN(vector) dy, FN(vector) weight) { return dy * weight; }

/* The upper half of the lanes joins the lower. */
FN_INLINE void FN(add_halves)(double *restrict to, const FN(vector) *lanes, int wanted) {
  T each[FN_LANES];
  memcpy(each, lanes, sizeof each);
  for (int l = 0; wanted && l < FN_LANES / 2; l++) to[l] += (double)each[l] + (double)each[l + FN_LANES / 2];
}

/* Line k of a row: the elements of FN_LANES lanes, a vector at a time. */
#define FN_OF(row, k) FN(load_all)((row) + i + (k) * L + v * W)
#define FN_C(k) FN(centred)(FN_OF(x, k), m, kind)
#define FN_G(k) (kind & FN(WEIGHTED) ? FN(scaled)(FN_OF(dy, k), FN_OF(weight, k)) : FN_OF(dy, k))
#define FN_GC(k) (FN_G(k) * FN_C(k))
#define FN_REST_C(k) (rest_c[k])
#define FN_REST_G(k) (rest_g[k])
#define FN_REST_GC(k) (rest_g[k] * rest_c[k])

/* Eight products are added in the compute type, four such sums too, and what comes of these in double. Memory is asked
 * for what stands `ahead` bytes further, the row after the next: rows of a page each are too short to be foreseen. */
FN_INLINE void FN(backward_sums_of_kind)(const T *x, const T *dy, const T *weight, int64_t n, T m,
                                         double *restrict to_c, double *restrict to_g, double *restrict to_gc,
                                         uintptr_t ahead, int kind) {
  enum { L = FN_LANES, W = FN(WIDTH), V = L / W, FEW = 32 * FN_LANES };
  for (int l = 0; l < L / 2; l++) to_c[l] = to_g[l] = to_gc[l] = 0;
  int64_t i = 0;
  for (int64_t end; i < n;) {
    FN(vector) c[V] = {{0}}, g[V] = {{0}}, gc[V] = {{0}};
    end = n - i < FEW ? n : i + FEW;
    for (; i + 8 * L <= end; i += 8 * L) {
      for (int k = 0; k < 8 * L; k += FN(LINE)) {
        __builtin_prefetch((const void *)((uintptr_t)(x + i + k) + ahead));
        __builtin_prefetch((const void *)((uintptr_t)(dy + i + k) + ahead));
      }
      for (int v = 0; v < V; v++) {
        if (kind & FN(CENTERED)) c[v] += FN_SUM_4(FN_C, 0) + FN_SUM_4(FN_C, 4);
        if (kind & FN(CENTERED)) g[v] += FN_SUM_4(FN_G, 0) + FN_SUM_4(FN_G, 4);
        gc[v] += FN_SUM_4(FN_GC, 0) + FN_SUM_4(FN_GC, 4);
      }
    }
    for (; i + 4 * L <= end; i += 4 * L)
      for (int v = 0; v < V; v++) {
        if (kind & FN(CENTERED)) c[v] += FN_SUM_4(FN_C, 0);
        if (kind & FN(CENTERED)) g[v] += FN_SUM_4(FN_G, 0);
        gc[v] += FN_SUM_4(FN_GC, 0);
      }
    for (int v = 0; i < end && v < V; v++) {
      FN(vector) rest_c[4], rest_g[4];
      for (int k = 0; k < 4; k++) {
        const int64_t at = i + k * L + v * W, left = end - at;
        rest_c[k] = rest_g[k] = (FN(vector)){0};
        if (left >= W) {
          rest_c[k] = FN_C(k);
          rest_g[k] = FN_G(k);
        } else if (left > 0) {
          rest_c[k] = FN(centred)(FN(load_some)(x + at, left, kind & FN(CENTERED) ? m : 0), m, kind);
          rest_g[k] = FN(load_some)(dy + at, left, 0);
          if (kind & FN(WEIGHTED)) rest_g[k] *= FN(load_some)(weight + at, left, 0);
        }
      }
      if (kind & FN(CENTERED)) c[v] += FN_SUM_4(FN_REST_C, 0);
      if (kind & FN(CENTERED)) g[v] += FN_SUM_4(FN_REST_G, 0);
      gc[v] += FN_SUM_4(FN_REST_GC, 0);
    }
    i = end - i < 4 * L ? end : i;
    FN(add_halves)(to_c, c, kind & FN(CENTERED));
    FN(add_halves)(to_g, g, kind & FN(CENTERED));
    FN(add_halves)(to_gc, gc, 1);
  }
}

/* totals[r] = the sum of row r of half as many lanes: four rows at a time where the compiler can shuffle vectors. */
static void FN(fold_halves)(double (*lanes)[FN_LANES / 2], int rows, double *totals) {
  double quarters[FN(TOGETHER)][4];
  int done = 0;
#if FN_HAS_SHUFFLE
  typedef double quad __attribute__((vector_size(4 * sizeof(double)), aligned(sizeof(double)), may_alias));
#define FN_QUAD(r) (*(const quad *)(const void *)lanes[r] + *(const quad *)(const void *)(lanes[r] + 4))
#define FN_PAIR(a, b) (__builtin_shufflevector(a, b, 0, 4, 1, 5) + __builtin_shufflevector(a, b, 2, 6, 3, 7))
  for (; done + 4 <= rows; done += 4) {
    const quad a = FN_QUAD(done), b = FN_QUAD(done + 1), c = FN_QUAD(done + 2), d = FN_QUAD(done + 3);
    const quad ab = FN_PAIR(a, b), cd = FN_PAIR(c, d);
    *(quad *)(void *)(totals + done) =
        __builtin_shufflevector(ab, cd, 0, 1, 4, 5) + __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
  }
#undef FN_PAIR
#undef FN_QUAD
#endif
  for (int r = done; r < rows; r++)
    for (int l = 0; l < 4; l++) quarters[r][l] = lanes[r][l] + lanes[r][l + 4];
  for (int r = done; r < rows; r++) totals[r] = (quarters[r][0] + quarters[r][2]) + (quarters[r][1] + quarters[r][3]);
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
    for (int64_t i = 0; i < n; i++) count += batch->mask[r * n + i] != 0;
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
