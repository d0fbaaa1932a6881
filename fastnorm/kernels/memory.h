/* What does not depend on the type of an element: offsets, stores past the cache, storage types, kinds of apply loops.
 */

/* How far element `index` of a nest of axes is from the first, in steps of kind `which`. */
static inline int64_t fn_offset(const fn_axis *axes, int ndim, int64_t index, int which) {
  int64_t offset = 0;
  for (int a = ndim - 1; a > 0; a--) {
    offset += index % axes[a].size * axes[a].step[which];
    index /= axes[a].size;
  }
  return ndim > 0 ? offset + index * axes[0].step[which] : 0;
}

/* Where column j of problem `outer` begins: in an array, and among the statistics. */
static inline char *fn_base(const fn_job *job, int which, int64_t outer, int64_t j) {
  return job->array[which].data + fn_offset(job->kept, job->kept_ndim, outer, which) + j * job->inner.step[which];
}
static inline int64_t fn_place(const fn_job *job, int64_t outer, int64_t j) {
  return job->p + fn_offset(job->kept, job->kept_ndim, outer, FN_P) + j * job->inner.step[FN_P];
}

/* Where among weight and bias those of a kept index begin whose statistics stand at p. Channel norms have one each. */
static inline int64_t fn_set(const fn_job *job, int64_t p) { return p % job->period * job->unit; }
static inline int fn_is_shifted(const fn_job *job) { return job->unit == 1; }

/* Which channel's are the statistics that stand at p. */
static inline int64_t fn_channel(const fn_job *job, int64_t p) { return p / job->places % job->period; }

/* The numbers of the channels of some columns whose statistics stand `step` apart from p on; `none` if not given. */
static const double *fn_operand(const fn_job *job, const double *values, double none, int64_t p, int64_t step,
                                int64_t cols, double *room) {
  const int64_t first = fn_channel(job, p);
  if (values && (cols == 1 || (step == 1 && job->places == 1 && first + cols <= job->period))) return values + first;
  for (int64_t j = 0; j < cols; j++) room[j] = values ? values[fn_channel(job, p + j * step)] : none;
  return room;
}

/* Element `index` of a reduced nest: its offset in an array, or its place among the parameters. */
static inline int64_t fn_along(const fn_job *job, int which, int64_t index) {
  return fn_offset(job->reduced, job->reduced_ndim, index, which);
}

#if defined(__has_builtin)
#define FN_HAS_SHUFFLE __has_builtin(__builtin_shufflevector)
#else
#define FN_HAS_SHUFFLE 0
#endif

/* Memory is asked for what stands FN_EARLY bytes behind these of an array that is read from end to end: processors
 * follow such a stream by themselves, but not far enough for the time that arithmetic leaves between two lines. */
static inline void fn_ask(const void *from, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch((const void *)((uintptr_t)from + (uintptr_t)i + FN_EARLY));
}

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

/* Storage type, C type, its bits, how they are swapped, and the number that they are. */
#define FN_AS_IS(v) (v)
#define FN_HALVES(X)                                                                                                   \
  X(FN_F16, uint16_t, uint16_t, fn_swap16, fn_widen_f16)                                                               \
  X(FN_BF16, uint16_t, uint16_t, fn_swap16, fn_widen_bf16)
#define FN_STORAGE(X)                                                                                                  \
  X(FN_F32, float, uint32_t, fn_swap32, FN_AS_IS)                                                                      \
  X(FN_F64, double, uint64_t, fn_swap64, FN_AS_IS)                                                                     \
  FN_HALVES(X)                                                                                                         \
  X(FN_I8, int8_t, uint8_t, , FN_AS_IS)                                                                                \
  X(FN_U8, uint8_t, uint8_t, , FN_AS_IS)                                                                               \
  X(FN_I16, int16_t, uint16_t, fn_swap16, FN_AS_IS)                                                                    \
  X(FN_U16, uint16_t, uint16_t, fn_swap16, FN_AS_IS)                                                                   \
  X(FN_I32, int32_t, uint32_t, fn_swap32, FN_AS_IS)                                                                    \
  X(FN_U32, uint32_t, uint32_t, fn_swap32, FN_AS_IS)                                                                   \
  X(FN_I64, int64_t, uint64_t, fn_swap64, FN_AS_IS)                                                                    \
  X(FN_U64, uint64_t, uint64_t, fn_swap64, FN_AS_IS)

/* Of at most `left` elements from number `start` on, those that lie one step apart. */
typedef struct {
  int64_t offset, count;
} fn_run;

static inline fn_run fn_next_run(const fn_job *job, int which, int64_t start, int64_t left) {
  if (job->reduced_ndim == 0) return (fn_run){0, 1};
  const int64_t rest = job->stretch[which] - start % job->stretch[which];
  return (fn_run){fn_along(job, which, start), rest < left ? rest : left};
}

