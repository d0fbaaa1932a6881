/* Rescaling by given numbers, one set per channel:
 *
 *     y = ((x - center) - center_lo) / scale + shift      inverse: y = ((x - shift) * scale + center_lo) + center
 *
 * and clipped. What lies evenly in memory is one run, be it of one channel or of rows of channels, and goes by cache
 * lines of y: the operands stand in a row that is repeated, and a line begins anywhere in it. The same pass notices NaN
 * and infinity in x. There is nothing to sum, so how elements are cut into runs decides no bit.
 */

/* What a run is rescaled by: operands of `cols` columns, repeated up to `wide` and a line behind that. A scale of NaN
 * leaves a column that the compute type cannot hold to double. */
typedef struct {
  T center[FN_STRIP + FN(LINE)], center_lo[FN_STRIP + FN(LINE)], scale[FN_STRIP + FN(LINE)], shift[FN_STRIP + FN(LINE)];
  T least, most;
  int64_t cols, wide;
  int64_t p, step; /* where the first column stands among the kept indices, and how far apart they are */
  int kind, all;   /* nothing is left to double */
  int past_cache;
  FN(keys) nan, infinite; /* negative somewhere: x held one */
} FN(rescaling);

static inline int64_t FN(channel_at)(const fn_job *job, const FN(rescaling) *by, int64_t column) {
  return (by->p + column % by->cols * by->step) / job->places % job->period;
}

/* An operand of some columns; `none` for one that is not given. */
static const double *FN(operand)(const fn_job *job, const double *values, double none, const FN(rescaling) *by,
                                 double *room) {
  const int64_t cols = by->cols, first = FN(channel_at)(job, by, 0);
  if (values && (cols == 1 || (by->step == 1 && job->places == 1 && first + cols <= job->period)))
    return values + first;
  for (int64_t j = 0; j < cols; j++) room[j] = values ? values[FN(channel_at)(job, by, j)] : none;
  return room;
}

/* Operands of the columns that stand from p on, a `step` apart. What is not given changes no value and no sign of 0. */
static void FN(fill_rescaling)(const fn_job *job, int64_t p, int64_t step, int64_t cols, FN(rescaling) *by) {
  const double plus = job->inverse ? -0.0 : 0.0, minus = -plus; /* neutral: x - 0.0, and x + -0.0 */
  const int single = FN_TYPE == FN_F32;
  double rooms[4][FN_STRIP];
  T *lists[] = {by->center, by->center_lo, by->scale, by->shift};
  by->p = p;
  by->step = step;
  by->cols = cols;
  const double *center = FN(operand)(job, job->center, plus, by, rooms[0]);
  const double *center_lo = FN(operand)(job, job->center_lo, 0, by, rooms[1]);
  const double *scale = FN(operand)(job, job->scale, 1, by, rooms[2]);
  const double *shift = FN(operand)(job, job->shift, minus, by, rooms[3]);
  FN_IVDEP
  for (int64_t j = 0; j < cols; j++) {
    const T c = (T)center[j], s = (T)scale[j], rest = (T)((single ? center[j] - (double)c : 0) + center_lo[j]);
    const double size = fabs(scale[j]), none = __builtin_nan("");
    /* Sums and differences with these overflow only where they do in double, and the scale loses no digits. */
    double held = size >= 0x1p-126 ? scale[j] : none;
    held = size <= 0x1.fffffep+127 ? held : none;
    held = fabs(center[j]) <= FN_MOST_SCALE ? held : none;
    held = fabs(center_lo[j]) <= FN_MOST_SCALE ? held : none;
    held = fabs(shift[j]) <= FN_MOST_SCALE ? held : none;
    by->center[j] = c;
    by->center_lo[j] = rest == 0 ? (T)plus : rest;
    by->scale[j] = single ? (T)held : s;
    by->shift[j] = (T)shift[j];
  }
  int with_lo = 0, all = 1;
  for (int64_t j = 0; j < cols; j++) with_lo |= by->center_lo[j] != 0;
  for (int64_t j = 0; j < cols && single; j++) all &= by->scale[j] == by->scale[j];
  by->wide = (FN(LINE) + cols - 1) / cols * cols;
  for (int k = 0; k < 4; k++)
    for (int64_t j = cols; j < by->wide + FN(LINE); j++) lists[k][j] = lists[k][j - cols];
  by->least = (T)job->least;
  by->most = (T)job->most;
  by->kind = fn_rescale_kind(job) | (with_lo ? FN_WITH_LO : 0);
  by->all = all;
}

