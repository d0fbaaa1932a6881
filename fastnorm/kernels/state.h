/* The state of Welford's algorithm in blocked form: merging two states and finishing one; at the end, sums of lanes.
 *
 * Pairwise update: Chan, Golub, LeVeque, "Algorithms for Computing the Sample Variance" (1983). Mean and variance move
 * by small increments onto unevaluated sums of two doubles, so the error of a fold does not grow with the number of
 * chunks. Nothing here depends on the compute type.
 */

/* What a variance too small for a double is rounded up to, so that only constants have a variance of 0. */
#define FN_LEAST_VARIANCE 0x1p-1074

static inline int fn_finite(double v) { return v - v == 0; }

/* The planes that a job of its order touches. */
static inline int fn_planes(const fn_job *job) { return job->order > 3 ? FN_PLANES : job->order > 2 ? FN_M4 : FN_M3; }

/* The greatest power of two that is not above v; 1 where v is below the normal range. */
static inline double fn_power_of_two(double v) {
  uint64_t bits;
  memcpy(&bits, &v, sizeof bits);
  bits &= (uint64_t)0x7ff << 52;
  memcpy(&v, &bits, sizeof v);
  return bits ? v : 1;
}

/* hi + lo += v. A result that is not finite carries no low part. */
static inline void fn_add(double *hi, double *lo, double v) {
  const double a = *hi, sum = a + v, part = sum - a;
  const double low = *lo + ((a - (sum - part)) + (v - part));
  const double top = sum + low, rest = low - (top - sum);
  *hi = fn_finite(top) ? top : sum;
  *lo = fn_finite(top) ? rest : 0;
}

/* Bits of a double ordered as the numbers are, with -0 below +0. */
static inline int64_t fn_order(double v) {
  int64_t bits;
  memcpy(&bits, &v, sizeof bits);
  return bits ^ (int64_t)((uint64_t)(bits >> 63) >> 1);
}

/* The lesser (sign 1) or greater (sign -1) of two numbers; NaN if one is. */
static inline double fn_extreme(double a, double b, int64_t sign) {
  double least = fn_order(b) * sign < fn_order(a) * sign ? b : a;
  least = b != b ? b : least;
  return a != a ? a : least;
}

/* Columns of `from` join those of `into`. An empty state is the identity. Cases are selected, never branched to, so
 * that the loop is packed code. */
static void fn_merge(double *into, int64_t into_stride, const double *from, int64_t from_stride, int64_t cols,
                     int extrema) {
#define A(plane) into[(plane) * into_stride + j]
#define B(plane) from[(plane) * from_stride + j]
#define FN_JOIN_PLANE(plane, merged)                                                                                   \
  do {                                                                                                                 \
    const double a_##plane = A(plane), b_##plane = B(plane), joined = a_empty ? b_##plane : (merged);                  \
    A(plane) = b_empty ? a_##plane : joined;                                                                           \
  } while (0)
  FN_IVDEP
  for (int64_t j = 0; extrema && j < cols; j++) {
    const int a_empty = A(FN_COUNT) == 0, b_empty = B(FN_COUNT) == 0;
    FN_JOIN_PLANE(FN_MIN, fn_extreme(a_FN_MIN, b_FN_MIN, 1));
    FN_JOIN_PLANE(FN_MAX, fn_extreme(a_FN_MAX, b_FN_MAX, -1));
  }
  FN_IVDEP
  for (int64_t j = 0; j < cols; j++) {
    const int a_empty = A(FN_COUNT) == 0, b_empty = B(FN_COUNT) == 0;
    const double b_count = B(FN_COUNT), b_mean = B(FN_MEAN), b_var = B(FN_VAR), b_var_lo = B(FN_VAR_LO);
    double count = A(FN_COUNT), count_lo = A(FN_COUNT_LO), mean = A(FN_MEAN), mean_lo = A(FN_MEAN_LO);
    double var = A(FN_VAR), var_lo = A(FN_VAR_LO);
    fn_add(&count, &count_lo, b_count);
    fn_add(&count, &count_lo, B(FN_COUNT_LO));
    const double b = b_count / count, a = 1 - b; /* shares of the merged count */
    const double delta = (b_mean - mean) + (B(FN_MEAN_LO) - mean_lo);
    const double apart = (delta * a) * (delta * b);
    const double faint = delta != 0 ? FN_LEAST_VARIANCE : 0, between = apart == 0 ? faint : apart;
    const double step = (b_var - var) * b + ((b_var_lo - var_lo) * b + between);
    /* For infinite data, and for differences past the largest double: plain weighted sums. */
    const double plain_mean = mean * a + b_mean * b, plain_var = (var * a + b_var * b) + between;
    fn_add(&mean, &mean_lo, delta * b);
    fn_add(&var, &var_lo, step);
    FN_JOIN_PLANE(FN_MEAN, fn_finite(delta) ? mean : plain_mean);
    FN_JOIN_PLANE(FN_MEAN_LO, fn_finite(delta) ? mean_lo : 0);
    FN_JOIN_PLANE(FN_VAR, fn_finite(step) ? var : plain_var);
    FN_JOIN_PLANE(FN_VAR_LO, fn_finite(step) ? var_lo : 0);
    FN_JOIN_PLANE(FN_COUNT, count);
    FN_JOIN_PLANE(FN_COUNT_LO, count_lo);
  }
#undef FN_JOIN_PLANE
#undef A
#undef B
}

