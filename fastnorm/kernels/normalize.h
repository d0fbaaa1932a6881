/* Vectors of unit p-norm: y = x / d with d = max(||x||, eps) for each kept index, and the way back
 *
 *     dx = (dy - w sum(dy y)) / d    w = d||x|| / dx, or 0 where eps is the larger
 *
 * where FN_Z holds dy and FN_Y takes dx. For p = 1, 2 and infinity the sums are taken in double, of numbers converted
 * to it (squares of rows: of a few floats), so that no square of a float overflows or underflows, and applied in the
 * compute type. Every other p, and what the compute type cannot hold, goes the careful way (normalize_careful.h). What
 * fits a cache is read once.
 */

/* Sums of some rows or columns: |x|, x^2 or, for p = infinity, the largest |x|; of dy * x; how often the largest is
 * met. NaN wherever a sum has lost something. */
typedef struct {
  double size[FN_STRIP], dot[FN_STRIP], ties[FN_STRIP];
} FN(extents);

/* What is applied to some rows or columns. A divisor of NaN leaves one to the careful way. */
typedef struct {
  T divisor[FN_STRIP], slope[FN_STRIP], top[FN_STRIP]; /* of x; |x| that have a slope, for p = infinity */
  int all;                                             /* nothing is left to the careful way */
} FN(divisors);

/* A product of doubles that underflowed is lost: NaN. Those of floats do not. */
static inline double FN(kept_product)(double a, double b) {
  const double product = a * b, none = __builtin_nan("");
  double kept = a == 0 ? 0 : none;
  kept = b == 0 ? 0 : kept;
  return FN_TYPE == FN_F32 || !(fabs(product) < 0x1p-960) ? product : kept;
}

/* ---- sums -------------------------------------------------------------------------------------------------------- */

/* Four elements join each lane. */
FN_INLINE void FN(measure_four)(const T *x, const T *dy, double *size, double *dot, double *ties, int kind) {
  enum { L = FN_LANES };
  for (int l = 0; l < L; l++) {
    const double v0 = (double)x[l], v1 = (double)x[L + l], v2 = (double)x[2 * L + l], v3 = (double)x[3 * L + l];
    if (kind & FN_LARGEST) {
      fn_meet(v0, size + l, ties + l, kind);
      fn_meet(v1, size + l, ties + l, kind);
      fn_meet(v2, size + l, ties + l, kind);
      fn_meet(v3, size + l, ties + l, kind);
    } else {
      size[l] += (fn_size(v0, kind) + fn_size(v1, kind)) + (fn_size(v2, kind) + fn_size(v3, kind));
    }
    if (kind & FN_WITH_SLOPE)
      dot[l] += (FN(kept_product)(v0, (double)dy[l]) + FN(kept_product)(v1, (double)dy[L + l])) +
                (FN(kept_product)(v2, (double)dy[2 * L + l]) + FN(kept_product)(v3, (double)dy[3 * L + l]));
  }
}

/* Less than four lanes of elements from number i on to the end of a row, and zeros, which change nothing: lanes that
 * would lie behind the end take the last elements and leave out those that were met already. */
FN_INLINE void FN(end_of_row)(T *restrict to, const T *x, int64_t i, int64_t n) {
  enum { L = FN_LANES };
  if (n < L) {
    for (int l = 0; l < 4 * L; l++) to[l] = 0;
    memcpy(to, x, (size_t)n * sizeof(T));
    return;
  }
  for (int k = 0; k < 4; k++) {
    const int64_t at = i + k * L < n - L ? i + k * L : n - L;
    const T *from = x + at;
    const T met = (T)(i + k * L - at);
    FN_IVDEP
    for (int l = 0; l < L; l++) {
      const T v = from[l];
      to[k * L + l] = (T)l < met ? 0 : v;
    }
  }
}