/* ---- one line ---------------------------------------------------------------------------------------------------- */

/* In the order of the formula, for numbers and vectors alike. */
#define FN_RESCALE(v, center, center_lo, scale, shift, kind)                                                           \
  do {                                                                                                                 \
    if ((kind) & FN_INVERSE) {                                                                                         \
      if ((kind) & FN_WITH_SHIFT) (v) -= (shift);                                                                      \
      if ((kind) & FN_WITH_SCALE) (v) *= (scale);                                                                      \
      if ((kind) & FN_WITH_LO) (v) += (center_lo);                                                                     \
      (v) += (center);                                                                                                 \
    } else {                                                                                                           \
      (v) -= (center);                                                                                                 \
      if ((kind) & FN_WITH_LO) (v) -= (center_lo);                                                                     \
      if ((kind) & FN_WITH_SCALE) (v) /= (scale);                                                                      \
      if ((kind) & FN_WITH_SHIFT) (v) += (shift);                                                                      \
    }                                                                                                                  \
  } while (0)

static inline FN(vector) FN(choose)(FN(keys) which, FN(vector) yes, FN(vector) no) {
  return (FN(vector))((which & (FN(keys))yes) | (~which & (FN(keys))no));
}

/* The last of what is done to values: NaN stays, as the canonical one. */
static inline FN(vector) FN(bounded)(FN(vector) v, T least, T most, int kind) {
  const FN(vector) none = {0};
  if (kind & FN_WITH_SHIFT) {
    v = FN(choose)((FN(keys))(v < least), none + least, v);
    v = FN(choose)((FN(keys))(v > most), none + most, v);
  }
  return FN(choose)((FN(keys))(v == v), v, none + FN_NAN);
}

/* Bits of |x| against those of infinity: a sign in `nan` for more, in `infinite` for just that. */
static inline void FN(notice)(FN(vector) x, FN(keys) *nan, FN(keys) *infinite) {
  const K magnitude = sizeof(K) == 4 ? (K)INT32_MAX : (K)INT64_MAX;
  const FN(keys) left = FN(key)(FN_INFINITY) - ((FN(keys))x & magnitude);
  *nan |= left;
  *infinite |= (left - 1) & ~left;
}

FN_INLINE void FN(rescale_line)(T *to, const T *x, int64_t c, FN(rescaling) *by, int past_cache, int kind) {
#define FN_LOAD(from) (*(const FN(loose_vector) *)(const void *)((from) + k))
  const T *center = by->center + c, *center_lo = by->center_lo + c, *scale = by->scale + c, *shift = by->shift + c;
  for (int k = 0; k < FN(LINE); k += FN(WIDTH)) {
    FN(vector) v = FN_LOAD(x);
    FN(notice)(v, &by->nan, &by->infinite);
    FN_RESCALE(v, FN_LOAD(center), FN_LOAD(center_lo), FN_LOAD(scale), FN_LOAD(shift), kind);
    v = FN(bounded)(v, by->least, by->most, kind);
    if (past_cache)
      fn_store_past_cache(to + k, &v);
    else
      *(FN(loose_vector) *)(void *)(to + k) = v;
  }
#undef FN_LOAD
}

/* Less than a line. */
FN_INLINE void FN(rescale_part)(T *y, const T *x, int64_t n, int64_t c, FN(rescaling) *by, int kind) {
  T part[FN(LINE)] = {0};
  memcpy(part, x, (size_t)n * sizeof(T));
  FN(rescale_line)(part, part, c, by, 0, kind);
  memcpy(y, part, (size_t)n * sizeof(T));
}

/* Elements from column c on. */
FN_INLINE void FN(rescale_of)(T *y, const T *x, int64_t n, int64_t c, FN(rescaling) *by, int kind) {
  const int64_t misplaced = (int64_t)((-(uintptr_t)y & 63) / sizeof(T)), head = misplaced < n ? misplaced : n;
  FN(rescaling) *const all = by;
  int64_t i = head;
  if (head) FN(rescale_part)(y, x, head, c, all, kind);
  for (c = (c + head) % by->wide; i + FN(LINE) <= n; i += FN(LINE)) {
    __builtin_prefetch((const char *)(x + i) + 8192);
    if (by->past_cache)
      FN(rescale_line)(y + i, x + i, c, all, 1, kind);
    else
      FN(rescale_line)(y + i, x + i, c, all, 0, kind);
    c += FN(LINE);
    c = c >= by->wide ? c - by->wide : c;
  }
  if (i < n) FN(rescale_part)(y + i, x + i, n - i, c, all, kind);
}

