/* Backward passes of channel norms whose planes follow each other in memory: sums and dx of neighbouring kept indices
 * over a chunk, as channel_rows.h takes them one by one.
 *
 * What is known of all planes is found once for a batch of these; halves are widened and narrowed in one piece; and dx
 * is written by whole cache lines, whichever planes these belong to. Sums are the same to the bit.
 */

/* Do the planes of an array follow each other without a gap, numbers of this type or, with `halves`, those of x? */
static int FN(follow_closely)(const fn_job *job, int which, int halves) {
  const fn_array *array = &job->array[which];
  const int64_t run = job->stretch[which], width = halves ? 2 : (int64_t)sizeof(T);
  return (halves ? FN(holds_halves)(job, which) && array->dtype == job->array[FN_X].dtype : FN(native)(array)) &&
         run == job->stretch[FN_X] && fn_step(job, which) == width && job->kept[0].step[which] == run * width;
}

/* How many planes make a batch; 0: they are not worked on together. */
static int64_t FN(planes_together)(const fn_job *job) {
  const int64_t run = job->stretch[FN_X];
  const int halves = fn_is_half(job->array[FN_X].dtype);
  if (job->columns || job->relu || job->array[FN_WHERE].data || job->kept_ndim != 1 || job->inner.size != 1) return 0;
  if (run < FN_LANES || 2 * run > FN_TILE || job->kept[0].step[FN_P] != 1) return 0;
  if (run != job->n && !(job->reduced_ndim == 2 && job->reduced[1].size == run)) return 0;
  if (!FN(follow_closely)(job, FN_X, halves) || !FN(follow_closely)(job, FN_Z, halves)) return 0;
  if (!FN(follow_closely)(job, FN_Y, halves)) return 0;
  return FN_TILE / run < FN(TOGETHER) ? FN_TILE / run : FN(TOGETHER);
}

/* Where the elements from number `start` on of the kept index k stand. */
static inline char *FN(plane_at)(const fn_job *job, int which, int64_t k, int64_t start) {
  return job->array[which].data + k * job->kept[0].step[which] + fn_along(job, which, start);
}

/* `lines` runs, `step` bytes apart, of all planes of a batch, whose `size` elements in all follow each other: where
 * they are in memory or, as floats, in `tile`. */
static const T *FN(bring_planes)(const fn_job *job, int which, const char *from, int64_t size, int64_t lines, T *tile,
                                 int64_t *step) {
  const int64_t apart = *step;
  if (FN(native)(&job->array[which])) return (const T *)(const void *)from;
  for (int64_t line = 0; line < lines; line++)
    fn_widen((float *)(void *)(tile + line * size), from + line * apart, size, job->array[which].dtype);
  *step = size * (int64_t)sizeof(T);
  return tile;
}

/* The sums of a chunk, to[plane][r]. */
static void FN(sum_planes)(const fn_job *job, int64_t k, int rows, int64_t start, int64_t end, FN(room) *room,
                           double (*to)[FN(TOGETHER)]) {
  const int64_t place = job->p + k;
  FN(lanes) lanes;
  FN(piece) piece;
  T mean[FN(TOGETHER)];
  int64_t cell = job->span == 1 ? place : place / job->span, behind = (cell + 1) * job->span;
  for (int r = 0; r < rows; r++) {
    mean[r] = ((const T *)job->mean)[cell];
    if (place + r + 1 < behind) continue;
    cell++;
    behind += job->span;
  }
  for (int64_t at = start; at < end; at += piece.count) {
    FN(next_piece)(job, at, end, FN(TALLY), &piece);
    int64_t step[2] = {piece.in[FN_X].step, piece.in[FN_Z].step};
    const T *x =
        FN(bring_planes)(job, FN_X, FN(plane_at)(job, FN_X, k, at), rows * piece.size, piece.lines, room->x, &step[0]);
    const T *dy =
        FN(bring_planes)(job, FN_Z, FN(plane_at)(job, FN_Z, k, at), rows * piece.size, piece.lines, room->dy, &step[1]);
    FN(sum_piece)(&lanes, 0, rows, at > start, x, dy, piece.size, step, &piece, mean, 0);
  }
  for (int r = 0; r < rows; r++) to[FN_SUM_COUNT][r] = (double)(end - start);
  FN(fold_halves)(lanes.c, rows, to[FN_SUM_U]);
  FN(fold_halves)(lanes.g, rows, to[FN_SUM_DY]);
  FN(fold_halves)(lanes.gc, rows, to[FN_SUM_DYU]);
}

/* ---- dx ---------------------------------------------------------------------------------------------------------- */

