/* Half precision: float16 and bfloat16 to float and back, rounded to nearest even.
 *
 * AVX2 and AVX-512 machines convert float16 by instruction, the others by integer arithmetic; both are exact one way
 * and correctly rounded the other, so bits agree. (Compilers turn neither into packed code from the type _Float16.)
 */

static inline uint32_t fn_bits_of(float v) {
  uint32_t bits;
  memcpy(&bits, &v, sizeof bits);
  return bits;
}
static inline float fn_float_of(uint32_t bits) {
  float v;
  memcpy(&v, &bits, sizeof v);
  return v;
}

static inline float fn_widen_f16(uint16_t half) {
  const uint32_t magnitude = half & 0x7fffu, sign = (uint32_t)(half & 0x8000u) << 16;
  const uint32_t number = fn_bits_of(fn_float_of(magnitude << 13) * 0x1p+112f); /* subnormals, too */
  const uint32_t special = 0x7f800000u | magnitude << 13;
  return fn_float_of(sign | (magnitude < 0x7c00u ? number : special));
}

static inline uint16_t fn_narrow_f16(float v) {
  const uint32_t bits = fn_bits_of(v), magnitude = bits & 0x7fffffffu;
  const uint32_t normal = ((magnitude + 0xfffu + (magnitude >> 13 & 1u)) >> 13) - (112u << 10);
  const uint32_t subnormal = fn_bits_of(fn_float_of(magnitude) + 0.5f) - 0x3f000000u; /* one ulp of 0.5 is one unit */
  uint32_t half = magnitude < 0x38800000u ? subnormal : normal;
  half = magnitude >= 0x47800000u ? 0x7c00u : half;
  half = magnitude > 0x7f800000u ? 0x7e00u : half;
  return (uint16_t)(bits >> 16 & 0x8000u) | (uint16_t)half;
}

static inline float fn_widen_bf16(uint16_t half) { return fn_float_of((uint32_t)half << 16); }

static inline uint16_t fn_narrow_bf16(float v) {
  const uint32_t bits = fn_bits_of(v), rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  return (uint16_t)(v == v ? rounded : 0x7fc0u);
}

static inline int fn_is_half(int dtype) { return dtype == FN_F16 || dtype == FN_BF16; }

/* Are halves converted in registers faster than in tiles, by loops that compilers pack? Not without F16C, nor bfloat16
 * on AVX2. */
static inline int fn_converts(int dtype) { return FN_VECTOR == 64 || (FN_VECTOR == 32 && dtype == FN_F16); }

/* A vector register of floats. */
typedef float fn_floats __attribute__((vector_size(FN_VECTOR), may_alias));
typedef uint32_t fn_words __attribute__((vector_size(FN_VECTOR), may_alias));
typedef uint16_t fn_halves __attribute__((vector_size(FN_VECTOR / 2), may_alias));
enum { FN_FLOATS = FN_VECTOR / sizeof(float) };

/* A vector of halves at `from`, aligned or not, as floats. */
FN_INLINE fn_floats fn_load_halves(const char *from, int dtype) {
  fn_halves halves;
  memcpy(&halves, from, sizeof halves);
  if (dtype == FN_BF16) return (fn_floats)(__builtin_convertvector(halves, fn_words) << 16);
#if defined(__x86_64__) && FN_VECTOR == 64
  return (fn_floats)_mm512_cvtph_ps((__m256i)halves);
#elif defined(__x86_64__) && FN_VECTOR == 32
  return (fn_floats)_mm256_cvtph_ps((__m128i)halves);
#else
  fn_floats floats;
  for (int l = 0; l < FN_FLOATS; l++) floats[l] = fn_widen_f16(halves[l]);
  return floats;
#endif
}

/* And back. */
FN_INLINE void fn_store_halves(char *to, fn_floats v, int dtype) {
  fn_halves halves;
  if (dtype == FN_BF16) {
    const fn_words bits = (fn_words)v, rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16,
                   number = (fn_words)(v == v);
    halves = __builtin_convertvector((number & rounded) | (~number & 0x7fc0u), fn_halves);
  } else {
#if defined(__x86_64__) && FN_VECTOR == 64
    halves = (fn_halves)_mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT);
#elif defined(__x86_64__) && FN_VECTOR == 32
    halves = (fn_halves)_mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT);
#else
    for (int l = 0; l < FN_FLOATS; l++) halves[l] = fn_narrow_f16(v[l]);
#endif
  }
  memcpy(to, &halves, sizeof halves);
}

