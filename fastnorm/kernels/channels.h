/* The kernels of channel norms: what batch norm needs beside those of norm.h.
 *
 * A channel of (N, C, H, W) lies in memory as N runs. Where it fits a cache, norm_planes sums run by run what
 * norm_stats.h sums row by row, and applies from the cache; blocks of neighbouring channels are worked on together, so
 * that memory is read in longer pieces. Where statistics are known already, as in evaluation, fold_channels makes four
 * numbers of each channel and its weight and bias, and scale_rows and scale_columns apply them in the order of memory.
 */

/* ---- statistics and apply in one visit --------------------------------------------------------------------------- */

enum { FN(PLANES) = 16 }; /* neighbouring channels */

/* Do the elements of each run of x lie in an array as kernels read and write them? */
static inline int FN(runs_directly)(const fn_job *job, int which) {
  return FN(native)(&job->array[which]) && fn_step(job, which) == (int64_t)sizeof(T) &&
         job->stretch[which] % job->stretch[FN_X] == 0;
}

/* Likewise, as halves in machine order? */
static inline int FN(runs_of_halves)(const fn_job *job, int which) {
  return FN(holds_halves)(job, which) && fn_step(job, which) == 2 && job->stretch[which] % job->stretch[FN_X] == 0;
}

/* Elements of a run: `offset` bytes from the base of a channel, where memory is what kernels read, else in `tile`. */
FN_INLINE const T *FN(plane_run)(const fn_job *job, const char *base, int64_t at, int64_t offset, int64_t count,
                                 int direct, int halves, T *tile) {
  if (direct) return (const T *)(const void *)(base + offset);
  if (!halves) return FN(load)(job, FN_X, base, at, count, tile);
  fn_widen((float *)(void *)tile, base + offset, count, job->array[FN_X].dtype);
  return tile;
}

/* Do runs of so many bytes of `count` channels follow each other? */
static inline int FN(follow)(const char *const *base, int count, int64_t bytes) {
  int follow = 1;
  for (int c = 1; c < count; c++) follow &= base[c] - base[0] == c * bytes;
  return follow;
}

/* Runs of `count` channels as one piece, where they are that in memory; halves become floats in `tile`. Else NULL. */
static const T *FN(one_piece)(const fn_job *job, const char *const *base, int count, int64_t offset, int64_t run,
                              T *tile) {
  if (FN(runs_directly)(job, FN_X) && FN(follow)(base, count, run * (int64_t)sizeof(T)))
    return (const T *)(const void *)(base[0] + offset);
  if (!FN(runs_of_halves)(job, FN_X) || !FN(follow)(base, count, run * 2) || count * run > FN_CHUNK) return NULL;
  fn_widen((float *)(void *)tile, base[0] + offset, count * run, job->array[FN_X].dtype);
  return tile;
}

/* The averages of 64 elements in 16 groups, which are spread over all runs; of fewer where runs are shorter. */
static void FN(guess_planes)(const fn_job *job, const char *const *base, int count, T *guess, T *tile) {
  const int64_t run = job->stretch[FN_X], runs = job->n / run, few = fn_sample_size(run, 4);
  const int direct = FN(runs_directly)(job, FN_X), halves = FN(runs_of_halves)(job, FN_X);
  for (int c = 0; c < count; c++) guess[c] = 0;
  for (int64_t k = 0; k < 16; k++) {
    const int64_t start = k * runs / 16 * run + (2 * k + 1) * (run - few) / 32;
    const int64_t offset = fn_along(job, FN_X, start);
    for (int c = 0; c < count; c++) {
      T some[4];
      const T *x = halves ? some : FN(plane_run)(job, base[c], start, offset, few, direct, 0, tile);
      for (int64_t i = 0; halves && i < few; i++)
        some[i] = (T)fn_widen_one(base[c] + offset + 2 * i, job->array[FN_X].dtype);
      T sum = x[0];
      for (int64_t i = 1; i < few; i++) sum += x[i];
      guess[c] += sum / (T)few;
    }
  }
  for (int c = 0; c < count; c++) guess[c] /= 16;
}

