/* Rescaling by given numbers, one set per channel:
 *
 *     y = ((x - center) - center_lo) / scale + shift        or, inverse,        y = ((x - shift) * scale + center_lo) +
 * center
 *
 * and clipped. Whatever lies evenly in memory is one run, whether of one channel or of rows of channels: the operands
 * are repeated along a wide row, so a single loop serves every layout. The same loop notices NaN and infinity in x.
 * There is nothing to sum, so how the elements are cut into runs decides no bit.
 */

/* What a run is rescaled by. A scale of NaN leaves a channel that the compute type cannot hold to double. */
typedef struct {
  FN(params) params;
  int64_t p, step, cols; /* columns of a run: where the first stands among the kept indices, and how far apart */
  int64_t wide, first;   /* how far operands are repeated; the column that they begin with */
  T least, most;
  int kind;
  K nan, infinite; /* negative: x held one */
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
  FN(params) *to = &by->params;
  double rooms[4][FN_STRIP];
  const double plus = job->inverse ? -0.0 : 0.0, minus = -plus; /* neutral: x - 0.0, and x + -0.0 */
  by->p = p;
  by->step = step;
  by->cols = cols;
  const double *center = FN(operand)(job, job->center, plus, by, rooms[0]);
  const double *center_lo = FN(operand)(job, job->center_lo, 0, by, rooms[1]);
  const double *scale = FN(operand)(job, job->scale, 1, by, rooms[2]);
  const double *shift = FN(operand)(job, job->shift, minus, by, rooms[3]);
  const int single = FN_TYPE == FN_F32;
  FN_IVDEP
  for (int64_t j = 0; j < cols; j++) {
    const T c = (T)center[j], s = (T)scale[j], rest = (T)((single ? center[j] - (double)c : 0) + center_lo[j]);
    const double size = fabs(scale[j]), none = __builtin_nan("");
    /* No difference or sum with these overflows that would not in double, and no scale loses digits. */
    double held = size >= 0x1p-126 ? scale[j] : none;
    held = size <= 0x1.fffffep+127 ? held : none;
    held = fabs(center[j]) <= FN_MOST_SCALE ? held : none;
    held = fabs(center_lo[j]) <= FN_MOST_SCALE ? held : none;
    held = fabs(shift[j]) <= FN_MOST_SCALE ? held : none;
    to->center[j] = c;
    to->center_lo[j] = rest == 0 ? (T)plus : rest;
    to->scale[j] = single ? (T)held : s;
    to->shift[j] = (T)shift[j];
  }
  int with_lo = 0, all = 1;
  for (int64_t j = 0; j < cols; j++) with_lo |= to->center_lo[j] != 0;
  for (int64_t j = 0; j < cols && single; j++) all &= to->scale[j] == to->scale[j];
  to->with_lo = with_lo;
  to->all = all;
  by->least = (T)job->least;
  by->most = (T)job->most;
  by->kind = fn_rescale_kind(job) | (with_lo ? FN_WITH_LO : 0);
  by->wide = cols;
  by->first = 0;
}

/* Runs of many rows take several at once. */
static void FN(repeat_rescaling)(FN(rescaling) *by, int64_t n, int64_t first) {
  const int64_t wide = by->cols * fn_group_rows(by->cols);
  by->wide = wide < n ? wide : n;
  by->first = first;
  if (by->wide > by->cols || first) FN(repeat_params)(&by->params, by->cols, by->wide, first);
}

/* In the order of the formula, for numbers of either type. */
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

/* The last of what is done to a value: NaN stays, as the canonical one. */
static inline T FN(bounded)(T v, T least, T most, int kind) {
  if (kind & FN_WITH_SHIFT) {
    v = v < least ? least : v;
    v = v > most ? most : v;
  }
  return v == v ? v : FN_NAN;
}

