/* Pixels of two to four channels, by shuffles: bytes to planes of floats, planes of floats to bytes, and floats between
 * planes and pixels. The arithmetic is that of picture_lines.h, operation by operation, so bits are the same as there;
 * compilers make no such code of loops (in cache, 54 us of plain loops became 6).
 */
enum { FN_PIXEL_CHANNELS = 4 };

/* Calls what takes the number of channels last, as a constant to the compiler. */
#define FN_BY_CHANNELS(function, channels, ...)                                                                        \
  do {                                                                                                                 \
    if ((channels) == 2)                                                                                               \
      function(__VA_ARGS__, 2);                                                                                        \
    else if ((channels) == 3)                                                                                          \
      function(__VA_ARGS__, 3);                                                                                        \
    else                                                                                                               \
      function(__VA_ARGS__, 4);                                                                                        \
  } while (0)

#if defined(__x86_64__) && FN_VECTOR >= 32
#define FN_HAS_PIXELS 1
enum { FN_PIXELS = FN_VECTOR / 4 };

/* ---- bytes of pixels to planes of floats ------------------------------------------------------------------------- */

typedef float fn_pixel_floats __attribute__((vector_size(FN_VECTOR), may_alias));
typedef float fn_loose_floats __attribute__((vector_size(FN_VECTOR), aligned(4), may_alias));

/* Pixels of at most four bytes, one after the other or the other way round. A 16-byte lane gets the bytes of four
 * pixels; picking every fourth number of a channel from it widens it to 32 bits on the way. */
typedef struct {
  int32_t lanes[FN_PIXELS];
  uint8_t pick[FN_PIXEL_CHANNELS][FN_VECTOR];
  int64_t step, size, reach; /* from pixel to pixel, without its sign, and from the first byte of a block to its last */
} fn_pixels;

