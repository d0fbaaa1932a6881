/* Backward passes of channel norms whose reduced elements lie in runs: sums and dx of some kept indices over a chunk.
 *
 * Batch norm of (N, C, H, W) has N runs of H * W elements per channel. Runs of neighbouring kept indices are worked on
 * in turn, so that memory is walked nearly in its own order. A line is a run, or as many runs as are summed as one if
 * they are shorter than the lanes. How lines are cut into pieces, whose sums are taken apart, depends on x alone.
 */

enum { FN(PIECE) = 2048, FN(TALLY) = 32 * FN_LANES /* elements that are added in the compute type */ };

/* Up to FN(TOGETHER) neighbouring kept indices: where they begin, and what is known of them. */
typedef struct {
  int rows;
  const char *x[FN(TOGETHER)], *dy[FN(TOGETHER)], *y[FN(TOGETHER)], *where[FN(TOGETHER)];
  char *dx[FN(TOGETHER)];
  int64_t place[FN(TOGETHER)];
  T mean[FN(TOGETHER)];
} FN(runs);

/* Elements start <= i < start + count, which are `lines` times `size`, and where they are in each array. */
typedef struct {
  int64_t start, count, lines, size;
  struct {
    int64_t offset, step; /* bytes to the first line and from each line to the next */
    int direct;           /* the elements of a line follow each other, stored in this very type */
  } in[FN_ARRAYS];
} FN(piece);

static void FN(begin_runs)(const fn_job *job, int64_t k, int rows, FN(runs) *runs) {
  const int plain = job->kept_ndim == 1 && job->inner.size == 1;
  int64_t offset[FN(TOGETHER)];
  const char **lists[FN_ARRAYS] = {[FN_X] = runs->x,
                                   [FN_Z] = runs->dy,
                                   [FN_S] = runs->y,
                                   [FN_WHERE] = runs->where,
                                   [FN_Y] = (const char **)runs->dx};
  for (int which = 0; which < FN_ARRAYS; which++) {
    if (!lists[which] || !job->array[which].data) continue;
    if (plain)
      for (int r = 0; r < rows; r++) offset[r] = (k + r) * job->kept[0].step[which];
    else
      FN(kept_offsets)(job, which, k, rows, offset);
    for (int r = 0; r < rows; r++) lists[which][r] = job->array[which].data + offset[r];
  }
  FN(kept_offsets)(job, FN_P, k, rows, runs->place);
  int64_t cell = 0, at = 0;
  for (int r = 0; r < rows; r++) { /* a division for each cell, not for each place */
    if (r > 0 && runs->place[r] == runs->place[r - 1] + 1 && at + 1 < job->span) {
      at++;
    } else {
      cell = job->span == 1 ? runs->place[r] : runs->place[r] / job->span;
      at = runs->place[r] - cell * job->span;
    }
    runs->mean[r] = ((const T *)job->mean)[cell];
  }
  runs->rows = rows;
}

/* The piece that begins at `start`: some of a line, or whole lines that are short, no more than `most`. */
static void FN(next_piece)(const fn_job *job, int64_t start, int64_t end, int64_t most, FN(piece) *piece) {
  const int64_t run = job->stretch[FN_X], line = run < FN_LANES ? FN(TALLY) / run * run : run;
  int64_t size = line > FN(PIECE) ? line - start % line : line;
  if (size > FN(PIECE)) size = FN(PIECE);
  if (size > end - start) size = end - start;
  int64_t lines = FN(TALLY) / FN_LANES / ((size + FN_LANES - 1) / FN_LANES);
  if (lines > most) lines = most;
  if (lines > 1 && lines * size > end - start) lines = (end - start) / size;
  if (lines < 1) lines = 1;
  const int64_t count = lines * size;
  const int apart = lines > 1 && job->reduced_ndim == 2 && job->reduced[1].size == size;
  piece->start = start;
  piece->count = count;
  piece->lines = lines;
  piece->size = size;
  for (int which = 0; which < FN_ARRAYS; which++) {
    if (!job->array[which].data) continue;
    const fn_run first = fn_next_run(job, which, start, count);
    piece->in[which].offset = first.offset;
    piece->in[which].step = apart ? job->reduced[0].step[which] : size * (int64_t)sizeof(T);
    piece->in[which].direct = FN(native)(&job->array[which]) && (apart || first.count == count) &&
                              (fn_step(job, which) == (int64_t)sizeof(T) || count == 1);
  }
}

