/* Powers by basic arithmetic: the same bits from every compiler and CPU, where those of a libm differ.
 *
 * x^y = 2^(y log2 x). The logarithm and its product with y are unevaluated sums of two doubles, good to 2^-63 of their
 * fractions, so that the exponent keeps 53 bits behind the point; the result is within one unit in the last place.
 * Products are split exactly (Dekker, "A Floating-Point Technique for Extending the Available Precision", 1971).
 * What usual numbers take has no branches, so that loops over it are packed code.
 */

typedef struct {
  double hi, lo;
} fn_pair;

/* a + b where b is the smaller, or a is 0. */
FN_INLINE fn_pair fn_sum(double a, double b) {
  const double sum = a + b;
  return (fn_pair){sum, b - (sum - a)};
}

/* a * b, neither above 2^990. */
FN_INLINE fn_pair fn_product(double a, double b) {
  const double split = 0x1p+27 + 1, a_far = split * a, b_far = split * b;
  const double a_hi = a_far - (a_far - a), a_lo = a - a_hi, b_hi = b_far - (b_far - b), b_lo = b - b_hi;
  const double product = a * b;
  return (fn_pair){product, ((a_hi * b_hi - product) + a_hi * b_lo + a_lo * b_hi) + a_lo * b_lo};
}

FN_INLINE uint64_t fn_bits_of_double(double v) {
  uint64_t bits;
  memcpy(&bits, &v, sizeof bits);
  return bits;
}
FN_INLINE double fn_double_of(uint64_t bits) {
  double v;
  memcpy(&v, &bits, sizeof v);
  return v;
}

/* 2^exponent, |exponent| <= 1000. */
FN_INLINE double fn_two_to_integer(int64_t exponent) { return fn_double_of((uint64_t)(1023 + exponent) << 52); }

/* v * 2^exponent of a v near 1 and |exponent| <= 2000: past the ends of the range, too; rounded once. */
FN_INLINE double fn_times_two_to(double v, int64_t exponent) {
  const int64_t half = (int64_t)((uint64_t)(exponent + 2048) >> 1) - 1024;
  return v * fn_two_to_integer(half) * fn_two_to_integer(exponent - half);
}

/* log2(v) of a positive normal number. With v = 2^k m, sqrt(1/2) < m < sqrt(2), and s = (m - 1) / (m + 1):
 *     log(m) = 2 s (1 + z/3 + z^2/5 + z^3/7 + ...)    z = s^2 <= 0.0295 */
FN_INLINE fn_pair fn_log2_of_normal(double v) {
  const double third = 0x1.5555555555555p-2, third_lo = 0x1.5555555555555p-56;
  const double unit = 0x1.71547652b82fep+1, unit_lo = 0x1.777d0ffda0d24p-55; /* 2 / log(2) */
  const double to_integer = 0x1p+52;
  const uint64_t bits = fn_bits_of_double(v), one = (uint64_t)1023 << 52;
  const uint64_t biased = (bits - 0x3fe6a09e667f3bcdu + one) >> 52; /* k + 1023, from the bits of sqrt(1/2) */
  const double k = fn_double_of(fn_bits_of_double(to_integer) | biased) - (to_integer + 1023);
  const double m = fn_double_of(bits - (biased << 52) + one);
  const double above = m - 1, below = m + 1, below_lo = m - (below - 1);
  const double s = above / below;
  const fn_pair back = fn_product(s, below);
  const double s_lo = (((above - back.hi) - back.lo) - s * below_lo) / below;
  const fn_pair z = fn_product(s, s);
  const double z_lo = z.lo + 2 * (s * s_lo), x = z.hi;
  double tail = x * (1.0 / 27) + 1.0 / 25;
  tail = (tail * x + 1.0 / 23) * x + 1.0 / 21;
  tail = (tail * x + 1.0 / 19) * x + 1.0 / 17;
  tail = (tail * x + 1.0 / 15) * x + 1.0 / 13;
  tail = (tail * x + 1.0 / 11) * x + 1.0 / 9;
  tail = (tail * x + 1.0 / 7) * x + 1.0 / 5;
  fn_pair p = fn_product(x, third);
  p.lo += x * third_lo + z_lo * third;
  fn_pair h = fn_sum(p.hi, x * x * tail);
  h.lo += p.lo;
  fn_pair t = fn_product(s, h.hi);
  fn_pair log = fn_sum(s, t.hi);
  log.lo += t.lo + (s_lo + (s * h.lo + s_lo * h.hi));
  fn_pair scaled = fn_product(log.hi, unit);
  scaled.lo += log.hi * unit_lo + log.lo * unit;
  const fn_pair sum = fn_sum(k, scaled.hi);
  return fn_sum(sum.hi, sum.lo + scaled.lo);
}

/* 2^e as a number in [0.7, 1.42] and a power of two; |e| < 2^50. With u = log(2) * (e - round(e)), |u| <= 0.35:
 *     e^u = 1 + u + u^2/2! + ... + u^14/14! */
