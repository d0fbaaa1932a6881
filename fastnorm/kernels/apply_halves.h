/* Halves from memory to memory: widened, applied to and narrowed again in registers, in the arithmetic of apply.h.
 *
 * Tiles of floats on the way cost more than the arithmetic: what needs no second look at its values comes here, all
 * else passes through convert.h.
 */

/* The halves at x become a vector of y. */
FN_INLINE fn_floats FN(apply_to_halves)(const char *x, FN(vector) center, FN(vector) center_lo, FN(vector) scale,
                                        FN(vector) shift, FN(vector) weight, FN(vector) bias, T top, int kind,
                                        int dtype) {
  FN(vector) y = (FN(vector))fn_load_halves(x, dtype);
  FN_AFFINE(y, y, center, center_lo, scale, shift, weight, bias, kind);
  return (fn_floats)FN(finished_vector)(y, top, kind);
}

/* Rows of n halves, `x_step` and `y_step` bytes apart; with FN_ACROSS one list of parameters serves all, else one
 * parameter each. The end of a row lies in a piece that overlaps the one before, computed before anything is written,
 * since y may be x. */
FN_INLINE void FN(apply_halves_of)(char *y, int64_t y_step, const char *x, int64_t x_step, int64_t rows, int64_t n,
                                   const FN(params) *params, int64_t first, const T *weight, const T *bias, int kind,
                                   int dtype) {
  enum { W = FN_FLOATS };
  for (int64_t r = 0; r < rows; r++, x += x_step, y += y_step) {
    const int64_t p = kind & FN_ACROSS ? 0 : first + r;
#define FN_EACH(list, i) (kind & FN_ACROSS ? FN(load_all)(params->list + (i)) : FN(every)(params->list[p]))
#define FN_IF(with, list, i) (kind & (with) ? FN(load_all)(list + (i)) : FN(every)(0))
#define FN_AT(from, i)                                                                                                 \
  FN(apply_to_halves)(from, FN_EACH(center, i), FN_EACH(center_lo, i), FN_EACH(scale, i), FN_EACH(shift, i),           \
                      FN_IF(FN_WITH_WEIGHT, weight, i), FN_IF(FN_WITH_BIAS, bias, i), params->top, kind, dtype)
    if (n < W) { /* the end of a strip, whose lists hold a whole vector */
      char some[2 * W] = {0};
      memcpy(some, x, (size_t)(2 * n));
      fn_store_halves(some, FN_AT(some, 0), dtype);
      memcpy(y, some, (size_t)(2 * n));
      continue;
    }
    const fn_floats end = FN_AT(x + 2 * (n - W), n - W);
    for (int64_t i = 0; i + W <= n; i += W) {
      if (kind & FN_ACROSS) __builtin_prefetch(x + 2 * x_step + 2 * i); /* a strip is not what a processor expects */
      fn_store_halves(y + 2 * i, FN_AT(x + 2 * i, i), dtype);
    }
    if (n % W) fn_store_halves(y + 2 * (n - W), end, dtype);
#undef FN_AT
#undef FN_IF
#undef FN_EACH
  }
}

/* Likewise, rows of at least a vector that follow each other in x and in y: by aligned vectors of y, whichever rows
 * these belong to. */
FN_INLINE void FN(apply_adjacent_halves_of)(char *y, const char *x, int64_t rows, int64_t n, const FN(params) *params,
                                            int64_t first, int kind, int dtype) {
  enum { W = FN_FLOATS };
  const FN(vector) none = {0};
  const int64_t all = rows * n, last = first + rows - 1;
#define FN_ENTRY(list, r) FN(every)(params->list[r])
#define FN_AT(i, r)                                                                                                    \
  FN(apply_to_halves)(x + 2 * (i), FN_ENTRY(center, r), FN_ENTRY(center_lo, r), FN_ENTRY(scale, r),                    \
                      FN_ENTRY(shift, r), none, none, params->top, kind, dtype)
  const fn_floats begin = FN_AT(0, first), end = FN_AT(all - W, last);
  int64_t i = (int64_t)((-(uintptr_t)y & (2 * W - 1)) / 2);
  const int64_t head = i;
  for (int64_t r = first; r <= last; r++) {
    const int64_t next = (r - first + 1) * n;
    for (; i + W <= next; i += W) fn_store_halves(y + 2 * i, FN_AT(i, r), dtype);
    if (r == last || i == next) continue;
#define FN_EITHER(list) FN(border)(next - i, params->list[r], params->list[r + 1])
    fn_store_halves(y + 2 * i,
                    FN(apply_to_halves)(x + 2 * i, FN_EITHER(center), FN_EITHER(center_lo), FN_EITHER(scale),
                                        FN_EITHER(shift), none, none, params->top, kind, dtype),
                    dtype);
#undef FN_EITHER
    i += W;
  }
#undef FN_AT
#undef FN_ENTRY
  if (head) fn_store_halves(y, begin, dtype);
  if (i < all) fn_store_halves(y + 2 * (all - W), end, dtype);
}

/* Rows whose parameters stand from number `first` on, or with `across` those of columns, which have shifts. Rows of
 * weights and biases are no shorter than a vector. */