/* Lanes of n contiguous elements; sums go to their totals every FN_FLUSH elements. */
FN_INLINE void FN(measure_row_of)(const T *x, const T *dy, int64_t n, double *size, double *dot, double *ties,
                                  int kind) {
  enum { L = FN_LANES };
  double sizes[L] = {0}, dots[L] = {0}, met[L] = {0};
  for (int l = 0; l < L; l++) size[l] = dot[l] = 0;
  for (int64_t from = 0; from < n; from += FN_FLUSH) {
    const int64_t end = n - from < FN_FLUSH ? n : from + FN_FLUSH;
    int64_t i = from;
    for (; i + 4 * L <= end; i += 4 * L)
      FN(measure_four)(x + i, kind & FN_WITH_SLOPE ? dy + i : x, sizes, dots, met, kind);
    if (i < end) {
      T rest[4 * L], rest_dy[4 * L];
      FN(end_of_row)(rest, x, i, n);
      if (kind & FN_WITH_SLOPE) FN(end_of_row)(rest_dy, dy, i, n);
      FN(measure_four)(rest, rest_dy, sizes, dots, met, kind);
    }
    for (int l = 0; l < L; l++) {
      if (!(kind & FN_LARGEST)) size[l] += sizes[l];
      if (!(kind & FN_LARGEST)) sizes[l] = 0;
      if (kind & FN_WITH_SLOPE) dot[l] += dots[l];
      dots[l] = 0;
    }
  }
  *ties = 0;
  if (!(kind & FN_LARGEST)) return;
  FN_IVDEP
  for (int l = 0; l < L / 2; l++) fn_join_ties(sizes + l, met + l, sizes[L / 2 + l], met[L / 2 + l], kind);
  FN_IVDEP
  for (int l = 0; l < L / 4; l++) fn_join_ties(sizes + l, met + l, sizes[L / 4 + l], met[L / 4 + l], kind);
  for (int l = 1; l < L / 4; l++) fn_join_ties(sizes, met, sizes[l], met[l], kind);
  *size = sizes[0];
  *ties = met[0];
}

/* Sums of the rows of a strip are added to what is there; 16 visits of four rows make a partial sum. */
FN_INLINE void FN(measure_columns_of)(const T *x, int64_t stride, const T *dy, int64_t dy_stride, int64_t rows,
                                      int64_t cols, FN(extents) *to, int kind) {
  double *ties = to->ties, sizes[FN_STRIP], dots[FN_STRIP];
  for (int64_t from = 0; from < rows; from += 64) {
    const int64_t end = rows - from < 64 ? rows : from + 64;
    double *size = kind & FN_LARGEST ? to->size : sizes;
    for (int64_t j = 0; j < cols; j++) sizes[j] = dots[j] = 0;
    for (int64_t i = from; i < end; i += 4) {
      const int64_t last = end - 1 - i; /* rows that are not there are not counted */
      const T *a = x + i * stride, *b = dy + i * dy_stride;
      if (last >= 3) {
        FN_IVDEP
        for (int64_t j = 0; j < cols; j++) {
          const double v0 = (double)a[j], v1 = (double)a[stride + j], v2 = (double)a[2 * stride + j];
          const double v3 = (double)a[3 * stride + j];
          if (kind & FN_LARGEST) {
            fn_meet(v0, size + j, ties + j, kind);
            fn_meet(v1, size + j, ties + j, kind);
            fn_meet(v2, size + j, ties + j, kind);
            fn_meet(v3, size + j, ties + j, kind);
          } else {
            size[j] += (fn_size(v0, kind) + fn_size(v1, kind)) + (fn_size(v2, kind) + fn_size(v3, kind));
          }
          if (kind & FN_WITH_SLOPE)
            dots[j] += (FN(kept_product)(v0, (double)b[j]) + FN(kept_product)(v1, (double)b[dy_stride + j])) +
                       (FN(kept_product)(v2, (double)b[2 * dy_stride + j]) +
                        FN(kept_product)(v3, (double)b[3 * dy_stride + j]));
        }
        continue;
      }
      for (int64_t k = 0; k <= last; k++) {
        FN_IVDEP
        for (int64_t j = 0; j < cols; j++) {
          const double v = (double)a[k * stride + j];
          if (kind & FN_LARGEST)
            fn_meet(v, size + j, ties + j, kind);
          else
            size[j] += fn_size(v, kind);
          if (kind & FN_WITH_SLOPE) dots[j] += FN(kept_product)(v, (double)b[k * dy_stride + j]);
        }
      }
    }
    for (int64_t j = 0; j < cols; j++) {
      if (!(kind & FN_LARGEST)) to->size[j] += sizes[j];
      to->dot[j] += dots[j];
    }
  }
}

