/* The masked family: weights, a mask, NaN that does not count; also the sums of orders 3 and 4, masked or not.
 *
 * A chunk gets a dense tile of double weights: 1 or its weight, and 0 by selection where the mask or NaN says so, so
 * that what does not count cannot contaminate (NaN * 0 is NaN). Then guess, sum and verify as in moments.h, with
 *     W = sum(w)    s_k = sum(w d^k)    d = x - g where w is not 0, else 0
 * Rows are columns here: several rows of a dense chunk, or stretches of one row, are summed side by side. How a chunk
 * is cut into lanes depends on its size alone.
 */

/* ---- weights ----------------------------------------------------------------------------------------------------- */

/* w = 1 or the weight, then 0 where an element does not count. x is dense or wide. */
static void FN(fill_weights)(const fn_job *job, const T *x, int64_t stride, int64_t outer, int64_t j, int64_t start,
                             int64_t n, int64_t cols, double *w, uint8_t *where_tile) {
  const int weighted = job->array[FN_WEIGHTS].data != NULL;
  const uint8_t *where = fn_dense_where(job, outer, j, start, n, cols, where_tile);
  if (weighted) {
    const char *base = fn_base(job, FN_WEIGHTS, outer, j);
    int64_t from_stride = cols;
    const double *from = job->columns ? load_columns_f64(job, FN_WEIGHTS, base, start, n, cols, w, &from_stride)
                                      : load_f64(job, FN_WEIGHTS, base, start, n, w);
    for (int64_t i = 0; from != w && i < n; i++)
      memcpy(w + i * cols, from + i * from_stride, (size_t)cols * sizeof(double));
  }
  const int64_t rows = stride == cols ? 1 : n, width = stride == cols ? n * cols : cols;
  for (int64_t i = 0; i < rows; i++) {
    const T *values = x + i * stride;
    double *to = w + i * cols;
    if (where) {
      const uint8_t *counts = where + i * cols;
      if (weighted)
        for (int64_t c = 0; c < width; c++) to[c] = counts[c] ? to[c] : 0;
      else
        for (int64_t c = 0; c < width; c++) to[c] = counts[c] ? 1 : 0;
    }
    if (job->omit) {
      if (where || weighted)
        for (int64_t c = 0; c < width; c++) to[c] = values[c] == values[c] ? to[c] : 0;
      else
        for (int64_t c = 0; c < width; c++) to[c] = values[c] == values[c] ? 1 : 0;
    }
  }
}

/* ---- sums -------------------------------------------------------------------------------------------------------- */

enum { FN(SUMS) = 5 }; /* W, s1, s2, s3, s4 */

#define FN_MASKED_ROW(k, at)                                                                                           \
  const double w##k = weighted ? w[(at) * cols + j] : 1, v##k = (double)x[(at) * stride + j] - g[j];                   \
  const double d##k = w##k != 0 ? v##k : 0, a##k = weighted ? w##k * d##k : d##k, q##k = a##k * d##k;                  \
  const double c##k = q##k * d##k, f##k = c##k * d##k
#define FN_MASKED_SUM(term) ((term##0 + term##1) + (term##2 + term##3))

/* Four rows of columns from <= j < to, added among themselves first. */
FN_INLINE void FN(sums_of_four)(const T *x, int64_t stride, const double *w, int64_t cols, int64_t from, int64_t to,
                                const double *g, double *sums, const int weighted, const int order) {
  FN_IVDEP
  for (int64_t j = from; j < to; j++) {
    FN_MASKED_ROW(0, 0);
    FN_MASKED_ROW(1, 1);
    FN_MASKED_ROW(2, 2);
    FN_MASKED_ROW(3, 3);
    if (weighted) sums[j] += FN_MASKED_SUM(w);
    if (order > 0) sums[FN_STRIP + j] += FN_MASKED_SUM(a);
    if (order > 1) sums[2 * FN_STRIP + j] += FN_MASKED_SUM(q);
    if (order > 2) sums[3 * FN_STRIP + j] += FN_MASKED_SUM(c);
    if (order > 3) sums[4 * FN_STRIP + j] += FN_MASKED_SUM(f);
  }
}

/* sums += over the rows of a strip, about g. Order 0: W alone. */
FN_INLINE void FN(sums_of_rows)(const T *x, int64_t stride, const double *w, int64_t rows, int64_t cols,
                                const double *g, double *sums, const int weighted, const int order) {
  int64_t i = 0;
  for (; i + 8 <= rows; i += 8, x += 8 * stride, w += 8 * cols)
    for (int64_t from = 0; from < cols; from += FN_SEGMENT) {
      const int64_t to = from + FN_SEGMENT < cols ? from + FN_SEGMENT : cols;
      if (i + 16 <= rows) FN(fetch)(x + 8 * stride + from, stride, to - from);
      FN(sums_of_four)(x, stride, w, cols, from, to, g, sums, weighted, order);
      FN(sums_of_four)(x + 4 * stride, stride, w + 4 * cols, cols, from, to, g, sums, weighted, order);
    }
  for (; i < rows; i++, x += stride, w += cols) {
    FN_IVDEP
    for (int64_t j = 0; j < cols; j++) {
      FN_MASKED_ROW(0, 0);
      if (weighted) sums[j] += w0;
      if (order > 0) sums[FN_STRIP + j] += a0;
      if (order > 1) sums[2 * FN_STRIP + j] += q0;
      if (order > 2) sums[3 * FN_STRIP + j] += c0;
      if (order > 3) sums[4 * FN_STRIP + j] += f0;
    }
  }
}
#undef FN_MASKED_SUM
#undef FN_MASKED_ROW

