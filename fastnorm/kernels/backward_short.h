/* Backward passes of short rows: rows as lanes.
 *
 * A row of a few elements leaves most of a vector empty, and what is done once for each row takes longer than its
 * elements. Here numbers of the same place in neighbouring rows make a vector, and everything is done for many rows at
 * once: the sums of a row are those of a lane, in the compute type; what all rows add to dweight and dbias is added
 * there too, 16 rows of each lane, and the lanes in double. A row that goes the careful way leaves its lane empty.
 */

enum { FN(FEW) = 24, FN(MANY) = 256 }; /* elements of a row; rows that are worked on together */

/* FN(factors) of many rows. */
typedef struct {
  T mean[FN(MANY)], rstd[FN(MANY)], shift[FN(MANY)], mean_g[FN(MANY)], dot[FN(MANY)];
  unsigned char careful[FN(MANY)];
  int any_careful;
} FN(lane_factors);

/* How many rows from k on are worked on as lanes, by what is read alone; 0: none. */
static int64_t FN(short_rows)(const fn_job *job, int64_t k, int64_t end) {
  if (!job->columns || job->n > FN(FEW) || job->array[FN_WHERE].data) return 0;
  const int64_t beside = job->beside - k % job->beside, fit = FN_TILE / job->n;
  int64_t rows = end - k < beside ? end - k : beside;
  if (rows > fit) rows = fit;
  if (rows > FN(MANY)) rows = FN(MANY);
  return rows / FN_LANES * FN_LANES;
}

/* to[i * rows + r] = element i of row k + r, there or in memory; elements from one place to the next in `stride`. */
static const T *FN(bring_lanes)(const fn_job *job, int which, int64_t k, int64_t rows, T *to, FN(room) *room,
                                int64_t *stride) {
  const int64_t width = job->inner.size;
  const T *row[FN(TOGETHER)];
  if (k % width + rows <= width)
    return FN(load_columns)(job, which, fn_base(job, which, k / width, k % width), 0, job->n, rows, to, stride);
  *stride = rows;
  for (int64_t r = 0; r < rows; r += FN(TOGETHER)) {
    FN(bring_rows)(job, which, k + r, FN(TOGETHER), 0, job->n, room->dx, room->out, row);
    for (int l = 0; l < FN(TOGETHER); l++)
      for (int64_t i = 0; i < job->n; i++) to[i * rows + r + l] = row[l][i];
  }
  return to;
}

/* The way back. */
static void FN(put_lanes)(const fn_job *job, int64_t k, int64_t rows, const T *dx, FN(room) *room) {
  const int64_t width = job->inner.size;
  if (k % width + rows <= width) {
    FN(store_strip)(job, FN_Y, fn_base(job, FN_Y, k / width, k % width), 0, job->n, rows, dx, room->x, job->stream);
    return;
  }
  for (int64_t r = 0; r < rows; r += FN(TOGETHER)) {
    FN(turn)(room->x, job->n, dx + r, rows, job->n, FN(TOGETHER));
    FN(put_columns)(job, k + r, FN(TOGETHER), 0, job->n, room->x, room->dy);
  }
}

/* The saved statistics of some rows. */
static void FN(bring_lane_statistics)(const fn_job *job, int64_t k, int64_t rows, FN(lane_factors) *to) {
  const int64_t width = job->inner.size, p = fn_place(job, k / width, k % width);
  const int64_t step = job->inner.step[FN_P] * (int64_t)sizeof(T);
  if (k % width + rows <= width) {
    for (int64_t r = 0; !job->mean && r < rows; r++) to->mean[r] = 0;
    if (job->mean) FN(gather_run)(to->mean, (const char *)((const T *)job->mean + p), rows, step, FN_TYPE, 0);
    FN(gather_run)(to->rstd, (const char *)((const T *)job->spread + p), rows, step, FN_TYPE, 0);
    return;
  }
  for (int64_t r = 0; r < rows; r += FN(TOGETHER))
    FN(bring_statistics)(job, k + r, FN(TOGETHER), to->mean + r, to->rstd + r);
}

