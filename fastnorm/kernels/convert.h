/* Between memory as it is and tiles of one type.
 *
 * A kernel asks for a pointer to contiguous elements. Where memory already is that, it gets memory itself; otherwise a
 * tile in scratch, filled here.
 */

static void FN(gather_run)(T *to, const char *from, int64_t count, int64_t step, int dtype, int swapped) {
#if FN_COMPUTES
  if (FN_TYPE == FN_F32 && fn_is_half(dtype) && !swapped && step == 2) {
    fn_widen((float *)(void *)to, from, count, dtype);
    return;
  }
#endif
  switch (dtype) {
#define FN_CASE(code, type, bits, swap, widen)                                                                         \
  case code:                                                                                                           \
    if (swapped) {                                                                                                     \
      for (int64_t i = 0; i < count; i++) {                                                                            \
        bits raw;                                                                                                      \
        type value;                                                                                                    \
        memcpy(&raw, from + i * step, sizeof raw);                                                                     \
        raw = swap(raw);                                                                                               \
        memcpy(&value, &raw, sizeof value);                                                                            \
        to[i] = (T)widen(value);                                                                                       \
      }                                                                                                                \
    } else if (step == (int64_t)sizeof(type)) {                                                                        \
      for (int64_t i = 0; i < count; i++) {                                                                            \
        type value;                                                                                                    \
        memcpy(&value, from + i * (int64_t)sizeof value, sizeof value);                                                \
        to[i] = (T)widen(value);                                                                                       \
      }                                                                                                                \
    } else {                                                                                                           \
      for (int64_t i = 0; i < count; i++) {                                                                            \
        type value;                                                                                                    \
        memcpy(&value, from + i * step, sizeof value);                                                                 \
        to[i] = (T)widen(value);                                                                                       \
      }                                                                                                                \
    }                                                                                                                  \
    break;
    FN_SOURCES(FN_CASE)
#undef FN_CASE
  }
}

/* Is an array stored in this very type, in reach of ordinary loads and stores? */
static inline int FN(native)(const fn_array *array) {
  return array->dtype == FN_TYPE && !array->swapped && array->aligned;
}

/* `count` reduced elements of the kept index at `base`, from number `start` on: contiguous, in memory or in `tile`. */
static const T *FN(load)(const fn_job *job, int which, const char *base, int64_t start, int64_t count, T *tile) {
  const fn_array *array = &job->array[which];
  const int64_t step = fn_step(job, which);
  fn_run run = fn_next_run(job, which, start, count);
  if (FN(native)(array) && run.count == count && (step == (int64_t)sizeof(T) || count == 1))
    return (const T *)(const void *)(base + run.offset);
  for (int64_t at = 0; at < count; at += run.count) {
    run = fn_next_run(job, which, start + at, count - at);
    FN(gather_run)(tile + at, base + run.offset, run.count, step, array->dtype, array->swapped);
  }
  return tile;
}

/* to[c][r] = from[r][c], by blocks of four by four where the compiler can shuffle vectors. */
static void FN(turn)(T *restrict to, int64_t to_stride, const T *restrict from, int64_t from_stride, int64_t rows,
                     int64_t cols) {
  int64_t r = 0;
#if FN_HAS_SHUFFLE
  typedef T quad __attribute__((vector_size(4 * sizeof(T)), aligned(sizeof(T)), may_alias));
#define FN_QUAD(base, stride, i, j) (*(quad *)(void *)((base) + (i) * (stride) + (j)))
#define FN_SHUFFLE __builtin_shufflevector
  for (; r + 4 <= rows; r += 4) {
    int64_t c = 0;
    for (int64_t k = 0; k < 4 * cols && from_stride == cols; k += 64 / (int64_t)sizeof(T)) /* rows that follow */
      __builtin_prefetch((const char *)(from + r * cols + k) + 16384);
    for (; c + 4 <= cols; c += 4) {
      const quad a0 = *(const quad *)(const void *)(from + r * from_stride + c);
      const quad a1 = *(const quad *)(const void *)(from + (r + 1) * from_stride + c);
      const quad a2 = *(const quad *)(const void *)(from + (r + 2) * from_stride + c);
      const quad a3 = *(const quad *)(const void *)(from + (r + 3) * from_stride + c);
      const quad lo01 = FN_SHUFFLE(a0, a1, 0, 4, 1, 5), hi01 = FN_SHUFFLE(a0, a1, 2, 6, 3, 7);
      const quad lo23 = FN_SHUFFLE(a2, a3, 0, 4, 1, 5), hi23 = FN_SHUFFLE(a2, a3, 2, 6, 3, 7);
      FN_QUAD(to, to_stride, c, r) = FN_SHUFFLE(lo01, lo23, 0, 1, 4, 5);
      FN_QUAD(to, to_stride, c + 1, r) = FN_SHUFFLE(lo01, lo23, 2, 3, 6, 7);
      FN_QUAD(to, to_stride, c + 2, r) = FN_SHUFFLE(hi01, hi23, 0, 1, 4, 5);
      FN_QUAD(to, to_stride, c + 3, r) = FN_SHUFFLE(hi01, hi23, 2, 3, 6, 7);
    }
    for (; c < cols; c++)
      for (int k = 0; k < 4; k++) to[c * to_stride + r + k] = from[(r + k) * from_stride + c];
  }
#undef FN_SHUFFLE
#undef FN_QUAD
#endif
  for (; r < rows; r++)
    for (int64_t c = 0; c < cols; c++) to[c * to_stride + r] = from[r * from_stride + c];
}