/* Bits of |x| against those of infinity: negative in `nan` for more, in `infinite` for just that. */
#define FN_NOTICE(x, nan, infinite)                                                                                    \
  do {                                                                                                                 \
    K bits;                                                                                                            \
    memcpy(&bits, &(x), sizeof bits);                                                                                  \
    const K left = FN(key)(FN_INFINITY) - (bits & (sizeof(K) == 4 ? (K)INT32_MAX : (K)INT64_MAX));                     \
    (nan) |= left;                                                                                                     \
    (infinite) |= (left - 1) & ~left;                                                                                  \
  } while (0)

FN_INLINE void FN(rescale_of)(T *y, const T *x, int64_t n, FN(rescaling) *by, int kind) {
  const T *center = by->params.center, *center_lo = by->params.center_lo, *scale = by->params.scale;
  const T *shift = by->params.shift, least = by->least, most = by->most;
  K nan = 0, infinite = 0;
  for (int64_t from = 0, count; from < n; from += count, x += count, y += count) {
    count = n - from < by->wide ? n - from : by->wide;
    FN_IVDEP
    for (int64_t i = 0; i < count; i++) {
      T v = x[i];
      FN_NOTICE(v, nan, infinite);
      FN_RESCALE(v, center[i], center_lo[i], scale[i], shift[i], kind);
      y[i] = FN(bounded)(v, least, most, kind);
    }
  }
  by->nan |= nan;
  by->infinite |= infinite;
}

static void FN(rescale)(T *y, const T *x, int64_t n, FN(rescaling) *by) {
  switch (by->kind) {
#define FN_CASE(kind)                                                                                                  \
  case kind:                                                                                                           \
    FN(rescale_of)(y, x, n, by, kind);                                                                                 \
    break;
    FN_RESCALE_KINDS(FN_CASE)
#undef FN_CASE
  }
}

/* The elements of channels that only double holds. */
static void FN(rescale_wide)(const fn_job *job, T *y, const T *x, int64_t n, const FN(rescaling) *by) {
  for (int64_t i = 0; i < n; i++) {
    const int64_t column = by->first + i;
    if (by->params.scale[i % by->wide] == by->params.scale[i % by->wide]) continue;
    const int64_t c = FN(channel_at)(job, by, column);
    const int kind = fn_rescale_kind(job) | (job->center_lo ? FN_WITH_LO : 0);
    double v = (double)x[i];
    FN_RESCALE(v,
               job->center    ? job->center[c]
               : job->inverse ? -0.0
                              : 0.0,
               job->center_lo[c], job->scale[c],
               job->shift     ? job->shift[c]
               : job->inverse ? 0.0
                              : -0.0,
               kind);
    y[i] = FN(bounded)((T)v, by->least, by->most, kind);
  }
}

/* Elements that lie evenly and begin a wide row; more than a tile only where nothing is moved. */
static void FN(rescale_block)(const fn_job *job, char *y, int64_t y_step, const char *x, int64_t x_step, int64_t n,
                              FN(rescaling) *by, T *scratch) {
  const int64_t size = (int64_t)sizeof(T);
  const fn_array *from = &job->array[FN_X], *to = &job->array[FN_Y];
  const int in_line = FN(native)(to) && y_step == size, direct = in_line && !job->stream && by->params.all;
  const T *values = (const T *)(const void *)x;
  T *out = direct ? (T *)(void *)y : scratch;
  if (!FN(native)(from) || x_step != size) {
    FN(gather_run)(scratch + FN_TILE, x, n, x_step, from->dtype, from->swapped);
    values = scratch + FN_TILE;
  }
  FN(rescale)(out, values, n, by);
  if (!by->params.all) FN(rescale_wide)(job, out, values, n, by);
  if (direct) return;
  if (in_line && job->stream) {
    fn_stream(y, (const char *)out, n * size);
  } else if (fn_is_half(to->dtype) && y_step == 2 && job->stream) {
    FN(scatter_run)((char *)(scratch + 2 * FN_TILE), out, n, y_step, to->dtype);
    fn_stream(y, (const char *)(scratch + 2 * FN_TILE), n * y_step);
  } else {
    FN(scatter_run)(y, out, n, y_step, to->dtype);
  }
}

