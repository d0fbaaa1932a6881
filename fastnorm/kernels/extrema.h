/* Extrema of rows and columns, on integer keys that are ordered as the numbers are.
 *
 * With keys, -0 stands below +0 and NaN outside the infinities, so minimum and maximum are exact, free of order, and
 * say by themselves whether a NaN was among the data. Needs T, its key type K and, for floating types, FN_KEY_FLIP, the
 * infinities and NaN. Halves are compared as the bits that they are.
 */
#ifdef FN_KEY_FLIP
static inline K FN(key)(T value) {
  K bits;
  memcpy(&bits, &value, sizeof bits);
  return FN_KEY_FLIP(bits);
}
static inline T FN(unkey)(K key) {
  T value;
  key = FN_KEY_FLIP(key);
  memcpy(&value, &key, sizeof value);
  return value;
}
static inline int FN(unordered)(K lo, K hi) { return lo < FN(key)(FN_MINUS_INFINITY) || hi > FN(key)(FN_INFINITY); }
static inline T FN(nan)(void) { return FN_NAN; }
#else
static inline K FN(key)(T value) { return value; }
static inline T FN(unkey)(K key) { return key; }
static inline int FN(unordered)(K lo, K hi) { return (void)lo, (void)hi, 0; }
static inline T FN(nan)(void) { return 0; }
#endif

static void FN(extremes_row)(const T *x, int64_t n, K *min, K *max) {
  K lo = *min, hi = *max;
  for (int64_t i = 0; i < n; i++) {
    K key = FN(key)(x[i]);
    lo = key < lo ? key : lo;
    hi = key > hi ? key : hi;
  }
  *min = lo;
  *max = hi;
}

static void FN(extremes_columns)(const T *x, int64_t stride, int64_t n, int64_t cols, K *restrict min,
                                 K *restrict max) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8, x += 8 * stride)
    for (int64_t from = 0; from < cols; from += FN_SEGMENT) {
      const int64_t to = from + FN_SEGMENT < cols ? from + FN_SEGMENT : cols;
      if (i + 16 <= n) FN(fetch)(x + 8 * stride + from, stride, to - from);
      for (int64_t j = from; j < to; j++) {
        K lo = min[j], hi = max[j];
        for (int r = 0; r < 8; r++) {
          K key = FN(key)(x[r * stride + j]);
          lo = key < lo ? key : lo;
          hi = key > hi ? key : hi;
        }
        min[j] = lo;
        max[j] = hi;
      }
    }
  for (; i < n; i++, x += stride)
    for (int64_t j = 0; j < cols; j++) {
      K key = FN(key)(x[j]);
      min[j] = key < min[j] ? key : min[j];
      max[j] = key > max[j] ? key : max[j];
    }
}

/* Extrema of n > 0 rows of `cols` <= FN_STRIP columns join min[] and max[]. */
static void FN(join_extremes)(const T *x, int64_t stride, int64_t n, int64_t cols, K *min, K *max) {
  if (cols == 1 && stride == 1) {
    FN(extremes_row)(x, n, min, max);
    return;
  }
  const int64_t group = stride == cols ? fn_group_rows(cols) : 1, whole = n / group;
  K lo[FN_STRIP], hi[FN_STRIP];
  for (int64_t i = 0; i < group; i++)
    for (int64_t j = 0; j < cols; j++) {
      lo[i * cols + j] = min[j];
      hi[i * cols + j] = max[j];
    }
  FN(extremes_columns)(x, group * stride, whole, group * cols, lo, hi);
  FN(extremes_columns)(x + whole * group * stride, stride, n % group, cols, lo, hi);
  for (int64_t i = 0; i < group; i++)
    for (int64_t j = 0; j < cols; j++) {
      min[j] = lo[i * cols + j] < min[j] ? lo[i * cols + j] : min[j];
      max[j] = hi[i * cols + j] > max[j] ? hi[i * cols + j] : max[j];
    }
}

/* ---- masked: only what counts ------------------------------------------------------------------------------------ */

/* Where nothing counts: above every number, and below. */
static inline K FN(none_yet)(int above) {
#ifdef FN_KEY_FLIP
  return FN(key)(above ? FN_INFINITY : FN_MINUS_INFINITY);
#else
  const K top = (K)-1 > 0 ? (K)-1 : (K)(((uint64_t)1 << (8 * sizeof(K) - 1)) - 1);
  return above ? top : (K)~top;
#endif
}

/* Extrema of the elements of n rows whose byte is not 0 join min[] and max[]. */
static void FN(join_masked)(const T *x, int64_t stride, const uint8_t *where, int64_t n, int64_t cols, K *min, K *max) {
  const int64_t group = stride == cols ? fn_lane_rows(n, cols) : 1, wide = group * cols;
  const K above = FN(none_yet)(1), below = FN(none_yet)(0);
  K lo[FN_STRIP], hi[FN_STRIP];
  for (int64_t j = 0; j < wide; j++) {
    lo[j] = above;
    hi[j] = below;
  }
  for (int64_t i = 0; i < n; i += group, x += group * stride, where += wide) {
    const int64_t width = n - i < group ? (n - i) * cols : wide;
    FN_IVDEP
    for (int64_t j = 0; j < width; j++) {
      const K key = FN(key)(x[j]), least = where[j] ? key : above, most = where[j] ? key : below;
      lo[j] = least < lo[j] ? least : lo[j];
      hi[j] = most > hi[j] ? most : hi[j];
    }
  }
  for (int64_t i = 0; i < group; i++)
    for (int64_t j = 0; j < cols; j++) {
      min[j] = lo[i * cols + j] < min[j] ? lo[i * cols + j] : min[j];
      max[j] = hi[i * cols + j] > max[j] ? hi[i * cols + j] : max[j];
    }
}

