/* The kernels of norms.
 *
 * Statistics and apply meet where the data fits a cache (norm_rows, norm_columns). Longer problems take their
 * statistics from moments.h and come here to have them applied (apply_rows, apply_columns), but for what the careful
 * way does alone (norm_careful_only).
 */

/* ---- rows -------------------------------------------------------------------------------------------------------- */

static void FN(norm_rows)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  T *tile = scratch, *x_tile = tile + FN_CHUNK, *y[FN(BATCH)];
  const T *x[FN(BATCH)], *ahead[FN(BATCH)];
  FN(stats) stats;
  FN(params) params;
  const int plain = FN(y_is_plain)(job) && !job->quiet;
  const int direct = FN(native)(&job->array[FN_X]) && job->reduced_ndim == 1 && fn_step(job, FN_X) == (int64_t)sizeof(T);
  const int64_t n = job->n, bytes = n * (int64_t)sizeof(T), most = FN_TILE / 2 / n;
  const int together = most < 1 ? 1 : most > FN(BATCH) ? FN(BATCH) : (int)most;
  /* Short rows that follow each other in memory go past the cache together, from a tile. */
  const int adjacent = job->kept_ndim == 0 || (job->kept_ndim == 1 && job->kept[0].step[FN_Y] == bytes);
  const int in_tile = job->stream && plain && adjacent && n <= FN_TILE / 4;
  for (int64_t row = lo; row < hi; row += together) {
    const int rows = hi - row < together ? (int)(hi - row) : together;
    for (int r = 0; r < rows; r++) {
      const int64_t next = row + together + r < hi ? row + together + r : row + r;
      const char *x_base = fn_base(job, FN_X, row + r, 0);
      x[r] = direct ? (const T *)(const void *)x_base : FN(load)(job, FN_X, x_base, 0, n, x_tile + r * n);
      ahead[r] = direct ? (const T *)(const void *)(fn_base(job, FN_X, next, 0)) : x[r];
      y[r] = in_tile ? tile + r * n : (T *)(void *)(fn_base(job, FN_Y, row + r, 0));
    }
    FN(stats_of_rows)(job, x, rows, &stats);
    FN(fill_params)(stats.mean, stats.correction, stats.var, rows, job->eps, &params);
    for (int r = 0; (job->mean || job->spread) && r < rows; r++)
      FN(save)(job, &stats, r, fn_place(job, row + r, 0));
    if (plain && params.all) {
      FN(apply_to_rows)(y, x, ahead, rows, job->weight, job->bias, n, &params, 0, job->stream && !in_tile);
      if (in_tile) fn_stream(fn_base(job, FN_Y, row, 0), (const char *)tile, rows * bytes);
      continue;
    }
    for (int r = 0; r < rows; r++) {
      char *y_base = fn_base(job, FN_Y, row + r, 0);
      if (params.scale[r] == params.scale[r])
        FN(apply_run)(job, x[r], y_base, 0, n, &params, r, tile);
      else
        FN(norm_careful)(job, fn_base(job, FN_X, row + r, 0), y_base,
                         fn_place(job, row + r, 0), tile);
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
    FN(params_of)(job, job->state + p, job->state_stride, 1, 1, &params);
    if (!params.all)
      FN(norm_careful)(job, fn_base(job, FN_X, outer, j),
                       fn_base(job, FN_Y, outer, j), p, scratch);
  }
}

static void FN(apply_rows)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  T *tile = scratch;
  FN(params) params;
  const int64_t chunks = (job->n + FN_CHUNK - 1) / FN_CHUNK;
  for (int64_t unit = lo; unit < hi; unit++) {
    const int64_t row = unit / chunks, start = unit % chunks * FN_CHUNK;
    const int64_t n = job->n - start < FN_CHUNK ? job->n - start : FN_CHUNK;
    FN(params_of)(job, job->state + fn_place(job, row, 0), job->state_stride, 1, 1,
                  &params);
    if (!params.all) continue;
    const T *x = FN(load)(job, FN_X, fn_base(job, FN_X, row, 0), start, n, tile + FN_CHUNK);
    FN(apply_run)(job, x, fn_base(job, FN_Y, row, 0), start, n, &params, 0, tile);
  }
  fn_stream_end();
}

/* ---- columns ----------------------------------------------------------------------------------------------------- */

static void FN(norm_columns)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  T *tile = scratch, *out = tile + FN_CHUNK;
  const int64_t strips = (job->inner.size + job->strip - 1) / job->strip;
  FN(stats) stats;
  FN(params) params;
  for (int64_t unit = lo; unit < hi; unit++) {
    const int64_t outer = unit / strips, j = unit % strips * job->strip;
    const int64_t cols = job->inner.size - j < job->strip ? job->inner.size - j : job->strip;
    const char *x_base = fn_base(job, FN_X, outer, j);
    char *y_base = fn_base(job, FN_Y, outer, j);
    const int64_t p = fn_place(job, outer, j);
    int64_t stride;
    const T *x = FN(load_columns)(job, FN_X, x_base, 0, job->n, cols, tile, &stride);
    FN(stats_of_columns)(job, x, stride, cols, &stats);
    FN(fill_params)(stats.mean, stats.correction, stats.var, cols, job->eps, &params);
    for (int64_t c = 0; (job->mean || job->spread) && c < cols; c++) FN(save)(job, &stats, c, p + c * job->inner.step[FN_P]);
    FN(apply_strip)(job, x, stride, y_base, 0, job->n, cols, &params, out);
    for (int64_t c = 0; c < cols && !params.all; c++)
      if (params.scale[c] != params.scale[c])
        FN(norm_careful)(job, x_base + c * job->inner.step[FN_X], y_base + c * job->inner.step[FN_Y], p + c * job->inner.step[FN_P], tile);
  }
  fn_stream_end();
}

static void FN(apply_columns)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  T *tile = scratch;
  const int64_t chunks = (job->n + job->chunk - 1) / job->chunk;
  FN(params) params;
  for (int64_t unit = lo; unit < hi; unit++) {
    const int64_t outer = unit / chunks, start = unit % chunks * job->chunk;
    const int64_t rows = job->n - start < job->chunk ? job->n - start : job->chunk;
    const char *x_base = fn_base(job, FN_X, outer, 0);
    char *y_base = fn_base(job, FN_Y, outer, 0);
    const double *state = job->state + fn_place(job, outer, 0);
    for (int64_t j = 0; j < job->inner.size; j += FN_STRIP) {
      const int64_t cols = job->inner.size - j < FN_STRIP ? job->inner.size - j : FN_STRIP;
      int64_t stride;
      const T *x = FN(load_columns)(job, FN_X, x_base + j * job->inner.step[FN_X], start, rows, cols, tile, &stride);
      FN(params_of)(job, state + j * job->inner.step[FN_P], job->state_stride, job->inner.step[FN_P], cols, &params);
      FN(apply_strip)(job, x, stride, y_base + j * job->inner.step[FN_Y], start, rows, cols, &params, tile + FN_CHUNK);
    }
  }
  fn_stream_end();
}