FN_INLINE void FN(measure_rows_of)(const T *const *x, const T *const *dy, int rows, int64_t n, FN(extents) *to,
                                   int kind) {
  double size[FN(BATCH)][FN_LANES], dot[FN(BATCH)][FN_LANES];
  for (int r = 0; r < rows; r++) FN(measure_row_of)(x[r], dy[r], n, size[r], dot[r], to->ties + r, kind);
  if (!(kind & FN_LARGEST)) FN_FOLD_LANES(double, size, rows, to->size, 1);
  for (int r = 0; kind & FN_LARGEST && r < rows; r++) to->size[r] = size[r][0];
  if (kind & FN_WITH_SLOPE) FN_FOLD_LANES(double, dot, rows, to->dot, 1);
  for (int r = 0; !(kind & FN_WITH_SLOPE) && r < rows; r++) to->dot[r] = 0;
}

/* Squares of floats, added four or eight at a time before their sums are taken in double; where one may have left its
 * range all are doubles. */
static void FN(measure_squares)(const T *const *x, int rows, int64_t n, FN(extents) *to) {
  double none[FN_LANES], squares[FN(BATCH)][FN_LANES];
  const FN(row_end) end = FN(row_end_of)(n);
  for (int r = 0; r < rows; r++) FN(norm_sums)(x[r], n, &end, 0, none, squares[r], 0);
  FN_FOLD_LANES(double, squares, rows, to->size, 1);
  for (int r = 0; r < rows; r++) to->dot[r] = to->ties[r] = 0;
  for (int row = 0; row < rows; row++) {
    double *size = to->size + row;
    if (fn_finite(*size) && *size >= (double)n * FN_LEAST_SQUARE) continue;
    FN(measure_row_of)(x[row], x[row], n, squares[0], none, to->ties + row, FN_SQUARES);
    FN_FOLD_LANES(double, squares, 1, size, 1);
  }
}

/* Sums of some rows. */
static void FN(measure_rows)(const T *const *x, const T *const *dy, int rows, int64_t n, FN(extents) *to, int kind) {
  if (FN_TYPE == FN_F32 && kind == FN_SQUARES && n >= FN_LANES) {
    FN(measure_squares)(x, rows, n, to);
    return;
  }
  switch (kind) {
#define FN_CASE(kind)                                                                                                  \
  case kind:                                                                                                           \
    FN(measure_rows_of)(x, dy, rows, n, to, kind);                                                                     \
    break;
    FN_SIZE_KINDS(FN_CASE)
#undef FN_CASE
  }
}

static void FN(measure_columns)(const T *x, int64_t stride, const T *dy, int64_t dy_stride, int64_t rows, int64_t cols,
                                FN(extents) *to, int kind) {
  switch (kind) {
#define FN_CASE(kind)                                                                                                  \
  case kind:                                                                                                           \
    FN(measure_columns_of)(x, stride, dy, dy_stride, rows, cols, to, kind);                                            \
    break;
    FN_SIZE_KINDS(FN_CASE)
#undef FN_CASE
  }
}

/* Sums of whole columns. Narrow ones are worked on several rows at a time, by the shape and layout of x alone. */
static void FN(measure_strip)(const fn_job *job, const T **x, int64_t *stride, const T **dy, int64_t *dy_stride,
                              int64_t rows, int64_t cols, T *tile, T *dy_tile, FN(extents) *to, int kind) {
  const int64_t beside = job->beside < job->strip ? job->beside : job->strip;
  const int64_t group = job->n < FN_SHORT ? 1 : fn_lane_rows(rows, beside), wide = group * cols, whole = rows / group;
  if (group > 1) {
    *x = FN(close_up)(*x, stride, rows, cols, tile);
    if (kind & FN_WITH_SLOPE) *dy = FN(close_up)(*dy, dy_stride, rows, cols, dy_tile);
  }
  for (int64_t j = 0; j < wide; j++) to->size[j] = to->dot[j] = to->ties[j] = 0;
  FN(measure_columns)(*x, group * *stride, *dy, group * *dy_stride, whole, wide, to, kind);
  if (whole * group < rows)
    FN(measure_columns)(*x + whole * wide, 0, *dy + (kind & FN_WITH_SLOPE ? whole * wide : 0), 0, 1,
                        (rows - whole * group) * cols, to, kind);
  fn_fold_groups(to->dot, group, cols);
  if (!(kind & FN_LARGEST)) fn_fold_groups(to->size, group, cols);
  for (int64_t j = cols; (kind & FN_LARGEST) && j < wide; j++)
    fn_join_ties(to->size + j % cols, to->ties + j % cols, to->size[j], to->ties[j], kind);
}

/* ---- divisors ---------------------------------------------------------------------------------------------------- */

