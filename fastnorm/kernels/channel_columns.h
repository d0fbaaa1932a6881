/* Backward passes of channel norms whose memory runs along a kept axis: sums and dx of a strip of columns over a chunk
 * of rows. Rows of few columns are worked on several at a time, as one wide row; how many depends on x alone.
 */

/* Columns j and on of problem `outer`. */
typedef struct {
  int64_t outer, j, cols, place, step; /* places of neighbours lie `step` apart */
  int64_t group;                       /* rows of a wide row */
  T mean[FN_STRIP];
} FN(strip);

static void FN(begin_strip)(const fn_job *job, int64_t unit, FN(strip) *strip) {
  const int64_t width = job->inner.size, strips = (width + job->strip - 1) / job->strip;
  strip->outer = unit / strips;
  strip->j = unit % strips * job->strip;
  strip->cols = width - strip->j < job->strip ? width - strip->j : job->strip;
  strip->place = fn_place(job, strip->outer, strip->j);
  strip->step = width > 1 ? job->inner.step[FN_P] : 1;
  strip->group = job->n < FN_SHORT ? 1 : fn_group_rows(job->beside < FN_STRIP ? job->beside : FN_STRIP);
  for (int64_t c = 0; c < strip->cols; c++) {
    const int64_t place = strip->place + c * strip->step;
    strip->mean[c] = ((const T *)job->mean)[job->span == 1 ? place : place / job->span];
  }
}

/* Entries of a strip once for each row of a wide row. */
static void FN(widen)(T *values, const FN(strip) *strip) {
  for (int64_t j = strip->cols; j < strip->group * strip->cols; j++) values[j] = values[j - strip->cols];
}

/* Some rows of a strip. */
typedef struct {
  const T *x, *dy;
  int64_t x_stride, dy_stride;
  const uint8_t *mask;
} FN(rows);

/* Rows that are brought together, in so many elements: multiples of what is visited together. */
static inline int64_t FN(rows_of_tile)(const FN(strip) *strip, int64_t size, int64_t visit) {
  const int64_t rows = size / strip->cols / (visit * strip->group) * (visit * strip->group);
  return rows ? rows : visit * strip->group;
}

static const T *FN(bring_strip)(const fn_job *job, int which, const FN(strip) *strip, int64_t start, int64_t rows,
                                T *tile, int64_t *stride) {
  const char *base = fn_base(job, which, strip->outer, strip->j);
  const T *from = FN(load_columns)(job, which, base, start, rows, strip->cols, tile, stride);
  if (strip->group == 1 || *stride == strip->cols) return from;
  for (int64_t i = 0; i < rows; i++)
    memcpy(tile + i * strip->cols, from + i * *stride, (size_t)strip->cols * sizeof(T));
  *stride = strip->cols;
  return tile;
}

/* x, dy and the mask; dy is 0 where a ReLU or the mask stops it. */
static void FN(bring_tile)(const fn_job *job, const FN(strip) *strip, int64_t start, int64_t rows, FN(room) *room,
                           FN(rows) *to) {
  const int64_t cols = strip->cols;
  int64_t stride;
  to->x = FN(bring_strip)(job, FN_X, strip, start, rows, room->x, &to->x_stride);
  to->dy = FN(bring_strip)(job, FN_Z, strip, start, rows, room->dy, &to->dy_stride);
  to->mask = NULL;
  if (job->relu) {
    const T *y = FN(bring_strip)(job, FN_S, strip, start, rows, room->out, &stride);
    for (int64_t i = 0; i < rows; i++)
      FN(before_relu)(room->dy + i * cols, to->dy + i * to->dy_stride, y + i * stride, cols);
    to->dy = room->dy;
    to->dy_stride = cols;
  }
  if (!job->array[FN_WHERE].data) return;
  to->mask = fn_dense_where(job, strip->outer, strip->j, start, rows, cols, room->mask);
  for (int64_t i = 0; i < rows; i++) {
    const T *x = to->x + i * to->x_stride, *dy = to->dy + i * to->dy_stride;
    const uint8_t *mask = to->mask + i * cols;
    T *x_to = room->x + i * cols, *dy_to = room->dy + i * cols;
    FN_IVDEP
    for (int64_t c = 0; c < cols; c++) {
      const T v = x[c], d = dy[c], mean = strip->mean[c], m = mean - mean == 0 ? mean : 0;
      x_to[c] = mask[c] ? v : m;
      dy_to[c] = mask[c] ? d : 0;
    }
  }
  to->x = room->x;
  to->dy = room->dy;
  to->x_stride = to->dy_stride = cols;
}

