/* The kernels of norms.
 *
 * Statistics and apply meet where the data fits a cache (norm_rows, norm_columns). Longer problems take their
 * statistics from moments.h and come here to have them applied (apply_rows, apply_columns), but for what the careful
 * way does alone (norm_careful_only). A residual is added on the way in, and the sum stored: it is what is normalized.
 * Masks, omitted NaN and ranges take their statistics from the masked family in any case.
 */

static inline int FN(has_residual)(const fn_job *job) { return job->array[FN_Z].data != NULL; }

/* Does something other than the plain sums of norm_stats.h give the statistics? */
static inline int FN(takes_states)(const fn_job *job) { return job->norm == FN_RANGE || fn_is_masked(job); }

/* s = x + z, where NaN is the canonical one; s may be either. `past`, if any, gets the same past the cache. */
static void FN(add)(T *s, T *past, const T *x, const T *z, int64_t n) {
  enum { W = FN(WIDTH), LINE = FN(LINE) };
  const int64_t head = (int64_t)((-(uintptr_t)(past ? past : s) & 63) / sizeof(T));
  int64_t i = 0;
  for (; i < head && i < n; i++) {
    const T sum = FN(quiet)(x[i] + z[i]);
    s[i] = sum;
    if (past) past[i] = sum;
  }
  for (; i + LINE <= n; i += LINE) {
    FN(vector) sum[LINE / W];
    for (int k = 0; k < LINE; k += W) sum[k / W] = FN(quiet_vector)(FN(load_all)(x + i + k) + FN(load_all)(z + i + k));
    for (int k = 0; k < LINE; k += W) FN(store_all)(s + i + k, sum[k / W]);
    for (int k = 0; past && k < LINE; k += W) fn_store_past_cache(past + i + k, &sum[k / W]);
  }
  for (; i < n; i++) {
    const T sum = FN(quiet)(x[i] + z[i]);
    s[i] = sum;
    if (past) past[i] = sum;
  }
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

/* Elements of a row of x + residual: stored, and where the pointer says. A half is the rounded one. */
static const T *FN(add_run)(const fn_job *job, int64_t row, int64_t start, int64_t n, T *tile, T *spare) {
  const T *x = FN(load)(job, FN_X, fn_base(job, FN_X, row, 0), start, n, tile);
  const T *z = FN(load)(job, FN_Z, fn_base(job, FN_Z, row, 0), start, n, spare);
  char *base = fn_base(job, FN_S, row, 0);
  const int native = FN(native)(&job->array[FN_S]) && FN(in_line)(job, FN_S);
  T *s = native && !job->stream ? (T *)(void *)base + start : tile;
  FN(add)(s, native && job->stream ? (T *)(void *)base + start : NULL, x, z, n);
  if (!native) FN(store)(job, FN_S, base, start, n, s);
  return fn_is_half(job->array[FN_S].dtype) ? FN(load)(job, FN_S, base, start, n, tile) : s;
}

/* Are statistics wanted? */
static inline int FN(is_saved)(const fn_job *job) { return job->mean || job->spread || job->saved; }

/* The statistics of `rows` whole rows become parameters, and results where they are wanted. */
static void FN(params_of_rows)(const fn_job *job, const T *const *x, int64_t row, int rows, FN(params) *params) {
  FN(stats) stats;
  FN(stats_of_rows)(job, x, rows, &stats);
  FN(fill_params)(stats.mean, stats.correction, stats.var, rows, job->eps, params);
  params->at_zero = job->norm == FN_RMS;
  for (int r = 0; fn_is_shifted(job) && r < rows; r++) FN(fold_affine)(job, fn_place(job, row + r, 0), 0, r, 1, params);
  for (int r = 0; FN(is_saved)(job) && r < rows; r++) FN(save)(job, &stats, r, fn_place(job, row + r, 0));
}

/* Likewise, from states of `cols` columns j and on, or (cols == 1, rows) of row `outer`. */
static void FN(params_by_state)(const fn_job *job, int64_t outer, int64_t j, int64_t cols, FN(params) *params,
                                void *scratch) {
  double state[FN_PLANES * FN_STRIP];
  FN(chunk)(job, outer, j, 0, job->n, cols, scratch, state, FN_STRIP);
  fn_finish(job, state, FN_STRIP, cols, fn_place(job, outer, j), job->inner.step[FN_P]);
  FN(params_of)(job, state, FN_STRIP, 1, fn_place(job, outer, j), cols, params);
}

/* `rows` computed rows that lie in a tile go to y. Where rows follow each other in memory, together. */
static void FN(store_rows)(const fn_job *job, int64_t row, int rows, const T *tile, void *spare) {
  const int64_t n = job->n, width = fn_is_half(job->array[FN_Y].dtype) ? 2 : (int64_t)sizeof(T);
  const int adjacent = job->kept_ndim == 0 || (job->kept_ndim == 1 && job->kept[0].step[FN_Y] == n * width);
  const int together = adjacent ? rows : 1;
  const int64_t count = together * n;
  for (int r = 0; r < rows; r += together) {
    char *to = fn_base(job, FN_Y, row + r, 0);
    const char *from = (const char *)(tile + r * n);
    if (fn_is_half(job->array[FN_Y].dtype)) {
      FN(leave)(to, tile + r * n, count, job->array[FN_Y].dtype, job->stream, spare);
    } else {
      fn_stream(to, from, count * width);
    }
  }
}

static void FN(norm_rows)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  T *tile = scratch, *x_tile = tile + FN_CHUNK, *spare = x_tile + FN_CHUNK, *y[FN(BATCH)];
  const T *x[FN(BATCH)], *ahead[FN(BATCH)], *also[FN(BATCH)];
  FN(params) params;
  const int half = fn_is_half(job->array[FN_Y].dtype), residual = FN(has_residual)(job);
  const int by_state = FN(takes_states)(job);
  const int plain = (half || FN(native)(&job->array[FN_Y])) && FN(in_line)(job, FN_Y) &&
                    (fn_is_shifted(job) || FN(affine_is_plain)(job)) && !FN(is_touched_up)(job);
  const int direct = FN(native)(&job->array[FN_X]) && FN(in_line)(job, FN_X) && !residual;
  const int64_t n = job->n, bytes = n * (int64_t)sizeof(T), most = FN_TILE / 2 / n;
  const int together = most < 1 || by_state ? 1 : most > FN(BATCH) ? FN(BATCH) : (int)most;
  const int64_t early = together * (1 + FN_EARLY / (together * bytes)); /* rows further, memory is asked */
  /* Short rows that follow each other in memory go past the cache together, from a tile. */
  const int adjacent = job->kept_ndim == 0 || (job->kept_ndim == 1 && job->kept[0].step[FN_Y] == bytes);
  const int in_tile = plain && (half || (job->stream && adjacent && n <= FN_TILE / 4));
  for (int64_t row = lo; row < hi; row += together) {
    const int rows = hi - row < together ? (int)(hi - row) : together;
    if (by_state) FN(params_by_state)(job, row, 0, 1, &params, scratch); /* before x is loaded: it takes all tiles */
    for (int r = 0; r < rows; r++) {
      const int64_t next = row + early + r < hi ? row + early + r : row + r;
      x[r] = direct     ? (const T *)(const void *)fn_base(job, FN_X, row + r, 0)
             : residual ? FN(add_run)(job, row + r, 0, n, x_tile + r * n, spare)
                        : FN(load)(job, FN_X, fn_base(job, FN_X, row + r, 0), 0, n, x_tile + r * n);
      ahead[r] = direct || residual ? (const T *)(const void *)fn_base(job, FN_X, next, 0) : x[r];
      also[r] = residual ? (const T *)(const void *)fn_base(job, FN_Z, next, 0) : ahead[r];
      y[r] = in_tile ? tile + r * n : (T *)(void *)fn_base(job, FN_Y, row + r, 0);
    }
    if (!by_state) FN(params_of_rows)(job, x, row, rows, &params);
    if (plain && params.all) {
      const int each = job->unit > 1 ? 1 : rows; /* groups have weights of their own */
      for (int r = 0; r < rows; r += each) {
        const int64_t set = job->unit > 1 ? fn_set(job, fn_place(job, row + r, 0)) : 0;
        const T *weight = job->weight && !params.with_shift ? (const T *)job->weight + set : NULL;
        const T *bias = job->bias && !params.with_shift ? (const T *)job->bias + set : NULL;
        FN(apply_to_rows)(y + r, x + r, ahead + r, also + r, each, weight, bias, n, &params, r,
                          job->stream && !in_tile);
      }
      if (in_tile) FN(store_rows)(job, row, rows, tile, x_tile);
      continue;
    }
    for (int r = 0; r < rows; r++) {
      if (params.scale[r] == params.scale[r])
        FN(apply_run)(job, x[r], ahead[r], row + r, 0, n, &params, r, tile, (uint8_t *)spare);
      else
        FN(norm_careful)(job, row + r, 0, tile);
    }
  }
  fn_stream_end();
}