/* Sums become what is applied: the slope is w sum(dy y) for one unit of x (p = 2) or of its sign. */
FN_INLINE void FN(fill_divisors_of)(const fn_job *job, const FN(extents) *from, int64_t count, FN(divisors) *to,
                                    int kind, int with_slope) {
  const double eps = job->eps, none = __builtin_nan("");
  /* Squares of doubles that vanished do not matter where eps is the larger in any case. */
  const double least = FN_TYPE == FN_F32 || eps >= 0x1p-400 ? 0 : 0x1p-900;
  int all = 1;
  FN_IVDEP
  for (int64_t j = 0; j < count; j++) {
    const double root = sqrt(from->size[j]), square = kind & FN_SQUARES ? from->size[j] : 1;
    const double norm = kind & FN_SQUARES ? root : from->size[j], d = norm >= eps ? norm : eps;
    const double unit = kind & FN_SQUARES ? d : kind & FN_LARGEST ? (from->ties[j] > 0 ? from->ties[j] : 1) : 1;
    const double dot = with_slope ? from->dot[j] / d : 0, slope = with_slope && norm >= eps ? dot / unit : 0;
    double held = d >= FN_LEAST_SCALE ? d : none;
    held = d <= FN_MOST_SCALE ? held : none;
    held = square >= least ? held : none;
    held = norm <= FN_MOST_SCALE ? held : none; /* not where eps is the larger of the two by being a number */
    held = from->ties[j] >= 0 ? held : none;
    if (with_slope) {
      held = fabs(dot) <= FN_MOST_SCALE ? held : none;
      held = fabs(slope) <= FN_MOST_SCALE ? held : none;
      held = fabs(slope) >= FN_LEAST_SCALE || slope == 0 ? held : none;
    }
    to->divisor[j] = (T)held;
    to->slope[j] = (T)slope;
    to->top[j] = (T)norm;
  }
  for (int64_t j = 0; j < count; j++) all &= to->divisor[j] == to->divisor[j];
  to->all = all;
  if (!all && job->found) __atomic_store_n(job->found, FN_FOUND_UNUSUAL, __ATOMIC_RELAXED);
}

static void FN(fill_divisors)(const fn_job *job, const FN(extents) *from, int64_t count, FN(divisors) *to, int kind) {
  if (kind & FN_WITH_SLOPE)
    FN(fill_divisors_of)(job, from, count, to, kind, 1);
  else
    FN(fill_divisors_of)(job, from, count, to, kind, 0);
}

/* Every divisor is left to the careful way. */
static void FN(no_divisors)(int64_t count, FN(divisors) *to) {
  for (int64_t j = 0; j < count; j++) to->divisor[j] = (T)__builtin_nan("");
  to->all = 0;
}

/* ---- apply ------------------------------------------------------------------------------------------------------- */

/* x / d, or dx. */
static inline T FN(divide)(T x, T dy, T divisor, T slope, T top, int kind) {
  if (!(kind & FN_WITH_SLOPE)) return x / divisor;
  if (kind & FN_SQUARES) return (dy - x * slope) / divisor;
  const T size = x < 0 ? -x : x, down = x < 0 ? -slope : slope, here = x == 0 ? 0 : down;
  return (dy - (!(kind & FN_LARGEST) || size == top ? here : 0)) / divisor;
}

FN_INLINE void FN(divide_some)(T *y, const T *x, const T *dy, int64_t n, T divisor, T slope, T top, int kind) {
  FN_IVDEP
  for (int64_t i = 0; i < n; i++) y[i] = FN(divide)(x[i], kind & FN_WITH_SLOPE ? dy[i] : 0, divisor, slope, top, kind);
}

/* By lines; the last one is computed before anything is written, since y may be x. */
FN_INLINE void FN(divide_row_of)(T *y, const T *x, const T *dy, int64_t n, T divisor, T slope, T top, int kind) {
  enum { W = FN(LINE) };
  if (n < W) {
    FN(divide_some)(y, x, dy, n, divisor, slope, top, kind);
    return;
  }
  T tail[W];
  const int64_t last = n - W;
  FN(divide_some)(tail, x + last, dy + (kind & FN_WITH_SLOPE ? last : 0), W, divisor, slope, top, kind);
  for (int64_t i = 0; i + W <= n; i += W)
    FN(divide_some)(y + i, x + i, dy + (kind & FN_WITH_SLOPE ? i : 0), W, divisor, slope, top, kind);
  memcpy(y + last, tail, sizeof tail);
}

