/* Moments of rows and columns: guess, sum, verify.
 *
 * A chunk is summed in double about a guess of its mean, the average of a few of its elements (a power of two of them,
 * so that the guess of a constant is exact). From s = sum(x - g) and q = sum((x - g)^2) follow
 *     mean = g + s/n        n var = q - s^2/n
 * and also how good the guess was: a miss costs digits, so where it is more than a part of the standard deviation the
 * column is summed again about the mean just found. Random data hardly ever is. Memory is read once: a chunk fits in
 * the L2 cache. Lanes are fixed, so the order of additions is the source's, whatever the vector width.
 */
#define FN_SUM_4(d, k) ((d(k) + d((k) + 1)) + (d((k) + 2) + d((k) + 3)))
#define FN_SQUARES_4(d, k)                                                                                             \
  ((d(k) * d(k) + d((k) + 1) * d((k) + 1)) + (d((k) + 2) * d((k) + 2) + d((k) + 3) * d((k) + 3)))

/* Less than four lanes of x - g, and zeros behind them. */
FN_INLINE void FN(end_of_run)(const T *x, int64_t count, double g, double *rest) {
  enum { W = FN(WIDTH), ALL = 4 * FN_LANES };
  T some[ALL] = {0};
  for (int k = 0; k < ALL && k < count; k += W)
    FN(store_all)(some + k, count - k >= W ? FN(load_all)(x + k) : FN(load_some)(x + k, count - k, 0));
  for (int k = 0; k < ALL; k++) rest[k] = k < (int)count ? (double)some[k] - g : 0;
}

/* Sums over n contiguous elements. Four are added before they meet a lane, and lanes are flushed every FN_FLUSH
 * elements: few additions to one number make small rounding errors. */
static void FN(sum_row)(const T *x, int64_t n, double g, double *sum, double *squares) {
  enum { L = FN_LANES };
  double total_s[L] = {0}, total_q[L] = {0};
  for (int64_t from = 0; from < n; from += FN_FLUSH) {
    const T *row = x + from;
    const int64_t count = n - from < FN_FLUSH ? n - from : FN_FLUSH;
    double s[L] = {0}, q[L] = {0};
    int64_t i = 0;
#define FN_D(k) ((double)row[i + (k) * L + l] - g)
    for (; i + 4 * L <= count; i += 4 * L) {
      fn_ask(row + i, 4 * L * sizeof(T));
      for (int l = 0; l < L; l++) {
        s[l] += FN_SUM_4(FN_D, 0);
        q[l] += FN_SQUARES_4(FN_D, 0);
      }
    }
#undef FN_D
    if (i < count) {
      double rest[4 * L];
      FN(end_of_run)(row + i, count - i, g, rest);
#define FN_D(k) rest[(k) * L + l]
      for (int l = 0; l < L; l++) {
        s[l] += FN_SUM_4(FN_D, 0);
        q[l] += FN_SQUARES_4(FN_D, 0);
      }
#undef FN_D
    }
    for (int l = 0; l < L; l++) total_s[l] += s[l];
    for (int l = 0; l < L; l++) total_q[l] += q[l];
  }
  *sum = fn_fold(total_s);
  *squares = fn_fold(total_q);
}

/* s[j] += x - g[j], q[j] += (x - g[j])^2 over the rows of a strip; eight rows a visit, added among themselves first. */
static void FN(sum_columns)(const T *x, int64_t stride, int64_t rows, int64_t cols, const double *restrict g,
                            double *restrict s, double *restrict q) {
  int64_t i = 0;
  for (; i + 8 <= rows; i += 8, x += 8 * stride)
    for (int64_t from = 0; from < cols; from += FN_SEGMENT) {
      const int64_t to = from + FN_SEGMENT < cols ? from + FN_SEGMENT : cols;
      if (i + 16 <= rows) FN(fetch)(x + 8 * stride + from, stride, to - from);
#define FN_D(k) ((double)x[(k) * stride + j] - g[j])
      for (int64_t j = from; j < to; j++) {
        s[j] += FN_SUM_4(FN_D, 0) + FN_SUM_4(FN_D, 4);
        q[j] += FN_SQUARES_4(FN_D, 0) + FN_SQUARES_4(FN_D, 4);
      }
#undef FN_D
    }
  for (; i < rows; i++, x += stride)
    for (int64_t j = 0; j < cols; j++) {
      double d = (double)x[j] - g[j];
      s[j] += d;
      q[j] += d * d;
    }
}