/* Where lines begin, `step` bytes apart; with `dense` without a gap. */
FN_INLINE const T *FN(load_piece)(const fn_job *job, int which, const char *base, const FN(piece) *piece, int dense,
                                  T *tile, int64_t *step) {
  *step = piece->in[which].step;
  if (piece->in[which].direct && !(dense && piece->lines > 1))
    return (const T *)(const void *)(base + piece->in[which].offset);
  *step = piece->size * (int64_t)sizeof(T);
  return FN(load)(job, which, base, piece->start, piece->count, tile);
}

/* x, dy and the mask of row r; dy is 0 where a ReLU or the mask stops it. `step`: from line to line of x and of dy. */
FN_INLINE const unsigned char *FN(bring_piece)(const fn_job *job, const FN(runs) *runs, int r, const FN(piece) *piece,
                                               FN(room) *room, const T **x, const T **dy, int64_t *step) {
  const int dense = job->relu || job->array[FN_WHERE].data;
  int64_t y_step;
  *x = FN(load_piece)(job, FN_X, runs->x[r], piece, dense, room->x, &step[0]);
  *dy = FN(load_piece)(job, FN_Z, runs->dy[r], piece, dense, room->dy, &step[1]);
  if (!dense) return NULL;
  if (job->relu) {
    FN(before_relu)(room->dy, *dy, FN(load_piece)(job, FN_S, runs->y[r], piece, dense, room->out, &y_step),
                    piece->count);
    *dy = room->dy;
  }
  if (!job->array[FN_WHERE].data) return NULL;
  const unsigned char *mask = load_u8(job, FN_WHERE, runs->where[r], piece->start, piece->count, room->mask);
  FN(leave_out)(room->x, room->dy, *x, *dy, mask, runs->mean[r], piece->count);
  *x = room->x;
  *dy = room->dy;
  return mask;
}

/* Sums of u = x - mean, dy and dy * u over FN_LANES lanes. */
typedef struct {
  FN(vector) u[FN_LANES / FN(WIDTH)], d[FN_LANES / FN(WIDTH)], du[FN_LANES / FN(WIDTH)];
} FN(tally);

static const K FN(lane_numbers)[FN_LANES]
    __attribute__((aligned(64))) = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

#define FN_AT(from, k) ((FN(vector))(*(const FN(loose_vector) *)(const void *)((from) + (k) * L + l)))
#define FN_U(k) (FN_AT(x, k) - mean)
#define FN_D(k) FN_AT(dy, k)
#define FN_DU(k) (FN_D(k) * FN_U(k))
#define FN_KEPT(v) ((FN(vector))((FN(keys))(v)&keep))

/* What four times the lanes at a time leave of a line: the lanes are filled `whole` times more, and the last elements,
 * which do not fill them, stand in the last lanes, which are those to `keep`. */
typedef struct {
  int whole;
  FN(keys) keep[FN_LANES / FN(WIDTH)];
} FN(line_end);

/* The ending of a line of n elements. */
static inline FN(line_end) FN(line_end_of)(int64_t n) {
  FN(line_end) ending = {.whole = (int)(n % (4 * FN_LANES) / FN_LANES)};
  const K first = (K)(FN_LANES - n % FN_LANES);
  for (int l = 0; l < FN_LANES; l += FN(WIDTH))
    ending.keep[l / FN(WIDTH)] = (FN(keys))(*(const FN(keys) *)(const void *)(FN(lane_numbers) + l) >= first);
  return ending;
}

/* A line of at most FN(TALLY) elements joins a tally, eight vectors of lanes at a time. Memory is asked for what stands
 * `ahead` bytes further, if that is not 0. */