#define FN_MASKED_KINDS(X) X(1, 0) X(1, 2) X(1, 3) X(1, 4) X(0, 3) X(0, 4)
#define FN_MASKED_KIND(weighted, order)                                                                                \
  static void FN(sums_of_rows_##weighted##order)(const T *x, int64_t stride, const double *w, int64_t rows,            \
                                                 int64_t cols, const double *g, double *sums) {                        \
    FN(sums_of_rows)(x, stride, w, rows, cols, g, sums, weighted, order);                                              \
  }
FN_MASKED_KINDS(FN_MASKED_KIND)
#undef FN_MASKED_KIND

static void FN(sums_of_kind)(const T *x, int64_t stride, const double *w, int64_t rows, int64_t cols, const double *g,
                             double *sums, int weighted, int order) {
#define FN_MASKED_KIND(with, upto)                                                                                     \
  if (weighted == with && order == upto) FN(sums_of_rows_##with##upto)(x, stride, w, rows, cols, g, sums);
  FN_MASKED_KINDS(FN_MASKED_KIND)
#undef FN_MASKED_KIND
}

/* W and the sums of powers over n rows, column by column. */
static void FN(sum_masked)(const T *x, int64_t stride, const double *w, int64_t n, int64_t cols, int64_t group,
                           double *g, double *sums, int weighted, int order) {
  const int64_t wide = group * cols, whole = n / group, done = whole * group;
  for (int64_t j = cols; j < wide; j++) g[j] = g[j - cols];
  for (int k = 0; k <= order; k++)
    for (int64_t j = 0; j < wide; j++) sums[k * FN_STRIP + j] = 0;
  FN(sums_of_kind)(x, group * stride, w, whole, wide, g, sums, weighted, order);
  if (done < n) FN(sums_of_kind)(x + done * stride, 0, w + done * cols, 1, (n - done) * cols, g, sums, weighted, order);
  for (int k = !weighted; k <= order; k++) fn_fold_groups(sums + k * FN_STRIP, group, cols);
  for (int64_t j = 0; !weighted && j < cols; j++) sums[j] = (double)n;
}

/* A guess of each mean: the weighted average of a few rows about the heaviest of them, so that the guess of a constant
 * is exact. Where none of these counts, any element that does; where none does at all, 0. */
static void FN(guess_masked)(const T *x, int64_t stride, const double *w, int64_t n, int64_t cols, double *g) {
  const int64_t sample = fn_sample_size(n, 16), step = n / sample;
  double first[FN_STRIP], heaviest[FN_STRIP], total[FN_STRIP], sum[FN_STRIP];
  for (int64_t j = 0; j < cols; j++) first[j] = heaviest[j] = total[j] = sum[j] = 0;
  for (int64_t i = 0; i < sample; i++) {
    FN_IVDEP
    for (int64_t j = 0; j < cols; j++) {
      const double weight = w ? w[step * i * cols + j] : i == 0, v = (double)x[step * i * stride + j];
      first[j] = weight > heaviest[j] ? v : first[j];
      heaviest[j] = weight > heaviest[j] ? weight : heaviest[j];
    }
  }
  for (int64_t i = 0; i < sample; i++) {
    FN_IVDEP
    for (int64_t j = 0; j < cols; j++) {
      const double weight = w ? w[step * i * cols + j] : 1, v = ((double)x[step * i * stride + j] - first[j]) * weight;
      total[j] += weight;
      sum[j] += weight != 0 ? v : 0;
    }
  }
  for (int64_t j = 0; j < cols; j++) {
    g[j] = total[j] == 0 ? 0 : first[j] + sum[j] / total[j];
    for (int64_t i = 0; total[j] == 0 && i < n; i++)
      if (w[i * cols + j] != 0) {
        g[j] = (double)x[i * stride + j];
        break;
      }
  }
}

/* ---- states ------------------------------------------------------------------------------------------------------ */

/* The third and fourth moments about the mean g + t, t = s1 / W, once the variance is known:
 *     m3 = s3/W - t (3 m2 + t^2)    m4 = s4/W - t (4 m3 + t (6 m2 + t^2))
 * NaN of data that are not finite. */
static void FN(conclude_higher)(int64_t cols, const double *restrict sums, double *restrict state, int64_t state_stride,
                                int order) {
  const double none = __builtin_nan("");
  FN_IVDEP
  for (int64_t j = 0; j < cols; j++) {
    const double total = sums[j] == 0 ? 1 : sums[j], t = sums[FN_STRIP + j] / total;
    const double m2 = state[FN_VAR * state_stride + j];
    const double m3 = sums[3 * FN_STRIP + j] / total - t * (3 * m2 + t * t);
    state[FN_M3 * state_stride + j] = fn_finite(state[FN_MEAN * state_stride + j]) ? m3 : none;
    state[FN_M3_LO * state_stride + j] = 0;
    if (order > 3) {
      const double m4 = sums[4 * FN_STRIP + j] / total - t * (4 * m3 + t * (6 * m2 + t * t));
      state[FN_M4 * state_stride + j] = fn_finite(state[FN_MEAN * state_stride + j]) ? m4 : none;
      state[FN_M4_LO * state_stride + j] = 0;
    }
  }
}

/* The extrema of what counts, as doubles; of nothing, whatever: such a state is empty. */
static void FN(extremes_masked)(const T *x, int64_t stride, const double *w, int64_t n, int64_t cols, uint8_t *counts,
                                double *min, double *max) {
  K lo[FN_STRIP], hi[FN_STRIP];
  for (int64_t i = 0; i < n * cols; i++) counts[i] = w[i] != 0;
  for (int64_t j = 0; j < cols; j++) {
    lo[j] = FN(none_yet)(1);
    hi[j] = FN(none_yet)(0);
  }
  FN(join_masked)(x, stride, counts, n, cols, lo, hi);
  for (int64_t j = 0; j < cols; j++) {
    const int unordered = FN(unordered)(lo[j], hi[j]);
    min[j] = unordered ? __builtin_nan("") : (double)FN(unkey)(lo[j]);
    max[j] = unordered ? __builtin_nan("") : (double)FN(unkey)(hi[j]);
  }
}

/* As FN(chunk), for a job that is masked, of a higher order or of extrema alone. */
static void FN(chunk_masked)(const fn_job *job, int64_t outer, int64_t j, int64_t start, int64_t n, int64_t cols,
                             void *scratch, double *state, int64_t state_stride) {
  T *tile = scratch;
  double *w = NULL;
  uint8_t *bytes = (uint8_t *)scratch + FN_SCRATCH_WHERE;
  const char *base = fn_base(job, job->source, outer, j);
  const int weighted = fn_is_masked(job), order = job->norm == FN_RANGE ? 0 : job->order;
  const int64_t group = fn_lane_rows(n, job->beside < job->strip ? job->beside : job->strip);
  double g[FN_STRIP], sums[FN(SUMS) * FN_STRIP];
  int64_t stride = 1;
  const T *x = job->columns ? FN(load_columns)(job, job->source, base, start, n, cols, tile, &stride)
                            : FN(load)(job, job->source, base, start, n, tile);
  if (group > 1 && (weighted || order > 0)) x = FN(close_up)(x, &stride, n, cols, tile);
  if (weighted) {
    w = (double *)(void *)((char *)scratch + FN_SCRATCH_WEIGHTS);
    FN(fill_weights)(job, x, stride, outer, j, start, n, cols, w, bytes);
  }
  double *min = state + FN_MIN * state_stride, *max = state + FN_MAX * state_stride;
  if (order == 0) {
    for (int64_t c = 0; c < cols; c++) g[c] = 0;
    if (weighted) FN(sum_masked)(x, stride, w, n, cols, group, g, sums, 1, 0);
    for (int plane = 0; plane < FN_M3; plane++)
      for (int64_t c = 0; c < cols; c++)
        state[plane * state_stride + c] = plane != FN_COUNT ? 0 : weighted ? sums[c] : (double)n;
  } else {
    const double *W = sums, *s = sums + FN_STRIP, *q = s + FN_STRIP;
    FN(guess_masked)(x, stride, w, n, cols, g);
    /* The second time about the mean. Once more for those far heavier than what was sampled. */
    for (int visit = 0, again = 1; again && visit < 3; visit++) {
      FN(sum_masked)(x, stride, w, n, cols, group, g, sums, weighted, order);
      again = 0;
      for (int64_t c = 0; visit < 2 && c < cols; c++)
        if (W[c] != 0 && fn_missed(W[c], s[c], q[c], 16)) {
          g[c] += s[c] / W[c];
          again = 1;
        }
    }
    FN(conclude)(x, stride, w, n, cols, W, g, s, q, state, state_stride);
    if (order > 2) FN(conclude_higher)(cols, sums, state, state_stride, order);
  }
  if (job->extrema && weighted) FN(extremes_masked)(x, stride, w, n, cols, bytes, min, max);
  if (job->extrema && !weighted) FN(extremes)(x, stride, n, cols, min, max);
}
