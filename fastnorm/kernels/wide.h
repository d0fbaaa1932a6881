/* What normalize and the local response norm need that does not depend on the compute type: which sums a p asks for,
 * and numbers without ends to their range, for what doubles cannot hold.
 */

/* What is summed for a p-norm: |x|, or else squares, or the largest |x|. For a backward pass dy * x, too. */
enum { FN_SQUARES = 1, FN_LARGEST = 2, FN_WITH_SLOPE = 4, FN_ANY_POWER = 8 };
#define FN_SIZE_KINDS(X)                                                                                               \
  X(0)                                                                                                                 \
  X(FN_SQUARES)                                                                                                        \
  X(FN_LARGEST)                                                                                                        \
  X(FN_WITH_SLOPE)                                                                                                     \
  X(FN_SQUARES | FN_WITH_SLOPE)                                                                                        \
  X(FN_LARGEST | FN_WITH_SLOPE)

static inline int fn_size_kind(const fn_job *job) {
  const double p = job->n == 1 && job->exponent > 0 ? 1 : job->exponent; /* one element: |x|, whatever p */
  const int kind = p == 1 ? 0 : p == 2 ? FN_SQUARES : p > 0x1.fffffffffffffp+1023 ? FN_LARGEST : FN_ANY_POWER;
  return kind | (job->array[FN_Z].data ? FN_WITH_SLOPE : 0);
}

/* What an element adds to a sum. */
static inline double fn_size(double v, int kind) { return kind & FN_SQUARES ? v * v : fabs(v); }

/* An element meets the largest so far: how often was that met? Without a slope, was there a NaN? */
static inline void fn_meet(double v, double *size, double *ties, int kind) {
  const double magnitude = fabs(v), most = *size, met = *ties + (magnitude == most ? 1.0 : 0.0);
  const double count = magnitude > most ? 1 : met;
  *ties = kind & FN_WITH_SLOPE ? count : *ties + v * 0;
  *size = magnitude > most ? magnitude : most;
}

/* The largest of two parts, and how often it is met in both; without a slope, whether there was a NaN. */
static inline void fn_join_ties(double *size, double *ties, double more, double more_ties, int kind) {
  if (!(kind & FN_WITH_SLOPE))
    *ties += more_ties;
  else
    *ties = more > *size ? more_ties : more == *size ? *ties + more_ties : *ties;
  *size = more > *size ? more : *size;
}

/* ---- numbers of any size: m * 2^e, 1 <= |m| < 2, or m = 0 -------------------------------------------------------- */

typedef struct {
  double m;
  int64_t e;
} fn_wide;

/* m * 2^e of any finite m. */
static inline fn_wide fn_wide_of(double m, int64_t e) {
  if (m == 0) return (fn_wide){0, 0};
  const int tiny = fabs(m) < 0x1p-1022;
  uint64_t bits;
  m = tiny ? m * 0x1p+54 : m;
  memcpy(&bits, &m, sizeof bits);
  const int64_t exponent = (int64_t)(bits >> 52 & 0x7ff) - 1023;
  bits = (bits & ~((uint64_t)0x7ff << 52)) | (uint64_t)1023 << 52;
  memcpy(&m, &bits, sizeof m);
  return (fn_wide){m, e + exponent - (tiny ? 54 : 0)};
}

static inline double fn_narrow_wide(fn_wide v) {
  return fn_times_two_to(v.m, v.e < -2000 ? -2000 : v.e > 2000 ? 2000 : v.e);
}
static inline fn_wide fn_wide_times(fn_wide a, fn_wide b) { return fn_wide_of(a.m * b.m, a.e + b.e); }
static inline fn_wide fn_wide_over(fn_wide a, fn_wide b) { return fn_wide_of(a.m / b.m, a.e - b.e); }

static inline fn_wide fn_wide_plus(fn_wide a, fn_wide b) {
  if (a.m == 0 || b.m == 0) return a.m == 0 ? b : a;
  const fn_wide larger = a.e >= b.e ? a : b, smaller = a.e >= b.e ? b : a;
  const int64_t apart = larger.e - smaller.e;
  return apart > 200 ? larger : fn_wide_of(larger.m + smaller.m * fn_two_to_integer(-apart), larger.e);
}