#define FN_U(k) (x[(k) * xs + j] - mean[j])
#define FN_D(k) (dy[(k) * ds + j])
#define FN_DU(k) (FN_D(k) * FN_U(k))

/* Rows of a strip join its sums; eight a visit, added among themselves first. */
static void FN(sum_strip)(const T *x, int64_t xs, const T *dy, int64_t ds, int64_t rows, int64_t cols,
                          const T *restrict mean, double *restrict u, double *restrict d, double *restrict du) {
  int64_t i = 0;
  for (; i + 8 <= rows; i += 8, x += 8 * xs, dy += 8 * ds)
    for (int64_t from = 0; from < cols; from += FN_SEGMENT) {
      const int64_t to = from + FN_SEGMENT < cols ? from + FN_SEGMENT : cols;
      if (i + 16 <= rows) FN(fetch)(x + 8 * xs + from, xs, to - from);
      if (i + 16 <= rows) FN(fetch)(dy + 8 * ds + from, ds, to - from);
      for (int64_t j = from; j < to; j++) {
        u[j] += (double)(FN_SUM_4(FN_U, 0) + FN_SUM_4(FN_U, 4));
        d[j] += (double)(FN_SUM_4(FN_D, 0) + FN_SUM_4(FN_D, 4));
        du[j] += (double)(FN_SUM_4(FN_DU, 0) + FN_SUM_4(FN_DU, 4));
      }
    }
  for (; i < rows; i++, x += xs, dy += ds)
    for (int64_t j = 0; j < cols; j++) {
      u[j] += (double)FN_U(0);
      d[j] += (double)FN_D(0);
      du[j] += (double)FN_DU(0);
    }
}

#undef FN_U
#undef FN_D
#undef FN_DU

/* Are the halves of a strip read, or written, where they are? */
static inline int FN(strip_of_halves)(const fn_job *job, int which, const FN(strip) *strip) {
  return FN(holds_halves)(job, which) && fn_converts(job->array[which].dtype) &&
         job->array[which].dtype == job->array[FN_X].dtype && job->inner.step[which] == 2 &&
         job->stretch[which] == job->n && strip->group * strip->cols >= FN_FLOATS &&
         (strip->group == 1 || fn_step(job, which) == 2 * strip->cols) && !job->relu && !job->array[FN_WHERE].data;
}

#define FN_HALVES_AT(from, step, k) ((FN(vector))fn_load_halves((from) + (k) * (step) + 2 * j, dtype))
#define FN_U(k) (FN_HALVES_AT(x, xs, k) - m)
#define FN_D(k) FN_HALVES_AT(dy, ds, k)
#define FN_DU(k) (FN_D(k) * FN_U(k))
#define FN_ROWS(d) (deep == 1 ? (FN(vector))d(0) : (FN(vector))(FN_SUM_4(d, 0) + FN_SUM_4(d, 4)))

/* As sum_strip, of halves: what rows add up to is left in segments of floats, of which the last vector may overlap the
 * one before. At least a vector of columns; `deep` rows a visit. */