FN_INLINE void FN(divide_across_of)(T *y, const T *x, const T *dy, int64_t n, const T *divisor, const T *slope,
                                    const T *top, int kind) {
  FN_IVDEP
  for (int64_t i = 0; i < n; i++)
    y[i] = FN(divide)(x[i], kind & FN_WITH_SLOPE ? dy[i] : 0, divisor[i], slope[i], top[i], kind);
}

/* Elements of row r. */
static void FN(divide_row)(T *y, const T *x, const T *dy, int64_t n, const FN(divisors) *by, int r, int kind) {
  switch (kind) {
#define FN_CASE(kind)                                                                                                  \
  case kind:                                                                                                           \
    FN(divide_row_of)(y, x, dy, n, by->divisor[r], by->slope[r], by->top[r], kind);                                    \
    break;
    FN_SIZE_KINDS(FN_CASE)
#undef FN_CASE
  }
}

/* One row of a strip, from column `from` on. */
static void FN(divide_across)(T *y, const T *x, const T *dy, int64_t n, const FN(divisors) *by, int64_t from,
                              int kind) {
  switch (kind) {
#define FN_CASE(kind)                                                                                                  \
  case kind:                                                                                                           \
    FN(divide_across_of)(y, x, dy, n, by->divisor + from, by->slope + from, by->top + from, kind);                     \
    break;
    FN_SIZE_KINDS(FN_CASE)
#undef FN_CASE
  }
}

/* Loaded elements of row `outer`, number `start` on, by divisor r. */
static void FN(divide_run)(const fn_job *job, const T *x, const T *dy, int64_t outer, int64_t start, int64_t n,
                           const FN(divisors) *by, int r, T *tile, int kind) {
  const int in_line = FN(native)(&job->array[FN_Y]) && FN(in_line)(job, FN_Y);
  char *base = fn_base(job, FN_Y, outer, 0);
  T *y = (T *)(void *)base + start;
  if (in_line && !job->stream) {
    FN(divide_row)(y, x, dy, n, by, r, kind);
    return;
  }
  for (int64_t at = 0, count; at < n; at += count) {
    count = n - at < FN_TILE ? n - at : FN_TILE;
    FN(divide_row)(tile, x + at, dy + (kind & FN_WITH_SLOPE ? at : 0), count, by, r, kind);
    if (in_line)
      fn_stream((char *)(y + at), (const char *)tile, count * (int64_t)sizeof(T));
    else
      FN(store)(job, FN_Y, base, start + at, count, tile);
  }
}

/* Rows start <= i < start + rows of the strip of columns j and on. `spare` may be where dy lies. */
static void FN(divide_strip)(const fn_job *job, const T *x, int64_t stride, const T *dy, int64_t dy_stride,
                             int64_t outer, int64_t j, int64_t start, int64_t rows, int64_t cols, FN(divisors) *by,
                             T *tile, T *spare, int kind) {
  const int64_t size = (int64_t)sizeof(T), across = job->inner.step[FN_Y];
  const int64_t y_step = job->stretch[FN_Y] == job->n ? fn_step(job, FN_Y) : 0;
  const int in_line = FN(native)(&job->array[FN_Y]) && across == size, direct = in_line && !job->stream && by->all;
  const int with_slope = kind & FN_WITH_SLOPE;
  char *base = fn_base(job, FN_Y, outer, j);
  if (in_line && by->all && stride == cols && (!with_slope || dy_stride == cols) && y_step == cols * size) {
    /* Dense rows follow each other as one run, worked on several rows at a time. */
    const int64_t group = fn_group_rows(cols), wide = cols * group, n = rows * cols;
    const int64_t block = job->stream ? FN_TILE / wide * wide : n;
    T *y = (T *)(void *)(base + start * y_step);
    for (int64_t c = cols; c < wide; c++) {
      by->divisor[c] = by->divisor[c - cols];
      by->slope[c] = by->slope[c - cols];
      by->top[c] = by->top[c - cols];
    }
    for (int64_t first = 0; first < n; first += block) {
      const int64_t end = n - first < block ? n : first + block;
      T *to = job->stream ? tile : y + first;
      for (int64_t i = first; i < end; i += wide)
        FN(divide_across)(to + (i - first), x + i, dy + (with_slope ? i : 0), end - i < wide ? end - i : wide, by, 0,
                          kind);
      if (job->stream) fn_stream((char *)(y + first), (const char *)tile, (end - first) * size);
    }
    return;
  }
  for (int64_t i = 0; i < rows; i++) {
    char *to = base + fn_along(job, FN_Y, start + i);
    T *y = direct ? (T *)(void *)to : tile + i * cols;
    FN(divide_across)(y, x + i * stride, dy + (with_slope ? i * dy_stride : 0), cols, by, 0, kind);
    for (int64_t c = 0; c < cols && !by->all; c++)
      if (by->divisor[c] == by->divisor[c]) FN(scatter_run)(to + c * across, y + c, 1, across, job->array[FN_Y].dtype);
  }
  if (!direct && by->all) FN(store_strip)(job, FN_Y, base, start, rows, cols, tile, spare, job->stream);
}