/* By whole vectors of dx, as dx_of_kind: those in which a plane ends and the next begins choose between both. With
 * `far`, memory is asked for what the next planes will read. */
FN_INLINE void FN(dx_across_planes)(T *dx, const T *x, const T *dy, int64_t n, int rows, const T *a, const T *b,
                                    const T *k, const T *mean, int given, int far) {
  enum { W = FN(WIDTH) };
#define FN_AT(from, i) ((FN(vector))(*(const FN(loose_vector) *)(const void *)((from) + (i))))
#define FN_PLANE_DX(i, a, b, k, mean)                                                                                  \
  (given ? FN_AT(dy, i) * (a) : FN_CHANNEL_DX(FN_AT(dy, i), FN_AT(x, i), a, b, k, mean))
#define FN_EITHER(list) FN(choose)(mine, FN(every)((list)[r]), FN(every)((list)[r + 1]))
  const int64_t all = rows * n;
  const int last = rows - 1;
  const FN(vector) head = FN_PLANE_DX(0, a[0], b[0], k[0], mean[0]),
                   tail = FN_PLANE_DX(all - W, a[last], b[last], k[last], mean[last]);
  int64_t i = (int64_t)((-(uintptr_t)dx & (FN_VECTOR - 1)) / sizeof(T));
  for (int r = 0; r < rows; r++) {
    const int64_t end = (r + 1) * n;
    const T of_dy = a[r], of_one = b[r], of_u = k[r], center = mean[r];
    for (; i + W <= end; i += W) {
      FN(store_all)(dx + i, FN_PLANE_DX(i, of_dy, of_one, of_u, center));
      if (far) __builtin_prefetch((const void *)((uintptr_t)(x + i) + 8192));
      if (far) __builtin_prefetch((const void *)((uintptr_t)(dy + i) + 8192));
    }
    if (r == last || i == end) continue;
    const FN(keys) mine = *(const FN(keys) *)(const void *)FN(lane_numbers) < (K)(end - i);
    FN(store_all)(dx + i, FN_PLANE_DX(i, FN_EITHER(a), FN_EITHER(b), FN_EITHER(k), FN_EITHER(mean)));
    i += W;
  }
  FN(store_all)(dx, head);
  FN(store_all)(dx + all - W, tail);
#undef FN_EITHER
#undef FN_PLANE_DX
#undef FN_AT
}

/* dx of a chunk. */
static void FN(dx_of_planes)(const fn_job *job, int64_t k, int rows, int64_t start, int64_t end, FN(room) *room) {
  const int64_t run = job->stretch[FN_X], size = rows * run, place = job->p + k;
  const T *a = (const T *)job->factors + FN_OF_DY * job->width + place, *b = a + FN_OF_ONE * job->width;
  const T *of_u = a + FN_OF_U * job->width, *mean = a + FN_OF_MEAN * job->width;
  const char *x_at = FN(plane_at)(job, FN_X, k, start), *dy_at = FN(plane_at)(job, FN_Z, k, start);
  char *to = FN(plane_at)(job, FN_Y, k, start);
  const int halves = !FN(native)(&job->array[FN_Y]), direct = !halves && !job->stream;
  const int far = FN(is_far)(job) && !halves; /* halves are read from a tile */
  int all = 1;
  for (int r = 0; r < rows; r++) all &= a[r] == a[r];
  for (int64_t at = start; at < end; at += run) {
    int64_t step = 0;
    const T *x = FN(bring_planes)(job, FN_X, x_at, size, 1, room->x, &step);
    const T *dy = FN(bring_planes)(job, FN_Z, dy_at, size, 1, room->dy, &step);
    T *dx = direct ? (T *)(void *)to : room->dx;
    if (all && job->given)
      FN(dx_across_planes)(dx, x, dy, run, rows, a, b, of_u, mean, 1, far);
    else if (all)
      FN(dx_across_planes)(dx, x, dy, run, rows, a, b, of_u, mean, 0, far);
    for (int64_t r = 0; !all && r < rows; r++)
      if (a[r] != a[r])
        FN(careful_dx)(job, place + r, dx + r * run, 1, x + r * run, 1, dy + r * run, 1, run);
      else
        FN(dx_of_run)(dx + r * run, x + r * run, dy + r * run, run, a[r], b[r], of_u[r], mean[r], job->given);
    if (halves)
      FN(leave)(to, dx, size, job->array[FN_Y].dtype, job->stream, room->out);
    else if (!direct)
      fn_stream(to, (const char *)dx, size * (int64_t)sizeof(T));
    if (job->reduced_ndim < 2) break;
    x_at += job->reduced[0].step[FN_X];
    dy_at += job->reduced[0].step[FN_Z];
    to += job->reduced[0].step[FN_Y];
  }
}