/* That step. */
static inline int64_t fn_step(const fn_job *job, int which) {
  return job->reduced_ndim ? job->reduced[job->reduced_ndim - 1].step[which] : 0;
}

/* The kinds of apply loops: what they have beside a center and a scale, and where they store. About zero: no center. */
enum {
  FN_WITH_LO = 1,
  FN_WITH_WEIGHT = 2,
  FN_WITH_BIAS = 4,
  FN_PAST_CACHE = 8,
  FN_AT_ZERO = 16,
  FN_WITH_SHIFT = 32, /* of a row or column, whose scale holds the weight */
  FN_WITH_RELU = 64,
  FN_WITH_TOP = 512, /* what lies above it is cut off: of a range, whose shift is its end below */
  FN_ACROSS = 1024   /* center, scale and shift are those of columns: one for each element */
};
#define FN_SHIFT_KINDS_OF(X, stores)                                                                                   \
  X((stores) | FN_WITH_SHIFT)                                                                                          \
  X((stores) | FN_WITH_SHIFT | FN_WITH_TOP)                                                                            \
  X((stores) | FN_WITH_SHIFT | FN_WITH_LO)                                                                             \
  X((stores) | FN_WITH_SHIFT | FN_WITH_RELU)                                                                           \
  X((stores) | FN_WITH_SHIFT | FN_WITH_RELU | FN_WITH_LO)
#define FN_KINDS_OF(X, stores)                                                                                         \
  X(stores)                                                                                                            \
  X((stores) | FN_WITH_LO)                                                                                             \
  X((stores) | FN_WITH_WEIGHT)                                                                                         \
  X((stores) | FN_WITH_WEIGHT | FN_WITH_LO)                                                                            \
  X((stores) | FN_WITH_BIAS)                                                                                           \
  X((stores) | FN_WITH_BIAS | FN_WITH_LO)                                                                              \
  X((stores) | FN_WITH_BIAS | FN_WITH_WEIGHT)                                                                          \
  X((stores) | FN_WITH_BIAS | FN_WITH_WEIGHT | FN_WITH_LO)                                                             \
  X((stores) | FN_AT_ZERO) /* an RMS norm has no residual and no bias */                                               \
  X((stores) | FN_AT_ZERO | FN_WITH_WEIGHT)                                                                            \
  FN_SHIFT_KINDS_OF(X, stores)
#define FN_KINDS(X) FN_KINDS_OF(X, 0) FN_KINDS_OF(X, FN_PAST_CACHE)
#define FN_SHIFT_KINDS(X) FN_SHIFT_KINDS_OF(X, 0) FN_SHIFT_KINDS_OF(X, FN_PAST_CACHE)

static inline int fn_kind(int with_lo, int at_zero, const void *weight, const void *bias, int past_cache) {
  return (with_lo ? FN_WITH_LO : 0) | (weight ? FN_WITH_WEIGHT : 0) | (bias ? FN_WITH_BIAS : 0) |
         (past_cache ? FN_PAST_CACHE : 0) | (at_zero && !bias ? FN_AT_ZERO : 0);
}

/* The kinds of rescaling: which way, and with what. A shift comes with bounds; a center always stands there. */
enum { FN_WITH_SCALE = 128, FN_INVERSE = 256 };
#define FN_RESCALE_KINDS_OF(X, way)                                                                                    \
  X(way)                                                                                                               \
  X((way) | FN_WITH_LO)                                                                                                \
  X((way) | FN_WITH_SCALE)                                                                                             \
  X((way) | FN_WITH_SCALE | FN_WITH_LO)                                                                                \
  X((way) | FN_WITH_SHIFT)                                                                                             \
  X((way) | FN_WITH_SHIFT | FN_WITH_LO)                                                                                \
  X((way) | FN_WITH_SHIFT | FN_WITH_SCALE)                                                                             \
  X((way) | FN_WITH_SHIFT | FN_WITH_SCALE | FN_WITH_LO)
#define FN_RESCALE_KINDS(X) FN_RESCALE_KINDS_OF(X, 0) FN_RESCALE_KINDS_OF(X, FN_INVERSE)

/* But for a residual. */
static inline int fn_rescale_kind(const fn_job *job) {
  const int bounded = job->least >= -0x1.fffffffffffffp+1023 || job->most <= 0x1.fffffffffffffp+1023;
  return (job->inverse ? FN_INVERSE : 0) | (job->scale ? FN_WITH_SCALE : 0) |
         (job->shift || bounded ? FN_WITH_SHIFT : 0);
}