static void FN(stats_of_planes)(const fn_job *job, const char *const *base, int count, FN(stats) *stats, T *tile) {
  const double part = 1 / (double)job->n;
  const int64_t run = job->stretch[FN_X];
  const int direct = FN(runs_directly)(job, FN_X), halves = FN(runs_of_halves)(job, FN_X);
  const int64_t bytes = run * (halves ? 2 : (int64_t)sizeof(T));
  const int near = (direct || halves) && bytes <= 4096; /* longer runs are foreseen by processors */
  const FN(row_end) end = FN(row_end_of)(run);
  double sums[FN(PLANES)][FN_LANES], squares[FN(PLANES)][FN_LANES], s[FN_LANES], q[FN_LANES];
  FN(guess_planes)(job, base, count, stats->guess, tile);
  for (int visit = 0; visit < 2; visit++) {
    memset(sums, 0, sizeof sums);
    memset(squares, 0, sizeof squares);
    for (int64_t at = 0; at < job->n; at += run) {
      const int64_t offset = fn_along(job, FN_X, at), next = fn_along(job, FN_X, at + run < job->n ? at + run : at);
      const T *all = FN(one_piece)(job, base, count, offset, run, tile);
      for (int c = 0; c < count; c++) {
        const T *x = all ? all + c * run : FN(plane_run)(job, base[c], at, offset, run, direct, halves, tile);
        for (int64_t i = 0; near && i < bytes; i += 64) __builtin_prefetch(base[c] + next + i);
        FN(norm_sums)(x, run, &end, stats->guess[c], s, q, 1);
        fn_add_lanes(sums[c], s);
        fn_add_lanes(squares[c], q);
      }
    }
    FN_FOLD_LANES(double, sums, count, stats->correction, part);
    FN_FOLD_LANES(double, squares, count, stats->square, part);
    if (visit || !FN(guess_again)(stats, count)) break;
  }
  FN(settle)(job, stats, count);
}

static void FN(norm_planes)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  T *tile = scratch, *x_tile = tile + FN_CHUNK;
  const int64_t run = job->stretch[FN_X];
  const int direct = FN(runs_directly)(job, FN_Y), read = FN(runs_directly)(job, FN_X);
  const int halves = FN(runs_of_halves)(job, FN_X) && FN(runs_of_halves)(job, FN_Y) && FN(passes_halves)(job, FN_X);
  const int past_cache = direct && job->stream && !job->quiet;
  FN(stats) stats;
  FN(params) params;
  for (int64_t unit = lo; unit < hi; unit++) {
    const int64_t k = unit * job->strip;
    const int count = (int)(job->outer - k < job->strip ? job->outer - k : job->strip);
    const char *base[FN(PLANES)];
    char *to[FN(PLANES)];
    for (int c = 0; c < count; c++) base[c] = fn_base(job, FN_X, k + c, 0);
    for (int c = 0; c < count; c++) to[c] = fn_base(job, FN_Y, k + c, 0);
    FN(stats_of_planes)(job, base, count, &stats, x_tile);
    FN(fill_params)(stats.mean, stats.correction, stats.var, count, job->eps, &params);
    for (int c = 0; c < count; c++) FN(fold_affine)(job, fn_place(job, k + c, 0), 0, c, 1, &params);
    for (int c = 0; FN(is_saved)(job) && c < count; c++) FN(save)(job, &stats, c, fn_place(job, k + c, 0));
    const int64_t size = halves ? 2 : (int64_t)sizeof(T);
    const int y_follows = (direct || halves) && params.all && run >= FN(LINE) && count * run <= 2 * FN_CHUNK &&
                          FN(follow)((const char *const *)to, count, run * size);
    const int in_halves = y_follows && halves && FN(follow)(base, count, run * size);
    for (int64_t at = 0; at < job->n; at += run) {
      const int64_t offset = fn_along(job, FN_Y, at), from = fn_along(job, FN_X, at);
      if (in_halves) {
        char *y = job->stream ? (char *)tile : to[0] + offset;
        FN(apply_halves)(y, 2 * run, base[0] + from, 2 * run, count, run, &params, 0, NULL, NULL, 0,
                         job->array[FN_X].dtype);
        if (job->stream) fn_stream(to[0] + offset, y, 2 * count * run);
        continue;
      }
      const T *all = FN(one_piece)(job, base, count, from, run, x_tile);
      if (all && y_follows && direct) {
        T *y = (T *)(void *)(to[0] + offset);
        FN(apply_adjacent)(y, all, run, count, &params, 0, past_cache);
        FN(touch_up)(job, y, NULL, count * run);
        continue;
      }
      for (int c = 0; c < count; c++) {
        if (params.scale[c] != params.scale[c]) continue;
        const T *x = all ? all + c * run : FN(plane_run)(job, base[c], at, from, run, read, 0, x_tile);
        T *y = direct ? (T *)(void *)(to[c] + offset) : tile;
        FN(apply_to_rows)(&y, &x, &x, &x, 1, NULL, NULL, run, &params, c, past_cache);
        FN(touch_up)(job, y, NULL, run);
        if (!direct) FN(store)(job, FN_Y, to[c], at, run, tile);
      }
    }
    for (int c = 0; c < count; c++)
      if (params.scale[c] != params.scale[c]) FN(norm_careful)(job, k + c, 0, tile);
  }
  fn_stream_end();
}