FN_INLINE void FN(tally_line)(FN(tally) *to, const T *x, const T *dy, int64_t n, const FN(line_end) *ending, T mean,
                              uintptr_t ahead) {
  enum { L = FN_LANES, W = FN(WIDTH) };
  const int few = n < L;
  for (; n >= 8 * L; n -= 8 * L, x += 8 * L, dy += 8 * L) {
    for (int k = 0; ahead && k < 8 * L; k += FN(LINE)) {
      __builtin_prefetch((const void *)((uintptr_t)(x + k) + ahead));
      __builtin_prefetch((const void *)((uintptr_t)(dy + k) + ahead));
    }
    for (int l = 0; l < L; l += W) {
      to->u[l / W] += FN_SUM_4(FN_U, 0) + FN_SUM_4(FN_U, 4);
      to->d[l / W] += FN_SUM_4(FN_D, 0) + FN_SUM_4(FN_D, 4);
      to->du[l / W] += FN_SUM_4(FN_DU, 0) + FN_SUM_4(FN_DU, 4);
    }
  }
  if (n >= 4 * L) {
    for (int l = 0; l < L; l += W) {
      to->u[l / W] += FN_SUM_4(FN_U, 0);
      to->d[l / W] += FN_SUM_4(FN_D, 0);
      to->du[l / W] += FN_SUM_4(FN_DU, 0);
    }
    n -= 4 * L, x += 4 * L, dy += 4 * L;
  }
  if (n == 0) return;
  T few_x[L], few_dy[L];
  const T *last_x = few ? few_x : x + n - L, *last_dy = few ? few_dy : dy + n - L;
  for (int l = 0; few && l < L; l++) few_x[l] = few_dy[l] = 0;
  for (int64_t i = 0; few && i < n; i++) {
    few_x[L - n + i] = x[i];
    few_dy[L - n + i] = dy[i];
  }
  for (int l = 0; l < L; l += W) {
    const FN(keys) keep = ending->keep[l / W];
    FN(vector) u0 = {0}, u1 = {0}, u2 = {0}, d0 = {0}, d1 = {0}, d2 = {0};
    if (ending->whole > 0) u0 = FN_U(0), d0 = FN_D(0);
    if (ending->whole > 1) u1 = FN_U(1), d1 = FN_D(1);
    if (ending->whole > 2) u2 = FN_U(2), d2 = FN_D(2);
    const FN(vector) u3 = FN_KEPT(FN_AT(last_x, 0) - mean), d3 = FN_KEPT(FN_AT(last_dy, 0));
    to->u[l / W] += (u0 + u1) + (u2 + u3);
    to->d[l / W] += (d0 + d1) + (d2 + d3);
    to->du[l / W] += (d0 * u0 + d1 * u1) + (d2 * u2 + d3 * u3);
  }
}

#undef FN_AT
#undef FN_U
#undef FN_D
#undef FN_DU
#undef FN_KEPT

/* Lanes, of which the upper half is added to the lower, join half as many sums or take their place. Where one vector
 * holds all lanes, it is split as a register: by way of memory the next row would wait for this one. */
FN_INLINE void FN(fold_lanes)(const FN(vector) *lanes, double *to, int join) {
  enum { HALF = FN_LANES / 2, W = FN(WIDTH), V = FN_LANES / W };
  T halves[FN_LANES];
#if FN_HAS_SHUFFLE
  typedef T half __attribute__((vector_size(HALF * sizeof(T))));
  typedef double wide __attribute__((vector_size(HALF * sizeof(double))));
  typedef double loose __attribute__((vector_size(HALF * sizeof(double)), aligned(sizeof(double)), may_alias));
#define FN_FROM(l) (l) % W, ((l) + 1) % W, ((l) + 2) % W, ((l) + 3) % W
  if (V == 1) {
    const half lower = __builtin_shufflevector(lanes[0], lanes[0], FN_FROM(0), FN_FROM(4));
    const half upper = __builtin_shufflevector(lanes[0], lanes[0], FN_FROM(HALF), FN_FROM(HALF + 4));
    wide sums = __builtin_convertvector(lower + upper, wide);
    if (join) sums += *(const loose *)(const void *)to;
    *(loose *)(void *)to = sums;
    return;
  }
#undef FN_FROM
#endif
  if (V == 1) memcpy(halves, lanes, sizeof halves);
  for (int l = 0; V == 1 && l < HALF; l++) halves[l] += halves[l + HALF];
  for (int v = 0; v < V / 2; v++) FN(store_all)(halves + v * W, lanes[v] + lanes[v + V / 2]);
  for (int l = 0; l < HALF; l++) to[l] = join ? to[l] + (double)halves[l] : (double)halves[l];
}

/* The sums of a piece of `rows` kept indices, `apart` elements from one to the next, join rows first and on of half as
 * many lanes, or take their place. */
static __attribute__((noinline)) void FN(sum_piece)(FN(lanes) *lanes, int first, int rows, int join, const T *x,
                                                    const T *dy, int64_t apart, const int64_t *step,
                                                    const FN(piece) *piece, const T *mean, uintptr_t ahead) {
  for (int64_t at = 0; at < piece->size; at += FN(TALLY)) {
    const int64_t n = piece->size - at < FN(TALLY) ? piece->size - at : FN(TALLY);
    const FN(line_end) ending = FN(line_end_of)(n);
    for (int r = 0; r < rows; r++) {
      const char *x_line = (const char *)(x + at + r * apart), *dy_line = (const char *)(dy + at + r * apart);
      FN(tally) tally;
      memset(&tally, 0, sizeof tally);
      for (int64_t line = 0; line < piece->lines; line++, x_line += step[0], dy_line += step[1])
        FN(tally_line)(&tally, (const T *)(const void *)x_line, (const T *)(const void *)dy_line, n, &ending, mean[r],
                       ahead);
      FN(fold_lanes)(tally.u, lanes->c[first + r], join || at > 0);
      FN(fold_lanes)(tally.d, lanes->g[first + r], join || at > 0);
      FN(fold_lanes)(tally.du, lanes->gc[first + r], join || at > 0);
    }
  }
}

