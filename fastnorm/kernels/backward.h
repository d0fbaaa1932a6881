/* The kernels of backward passes of norms whose parameters lie along the reduced axes: how kept indices become blocks,
 * and blocks totals.
 */

/* Magnitudes are in the order of their bits, infinity and NaN above all numbers. */
static void FN(backward_weight)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  const T *weight = job->weight;
  U most = 0;
  T largest;
  for (int64_t i = lo; i < hi; i++) {
    U bits;
    memcpy(&bits, weight + i, sizeof bits);
    bits &= (U)-1 >> 1;
    most = bits > most ? bits : most;
  }
  memcpy(&largest, &most, sizeof largest);
  *(double *)scratch = fn_finite((double)largest) ? (double)largest : __builtin_inf();
}

static void FN(backward_sums)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  FN(room) *room = scratch;
  const int64_t kept = job->outer * job->inner.size, blocks = (kept + job->block - 1) / job->block;
  for (int64_t unit = lo; unit < hi; unit++) {
    const int64_t chunk = unit / blocks, start = chunk * job->chunk, first = unit % blocks * job->block;
    const int64_t count = job->n - start < job->chunk ? job->n - start : job->chunk;
    const int64_t end = kept - first < job->block ? kept : first + job->block;
    const T *weight = FN(bring_weight)(job, start, count, job->columns ? room->weight : room->out);
    for (int64_t k = first, rows; k < end; k += rows) {
      T mean[FN(TOGETHER)] = {0}, rstd[FN(TOGETHER)] = {0};
      FN(slopes) sums;
      FN(batch) batch;
      rows = FN(batch_rows)(job, k, end);
      if (rows * count > FN_VISIT) rows = 1;
      FN(bring_statistics)(job, k, (int)rows, mean, rstd);
      FN(bring)(job, k, (int)rows, start, count, mean, room, &batch);
      FN(backward_sums_of_rows)(job, &batch, weight, count, mean, &sums, 0);
      for (int r = 0; r < rows; r++)
        job->slopes[chunk * kept + k + r] =
            (fn_slope){.count = sums.count[r], .shift = sums.shift[r], .mean_g = sums.mean_g[r], .dot = sums.dot[r]};
    }
  }
}

static void FN(backward_settle)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  const int64_t kept = job->outer * job->inner.size, chunks = (job->n + job->chunk - 1) / job->chunk;
  for (int64_t k = lo; k < hi; k++) {
    fn_slope *slope = job->slopes + k;
    T mean = 0, rstd = 0;
    FN(slopes) sums = {{0}, {0}, {0}, {0}, {0}};
    for (int64_t chunk = 0; chunk < chunks; chunk++) {
      const fn_slope *part = slope + chunk * kept;
      sums.count[0] += part->count;
      sums.shift[0] += part->shift;
      sums.mean_g[0] += part->mean_g;
      sums.dot[0] += part->dot;
    }
    FN(bring_statistics)(job, k, 1, &mean, &rstd);
    FN(settle_slopes)(job, &mean, &rstd, &sums, 1);
    *slope = (fn_slope){sums.count[0], sums.shift[0], sums.mean_g[0], sums.dot[0], sums.careful[0] != 0, 0, 0};
    if (slope->careful) FN(careful_slope)(job, k, mean, rstd, scratch, slope);
  }
}

static void FN(backward_blocks)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  FN(room) *room = scratch;
  const int64_t kept = job->outer * job->inner.size, chunks = (job->width + job->chunk - 1) / job->chunk;
  for (int64_t unit = lo; unit < hi; unit++) {
    const int64_t slot = unit / chunks, first = (job->first + slot) * job->block, within = unit % chunks * job->chunk;
    const int64_t start = job->index + within, end = kept - first < job->block ? kept : first + job->block;
    const int64_t count = job->n - start < job->chunk ? job->n - start : job->chunk;
    const T *weight = FN(bring_weight)(job, start, count, job->columns ? room->weight : room->out);
    double *dweight = job->slots + (1 + slot) * 2 * job->width + within, *dbias = dweight + job->width;
    for (int64_t i = 0; i < count; i++) dweight[i] = dbias[i] = 0;
    for (int64_t k = first, rows; k < end; k += rows) {
      rows = FN(short_rows)(job, k, end);
      if (rows > 0) {
        FN(backward_short)(job, k, rows, weight, dweight, dbias, room);
        continue;
      }
      rows = FN(batch_rows)(job, k, end);
      FN(backward_batch)(job, k, (int)rows, start, count, weight, dweight, dbias, room);
    }
  }
  fn_stream_end();
}

/* Slots of one wave of blocks join the totals, which stand before them, in the order of the blocks. */
static void FN(backward_fold)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  const int64_t stride = 2 * job->width;
  double *totals = job->slots;
  (void)scratch;
  for (int64_t i = lo; job->first == 0 && i < hi; i++) totals[i] = 0;
  for (int64_t slot = 1; slot <= job->wave; slot++)
    for (int64_t i = lo; i < hi; i++) totals[i] += totals[slot * stride + i];
}

/* Totals become dweight and dbias, rounded once. */
static void FN(backward_finish)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  (void)scratch;
  for (int64_t i = lo; i < hi;) {
    const fn_run run = fn_next_run(job, FN_P, job->index + i, hi - i);
    const int64_t step = fn_step(job, FN_P);
    const double *dweight = job->slots + i, *dbias = dweight + job->width;
    if (job->dweight) fn_put_all(job->dweight, job->parameter_dtype, run.offset, step, dweight, run.count);
    if (job->dbias) fn_put_all(job->dbias, job->parameter_dtype, run.offset, step, dbias, run.count);
    i += run.count;
  }
}
