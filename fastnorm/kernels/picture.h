/* Pictures: stored pixels become normalized floats, and floats become pixels.
 *
 *     y = ((x - center) - center_lo) * factor          inverse: x = y * factor + center
 *
 * Constants of each channel are folded from mean, std and scale by the door. Bytes and words are computed in float, all
 * else in double. In float, `center` is cut to so few digits that x - center is exact and the rest of it is taken away
 * next; three roundings remain, so y is within 3 ulp of its formula, also where x is close to the mean. Where all
 * centers are 0 the factor is cut instead, which gives quotients their correctly rounded value (fn_mix).
 *
 * There is nothing to sum: how pixels are brought together decides no bit.
 */

/* Constants of the channels, repeated up to `wide` elements, and tiles. */
typedef struct {
  float center[FN_TILE], center_lo[FN_TILE], factor[FN_TILE];
  double wide_center[FN_TILE], wide_center_lo[FN_TILE], wide_factor[FN_TILE];
  double source[FN_TILE];
  float result[FN_TILE];
  uint16_t half[FN_TILE];
  int64_t wide;
  int in_float;  /* x is bytes or words, and float holds the constants */
  int quotients; /* center and center_lo hold the two parts of the factor */
} fn_palette;

/* ---- constants --------------------------------------------------------------------------------------------------- */

/* center + center_lo in float: the first a multiple of what makes x - center exact. */
static void fn_cut_center(fn_palette *by, int64_t c, double most) {
  const double center = by->wide_center[c];
  double unit = (most + 1) * 0x1p-24;
  while (fabs(center) > unit * 0x1p24 || fabs(most - center) > unit * 0x1p24) unit *= 2;
  const double shift = 0x1.8p52 * unit, cut = (center + shift) - shift;
  by->center[c] = (float)cut;
  by->center_lo[c] = (float)((center - cut) + by->wide_center_lo[c]);
  by->factor[c] = (float)by->wide_factor[c];
}

/* The factor in two parts: the first of so few digits that its products with x are exact. */
static void fn_cut_factor(fn_palette *by, int64_t c, double most) {
  const double factor = by->wide_factor[c], shift = factor * (0x1p29 * (most + 1) + 1);
  const double cut = shift - (shift - factor);
  by->center[c] = (float)cut;
  by->center_lo[c] = (float)(factor - cut);
}

/* Of each channel. */
static void fn_fill_palette(const fn_job *job, fn_palette *by) {
  const int dtype = job->array[FN_X].dtype;
  const double most = dtype == FN_U8 ? 255 : 65535;
  const int64_t channels = job->inner.size;
  by->in_float = (dtype == FN_U8 || dtype == FN_U16) && !job->inverse;
  by->quotients = 1;
  for (int64_t c = 0; c < channels; c++) {
    const int64_t from = c % job->period;
    const double center = job->center[from], rest = job->center_lo ? job->center_lo[from] : 0,
                 factor = job->scale[from];
    by->wide_center[c] = center;
    by->wide_center_lo[c] = rest;
    by->wide_factor[c] = factor;
    by->in_float &= fabs(center) <= 0x1p20 && fabs(factor) >= 0x1p-60 && fabs(factor) <= 0x1p100;
    by->quotients &= center == 0 && rest == 0;
  }
  for (int64_t c = 0; c < channels && by->in_float; c++) (by->quotients ? fn_cut_factor : fn_cut_center)(by, c, most);
}

/* And again and again: rows of a vector and of pixels that are long enough for a loop. */
static void fn_repeat_palette(fn_palette *by, int64_t channels) {
  by->wide = channels <= FN_TILE / 16 ? 16 * channels : channels;
  while (by->wide <= FN_TILE / 16) by->wide *= 2;
  for (int64_t j = channels; j < by->wide; j++) {
    by->center[j] = by->center[j - channels];
    by->center_lo[j] = by->center_lo[j - channels];
    by->factor[j] = by->factor[j - channels];
    by->wide_center[j] = by->wide_center[j - channels];
    by->wide_center_lo[j] = by->wide_center_lo[j - channels];
    by->wide_factor[j] = by->wide_factor[j - channels];
  }
}

/* ---- runs of one channel, or of whole pixels --------------------------------------------------------------------- */

#define fn_mix(x, center, center_lo, factor, quotients)                                                                \
  ((quotients) ? (x) * (center) + (x) * (center_lo) : (((x) - (center)) - (center_lo)) * (factor))

