/* Backward passes: kept indices as rows, whatever they are in memory.
 *
 * A batch holds up to FN(TOGETHER) neighbouring kept indices as rows of elements that follow each other: memory itself
 * where it is that, tiles otherwise. How many there are depends on what is read alone.
 */

enum { FN(TOGETHER) = 16 };

/* ---- rooms and batches ------------------------------------------------------------------------------------------- */

/* Elements of long rows that are worked on together; no row of columns is longer. */
enum { FN(SEGMENT) = 1024 };

/* What up to FN(TOGETHER) rows add to dweight and dbias, before that is added in double. */
typedef struct {
  T dweight[FN(SEGMENT)], dbias[FN(SEGMENT)];
} FN(few);

/* Scratch of a thread. */
typedef struct {
  T x[FN_VISIT], dy[FN_VISIT];       /* what is not a row in memory */
  T out[FN_VISIT];                   /* columns: dx before it is written; rows: weights that do not follow each other */
  T dx[FN_TILE];                     /* rows: dx */
  T weight[FN_VISIT / FN(TOGETHER)]; /* columns: weights */
  FN(few) few;
  T slow[2 * FN_FLUSH];
  unsigned char mask[FN_VISIT], slow_mask[FN_FLUSH];
} FN(room);
_Static_assert(sizeof(FN(room)) <= FN_SCRATCH_BYTES, "a room is no larger than the scratch of a thread");

/* Up to FN(TOGETHER) neighbouring kept indices as rows of elements that follow each other. */
typedef struct {
  int rows;
  const T *x[FN(TOGETHER)], *dy[FN(TOGETHER)];
  const unsigned char *mask; /* one row after the other; NULL: all count */
  int64_t ahead;             /* bytes from x and dy to what the next batch will read; 0: unknown */
} FN(batch);

/* Of some kept indices: sums at first, then averages: of c = x - mean (the average is the shift), of g and of g * xhat.
 * `careful` is not 0 where dx is taken in double. */
typedef struct {
  double count[FN(TOGETHER)], shift[FN(TOGETHER)], mean_g[FN(TOGETHER)], dot[FN(TOGETHER)], careful[FN(TOGETHER)];
} FN(slopes);

/* What dx is made with, in the compute type. */
typedef struct {
  T mean[FN(TOGETHER)], rstd[FN(TOGETHER)], shift[FN(TOGETHER)], mean_g[FN(TOGETHER)], dot[FN(TOGETHER)];
} FN(factors);

/* Do the kept indices from k on lie along one axis? */
static int FN(side_by_side)(const fn_job *job, int64_t k, int rows) {
  return job->inner.size == 1 ? job->kept_ndim <= 1 : k % job->inner.size + rows <= job->inner.size;
}

/* Offsets in array `which` (FN_P: places) of the kept indices from k on. */
static void FN(kept_offsets)(const fn_job *job, int which, int64_t k, int rows, int64_t *to) {
  const int64_t width = job->inner.size, p = which == FN_P ? job->p : 0, across = job->inner.step[which];
  const int64_t step = width == 1 && job->kept_ndim == 1 ? job->kept[0].step[which] : across;
  const int one_axis = FN(side_by_side)(job, k, rows);
  const int64_t first = fn_offset(job->kept, job->kept_ndim, k / width, which) + k % width * across;
  for (int r = 0; r < rows && one_axis; r++) to[r] = p + first + r * step;
  for (int r = 0; r < rows && !one_axis; r++)
    to[r] = p + fn_offset(job->kept, job->kept_ndim, (k + r) / width, which) + (k + r) % width * across;
}

/* How many kept indices from k on are worked on together: as many as if nothing was written. */
static int FN(batch_rows)(const fn_job *job, int64_t k, int64_t end) {
  const int64_t fit = FN_VISIT / job->n / 4 * 4, width = job->beside;
  int64_t most = job->columns || fit > FN(TOGETHER) ? FN(TOGETHER) : fit < 4 ? 4 : fit;
  if (width > 1 && width - k % width < most) most = width - k % width;
  return (int)(end - k < most ? end - k : most);
}

/* ---- between memory and rows ------------------------------------------------------------------------------------- */

/* Are the reduced elements of a kept index a row in memory? By the layout of the job, not by its address. */
static inline int FN(in_rows)(const fn_job *job, int which) {
  return FN(native)(&job->array[which]) &&
         (job->n == 1 || (job->stretch[which] == job->n && fn_step(job, which) == (int64_t)sizeof(T)));
}

/* Elements start <= i < start + count of `rows` kept indices: pointers to rows in memory or in `tile`. */
static void FN(bring_rows)(const fn_job *job, int which, int64_t k, int rows, int64_t start, int64_t count, T *tile,
                           T *spare, const T **to) {
  int64_t offset[FN(TOGETHER)];
  FN(kept_offsets)(job, which, k, rows, offset);
  const char *data = job->array[which].data;
  if (FN(in_rows)(job, which)) {
    for (int r = 0; r < rows; r++) to[r] = (const T *)(const void *)(data + offset[r]) + start;
    return;
  }
  for (int r = 0; r < rows; r++) to[r] = tile + r * count;
  if (job->columns && FN(side_by_side)(job, k, rows)) {
    int64_t stride;
    const T *from = FN(load_columns)(job, which, data + offset[0], start, count, rows, spare, &stride);
    FN(turn)(tile, count, from, stride, count, rows);
  } else {
    for (int r = 0; r < rows; r++) to[r] = FN(load)(job, which, data + offset[r], start, count, tile + r * count);
  }
}