FN_INLINE double fn_exp2(fn_pair e, int64_t *exponent) {
  const double log = 0x1.62e42fefa39efp-1, log_lo = 0x1.abc9e3b39803fp-56;
  const double to_integer = 0x1.8p+52, moved = e.hi + to_integer, part = e.hi - (moved - to_integer);
  const fn_pair product = fn_product(part, log);
  const fn_pair u = fn_sum(product.hi, product.lo + (part * log_lo + e.lo * log));
  const double x = u.hi;
  double tail = x * (1.0 / 87178291200) + 1.0 / 6227020800;
  tail = (tail * x + 1.0 / 479001600) * x + 1.0 / 39916800;
  tail = (tail * x + 1.0 / 3628800) * x + 1.0 / 362880;
  tail = (tail * x + 1.0 / 40320) * x + 1.0 / 5040;
  tail = (tail * x + 1.0 / 720) * x + 1.0 / 120;
  tail = (tail * x + 1.0 / 24) * x + 1.0 / 6;
  tail = tail * x + 1.0 / 2;
  *exponent = (int64_t)(fn_bits_of_double(moved) - fn_bits_of_double(to_integer));
  return 1 + (x + (x * x * tail + (u.lo + u.lo * x)));
}

FN_INLINE double fn_two_to(fn_pair e) {
  int64_t exponent;
  const double above = e.hi < -2000 ? -2000 : e.hi, bounded = above > 2000 ? 2000 : above;
  const fn_pair within = {bounded, bounded == e.hi ? e.lo : 0};
  const double m = fn_exp2(within, &exponent);
  return fn_times_two_to(m, exponent);
}

/* y so near its end of the range that x^y is 0, 1 or infinity, but can still be split. */
FN_INLINE double fn_bounded(double y) {
  const double most = 0x1p+70;
  return y > most ? most : y < -most ? -most : y;
}

/* y * e, of a logarithm. */
FN_INLINE fn_pair fn_times(fn_pair e, double y) {
  const fn_pair product = fn_product(e.hi, y);
  return fn_sum(product.hi, product.lo + e.lo * y);
}

/* log2(v), 0 < v < infinity. */
static fn_pair fn_log2(double v) {
  const int tiny = v < 0x1p-1022;
  fn_pair log = fn_log2_of_normal(tiny ? v * 0x1p+54 : v);
  if (!tiny) return log;
  const fn_pair sum = fn_sum(log.hi - 54, log.lo); /* both are above 2^9: nothing is rounded but their end */
  const double rest = log.hi - (sum.hi + 54);
  return fn_sum(sum.hi, sum.lo + rest);
}

static inline int fn_is_odd(double y) { return fabs(y) < 0x1p+53 && ((int64_t)y & 1); }

/* x^y as C defines pow, but for the sign of powers of -0, which is +. */
static double fn_power(double x, double y) {
  const double size = fabs(x);
  if (y == 0 || x == 1) return 1;
  if (x != x || y != y) return __builtin_nan("");
  if (size == 0 || size > 0x1.fffffffffffffp+1023) {
    const double limit = (size == 0) == (y > 0) ? 0 : __builtin_inf();
    return x < 0 && fn_is_odd(y) ? -limit : limit;
  }
  if (x < 0 && fabs(y) < 0x1p+53 && (double)(int64_t)y != y) return __builtin_nan("");
  const double power = fn_two_to(fn_times(fn_log2(size), fn_bounded(y)));
  return x < 0 && fn_is_odd(y) ? -power : power;
}

/* to[i] = x[i]^y */
static void fn_powers(double *restrict to, const double *restrict x, int64_t n, double y) {
  const double bounded = fn_bounded(y);
  FN_IVDEP
  for (int64_t i = 0; i < n; i++) {
    const double v = x[i], normal = v >= 0x1p-1022 ? v : 1, usual = normal <= 0x1.fffffffffffffp+1023 ? normal : 1;
    to[i] = fn_two_to(fn_times(fn_log2_of_normal(usual), bounded));
  }
  for (int64_t i = 0; i < n; i++)
    if (!(x[i] >= 0x1p-1022 && x[i] <= 0x1.fffffffffffffp+1023)) to[i] = fn_power(x[i], y);
}

/* x^(1/p), x >= 0, p not 0: without the rounding of 1/p. */
static double fn_root(double x, double p) {
  if (x == 1) return 1;
  if (x != x) return __builtin_nan("");
  if (x == 0 || x > 0x1.fffffffffffffp+1023) return (x == 0) == (p > 0) ? 0 : __builtin_inf();
  const double least = 0x1p-70, size = fabs(p) < least ? least : fabs(p) > 0x1p+200 ? 0x1p+200 : fabs(p);
  const double by = p < 0 ? -size : size;
  const fn_pair log = fn_log2(x);
  const double e = log.hi / by;
  const fn_pair back = fn_product(e, by);
  return fn_two_to(fn_sum(e, (((log.hi - back.hi) - back.lo) + log.lo) / by));
}