#define FN_MIX_RUN(name, type)                                                                                         \
  FN_INLINE void name##_of(float *restrict to, const type *restrict x, int64_t n, const fn_palette *by, int64_t c,     \
                           int along, int quotients) {                                                                 \
    const float *center = by->center + c, *center_lo = by->center_lo + c, *factor = by->factor + c;                    \
    for (int64_t i = 0, count; i < n; i += count) {                                                                    \
      count = along && n - i > by->wide ? by->wide : n - i;                                                            \
      for (int64_t j = 0; j < count; j++) {                                                                            \
        const float v = (float)x[i + j];                                                                               \
        to[i + j] = fn_mix(v, center[along * j], center_lo[along * j], factor[along * j], quotients);                  \
      }                                                                                                                \
    }                                                                                                                  \
  }                                                                                                                    \
  static void name(float *to, const type *x, int64_t n, const fn_palette *by, int64_t c, int along) {                  \
    if (along && by->quotients)                                                                                        \
      name##_of(to, x, n, by, 0, 1, 1);                                                                                \
    else if (along)                                                                                                    \
      name##_of(to, x, n, by, 0, 1, 0);                                                                                \
    else if (by->quotients)                                                                                            \
      name##_of(to, x, n, by, c, 0, 1);                                                                                \
    else                                                                                                               \
      name##_of(to, x, n, by, c, 0, 0);                                                                                \
  }
FN_MIX_RUN(fn_mix_bytes, uint8_t)
FN_MIX_RUN(fn_mix_words, uint16_t)
#undef FN_MIX_RUN

FN_INLINE void fn_mix_doubles_of(float *restrict to, const double *restrict x, int64_t n, const fn_palette *by,
                                 int64_t c, int along) {
  const double *center = by->wide_center + c, *center_lo = by->wide_center_lo + c, *factor = by->wide_factor + c;
  for (int64_t i = 0, count; i < n; i += count) {
    count = along && n - i > by->wide ? by->wide : n - i;
    for (int64_t j = 0; j < count; j++) {
      const float v = (float)(((x[i + j] - center[along * j]) - center_lo[along * j]) * factor[along * j]);
      to[i + j] = v == v ? v : __builtin_nanf("");
    }
  }
}

static void fn_mix_doubles(float *to, const double *x, int64_t n, const fn_palette *by, int64_t c, int along) {
  if (along)
    fn_mix_doubles_of(to, x, n, by, 0, 1);
  else
    fn_mix_doubles_of(to, x, n, by, c, 0);
}

/* Floats go where they belong: contiguous or not, as halves, past the cache. */
static void fn_deliver(const fn_job *job, char *y, int64_t step, const float *from, int64_t count, uint16_t *half) {
  const int dtype = job->array[FN_Y].dtype;
  if (dtype == FN_F32 && step == 4 && job->stream) {
    fn_stream(y, (const char *)from, 4 * count);
  } else if (dtype == FN_F32 && step == 4) {
    memcpy(y, from, 4 * (size_t)count);
  } else if (step == 2 && job->stream) {
    fn_narrow((char *)half, from, count, dtype);
    fn_stream(y, (const char *)half, 2 * count);
  } else {
    scatter_run_f32(y, from, count, step, dtype);
  }
}

/* Elements `x_step` apart: of channel c, or with `along` of all channels by turns from the first on. */
static void fn_picture_run(const fn_job *job, char *y, int64_t y_step, const char *x, int64_t x_step, int64_t n,
                           int64_t c, int along, fn_palette *by) {
  const fn_array *source = &job->array[FN_X], *target = &job->array[FN_Y];
  const int64_t most = along ? FN_TILE / by->wide * by->wide : FN_TILE;
  const int direct = target->dtype == FN_F32 && target->aligned && y_step == 4 && !job->stream;
  const int native = source->aligned && !source->swapped;
  for (int64_t at = 0, count; at < n; at += count, x += count * x_step, y += count * y_step) {
    count = n - at < most ? n - at : most;
    float *to = direct ? (float *)(void *)y : by->result;
    if (!by->in_float) {
      gather_run_f64(by->source, x, count, x_step, source->dtype, source->swapped);
      fn_mix_doubles(to, by->source, count, by, c, along);
    } else if (source->dtype == FN_U8) {
      uint8_t *bytes = (uint8_t *)by->source;
      if (x_step != 1) gather_run_u8(bytes, x, count, x_step, FN_U8, 0);
      fn_mix_bytes(to, x_step == 1 ? (const uint8_t *)x : bytes, count, by, c, along);
    } else {
      uint16_t *words = (uint16_t *)by->source;
      const int as_is = native && x_step == 2;
      if (!as_is) gather_run_u16(words, x, count, x_step, FN_U16, source->swapped);
      fn_mix_words(to, as_is ? (const uint16_t *)(const void *)x : words, count, by, c, along);
    }
    if (!direct) fn_deliver(job, y, y_step, to, count, by->half);
  }
}