/* ---- statistics that are known ----------------------------------------------------------------------------------- */

static void FN(fold_channels)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  T *to = job->folded;
  FN(params) params;
  (void)scratch;
  for (int64_t c = lo, count; c < hi; c += count) {
    count = hi - c < FN_STRIP ? hi - c : FN_STRIP;
    FN(params_without_affine)(job, job->state + c, job->state_stride, 1, count, &params);
    FN(fold_affine)(job, c, 1, 0, count, &params);
    const T *from[] = {params.center, params.center_lo, params.scale, params.shift};
    for (int k = 0; k < 4; k++) memcpy(to + k * job->period + c, from[k], (size_t)count * sizeof(T));
  }
  for (int64_t c = lo; (job->mean || job->spread) && c < hi; c++) {
    if (job->mean) fn_put(job->mean, job->out_dtype, c, job->state[FN_MEAN * job->state_stride + c]);
    if (job->spread) fn_put(job->spread, job->out_dtype, c, fn_spread(job, job->state[FN_VAR * job->state_stride + c]));
  }
}

/* The channels of `count` kept indices whose statistics stand `step` apart from p on. */
static void FN(bring_params)(const fn_job *job, int64_t p, int64_t step, int64_t count, FN(params) *to) {
  const int64_t channels = job->period, each = job->places;
  const T *folded = job->folded;
  const T *from[] = {folded, folded + channels, folded + 2 * channels, folded + 3 * channels};
  T *lists[] = {to->center, to->center_lo, to->scale, to->shift};
  int with_lo = 0, all = 1;
  int64_t c = each == 1 ? p % channels : p / each;
  for (int64_t j = 0, run; j < count; j += run) {
    const int in_line = each == 1 && step == 1;
    run = !in_line ? 1 : count - j < channels - c ? count - j : channels - c;
    for (int k = 0; k < 4; k++)
      for (int64_t i = 0; i < run; i++) lists[k][j + i] = from[k][c + i];
    p += step * run;
    if (in_line)
      c = 0; /* all channels begin again, if anything is left */
    else if (each == 1)
      c = c + step < channels ? c + step : p % channels;
    else if (p < c * each || p >= (c + 1) * each)
      c = p / each;
  }
  for (int64_t j = 0; j < count; j++) with_lo |= to->center_lo[j] != 0;
  for (int64_t j = 0; j < count; j++) all &= to->scale[j] == to->scale[j];
  to->with_lo = with_lo;
  to->all = all;
  to->at_zero = 0;
  to->with_shift = 1;
  to->relu = job->relu;
  to->with_top = 0;
  to->top = 0;
}