/* Kept indices that the compute type cannot hold are done here; the apply kernels pass them over. */
static void FN(norm_careful_only)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  FN(params) params;
  for (int64_t unit = lo; unit < hi; unit++) {
    const int64_t outer = unit / job->inner.size, j = unit % job->inner.size;
    const int64_t p = fn_place(job, outer, j);
    FN(params_of)(job, job->state + p, job->state_stride, 1, p, 1, &params);
    if (!params.all) FN(norm_careful)(job, outer, j, scratch);
  }
}

static void FN(residual_rows)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  T *tile = scratch;
  const int64_t chunks = (job->n + FN_CHUNK - 1) / FN_CHUNK;
  for (int64_t unit = lo; unit < hi; unit++) {
    const int64_t start = unit % chunks * FN_CHUNK;
    FN(add_run)(job, unit / chunks, start, job->n - start < FN_CHUNK ? job->n - start : FN_CHUNK, tile,
                tile + FN_CHUNK);
  }
  fn_stream_end();
}

static void FN(apply_rows)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  T *tile = scratch, *x_tile = tile + FN_CHUNK, *spare = x_tile + FN_CHUNK;
  FN(params) params;
  const int64_t chunks = (job->n + FN_CHUNK - 1) / FN_CHUNK;
  for (int64_t unit = lo; unit < hi; unit++) {
    const int64_t row = unit / chunks, start = unit % chunks * FN_CHUNK;
    const int64_t n = job->n - start < FN_CHUNK ? job->n - start : FN_CHUNK;
    const int64_t p = fn_place(job, row, 0);
    FN(params_of)(job, job->state + p, job->state_stride, 1, p, 1, &params);
    if (!params.all || FN(apply_run_of_halves)(job, job->source, row, start, n, &params, (char *)spare)) continue;
    const T *x = FN(load)(job, job->source, fn_base(job, job->source, row, 0), start, n, x_tile);
    FN(apply_run)(job, x, x, row, start, n, &params, 0, tile, (uint8_t *)spare);
  }
  fn_stream_end();
}