FN_INLINE void FN(sum_halves_of)(const char *x, int64_t xs, const char *dy, int64_t ds, int64_t cols, const T *mean,
                                 double *restrict u, double *restrict d, double *restrict du, int deep, int dtype) {
  enum { W = FN_FLOATS, MOST = FN_SEGMENT };
  T u_some[MOST], d_some[MOST], du_some[MOST];
  for (int64_t from = 0; from < cols; from += MOST) {
    const int64_t to = from + MOST < cols ? from + MOST : cols;
    for (int64_t at = from; at < to; at += W) {
      const int64_t j = at + W <= to ? at : to - W;
      const FN(vector) m = FN(load_all)(mean + j);
      for (int k = 0; k < deep; k++) __builtin_prefetch(x + (deep + k) * xs + 2 * j);
      for (int k = 0; k < deep; k++) __builtin_prefetch(dy + (deep + k) * ds + 2 * j);
      T *u_to = u_some + (j - from), *d_to = d_some + (j - from), *du_to = du_some + (j - from);
      FN(store_all)(u_to, FN_ROWS(FN_U));
      FN(store_all)(d_to, FN_ROWS(FN_D));
      FN(store_all)(du_to, FN_ROWS(FN_DU));
    }
    for (int64_t j = from; j < to; j++) u[j] += (double)u_some[j - from];
    for (int64_t j = from; j < to; j++) d[j] += (double)d_some[j - from];
    for (int64_t j = from; j < to; j++) du[j] += (double)du_some[j - from];
  }
}

#undef FN_U
#undef FN_D
#undef FN_DU
#undef FN_HALVES_AT
#undef FN_ROWS

static void FN(sum_halves)(const char *x, int64_t xs, const char *dy, int64_t ds, int64_t rows, int64_t cols,
                           const T *mean, double *u, double *d, double *du, int dtype) {
  int64_t i = 0;
  for (; i + 8 <= rows; i += 8, x += 8 * xs, dy += 8 * ds) {
    if (dtype == FN_F16)
      FN(sum_halves_of)(x, xs, dy, ds, cols, mean, u, d, du, 8, FN_F16);
    else
      FN(sum_halves_of)(x, xs, dy, ds, cols, mean, u, d, du, 8, FN_BF16);
  }
  for (; i < rows; i++, x += xs, dy += ds) FN(sum_halves_of)(x, xs, dy, ds, cols, mean, u, d, du, 1, dtype);
}

/* The sums of a chunk, to[plane][column]. */
static void FN(sum_columns_of)(const fn_job *job, const FN(strip) *strip, int64_t start, int64_t end, FN(room) *room,
                               double (*to)[FN_STRIP]) {
  const int64_t cols = strip->cols, group = strip->group; /* halves stay in the L1 cache */
  const int64_t most = FN(rows_of_tile)(strip, fn_is_half(job->array[FN_X].dtype) ? FN_TILE : FN_VISIT, 8);
  int64_t begin = start;
  T mean[FN_STRIP];
  memcpy(mean, strip->mean, (size_t)cols * sizeof(T));
  FN(widen)(mean, strip);
  for (int plane = 0; plane < FN_SUMS; plane++)
    for (int64_t j = 0; j < group * cols; j++) to[plane][j] = 0;
  if (FN(strip_of_halves)(job, FN_X, strip) && FN(strip_of_halves)(job, FN_Z, strip) && (end - start) % group == 0 &&
      (group * cols % FN_SEGMENT == 0 || group * cols % FN_SEGMENT >= FN_FLOATS)) {
    const int64_t xs = fn_step(job, FN_X), ds = fn_step(job, FN_Z);
    FN(sum_halves)(fn_base(job, FN_X, strip->outer, strip->j) + start * xs, xs * group,
                   fn_base(job, FN_Z, strip->outer, strip->j) + start * ds, ds * group, (end - start) / group,
                   group * cols, mean, to[FN_SUM_U], to[FN_SUM_DY], to[FN_SUM_DYU], job->array[FN_X].dtype);
    begin = end;
  }
  for (int64_t at = begin, n; at < end; at += n) {
    FN(rows) rows;
    n = end - at < most ? end - at : most;
    FN(bring_tile)(job, strip, at, n, room, &rows);
    const int64_t wide = n / group, rest = n % group * cols, xs = rows.x_stride * group, ds = rows.dy_stride * group;
    double *u = to[FN_SUM_U], *d = to[FN_SUM_DY], *du = to[FN_SUM_DYU];
    FN(sum_strip)(rows.x, xs, rows.dy, ds, wide, group * cols, mean, u, d, du);
    if (rest) FN(sum_strip)(rows.x + wide * xs, 0, rows.dy + wide * ds, 0, 1, rest, mean, u, d, du);
    for (int64_t i = 0; rows.mask && i < n; i++)
      for (int64_t c = 0; c < cols; c++) to[FN_SUM_COUNT][c] += rows.mask[i * cols + c] != 0;
  }
  fn_fold_groups(to[FN_SUM_U], group, cols);
  fn_fold_groups(to[FN_SUM_DY], group, cols);
  fn_fold_groups(to[FN_SUM_DYU], group, cols);
  for (int64_t c = 0; !job->array[FN_WHERE].data && c < cols; c++) to[FN_SUM_COUNT][c] = (double)(end - start);
}