/* ---- bytes of pixels become planes ------------------------------------------------------------------------------- */

#if defined(__x86_64__) && FN_VECTOR >= 32
#define FN_HAS_PIXELS 1
enum { FN_PIXELS = FN_VECTOR / 4, FN_PIXEL_BYTES = 4 };
typedef float fn_pixel_floats __attribute__((vector_size(FN_VECTOR), may_alias));
typedef float fn_loose_floats __attribute__((vector_size(FN_VECTOR), aligned(4), may_alias));

/* Pixels of at most four bytes, one after the other or the other way round. A 16-byte lane gets the bytes of four
 * pixels; picking every fourth number of a channel from it widens it to 32 bits on the way. */
typedef struct {
  int32_t lanes[FN_PIXELS];
  uint8_t pick[FN_PIXEL_BYTES][FN_VECTOR];
  int64_t step, size, reach; /* from pixel to pixel, without its sign, and from the first byte of a block to its last */
} fn_pixels;

/* False where pixels are wider, or channels are not bytes of one pixel. `offset` has one entry per channel. */
static int fn_map_pixels(fn_pixels *by, const int64_t *offset, int64_t channels, int64_t step) {
  const int64_t size = step < 0 ? -step : step;
  int64_t last = 0;
  for (int64_t c = 0; c < channels; c++) last = offset[c] > last ? offset[c] : last;
  if (last >= size || size > FN_PIXEL_BYTES) return 0;
  by->step = step;
  by->size = size;
  by->reach = (FN_PIXELS - 1) * size + last + 1;
  for (int i = 0; i < FN_PIXELS; i++) {
    const int lane = step < 0 ? FN_PIXELS / 4 - 1 - i / 4 : i / 4;
    by->lanes[i] = (int32_t)((lane * size + i % 4) % FN_PIXELS);
  }
  memset(by->pick, 0x80, sizeof by->pick); /* picks 0 */
  for (int64_t c = 0; c < channels; c++)
    for (int i = 0; i < FN_PIXELS; i++)
      by->pick[c][4 * i] = (uint8_t)((step < 0 ? 3 - i % 4 : i % 4) * size + offset[c]);
  return 1;
}