#if FN_COMPUTES
/* Is an array stored as halves in machine order? */
static inline int FN(holds_halves)(const fn_job *job, int which) {
  return FN_TYPE == FN_F32 && fn_is_half(job->array[which].dtype) && !job->array[which].swapped;
}

/* Do rows of `cols` elements of such an array follow each other? */
static inline int FN(packs_halves)(const fn_job *job, int which, int64_t cols) {
  return FN(holds_halves)(job, which) && job->stretch[which] == job->n && (cols == 1 || job->inner.step[which] == 2) &&
         (job->n == 1 || fn_step(job, which) == 2 * cols);
}

/* Of rows that pass through a tile on their way, few enough to stay in the L1 cache; others are visited at once. */
static inline int64_t FN(rows_at_once)(const fn_job *job, int which, int64_t rows, int64_t cols) {
  const int64_t few = FN_TILE / cols;
  if (!fn_is_half(job->array[which].dtype)) return rows;
  return few < 1 ? 1 : few;
}

/* Columns of halves that each lie in one piece, `across` bytes apart. */
static void FN(turn_halves)(T *to, const char *from, int64_t across, int64_t rows, int64_t cols, int dtype) {
  enum { ROWS = 64, COLS = 16 };
  T wide[ROWS * COLS];
  for (int64_t c = 0; c < cols; c += COLS)
    for (int64_t r = 0; r < rows; r += ROWS) {
      const int64_t count = cols - c < COLS ? cols - c : COLS, deep = rows - r < ROWS ? rows - r : ROWS;
      for (int64_t k = 0; k < count; k++)
        fn_widen((float *)(void *)(wide + k * deep), from + (c + k) * across + 2 * r, deep, dtype);
      FN(turn)(to + r * cols + c, cols, wide, deep, count, deep);
    }
}
#endif

/* Rows start <= i < start + rows of the columns that begin at `base`: a pointer and, in `stride`, elements per row. */
static const T *FN(load_columns)(const fn_job *job, int which, const char *base, int64_t start, int64_t rows,
                                 int64_t cols, T *tile, int64_t *stride) {
  const fn_array *array = &job->array[which];
  const int64_t size = (int64_t)sizeof(T), step = fn_step(job, which), across = job->inner.step[which];
  if (FN(native)(array) && job->stretch[which] == job->n && (across == size || cols == 1)) {
    *stride = step / size;
    if (*stride * size == step) return (const T *)(const void *)(base + start * step);
  }
  *stride = cols;
  if (FN(native)(array) && job->stretch[which] == job->n && step == size && across % size == 0) {
    FN(turn)(tile, cols, (const T *)(const void *)base + start, across / size, cols, rows);
    return tile;
  }
  if (across == 0 && cols > 1 && job->stretch[which] == job->n) { /* one column, repeated from the end of the tile */
    T *column = tile + rows * (cols - 1);
    FN(gather_run)(column, base + start * step, rows, step, array->dtype, array->swapped);
    for (int64_t i = 0; i < rows; i++) {
      const T value = column[i];
      for (int64_t j = 0; j < cols; j++) tile[i * cols + j] = value;
    }
    return tile;
  }
#if FN_COMPUTES
  if (FN(packs_halves)(job, which, cols)) {
    fn_widen((float *)(void *)tile, base + start * step, rows * cols, array->dtype);
    return tile;
  }
  if (FN(holds_halves)(job, which) && job->stretch[which] == job->n && step == 2) {
    FN(turn_halves)(tile, base + 2 * start, across, rows, cols, array->dtype);
    return tile;
  }
#endif
  for (int64_t i = 0; i < rows; i++)
    FN(gather_run)(tile + i * cols, base + fn_along(job, which, start + i), cols, across, array->dtype, array->swapped);
  return tile;
}

#if FN_COMPUTES
static void FN(scatter_run)(char *to, const T *from, int64_t count, int64_t step, int dtype) {
  if (FN_TYPE == FN_F32 && fn_is_half(dtype)) {
    const float *values = (const float *)(const void *)from;
    if (step == 2) {
      fn_narrow(to, values, count, dtype);
      return;
    }
    for (int64_t i = 0; i < count; i++) {
      const uint16_t half = dtype == FN_F16 ? fn_narrow_f16(values[i]) : fn_narrow_bf16(values[i]);
      memcpy(to + i * step, &half, sizeof half);
    }
    return;
  }
  if (step == (int64_t)sizeof *from) {
    memcpy(to, from, (size_t)count * sizeof *from);
    return;
  }
  for (int64_t i = 0; i < count; i++) memcpy(to + i * step, from + i, sizeof *from);
}

/* Numbers that follow each other leave as halves; `spare` has room for them. */
static void FN(leave)(char *to, const T *from, int64_t count, int dtype, int stream, void *spare) {
  fn_narrow(stream ? spare : to, (const float *)(const void *)from, count, dtype);
  if (stream) fn_stream(to, spare, 2 * count);
}

/* `from` becomes elements of an array from number `start` on: the way back. */
static void FN(store)(const fn_job *job, int which, char *base, int64_t start, int64_t count, const T *from) {
  for (int64_t at = 0; at < count;) {
    const fn_run run = fn_next_run(job, which, start + at, count - at);
    FN(scatter_run)(base + run.offset, from + at, run.count, fn_step(job, which), job->array[which].dtype);
    at += run.count;
  }
}
#endif

/* Asks for a segment of eight rows that will be read soon: columns visited eight rows at a time are not what a
 * processor expects. */
static inline void FN(fetch)(const T *x, int64_t stride, int64_t cols) {
  for (int r = 0; r < 8; r++)
    for (int64_t j = 0; j < cols; j += 64 / (int64_t)sizeof(T)) __builtin_prefetch(x + r * stride + j);
}
