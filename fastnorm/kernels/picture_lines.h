/* Lines of pictures: the constants of channels, and stored numbers that become floats with them.
 *
 * Bytes and words are computed in float, all else in double. In float, `center` is rounded to so few digits that
 * x - center is exact, and the rest of it is taken away next. Three roundings remain, of that difference, of the factor
 * and of the product, each of at most half an ulp or a relative 2^-24: y is within 3 ulp of its formula, also where x
 * is close to the mean. Where all centers are 0 it is the factor that is split, so that quotients are rounded
 * correctly.
 */

enum { FN_PICTURE_TILE = FN_TILE / 4 }; /* pixels of few channels */

/* Constants of the channels in the order of x, repeated up to `wide` elements, and tiles. */
typedef struct {
  float center[FN_TILE], rest[FN_TILE], factor[FN_TILE]; /* rest: of the center; of quotients, of the factor */
  double wide_center[FN_TILE], wide_rest[FN_TILE], wide_factor[FN_TILE];
  double source[FN_TILE];
  float flat[FN_TILE], planes[FN_TILE];
  uint16_t stored[FN_TILE];
  int64_t wide;
  double most;   /* restoring: the largest integer */
  int in_float;  /* x is bytes or words, and float holds the constants */
  int quotients; /* all centers are 0 */
  int plain;     /* every rest is 0 */
  int rounds;    /* restoring leads to integers */
} fn_picture_scratch;

_Static_assert(sizeof(fn_picture_scratch) <= FN_SCRATCH_BYTES, "constants and tiles of pictures fit the scratch");

/* ---- constants --------------------------------------------------------------------------------------------------- */

/* Where channel j of x stands in y, and the other way round. */
static inline int64_t fn_swapped(const fn_job *job, int64_t j) { return job->swap && j < 3 ? 2 - j : j; }

/* center + rest in float: the first a multiple of what makes x - center exact, by adding and taking away a number that
 * leaves no finer digits. */
static void fn_split_center(fn_picture_scratch *by, int64_t j, double most) {
  const double exact = by->wide_center[j];
  double unit = (most + 1) * 0x1p-24;
  while (fabs(exact) > unit * 0x1p24 || fabs(most - exact) > unit * 0x1p24) unit *= 2;
  const double shift = 0x1.8p52 * unit, center = (exact + shift) - shift;
  by->center[j] = (float)center;
  by->rest[j] = (float)((exact - center) + by->wide_rest[j]);
  by->factor[j] = (float)by->wide_factor[j];
}

/* factor + rest in float: the first of so few digits that its products with x are exact, by Veltkamp's splitting
 * (Dekker, "A Floating-Point Technique for Extending the Available Precision", Numerische Mathematik 18, 1971). */
static void fn_split_factor(fn_picture_scratch *by, int64_t j, double most) {
  const double exact = by->wide_factor[j], shift = exact * (0x1p29 * (most + 1) + 1);
  const double factor = shift - (shift - exact);
  by->factor[j] = (float)factor;
  by->rest[j] = (float)(exact - factor);
}

static void fn_fill_constants(const fn_job *job, fn_picture_scratch *by) {
  const int dtype = job->array[FN_X].dtype, stored = job->array[FN_Y].dtype;
  const double most = dtype == FN_U8 ? 255 : 65535;
  const int64_t channels = job->inner.size;
  by->rounds = stored == FN_U8 || stored == FN_U16;
  by->most = job->most;
  by->in_float = (dtype == FN_U8 || dtype == FN_U16) && !job->inverse;
  by->quotients = by->plain = 1;
  for (int64_t j = 0; j < channels; j++) {
    const int64_t c = (job->inverse ? j : fn_swapped(job, j)) % job->period; /* constants are those of the tensor */
    const double center = job->center[c], rest = job->center_lo ? job->center_lo[c] : 0, factor = job->scale[c];
    by->wide_center[j] = center;
    by->wide_rest[j] = rest;
    by->wide_factor[j] = factor;
    by->in_float &= center == 0 || (fabs(center) >= 0x1p-100 && fabs(center) <= 0x1p20);
    by->in_float &= fabs(factor) >= 0x1p-60 && fabs(factor) <= 0x1p100;
    by->plain &= rest == 0;
    by->quotients &= center == 0 && rest == 0;
  }
  for (int64_t j = 0; j < channels && by->in_float; j++)
    (by->quotients ? fn_split_factor : fn_split_center)(by, j, most);
}