/* A run that begins with column 0. Runs of whole rows go by cache lines of y, which turns the columns. */
static void FN(rescale_run)(const fn_job *job, char *y, int64_t y_step, const char *x, int64_t x_step, int64_t n,
                            FN(rescaling) *by, T *scratch) {
  const int64_t size = (int64_t)sizeof(T), misplaced = (int64_t)((-(uintptr_t)y & 63) / sizeof(T));
  const int in_line = FN(native)(&job->array[FN_Y]) && y_step == size, turned = n > by->cols || by->cols == 1;
  const int whole = in_line && !job->stream && by->params.all && FN(native)(&job->array[FN_X]) && x_step == size;
  const int64_t head = in_line && turned && misplaced < n ? misplaced : 0;
  if (turned) FN(repeat_rescaling)(by, n, 0);
  if (head) {
    FN(rescale_block)(job, y, y_step, x, x_step, head, by, scratch);
    FN(repeat_rescaling)(by, n, head % by->cols);
  }
  const int64_t block = whole ? n : 2 * by->wide > FN_TILE ? by->wide : FN_TILE / (2 * by->wide) * (2 * by->wide);
  for (int64_t at = head, count; at < n; at += count) {
    count = n - at < block ? n - at : block;
    FN(rescale_block)(job, y + at * y_step, y_step, x + at * x_step, x_step, count, by, scratch);
  }
}

static void FN(tell)(const fn_job *job, K nan, K infinite) {
  const int found = (nan < 0 ? FN_FOUND_NAN : 0) | (infinite < 0 ? FN_FOUND_INFINITY : 0);
  if (found) __atomic_fetch_or(job->found, found, __ATOMIC_RELAXED);
}

static void FN(rescale_rows)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  const int64_t chunks = (job->n + FN_CHUNK - 1) / FN_CHUNK, x_step = fn_step(job, FN_X), y_step = fn_step(job, FN_Y);
  FN(rescaling) by;
  by.nan = by.infinite = 0;
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
  by.nan = by.infinite = 0;
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

static void FN(notice)(const T *x, int64_t n, K *nan, K *infinite) {
  K more = 0, just = 0;
  for (int64_t i = 0; i < n; i++) FN_NOTICE(x[i], more, just);
  *nan |= more;
  *infinite |= just;
}

static void FN(find_nonfinite)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  const int64_t chunks = (job->n + FN_CHUNK - 1) / FN_CHUNK, step = fn_step(job, FN_X);
  const fn_array *array = &job->array[FN_X];
  const int direct = FN(native)(array) && step == (int64_t)sizeof(T);
  K nan = 0, infinite = 0;
  for (int64_t unit = lo; unit < hi; unit++) {
    const int64_t start = unit % chunks * FN_CHUNK, end = job->n - start < FN_CHUNK ? job->n : start + FN_CHUNK;
    const char *x = fn_base(job, FN_X, unit / chunks, 0);
    if (__atomic_load_n(job->found, __ATOMIC_RELAXED) == (FN_FOUND_NAN | FN_FOUND_INFINITY)) return;
    for (int64_t at = start, count; at < end; at += count) {
      const fn_run run = fn_next_run(job, FN_X, at, end - at);
      count = direct || run.count < FN_TILE ? run.count : FN_TILE;
      if (!direct) FN(gather_run)(scratch, x + run.offset, count, step, array->dtype, array->swapped);
      FN(notice)(direct ? (const T *)(const void *)(x + run.offset) : scratch, count, &nan, &infinite);
    }
    FN(tell)(job, nan, infinite);
  }
}
#undef FN_RESCALE
#undef FN_NOTICE
