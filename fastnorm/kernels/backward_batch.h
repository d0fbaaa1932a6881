/* Backward passes of norms whose parameters lie along the reduced axes: batches of kept indices.
 *
 * With g = dy * weight and xhat = (x - mean - shift) * rstd, where shift is what rounding left in the saved mean, each
 * kept index gets
 *
 *   dx = rstd * (g - average(g) - xhat * average(g * xhat))
 *
 * and each reduced one dweight = sum of dy * xhat and dbias = sum of dy over the kept indices. RMS norms have neither
 * mean, shift nor average(g). Products are taken in the compute type, up to 32 of them added there (the terms of 16
 * kept indices, by fours), and their sums in double. Kept indices are worked on as rows, four at a time; what is not a
 * row in memory becomes one in a tile. Indices of a few elements are done as lanes (backward_short.h), those that the
 * compute type cannot hold in double (backward_careful.h).
 */

#define FN_XHAT(x, r) (kind & FN(CENTERED) ? (FN_CENTRED(x, mean##r) - shift##r) * rstd##r : (x) * rstd##r)
#define FN_DX(g, h, r) (rstd##r * ((kind & FN(CENTERED) ? (g) - mean_g##r : (g)) - (h) * dot##r))
#define FN_FACTORS(r, f, at)                                                                                           \
  const T mean##r = (f)->mean[at], rstd##r = (f)->rstd[at], shift##r = (f)->shift[at], mean_g##r = (f)->mean_g[at],    \
          dot##r = (f)->dot[at]

/* A vector of row r: d = dy, h = xhat, v = dx. */
#define FN_ROW(r, load)                                                                                                \
  const FN(vector) d##r = load(dy##r), g##r = kind & FN(WEIGHTED) ? FN(scaled)(d##r, w) : d##r;                        \
  FN(vector) h##r = FN(centred)(load(x##r), mean##r, kind), v##r = g##r;                                               \
  if (kind & FN(CENTERED)) h##r -= shift##r;                                                                           \
  h##r *= rstd##r;                                                                                                     \
  if (kind & FN(CENTERED)) v##r -= mean_g##r;                                                                          \
  v##r = (v##r - h##r * dot##r) * rstd##r

/* A vector of four rows, whose terms are added before they meet those of the rows before. */
#define FN_FOUR(load, store, store_dx)                                                                                 \
  do {                                                                                                                 \
    const FN(vector) w = kind & FN(WEIGHTED) ? load(weight) : (FN(vector)){0};                                         \
    FN_ROW(0, load);                                                                                                   \
    FN_ROW(1, load);                                                                                                   \
    FN_ROW(2, load);                                                                                                   \
    FN_ROW(3, load);                                                                                                   \
    store_dx(dx0, v0);                                                                                                 \
    store_dx(dx1, v1);                                                                                                 \
    store_dx(dx2, v2);                                                                                                 \
    store_dx(dx3, v3);                                                                                                 \
    if (kind & FN(WEIGHTED)) store(few_w, load(few_w) + ((d0 * h0 + d1 * h1) + (d2 * h2 + d3 * h3)));                  \
    if (kind & FN(CENTERED)) store(few_b, load(few_b) + ((d0 + d1) + (d2 + d3)));                                      \
  } while (0)
#define FN_LOAD_ALL(from) FN(load_all)(from + i)
#define FN_STORE_ALL(to, v) FN(store_all)(to + i, v)
#define FN_STORE_PAST(to, v) fn_store_past_cache(to + i, &(v))
#define FN_LOAD_SOME(from) FN(load_some)(from + i, some, 0)
#define FN_STORE_SOME(to, v) FN(store_some)(to + i, v, some)

/* n elements of four rows. Rows that are long go by whole vectors of the first dx; past the cache all of them do. */
FN_INLINE void FN(apply_four)(T *const *dx, const T *const *x, const T *const *dy, const T *weight, T *few_w, T *few_b,
                              int64_t n, const FN(factors) *f, const int *at, int past_cache, int kind) {
  enum { W = FN(WIDTH) };
  T *dx0 = dx[0], *dx1 = dx[1], *dx2 = dx[2], *dx3 = dx[3];
  const T *x0 = x[0], *x1 = x[1], *x2 = x[2], *x3 = x[3], *dy0 = dy[0], *dy1 = dy[1], *dy2 = dy[2], *dy3 = dy[3];
  FN_FACTORS(0, f, at[0]);
  FN_FACTORS(1, f, at[1]);
  FN_FACTORS(2, f, at[2]);
  FN_FACTORS(3, f, at[3]);
  const int64_t head = n >= 8 * FN(LINE) ? (int64_t)((-(uintptr_t)dx0 & (FN_VECTOR - 1)) / sizeof(T)) : 0;
  for (int64_t i = 0, some = head; i < n; some = n - i) {
    if (some) FN_FOUR(FN_LOAD_SOME, FN_STORE_SOME, FN_STORE_SOME);
    i += some;
    if (past_cache)
      for (; i + W <= n; i += W) FN_FOUR(FN_LOAD_ALL, FN_STORE_ALL, FN_STORE_PAST);
    else
      for (; i + W <= n; i += W) FN_FOUR(FN_LOAD_ALL, FN_STORE_ALL, FN_STORE_ALL);
  }
}

