/* Backward passes of channel norms whose reduced elements lie in runs: sums and dx of some kept indices over a chunk.
 *
 * Batch norm of (N, C, H, W) has N runs of H * W elements per channel. Runs of neighbouring kept indices are worked on
 * in turn, so that memory is walked in its own order. How a run is cut into pieces, which are summed by lanes of their
 * own, depends on x alone.
 */

enum { FN(PIECE) = 2048 };

/* Up to FN(TOGETHER) neighbouring kept indices: where they begin, and what is known of them. */
typedef struct {
  int rows;
  const char *x[FN(TOGETHER)], *dy[FN(TOGETHER)], *y[FN(TOGETHER)], *where[FN(TOGETHER)];
  char *dx[FN(TOGETHER)];
  int64_t place[FN(TOGETHER)];
  T mean[FN(TOGETHER)];
} FN(runs);

/* Reduced elements start <= i < start + count, and where they are in each array. */
typedef struct {
  int64_t start, count;
  struct {
    int64_t offset;
    int direct; /* they follow each other, stored in this very type */
  } in[FN_ARRAYS];
} FN(piece);

static void FN(begin_runs)(const fn_job *job, int64_t k, int rows, FN(runs) *runs) {
  int64_t offset[FN(TOGETHER)];
  const char **lists[FN_ARRAYS] = {[FN_X] = runs->x,
                                   [FN_Z] = runs->dy,
                                   [FN_S] = runs->y,
                                   [FN_WHERE] = runs->where,
                                   [FN_Y] = (const char **)runs->dx};
  for (int which = 0; which < FN_ARRAYS; which++) {
    if (!lists[which] || !job->array[which].data) continue;
    FN(kept_offsets)(job, which, k, rows, offset);
    for (int r = 0; r < rows; r++) lists[which][r] = job->array[which].data + offset[r];
  }
  FN(kept_offsets)(job, FN_P, k, rows, runs->place);
  for (int r = 0; r < rows; r++) runs->mean[r] = ((const T *)job->mean)[runs->place[r] / job->span];
  runs->rows = rows;
}

/* The piece that begins at `start`: of one run, or of several shorter than `few`. */
static void FN(next_piece)(const fn_job *job, int64_t start, int64_t end, int64_t few, FN(piece) *piece) {
  const int64_t run = job->stretch[FN_X];
  int64_t count = run < few ? FN(PIECE) / run * run : run - start % run;
  if (count > FN(PIECE)) count = FN(PIECE);
  if (count > end - start) count = end - start;
  piece->start = start;
  piece->count = count;
  for (int which = 0; which < FN_ARRAYS; which++) {
    if (!job->array[which].data) continue;
    const fn_run first = fn_next_run(job, which, start, count);
    piece->in[which].offset = first.offset;
    piece->in[which].direct = FN(native)(&job->array[which]) && first.count == count &&
                              (fn_step(job, which) == (int64_t)sizeof(T) || count == 1);
  }
}

static const T *FN(load_piece)(const fn_job *job, int which, const char *base, const FN(piece) *piece, T *tile) {
  const int64_t run = job->stretch[which], size = (int64_t)sizeof(T);
  const char *from = base + piece->in[which].offset;
  if (piece->in[which].direct) return (const T *)(const void *)from;
  if (job->reduced_ndim != 2 || job->reduced[1].size != run || piece->start % run || fn_step(job, which) != size ||
      !FN(native)(&job->array[which]))
    return FN(load)(job, which, base, piece->start, piece->count, tile);
  for (int64_t at = 0; at < piece->count; at += run, from += job->reduced[0].step[which]) { /* whole short runs */
    const T *values = (const T *)(const void *)from;
    const int64_t n = piece->count - at < run ? piece->count - at : run;
    FN_IVDEP
    for (int64_t i = 0; i < n; i++) tile[at + i] = values[i];
  }
  return tile;
}

/* x, dy and the mask of row r; dy is 0 where a ReLU or the mask stops it. */
static const unsigned char *FN(bring_piece)(const fn_job *job, const FN(runs) *runs, int r, const FN(piece) *piece,
                                            FN(room) *room, const T **x, const T **dy) {
  *x = FN(load_piece)(job, FN_X, runs->x[r], piece, room->x);
  *dy = FN(load_piece)(job, FN_Z, runs->dy[r], piece, room->dy);
  if (job->relu) {
    FN(before_relu)(room->dy, *dy, FN(load_piece)(job, FN_S, runs->y[r], piece, room->out), piece->count);
    *dy = room->dy;
  }
  if (!job->array[FN_WHERE].data) return NULL;
  const unsigned char *mask = load_u8(job, FN_WHERE, runs->where[r], piece->start, piece->count, room->mask);
  FN(leave_out)(room->x, room->dy, *x, *dy, mask, runs->mean[r], piece->count);
  *x = room->x;
  *dy = room->dy;
  return mask;
}