static void fn_repeat(void *values, size_t bytes, size_t wide) {
  for (size_t part; bytes < wide; bytes += part) {
    part = bytes < wide - bytes ? bytes : wide - bytes;
    memcpy((char *)values + bytes, values, part);
  }
}

/* Repeats the constants up to whole vectors and whole pixels, long enough for a loop. */
static void fn_repeat_constants(fn_picture_scratch *by, int64_t channels) {
  float *const singles[] = {by->center, by->rest, by->factor};
  double *const doubles[] = {by->wide_center, by->wide_rest, by->wide_factor};
  by->wide = channels <= FN_TILE / 16 ? 16 * channels : channels;
  while (by->wide <= FN_TILE / 16) by->wide *= 2;
  for (int k = 0; k < 3; k++) {
    const size_t size = by->in_float ? sizeof(float) : sizeof(double);
    fn_repeat(by->in_float ? (void *)singles[k] : doubles[k], (size_t)channels * size, (size_t)by->wide * size);
  }
}

/* ---- runs of one channel, or of whole pixels --------------------------------------------------------------------- */

#define FN_STANDARDIZE(x, center, rest, factor, quotients)                                                             \
  ((quotients) ? (x) * (factor) + (x) * (rest) : (((x) - (center)) - (rest)) * (factor))

static inline float fn_canonical(float v) { return v == v ? v : __builtin_nanf(""); }

/* To nearest, ties to even, within 0 and `most`; NaN is 0. So does fn_restore_lanes (picture_pixels.h). */
static inline float fn_round_clip(double v, double most) {
  v = v > 0 ? v : 0;
  v = v < most ? v : most;
  return (float)((v + 0x1.8p52) - 0x1.8p52);
}

#define FN_STANDARDIZE_WIDE(x, center, rest, factor, plain)                                                            \
  fn_canonical((float)((plain) ? ((x) - (center)) * (factor) : FN_STANDARDIZE(x, center, rest, factor, 0)))
#define FN_RESTORE(x, center, factor, most, rounds)                                                                    \
  ((rounds) ? fn_round_clip((x) * (factor) + (center), most) : fn_canonical((float)((x) * (factor) + (center))))

/* A loop over n numbers of channel j, or with `along` of all channels by turns from the first on. `kind` is a constant
 * to the compiler. */
#define FN_LINE_LOOPS(name, type, number, prefix, kinds, expression)                                                   \
  FN_INLINE void name##_of(float *restrict to, const type *restrict x, int64_t n, const fn_picture_scratch *by,        \
                           int64_t j, int along, int kind) {                                                           \
    const number *center = by->prefix##center + j, *rest = by->prefix##rest + j, *factor = by->prefix##factor + j;     \
    const double most = by->most;                                                                                      \
    (void)rest, (void)most, (void)kind;                                                                                \
    for (int64_t i = 0, count; i < n; i += count) {                                                                    \
      count = along && n - i > by->wide ? by->wide : n - i;                                                            \
      for (int64_t k = 0; k < count; k++) {                                                                            \
        const number v = (number)x[i + k], c = center[along * k], r = rest[along * k], f = factor[along * k];          \
        (void)r;                                                                                                       \
        to[i + k] = expression;                                                                                        \
      }                                                                                                                \
    }                                                                                                                  \
  }                                                                                                                    \
  static void name(float *to, const type *x, int64_t n, const fn_picture_scratch *by, int64_t j, int along) {          \
    switch (2 * (kinds) + along) {                                                                                     \
      case 0:                                                                                                          \
        name##_of(to, x, n, by, j, 0, 0);                                                                              \
        break;                                                                                                         \
      case 1:                                                                                                          \
        name##_of(to, x, n, by, 0, 1, 0);                                                                              \
        break;                                                                                                         \
      case 2:                                                                                                          \
        name##_of(to, x, n, by, j, 0, 1);                                                                              \
        break;                                                                                                         \
      default:                                                                                                         \
        name##_of(to, x, n, by, 0, 1, 1);                                                                              \
    }                                                                                                                  \
  }
