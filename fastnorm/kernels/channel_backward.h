/* Backward passes of channel norms: kernels.
 *
 * A block is up to job->block neighbouring kept indices that lie in runs, or a strip of columns. The sums of a block
 * are taken chunk by chunk and folded in the order of the chunks. A block that fits the cache is summed, settled and
 * written in one visit; others in three, which changes no bit.
 */

static int64_t FN(channel_blocks)(const fn_job *job) {
  if (job->columns) return job->outer * ((job->inner.size + job->strip - 1) / job->strip);
  return (job->outer + job->block - 1) / job->block;
}

/* The sums of a block over a chunk; they join those that are there, or take their place. */
static void FN(sum_block)(const fn_job *job, int64_t block, int64_t start, int64_t end, double *sums, int join,
                          FN(room) *room) {
  const int64_t places = job->width;
  if (job->columns) {
    FN(strip) strip;
    double to[FN_SUMS][FN_STRIP];
    FN(begin_strip)(job, block, &strip);
    FN(sum_columns_of)(job, &strip, start, end, room, to);
    for (int plane = 0; plane < FN_SUMS; plane++)
      for (int64_t c = 0; c < strip.cols; c++) {
        double *sum = sums + plane * places + strip.place + c * strip.step;
        *sum = (join ? *sum : 0) + to[plane][c];
      }
    return;
  }
  const int64_t first = block * job->block, last = first + job->block < job->outer ? first + job->block : job->outer;
  const int64_t planes = FN(planes_together)(job), most = planes ? planes : FN(TOGETHER);
  for (int64_t k = first, rows; k < last; k += rows) {
    FN(runs) runs;
    double to[FN_SUMS][FN(TOGETHER)];
    rows = last - k < most ? last - k : most;
    if (planes) {
      FN(sum_planes)(job, k, (int)rows, start, end, room, to);
      for (int plane = 0; plane < FN_SUMS; plane++) {
        double *sum = sums + plane * places + job->p + k;
        for (int r = 0; r < rows; r++) sum[r] = (join ? sum[r] : 0) + to[plane][r];
      }
      continue;
    }
    FN(begin_runs)(job, k, (int)rows, &runs);
    FN(sum_runs)(job, &runs, start, end, room, to);
    for (int plane = 0; plane < FN_SUMS; plane++)
      for (int r = 0; r < rows; r++) {
        double *sum = sums + plane * places + runs.place[r];
        *sum = (join ? *sum : 0) + to[plane][r];
      }
  }
}

static void FN(dx_of_block)(const fn_job *job, int64_t block, int64_t start, int64_t end, FN(room) *room) {
  if (job->columns) {
    FN(strip) strip;
    FN(begin_strip)(job, block, &strip);
    FN(dx_of_columns)(job, &strip, start, end, room);
    return;
  }
  const int64_t first = block * job->block, last = first + job->block < job->outer ? first + job->block : job->outer;
  const int64_t planes = FN(planes_together)(job), most = planes ? planes : FN(TOGETHER);
  for (int64_t k = first, rows; k < last; k += rows) {
    FN(runs) runs;
    rows = last - k < most ? last - k : most;
    if (planes) {
      FN(dx_of_planes)(job, k, (int)rows, start, end, room);
      continue;
    }
    FN(begin_runs)(job, k, (int)rows, &runs);
    FN(dx_of_runs)(job, &runs, start, end, room);
  }
}

static inline int64_t FN(end_of)(const fn_job *job, int64_t chunk) {
  const int64_t end = (chunk + 1) * job->chunk;
  return end < job->n ? end : job->n;
}

static void FN(channel_sums)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  const int64_t blocks = FN(channel_blocks)(job);
  for (int64_t unit = lo; unit < hi; unit++) {
    const int64_t slot = unit / blocks, chunk = job->first + slot;
    double *sums = job->slots + (1 + slot) * FN_SUMS * job->width;
    FN(sum_block)(job, unit % blocks, chunk * job->chunk, FN(end_of)(job, chunk), sums, 0, scratch);
  }
}