#if FN_VECTOR == 64
typedef __m512i fn_pixel_bytes;
static inline fn_pixel_bytes fn_load_pixels(const uint8_t *x, const fn_pixels *by) {
  const __m512i bytes = _mm512_maskz_loadu_epi8(~0ull >> (64 - by->reach), x);
  return _mm512_permutexvar_epi32(_mm512_loadu_si512(by->lanes), bytes);
}
static inline fn_pixel_floats fn_pick_channel(fn_pixel_bytes bytes, fn_pixel_bytes pick) {
  return _mm512_cvtepi32_ps(_mm512_shuffle_epi8(bytes, pick));
}
#else
typedef __m256i fn_pixel_bytes;
static inline fn_pixel_bytes fn_load_pixels(const uint8_t *x, const fn_pixels *by) { /* up to 3 bytes too many */
  const __m256i mask =
      _mm256_cmpgt_epi32(_mm256_set1_epi32((int)(by->reach + 3) / 4), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  const __m256i bytes = _mm256_maskload_epi32((const int *)(const void *)x, mask);
  return _mm256_permutevar8x32_epi32(bytes, _mm256_loadu_si256((const __m256i *)(const void *)by->lanes));
}
static inline fn_pixel_floats fn_pick_channel(fn_pixel_bytes bytes, fn_pixel_bytes pick) {
  return _mm256_cvtepi32_ps(_mm256_shuffle_epi8(bytes, pick));
}
#endif

FN_INLINE void fn_mix_pixels_of(float *const *to, const uint8_t *x, int64_t n, const fn_pixels *map,
                                const fn_palette *by, int channels, int quotients, int past_cache) {
  const fn_pixels pixels = *map;
  const fn_pixel_floats none = {0};
  fn_pixel_floats center[FN_PIXEL_BYTES], center_lo[FN_PIXEL_BYTES], factor[FN_PIXEL_BYTES];
  fn_pixel_bytes pick[FN_PIXEL_BYTES];
  float *y[FN_PIXEL_BYTES];
  for (int c = 0; c < channels; c++) {
    center[c] = none + by->center[c];
    center_lo[c] = none + by->center_lo[c];
    factor[c] = none + by->factor[c];
    memcpy(&pick[c], pixels.pick[c], sizeof pick[c]);
    y[c] = to[c];
  }
  const uint8_t *first = pixels.step < 0 ? x + (FN_PIXELS - 1) * pixels.step : x;
  const int64_t stride = FN_PIXELS * pixels.step;
  for (int64_t i = 0; i < n; i += FN_PIXELS, first += stride) {
    const fn_pixel_bytes bytes = fn_load_pixels(first, &pixels);
    for (int c = 0; c < channels; c++) {
      const fn_pixel_floats v = fn_pick_channel(bytes, pick[c]);
      const fn_pixel_floats mixed = fn_mix(v, center[c], center_lo[c], factor[c], quotients);
      if (past_cache)
        fn_store_past_cache(y[c] + i, &mixed);
      else
        *(fn_loose_floats *)(void *)(y[c] + i) = mixed;
    }
  }
}

/* n is a multiple of FN_PIXELS. */
static void fn_mix_pixels(float *const *to, const uint8_t *x, int64_t n, const fn_pixels *map, const fn_palette *by,
                          int64_t channels, int past_cache) {
  switch (channels << 2 | (by->quotients << 1) | past_cache) {
#define FN_CASE(channels, quotients, past_cache)                                                                       \
  case (channels) << 2 | (quotients) << 1 | (past_cache):                                                              \
    fn_mix_pixels_of(to, x, n, map, by, channels, quotients, past_cache);                                              \
    break;
#define FN_CASES(channels)                                                                                             \
  FN_CASE(channels, 0, 0)                                                                                              \
  FN_CASE(channels, 0, 1)                                                                                              \
  FN_CASE(channels, 1, 0)                                                                                              \
  FN_CASE(channels, 1, 1)
    FN_CASES(1)
    FN_CASES(2)
    FN_CASES(3)
    FN_CASES(4)
#undef FN_CASES
#undef FN_CASE
  }
}

/* Fewer than a block, or one at an edge of what may be read. */
static void fn_mix_few_pixels(float *const *to, const uint8_t *x, int64_t n, const fn_pixels *map, const fn_palette *by,
                              int64_t channels) {
  uint8_t block[FN_VECTOR] = {0};
  float room[FN_PIXEL_BYTES][FN_PIXELS], *const rooms[] = {room[0], room[1], room[2], room[3]};
  const int64_t size = map->size, left_out = (FN_PIXELS - n) * size;
  const int backwards = map->step < 0;
  memcpy(block + (backwards ? left_out : 0), backwards ? x + (n - 1) * map->step : x, (size_t)(map->reach - left_out));
  fn_mix_pixels(rooms, backwards ? block + (FN_PIXELS - 1) * size : block, FN_PIXELS, map, by, channels, 0);
  for (int64_t c = 0; c < channels; c++) memcpy(to[c], room[c], (size_t)n * sizeof(float));
}

/* Pixels of all channels to planes. Whole blocks go to aligned memory of the first plane; past the cache where that is
 * aligned memory of all. */
static void fn_mix_planes(float *const *to, const uint8_t *x, int64_t n, const fn_pixels *map, const fn_palette *by,
                          int64_t channels, int past_cache) {
  const int loose = FN_VECTOR == 32 && map->reach % 4; /* a load reads a little more than it should */
  const int64_t misplaced = (int64_t)((-(uintptr_t)to[0] & 63) / sizeof(float));
  int64_t i = misplaced || !loose ? misplaced % FN_PIXELS : FN_PIXELS;
  float *at[FN_PIXEL_BYTES];
  i = i < n ? i : n;
  if (i) fn_mix_few_pixels(to, x, i, map, by, channels);
  for (int64_t c = 0; c < channels; c++) at[c] = to[c] + i;
  const int64_t whole = (n - i - (loose ? 1 : 0)) / FN_PIXELS * FN_PIXELS;
  if (whole > 0) {
    fn_mix_pixels(at, x + i * map->step, whole, map, by, channels, past_cache);
    i += whole;
  }
  for (int64_t c = 0; c < channels; c++) at[c] = to[c] + i;
  if (i < n) fn_mix_few_pixels(at, x + i * map->step, n - i, map, by, channels);
}
#endif

/* ---- pictures ---------------------------------------------------------------------------------------------------- */

/* Where channel c of y stands in a pixel of x. */
static inline int64_t fn_swapped(const fn_job *job, int64_t c) { return job->swap && c < 3 ? 2 - c : c; }
static inline int64_t fn_channel_offset(const fn_job *job, int64_t c) {
  return fn_swapped(job, c) * job->inner.step[FN_X];
}

/* How a picture is walked. */
typedef struct {
  int along;     /* pixels of all channels follow each other in x and y alike */
  int in_pixels; /* x by whole pixels */
  int in_place;  /* and y by whole lines past the cache, or where floats can be stored */
  int past_cache;
  int64_t step[2], channel[2]; /* from pixel to pixel and from channel to channel, in x and y */
  int64_t first;               /* of the bytes of a pixel */
#if defined(FN_HAS_PIXELS)
  fn_pixels pixels;
#endif
} fn_walk;

static int64_t fn_size_of(int dtype) { return dtype == FN_U8 ? 1 : dtype == FN_F32 ? 4 : dtype == FN_F64 ? 8 : 2; }

static fn_walk fn_plan_walk(const fn_job *job) {
  const int64_t channels = job->inner.size;
  const int64_t x_size = fn_size_of(job->array[FN_X].dtype), y_size = fn_size_of(job->array[FN_Y].dtype);
  fn_walk walk = {.step = {fn_step(job, FN_X), fn_step(job, FN_Y)},
                  .channel = {job->inner.step[FN_X], job->inner.step[FN_Y]}};
  walk.along = channels > 1 && !job->swap && walk.channel[0] == x_size && walk.channel[1] == y_size &&
               walk.step[0] == channels * x_size && walk.step[1] == channels * y_size;
  return walk;
}

#if defined(FN_HAS_PIXELS)
static void fn_plan_pixels(const fn_job *job, const fn_palette *by, fn_walk *walk) {
  const fn_array *y = &job->array[FN_Y];
  const int64_t channels = job->inner.size;
  const int congruent = walk->channel[1] % 64 == 0 || channels == 1;
  int64_t offset[FN_PIXEL_BYTES];
  if (job->array[FN_X].dtype != FN_U8 || !by->in_float || walk->along || channels > FN_PIXEL_BYTES ||
      walk->step[0] == 1 || walk->step[1] != fn_size_of(y->dtype))
    return;
  for (int64_t c = 0; c < channels; c++) offset[c] = fn_channel_offset(job, c);
  for (int64_t c = 0; c < channels; c++) walk->first = offset[c] < walk->first ? offset[c] : walk->first;
  for (int64_t c = 0; c < channels; c++) offset[c] -= walk->first;
  walk->in_pixels = fn_map_pixels(&walk->pixels, offset, channels, walk->step[0]);
  walk->in_place = y->dtype == FN_F32 && y->aligned && (!job->stream || congruent);
  walk->past_cache = job->stream && congruent;
}
#endif

/* Pixels that lie one step apart in x and y. */
static void fn_picture_pixels(const fn_job *job, char *y, const char *x, int64_t n, const fn_walk *walk,
                              fn_palette *by) {
  const int64_t channels = job->inner.size;
  if (walk->along) {
    fn_picture_run(job, y, walk->channel[1], x, walk->channel[0], n * channels, 0, 1, by);
    return;
  }
#if defined(FN_HAS_PIXELS)
  if (walk->in_pixels) {
    const int64_t most = walk->in_place ? n : FN_TILE / FN_PIXEL_BYTES;
    float *to[FN_PIXEL_BYTES];
    for (int64_t at = 0, count; at < n; at += count) {
      count = n - at < most ? n - at : most;
      for (int64_t c = 0; c < channels; c++)
        to[c] = walk->in_place ? (float *)(void *)(y + c * walk->channel[1]) : by->result + c * most;
      fn_mix_planes(to, (const uint8_t *)x + walk->first + at * walk->step[0], count, &walk->pixels, by, channels,
                    walk->in_place && walk->past_cache);
      for (int64_t c = 0; c < channels && !walk->in_place; c++)
        fn_deliver(job, y + c * walk->channel[1] + at * walk->step[1], walk->step[1], to[c], count, by->half);
    }
    return;
  }
#endif
  /* A channel after the other, while its pixels are in the cache. */
  const int64_t wide = walk->step[0] < 0 ? -walk->step[0] : walk->step[0];
  int64_t most = wide > 4 ? FN_TILE * 4 / wide : FN_TILE;
  most = most < FN_SHORT ? FN_SHORT : most;
  for (int64_t at = 0, count; at < n; at += count) {
    count = n - at < most ? n - at : most;
    for (int64_t c = 0; c < channels; c++)
      fn_picture_run(job, y + c * walk->channel[1] + at * walk->step[1], walk->step[1],
                     x + fn_channel_offset(job, c) + at * walk->step[0], walk->step[0], count, c, 0, by);
  }
}

/* The way back, of one channel. What is stored as an integer is rounded to nearest even within its range; NaN is 0. */
static void fn_restore_run(const fn_job *job, char *y, int64_t y_step, const char *x, int64_t x_step, int64_t n,
                           double center, double factor, fn_palette *by) {
  const fn_array *source = &job->array[FN_X], *target = &job->array[FN_Y];
  const double most = job->most, ties = 0x1.8p52;
  double *restrict values = by->source;
  uint16_t *restrict words = by->half;
  for (int64_t at = 0, count; at < n; at += count, x += count * x_step, y += count * y_step) {
    count = n - at < FN_TILE ? n - at : FN_TILE;
    gather_run_f64(values, x, count, x_step, source->dtype, source->swapped);
    if (target->dtype == FN_U8 || target->dtype == FN_U16) {
      for (int64_t i = 0; i < count; i++) {
        double v = values[i] * factor + center;
        v = v > 0 ? v : 0;
        v = (v < most ? v : most) + ties;
        uint64_t bits;
        memcpy(&bits, &v, sizeof bits);
        words[i] = (uint16_t)bits;
      }
      for (int64_t i = 0; i < count && target->dtype == FN_U8; i++) y[i * y_step] = (char)words[i];
      for (int64_t i = 0; i < count && target->dtype == FN_U16; i++) memcpy(y + i * y_step, words + i, sizeof *words);
    } else {
      for (int64_t i = 0; i < count; i++) {
        const float v = (float)(values[i] * factor + center);
        by->result[i] = v == v ? v : __builtin_nanf("");
      }
      fn_deliver(job, y, y_step, by->result, count, by->half);
    }
  }
}

static void fn_restore_pixels(const fn_job *job, char *y, const char *x, int64_t n, const fn_walk *walk,
                              fn_palette *by) {
  for (int64_t at = 0, count; at < n; at += count) {
    count = n - at < FN_TILE / 4 ? n - at : FN_TILE / 4;
    for (int64_t c = 0; c < job->inner.size; c++)
      fn_restore_run(job, y + fn_swapped(job, c) * walk->channel[1] + at * walk->step[1], walk->step[1],
                     x + c * walk->channel[0] + at * walk->step[0], walk->step[0], count, by->wide_center[c],
                     by->wide_factor[c], by);
  }
}

static void fn_pictures(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  fn_palette *by = scratch;
  const int64_t chunks = (job->n + job->chunk - 1) / job->chunk;
  fn_fill_palette(job, by);
  fn_walk walk = fn_plan_walk(job);
  if (walk.along) fn_repeat_palette(by, job->inner.size);
#if defined(FN_HAS_PIXELS)
  fn_plan_pixels(job, by, &walk);
#endif
  for (int64_t unit = lo; unit < hi; unit++) {
    const int64_t start = unit % chunks * job->chunk, end = job->n - start < job->chunk ? job->n : start + job->chunk;
    const char *x = fn_base(job, FN_X, unit / chunks, 0);
    char *y = fn_base(job, FN_Y, unit / chunks, 0);
    for (int64_t at = start, count; at < end; at += count) {
      const fn_run from = fn_next_run(job, FN_X, at, end - at), to = fn_next_run(job, FN_Y, at, from.count);
      count = to.count;
      (job->inverse ? fn_restore_pixels : fn_picture_pixels)(job, y + to.offset, x + from.offset, count, &walk, by);
    }
  }
  fn_stream_end();
}