/* The same of the mask: one byte per element, one row after the other. */
static void FN(bring_mask)(const fn_job *job, int64_t k, int rows, int64_t start, int64_t count, unsigned char *mask) {
  int64_t offset[FN(TOGETHER)];
  FN(kept_offsets)(job, FN_WHERE, k, rows, offset);
  const char *data = job->array[FN_WHERE].data;
  const int64_t step = fn_step(job, FN_WHERE);
  for (int64_t at = 0; at < count;) {
    const fn_run run = fn_next_run(job, FN_WHERE, start + at, count - at);
    if (job->columns)
      for (int64_t i = 0; i < run.count; i++)
        for (int r = 0; r < rows; r++)
          mask[r * count + at + i] = (unsigned char)data[offset[r] + run.offset + i * step];
    else
      for (int r = 0; r < rows; r++)
        for (int64_t i = 0; i < run.count; i++)
          mask[r * count + at + i] = (unsigned char)data[offset[r] + run.offset + i * step];
    at += run.count;
  }
}

/* x and dy of a batch. What does not count becomes x = mean and dy = 0, which adds nothing to any sum. */
static void FN(bring)(const fn_job *job, int64_t k, int rows, int64_t start, int64_t count, const T *mean,
                      FN(room) *room, FN(batch) *batch) {
  batch->rows = rows;
  batch->mask = NULL;
  const int64_t step = job->kept_ndim ? job->kept[job->kept_ndim - 1].step[FN_X] : 0;
  /* Longer rows are streams that processors follow by themselves; asking for them only takes their cache away. */
  const int alike = !job->columns && job->n <= 4 * FN_SHORT && job->kept_ndim == 1 && step == job->kept[0].step[FN_Z];
  batch->ahead = alike && FN(in_rows)(job, FN_X) && FN(in_rows)(job, FN_Z) ? rows * step : 0;
  FN(bring_rows)(job, FN_X, k, rows, start, count, room->x, room->out, batch->x);
  FN(bring_rows)(job, FN_Z, k, rows, start, count, room->dy, room->out, batch->dy);
  if (!job->array[FN_WHERE].data) return;
  FN(bring_mask)(job, k, rows, start, count, room->mask);
  batch->mask = room->mask;
  for (int r = 0; r < rows; r++) {
    const unsigned char *mask = room->mask + r * count;
    const T *x = batch->x[r], *dy = batch->dy[r], m = mean[r] - mean[r] == 0 ? mean[r] : 0;
    T *x_to = room->x + r * count, *dy_to = room->dy + r * count;
    FN_IVDEP
    for (int64_t i = 0; i < count; i++) {
      const T v = x[i], d = dy[i];
      x_to[i] = mask[i] ? v : m;
      dy_to[i] = mask[i] ? d : 0;
    }
    batch->x[r] = x_to;
    batch->dy[r] = dy_to;
  }
}

/* Weights start <= i < start + count: contiguous, in memory or in `tile`; NULL: all one. */
static const T *FN(bring_weight)(const fn_job *job, int64_t start, int64_t count, T *tile) {
  const T *weight = job->weight;
  if (!weight) return NULL;
  for (int64_t at = 0; at < count;) {
    const fn_run run = fn_next_run(job, FN_P, start + at, count - at);
    const int64_t step = fn_step(job, FN_P);
    if (run.count == count && (step == 1 || count == 1)) return weight + run.offset;
    for (int64_t i = 0; i < run.count; i++) tile[at + i] = weight[run.offset + i * step];
    at += run.count;
  }
  return tile;
}

/* Rows of dx, `count` elements from number `start` on, leave the tile in which they follow each other. */
static void FN(put_rows)(const fn_job *job, int64_t k, int rows, int64_t start, int64_t count, const T *dx) {
  int64_t offset[FN(TOGETHER)];
  FN(kept_offsets)(job, FN_Y, k, rows, offset);
  char *data = job->array[FN_Y].data;
  if (!FN(in_rows)(job, FN_Y)) {
    for (int r = 0; r < rows; r++) FN(store)(job, FN_Y, data + offset[r], start, count, dx + r * count);
    return;
  }
  const int64_t bytes = count * (int64_t)sizeof(T);
  int adjacent = 1;
  for (int r = 1; r < rows; r++) adjacent &= offset[r] - offset[r - 1] == bytes;
  const int pieces = adjacent ? 1 : rows;
  for (int r = 0; r < pieces; r++) {
    char *to = data + offset[r] + start * (int64_t)sizeof(T);
    if (job->stream)
      fn_stream(to, (const char *)(dx + r * count), bytes * (rows / pieces));
    else
      memcpy(to, dx + r * count, (size_t)(bytes * (rows / pieces)));
  }
}

/* Columns of dx, worked on as rows, are turned back by way of another tile. */
static void FN(put_columns)(const fn_job *job, int64_t k, int cols, int64_t start, int64_t count, const T *dx,
                            T *turned) {
  int64_t offset[FN(TOGETHER)];
  FN(kept_offsets)(job, FN_Y, k, cols, offset);
  if (!FN(side_by_side)(job, k, cols)) {
    for (int c = 0; c < cols; c++)
      FN(store)(job, FN_Y, job->array[FN_Y].data + offset[c], start, count, dx + c * count);
    return;
  }
  FN(turn)(turned, cols, dx, count, cols, count);
  char *data = job->array[FN_Y].data + offset[0];
  for (int64_t i = 0; i < count; i++)
    FN(scatter_run)(data + fn_along(job, FN_Y, start + i), turned + i * cols, cols, job->inner.step[FN_Y],
                    job->array[FN_Y].dtype);
}