/* A half as a float. */
static inline float fn_widen_one(const char *from, int dtype) {
  uint16_t half;
  memcpy(&half, from, sizeof half);
  if (dtype == FN_BF16) return fn_widen_bf16(half);
#if defined(__x86_64__) && FN_VECTOR >= 32
  return _cvtsh_ss(half);
#else
  return fn_widen_f16(half);
#endif
}

/* `count` contiguous halves, aligned or not, become floats. */
static void fn_widen(float *to, const char *from, int64_t count, int dtype) {
  int64_t i = 0;
#if defined(__x86_64__) && FN_VECTOR >= 32
  for (; dtype == FN_F16 && i + FN_FLOATS <= count; i += FN_FLOATS) {
    const fn_floats v = fn_load_halves(from + 2 * i, FN_F16);
    memcpy(to + i, &v, sizeof v);
  }
#endif
#if defined(__x86_64__) && FN_VECTOR == 64
  if (dtype == FN_F16 && i < count) {
    const __mmask16 there = (__mmask16)((1u << (count - i)) - 1);
    _mm512_mask_storeu_ps(to + i, there, _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(there, from + 2 * i)));
    i = count;
  }
#endif
  for (; dtype == FN_F16 && i < count; i++) to[i] = fn_widen_one(from + 2 * i, FN_F16);
  for (; i < count; i++) to[i] = fn_widen_one(from + 2 * i, FN_BF16);
}

static void fn_widen_halves(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  const fn_array *x = &job->array[FN_X];
  (void)scratch;
  fn_widen((float *)(void *)job->array[FN_Y].data + lo, x->data + 2 * lo, hi - lo, x->dtype);
}

/* And back. */
static void fn_narrow(char *to, const float *from, int64_t count, int dtype) {
  int64_t i = 0;
#if defined(__x86_64__) && FN_VECTOR >= 32
  for (fn_floats v; dtype == FN_F16 && i + FN_FLOATS <= count; i += FN_FLOATS) {
    memcpy(&v, from + i, sizeof v);
    fn_store_halves(to + 2 * i, v, FN_F16);
  }
#endif
#if defined(__x86_64__) && FN_VECTOR == 64
  if (dtype == FN_F16 && i < count) {
    const __mmask16 there = (__mmask16)((1u << (count - i)) - 1);
    const __m512 floats = _mm512_maskz_loadu_ps(there, from + i);
    _mm256_mask_storeu_epi16(to + 2 * i, there, _mm512_cvtps_ph(floats, _MM_FROUND_TO_NEAREST_INT));
    i = count;
  }
#elif defined(__x86_64__) && FN_VECTOR == 32
  for (; dtype == FN_F16 && i < count; i++) {
    const uint16_t half = _cvtss_sh(from[i], _MM_FROUND_TO_NEAREST_INT);
    memcpy(to + 2 * i, &half, sizeof half);
  }
#else
  for (; dtype == FN_F16 && i < count; i++) {
    const uint16_t half = fn_narrow_f16(from[i]);
    memcpy(to + 2 * i, &half, sizeof half);
  }
#endif
  for (; i < count; i++) {
    const uint16_t half = fn_narrow_bf16(from[i]);
    memcpy(to + 2 * i, &half, sizeof half);
  }
}

/* A double as a float that rounds to the same half: one that is not exact is odd (Boldo, Melquiond, "When double
 * rounding is odd", 2005). Where floats are subnormal it is rounded as a bfloat16 at once: the last digit of a sum with
 * 2^-81 is that of a subnormal bfloat16, 2^-133. The float16 of what is so small is 0. */
static inline float fn_odd(double v) {
  const uint64_t lost = ((uint64_t)1 << 29) - 1; /* the digits that a float does not have */
  const double size = fabs(v), least = 0x1p-126, digits = 0x1p-81;
  uint64_t bits;
  double odd;
  memcpy(&bits, &v, sizeof bits);
  bits = (bits | ((bits & lost) + lost)) & ~lost;
  memcpy(&odd, &bits, sizeof odd);
  odd = size < least ? copysign((size + digits) - digits, v) : odd;
  return (float)(v == v ? odd : __builtin_nan(""));
}

/* Doubles rounded once, NaN to the canonical one. */
static void fn_narrow_doubles(char *to, const double *from, int64_t count, int dtype) {
  float odd[64];
  for (int64_t i = 0, some; i < count; i += some) {
    some = count - i < 64 ? count - i : 64;
    for (int64_t j = 0; j < some; j++) odd[j] = fn_odd(from[i + j]);
    fn_narrow(to + 2 * i, odd, some, dtype);
  }
}