/* False where pixels are wider, or channels are not bytes of one pixel. `offset` has one entry per channel. */
static int fn_map_pixels(fn_pixels *by, const int64_t *offset, int64_t channels, int64_t step) {
  const int64_t size = step < 0 ? -step : step;
  int64_t last = 0;
  for (int64_t c = 0; c < channels; c++) last = offset[c] > last ? offset[c] : last;
  if (last >= size || size > FN_PIXEL_CHANNELS) return 0;
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

/* Blocks from the first pixel on, the second one `ahead`, all others side by side, the last one as far back as it must.
 * n is not less than FN_PIXELS; past the cache it is a multiple of it. */
FN_INLINE void fn_standardize_pixels_of(float *const *to, const uint8_t *x, int64_t n, int64_t ahead,
                                        const fn_pixels *map, const fn_picture_scratch *by, int channels, int quotients,
                                        int past_cache) {
  const fn_pixels pixels = *map;
  const fn_pixel_floats none = {0};
  const int64_t last = n - FN_PIXELS, back = pixels.step < 0 ? (FN_PIXELS - 1) * pixels.step : 0;
  fn_pixel_floats center[FN_PIXEL_CHANNELS], rest[FN_PIXEL_CHANNELS], factor[FN_PIXEL_CHANNELS];
  fn_pixel_bytes pick[FN_PIXEL_CHANNELS];
  float *y[FN_PIXEL_CHANNELS];
  for (int c = 0; c < channels; c++) {
    center[c] = none + by->center[c];
    rest[c] = none + by->rest[c];
    factor[c] = none + by->factor[c];
    memcpy(&pick[c], pixels.pick[c], sizeof pick[c]);
    y[c] = to[c];
  }
  for (int64_t i = 0, next = ahead;; next += FN_PIXELS) {
    const fn_pixel_bytes bytes = fn_load_pixels(x + i * pixels.step + back, &pixels);
    for (int c = 0; c < channels; c++) {
      const fn_pixel_floats v = fn_pick_channel(bytes, pick[c]);
      const fn_pixel_floats result = FN_STANDARDIZE(v, center[c], rest[c], factor[c], quotients);
      if (past_cache)
        fn_store_past_cache(y[c] + i, &result);
      else
        *(fn_loose_floats *)(void *)(y[c] + i) = result;
    }
    if (i == last) return;
    i = next < last ? next : last;
  }
}

static void fn_standardize_pixels(float *const *to, const uint8_t *x, int64_t n, int64_t ahead, const fn_pixels *map,
                                  const fn_picture_scratch *by, int64_t channels, int past_cache) {
  switch (channels << 2 | (by->quotients << 1) | past_cache) {
#define FN_CASE(channels, quotients, past_cache)                                                                       \
  case (channels) << 2 | (quotients) << 1 | (past_cache):                                                              \
    fn_standardize_pixels_of(to, x, n, ahead, map, by, channels, quotients, past_cache);                               \
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
static void fn_standardize_few_pixels(float *const *to, const uint8_t *x, int64_t n, const fn_pixels *map,
                                      const fn_picture_scratch *by, int64_t channels) {
  uint8_t block[FN_VECTOR] = {0};
  float room[FN_PIXEL_CHANNELS][FN_PIXELS], *const rooms[] = {room[0], room[1], room[2], room[3]};
  const int64_t size = map->size, left_out = (FN_PIXELS - n) * size;
  const int backwards = map->step < 0;
  memcpy(block + (backwards ? left_out : 0), backwards ? x + (n - 1) * map->step : x, (size_t)(map->reach - left_out));
  fn_standardize_pixels(rooms, backwards ? block + (FN_PIXELS - 1) * size : block, FN_PIXELS, FN_PIXELS, map, by,
                        channels, 0);
  for (int64_t c = 0; c < channels; c++) memcpy(to[c], room[c], (size_t)n * sizeof(float));
}

/* Pixels of all channels to planes. Blocks go to aligned memory of the first plane; past the cache only where that is
 * aligned memory of all. */
static void fn_standardize_planes(float *const *to, const uint8_t *x, int64_t n, const fn_pixels *map,
                                  const fn_picture_scratch *by, int64_t channels, int past_cache) {
  const int loose = FN_VECTOR == 32 && map->reach % 4; /* a load reads a little more than it should */
  const int64_t misplaced = (int64_t)((-(uintptr_t)to[0] & (FN_VECTOR - 1)) / sizeof(float));
  const int64_t ahead = misplaced ? misplaced : FN_PIXELS;
  if (n >= FN_PIXELS && !loose && !past_cache) {
    fn_standardize_pixels(to, x, n, ahead, map, by, channels, 0);
    return;
  }
  const int64_t head = loose ? ahead : misplaced, first = head < n ? head : n;
  const int64_t whole = (n - first - loose) / FN_PIXELS * FN_PIXELS,
                parts[] = {0, first, first + (whole > 0 ? whole : 0), n};
  for (int k = 0; k < 3; k++) {
    const int64_t from = parts[k], count = parts[k + 1] - from;
    float *at[FN_PIXEL_CHANNELS] = {0};
    for (int64_t c = 0; c < channels; c++) at[c] = to[c] + from;
    if (count > 0 && k == 1)
      fn_standardize_pixels(at, x + from * map->step, count, FN_PIXELS, map, by, channels, past_cache);
    else if (count > 0)
      fn_standardize_few_pixels(at, x + from * map->step, count, map, by, channels);
  }
}

/* ---- floats ------------------------------------------------------------------------------------------------------ */

/* Vectors of as many pixels as lanes: which lane of which one goes where. */
typedef struct {
  int32_t from[FN_PIXEL_CHANNELS][FN_PIXEL_CHANNELS][FN_PIXELS];   /* of a result: in each source, the lane of each */
  uint32_t taken[FN_PIXEL_CHANNELS][FN_PIXEL_CHANNELS][FN_PIXELS]; /* all ones where it comes from that source */
} fn_shuffles;

/* To planes: element f = lane * channels + result of the sources in a row. With `interleaves` the other way round. */
static void fn_map_shuffles(fn_shuffles *by, int64_t channels, int interleaves) {
  for (int64_t r = 0; r < channels; r++)
    for (int64_t s = 0; s < channels; s++)
      for (int64_t i = 0; i < FN_PIXELS; i++) {
        const int64_t f = interleaves ? r * FN_PIXELS + i : i * channels + r;
        const int64_t source = interleaves ? f % channels : f / FN_PIXELS;
        const int64_t lane = interleaves ? f / channels : f % FN_PIXELS;
        by->from[r][s][i] = (int32_t)lane;
        by->taken[r][s][i] = source == s ? ~0u : 0;
      }
}

typedef uint32_t fn_lanes __attribute__((vector_size(FN_VECTOR), may_alias));

static inline fn_pixel_floats fn_shuffle_one(fn_pixel_floats source, fn_lanes from) {
#if FN_VECTOR == 64
  return _mm512_permutexvar_ps((__m512i)from, source);
#else
  return _mm256_permutevar8x32_ps(source, (__m256i)from);
#endif
}

FN_INLINE void fn_shuffle_pixels_of(float *const *to, const float *const *x, int64_t to_step, int64_t x_step, int64_t n,
                                    const fn_shuffles *by, int channels) {
  fn_lanes from[FN_PIXEL_CHANNELS][FN_PIXEL_CHANNELS], taken[FN_PIXEL_CHANNELS][FN_PIXEL_CHANNELS];
  for (int r = 0; r < channels; r++) {
    memcpy(from[r], by->from[r], sizeof from[r]);
    memcpy(taken[r], by->taken[r], sizeof taken[r]);
  }
  for (int64_t i = 0; i + FN_PIXELS <= n; i += FN_PIXELS) {
    fn_pixel_floats sources[FN_PIXEL_CHANNELS];
    for (int s = 0; s < channels; s++) sources[s] = *(const fn_loose_floats *)(const void *)(x[s] + i * x_step);
    for (int r = 0; r < channels; r++) {
      fn_lanes all = {0};
      for (int s = 0; s < channels; s++) all |= (fn_lanes)fn_shuffle_one(sources[s], from[r][s]) & taken[r][s];
      *(fn_loose_floats *)(void *)(to[r] + i * to_step) = (fn_pixel_floats)all;
    }
  }
}

/* Whole vectors of n pixels; returns how many pixels these are. */
static int64_t fn_shuffle_pixels(float *const *to, const float *const *x, int64_t to_step, int64_t x_step, int64_t n,
                                 int64_t channels, int interleaves) {
  fn_shuffles by;
  fn_map_shuffles(&by, channels, interleaves);
  FN_BY_CHANNELS(fn_shuffle_pixels_of, channels, to, x, to_step, x_step, n, &by);
  return n / FN_PIXELS * FN_PIXELS;
}

/* ---- planes of floats to bytes of pixels ------------------------------------------------------------------------- */

/* Four bytes per pixel, of which those of its channels move together. */
typedef struct {
  uint8_t pick[FN_VECTOR];
  uint32_t lanes[FN_PIXELS], stored[FN_PIXELS];
} fn_packing;

static void fn_map_packing(fn_packing *by, int channels) {
  for (int i = 0; i < FN_VECTOR; i++) {
    const int at = i % 16;
    by->pick[i] = at < 4 * channels ? (uint8_t)(at / channels * 4 + at % channels) : 0x80;
  }
  for (int i = 0; i < FN_PIXELS; i++) {
    by->lanes[i] = (uint32_t)((i / channels * 4 + i % channels) % FN_PIXELS);
    by->stored[i] = i < FN_PIXELS / 4 * channels ? ~0u : 0;
  }
}

/* x * factor + center to nearest, ties to even, within 0 and `most`; NaN is 0, as in fn_round_clip. */
#if FN_VECTOR == 64
static inline fn_lanes fn_restore_lanes(const float *x, double center, double factor, double most) {
  __m256i half[2];
  for (int k = 0; k < 2; k++) {
    const __m512d v = _mm512_cvtps_pd(_mm256_loadu_ps(x + 8 * k)) * _mm512_set1_pd(factor) + _mm512_set1_pd(center);
    half[k] = _mm512_cvtpd_epi32(_mm512_min_pd(_mm512_set1_pd(most), v)); /* NaN stays, and becomes the least int */
  }
  const __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(half[0]), half[1], 1);
  return (fn_lanes)_mm512_max_epi32(both, _mm512_setzero_si512());
}
static inline void fn_store_packed(uint8_t *to, fn_lanes pixels, const fn_packing *by) {
  const __m512i bytes = _mm512_shuffle_epi8((__m512i)pixels, _mm512_loadu_si512(by->pick));
  const __m512i packed = _mm512_permutexvar_epi32(_mm512_loadu_si512(by->lanes), bytes);
  _mm512_mask_storeu_epi32(to, _mm512_movepi32_mask(_mm512_loadu_si512(by->stored)), packed);
}
#else
static inline fn_lanes fn_restore_lanes(const float *x, double center, double factor, double most) {
  __m128i half[2];
  for (int k = 0; k < 2; k++) {
    const __m256d v = _mm256_cvtps_pd(_mm_loadu_ps(x + 4 * k)) * _mm256_set1_pd(factor) + _mm256_set1_pd(center);
    half[k] = _mm256_cvtpd_epi32(_mm256_min_pd(_mm256_set1_pd(most), v)); /* NaN stays, and becomes the least int */
  }
  return (fn_lanes)_mm256_max_epi32(_mm256_set_m128i(half[1], half[0]), _mm256_setzero_si256());
}
static inline void fn_store_packed(uint8_t *to, fn_lanes pixels, const fn_packing *by) {
  const __m256i pick = _mm256_loadu_si256((const __m256i *)(const void *)by->pick);
  const __m256i lanes = _mm256_loadu_si256((const __m256i *)(const void *)by->lanes);
  const __m256i packed = _mm256_permutevar8x32_epi32(_mm256_shuffle_epi8((__m256i)pixels, pick), lanes);
  _mm256_maskstore_epi32((int *)(void *)to, _mm256_loadu_si256((const __m256i *)(const void *)by->stored), packed);
}
#endif

FN_INLINE void fn_restore_pixels_of(uint8_t *to, const float *const *x, int64_t n, const fn_picture_scratch *by,
                                    const int64_t *place, int channels) {
  fn_packing packing;
  fn_map_packing(&packing, channels);
  for (int64_t i = 0; i + FN_PIXELS <= n; i += FN_PIXELS) {
    fn_lanes pixels = {0};
    for (int j = 0; j < channels; j++)
      pixels |= fn_restore_lanes(x[j] + i, by->wide_center[j], by->wide_factor[j], by->most)
                << (uint32_t)(8 * place[j]);
    fn_store_packed(to + i * channels, pixels, &packing);
  }
}

/* Whole vectors of n pixels; returns how many pixels these are. Plane j of x is byte place[j] of a pixel. */
static int64_t fn_restore_pixels(uint8_t *to, const float *const *x, int64_t n, const fn_picture_scratch *by,
                                 const int64_t *place, int64_t channels) {
  FN_BY_CHANNELS(fn_restore_pixels_of, channels, to, x, n, by, place);
  return n / FN_PIXELS * FN_PIXELS;
}
#endif

/* Pixels of two to four channels that lie side by side, from number i on, go to planes. */
FN_INLINE void fn_deinterleave_from(float *const *to, const float *restrict x, int64_t i, int64_t n, int channels) {
  float *restrict a = to[0], *restrict b = to[1], *restrict c = to[2], *restrict d = to[3];
  for (; i < n; i++) {
    a[i] = x[i * channels];
    b[i] = x[i * channels + 1];
    if (channels > 2) c[i] = x[i * channels + 2];
    if (channels > 3) d[i] = x[i * channels + 3];
  }
}

/* And back. */
FN_INLINE void fn_interleave_from(float *restrict to, const float *const *x, int64_t i, int64_t n, int channels) {
  const float *restrict a = x[0], *restrict b = x[1], *restrict c = x[2], *restrict d = x[3];
  for (; i < n; i++) {
    to[i * channels] = a[i];
    to[i * channels + 1] = b[i];
    if (channels > 2) to[i * channels + 2] = c[i];
    if (channels > 3) to[i * channels + 3] = d[i];
  }
}

static void fn_deinterleave(float *const *to, const float *x, int64_t n, int64_t channels) {
  int64_t i = 0;
#if defined(FN_HAS_PIXELS)
  const float *const rows[] = {x, x + FN_PIXELS, x + 2 * FN_PIXELS, x + 3 * FN_PIXELS};
  i = fn_shuffle_pixels(to, rows, 1, channels, n, channels, 0);
#endif
  FN_BY_CHANNELS(fn_deinterleave_from, channels, to, x, i, n);
}

static void fn_interleave(float *to, const float *const *x, int64_t n, int64_t channels) {
  int64_t i = 0;
#if defined(FN_HAS_PIXELS)
  float *const rows[] = {to, to + FN_PIXELS, to + 2 * FN_PIXELS, to + 3 * FN_PIXELS};
  i = fn_shuffle_pixels(rows, x, channels, 1, n, channels, 1);
#endif
  FN_BY_CHANNELS(fn_interleave_from, channels, to, x, i, n);
}
