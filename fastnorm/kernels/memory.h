/* What does not depend on the type of an element: offsets, stores past the cache, storage types, kinds of apply loops.
 */

/* Byte offset of element `index` of a nest of axes, along the stride named by `member`. */
#define FN_OFFSET(axes, ndim, index, member) fn_offset((axes), (ndim), (index), offsetof(fn_axis, member))

static inline int64_t fn_offset(const fn_axis *axes, int ndim, int64_t index, size_t member) {
  int64_t offset = 0;
  for (int a = ndim - 1; a > 0; a--) {
    offset += (index % axes[a].size) * *(const int64_t *)((const char *)&axes[a] + member);
    index /= axes[a].size;
  }
  return ndim > 0 ? offset + index * *(const int64_t *)((const char *)&axes[0] + member) : 0;
}

#if defined(__has_builtin)
#define FN_HAS_SHUFFLE __has_builtin(__builtin_shufflevector)
#else
#define FN_HAS_SHUFFLE 0
#endif

/* A vector register to aligned memory, past the cache. */
static inline void fn_store_past_cache(void *to, const void *from) {
#if defined(__x86_64__)
  typedef long long vector __attribute__((vector_size(FN_VECTOR), may_alias));
  typedef long long loose __attribute__((vector_size(FN_VECTOR), aligned(1), may_alias));
  const vector value = *(const loose *)from;
#if defined(__clang__)
  __builtin_nontemporal_store(value, (vector *)to);
#elif FN_VECTOR == 64
  __builtin_ia32_movntdq512((vector *)to, value);
#elif FN_VECTOR == 32
  __builtin_ia32_movntdq256((vector *)to, value);
#else
  __builtin_ia32_movntdq((vector *)to, value);
#endif
#else
  memcpy(to, from, FN_VECTOR);
#endif
}

/* Copies to memory that won't be read again soon. The partial cache lines at the ends go the ordinary way. */
static void fn_stream(char *to, const char *from, int64_t bytes) {
  int64_t head = -(intptr_t)to & 63;
  if (head > bytes) head = bytes;
  memcpy(to, from, (size_t)head);
  to += head, from += head, bytes -= head;
  for (; bytes >= 64; to += 64, from += 64, bytes -= 64)
    for (int i = 0; i < 64; i += FN_VECTOR) fn_store_past_cache(to + i, from + i);
  memcpy(to, from, (size_t)bytes);
}

/* Streamed stores become visible to other threads. */
static inline void fn_stream_end(void) {
#if defined(__x86_64__)
  __builtin_ia32_sfence();
#endif
}

/* Narrow strips whose rows follow each other in memory are worked on several rows at a time, as one wide row: how many
 * rows. The wide row is a multiple of eight elements wherever a strip has room for that. */
static inline int64_t fn_group_rows(int64_t cols) {
  int64_t group = FN_STRIP / cols, whole = 8;
  while (whole > 1 && (cols * whole / 2) % 8 == 0) whole /= 2;
  return group > whole ? group - group % whole : group;
}

static inline uint16_t fn_swap16(uint16_t v) { return (uint16_t)(v << 8 | v >> 8); }
static inline uint32_t fn_swap32(uint32_t v) { return __builtin_bswap32(v); }
static inline uint64_t fn_swap64(uint64_t v) { return __builtin_bswap64(v); }

/* Storage type, C type, its bits, and how they are swapped. */
#define FN_STORAGE(X)                                                                                                  \
  X(FN_F32, float, uint32_t, fn_swap32)                                                                                \
  X(FN_F64, double, uint64_t, fn_swap64)                                                                               \
  X(FN_I8, int8_t, uint8_t, )                                                                                          \
  X(FN_U8, uint8_t, uint8_t, )                                                                                         \
  X(FN_I16, int16_t, uint16_t, fn_swap16)                                                                              \
  X(FN_U16, uint16_t, uint16_t, fn_swap16)                                                                             \
  X(FN_I32, int32_t, uint32_t, fn_swap32)                                                                              \
  X(FN_U32, uint32_t, uint32_t, fn_swap32)                                                                             \
  X(FN_I64, int64_t, uint64_t, fn_swap64)                                                                              \
  X(FN_U64, uint64_t, uint64_t, fn_swap64)

/* The stretch of at most `left` elements, from number `start` on, that lies along the innermost axis. */
typedef struct {
  int64_t offset, count;
} fn_run;

static inline fn_run fn_next_run(const fn_axis *axes, int ndim, int64_t start, int64_t left, size_t member) {
  if (ndim == 0) return (fn_run){0, 1};
  int64_t rest = axes[ndim - 1].size - start % axes[ndim - 1].size;
  return (fn_run){fn_offset(axes, ndim, start, member), rest < left ? rest : left};
}

/* The kinds of apply loops: what they have beside a center and a scale, and where they store. */
enum { FN_WITH_LO = 1, FN_WITH_WEIGHT = 2, FN_WITH_BIAS = 4, FN_PAST_CACHE = 8 };
#define FN_KINDS_IN_CACHE(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7)
#define FN_KINDS(X) FN_KINDS_IN_CACHE(X) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)

static inline int fn_kind(int with_lo, const void *weight, const void *bias, int past_cache) {
  return (with_lo ? FN_WITH_LO : 0) | (weight ? FN_WITH_WEIGHT : 0) | (bias ? FN_WITH_BIAS : 0) |
         (past_cache ? FN_PAST_CACHE : 0);
}
