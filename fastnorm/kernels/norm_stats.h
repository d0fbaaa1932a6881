/* Statistics of what fits a cache, for norms: guess, sum and verify as in moments.h, but with differences and their
 * squares taken in the compute type, four or eight at a time, and only their sums in double.
 */

/* Of some rows or columns: the guess g of each mean, the means of x - g and of (x - g)^2, and what follows from them.
 */
typedef struct {
  T guess[FN_STRIP];
  double correction[FN_STRIP], square[FN_STRIP];
  double mean[FN_STRIP], var[FN_STRIP];
} FN(stats);

/* A root mean square is taken about 0, whatever the mean. */
static void FN(stay_at_zero)(FN(stats) *stats, int64_t count) {
  for (int64_t j = 0; j < count; j++) stats->guess[j] = 0;
  for (int64_t j = 0; j < count; j++) stats->correction[j] = 0;
}

/* Adds the correction to the guesses that missed the mean by more than a standard deviation; returns whether any did.
 * A lesser miss at most doubles the rounding errors. */
static int FN(guess_again)(FN(stats) *stats, int64_t count) {
  int missed = 0;
  for (int64_t j = 0; j < count; j++) missed |= fn_missed(1, stats->correction[j], stats->square[j], 16);
  for (int64_t j = 0; missed && j < count; j++)
    if (fn_missed(1, stats->correction[j], stats->square[j], 16))
      stats->guess[j] = (T)((double)stats->guess[j] + stats->correction[j]);
  return missed;
}

/* What the compute type could not sum gets a variance of NaN, which leads to the careful way. */
static void FN(settle)(const fn_job *job, FN(stats) *stats, int64_t count) {
  const double freedom = (double)job->n - job->ddof, none = __builtin_nan("");
  const double unbias = job->ddof == 0 ? 1 : freedom > 0 ? (double)job->n / freedom : none;
  const double *correction = stats->correction, *square = stats->square;
  const double eps = job->finish == FN_DEVIATION ? 0 : job->eps; /* a deviation is saved without it */
  FN_IVDEP
  for (int64_t j = 0; j < count; j++) {
    const double left = square[j] - correction[j] * correction[j], var = (left > 0 ? left : 0) * unbias;
    const double summed = fn_finite(square[j]) ? var : none;
    stats->mean[j] = (double)stats->guess[j];
    stats->var[j] = square[j] + eps > FN_LEAST_SQUARE ? summed : none;
  }
}