/* Mean and variance where sums said nothing: NaN or infinity among the data, or values whose squares overflow. Works on
 * x * scale (a power of two) and answers for that. Element i counts w[i * cols] (w NULL: 1). */
static void FN(careful_weighted)(const T *x, int64_t stride, const double *w, int64_t cols, int64_t n, double scale,
                                 double *mean, double *mean_lo, double *var) {
  double hi = 0, lo = 0, s = 0, s_lo = 0, q = 0, q_lo = 0, special = 0, total = 0, heaviest = 1;
  for (int64_t i = 0; w && i < n; i++) heaviest = i == 0 || w[i * cols] > heaviest ? w[i * cols] : heaviest;
  const double unit = 1 / fn_power_of_two(heaviest);
  for (int64_t i = 0; i < n; i++) {
    const double v = (double)x[i * stride], weight = w ? w[i * cols] * unit : 1;
    if (weight == 0) continue;
    total += weight;
    if (fn_finite(v))
      fn_add(&hi, &lo, v * scale * weight);
    else
      special += v; /* an infinity, or NaN: of both signs, too */
  }
  *mean_lo = 0;
  if (!fn_finite(special) || total == 0) {
    *mean = total == 0 ? __builtin_nan("") : special;
    *var = __builtin_nan("");
    return;
  }
  double center = hi / total;
  for (int64_t i = 0; i < n; i++) {
    const double weight = w ? w[i * cols] * unit : 1;
    if (weight == 0) continue;
    double d = (double)x[i * stride] * scale - center;
    fn_add(&s, &s_lo, d * weight);
    fn_add(&q, &q_lo, d * d * weight);
  }
  double correction = s / total, left = q - s * correction;
  *mean = center;
  fn_add(mean, mean_lo, correction);
  *var = left > 0 ? left / total : 0;
}

static void FN(careful_moments)(const T *x, int64_t stride, int64_t n, double scale, double *mean, double *mean_lo,
                                double *var) {
  FN(careful_weighted)(x, stride, NULL, 0, n, scale, mean, mean_lo, var);
}

/* Squares of doubles may vanish where differences do not. */
static int FN(varies)(const T *x, int64_t stride, const double *w, int64_t cols, int64_t n) {
  int64_t first = 0;
  while (w && first < n && w[first * cols] == 0) first++;
  for (int64_t i = first + 1; FN_TYPE == FN_F64 && i < n; i++)
    if (x[i * stride] != x[first * stride] && (!w || w[i * cols] != 0)) return 1;
  return 0;
}

/* Sums about g become states: of `count` elements, or of weights. `x` is where the n elements stand and `w` (NULL: 1)
 * their dense weights, for the columns whose sums do not say enough. */