/* ---- dx ---------------------------------------------------------------------------------------------------------- */

static void FN(dx_across)(T *dx, const T *x, const T *dy, int64_t n, const T *a, const T *b, const T *k, const T *mean,
                          int given) {
  if (given) {
    FN_IVDEP
    for (int64_t i = 0; i < n; i++) dx[i] = dy[i] * a[i];
  } else {
    FN_IVDEP
    for (int64_t i = 0; i < n; i++) dx[i] = FN_CHANNEL_DX(dy[i], x[i], a[i], b[i], k[i], mean[i]);
  }
}

/* Rows of halves; the end of a row overlaps the vector before and is computed before anything is written: dx may be x
 * or dy. At least a vector. */
FN_INLINE void FN(dx_of_halves)(char *dx, int64_t dx_step, const char *x, int64_t xs, const char *dy, int64_t ds,
                                int64_t rows, int64_t n, const T (*of)[FN_STRIP], int given, int dtype) {
  enum { W = FN_FLOATS };
#define FN_FACTOR(factor, i) FN(load_all)(of[factor] + (i))
#define FN_AT(from, i) ((FN(vector))fn_load_halves((from) + 2 * (i), dtype))
#define FN_DX_AT(i)                                                                                                    \
  (fn_floats)(given ? FN_AT(dy, i) * FN_FACTOR(FN_OF_DY, i)                                                            \
                    : FN_CHANNEL_DX(FN_AT(dy, i), FN_AT(x, i), FN_FACTOR(FN_OF_DY, i), FN_FACTOR(FN_OF_ONE, i),        \
                                    FN_FACTOR(FN_OF_U, i), FN_FACTOR(FN_OF_MEAN, i)))
  for (; rows > 0; rows--, dx += dx_step, x += xs, dy += ds) {
    const fn_floats end = FN_DX_AT(n - W);
    for (int64_t i = 0; i + W <= n; i += W) {
      __builtin_prefetch(x + 2 * xs + 2 * i);
      __builtin_prefetch(dy + 2 * ds + 2 * i);
      fn_store_halves(dx + 2 * i, FN_DX_AT(i), dtype);
    }
    if (n % W) fn_store_halves(dx + 2 * (n - W), end, dtype);
  }
#undef FN_DX_AT
#undef FN_AT
#undef FN_FACTOR
}