/* Are x and dy too large for a cache of a core anyway, so that memory must be asked for them early? */
static inline int FN(is_far)(const fn_job *job) { return 2 * job->outer * job->n * (int64_t)sizeof(T) > FN_CACHED; }

/* The sums of a chunk, to[plane][r]. */
static void FN(sum_runs)(const fn_job *job, const FN(runs) *runs, int64_t start, int64_t end, FN(room) *room,
                         double (*to)[FN(TOGETHER)]) {
  FN(lanes) lanes;
  FN(piece) piece, next;
  const int in_place = !job->relu && !job->array[FN_WHERE].data; /* x and dy are not brought to tiles */
  for (int r = 0; r < runs->rows; r++) to[FN_SUM_COUNT][r] = job->array[FN_WHERE].data ? 0 : (double)(end - start);
  FN(next_piece)(job, start, end, FN(TALLY), &piece);
  for (; piece.start < end; piece = next) {
    const int64_t behind = piece.start + piece.count;
    next.start = end;
    if (behind < end) FN(next_piece)(job, behind, end, FN(TALLY), &next);
    const int fetched = behind < end && in_place && piece.in[FN_X].direct && piece.in[FN_Z].direct;
    const int64_t leap = fetched ? next.in[FN_X].offset - piece.in[FN_X].offset : 0;
    const int64_t ahead = !FN(is_far)(job) ? 0
                          : leap > 8192    ? leap
                          : in_place       ? 8192
                                           : 0; /* runs follow each other more often than not */
    for (int r = 0; r < runs->rows; r++) {
      const T *x, *dy;
      int64_t step[2], count = 0;
      const unsigned char *mask = FN(bring_piece)(job, runs, r, &piece, room, &x, &dy, step);
      FN(sum_piece)(&lanes, r, 1, piece.start > start, x, dy, 0, step, &piece, runs->mean + r, (uintptr_t)ahead);
      if (!mask) continue;
      for (int64_t i = 0; i < piece.count; i++) count += mask[i] != 0;
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

/* By whole lines of dx. The elements before and after these are computed before any is written: dx may be x or dy. */
FN_INLINE void FN(dx_of_kind)(T *dx, const T *x, const T *dy, int64_t n, T a, T b, T k, T mean, int given) {
  enum { W = FN(WIDTH) };
#define FN_ELEMENT_DX(dy, x) (given ? (dy) * a : FN_CHANNEL_DX(dy, x, a, b, k, mean))
#define FN_AT(from, i) ((FN(vector))(*(const FN(loose_vector) *)(const void *)((from) + (i))))
  if (n < W) {
    for (int64_t i = 0; i < n; i++) dx[i] = FN_ELEMENT_DX(dy[i], x[i]);
    return;
  }
  const FN(vector) head = FN_ELEMENT_DX(FN_AT(dy, 0), FN_AT(x, 0)),
                   tail = FN_ELEMENT_DX(FN_AT(dy, n - W), FN_AT(x, n - W));
  for (int64_t i = (int64_t)((-(uintptr_t)dx & (FN_VECTOR - 1)) / sizeof(T)); i + W <= n; i += W)
    *(FN(loose_vector) *)(void *)(dx + i) = FN_ELEMENT_DX(FN_AT(dy, i), FN_AT(x, i));
  *(FN(loose_vector) *)(void *)dx = head;
  *(FN(loose_vector) *)(void *)(dx + n - W) = tail;
#undef FN_ELEMENT_DX
#undef FN_AT
}

static void FN(dx_of_run)(T *dx, const T *x, const T *dy, int64_t n, T a, T b, T k, T mean, int given) {
  if (given)
    FN(dx_of_kind)(dx, x, dy, n, a, b, k, mean, 1);
  else
    FN(dx_of_kind)(dx, x, dy, n, a, b, k, mean, 0);
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
    FN(next_piece)(job, at, end, 1, &piece);
    for (int r = 0; r < runs->rows; r++) {
      const T *x, *dy, *of = factors + runs->place[r], a = of[0], mean = of[FN_OF_MEAN * job->width];
      int64_t step[2];
      const unsigned char *mask = FN(bring_piece)(job, runs, r, &piece, room, &x, &dy, step);
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