static void FN(conclude)(const T *x, int64_t stride, const double *w, int64_t n, int64_t cols,
                         const double *restrict count, const double *restrict g, const double *restrict s,
                         const double *restrict q, double *state, int64_t state_stride) {
  const double down = 0x1p-520, up = 0x1p+520; /* squares of doubles so scaled can be summed over a chunk */
  double *mean = state + FN_MEAN * state_stride, *mean_lo = state + FN_MEAN_LO * state_stride;
  double *var = state + FN_VAR * state_stride;
  int astray = 0;
  for (int plane = 0; plane < FN_M3; plane++)
    for (int64_t j = 0; j < cols; j++) state[plane * state_stride + j] = plane == FN_COUNT ? count[j] : 0;
  FN_IVDEP
  for (int64_t j = 0; j < cols; j++) {
    const double total = count[j] == 0 ? 1 : count[j]; /* of nothing, all sums are 0 */
    double hi = g[j], lo = 0, t = s[j] / total, left = q[j] - s[j] * t, spread = left / total;
    fn_add(&hi, &lo, t);
    mean[j] = hi;
    mean_lo[j] = lo;
    var[j] = left > 0 ? spread : 0;
    astray |= !fn_finite(left) | (q[j] == 0);
  }
  for (int64_t j = 0; astray && j < cols; j++) {
    if (count[j] == 0) continue;
    const double *w_j = w ? w + j : NULL;
    if (q[j] == 0) var[j] = FN(varies)(x + j, stride, w_j, cols, n) ? FN_LEAST_VARIANCE : 0;
    if (fn_finite(q[j] - s[j] * (s[j] / count[j]))) continue;
    FN(careful_weighted)(x + j, stride, w_j, cols, n, down, mean + j, mean_lo + j, var + j);
    mean[j] *= fn_finite(mean[j]) ? up : 1;
    mean_lo[j] *= up;
    var[j] = var[j] * up * up;
  }
}

/* For the state of moments: the extrema of one chunk, as doubles. */
static void FN(extremes)(const T *x, int64_t stride, int64_t n, int64_t cols, double *min, double *max) {
  K lo[FN_STRIP], hi[FN_STRIP];
  for (int64_t j = 0; j < cols; j++) lo[j] = hi[j] = FN(key)(x[j]);
  FN(join_extremes)(x, stride, n, cols, lo, hi);
  for (int64_t j = 0; j < cols; j++) {
    const int unordered = FN(unordered)(lo[j], hi[j]);
    min[j] = unordered ? __builtin_nan("") : (double)FN(unkey)(lo[j]);
    max[j] = unordered ? __builtin_nan("") : (double)FN(unkey)(hi[j]);
  }
}

/* State of n > 0 contiguous elements. */
static void FN(chunk_row)(const fn_job *job, const T *x, int64_t n, double *state, int64_t state_stride) {
  const int64_t sample = fn_sample_size(n, 128), step = n / sample;
  const double count = (double)n;
  double parts[4] = {0}, g, s, q;
  for (int64_t i = 0; sample >= 4 && i < sample; i += 4)
    for (int k = 0; k < 4; k++) parts[k] += (double)x[(i + k) * step];
  for (int64_t i = 0; sample < 4 && i < sample; i++) parts[i] = (double)x[i * step];
  g = ((parts[0] + parts[2]) + (parts[1] + parts[3])) / (double)sample;
  FN(sum_row)(x, n, g, &s, &q);
  if (fn_missed((double)n, s, q, 128)) {
    g += s / (double)n;
    FN(sum_row)(x, n, g, &s, &q);
  }
  FN(conclude)(x, 1, NULL, n, 1, &count, &g, &s, &q, state, state_stride);
  if (job->extrema) FN(extremes)(x, 1, n, 1, state + FN_MIN * state_stride, state + FN_MAX * state_stride);
}

/* The same of n elements from number `start` on that lie in memory as runs, one after the other. Returns whether that
 * was enough: not for a constant, nor where sums are not finite. */
static int FN(chunk_runs)(const fn_job *job, const char *base, int64_t start, int64_t n, T *tile, double *state,
                          int64_t state_stride) {
  const int64_t few = fn_sample_size(n / 16, 8);
  const double count = (double)n;
  double g = 0, s = 0, q = 0;
  for (int64_t k = 0; k < 16; k++) {
    const T *x = FN(load)(job, job->source, base, start + k * (n - few) / 15, few, tile);
    double sum = 0;
    for (int64_t i = 0; i < few; i++) sum += (double)x[i];
    g += sum / (double)few;
  }
  g /= 16;
  for (int visit = 0; visit < 2; visit++) {
    s = q = 0;
    for (int64_t at = 0; at < n;) {
      const fn_run run = fn_next_run(job, job->source, start + at, n - at);
      double run_s, run_q;
      FN(sum_row)(FN(load)(job, job->source, base, start + at, run.count, tile), run.count, g, &run_s, &run_q);
      s += run_s;
      q += run_q;
      at += run.count;
    }
    if (!fn_missed(count, s, q, 128)) break;
    g += s / count;
  }
  if (q == 0 || !fn_finite(q - s * (s / count))) return 0;
  FN(conclude)(NULL, 1, NULL, n, 1, &count, &g, &s, &q, state, state_stride);
  return 1;
}