/* The means of third and fourth powers, from states that are not merged yet. With the shares a and b of the merged
 * count and delta = mean_b - mean_a, expand the powers of (x - mean_a) - b delta and of (x - mean_b) + a delta:
 *     m3 moves by b (m3_b - m3_a) + 3 delta a b (m2_b - m2_a) + delta^3 a b (a - b)
 *     m4 moves by b (m4_b - m4_a) + 4 delta a b (m3_b - m3_a) + 6 delta^2 a b (a m2_b + b m2_a)
 *                                 + delta^4 a b (a^2 - a b + b^2)
 * which are the formulas of Pebay, SAND2008-6212 (2008), for means instead of sums. */
static void fn_merge_higher(double *into, int64_t into_stride, const double *from, int64_t from_stride, int64_t cols,
                            int order) {
#define A(plane) into[(plane) * into_stride + j]
#define B(plane) from[(plane) * from_stride + j]
  for (int fourth = order > 3; fourth >= 0; fourth--) { /* m4 first: it asks for the old m3 */
    const int plane = fourth ? FN_M4 : FN_M3;
    FN_IVDEP
    for (int64_t j = 0; j < cols; j++) {
      const int a_empty = A(FN_COUNT) == 0, b_empty = B(FN_COUNT) == 0;
      const double b = B(FN_COUNT) / (A(FN_COUNT) + B(FN_COUNT)), a = 1 - b;
      const double delta = (B(FN_MEAN) - A(FN_MEAN)) + (B(FN_MEAN_LO) - A(FN_MEAN_LO));
      const double da = delta * a, db = delta * b, apart = da * db;
      const double a_var = A(FN_VAR), b_var = B(FN_VAR), a_m3 = A(FN_M3), b_m3 = B(FN_M3);
      const double var_step = (b_var - a_var) + (B(FN_VAR_LO) - A(FN_VAR_LO));
      const double m3_step = (b_m3 - a_m3) + (B(FN_M3_LO) - A(FN_M3_LO));
      const double third = 3 * (da * b) * var_step + apart * (da - db);
      const double fourth_power =
          (4 * (da * b) * m3_step + 6 * apart * (a * b_var + b * a_var)) + apart * ((da * da - apart) + db * db);
      const double mixed = fourth ? fourth_power : third;
      const double a_hi = A(plane), a_lo = A(plane + 1), b_hi = B(plane), b_lo = B(plane + 1);
      const double step = ((b_hi - a_hi) + (b_lo - a_lo)) * b + mixed, plain = (a_hi * a + b_hi * b) + mixed;
      double hi = a_hi, lo = a_lo;
      fn_add(&hi, &lo, step);
      const double hi_joined = a_empty ? b_hi : fn_finite(step) ? hi : plain;
      const double lo_joined = a_empty ? b_lo : fn_finite(step) ? lo : 0;
      A(plane) = b_empty ? a_hi : hi_joined;
      A(plane + 1) = b_empty ? a_lo : lo_joined;
    }
  }
#undef A
#undef B
}

/* All that a job keeps. */
static void fn_merge_states(const fn_job *job, double *into, int64_t into_stride, const double *from,
                            int64_t from_stride, int64_t cols) {
  if (job->order > 2) fn_merge_higher(into, into_stride, from, from_stride, cols, job->order);
  fn_merge(into, into_stride, from, from_stride, cols, job->extrema);
}