/* ---- columns ----------------------------------------------------------------------------------------------------- */

/* Rows of a strip of x + residual: stored, and where the pointer says, dense. */
static const T *FN(add_strip)(const fn_job *job, int64_t outer, int64_t j, int64_t start, int64_t rows, int64_t cols,
                              T *tile, T *spare) {
  int64_t x_stride, z_stride, stride;
  const T *x = FN(load_columns)(job, FN_X, fn_base(job, FN_X, outer, j), start, rows, cols, tile, &x_stride);
  const T *z = FN(load_columns)(job, FN_Z, fn_base(job, FN_Z, outer, j), start, rows, cols, spare, &z_stride);
  for (int64_t i = 0; i < rows; i++) FN(add)(tile + i * cols, NULL, x + i * x_stride, z + i * z_stride, cols);
  FN(store_strip)(job, FN_S, fn_base(job, FN_S, outer, j), start, rows, cols, tile, spare, job->stream);
  if (!fn_is_half(job->array[FN_S].dtype)) return tile;
  return FN(load_columns)(job, FN_S, fn_base(job, FN_S, outer, j), start, rows, cols, tile, &stride);
}

static void FN(norm_columns)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  T *tile = scratch, *out = tile + FN_CHUNK;
  const int64_t strips = (job->inner.size + job->strip - 1) / job->strip, n = job->n;
  const int by_state = FN(takes_states)(job), groups = job->unit > 1 && (job->weight || job->bias) && n < FN_SHORT;
  T *spread = tile + FN_CHUNK / 2; /* strips of short rows leave room */
  int64_t spread_at = -1, spread_cols = 0;
  FN(stats) stats;
  FN(params) params;
  for (int64_t unit = lo; unit < hi; unit++) {
    const int64_t outer = unit / strips, j = unit % strips * job->strip, p = fn_place(job, outer, j);
    const int64_t cols = job->inner.size - j < job->strip ? job->inner.size - j : job->strip;
    int64_t stride = cols;
    if (by_state) FN(params_by_state)(job, outer, j, cols, &params, scratch); /* before x is loaded, likewise */
    const T *x = FN(has_residual)(job)
                     ? FN(add_strip)(job, outer, j, 0, n, cols, tile, out)
                     : FN(load_columns)(job, FN_X, fn_base(job, FN_X, outer, j), 0, n, cols, tile, &stride);
    if (!by_state) {
      FN(stats_of_columns)(job, x, stride, cols, &stats);
      FN(fill_params)(stats.mean, stats.correction, stats.var, cols, job->eps, &params);
      params.at_zero = job->norm == FN_RMS;
      if (fn_is_shifted(job)) FN(fold_affine)(job, p, job->inner.step[FN_P], 0, cols, &params);
      for (int64_t c = 0; FN(is_saved)(job) && c < cols; c++) FN(save)(job, &stats, c, p + c * job->inner.step[FN_P]);
    }
    if (groups && /* strips that begin with the same group share what is spread */
        (job->inner.step[FN_P] != 1 || p % job->period != spread_at || cols != spread_cols)) {
      FN(spread_affine)(job, outer, j, 0, n, cols, spread, spread + n * cols);
      spread_at = p % job->period;
      spread_cols = cols;
    }
    FN(apply_strip)(job, x, stride, outer, j, 0, n, cols, &params, groups ? spread : NULL, out,
                    (uint8_t *)(out + FN_CHUNK));
    for (int64_t c = 0; c < cols && !params.all; c++)
      if (params.scale[c] != params.scale[c]) FN(norm_careful)(job, outer, j + c, tile);
  }
  fn_stream_end();
}