/* Rows that are worked on side by side must lie side by side: in memory, or now in `tile`. */
static const T *FN(close_up)(const T *x, int64_t *stride, int64_t n, int64_t cols, T *tile) {
  if (*stride == cols) return x;
  for (int64_t i = 0; i < n; i++) memcpy(tile + i * cols, x + i * *stride, (size_t)cols * sizeof(T));
  *stride = cols;
  return tile;
}

/* States of one row. */
static void FN(chunk_single)(const T *x, int64_t cols, double *state, int64_t state_stride) {
  for (int plane = 0; plane < FN_M3; plane++)
    for (int64_t j = 0; j < cols; j++) state[plane * state_stride + j] = plane == FN_COUNT;
  for (int64_t j = 0; j < cols; j++) {
    const double v = 0.0 + (double)x[j]; /* no sum is -0 */
    state[FN_MEAN * state_stride + j] = v;
    state[FN_VAR * state_stride + j] = v - v; /* NaN of what is not finite */
  }
}

/* States of `cols` <= FN_STRIP columns of n > 0 rows. */
static void FN(chunk_columns)(const fn_job *job, const T *x, int64_t stride, int64_t n, int64_t cols, T *tile,
                              double *state, int64_t state_stride) {
  double count[FN_STRIP], g[FN_STRIP], s[FN_STRIP], q[FN_STRIP];
  /* By the layout of x, not by whether it was gathered or where y goes: these must not change bits. */
  const int dense = job->dense && job->beside <= FN_STRIP;
  const int64_t group = dense ? fn_group_rows(job->beside) : 1, sample = fn_sample_size(n, 16);
  const int64_t wide = group * cols, whole = n / group;
  if (n == 1) {
    FN(chunk_single)(x, cols, state, state_stride);
    if (job->extrema) FN(extremes)(x, stride, n, cols, state + FN_MIN * state_stride, state + FN_MAX * state_stride);
    return;
  }
  if (group > 1) x = FN(close_up)(x, &stride, n, cols, tile); /* a sum that was stored elsewhere */
  for (int64_t j = 0; j < cols; j++) g[j] = 0;
  for (int64_t i = 0; i < sample; i++)
    for (int64_t j = 0; j < cols; j++) g[j] += (double)x[n / sample * i * stride + j];
  for (int64_t j = 0; j < cols; j++) g[j] /= (double)sample;

  for (int visit = 0, again = 1; again && visit < 2; visit++) {
    for (int64_t j = cols; j < wide; j++) g[j] = g[j - cols];
    for (int64_t j = 0; j < wide; j++) s[j] = q[j] = 0;
    FN(sum_columns)(x, group * stride, whole, wide, g, s, q);
    FN(sum_columns)(x + whole * group * stride, stride, n % group > 0, n % group * cols, g, s, q);
    fn_fold_groups(s, group, cols);
    fn_fold_groups(q, group, cols);
    again = 0;
    for (int64_t j = 0; visit == 0 && j < cols; j++)
      if (fn_missed((double)n, s[j], q[j], 16)) {
        g[j] += s[j] / (double)n;
        again = 1;
      }
  }
  for (int64_t j = 0; j < cols; j++) count[j] = (double)n;
  FN(conclude)(x, stride, NULL, n, cols, count, g, s, q, state, state_stride);
  if (job->extrema) FN(extremes)(x, stride, n, cols, state + FN_MIN * state_stride, state + FN_MAX * state_stride);
}

static void FN(chunk_masked)(const fn_job *job, int64_t outer, int64_t j, int64_t start, int64_t n, int64_t cols,
                             void *scratch, double *state, int64_t state_stride); /* masked.h */