/* Rows lo <= row < hi, which lie one step apart as their channels do; a tile takes what leaves together. */
static void FN(scale_rows_together)(const fn_job *job, int64_t lo, int64_t hi, T *tile, T *x_tile) {
  enum { MOST = 64 };
  const fn_axis *axis = job->kept;
  const int half = fn_is_half(job->array[FN_Y].dtype), dtype = job->array[FN_X].dtype;
  const int64_t n = job->n, bytes = n * (half ? 2 : (int64_t)sizeof(T)), step = axis->step[FN_P];
  const int adjacent = axis->step[FN_Y] == bytes, in_tile = half || (job->stream && adjacent);
  const int64_t few = FN_TILE / n, most = few < 1 ? 1 : few < MOST ? few : MOST;
  const int in_order = step == 1 && job->places == 1 && job->period <= FN_STRIP; /* channels are brought once */
  FN(params) params;
  if (in_order) FN(bring_params)(job, 0, 1, job->period, &params);
  for (int64_t row = lo, count; row < hi; row += count) {
    const T *x[MOST], *ahead[MOST];
    T *y[MOST];
    const int64_t p = job->p + row * step, first = in_order ? p % job->period : 0;
    count = hi - row < most ? hi - row : most;
    if (!in_order)
      FN(bring_params)(job, p, step, count, &params);
    else if (count > job->period - first)
      count = job->period - first;
    const char *from = job->array[FN_X].data + row * axis->step[FN_X];
    char *to = job->array[FN_Y].data + row * axis->step[FN_Y];
    if (half && fn_converts(dtype) && n >= FN_FLOATS && params.all && (!job->stream || adjacent)) {
      char *at = job->stream ? (char *)tile : to;
      FN(apply_halves)(at, job->stream ? bytes : axis->step[FN_Y], from, axis->step[FN_X], count, n, &params, first,
                       NULL, NULL, 0, dtype);
      if (job->stream) fn_stream(to, at, count * bytes);
      continue;
    }
    const int64_t widened = !half ? 0 : axis->step[FN_X] == bytes ? count : 1;
    for (int64_t r = 0; half && r < count; r += widened)
      fn_widen((float *)(void *)(x_tile + r * n), from + r * axis->step[FN_X], widened * n, dtype);
    for (int r = 0; r < count; r++) {
      x[r] = half ? x_tile + r * n : (const T *)(const void *)(from + r * axis->step[FN_X]);
      ahead[r] = half ? x[r] : (const T *)((uintptr_t)x[r] + 8192); /* rows follow each other more often than not */
      y[r] = in_tile ? tile + r * n : (T *)(void *)(to + r * axis->step[FN_Y]);
    }
    for (int r = 0, rows; r < count; r += rows) {
      const int at = (int)first + r, held = params.scale[at] == params.scale[at];
      rows = params.all && (!in_tile || adjacent) ? (int)count : 1;
      if (rows > 1 && x[1] - x[0] == n && y[1] - y[0] == n && n >= FN(LINE))
        FN(apply_adjacent)(y[0], x[0], n, rows, &params, at, job->stream && !in_tile);
      else if (held)
        FN(apply_to_rows)(y + r, x + r, ahead + r, ahead + r, rows, NULL, NULL, n, &params, at,
                          job->stream && !in_tile);
      if (held && half)
        FN(leave)(to + r * axis->step[FN_Y], y[r], rows * n, dtype, job->stream, x_tile + r * n);
      else if (held && in_tile)
        fn_stream(to + r * bytes, (const char *)y[r], rows * bytes);
      if (!held && job->given) FN(norm_careful)(job, row + r, 0, tile);
    }
  }
}

