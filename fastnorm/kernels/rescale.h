/* The kernels of the scalers: whatever lies evenly in memory is rescaled as runs of lines (rescale_lines.h), the rest
 * is brought together first. And the search for NaN and infinity before something is rescaled in place.
 */

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
    const T y_i = (T)v, least = y_i < by->least ? by->least : y_i, most = least > by->most ? by->most : least;
    y[i] = most == most ? most : FN_NAN;
  }
}

/* A run that begins with column 0. What memory does not hold as it is computed goes through a tile. */
static void FN(rescale_run)(const fn_job *job, char *y, int64_t y_step, const char *x, int64_t x_step, int64_t n,
                            const FN(rescaling) *by, FN(found) *found, T *scratch) {
  const int64_t size = (int64_t)sizeof(T);
  const fn_array *from = &job->array[FN_X], *to = &job->array[FN_Y];
  const int read = FN(native)(from) && x_step == size, written = FN(native)(to) && y_step == size && by->all;
  T *x_tile = scratch + FN_TILE;
  const int64_t block = read && written ? n : FN_TILE;
  for (int64_t at = 0, count; at < n; at += count) {
    count = n - at < block ? n - at : block;
    char *y_at = y + at * y_step;
    T *out = written ? (T *)(void *)y_at : scratch;
    if (!read) FN(gather_run)(x_tile, x + at * x_step, count, x_step, from->dtype, from->swapped);
    const T *values = read ? (const T *)(const void *)x + at : x_tile;
    FN(rescale)(out, values, count, at % by->wide, by, found, written && job->stream);
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

static void FN(tell)(const fn_job *job, const FN(found) *met) {
  int found = 0;
  for (int k = 0; k < FN(WIDTH); k++)
    found |= (met->nan[k] < 0 ? FN_FOUND_NAN : 0) | (met->infinite[k] < 0 ? FN_FOUND_INFINITY : 0);
  if (found) __atomic_fetch_or(job->found, found, __ATOMIC_RELAXED);
}

static void FN(rescale_rows)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  const int64_t chunks = (job->n + FN_CHUNK - 1) / FN_CHUNK, x_step = fn_step(job, FN_X), y_step = fn_step(job, FN_Y);
  FN(rescaling) by;
  FN(found) found = {{0}, {0}};
  for (int64_t unit = lo; unit < hi; unit++) {
    const int64_t row = unit / chunks, start = unit % chunks * FN_CHUNK;
    const int64_t end = job->n - start < FN_CHUNK ? job->n : start + FN_CHUNK;
    const char *x = fn_base(job, FN_X, row, 0);
    char *y = fn_base(job, FN_Y, row, 0);
    FN(fill_rescaling)(job, fn_place(job, row, 0), 0, 1, &by, scratch);
    for (int64_t at = start, count; at < end; at += count) {
      const fn_run from = fn_next_run(job, FN_X, at, end - at), to = fn_next_run(job, FN_Y, at, end - at);
      count = from.count < to.count ? from.count : to.count;
      FN(rescale_run)(job, y + to.offset, y_step, x + from.offset, x_step, count, &by, &found, scratch);
    }
  }
  FN(tell)(job, &found);
  fn_stream_end();
}

/* Rows start <= i < end of a strip, which are brought together first. */
static void FN(rescale_strip)(const fn_job *job, int64_t outer, int64_t j, int64_t start, int64_t end,
                              const FN(rescaling) *by, FN(found) *found, T *scratch) {
  const int64_t cols = by->cols, most = FN_TILE / cols > 16 ? FN_TILE / cols : 16;
  T *x_tile = scratch + FN_CHUNK, *spare = x_tile + FN_CHUNK;
  const char *x_base = fn_base(job, FN_X, outer, j);
  char *y_base = fn_base(job, FN_Y, outer, j);
  for (int64_t i = start, rows; i < end; i += rows) {
    int64_t stride;
    rows = end - i < most ? end - i : most;
    const T *x = FN(load_columns)(job, FN_X, x_base, i, rows, cols, x_tile, &stride);
    if (stride != cols) x = FN(close_up)(x, &stride, rows, cols, x_tile);
    FN(rescale)(scratch, x, rows * cols, 0, by, found, 0);
    if (!by->all) FN(rescale_wide)(job, scratch, x, rows * cols, 0, by);
    FN(store_strip)(job, FN_Y, y_base, i, rows, cols, scratch, spare, job->stream);
  }
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
  const int64_t strips = (cols + FN_BROAD - 1) / FN_BROAD, x_step = job->inner.step[FN_X];
  const int64_t y_step = job->inner.step[FN_Y], x_even = FN(even_step)(job, FN_X), y_even = FN(even_step)(job, FN_Y);
  const int even = x_even && y_even && strips == 1;
  const int by_rows = cols >= FN_SHORT && x_step == (int64_t)sizeof(T) && y_step == x_step &&
                      FN(native)(&job->array[FN_X]) && FN(native)(&job->array[FN_Y]);
  FN(rescaling) by;
  FN(found) found = {{0}, {0}};
  for (int64_t unit = lo; unit < hi; unit++) {
    const int64_t outer = unit / strips / chunks, start = unit / strips % chunks * job->chunk;
    const int64_t end = job->n - start < job->chunk ? job->n : start + job->chunk, j = unit % strips * FN_BROAD;
    const int64_t count = cols - j < FN_BROAD ? cols - j : FN_BROAD;
    const char *x = fn_base(job, FN_X, outer, j);
    char *y = fn_base(job, FN_Y, outer, j);
    FN(fill_rescaling)(job, fn_place(job, outer, j), job->inner.step[FN_P], count, &by, scratch);
    if (even) {
      x += fn_along(job, FN_X, start);
      y += fn_along(job, FN_Y, start);
      FN(rescale_run)(job, y, y_even, x, x_even, (end - start) * cols, &by, &found, scratch);
    } else if (!by_rows) {
      FN(rescale_strip)(job, outer, j, start, end, &by, &found, scratch);
    }
    for (int64_t i = start; i < end && !even && by_rows; i++)
      FN(rescale_run)(job, y + fn_along(job, FN_Y, i), y_step, x + fn_along(job, FN_X, i), x_step, count, &by, &found,
                      scratch);
  }
  FN(tell)(job, &found);
  fn_stream_end();
}

/* ---- x alone ----------------------------------------------------------------------------------------------------- */

static void FN(notice_run)(const T *x, int64_t n, FN(found) *to) {
  FN(found) found = *to;
  FN(vector) part = {0};
  int64_t i = 0;
  for (; i + FN(WIDTH) <= n; i += FN(WIDTH)) FN(notice)(*(const FN(loose_vector) *)(const void *)(x + i), &found);
  memcpy(&part, x + i, (size_t)(n - i) * sizeof(T));
  FN(notice)(part, &found);
  *to = found;
}

static void FN(find_nonfinite)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  const int64_t chunks = (job->n + FN_CHUNK - 1) / FN_CHUNK, step = fn_step(job, FN_X);
  const fn_array *array = &job->array[FN_X];
  const int direct = FN(native)(array) && step == (int64_t)sizeof(T);
  FN(found) found = {{0}, {0}};
  /* From the end on: what is about to be overwritten first is then still in the cache. */
  for (int64_t left = job->outer * chunks - lo; left > job->outer * chunks - hi; left--) {
    const int64_t unit = left - 1, start = unit % chunks * FN_CHUNK;
    const int64_t end = job->n - start < FN_CHUNK ? job->n : start + FN_CHUNK;
    const char *x = fn_base(job, FN_X, unit / chunks, 0);
    if (__atomic_load_n(job->found, __ATOMIC_RELAXED) == (FN_FOUND_NAN | FN_FOUND_INFINITY)) return;
    for (int64_t at = start, count; at < end; at += count) {
      const fn_run run = fn_next_run(job, FN_X, at, end - at);
      count = direct || run.count < FN_TILE ? run.count : FN_TILE;
      if (!direct) FN(gather_run)(scratch, x + run.offset, count, step, array->dtype, array->swapped);
      FN(notice_run)(direct ? (const T *)(const void *)(x + run.offset) : scratch, count, &found);
    }
    FN(tell)(job, &found);
  }
}
#undef FN_RESCALE