/* Elements start <= i < start + n of problem `outer`: the states of columns j <= column < j + cols <= j + FN_STRIP, or
 * of the row (j == 0, cols == 1). n * cols <= FN_CHUNK. Extrema alone, if the job wants no more. */
static void FN(chunk)(const fn_job *job, int64_t outer, int64_t j, int64_t start, int64_t n, int64_t cols,
                      void *scratch, double *state, int64_t state_stride) {
  if (fn_is_masked(job) || job->order > 2 || job->norm == FN_RANGE) {
    FN(chunk_masked)(job, outer, j, start, n, cols, scratch, state, state_stride);
    return;
  }
  const char *base = fn_base(job, job->source, outer, j);
  if (job->columns) {
    int64_t stride;
    const T *x = FN(load_columns)(job, job->source, base, start, n, cols, scratch, &stride);
    FN(chunk_columns)(job, x, stride, n, cols, scratch, state, state_stride);
    return;
  }
  const int runs = fn_is_shifted(job) && job->stretch[FN_X] < job->n && n >= 16;
  if (runs && FN(chunk_runs)(job, base, start, n, scratch, state, state_stride)) return;
  FN(chunk_row)(job, FN(load)(job, job->source, base, start, n, scratch), n, state, state_stride);
}

static void FN(moments_chunks)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  for (int64_t chunk = lo; chunk < hi; chunk++) {
    const int64_t start = chunk * job->chunk, left = job->n - start, cols = job->inner.size;
    double *slot = job->state + (chunk - job->first) * cols;
    for (int64_t j = 0; j < cols; j += FN_STRIP)
      FN(chunk)(job, job->index, j, start, left < job->chunk ? left : job->chunk,
                cols - j < FN_STRIP ? cols - j : FN_STRIP, scratch, slot + j, job->state_stride);
  }
}

/* Whole columns j <= column < j + cols of problem `outer`, chunk by chunk, or rows `outer` and on; their statistics
 * stand `step` apart from p on. */
static void FN(whole)(const fn_job *job, int64_t outer, int64_t j, int64_t cols, int64_t step, void *scratch) {
  double *state = (double *)(void *)((char *)scratch + FN_SCRATCH_STATES), *part = state + FN_PLANES * FN_STRIP;
  const int64_t p = fn_place(job, outer, j), rows = job->columns ? 1 : cols, wide = job->columns ? cols : 1;
  /* The first chunk stands where nothing stood, unless it may be without extrema. */
  const int plain = !(fn_is_masked(job) && job->extrema) && job->n > 0 && !job->resume;
  if (!plain) fn_begin(job, state, FN_STRIP, cols, p, step);
  for (int64_t start = 0; start < job->n; start += job->chunk) {
    const int64_t left = job->n - start, n = left < job->chunk ? left : job->chunk;
    double *to = plain && start == 0 ? state : part;
    for (int64_t r = 0; r < rows; r++) FN(chunk)(job, outer + r, j, start, n, wide, scratch, to + r, FN_STRIP);
    if (to == part) fn_merge_states(job, state, FN_STRIP, part, FN_STRIP, cols);
  }
  fn_finish(job, state, FN_STRIP, cols, p, step);
}

/* Short rows whose statistics stand one step apart are concluded together. */
static void FN(moments_rows)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  const int together = job->kept_ndim == 1 && job->n <= job->chunk;
  const int64_t most = together ? 64 : 1, step = together ? job->kept[0].step[FN_P] : 0;
  for (int64_t row = lo; row < hi; row += most)
    FN(whole)(job, row, 0, hi - row < most ? hi - row : most, step, scratch);
}

static void FN(moments_columns)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  const int64_t strips = (job->inner.size + job->strip - 1) / job->strip;
  for (int64_t unit = lo; unit < hi; unit++) {
    const int64_t j = unit % strips * job->strip;
    FN(whole)(job, unit / strips, j, job->inner.size - j < job->strip ? job->inner.size - j : job->strip,
              job->inner.step[FN_P], scratch);
  }
}