/* Are rows short and stored so that some are scaled together? */
static int FN(scales_together)(const fn_job *job) {
  const fn_array *x = &job->array[FN_X], *y = &job->array[FN_Y];
  const int as_stored = (FN(native)(x) && FN(native)(y)) ||
                        (FN(holds_halves)(job, FN_X) && FN(holds_halves)(job, FN_Y) && x->dtype == y->dtype);
  return as_stored && job->n <= FN_TILE / 4 && job->kept_ndim == 1 && job->inner.size == 1 && FN(in_line)(job, FN_X) &&
         FN(in_line)(job, FN_Y) && !FN(is_touched_up)(job);
}

static void FN(scale_rows)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  T *tile = scratch, *x_tile = tile + FN_CHUNK, *spare = x_tile + FN_CHUNK;
  FN(params) params;
  const int64_t chunks = (job->n + FN_CHUNK - 1) / FN_CHUNK;
  if (FN(scales_together)(job)) {
    FN(scale_rows_together)(job, lo, hi, tile, x_tile);
    fn_stream_end();
    return;
  }
  for (int64_t unit = lo; unit < hi; unit++) {
    const int64_t row = unit / chunks, start = unit % chunks * FN_CHUNK;
    const int64_t n = job->n - start < FN_CHUNK ? job->n - start : FN_CHUNK;
    FN(bring_params)(job, fn_place(job, row, 0), 0, 1, &params);
    if (params.all && FN(apply_run_of_halves)(job, FN_X, row, start, n, &params, (char *)spare)) continue;
    if (params.all) {
      const T *x = FN(load)(job, FN_X, fn_base(job, FN_X, row, 0), start, n, x_tile);
      const T *ahead = (const T *)((uintptr_t)x + 8192); /* rows follow each other more often than not */
      FN(apply_run)(job, x, ahead, row, start, n, &params, 0, tile, (uint8_t *)spare);
    } else if (job->given && start == 0) {
      FN(norm_careful)(job, row, 0, tile);
    }
  }
  fn_stream_end();
}

static void FN(scale_columns)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  T *tile = scratch, *out = tile + FN_CHUNK;
  const int64_t chunks = (job->n + job->chunk - 1) / job->chunk, strips = (job->inner.size + FN_STRIP - 1) / FN_STRIP;
  FN(params) params;
  for (int64_t unit = lo; unit < hi; unit++) {
    const int64_t outer = unit / strips / chunks, start = unit / strips % chunks * job->chunk;
    const int64_t rows = job->n - start < job->chunk ? job->n - start : job->chunk, j = unit % strips * FN_STRIP;
    const int64_t cols = job->inner.size - j < FN_STRIP ? job->inner.size - j : FN_STRIP;
    int64_t stride;
    FN(bring_params)(job, fn_place(job, outer, j), job->inner.step[FN_P], cols, &params);
    if (FN(apply_strip_of_halves)(job, FN_X, outer, j, start, rows, cols, &params, scratch)) continue;
    const int64_t few = FN(rows_at_once)(job, FN_X, rows, cols);
    for (int64_t at = start, n; at < start + rows; at += n) {
      n = start + rows - at < few ? start + rows - at : few;
      const T *x = FN(load_columns)(job, FN_X, fn_base(job, FN_X, outer, j), at, n, cols, tile, &stride);
      FN(apply_strip)(job, x, stride, outer, j, at, n, cols, &params, NULL, out, (uint8_t *)(out + FN_CHUNK));
    }
    for (int64_t c = 0; job->given && start == 0 && !params.all && c < cols; c++)
      if (params.scale[c] != params.scale[c]) FN(norm_careful)(job, outer, j + c, tile);
  }
  fn_stream_end();
}