FN_INLINE void FN(apply_one)(T *dx, const T *x, const T *dy, const T *weight, double *restrict dweight,
                             double *restrict dbias, int64_t n, const FN(factors) *f, int at, int kind) {
  FN_FACTORS(0, f, at);
  FN_IVDEP
  for (int64_t i = 0; i < n; i++) {
    const T d = dy[i], h = FN_XHAT(x[i], 0);
    dx[i] = FN_DX(FN_SCALED(d, weight[i]), h, 0);
    if (kind & FN(WEIGHTED)) dweight[i] += (double)(d * h);
    if (kind & FN(CENTERED)) dbias[i] += (double)d;
  }
}

/* Rows `order` of a batch, from element `at` on: n elements of dx each. */
FN_INLINE void FN(apply_batch_of_kind)(T *const *dx, const FN(batch) *batch, const int *order, int count, int64_t at,
                                       const T *weight, FN(few) *few, double *dweight, double *dbias, int64_t n,
                                       const FN(factors) *factors, int past_cache, int kind) {
  int i = 0;
  for (; i + 4 <= count; i += 4) {
    const T *x[4], *dy[4];
    T *to[4];
    for (int r = 0; r < 4; r++) {
      x[r] = batch->x[order[i + r]] + at;
      dy[r] = batch->dy[order[i + r]] + at;
      to[r] = dx[order[i + r]];
    }
    for (int64_t l = 0; batch->ahead && l < n; l += FN(LINE)) /* memory is asked for the next batch meanwhile */
      for (int r = 0; r < 4; r++) {
        __builtin_prefetch((const void *)((uintptr_t)(x[r] + l) + (uintptr_t)batch->ahead));
        __builtin_prefetch((const void *)((uintptr_t)(dy[r] + l) + (uintptr_t)batch->ahead));
      }
    if (past_cache)
      FN(apply_four)(to, x, dy, weight, few->dweight, few->dbias, n, factors, order + i, 1, kind);
    else
      FN(apply_four)(to, x, dy, weight, few->dweight, few->dbias, n, factors, order + i, 0, kind);
  }
  for (; i < count; i++)
    FN(apply_one)(dx[order[i]], batch->x[order[i]] + at, batch->dy[order[i]] + at, weight, dweight, dbias, n, factors,
                  order[i], kind);
}

static void FN(apply_batch)(const fn_job *job, T *const *dx, const FN(batch) *batch, const int *order, int count,
                            int64_t at, const T *weight, FN(few) *few, double *dweight, double *dbias, int64_t n,
                            const FN(factors) *factors, int past_cache) {
  switch (FN(backward_kind)(job)) {
#define FN_CASE(kind)                                                                                                  \
  case kind:                                                                                                           \
    FN(apply_batch_of_kind)(dx, batch, order, count, at, weight, few, dweight, dbias, n, factors, past_cache, kind);   \
    break;
    FN_BACKWARD_KINDS(FN_CASE)
#undef FN_CASE
  }
}

/* The terms of a batch join those of all. */
static void FN(add_few)(const fn_job *job, FN(few) *few, double *restrict dweight, double *restrict dbias, int64_t n) {
  const T *w = few->dweight, *b = few->dbias;
  for (int64_t i = 0; job->weight && i < n; i++) dweight[i] += (double)w[i];
  for (int64_t i = 0; job->norm == FN_LAYER && i < n; i++) dbias[i] += (double)b[i];
}

/* The saved statistics of the kept indices from k on. */
static void FN(bring_statistics)(const fn_job *job, int64_t k, int rows, T *mean, T *rstd) {
  int64_t place[FN(TOGETHER)];
  FN(kept_offsets)(job, FN_P, k, rows, place);
  for (int r = 0; r < rows; r++) mean[r] = job->mean ? ((const T *)job->mean)[place[r]] : 0;
  for (int r = 0; r < rows; r++) rstd[r] = ((const T *)job->spread)[place[r]];
}

/* The averages of some kept indices, known already or from the whole rows that `batch` holds or are brought now. */
static void FN(slopes_of)(const fn_job *job, int64_t k, int rows, int64_t count, const T *weight, const T *mean,
                          const T *rstd, FN(room) *room, FN(batch) *batch, int fits, FN(slopes) *to, fn_slope *slow) {
  for (int r = 0; job->slopes && r < rows; r++) {
    slow[r] = job->slopes[k + r];
    to->count[r] = slow[r].count;
    to->shift[r] = slow[r].shift;
    to->mean_g[r] = slow[r].mean_g;
    to->dot[r] = slow[r].dot;
    to->careful[r] = slow[r].careful;
  }
  if (job->slopes) return;
  if (fits) FN(backward_sums_of_rows)(job, batch, weight, count, mean, to, 0);
  for (int r = 0; r < rows && !fits; r++) {
    FN(bring)(job, k + r, 1, 0, count, mean + r, room, batch);
    FN(backward_sums_of_rows)(job, batch, weight, count, mean + r, to, r);
  }
  FN(settle_slopes)(job, mean, rstd, to, rows);
  for (int r = 0; r < rows; r++)
    if (to->careful[r] != 0) FN(careful_slope)(job, k + r, mean[r], rstd[r], room, slow + r);
}