FN_LINE_LOOPS(fn_standardize_bytes, uint8_t, float, , by->quotients, FN_STANDARDIZE(v, c, r, f, kind))
FN_LINE_LOOPS(fn_standardize_words, uint16_t, float, , by->quotients, FN_STANDARDIZE(v, c, r, f, kind))
FN_LINE_LOOPS(fn_standardize_floats, float, double, wide_, by->plain, FN_STANDARDIZE_WIDE(v, c, r, f, kind))
FN_LINE_LOOPS(fn_standardize_doubles, double, double, wide_, by->plain, FN_STANDARDIZE_WIDE(v, c, r, f, kind))
FN_LINE_LOOPS(fn_restore_floats, float, double, wide_, by->rounds, FN_RESTORE(v, c, f, most, kind))
FN_LINE_LOOPS(fn_restore_doubles, double, double, wide_, by->rounds, FN_RESTORE(v, c, f, most, kind))
#undef FN_LINE_LOOPS

/* At most FN_TILE numbers that lie a `step` apart. */
static void fn_standardize_line(const fn_job *job, float *to, const char *x, int64_t step, int64_t n,
                                fn_picture_scratch *by, int64_t j, int along) {
  const fn_array *from = &job->array[FN_X];
  const int native = from->aligned && !from->swapped;
  if (by->in_float && from->dtype == FN_U8) {
    if (step != 1) gather_run_u8((uint8_t *)by->source, x, n, step, FN_U8, 0);
    fn_standardize_bytes(to, step == 1 ? (const uint8_t *)x : (const uint8_t *)by->source, n, by, j, along);
  } else if (by->in_float) {
    const int there = native && step == 2;
    if (!there) gather_run_u16((uint16_t *)by->source, x, n, step, FN_U16, from->swapped);
    fn_standardize_words(to, there ? (const uint16_t *)(const void *)x : (const uint16_t *)by->source, n, by, j, along);
  } else if (from->dtype == FN_F32 || fn_is_half(from->dtype)) {
    const int there = native && step == 4 && from->dtype == FN_F32;
    const float *values = there ? (const float *)(const void *)x : (const float *)by->source;
    if (!there) gather_run_f32((float *)by->source, x, n, step, from->dtype, from->swapped);
    (job->inverse ? fn_restore_floats : fn_standardize_floats)(to, values, n, by, j, along);
  } else {
    const int there = native && step == 8 && from->dtype == FN_F64;
    const double *values = there ? (const double *)(const void *)x : by->source;
    if (!there) gather_run_f64(by->source, x, n, step, from->dtype, from->swapped);
    (job->inverse ? fn_restore_doubles : fn_standardize_doubles)(to, values, n, by, j, along);
  }
}

/* ---- where floats go --------------------------------------------------------------------------------------------- */

static int64_t fn_size_of(int dtype) { return dtype == FN_U8 ? 1 : dtype == FN_F32 ? 4 : dtype == FN_F64 ? 8 : 2; }

/* Whether floats can be stored where they belong, a `step` apart, as they are computed: not over what is still read. */
static inline int fn_is_direct(const fn_job *job, int64_t step) {
  const fn_array *y = &job->array[FN_Y];
  return y->dtype == FN_F32 && y->aligned && step == 4 && !job->stream && y->data != job->array[FN_X].data;
}

/* At most FN_TILE of them are stored as what y holds. */
static void fn_store_line(const fn_job *job, char *y, int64_t step, const float *from, int64_t n, uint16_t *room) {
  const int dtype = job->array[FN_Y].dtype;
  const int64_t size = fn_size_of(dtype);
  const int packed = step == size, through = packed && job->stream; /* past the cache */
  char *to = through ? (char *)room : y;
  if (dtype == FN_F32 || (fn_is_half(dtype) && !packed)) {
    if (through)
      fn_stream(y, (const char *)from, n * size);
    else if (packed)
      memcpy(y, from, (size_t)(n * size));
    else
      scatter_run_f32(y, from, n, step, dtype);
    return;
  }
  if (fn_is_half(dtype)) {
    fn_narrow(to, from, n, dtype);
  } else if (dtype == FN_U8 && packed) {
    for (int64_t i = 0; i < n; i++) ((uint8_t *)to)[i] = (uint8_t)(int32_t)from[i];
  } else {
    for (int64_t i = 0; i < n; i++) {
      const uint16_t word = (uint16_t)(int32_t)from[i];
      if (dtype == FN_U8)
        to[i * step] = (char)word;
      else
        memcpy(to + i * step, &word, sizeof word);
    }
  }
  if (through) fn_stream(y, to, n * size);
}