static void FN(channel_fold)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  (void)scratch;
  for (int plane = 0; plane < FN_SUMS; plane++) {
    double *totals = job->slots + plane * job->width;
    for (int64_t p = lo; job->first == 0 && p < hi; p++) totals[p] = 0;
    for (int64_t slot = 1; slot <= job->wave; slot++)
      for (int64_t p = lo; p < hi; p++) totals[p] += totals[slot * FN_SUMS * job->width + p];
  }
}

static void FN(channel_settle)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  for (int64_t cell = lo; cell < hi; cell++) FN(settle_cell)(job, cell, scratch);
}

static void FN(channel_dx)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  const int64_t blocks = FN(channel_blocks)(job), chunks = (job->n + job->chunk - 1) / job->chunk;
  for (int64_t unit = lo; unit < hi; unit++) {
    const int64_t backwards = chunks * blocks - 1 - unit, chunk = backwards / blocks; /* what was read last is cached */
    FN(dx_of_block)(job, backwards % blocks, chunk * job->chunk, FN(end_of)(job, chunk), scratch);
  }
  fn_stream_end();
}

/* The cells of a block; those of several places lie side by side. */
static void FN(settle_block)(const fn_job *job, int64_t block, FN(room) *room) {
  const int64_t width = job->inner.size, strips = (width + job->strip - 1) / job->strip;
  const int64_t length = job->columns ? job->strip : job->block;
  const int64_t first = job->columns ? block % strips * length : block * length;
  const int64_t whole = job->columns ? width : job->outer, last = first + length < whole ? first + length : whole;
  const int in_line = job->span == 1 && !job->columns && job->kept_ndim == 1 && job->kept[0].step[FN_P] == 1;
  for (int64_t k = first, count; in_line && k < last; k += count) {
    const int64_t left = job->period - fn_place(job, k, 0) % job->period; /* weights that stand side by side */
    count = last - k < FN(TOGETHER) ? last - k : FN(TOGETHER);
    if (count > left) count = left;
    FN(settle_places)(job, fn_place(job, k, 0), (int)count, room);
  }
  if (in_line) return;
  for (int64_t k = first; k < last; k += job->span)
    FN(settle_cell)(job, (job->columns ? fn_place(job, block / strips, k) : fn_place(job, k, 0)) / job->span, room);
}

static void FN(channel_visit)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  for (int64_t block = lo; block < hi; block++) {
    for (int64_t chunk = 0; chunk * job->chunk < job->n; chunk++)
      FN(sum_block)(job, block, chunk * job->chunk, FN(end_of)(job, chunk), job->slots, chunk > 0, scratch);
    FN(settle_block)(job, block, scratch);
    for (int64_t chunk = (job->n - 1) / job->chunk; chunk >= 0; chunk--)
      FN(dx_of_block)(job, block, chunk * job->chunk, FN(end_of)(job, chunk), scratch);
  }
  fn_stream_end();
}

static void FN(channel_totals)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  const double *dy = job->slots + FN_SUM_DY * job->width, *dyh = job->slots + FN_SUM_DYU * job->width;
  (void)scratch;
  for (int64_t at = 0; at < job->width; at += job->period)
    for (int64_t c = lo; c < hi; c++) {
      job->totals[c] += dyh[at + c];
      job->totals[job->period + c] += dy[at + c];
    }
}

static void FN(channel_finish)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  (void)scratch;
  const double *dweight = job->totals + lo, *dbias = dweight + job->period;
  if (job->dweight) fn_put_all(job->dweight, job->parameter_dtype, lo, 1, dweight, hi - lo);
  if (job->dbias) fn_put_all(job->dbias, job->parameter_dtype, lo, 1, dbias, hi - lo);
}