static void FN(rescale)(T *y, const T *x, int64_t n, int64_t c, FN(rescaling) *by) {
  switch (by->kind) {
#define FN_CASE(kind)                                                                                                  \
  case kind:                                                                                                           \
    FN(rescale_of)(y, x, n, c, by, kind);                                                                              \
    break;
    FN_RESCALE_KINDS(FN_CASE)
#undef FN_CASE
  }
}

/* ---- runs -------------------------------------------------------------------------------------------------------- */

/* The elements of columns that only double holds. */
static void FN(rescale_wide)(const fn_job *job, T *y, const T *x, int64_t n, int64_t column, const FN(rescaling) *by) {
  const int kind = fn_rescale_kind(job) | (job->center_lo ? FN_WITH_LO : 0);
  const double plus = job->inverse ? -0.0 : 0.0;
  for (int64_t i = 0; i < n; i++, column++) {
    const int64_t c = FN(channel_at)(job, by, column);
    double v = (double)x[i];
    if (by->scale[column % by->cols] == by->scale[column % by->cols]) continue;
    FN_RESCALE(v, job->center ? job->center[c] : plus, job->center_lo[c], job->scale[c],
               job->shift ? job->shift[c] : -plus, kind);
    const T rounded = (T)v, above = rounded < by->least ? by->least : rounded,
            y_i = above > by->most ? by->most : above;
    y[i] = y_i == y_i ? y_i : FN_NAN;
  }
}

/* A run that begins with column 0. What memory does not hold as it is computed goes through a tile. */
static void FN(rescale_run)(const fn_job *job, char *y, int64_t y_step, const char *x, int64_t x_step, int64_t n,
                            FN(rescaling) *by, T *scratch) {
  const int64_t size = (int64_t)sizeof(T);
  const fn_array *from = &job->array[FN_X], *to = &job->array[FN_Y];
  const int read = FN(native)(from) && x_step == size, written = FN(native)(to) && y_step == size && by->all;
  T *x_tile = scratch + FN_TILE;
  by->past_cache = written && job->stream;
  const int64_t block = read && written ? n : FN_TILE;
  for (int64_t at = 0, count; at < n; at += count) {
    count = n - at < block ? n - at : block;
    char *y_at = y + at * y_step;
    T *out = written ? (T *)(void *)y_at : scratch;
    if (!read) FN(gather_run)(x_tile, x + at * x_step, count, x_step, from->dtype, from->swapped);
    const T *values = read ? (const T *)(const void *)x + at : x_tile;
    FN(rescale)(out, values, count, at % by->wide, by);
    if (!by->all) FN(rescale_wide)(job, out, values, count, at, by);
    if (written) continue;
    if (job->stream && y_step == 2 && fn_is_half(to->dtype)) {
      FN(scatter_run)((char *)x_tile, out, count, y_step, to->dtype);
      fn_stream(y_at, (const char *)x_tile, count * y_step);
    } else {
      FN(scatter_run)(y_at, out, count, y_step, to->dtype);
    }
  }
}

static void FN(tell)(const fn_job *job, FN(keys) nan, FN(keys) infinite) {
  int found = 0;
  for (int k = 0; k < FN(WIDTH); k++)
    found |= (nan[k] < 0 ? FN_FOUND_NAN : 0) | (infinite[k] < 0 ? FN_FOUND_INFINITY : 0);
  if (found) __atomic_fetch_or(job->found, found, __ATOMIC_RELAXED);
}

static void FN(rescale_rows)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  const int64_t chunks = (job->n + FN_CHUNK - 1) / FN_CHUNK, x_step = fn_step(job, FN_X), y_step = fn_step(job, FN_Y);
  FN(rescaling) by;
  by.nan = by.infinite = (FN(keys)){0};
  for (int64_t unit = lo; unit < hi; unit++) {
    const int64_t row = unit / chunks, start = unit % chunks * FN_CHUNK;
    const int64_t end = job->n - start < FN_CHUNK ? job->n : start + FN_CHUNK;
    const char *x = fn_base(job, FN_X, row, 0);
    char *y = fn_base(job, FN_Y, row, 0);
    FN(fill_rescaling)(job, fn_place(job, row, 0), 0, 1, &by);
    for (int64_t at = start, count; at < end; at += count) {
      const fn_run from = fn_next_run(job, FN_X, at, end - at), to = fn_next_run(job, FN_Y, at, end - at);
      count = from.count < to.count ? from.count : to.count;
      FN(rescale_run)(job, y + to.offset, y_step, x + from.offset, x_step, count, &by, scratch);
    }
  }
  FN(tell)(job, by.nan, by.infinite);
  fn_stream_end();
}

