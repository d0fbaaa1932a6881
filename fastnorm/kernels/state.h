/* The state of Welford's algorithm in blocked form: merging two states and finishing one.
 *
 * Pairwise update: Chan, Golub, LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances"
 * (1979). Mean and variance move by small increments onto unevaluated sums of two doubles, so the error of a fold does
 * not grow with the number of chunks. Nothing here depends on the compute type.
 */

static inline int fn_finite(double v) { return v - v == 0; }

/* hi + lo += v. A result that is not finite carries no low part. */
static inline void fn_add(double *hi, double *lo, double v) {
  double a = *hi, sum = a + v, part = sum - a;
  double low = *lo + ((a - (sum - part)) + (v - part));
  double top = sum + low;
  *lo = fn_finite(top) ? low - (top - sum) : 0;
  *hi = fn_finite(top) ? top : sum;
}

/* Bits of a double ordered as the numbers are, with -0 below +0 and NaN outside the infinities. */
static inline int64_t fn_order(double v) {
  int64_t bits;
  memcpy(&bits, &v, sizeof bits);
  return bits ^ (int64_t)((uint64_t)(bits >> 63) >> 1);
}

static inline double fn_lesser(double a, double b) {
  return a != a ? a : b != b ? b : fn_order(b) < fn_order(a) ? b : a;
}

static inline double fn_greater(double a, double b) {
  return a != a ? a : b != b ? b : fn_order(b) > fn_order(a) ? b : a;
}

/* Columns of `from` join those of `into`. An empty state is the identity. Every case is a selection, so that the loop
 * is packed code. */
static void fn_merge(double *into, int64_t into_stride, const double *from, int64_t from_stride, int64_t cols) {
#define A(plane) into[(plane) * into_stride + j]
#define B(plane) from[(plane) * from_stride + j]
#define FN_PICK(plane, merged) A(plane) = b_empty ? A(plane) : a_empty ? B(plane) : (merged)
  FN_IVDEP
  for (int64_t j = 0; j < cols; j++) {
    const int a_empty = A(FN_COUNT) == 0, b_empty = B(FN_COUNT) == 0;
    double count = A(FN_COUNT), count_lo = A(FN_COUNT_LO), mean = A(FN_MEAN), mean_lo = A(FN_MEAN_LO);
    double var = A(FN_VAR), var_lo = A(FN_VAR_LO);
    fn_add(&count, &count_lo, B(FN_COUNT));
    fn_add(&count, &count_lo, B(FN_COUNT_LO));
    const double b = B(FN_COUNT) / count, a = 1 - b; /* shares of the merged count */
    const double delta = (B(FN_MEAN) - mean) + (B(FN_MEAN_LO) - mean_lo);
    const double between = (delta * a) * (delta * b);
    const double step = (B(FN_VAR) - var) * b + ((B(FN_VAR_LO) - var_lo) * b + between);
    /* For infinite data, and for differences past the largest double: plain weighted sums. */
    const double plain_mean = mean * a + B(FN_MEAN) * b, plain_var = (var * a + B(FN_VAR) * b) + between;
    fn_add(&mean, &mean_lo, delta * b);
    fn_add(&var, &var_lo, step);
    FN_PICK(FN_COUNT, count);
    FN_PICK(FN_COUNT_LO, count_lo);
    FN_PICK(FN_MEAN, fn_finite(delta) ? mean : plain_mean);
    FN_PICK(FN_MEAN_LO, fn_finite(delta) ? mean_lo : 0);
    FN_PICK(FN_VAR, fn_finite(step) ? var : plain_var);
    FN_PICK(FN_VAR_LO, fn_finite(step) ? var_lo : 0);
    FN_PICK(FN_MIN, fn_lesser(A(FN_MIN), B(FN_MIN)));
    FN_PICK(FN_MAX, fn_greater(A(FN_MAX), B(FN_MAX)));
  }
#undef FN_PICK
#undef A
#undef B
}

static void fn_clear(double *state, int64_t stride, int64_t cols) {
  for (int plane = 0; plane < FN_PLANES; plane++) memset(state + plane * stride, 0, (size_t)cols * sizeof *state);
}

static inline double fn_quiet(double v) { return v == v ? v : __builtin_nan(""); }

static void fn_put(void *to, int dtype, int64_t index, double value) {
  value = fn_quiet(value);
  if (dtype == FN_F32)
    ((float *)to)[index] = (float)value;
  else
    ((double *)to)[index] = value;
}

/* Variance with n - ddof degrees of freedom; inf or NaN when none is left, as NumPy. */
static double fn_variance(const double *state, int64_t stride, double ddof) {
  double n = state[FN_COUNT * stride], freedom = n - ddof;
  double var = state[FN_VAR * stride] + state[FN_VAR_LO * stride];
  return n == 0 ? __builtin_nan("") : ddof == 0 ? var : var * (n / (freedom > 0 ? freedom : 0));
}

/* A variance as the job wants it. */
static double fn_spread(const fn_job *job, double var) {
  return job->finish == FN_DEVIATION ? sqrt(var) : job->finish == FN_RECIPROCAL ? 1 / sqrt(var + job->eps) : var;
}

/* Results of `cols` columns whose statistics stand `step` apart from index p on. */
static void fn_finish(const fn_job *job, const double *state, int64_t stride, int64_t cols, int64_t p, int64_t step) {
  for (int64_t j = 0; (job->state || job->mean || job->spread) && j < cols; j++, p += step) {
    const double *column = state + j;
    if (job->state)
      for (int plane = 0; plane < FN_PLANES; plane++) job->state[plane * job->state_stride + p] = column[plane * stride];
    if (job->mean) {
      double mean = column[FN_MEAN * stride] + column[FN_MEAN_LO * stride];
      fn_put(job->mean, job->out_dtype, p, column[FN_COUNT * stride] == 0 ? __builtin_nan("") : mean);
    }
    if (job->spread)
      fn_put(job->spread, job->out_dtype, p, fn_spread(job, fn_variance(column, stride, job->ddof)));
  }
}

static void fn_merge_slots(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  const int64_t cols = job->inner.size;
  for (int64_t slot = lo; slot < hi; slot++)
    fn_merge(scratch, cols, job->state + slot * cols, job->state_stride, cols);
}

static void fn_finish_columns(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  const double *state = scratch;
  const int64_t base = job->p + FN_OFFSET(job->kept, job->kept_ndim, job->index, p);
  fn_finish(job, state + lo, job->inner.size, hi - lo, base + lo * job->inner.p, job->inner.p);
}