/* The statistics of entry j go to p, unless the careful way does that. */
static inline void FN(save)(const fn_job *job, const FN(stats) *stats, int64_t j, int64_t p) {
  if (job->saved) fn_save(job, p, (double)job->n, stats->mean[j] + stats->correction[j], stats->var[j]);
  if (job->mean) fn_put(job->mean, job->out_dtype, p, stats->mean[j] + stats->correction[j]);
  if (job->spread) fn_put(job->spread, job->out_dtype, p, fn_spread(job, stats->var[j]));
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

/* Sums over FN_LANES lanes of x - m and of its square; where they are not centred, of squares of x alone. Four or eight
 * differences are added in the compute type, their sums in double. At the end of a row the lanes that would lie behind
 * it take its last elements and leave out those that were summed; n is no less than FN_LANES. */
#define FN_FROM_ROW(k) (centred ? x[i + (k) * L + l] - m : x[i + (k) * L + l])
#define FN_FROM_END(k) ((T)l < end->summed[k] ? 0 : centred ? x[end->at[k] + l] - m : x[end->at[k] + l])

/* Where the last lanes of a row of n elements begin, and how many of each were summed before. */
typedef struct {
  int64_t at[4];
  T summed[4];
} FN(row_end);

static inline FN(row_end) FN(row_end_of)(int64_t n) {
  enum { L = FN_LANES };
  const int64_t i = n - n % (4 * L);
  FN(row_end) end;
  for (int k = 0; k < 4; k++) {
    end.at[k] = i + k * L < n - L ? i + k * L : n - L;
    end.summed[k] = (T)(i + k * L - end.at[k]);
  }
  return end;
}

FN_INLINE void FN(norm_sums)(const T *x, int64_t n, const FN(row_end) *end, T m, double *restrict sums,
                             double *restrict squares, int centred) {
  enum { L = FN_LANES };
  int64_t i = 0;
  if (n >= 8 * L) {
    double t[L] = {0}, q[L] = {0};
    for (; i + 8 * L <= n; i += 8 * L)
      for (int l = 0; l < L; l++) {
        if (centred) t[l] += (double)(FN_SUM_4(FN_FROM_ROW, 0) + FN_SUM_4(FN_FROM_ROW, 4));
        q[l] += (double)(FN_SQUARES_4(FN_FROM_ROW, 0) + FN_SQUARES_4(FN_FROM_ROW, 4));
      }
    for (int l = 0; l < L; l++) sums[l] = t[l];
    for (int l = 0; l < L; l++) squares[l] = q[l];
  } else {
    for (int l = 0; l < L; l++) sums[l] = squares[l] = 0;
  }
  if (i + 4 * L <= n) {
    for (int l = 0; l < L; l++) {
      if (centred) sums[l] += (double)FN_SUM_4(FN_FROM_ROW, 0);
      squares[l] += (double)FN_SQUARES_4(FN_FROM_ROW, 0);
    }
    i += 4 * L;
  }
  if (i < n)
    for (int l = 0; l < L; l++) {
      const T d0 = FN_FROM_END(0), d1 = FN_FROM_END(1), d2 = FN_FROM_END(2), d3 = FN_FROM_END(3);
      if (centred) sums[l] += (double)((d0 + d1) + (d2 + d3));
      squares[l] += (double)((d0 * d0 + d1 * d1) + (d2 * d2 + d3 * d3));
    }
}

/* Rows that are worked on together, so that lanes are folded and roots and divisions taken in packed code. */
enum { FN(BATCH) = 16 };

/* totals[r] = factor * the sum of row r of lanes. */
#define FN_FOLD_LANES(type, lanes, rows, totals, factor)                                                               \
  do {                                                                                                                 \
    type quarters[FN(BATCH)][4];                                                                                       \
    for (int r = 0; r < (rows); r++)                                                                                   \
      for (int l = 0; l < 4; l++)                                                                                      \
        quarters[r][l] = ((lanes)[r][l] + (lanes)[r][l + 8]) + ((lanes)[r][l + 4] + (lanes)[r][l + 12]);               \
    for (int r = 0; r < (rows); r++)                                                                                   \
      (totals)[r] = ((quarters[r][0] + quarters[r][2]) + (quarters[r][1] + quarters[r][3])) * (factor);                \
  } while (0)

/* The averages of 4 * FN_LANES elements of each row, in four groups spread over it; n >= FN_LANES. */
static void FN(guess_rows)(const T *const *rows, int count, int64_t n, T *guess) {
  enum { L = FN_LANES };
  const int64_t step = (n - L) / 3;
  T lanes[FN(BATCH)][L];
  for (int r = 0; r < count; r++) {
    const T *x = rows[r];
    for (int l = 0; l < L; l++) lanes[r][l] = (x[l] + x[step + l]) + (x[2 * step + l] + x[3 * step + l]);
  }
  FN_FOLD_LANES(T, lanes, count, guess, (T)(1.0 / (4 * L)));
}

static void FN(stats_of_rows)(const fn_job *job, const T *const *rows, int count, FN(stats) *stats) {
  const double part = 1 / (double)job->n;
  double sums[FN(BATCH)][FN_LANES], squares[FN(BATCH)][FN_LANES];
  const FN(row_end) end = FN(row_end_of)(job->n);
  if (job->norm == FN_RMS) {
    for (int r = 0; r < count; r++) FN(norm_sums)(rows[r], job->n, &end, 0, sums[r], squares[r], 0);
    FN_FOLD_LANES(double, squares, count, stats->square, part);
    FN(stay_at_zero)(stats, count);
    FN(settle)(job, stats, count);
    return;
  }
  FN(guess_rows)(rows, count, job->n, stats->guess);
  for (int visit = 0; visit < 2; visit++) {
    for (int r = 0; r < count; r++) FN(norm_sums)(rows[r], job->n, &end, stats->guess[r], sums[r], squares[r], 1);
    FN_FOLD_LANES(double, sums, count, stats->correction, part);
    FN_FOLD_LANES(double, squares, count, stats->square, part);
    if (visit || !FN(guess_again)(stats, count)) break;
  }
  FN(settle)(job, stats, count);
}

/* ---- columns ----------------------------------------------------------------------------------------------------- */

#define FN_FROM_COLUMN(k) (centred ? x[(k) * stride + j] - g[j] : x[(k) * stride + j])

/* Sums over n rows of x - g and of its square, or of squares of x alone. */
FN_INLINE void FN(sums_across)(const T *x, int64_t stride, int64_t n, int64_t cols, const T *restrict g,
                               double *restrict sums, double *restrict squares, int centred) {
  int64_t i = 0;
  for (int64_t j = 0; j < cols; j++) sums[j] = squares[j] = 0;
  for (; i + 4 <= n; i += 4, x += 4 * stride)
    for (int64_t j = 0; j < cols; j++) {
      if (centred) sums[j] += (double)FN_SUM_4(FN_FROM_COLUMN, 0);
      squares[j] += (double)FN_SQUARES_4(FN_FROM_COLUMN, 0);
    }
  for (; i < n; i++, x += stride)
    for (int64_t j = 0; j < cols; j++) {
      if (centred) sums[j] += (double)FN_FROM_COLUMN(0);
      squares[j] += (double)(FN_FROM_COLUMN(0) * FN_FROM_COLUMN(0));
    }
}

/* The averages of a power of two of rows, so that the guess of a constant is exact. */
static void FN(guess_across)(const T *x, int64_t stride, int64_t n, int64_t cols, T *restrict guess) {
  const int64_t sample = fn_sample_size(n, 16), step = n / sample * stride;
  for (int64_t j = 0; j < cols; j++) guess[j] = 0;
  int64_t i = 0;
  for (; i + 4 <= sample; i += 4, x += 4 * step)
    for (int64_t j = 0; j < cols; j++) guess[j] += (x[j] + x[step + j]) + (x[2 * step + j] + x[3 * step + j]);
  for (; i < sample; i++, x += step)
    for (int64_t j = 0; j < cols; j++) guess[j] += x[j];
  for (int64_t j = 0; j < cols; j++) guess[j] /= (T)sample;
}

static void FN(stats_of_columns)(const fn_job *job, const T *x, int64_t stride, int64_t cols, FN(stats) *stats) {
  const double part = 1 / (double)job->n;
  double *sums = stats->correction, *squares = stats->square;
  if (job->norm == FN_RMS) {
    FN(sums_across)(x, stride, job->n, cols, stats->guess, sums, squares, 0);
    for (int64_t j = 0; j < cols; j++) squares[j] *= part;
    FN(stay_at_zero)(stats, cols);
    FN(settle)(job, stats, cols);
    return;
  }
  FN(guess_across)(x, stride, job->n, cols, stats->guess);
  for (int visit = 0; visit < 2; visit++) {
    FN(sums_across)(x, stride, job->n, cols, stats->guess, sums, squares, 1);
    for (int64_t j = 0; j < cols; j++) sums[j] *= part;
    for (int64_t j = 0; j < cols; j++) squares[j] *= part;
    if (visit || !FN(guess_again)(stats, cols)) break;
  }
  FN(settle)(job, stats, cols);
}