static void FN(apply_halves)(char *y, int64_t y_step, const char *x, int64_t x_step, int64_t rows, int64_t n,
                             const FN(params) *params, int64_t first, const T *weight, const T *bias, int across,
                             int dtype) {
  const int adjacent = rows > 1 && !across && n >= FN_FLOATS && x_step == 2 * n && y_step == 2 * n;
  switch (FN(kind_of)(params, weight, bias, 0) | (across ? FN_ACROSS : 0)) {
#define FN_DO(kind, dtype)                                                                                             \
  if ((kind) & FN_WITH_SHIFT && !((kind) & FN_ACROSS) && adjacent)                                                     \
    FN(apply_adjacent_halves_of)(y, x, rows, n, params, first, kind, dtype);                                           \
  else                                                                                                                 \
    FN(apply_halves_of)(y, y_step, x, x_step, rows, n, params, first, weight, bias, kind, dtype);
#define FN_CASE(kind)                                                                                                  \
  case kind:                                                                                                           \
    if (dtype == FN_F16) {                                                                                             \
      FN_DO(kind, FN_F16)                                                                                              \
    } else {                                                                                                           \
      FN_DO(kind, FN_BF16)                                                                                             \
    }                                                                                                                  \
    break;
    FN_KINDS_OF(FN_CASE, 0)
    FN_SHIFT_KINDS_OF(FN_CASE, FN_ACROSS)
#undef FN_CASE
#undef FN_DO
  }
}

/* May values of `which` become those of y without a second look? */
static inline int FN(passes_halves)(const fn_job *job, int which) {
  return FN(holds_halves)(job, which) && FN(holds_halves)(job, FN_Y) &&
         job->array[which].dtype == job->array[FN_Y].dtype && fn_converts(job->array[which].dtype) &&
         !FN(is_touched_up)(job);
}

/* Rows start <= i < start + rows of the strip of columns j and on, from memory to memory; past the cache by way of
 * `spare`, which holds FN_TILE halves. Returns whether they are stored so that this can be. */
static int FN(apply_strip_of_halves)(const fn_job *job, int which, int64_t outer, int64_t j, int64_t start,
                                     int64_t rows, int64_t cols, FN(params) *params, char *spare) {
  const int64_t x_step = fn_step(job, which), y_step = fn_step(job, FN_Y);
  const int dtype = job->array[which].dtype;
  if (!FN(passes_halves)(job, which) || !params->with_shift || !params->all || cols * rows < FN_FLOATS) return 0;
  if (job->stretch[which] != job->n || job->stretch[FN_Y] != job->n) return 0;
  if (job->inner.step[which] != 2 || job->inner.step[FN_Y] != 2) return 0;
  const int dense = x_step == 2 * cols && y_step == 2 * cols;
  const int64_t group = dense ? fn_group_rows(cols) : 1, wide = group * cols, whole = rows / group, rest = rows % group;
  if (wide < FN_FLOATS) return 0;
  const char *x = fn_base(job, which, outer, j) + start * x_step;
  char *y = fn_base(job, FN_Y, outer, j) + start * y_step;
  FN(repeat_params)(params, cols, wide, 0);
  if (!job->stream || !dense) {
    FN(apply_halves)(y, group * y_step, x, group * x_step, whole, wide, params, 0, NULL, NULL, 1, dtype);
    if (rest)
      FN(apply_halves)(y + whole * group * y_step, 0, x + whole * group * x_step, 0, 1, rest * cols, params, 0, NULL,
                       NULL, 1, dtype);
    return 1;
  }
  const int64_t most = FN_TILE / wide;
  for (int64_t i = 0, count; i < whole; i += count) {
    count = whole - i < most ? whole - i : most;
    FN(apply_halves)(spare, 2 * wide, x + 2 * i * wide, 2 * wide, count, wide, params, 0, NULL, NULL, 1, dtype);
    fn_stream(y + 2 * i * wide, spare, 2 * count * wide);
  }
  if (rest)
    FN(apply_halves)(y + 2 * whole * wide, 0, x + 2 * whole * wide, 0, 1, rest * cols, params, 0, NULL, NULL, 1, dtype);
  return 1;
}

/* `n` elements of row `outer` from number `start` on, with parameters number 0: likewise. */
static int FN(apply_run_of_halves)(const fn_job *job, int which, int64_t outer, int64_t start, int64_t n,
                                   const FN(params) *params, char *spare) {
  const int shifted = params->with_shift, dtype = job->array[which].dtype;
  if (!FN(passes_halves)(job, which) || !params->all || n < FN_FLOATS) return 0;
  if (!FN(in_line)(job, which) || !FN(in_line)(job, FN_Y) || !(shifted || FN(affine_is_plain)(job))) return 0;
  const int64_t set = shifted ? 0 : fn_set(job, fn_place(job, outer, 0)) + start;
  const T *weight = job->weight && !shifted ? (const T *)job->weight + set : NULL;
  const T *bias = job->bias && !shifted ? (const T *)job->bias + set : NULL;
  const char *x = fn_base(job, which, outer, 0) + 2 * start;
  char *y = fn_base(job, FN_Y, outer, 0) + 2 * start;
  if (!job->stream) {
    FN(apply_halves)(y, 0, x, 0, 1, n, params, 0, weight, bias, 0, dtype);
    return 1;
  }
  for (int64_t i = 0, count; i < n; i += count) {
    count = n - i < 2 * FN_TILE ? n - i : FN_TILE; /* what is left is never shorter than a vector */
    FN(apply_halves)(spare, 0, x + 2 * i, 0, 1, count, params, 0, weight ? weight + i : NULL, bias ? bias + i : NULL, 0,
                     dtype);
    fn_stream(y + 2 * i, spare, 2 * count);
  }
  return 1;
}