/* The sums of a chunk, to[plane][r]. */
static void FN(sum_runs)(const fn_job *job, const FN(runs) *runs, int64_t start, int64_t end, FN(room) *room,
                         double (*to)[FN(TOGETHER)]) {
  enum { HALF = FN_LANES / 2 };
  FN(lanes) lanes;
  FN(piece) piece, next;
  const int in_place = !job->relu && !job->array[FN_WHERE].data; /* x and dy are not brought to tiles */
  memset(&lanes, 0, sizeof lanes);
  for (int r = 0; r < runs->rows; r++) to[FN_SUM_COUNT][r] = job->array[FN_WHERE].data ? 0 : (double)(end - start);
  FN(next_piece)(job, start, end, FN_SHORT, &piece);
  for (; piece.start < end; piece = next) {
    const int64_t behind = piece.start + piece.count;
    next.start = end;
    if (behind < end) FN(next_piece)(job, behind, end, FN_SHORT, &next);
    const int fetched = behind < end && in_place && piece.in[FN_X].direct && piece.in[FN_Z].direct;
    const int64_t leap = fetched ? next.in[FN_X].offset - piece.in[FN_X].offset : 0;
    const int64_t ahead = leap > 8192 ? leap : in_place ? 8192 : 0; /* runs follow each other more often than not */
    for (int r = 0; r < runs->rows; r++) {
      const T *x, *dy;
      double c[HALF], g[HALF], gc[HALF];
      const unsigned char *mask = FN(bring_piece)(job, runs, r, &piece, room, &x, &dy);
      FN(backward_sums_of_kind)(x, dy, NULL, piece.count, runs->mean[r], c, g, gc, (uintptr_t)ahead, FN(CENTERED));
      for (int l = 0; l < HALF; l++) lanes.c[r][l] += c[l];
      for (int l = 0; l < HALF; l++) lanes.g[r][l] += g[l];
      for (int l = 0; l < HALF; l++) lanes.gc[r][l] += gc[l];
      int64_t count = 0;
      for (int64_t i = 0; mask && i < piece.count; i++) count += mask[i];
      to[FN_SUM_COUNT][r] += (double)count;
    }
  }
  FN(fold_halves)(lanes.c, runs->rows, to[FN_SUM_U]);
  FN(fold_halves)(lanes.g, runs->rows, to[FN_SUM_DY]);
  FN(fold_halves)(lanes.gc, runs->rows, to[FN_SUM_DYU]);
}

/* ---- dx ---------------------------------------------------------------------------------------------------------- */

/* For numbers and vectors alike. */
#define FN_CHANNEL_DX(dy, x, a, b, k, mean) (((dy) * (a) - (b)) - ((x) - (mean)) * (k))

static void FN(dx_of_run)(T *dx, const T *x, const T *dy, int64_t n, T a, T b, T k, T mean, int given) {
  if (given) {
    FN_IVDEP
    for (int64_t i = 0; i < n; i++) dx[i] = dy[i] * a;
  } else {
    FN_IVDEP
    for (int64_t i = 0; i < n; i++) dx[i] = FN_CHANNEL_DX(dy[i], x[i], a, b, k, mean);
  }
}

/* Runs of dx that follow each other leave a tile together, past the cache. */
typedef struct {
  char *to;
  int64_t held;
} FN(stream);

static void FN(flush)(FN(stream) *stream, const T *tile) {
  if (stream->held) fn_stream(stream->to, (const char *)tile, stream->held * (int64_t)sizeof(T));
  stream->held = 0;
}

/* dx of a chunk. */
static void FN(dx_of_runs)(const fn_job *job, const FN(runs) *runs, int64_t start, int64_t end, FN(room) *room) {
  const T *factors = job->factors;
  FN(stream) stream = {runs->dx[0], 0};
  FN(piece) piece;
  for (int64_t at = start; at < end; at += piece.count) {
    FN(next_piece)(job, at, end, FN(LINE) / 2, &piece);
    for (int r = 0; r < runs->rows; r++) {
      const T *x, *dy, *of = factors + runs->place[r], a = of[0], mean = of[FN_OF_MEAN * job->width];
      const unsigned char *mask = FN(bring_piece)(job, runs, r, &piece, room, &x, &dy);
      const int direct = piece.in[FN_Y].direct;
      char *place = runs->dx[r] + piece.in[FN_Y].offset;
      const int follows = place == stream.to + stream.held * (int64_t)sizeof(T);
      if (stream.held && !(direct && follows && stream.held + piece.count <= FN_TILE)) FN(flush)(&stream, room->dx);
      if (stream.held == 0) stream.to = place;
      T *dx = direct && !job->stream ? (T *)(void *)place : room->dx + stream.held;
      if (a != a)
        FN(careful_dx)(job, runs->place[r], dx, 1, x, 1, dy, 1, piece.count);
      else
        FN(dx_of_run)(dx, x, dy, piece.count, a, of[FN_OF_ONE * job->width], of[FN_OF_U * job->width], mean,
                      job->given);
      for (int64_t i = 0; mask && i < piece.count; i++) dx[i] = mask[i] ? dx[i] : 0;
      if (!direct)
        FN(store)(job, FN_Y, runs->dx[r], at, piece.count, dx);
      else if (job->stream)
        stream.held += piece.count;
    }
  }
  FN(flush)(&stream, room->dx);
}