/* ---- kernels ----------------------------------------------------------------------------------------------------- */

static void FN(normalize_rows)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  T *tile = scratch, *x_tile = tile + FN_CHUNK, *dy_tile = x_tile + FN_CHUNK;
  const T *x[FN(BATCH)], *dy[FN(BATCH)];
  const int kind = fn_size_kind(job), with_slope = kind & FN_WITH_SLOPE;
  const int64_t n = job->n, most = FN_TILE / 2 / n, together = most < 1 ? 1 : most > FN(BATCH) ? FN(BATCH) : most;
  const int half = fn_is_half(job->array[FN_Y].dtype);
  const int adjacent =
      job->kept_ndim == 0 || (job->kept_ndim == 1 && job->kept[0].step[FN_Y] == n * (int64_t)sizeof(T));
  /* Short rows that follow each other in memory go past the cache together, from a tile. */
  const int in_tile = (half || FN(native)(&job->array[FN_Y])) && FN(in_line)(job, FN_Y) && together > 1 &&
                      (half || (job->stream && adjacent));
  const int direct = FN(native)(&job->array[FN_X]) && FN(in_line)(job, FN_X);
  FN(extents) extents;
  FN(divisors) by;
  for (int64_t row = lo; row < hi; row += together) {
    const int rows = hi - row < together ? (int)(hi - row) : (int)together;
    for (int r = 0; r < rows; r++) {
      const char *from = fn_base(job, FN_X, row + r, 0);
      x[r] = direct ? (const T *)(const void *)from : FN(load)(job, FN_X, from, 0, n, x_tile + r * n);
      dy[r] = with_slope ? FN(load)(job, FN_Z, fn_base(job, FN_Z, row + r, 0), 0, n, dy_tile + r * n) : x[r];
    }
    if (kind & FN_ANY_POWER) {
      FN(no_divisors)(rows, &by);
    } else {
      FN(measure_rows)(x, dy, rows, n, &extents, kind);
      FN(fill_divisors)(job, &extents, rows, &by, kind);
    }
    if (in_tile && by.all) {
      for (int r = 0; r < rows; r++) FN(divide_row)(tile + r * n, x[r], dy[r], n, &by, r, kind);
      FN(store_rows)(job, row, rows, tile, x_tile);
      continue;
    }
    for (int r = 0; r < rows; r++)
      if (by.divisor[r] == by.divisor[r]) FN(divide_run)(job, x[r], dy[r], row + r, 0, n, &by, r, tile, kind);
    for (int r = 0; r < rows && !by.all; r++)
      if (by.divisor[r] != by.divisor[r]) FN(normalize_careful)(job, row + r, 0);
  }
  fn_stream_end();
}

/* Columns of a single element are their own norms, whichever these are. */
static void FN(normalize_singles)(const fn_job *job, int64_t outer, int64_t j, int64_t cols, T *tile, T *y, T *spare) {
  const int64_t across = job->inner.step[FN_Y];
  const T eps = (T)job->eps, none = (T)__builtin_nan("");
  int64_t stride;
  char *base = fn_base(job, FN_Y, outer, j);
  const T *x = FN(load_columns)(job, FN_X, fn_base(job, FN_X, outer, j), 0, 1, cols, tile, &stride);
  int all = 1;
  FN_IVDEP
  for (int64_t c = 0; c < cols; c++) {
    const T size = x[c] < 0 ? -x[c] : x[c], d = size >= eps ? size : eps;
    const int held = (d >= (T)FN_LEAST_SCALE) & (d <= (T)FN_MOST_SCALE) & (size <= (T)FN_MOST_SCALE);
    y[c] = held ? x[c] / d : none;
    all &= held;
  }
  if (all) {
    FN(store_strip)(job, FN_Y, base, 0, 1, cols, y, spare, job->stream);
    return;
  }
  if (job->found) __atomic_store_n(job->found, FN_FOUND_UNUSUAL, __ATOMIC_RELAXED);
  for (int64_t c = 0; c < cols; c++)
    if (y[c] == y[c])
      FN(scatter_run)(base + c * across, y + c, 1, across, job->array[FN_Y].dtype);
    else
      FN(normalize_careful)(job, outer, j + c);
}

