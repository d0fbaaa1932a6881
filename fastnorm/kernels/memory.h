/* Addresses and stores that do not depend on the type of an element. */

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

#if defined(__x86_64__)
typedef long long fn_quarter_line __attribute__((vector_size(16)));
typedef fn_quarter_line fn_loose_line __attribute__((aligned(1), may_alias));

static inline void fn_store_past_cache(char *to, const char *from) {
  const fn_quarter_line value = *(const fn_loose_line *)(const void *)from;
#if defined(__clang__)
  __builtin_nontemporal_store(value, (fn_quarter_line *)(void *)to);
#else
  __builtin_ia32_movntdq((fn_quarter_line *)(void *)to, value);
#endif
}
#endif

#if defined(__has_builtin)
#define FN_HAS_SHUFFLE __has_builtin(__builtin_shufflevector)
#else
#define FN_HAS_SHUFFLE 0
#endif

/* Copies to memory that won't be read again soon. The partial cache lines at the ends go the ordinary way. */
static void fn_stream(char *to, const char *from, int64_t bytes) {
#if defined(__x86_64__)
  int64_t head = -(intptr_t)to & 63;
  if (head > bytes) head = bytes;
  memcpy(to, from, (size_t)head);
  to += head, from += head, bytes -= head;
  for (; bytes >= 64; to += 64, from += 64, bytes -= 64)
    for (int i = 0; i < 64; i += 16) fn_store_past_cache(to + i, from + i);
#endif
  memcpy(to, from, (size_t)bytes);
}

/* Streamed stores become visible to other threads. */
static inline void fn_stream_end(void) {
#if defined(__x86_64__)
  __builtin_ia32_sfence();
#endif
}

/* Narrow strips whose rows follow each other in memory are worked on `group` rows at a time, as one wide row. The
 * result is a multiple of the vector width wherever a strip has room for that. */
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