/* base^y; of a base <= 0 only where that is a number. */
static fn_wide fn_wide_power(fn_wide base, double y) {
  if (y == 0) return (fn_wide){1, 0};
  const fn_pair log = fn_log2(fabs(base.m)), whole = fn_sum((double)base.e, log.hi);
  fn_pair e = fn_times(fn_sum(whole.hi, whole.lo + log.lo), fn_bounded(y));
  if (fabs(e.hi) > 0x1p+40) e = (fn_pair){e.hi < 0 ? -0x1p+40 : 0x1p+40, 0};
  int64_t exponent;
  const double m = fn_exp2(e, &exponent);
  return fn_wide_of(base.m < 0 && fn_is_odd(y) ? -m : m, exponent);
}

/* ---- local response norms ---------------------------------------------------------------------------------------- */

/* base^beta: by square roots, or any other. */
enum { FN_ONE, FN_ONE_HALF, FN_THREE_QUARTERS, FN_ANY_BETA };
#define FN_RESPONSE_KINDS(X) X(FN_ONE) X(FN_ONE_HALF) X(FN_THREE_QUARTERS) X(FN_ANY_BETA)
static inline int fn_response_kind(const fn_job *job) {
  const double beta = job->exponent;
  return beta == 1 ? FN_ONE : beta == 0.5 ? FN_ONE_HALF : beta == 0.75 ? FN_THREE_QUARTERS : FN_ANY_BETA;
}

/* Sums of squares of doubles below have lost digits; where k is that much larger it does not matter. */
static inline double fn_least_sum(const fn_job *job) {
  return fabs(job->alpha) * 0x1p-900 <= job->k * 0x1p-60 ? 0 : 0x1p-900;
}

/* Window sums that cost no more for wide windows, and hold nothing but the window's terms (van Herk, "A Fast Algorithm
 * for Local Minimum and Maximum Filters on Rectangular and Octagonal Kernels", 1992, for sums): channels are cut into
 * blocks as long as a window, and a window is the end of one block and the beginning of the next. */
typedef struct {
  int64_t width, cols;
  double *terms; /* one row for each channel of a block: terms of this block as far as it goes, then ends of the last */
  double *begun; /* sum of this block so far */
  double *none;  /* zeros */
} fn_windows;

static inline double *fn_windows_begin(fn_windows *windows, int64_t width, int64_t cols, double *scratch) {
  *windows = (fn_windows){width, cols, scratch, scratch + width * cols, scratch + (width + 1) * cols};
  memset(scratch, 0, (size_t)((width + 2) * cols) * sizeof(double));
  return scratch + (width + 2) * cols;
}

/* Where the terms of channel t go, before fn_window. */
static inline double *fn_window_terms(const fn_windows *windows, int64_t t) {
  return windows->terms + t % windows->width * windows->cols;
}

/* The two parts of the sums of the window that ends with channel t, whose terms are there. */
static inline void fn_window(const fn_windows *windows, int64_t t, const double **end, const double **begun) {
  const int64_t phase = t % windows->width, cols = windows->cols;
  const double *terms = windows->terms + phase * cols;
  double *sum = windows->begun;
  FN_IVDEP
  for (int64_t j = 0; j < cols; j++) sum[j] = phase == 0 ? terms[j] : sum[j] + terms[j];
  *begun = sum;
  *end = phase == windows->width - 1 ? windows->none : terms + cols;
}

/* After the last use of that window. */
static inline void fn_window_passed(const fn_windows *windows, int64_t t) {
  const int64_t cols = windows->cols;
  if (t % windows->width != windows->width - 1) return;
  for (int64_t i = windows->width - 2; i >= 0; i--) {
    double *terms = windows->terms + i * cols;
    FN_IVDEP
    for (int64_t j = 0; j < cols; j++) terms[j] += terms[cols + j];
  }
}