static void FN(normalize_columns)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  T *tile = scratch, *dy_tile = tile + FN_CHUNK, *out = dy_tile + FN_CHUNK;
  const int64_t strips = (job->inner.size + job->strip - 1) / job->strip, n = job->n;
  const int kind = fn_size_kind(job), with_slope = kind & FN_WITH_SLOPE;
  FN(extents) extents;
  FN(divisors) by;
  for (int64_t unit = lo; unit < hi; unit++) {
    const int64_t outer = unit / strips, j = unit % strips * job->strip;
    const int64_t cols = job->inner.size - j < job->strip ? job->inner.size - j : job->strip;
    int64_t stride = cols, dy_stride = cols;
    if (n == 1 && !(kind & (FN_ANY_POWER | FN_WITH_SLOPE))) {
      FN(normalize_singles)(job, outer, j, cols, tile, out, dy_tile);
      continue;
    }
    if (kind & FN_ANY_POWER) {
      FN(no_divisors)(cols, &by);
    } else {
      const T *x = FN(load_columns)(job, FN_X, fn_base(job, FN_X, outer, j), 0, n, cols, tile, &stride), *dy = x;
      if (with_slope) dy = FN(load_columns)(job, FN_Z, fn_base(job, FN_Z, outer, j), 0, n, cols, dy_tile, &dy_stride);
      FN(measure_strip)(job, &x, &stride, &dy, &dy_stride, n, cols, tile, dy_tile, &extents, kind);
      FN(fill_divisors)(job, &extents, cols, &by, kind);
      FN(divide_strip)(job, x, stride, dy, dy_stride, outer, j, 0, n, cols, &by, out, dy_tile, kind);
    }
    for (int64_t c = 0; c < cols && !by.all; c++)
      if (by.divisor[c] != by.divisor[c]) FN(normalize_careful)(job, outer, j + c);
  }
  fn_stream_end();
}

/* ---- longer rows and columns: sums first ------------------------------------------------------------------------- */

/* Where the sums of part `chunk` of kept index k stand: three planes of `state_stride` for each part. */
static inline double *FN(part)(const fn_job *job, int64_t chunk, int64_t k) {
  return job->state + chunk * 3 * job->state_stride + k;
}

/* Sums of two parts of a kept index become those of both. */
static inline void FN(join_parts)(double *size, double *dot, double *ties, double more, double more_dot,
                                  double more_ties, int kind) {
  if (kind & FN_LARGEST)
    fn_join_ties(size, ties, more, more_ties, kind);
  else
    *size += more;
  *dot += more_dot;
}

static void FN(normalize_parts)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  T *tile = scratch, *dy_tile = tile + FN_CHUNK;
  const int64_t chunks = (job->n + job->chunk - 1) / job->chunk, plane = job->state_stride;
  const int kind = fn_size_kind(job), with_slope = kind & FN_WITH_SLOPE;
  if (kind & FN_ANY_POWER) return; /* normalize_settle does it all */
  FN(extents) extents;
  for (int64_t unit = lo; unit < hi; unit++) {
    const int64_t outer = unit / chunks, chunk = unit % chunks, start = chunk * job->chunk;
    const int64_t end = job->n - start < job->chunk ? job->n : start + job->chunk;
    for (int64_t j = 0; j < job->inner.size; j += job->strip) {
      const int64_t cols = job->inner.size - j < job->strip ? job->inner.size - j : job->strip;
      const char *x_base = fn_base(job, FN_X, outer, j), *dy_base = with_slope ? fn_base(job, FN_Z, outer, j) : NULL;
      double *to = FN(part)(job, chunk, outer * job->inner.size + j);
      for (int64_t c = 0; c < cols; c++) to[c] = to[plane + c] = to[2 * plane + c] = 0;
      for (int64_t i = start; i < end; i += job->block) {
        const int64_t rows = end - i < job->block ? end - i : job->block;
        int64_t stride = cols, dy_stride = cols;
        const T *x, *dy;
        if (job->columns) {
          dy = x = FN(load_columns)(job, FN_X, x_base, i, rows, cols, tile, &stride);
          if (with_slope) dy = FN(load_columns)(job, FN_Z, dy_base, i, rows, cols, dy_tile, &dy_stride);
          FN(measure_strip)(job, &x, &stride, &dy, &dy_stride, rows, cols, tile, dy_tile, &extents, kind);
        } else {
          dy = x = FN(load)(job, FN_X, x_base, i, rows, tile);
          if (with_slope) dy = FN(load)(job, FN_Z, dy_base, i, rows, dy_tile);
          FN(measure_rows)(&x, &dy, 1, rows, &extents, kind);
        }
        for (int64_t c = 0; c < cols; c++)
          FN(join_parts)(to + c, to + plane + c, to + 2 * plane + c, extents.size[c], extents.dot[c], extents.ties[c],
                         kind);
      }
    }
  }
}