/* Empty states, or with `resume` those that stand `step` apart from index p on in job->state. */
static void fn_begin(const fn_job *job, double *state, int64_t stride, int64_t cols, int64_t p, int64_t step) {
  for (int plane = 0; plane < fn_planes(job); plane++)
    for (int64_t j = 0; j < cols; j++)
      state[plane * stride + j] = job->resume ? job->state[plane * job->state_stride + p + j * step] : 0;
}

static inline double fn_quiet(double v) { return v == v ? v : __builtin_nan(""); }

static void fn_put(void *to, int dtype, int64_t index, double value) {
  value = fn_quiet(value);
  if (fn_is_half(dtype))
    fn_narrow_doubles((char *)to + 2 * index, &value, 1, dtype);
  else if (dtype == FN_F32)
    ((float *)to)[index] = (float)value;
  else
    ((double *)to)[index] = value;
}

/* `count` values, `step` apart from index p on. */
static void fn_put_all(void *to, int dtype, int64_t p, int64_t step, const double *values, int64_t count) {
  if (step == 1 && dtype == FN_F32) {
    for (int64_t j = 0; j < count; j++) ((float *)to)[p + j] = (float)fn_quiet(values[j]);
  } else if (step == 1 && dtype == FN_F64) {
    for (int64_t j = 0; j < count; j++) ((double *)to)[p + j] = fn_quiet(values[j]);
  } else if (step == 1 && fn_is_half(dtype)) {
    fn_narrow_doubles((char *)to + 2 * p, values, count, dtype);
  } else {
    for (int64_t j = 0; j < count; j++) fn_put(to, dtype, p + j * step, values[j]);
  }
}

static void fn_round_doubles(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  const fn_array *x = &job->array[FN_X], *y = &job->array[FN_Y];
  (void)scratch;
  fn_put_all(y->data, y->dtype, lo, 1, (const double *)(const void *)x->data + lo, hi - lo);
}

/* Variance with n - ddof degrees of freedom; inf or NaN when none is left, as NumPy. */
static double fn_variance(const double *state, int64_t stride, double ddof) {
  double n = state[FN_COUNT * stride], freedom = n - ddof;
  double var = state[FN_VAR * stride] + state[FN_VAR_LO * stride];
  return n == 0 ? __builtin_nan("") : ddof == 0 ? var : var * (n / (freedom > 0 ? freedom : 0));
}

/* What a norm divides by the root of: the variance, or the mean square about 0. */
static double fn_square_of(const fn_job *job, const double *state, int64_t stride) {
  const double mean = state[FN_MEAN * stride] + state[FN_MEAN_LO * stride];
  return job->norm == FN_RMS ? fn_variance(state, stride, 0) + mean * mean : fn_variance(state, stride, job->ddof);
}

/* A variance as the job wants it. */
static double fn_spread(const fn_job *job, double var) {
  return job->finish == FN_DEVIATION ? sqrt(var) : job->finish == FN_RECIPROCAL ? 1 / sqrt(var + job->eps) : var;
}

/* Skewness and excess kurtosis: the third and fourth moments in units of the deviation. NaN where powers vanished. */
static double fn_shape(const fn_job *job, const double *state, int64_t stride) {
  const int third = job->finish == FN_SKEWNESS, plane = third ? FN_M3 : FN_M4;
  const double var = fn_variance(state, stride, 0), power = state[plane * stride] + state[(plane + 1) * stride];
  if (!(var >= (third ? 0x1p-640 : 0x1p-480))) return __builtin_nan("");
  return third ? power / var / sqrt(var) : power / var / var - 3;
}

/* For running statistics. */
static inline void fn_save(const fn_job *job, int64_t p, double count, double mean, double var) {
  const int64_t kept = job->outer * job->inner.size;
  job->saved[p] = count;
  job->saved[kept + p] = mean;
  job->saved[2 * kept + p] = var;
}

/* What a job wants of the spread of a column, of which there is something. */
static inline double fn_spread_of(const fn_job *job, const double *column, int64_t stride) {
  if (job->finish == FN_SKEWNESS || job->finish == FN_KURTOSIS) return fn_shape(job, column, stride);
  return fn_spread(job, fn_square_of(job, column, stride));
}