static void FN(residual_columns)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  T *tile = scratch;
  const int64_t chunks = (job->n + job->chunk - 1) / job->chunk;
  for (int64_t unit = lo; unit < hi; unit++) {
    const int64_t start = unit % chunks * job->chunk;
    const int64_t rows = job->n - start < job->chunk ? job->n - start : job->chunk;
    for (int64_t j = 0; j < job->inner.size; j += FN_STRIP)
      FN(add_strip)(job, unit / chunks, j, start, rows, job->inner.size - j < FN_STRIP ? job->inner.size - j : FN_STRIP,
                    tile, tile + FN_CHUNK);
  }
  fn_stream_end();
}

static void FN(apply_columns)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  T *tile = scratch, *out = tile + FN_CHUNK;
  const int64_t chunks = (job->n + job->chunk - 1) / job->chunk, step = job->inner.step[FN_P];
  FN(params) params;
  for (int64_t unit = lo; unit < hi; unit++) {
    const int64_t outer = unit / chunks, start = unit % chunks * job->chunk;
    const int64_t rows = job->n - start < job->chunk ? job->n - start : job->chunk;
    for (int64_t j = 0; j < job->inner.size; j += FN_STRIP) {
      const int64_t cols = job->inner.size - j < FN_STRIP ? job->inner.size - j : FN_STRIP;
      const int64_t p = fn_place(job, outer, j), few = FN(rows_at_once)(job, job->source, rows, cols);
      const char *base = fn_base(job, job->source, outer, j);
      int64_t stride;
      FN(params_of)(job, job->state + p, job->state_stride, step, p, cols, &params);
      if (FN(apply_strip_of_halves)(job, job->source, outer, j, start, rows, cols, &params, scratch)) continue;
      for (int64_t at = start, count; at < start + rows; at += count) {
        count = start + rows - at < few ? start + rows - at : few;
        const T *x = FN(load_columns)(job, job->source, base, at, count, cols, tile, &stride);
        FN(apply_strip)(job, x, stride, outer, j, at, count, cols, &params, NULL, out, (uint8_t *)(out + FN_CHUNK));
      }
    }
  }
  fn_stream_end();
}
