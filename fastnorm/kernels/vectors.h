/* Vectors of a register, and parts of one. */

typedef T FN(vector) __attribute__((vector_size(FN_VECTOR), may_alias));
typedef T FN(loose_vector) __attribute__((vector_size(FN_VECTOR), aligned(sizeof(T)), may_alias));
typedef K FN(keys) __attribute__((vector_size(FN_VECTOR), may_alias));
typedef K FN(loose_keys) __attribute__((vector_size(FN_VECTOR), aligned(sizeof(K)), may_alias));
enum { FN(WIDTH) = FN_VECTOR / sizeof(T), FN(LINE) = 64 / sizeof(T) };

FN_INLINE FN(vector) FN(load_all)(const T *from) { return *(const FN(loose_vector) *)(const void *)from; }
FN_INLINE void FN(store_all)(T *to, FN(vector) v) { *(FN(loose_vector) *)(void *)to = v; }

/* Past the cache only to what is aligned. */
FN_INLINE void FN(store_by)(T *to, FN(vector) v, int past_cache) {
  if (past_cache)
    fn_store_past_cache(to, &v);
  else
    FN(store_all)(to, v);
}

static inline FN(vector) FN(every)(T v) { return v - (FN(vector)){0}; } /* -0, too */
static inline FN(vector) FN(choose)(FN(keys) which, FN(vector) yes, FN(vector) no) {
  return (FN(vector))((which & (FN(keys))yes) | (~which & (FN(keys))no));
}

/* NaN becomes the canonical one: those of x have signs and payloads, and those of sums signs that are the processor's
 * choice. */
static inline T FN(quiet)(T v) { return v == v ? v : FN_NAN; }
static inline FN(vector) FN(quiet_vector)(FN(vector) v) {
  const FN(vector) nan = FN(every)(FN_NAN);
#if defined(__x86_64__) && FN_VECTOR == 64 /* one instruction for a comparison and a choice */
  enum { NAN_FROM_FIRST = 0x11111100 };    /* by kind of number, quiet and signalling NaN first: which operand */
  if (FN_TYPE == FN_F32)
    return (FN(vector))_mm512_fixupimm_ps((__m512)nan, (__m512)v, _mm512_set1_epi32(NAN_FROM_FIRST), 0);
  return (FN(vector))_mm512_fixupimm_pd((__m512d)nan, (__m512d)v, _mm512_set1_epi64(NAN_FROM_FIRST), 0);
#else
  return FN(choose)((FN(keys))(v == v), v, nan);
#endif
}

/* Fewer elements than a vector has; `other` behind what is loaded. */
#if defined(__x86_64__) && FN_VECTOR == 64

FN_INLINE FN(vector) FN(load_some)(const T *from, int64_t count, T other) {
  const FN(vector) v = FN(every)(other);
  const unsigned some = (1u << count) - 1;
  if (FN_TYPE == FN_F32) return (FN(vector))_mm512_mask_loadu_ps((__m512)v, (__mmask16)some, from);
  return (FN(vector))_mm512_mask_loadu_pd((__m512d)v, (__mmask8)some, from);
}

FN_INLINE void FN(store_some)(T *to, FN(vector) v, int64_t count) {
  const unsigned some = (1u << count) - 1;
  if (FN_TYPE == FN_F32)
    _mm512_mask_storeu_ps(to, (__mmask16)some, (__m512)v);
  else
    _mm512_mask_storeu_pd(to, (__mmask8)some, (__m512d)v);
}

/* The first `own` elements are `mine`, the others `other`. */
FN_INLINE FN(vector) FN(border)(int64_t own, T mine, T other) {
  const unsigned some = (1u << own) - 1;
  if (FN_TYPE == FN_F32)
    return (FN(vector))_mm512_mask_mov_ps((__m512)FN(every)(other), (__mmask16)some, (__m512)FN(every)(mine));
  return (FN(vector))_mm512_mask_mov_pd((__m512d)FN(every)(other), (__mmask8)some, (__m512d)FN(every)(mine));
}

#elif defined(__x86_64__) && FN_VECTOR == 32

FN_INLINE __m256i FN(some)(int64_t count) {
  if (FN_TYPE == FN_F32)
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  return _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), _mm256_setr_epi64x(0, 1, 2, 3));
}

FN_INLINE FN(vector) FN(load_some)(const T *from, int64_t count, T other) {
  const FN(vector) v = FN(every)(other);
  const __m256i some = FN(some)(count);
  const FN(vector) loaded = FN_TYPE == FN_F32
                                ? (FN(vector))_mm256_maskload_ps((const float *)(const void *)from, some)
                                : (FN(vector))_mm256_maskload_pd((const double *)(const void *)from, some);
  return (FN(vector))_mm256_blendv_epi8((__m256i)v, (__m256i)loaded, some);
}

FN_INLINE void FN(store_some)(T *to, FN(vector) v, int64_t count) {
  if (FN_TYPE == FN_F32)
    _mm256_maskstore_ps((float *)(void *)to, FN(some)(count), (__m256)v);
  else
    _mm256_maskstore_pd((double *)(void *)to, FN(some)(count), (__m256d)v);
}

#else

FN_INLINE FN(vector) FN(load_some)(const T *from, int64_t count, T other) {
  T each[FN(WIDTH)];
  for (int i = 0; i < FN(WIDTH); i++) each[i] = other;
  for (int64_t i = 0; i < count; i++) each[i] = from[i];
  return FN(load_all)(each);
}

FN_INLINE void FN(store_some)(T *to, FN(vector) v, int64_t count) {
  T each[FN(WIDTH)];
  FN(store_all)(each, v);
  for (int64_t i = 0; i < count; i++) to[i] = each[i];
}

#endif

#if !defined(__x86_64__) || FN_VECTOR != 64
/* Likewise, for any number of `own` elements. */
FN_INLINE FN(vector) FN(border)(int64_t own, T mine, T other) {
  static const K count[] = {0, 1, 2, 3, 4, 5, 6, 7};
  const FN(keys) some = *(const FN(loose_keys) *)(const void *)count < (K)own;
  return FN(choose)(some, FN(every)(mine), FN(every)(other));
}
#endif