/* Do whole rows of columns lie evenly in an array? Then so far apart, else 0. */
static inline int64_t FN(even_step)(const fn_job *job, int which) {
  const int64_t cols = job->inner.size, step = fn_step(job, which), across = job->inner.step[which];
  if (job->stretch[which] != job->n) return 0;
  if (cols == 1) return step;
  return job->n == 1 || step == cols * across ? across : 0;
}

static void FN(rescale_columns)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  const int64_t chunks = (job->n + job->chunk - 1) / job->chunk, cols = job->inner.size;
  const int64_t strips = (cols + FN_STRIP - 1) / FN_STRIP, x_step = job->inner.step[FN_X];
  const int64_t y_step = job->inner.step[FN_Y], x_even = FN(even_step)(job, FN_X), y_even = FN(even_step)(job, FN_Y);
  const int even = x_even && y_even && strips == 1;
  FN(rescaling) by;
  by.nan = by.infinite = (FN(keys)){0};
  for (int64_t unit = lo; unit < hi; unit++) {
    const int64_t outer = unit / strips / chunks, start = unit / strips % chunks * job->chunk;
    const int64_t end = job->n - start < job->chunk ? job->n : start + job->chunk, j = unit % strips * FN_STRIP;
    const int64_t count = cols - j < FN_STRIP ? cols - j : FN_STRIP;
    const char *x = fn_base(job, FN_X, outer, j);
    char *y = fn_base(job, FN_Y, outer, j);
    FN(fill_rescaling)(job, fn_place(job, outer, j), job->inner.step[FN_P], count, &by);
    if (even) {
      x += fn_along(job, FN_X, start);
      y += fn_along(job, FN_Y, start);
      FN(rescale_run)(job, y, y_even, x, x_even, (end - start) * cols, &by, scratch);
    }
    for (int64_t i = start; i < end && !even; i++)
      FN(rescale_run)(job, y + fn_along(job, FN_Y, i), y_step, x + fn_along(job, FN_X, i), x_step, count, &by, scratch);
  }
  FN(tell)(job, by.nan, by.infinite);
  fn_stream_end();
}

/* ---- x alone ----------------------------------------------------------------------------------------------------- */

static void FN(notice_run)(const T *x, int64_t n, FN(keys) *nan, FN(keys) *infinite) {
  FN(keys) more = *nan, just = *infinite;
  FN(vector) part = {0};
  int64_t i = 0;
  for (; i + FN(WIDTH) <= n; i += FN(WIDTH)) FN(notice)(*(const FN(loose_vector) *)(const void *)(x + i), &more, &just);
  memcpy(&part, x + i, (size_t)(n - i) * sizeof(T));
  FN(notice)(part, &more, &just);
  *nan = more;
  *infinite = just;
}

static void FN(find_nonfinite)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  const int64_t chunks = (job->n + FN_CHUNK - 1) / FN_CHUNK, step = fn_step(job, FN_X);
  const fn_array *array = &job->array[FN_X];
  const int direct = FN(native)(array) && step == (int64_t)sizeof(T);
  FN(keys) nan = {0}, infinite = {0};
  for (int64_t unit = lo; unit < hi; unit++) {
    const int64_t start = unit % chunks * FN_CHUNK, end = job->n - start < FN_CHUNK ? job->n : start + FN_CHUNK;
    const char *x = fn_base(job, FN_X, unit / chunks, 0);
    if (__atomic_load_n(job->found, __ATOMIC_RELAXED) == (FN_FOUND_NAN | FN_FOUND_INFINITY)) return;
    for (int64_t at = start, count; at < end; at += count) {
      const fn_run run = fn_next_run(job, FN_X, at, end - at);
      count = direct || run.count < FN_TILE ? run.count : FN_TILE;
      if (!direct) FN(gather_run)(scratch, x + run.offset, count, step, array->dtype, array->swapped);
      FN(notice_run)(direct ? (const T *)(const void *)(x + run.offset) : scratch, count, &nan, &infinite);
    }
    FN(tell)(job, nan, infinite);
  }
}
#undef FN_RESCALE