/* Results of `cols` columns whose statistics stand `step` apart from index p on. */
static void fn_finish(const fn_job *job, const double *state, int64_t stride, int64_t cols, int64_t p, int64_t step) {
  const int range = job->norm == FN_RANGE;
  double values[FN_STRIP];
  for (int64_t count; cols > 0; state += count, cols -= count, p += count * step) {
    count = cols < FN_STRIP ? cols : FN_STRIP;
    for (int plane = 0; job->state && plane < fn_planes(job); plane++)
      for (int64_t j = 0; j < count; j++)
        job->state[plane * job->state_stride + p + j * step] = fn_quiet(state[plane * stride + j]);
    for (int64_t j = 0; job->saved && j < count; j++)
      fn_save(job, p + j * step, state[FN_COUNT * stride + j],
              state[FN_MEAN * stride + j] + state[FN_MEAN_LO * stride + j], fn_variance(state + j, stride, 0));
    if (job->mean) {
      const double *first = state + (range ? FN_MIN : FN_MEAN) * stride;
      for (int64_t j = 0; j < count; j++) values[j] = range ? first[j] : first[j] + state[FN_MEAN_LO * stride + j];
      for (int64_t j = 0; j < count; j++) values[j] = state[FN_COUNT * stride + j] == 0 ? __builtin_nan("") : values[j];
      fn_put_all(job->mean, job->out_dtype, p, step, values, count);
    }
    if (job->spread) {
      for (int64_t j = 0; !range && j < count; j++) values[j] = fn_spread_of(job, state + j, stride);
      for (int64_t j = 0; range && j < count; j++)
        values[j] = state[FN_COUNT * stride + j] == 0 ? __builtin_nan("") : state[FN_MAX * stride + j];
      fn_put_all(job->spread, job->out_dtype, p, step, values, count);
    }
  }
}

static void fn_begin_columns(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  const int64_t p = fn_place(job, job->index, lo);
  fn_begin(job, (double *)scratch + lo, job->inner.size, hi - lo, p, job->inner.step[FN_P]);
}

static void fn_merge_slots(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  const int64_t cols = job->inner.size;
  for (int64_t slot = lo; slot < hi; slot++)
    fn_merge_states(job, scratch, cols, job->state + slot * cols, job->state_stride, cols);
}

static void fn_finish_columns(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  const int64_t p = fn_place(job, job->index, lo);
  fn_finish(job, (double *)scratch + lo, job->inner.size, hi - lo, p, job->inner.step[FN_P]);
}

/* ---- sums -------------------------------------------------------------------------------------------------------- */

#define FN_LANES 16

/* sums += lanes, by vectors: what has just been stored as such is late where it is taken apart. */
static inline void fn_add_lanes(double *sums, const double *lanes) {
  typedef double vector __attribute__((vector_size(FN_VECTOR), aligned(sizeof(double)), may_alias));
  for (int l = 0; l < FN_LANES; l += FN_VECTOR / (int)sizeof(double))
    *(vector *)(void *)(sums + l) += *(const vector *)(const void *)(lanes + l);
}

static inline double fn_fold(const double *lanes) {
  double quarter[4];
  for (int l = 0; l < 4; l++) quarter[l] = (lanes[l] + lanes[l + 8]) + (lanes[l + 4] + lanes[l + 12]);
  return (quarter[0] + quarter[2]) + (quarter[1] + quarter[3]);
}

/* How many of n rows are worked on side by side: fewer of few, so that lanes do not outnumber what they add. */
static inline int64_t fn_lane_rows(int64_t n, int64_t cols) {
  int64_t group = fn_group_rows(cols);
  while (group > 1 && 8 * group > n && group * cols > FN_LANES) group = (group + 1) / 2;
  return group;
}

static inline int64_t fn_sample_size(int64_t n, int64_t most) {
  int64_t size = 1;
  while (size < most && 2 * size <= n) size *= 2;
  return size;
}

/* Did the guess miss the mean by more than the average of `sample` elements should? (s/n)^2 > 8/sample * q/n, where q/n
 * holds (s/n)^2 too: 1 standard deviation for 16 elements, 0.26 for 128. Normal data hardly ever does, an outlier in
 * the sample nearly always. Shorter columns, whose samples are smaller, are held to the same. */
static inline int fn_missed(double n, double s, double q, double sample) { return (s / n) * s > 8 / sample * q; }

/* The sums of rows that were worked on as one, by halves. */
static void fn_fold_groups(double *sums, int64_t group, int64_t cols) {
  for (int64_t left = (group + 1) / 2; group > 1; group = left, left = (group + 1) / 2)
    for (int64_t j = 0; j < (group - left) * cols; j++) sums[j] += sums[left * cols + j];
}