/* The sums of all parts go to the first. What is left to the careful way is done here. */
static void FN(normalize_settle)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  const int64_t chunks = (job->n + job->chunk - 1) / job->chunk, width = job->inner.size;
  const int kind = fn_size_kind(job);
  FN(extents) extents;
  FN(divisors) by;
  (void)scratch;
  for (int64_t k = lo; k < hi; k++) {
    double size_lo = 0, dot_lo = 0, *sum = FN(part)(job, 0, k);
    FN(no_divisors)(1, &by);
    if (!(kind & FN_ANY_POWER)) {
      for (int64_t chunk = 1; chunk < chunks; chunk++) {
        const double *more = FN(part)(job, chunk, k);
        if (kind & FN_LARGEST)
          fn_join_ties(sum, sum + 2 * job->state_stride, more[0], more[2 * job->state_stride], kind);
        else
          fn_add(sum, &size_lo, more[0]);
        fn_add(sum + job->state_stride, &dot_lo, more[job->state_stride]);
      }
      extents.size[0] = sum[0];
      extents.dot[0] = sum[job->state_stride];
      extents.ties[0] = sum[2 * job->state_stride];
      FN(fill_divisors)(job, &extents, 1, &by, kind);
    }
    if (!by.all) FN(normalize_careful)(job, k / width, k % width);
  }
}

static void FN(normalize_apply)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  T *tile = scratch, *dy_tile = tile + FN_CHUNK, *out = dy_tile + FN_CHUNK;
  const int64_t chunks = (job->n + job->chunk - 1) / job->chunk;
  const int kind = fn_size_kind(job), with_slope = kind & FN_WITH_SLOPE;
  if (kind & FN_ANY_POWER) return; /* normalize_settle does it all */
  FN(extents) extents;
  FN(divisors) by;
  for (int64_t unit = lo; unit < hi; unit++) {
    const int64_t outer = unit / chunks, start = unit % chunks * job->chunk;
    const int64_t end = job->n - start < job->chunk ? job->n : start + job->chunk;
    for (int64_t j = 0; j < job->inner.size; j += job->strip) {
      const int64_t cols = job->inner.size - j < job->strip ? job->inner.size - j : job->strip;
      const char *x_base = fn_base(job, FN_X, outer, j), *dy_base = with_slope ? fn_base(job, FN_Z, outer, j) : NULL;
      const double *sums = FN(part)(job, 0, outer * job->inner.size + j);
      memcpy(extents.size, sums, (size_t)cols * sizeof(double));
      memcpy(extents.dot, sums + job->state_stride, (size_t)cols * sizeof(double));
      memcpy(extents.ties, sums + 2 * job->state_stride, (size_t)cols * sizeof(double));
      FN(fill_divisors)(job, &extents, cols, &by, kind);
      for (int64_t i = start; i < end; i += job->block) {
        const int64_t rows = end - i < job->block ? end - i : job->block;
        int64_t stride = cols, dy_stride = cols;
        const T *x, *dy;
        if (job->columns) {
          dy = x = FN(load_columns)(job, FN_X, x_base, i, rows, cols, tile, &stride);
          if (with_slope) dy = FN(load_columns)(job, FN_Z, dy_base, i, rows, cols, dy_tile, &dy_stride);
          FN(divide_strip)(job, x, stride, dy, dy_stride, outer, j, i, rows, cols, &by, out, dy_tile, kind);
        } else if (by.all) {
          dy = x = FN(load)(job, FN_X, x_base, i, rows, tile);
          if (with_slope) dy = FN(load)(job, FN_Z, dy_base, i, rows, dy_tile);
          FN(divide_run)(job, x, dy, outer, i, rows, &by, 0, out, kind);
        }
      }
    }
  }
  fn_stream_end();
}
