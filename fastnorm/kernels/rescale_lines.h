/* Rescaling by given numbers, one set per channel:
 *
 *     y = ((x - center) - center_lo) / scale + shift      inverse: y = ((x - shift) * scale + center_lo) + center
 *
 * and clipped. What lies evenly in memory is one run, be it of one channel or of rows of channels, and goes by cache
 * lines of y: the operands stand in a row that is repeated, and a line begins anywhere in it. The same pass notices NaN
 * and infinity in x. There is nothing to sum, so how elements are cut into runs decides no bit.
 */

/* What a run is rescaled by: operands of `cols` columns, repeated up to `wide` and a line behind that. A scale of NaN
 * leaves a column that the compute type cannot hold to double. */
typedef struct {
  T center[FN_BROAD + FN(LINE)], center_lo[FN_BROAD + FN(LINE)], scale[FN_BROAD + FN(LINE)], shift[FN_BROAD + FN(LINE)];
  T least, most;
  int64_t cols, wide;
  int64_t p, step; /* where the first column stands among the kept indices, and how far apart they are */
  int kind, all;   /* nothing is left to double */
} FN(rescaling);

/* What was met in x: a negative lane for NaN, and for infinity. */
typedef struct {
  FN(keys) nan, infinite;
} FN(found);

static inline int64_t FN(channel_at)(const fn_job *job, const FN(rescaling) *by, int64_t column) {
  return fn_channel(job, by->p + column % by->cols * by->step);
}

/* Operands of the columns that stand from p on, a `step` apart. What is not given changes no value and no sign of 0. */
static void FN(fill_rescaling)(const fn_job *job, int64_t p, int64_t step, int64_t cols, FN(rescaling) *by,
                               double (*rooms)[FN_BROAD]) {
  const double plus = job->inverse ? -0.0 : 0.0, minus = -plus; /* neutral: x - 0.0, and x + -0.0 */
  const int single = FN_TYPE == FN_F32;
  T *lists[] = {by->center, by->center_lo, by->scale, by->shift};
  by->p = p;
  by->step = step;
  by->cols = cols;
  const double *center = fn_operand(job, job->center, plus, p, step, cols, rooms[0]);
  const double *center_lo = fn_operand(job, job->center_lo, 0, p, step, cols, rooms[1]);
  const double *scale = fn_operand(job, job->scale, 1, p, step, cols, rooms[2]);
  const double *shift = fn_operand(job, job->shift, minus, p, step, cols, rooms[3]);
  FN_IVDEP
  for (int64_t j = 0; j < cols; j++) {
    const T c = (T)center[j], s = (T)scale[j], rest = (T)((single ? center[j] - (double)c : 0) + center_lo[j]);
    const double size = fabs(scale[j]), none = __builtin_nan("");
    /* Sums and differences with these overflow only where they do in double, and the scale loses no digits. */
    double held = size >= 0x1p-126 ? scale[j] : none;
    held = size <= 0x1.fffffep+127 ? held : none;
    held = fabs(center[j]) <= FN_MOST_SCALE ? held : none;
    held = fabs(center_lo[j]) <= FN_MOST_SCALE ? held : none;
    held = fabs(shift[j]) <= FN_MOST_SCALE ? held : none;
    by->center[j] = c;
    by->center_lo[j] = rest == 0 ? (T)plus : rest;
    by->scale[j] = single ? (T)held : s;
    by->shift[j] = (T)shift[j];
  }
  int with_lo = 0, all = 1;
  for (int64_t j = 0; j < cols; j++) with_lo |= by->center_lo[j] != 0;
  for (int64_t j = 0; j < cols && single; j++) all &= by->scale[j] == by->scale[j];
  by->wide = (FN(LINE) + cols - 1) / cols * cols;
  for (int k = 0; k < 4; k++)
    for (int64_t j = cols; j < by->wide + FN(LINE); j++) lists[k][j] = lists[k][j - cols];
  by->least = (T)job->least;
  by->most = (T)job->most;
  by->kind = fn_rescale_kind(job) | (with_lo ? FN_WITH_LO : 0);
  by->all = all;
}

/* ---- one line ---------------------------------------------------------------------------------------------------- */