/* Lines of a place in rows from r on: d = dy, g = dy * weight, c = x - mean. */
#define FN_LANE(i)                                                                                                     \
  const FN(vector) d = FN(load_all)(dy + (i) * dy_stride + r);                                                         \
  FN(vector) g = d, c = FN(load_all)(x + (i) * x_stride + r);                                                          \
  if (kind & FN(WEIGHTED)) g *= weight[i];                                                                             \
  if (kind & FN(CENTERED)) c -= FN(load_all)(f->mean + r)

/* The averages of some rows. */
FN_INLINE void FN(settle_lanes)(const fn_job *job, const T *x, int64_t x_stride, const T *dy, int64_t dy_stride,
                                int64_t rows, const T *weight, FN(lane_factors) *f, int kind) {
  enum { W = FN(WIDTH), L = FN(TOGETHER) };
  FN(slopes) slopes;
  f->any_careful = 0;
  for (int64_t first = 0; first < rows; first += L) {
    T sum_c[L] = {0}, sum_g[L] = {0}, sum_gc[L];
    for (int64_t r = first; r < first + L; r += W) {
      FN(vector) all_c = {0}, all_g = {0}, all_gc = {0};
      for (int64_t i = 0; i < job->n; i++) {
        FN_LANE(i);
        if (kind & FN(CENTERED)) all_c += c;
        if (kind & FN(CENTERED)) all_g += g;
        all_gc += g * c;
      }
      if (kind & FN(CENTERED)) FN(store_all)(sum_c + (r - first), all_c);
      if (kind & FN(CENTERED)) FN(store_all)(sum_g + (r - first), all_g);
      FN(store_all)(sum_gc + (r - first), all_gc);
    }
    for (int r = 0; r < L; r++) slopes.count[r] = (double)job->n;
    for (int r = 0; r < L; r++) slopes.shift[r] = (double)sum_c[r];
    for (int r = 0; r < L; r++) slopes.mean_g[r] = (double)sum_g[r];
    for (int r = 0; r < L; r++) slopes.dot[r] = (double)sum_gc[r];
    FN(settle_slopes)(job, f->mean + first, f->rstd + first, &slopes, L);
    for (int r = 0; r < L; r++) f->shift[first + r] = (T)slopes.shift[r];
    for (int r = 0; r < L; r++) f->mean_g[first + r] = (T)slopes.mean_g[r];
    for (int r = 0; r < L; r++) f->dot[first + r] = (T)slopes.dot[r];
    for (int r = 0; r < L; r++) f->careful[first + r] = slopes.careful[r] != 0;
    for (int r = 0; r < L; r++) f->any_careful |= f->careful[first + r];
  }
}

/* dx of some rows, and what they add to dweight and dbias. */
FN_INLINE void FN(apply_lanes)(const fn_job *job, T *dx, const T *x, int64_t x_stride, const T *dy, int64_t dy_stride,
                               int64_t rows, const T *weight, const FN(lane_factors) *f, double *dweight, double *dbias,
                               int kind) {
  enum { W = FN(WIDTH), L = FN_LANES };
  double w[FN(FEW)][L / 2], b[FN(FEW)][L / 2], more[FN(TOGETHER)];
  for (int64_t i = 0; i < job->n; i++) {
    FN(vector) all_w[L / W] = {{0}}, all_b[L / W] = {{0}};
    for (int64_t first = 0; first < rows; first += L)
      for (int v = 0; v < L / W; v++) {
        const int64_t r = first + v * W;
        FN_LANE(i);
        const FN(vector) rstd = FN(load_all)(f->rstd + r), dot = FN(load_all)(f->dot + r);
        if (kind & FN(CENTERED)) c -= FN(load_all)(f->shift + r);
        if (kind & FN(CENTERED)) g -= FN(load_all)(f->mean_g + r);
        const FN(vector) h = c * rstd;
        FN(store_all)(dx + i * rows + r, (g - h * dot) * rstd);
        if (kind & FN(WEIGHTED)) all_w[v] += d * h;
        if (kind & FN(CENTERED)) all_b[v] += d;
      }
    for (int l = 0; l < L / 2; l++) w[i][l] = b[i][l] = 0;
    FN(add_halves)(w[i], all_w, kind & FN(WEIGHTED));
    FN(add_halves)(b[i], all_b, kind & FN(CENTERED));
  }
  for (int64_t i = 0, count; i < job->n; i += count) {
    count = job->n - i < FN(TOGETHER) ? job->n - i : FN(TOGETHER);
    FN(fold_halves)(w + i, (int)count, more);
    for (int64_t k = 0; kind & FN(WEIGHTED) && k < count; k++) dweight[i + k] += more[k];
    FN(fold_halves)(b + i, (int)count, more);
    for (int64_t k = 0; kind & FN(CENTERED) && k < count; k++) dbias[i + k] += more[k];
  }
}
#undef FN_LANE