/* Elements start <= i < start + count of some kept indices: their slopes unless these are known, dx, and what is added
 * to dweight and dbias. */
static void FN(backward_batch)(const fn_job *job, int64_t k, int rows, int64_t start, int64_t count, const T *weight,
                               double *dweight, double *dbias, FN(room) *room) {
  enum { MOST = FN(TOGETHER) };
  T mean[MOST] = {0}, rstd[MOST] = {0}, *dx[MOST];
  FN(slopes) slopes;
  fn_slope slow[MOST];
  FN(batch) batch;
  FN(factors) factors;
  FN(bring_statistics)(job, k, rows, mean, rstd);
  const int read_where_it_is = !job->array[FN_WHERE].data && FN(in_rows)(job, FN_X) && FN(in_rows)(job, FN_Z);
  const int fits = read_where_it_is || rows * count <= FN_VISIT;
  if (fits) FN(bring)(job, k, rows, start, count, mean, room, &batch);
  FN(slopes_of)(job, k, rows, count, weight, mean, rstd, room, &batch, fits, &slopes, slow);
  for (int r = 0; r < rows; r++) factors.shift[r] = (T)slopes.shift[r];
  for (int r = 0; r < rows; r++) factors.mean_g[r] = (T)slopes.mean_g[r];
  for (int r = 0; r < rows; r++) factors.dot[r] = (T)slopes.dot[r];
  for (int r = 0; r < rows; r++) factors.mean[r] = slopes.count[r] == 0 ? 0 : mean[r];
  for (int r = 0; r < rows; r++) factors.rstd[r] = slopes.count[r] == 0 ? 0 : rstd[r];
  int64_t offset[MOST];
  const int in_rows = FN(in_rows)(job, FN_Y), turned = job->columns && !in_rows;
  if (in_rows) FN(kept_offsets)(job, FN_Y, k, rows, offset);
  int alike = in_rows && job->stream; /* may they go past the cache together? */
  for (int r = 1; r < rows; r++) alike = alike && (offset[r] - offset[0]) % FN_VECTOR == 0;
  const int past_cache = alike && count >= 8 * FN(LINE), direct = in_rows && (!job->stream || past_cache);
  const int64_t segment = job->columns || count <= FN(SEGMENT) ? count : FN(SEGMENT);
  const int64_t fit = FN_TILE / segment / 4 * 4;
  const int some = job->columns || fit > MOST ? MOST : fit < 4 ? 4 : (int)fit;
  T *tile = job->columns ? room->out : room->dx;
  int64_t next = segment;
  if (segment < count && in_rows) { /* whole cache lines of dx */
    const uintptr_t to = (uintptr_t)(job->array[FN_Y].data + offset[0]) + (uintptr_t)start * sizeof(T);
    next += (int64_t)((-to & 63) / sizeof(T)) - FN(LINE);
  }
  for (int64_t at = 0; at < count; at = next, next += segment) {
    const int64_t n = (next < count ? next : count) - at, from = fits ? at : 0;
    const T *w = weight ? weight + at : NULL;
    double *dw = dweight + at, *db = dbias + at;
    if (!fits) FN(bring)(job, k, rows, start + at, n, mean, room, &batch);
    memset(room->few.dweight, 0, (size_t)n * sizeof(T));
    memset(room->few.dbias, 0, (size_t)n * sizeof(T));
    for (int first = 0, last; first < rows; first = last) {
      last = first + some < rows ? first + some : rows;
      int order[MOST], held = 0;
      for (int r = first; r < last; r++) {
        order[held] = r;
        held += slopes.careful[r] == 0;
        dx[r] = direct ? (T *)(void *)(job->array[FN_Y].data + offset[r]) + start + at : tile + (r - first) * n;
      }
      FN(apply_batch)(job, dx, &batch, order, held, from, w, &room->few, dw, db, n, &factors, past_cache);
      for (int r = first; r < last && (held < last - first || batch.mask); r++) {
        const unsigned char *mask = batch.mask ? batch.mask + r * (fits ? count : n) + from : NULL;
        if (slopes.careful[r] != 0)
          FN(careful_run)(job, slow + r, mean[r], rstd[r], dx[r], batch.x[r] + from, batch.dy[r] + from, w, mask, dw,
                          db, n);
        for (int64_t i = 0; mask && i < n; i++) dx[r][i] = mask[i] ? dx[r][i] : 0;
      }
      if (!turned && !direct) FN(put_rows)(job, k + first, last - first, start + at, n, tile);
    }
    FN(add_few)(job, &room->few, dw, db, n);
    if (turned) FN(put_columns)(job, k, rows, start + at, n, tile, room->x);
  }
}