/* In the order of the formula, for numbers and vectors alike. */
#define FN_RESCALE(v, center, center_lo, scale, shift, kind)                                                           \
  do {                                                                                                                 \
    if ((kind) & FN_INVERSE) {                                                                                         \
      if ((kind) & FN_WITH_SHIFT) (v) -= (shift);                                                                      \
      if ((kind) & FN_WITH_SCALE) (v) *= (scale);                                                                      \
      if ((kind) & FN_WITH_LO) (v) += (center_lo);                                                                     \
      (v) += (center);                                                                                                 \
    } else {                                                                                                           \
      (v) -= (center);                                                                                                 \
      if ((kind) & FN_WITH_LO) (v) -= (center_lo);                                                                     \
      if ((kind) & FN_WITH_SCALE) (v) /= (scale);                                                                      \
      if ((kind) & FN_WITH_SHIFT) (v) += (shift);                                                                      \
    }                                                                                                                  \
  } while (0)

/* The last of what is done to values: NaN stays, as the canonical one. */
static inline FN(vector) FN(bounded)(FN(vector) v, T least, T most, int kind) {
  const FN(vector) none = {0};
  if (kind & FN_WITH_SHIFT) {
    v = FN(choose)((FN(keys))(v < least), none + least, v);
    v = FN(choose)((FN(keys))(v > most), none + most, v);
  }
  return FN(quiet_vector)(v);
}

/* By the bits of |x|: those of infinity, or more. */
static inline void FN(notice)(FN(vector) x, FN(found) *found) {
  const K magnitude = sizeof(K) == 4 ? (K)INT32_MAX : (K)INT64_MAX;
  const FN(keys) left = FN(key)(FN_INFINITY) - ((FN(keys))x & magnitude);
  found->nan |= left;
  found->infinite |= (left - 1) & ~left;
}

FN_INLINE void FN(rescale_line)(T *to, const T *x, int64_t c, const FN(rescaling) *by, FN(found) *found, int past_cache,
                                int kind) {
#define FN_LOAD(from) (*(const FN(loose_vector) *)(const void *)((from) + k))
  const T *center = by->center + c, *center_lo = by->center_lo + c, *scale = by->scale + c, *shift = by->shift + c;
  for (int k = 0; k < FN(LINE); k += FN(WIDTH)) {
    FN(vector) v = FN_LOAD(x);
    FN(notice)(v, found);
    FN_RESCALE(v, FN_LOAD(center), FN_LOAD(center_lo), FN_LOAD(scale), FN_LOAD(shift), kind);
    v = FN(bounded)(v, by->least, by->most, kind);
    FN(store_by)(to + k, v, past_cache);
  }
#undef FN_LOAD
}

/* Less than a line. */
FN_INLINE void FN(rescale_part)(T *y, const T *x, int64_t n, int64_t c, const FN(rescaling) *by, FN(found) *found,
                                int kind) {
  T part[FN(LINE)] = {0};
  memcpy(part, x, (size_t)n * sizeof(T));
  FN(rescale_line)(part, part, c, by, found, 0, kind);
  memcpy(y, part, (size_t)n * sizeof(T));
}

/* Elements from column c on. */
FN_INLINE void FN(rescale_of)(T *y, const T *x, int64_t n, int64_t c, const FN(rescaling) *by, FN(found) *to,
                              int past_cache, int kind) {
  const int64_t misplaced = (int64_t)((-(uintptr_t)y & 63) / sizeof(T)), head = misplaced < n ? misplaced : n;
  const int64_t wide = by->wide;
  FN(found) found = *to; /* in registers */
  int64_t i = head;
  if (head) FN(rescale_part)(y, x, head, c, by, &found, kind);
  for (c = (c + head) % wide; i + FN(LINE) <= n; i += FN(LINE)) {
    __builtin_prefetch((const void *)((uintptr_t)(x + i) + 8192));
    FN(rescale_line)(y + i, x + i, c, by, &found, past_cache, kind);
    c += FN(LINE);
    c = c >= wide ? c - wide : c;
  }
  if (i < n) FN(rescale_part)(y + i, x + i, n - i, c, by, &found, kind);
  *to = found;
}

static void FN(rescale)(T *y, const T *x, int64_t n, int64_t c, const FN(rescaling) *by, FN(found) *found,
                        int past_cache) {
  switch (by->kind) {
#define FN_CASE(kind)                                                                                                  \
  case kind:                                                                                                           \
    FN(rescale_of)(y, x, n, c, by, found, past_cache, kind);                                                           \
    break;
    FN_RESCALE_KINDS(FN_CASE)
#undef FN_CASE
  }
}