/* NaN does not count. The result is in `tile`; `where` may be that, memory, or NULL. */
static const uint8_t *FN(omit)(const T *x, int64_t stride, const uint8_t *where, int64_t n, int64_t cols,
                               uint8_t *tile) {
  const int64_t rows = stride == cols ? 1 : n, width = stride == cols ? n * cols : cols;
  if (!where) where = memset(tile, 1, (size_t)(n * cols));
  for (int64_t i = 0; i < rows; i++) {
    FN_IVDEP
    for (int64_t j = 0; j < width; j++) {
      const K key = FN(key)(x[i * stride + j]);
      tile[i * cols + j] = (where[i * cols + j] != 0) & !FN(unordered)(key, key);
    }
  }
  return tile;
}

/* Pieces of `chunk` elements, each with results of its own: piece i of kept index p stands at i * state_stride + p. A
 * piece of floats where nothing counts says infinity and minus infinity, which spoil no other piece. */
static void FN(extrema_piece)(const fn_job *job, int64_t piece, int64_t outer, int64_t j, int64_t cols, T *tile) {
  const char *base = fn_base(job, FN_X, outer, j);
  uint8_t *where_tile = (uint8_t *)tile + FN_SCRATCH_WHERE;
  const int masked = fn_is_masked(job);
  int64_t p = fn_place(job, outer, j) + piece * job->state_stride;
  const int64_t end = (piece + 1) * job->chunk < job->n ? (piece + 1) * job->chunk : job->n;
  const int64_t all = job->outer * job->n * (int64_t)sizeof(T);
  const int from_memory = !job->columns && all > FN_DISTANT; /* else asking for it would only cost */
  const int64_t block = from_memory ? FN_ASKED / (int64_t)sizeof(T) : FN_CHUNK / cols;
  K lo[FN_STRIP] = {0}, hi[FN_STRIP] = {0};
  for (int64_t start = piece * job->chunk; start < end; start += block) {
    const int64_t n = end - start < block ? end - start : block;
    int64_t stride = 1;
    const T *x = job->columns ? FN(load_columns)(job, FN_X, base, start, n, cols, tile, &stride)
                              : FN(load)(job, FN_X, base, start, n, tile);
    if (from_memory) fn_ask(x, n * (int64_t)sizeof(T));
    for (int64_t c = 0; start == piece * job->chunk && c < cols; c++) {
      lo[c] = masked ? FN(none_yet)(1) : FN(key)(x[c]);
      hi[c] = masked ? FN(none_yet)(0) : FN(key)(x[c]);
    }
    if (masked) {
      const uint8_t *where = fn_dense_where(job, outer, j, start, n, cols, where_tile);
      if (job->omit) where = FN(omit)(x, stride, where, n, cols, where_tile);
      FN(join_masked)(x, stride, where, n, cols, lo, hi);
    } else {
      FN(join_extremes)(x, stride, n, cols, lo, hi);
    }
  }
  for (int64_t c = 0; c < cols; c++, p += job->inner.step[FN_P]) {
    const int unordered = FN(unordered)(lo[c], hi[c]);
    ((T *)job->min)[p] = unordered ? FN(nan)() : FN(unkey)(lo[c]);
    ((T *)job->max)[p] = unordered ? FN(nan)() : FN(unkey)(hi[c]);
  }
}

/* Columns of a single element, which is their minimum and maximum; NaN becomes the canonical one. */
static void FN(copy_extrema)(T *restrict min, T *restrict max, const T *restrict x, int64_t cols, int64_t step) {
  for (int64_t c = 0; c < cols; c++) {
    const K key = FN(key)(x[c]);
    min[c * step] = max[c * step] = FN(unordered)(key, key) ? FN(nan)() : x[c];
  }
}

/* Strips of such columns: those that lie beside each other at once. */
static void FN(extrema_single)(const fn_job *job, int64_t lo, int64_t hi, int64_t strips, T *tile) {
  for (int64_t unit = lo, some; unit < hi; unit += some) {
    const int64_t outer = unit / strips, j = unit % strips * job->strip, p = fn_place(job, outer, j);
    some = hi - unit < FN_CHUNK / job->strip ? hi - unit : FN_CHUNK / job->strip;
    some = some < strips - unit % strips ? some : strips - unit % strips;
    const int64_t cols = job->inner.size - j < some * job->strip ? job->inner.size - j : some * job->strip;
    int64_t stride;
    const T *x = FN(load_columns)(job, FN_X, fn_base(job, FN_X, outer, j), 0, 1, cols, tile, &stride);
    FN(copy_extrema)((T *)job->min + p, (T *)job->max + p, x, cols, job->inner.step[FN_P]);
  }
}

static void FN(extrema_rows)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  for (int64_t unit = lo; unit < hi; unit++)
    FN(extrema_piece)(job, unit / job->outer, unit % job->outer, 0, 1, scratch);
}

static void FN(extrema_columns)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  const int64_t strips = (job->inner.size + job->strip - 1) / job->strip;
  if (job->n == 1 && !fn_is_masked(job)) {
    FN(extrema_single)(job, lo, hi, strips, scratch);
    return;
  }
  for (int64_t unit = lo; unit < hi; unit++) {
    const int64_t j = unit % strips * job->strip, outer = unit / strips % job->outer;
    const int64_t cols = job->inner.size - j < job->strip ? job->inner.size - j : job->strip;
    FN(extrema_piece)(job, unit / strips / job->outer, outer, j, cols, scratch);
  }
}