/* Careful rows leave their lanes: a dx of zeros, which adds nothing to dweight and dbias. */
static void FN(empty_lanes)(const fn_job *job, const T **x, int64_t *x_stride, const T **dy, int64_t *dy_stride,
                            int64_t rows, FN(lane_factors) *f, FN(room) *room) {
  for (int64_t i = 0; i < job->n; i++) {
    if (*x != room->x) memcpy(room->x + i * rows, *x + i * *x_stride, (size_t)rows * sizeof(T));
    if (*dy != room->dy) memcpy(room->dy + i * rows, *dy + i * *dy_stride, (size_t)rows * sizeof(T));
  }
  *x = room->x;
  *dy = room->dy;
  *x_stride = *dy_stride = rows;
  for (int64_t r = 0; r < rows; r++) {
    if (!f->careful[r]) continue;
    for (int64_t i = 0; i < job->n; i++) room->x[i * rows + r] = room->dy[i * rows + r] = 0;
    f->mean[r] = f->rstd[r] = f->shift[r] = f->mean_g[r] = f->dot[r] = 0;
  }
}

/* dx of the careful rows, and what they add. */
static void FN(careful_lanes)(const fn_job *job, int64_t k, int64_t rows, const T *weight, const FN(lane_factors) *f,
                              double *dweight, double *dbias, FN(room) *room) {
  const T *x, *dy;
  T dx[FN(FEW)], mean, rstd;
  fn_slope slope;
  for (int64_t r = 0; r < rows; r++) {
    if (!f->careful[r]) continue;
    FN(bring_statistics)(job, k + r, 1, &mean, &rstd);
    FN(careful_slope)(job, k + r, mean, rstd, room, &slope);
    FN(bring_rows)(job, FN_X, k + r, 1, 0, job->n, room->x, room->out, &x);
    FN(bring_rows)(job, FN_Z, k + r, 1, 0, job->n, room->dy, room->out, &dy);
    FN(careful_run)(job, &slope, mean, rstd, dx, x, dy, weight, NULL, dweight, dbias, job->n);
    for (int64_t i = 0; i < job->n; i++) room->dx[i * rows + r] = dx[i];
  }
}

/* dx of so many rows from k on, and what is added to dweight and dbias. */
static void FN(backward_short)(const fn_job *job, int64_t k, int64_t rows, const T *weight, double *dweight,
                               double *dbias, FN(room) *room) {
  FN(lane_factors) factors;
  int64_t x_stride, dy_stride;
  const T *x = FN(bring_lanes)(job, FN_X, k, rows, room->x, room, &x_stride);
  const T *dy = FN(bring_lanes)(job, FN_Z, k, rows, room->dy, room, &dy_stride);
  FN(bring_lane_statistics)(job, k, rows, &factors);
  switch (FN(backward_kind)(job)) {
#define FN_CASE(kind)                                                                                                  \
  case kind:                                                                                                           \
    FN(settle_lanes)(job, x, x_stride, dy, dy_stride, rows, weight, &factors, kind);                                   \
    if (factors.any_careful) FN(empty_lanes)(job, &x, &x_stride, &dy, &dy_stride, rows, &factors, room);               \
    FN(apply_lanes)(job, room->dx, x, x_stride, dy, dy_stride, rows, weight, &factors, dweight, dbias, kind);          \
    break;
    FN_BACKWARD_KINDS(FN_CASE)
#undef FN_CASE
  }
  if (factors.any_careful) FN(careful_lanes)(job, k, rows, weight, &factors, dweight, dbias, room);
  FN(put_lanes)(job, k, rows, room->dx, room);
}