/* dx of whole rows of a strip, from memory to memory. Returns whether they are stored so that this can be. */
static int FN(dx_in_halves)(const fn_job *job, const FN(strip) *strip, int64_t start, int64_t end,
                            const T (*of)[FN_STRIP]) {
  const int64_t group = strip->group, xs = fn_step(job, FN_X), ds = fn_step(job, FN_Z), step = fn_step(job, FN_Y);
  const int64_t rows = (end - start) / group, wide = group * strip->cols;
  if (job->stream || (end - start) % group != 0 || !FN(strip_of_halves)(job, FN_X, strip) ||
      !FN(strip_of_halves)(job, FN_Z, strip) || !FN(strip_of_halves)(job, FN_Y, strip))
    return 0;
  const char *x = fn_base(job, FN_X, strip->outer, strip->j) + start * xs;
  const char *dy = fn_base(job, FN_Z, strip->outer, strip->j) + start * ds;
  char *dx = fn_base(job, FN_Y, strip->outer, strip->j) + start * step;
#define FN_DO(given, dtype) FN(dx_of_halves)(dx, group *step, x, group *xs, dy, group *ds, rows, wide, of, given, dtype)
  if (job->array[FN_X].dtype == FN_F16) {
    if (job->given)
      FN_DO(1, FN_F16);
    else
      FN_DO(0, FN_F16);
  } else {
    if (job->given)
      FN_DO(1, FN_BF16);
    else
      FN_DO(0, FN_BF16);
  }
#undef FN_DO
  return 1;
}

/* dx of a chunk. */
static void FN(dx_of_columns)(const fn_job *job, const FN(strip) *strip, int64_t start, int64_t end, FN(room) *room) {
  const int64_t cols = strip->cols, size = (int64_t)sizeof(T);
  const int64_t most = FN(rows_of_tile)(strip, job->n < FN_SHORT ? FN_VISIT : FN_TILE, 1); /* short ones as a whole */
  T of[FN_FACTORS][FN_STRIP];
  int all = 1;
  for (int plane = 0; plane < FN_FACTORS; plane++) {
    const T *from = (const T *)job->factors + plane * job->width + strip->place;
    for (int64_t c = 0; c < cols; c++) of[plane][c] = from[c * strip->step];
    FN(widen)(of[plane], strip);
  }
  for (int64_t c = 0; c < cols; c++) all &= of[FN_OF_DY][c] == of[FN_OF_DY][c];
  if (all && FN(dx_in_halves)(job, strip, start, end, (const T(*)[FN_STRIP])of)) return;
  const int64_t y_step = job->stretch[FN_Y] == job->n ? fn_step(job, FN_Y) : 0;
  const int in_line =
      FN(native)(&job->array[FN_Y]) && (job->inner.step[FN_Y] == size || cols == 1) && y_step % size == 0;
  const int follow = in_line && (y_step == cols * size || job->n == 1); /* rows of dx follow each other */
  const int direct = in_line && y_step && !job->stream && all;
  char *base = fn_base(job, FN_Y, strip->outer, strip->j);
  for (int64_t at = start, n; at < end; at += n) {
    FN(rows) rows;
    n = end - at < most ? end - at : most;
    FN(bring_tile)(job, strip, at, n, room, &rows);
    T *dx = direct ? (T *)(void *)(base + at * y_step) : room->out;
    const int64_t stride = direct ? y_step / size : cols;
    const int dense = stride == cols && rows.x_stride == cols && rows.dy_stride == cols;
    const int64_t together = dense ? strip->group : 1, wide = together * cols;
    for (int64_t i = 0; i < n; i += together) {
      const int64_t count = n - i < together ? (n - i) * cols : wide;
      FN(dx_across)(dx + i * stride, rows.x + i * rows.x_stride, rows.dy + i * rows.dy_stride, count, of[FN_OF_DY],
                    of[FN_OF_ONE], of[FN_OF_U], of[FN_OF_MEAN], job->given);
    }
    for (int64_t c = 0; !all && c < cols; c++)
      if (of[FN_OF_DY][c] != of[FN_OF_DY][c])
        FN(careful_dx)(job, strip->place + c * strip->step, dx + c, stride, rows.x + c, rows.x_stride, rows.dy + c,
                       rows.dy_stride, n);
    for (int64_t i = 0; rows.mask && i < n; i++)
      for (int64_t c = 0; c < cols; c++) dx[i * stride + c] = rows.mask[i * cols + c] ? dx[i * stride + c] : 0;
    if (!direct && follow && job->stream)
      fn_stream(base + at * y_step, (const char *)dx, n * cols * size);
    else if (!direct)
      FN(store_strip)(job, FN_Y, base, at, n, cols, dx, room->x, job->stream);
  }
}
