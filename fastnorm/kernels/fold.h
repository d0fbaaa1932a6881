/* The weight of a layer times the scale of each of its channels: what fold_batch_norm asks for.
 *
 * Products are taken in double and rounded once, NaN to the canonical one. Each element is by itself, so how they are
 * cut into runs decides no bit. The result is a new array, aligned and in machine order.
 */

enum { FN(FOLDED) = 1024 }; /* elements that pass through tiles together, in the L1 cache */

/* Products of a run with one scale, or with one for each element. */
FN_INLINE void FN(fold_values)(char *to, const T *restrict x, int64_t n, const double *restrict scale, int dtype,
                               int each) {
  T *restrict y = (T *)(void *)to;
  double products[FN(FOLDED)];
  if (!fn_is_half(dtype)) {
    for (int64_t i = 0; i < n; i++) y[i] = (T)fn_quiet((double)x[i] * scale[each ? i : 0]);
    return;
  }
  for (int64_t i = 0, count; i < n; i += count) {
    count = n - i < FN(FOLDED) ? n - i : FN(FOLDED);
    for (int64_t k = 0; k < count; k++) products[k] = (double)x[i + k] * scale[each ? i + k : 0];
    fn_narrow_doubles(to + 2 * i, products, count, dtype);
  }
}

/* A run with one scale (`wide` is 0), or one that begins with the first of `wide` scales, which come again and again.
 * What memory does not hold as it is computed goes through a tile. */
static void FN(fold_run)(const fn_job *job, char *y, int64_t y_step, const char *x, int64_t x_step, int64_t n,
                         const double *scale, int64_t wide, T *scratch) {
  const fn_array *from = &job->array[FN_X];
  const int dtype = job->array[FN_Y].dtype, size = fn_is_half(dtype) ? 2 : (int)sizeof(T);
  const int read = FN(native)(from) && x_step == (int64_t)sizeof(T), written = y_step == size && !job->stream;
  const int64_t block = wide ? wide : read && written ? n : FN(FOLDED);
  T *x_tile = scratch + FN_BROAD;
  for (int64_t at = 0, count; at < n; at += count, y += count * y_step, x += count * x_step) {
    count = n - at < block ? n - at : block;
    const T *values = read ? (const T *)(const void *)x : x_tile;
    char *to = written ? y : (char *)scratch;
    if (!read) FN(gather_run)(x_tile, x, count, x_step, from->dtype, from->swapped);
    if (wide)
      FN(fold_values)(to, values, count, scale, dtype, 1);
    else
      FN(fold_values)(to, values, count, scale, dtype, 0);
    if (!written && y_step == size) fn_stream(y, to, count * size);
    for (int64_t i = 0; y_step != size && i < count; i++) memcpy(y + i * y_step, to + i * size, (size_t)size);
  }
}

/* Rows lie inside a channel. */
static void FN(fold_rows)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  const int64_t chunks = (job->n + FN_CHUNK - 1) / FN_CHUNK, x_step = fn_step(job, FN_X), y_step = fn_step(job, FN_Y);
  for (int64_t unit = lo; unit < hi; unit++) {
    const int64_t row = unit / chunks, start = unit % chunks * FN_CHUNK;
    const int64_t end = job->n - start < FN_CHUNK ? job->n : start + FN_CHUNK;
    const double *scale = job->scale + fn_channel(job, fn_place(job, row, 0));
    const char *x = fn_base(job, FN_X, row, 0);
    char *y = fn_base(job, FN_Y, row, 0);
    for (int64_t at = start, count; at < end; at += count) {
      const fn_run from = fn_next_run(job, FN_X, at, end - at), to = fn_next_run(job, FN_Y, at, end - at);
      count = from.count < to.count ? from.count : to.count;
      FN(fold_run)(job, y + to.offset, y_step, x + from.offset, x_step, count, scale, 0, scratch);
    }
  }
  fn_stream_end();
}

/* Channels lie along the columns. Narrow rows that lie evenly in memory are one run. */
static void FN(fold_columns)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  const int64_t chunks = (job->n + job->chunk - 1) / job->chunk, cols = job->inner.size;
  const int64_t strips = (cols + FN_BROAD - 1) / FN_BROAD, x_step = job->inner.step[FN_X];
  const int64_t y_step = job->inner.step[FN_Y], x_even = FN(even_step)(job, FN_X), y_even = FN(even_step)(job, FN_Y);
  const int even = x_even && y_even && strips == 1;
  double room[FN_BROAD];
  for (int64_t unit = lo; unit < hi; unit++) {
    const int64_t outer = unit / strips / chunks, start = unit / strips % chunks * job->chunk;
    const int64_t end = job->n - start < job->chunk ? job->n : start + job->chunk, j = unit % strips * FN_BROAD;
    const int64_t count = cols - j < FN_BROAD ? cols - j : FN_BROAD, rows = even ? end - start : 1;
    const int64_t wide = even && count < FN(FOLDED) ? FN(FOLDED) / count * count : count;
    const char *x = fn_base(job, FN_X, outer, j);
    char *y = fn_base(job, FN_Y, outer, j);
    const double *scale = fn_operand(job, job->scale, 1, fn_place(job, outer, j), job->inner.step[FN_P], count, room);
    if (wide > count) {
      memmove(room, scale, (size_t)count * sizeof *room);
      for (int64_t k = count; k < wide; k++) room[k] = room[k - count];
      scale = room;
    }
    for (int64_t i = start; i < end; i += rows)
      FN(fold_run)(job, y + fn_along(job, FN_Y, i), even ? y_even : y_step, x + fn_along(job, FN_X, i),
                   even ? x_even : x_step, rows * count, scale, wide, scratch);
  }
  fn_stream_end();
}
