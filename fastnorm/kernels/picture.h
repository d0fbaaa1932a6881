/* Pictures: stored pixels become normalized floats, and floats become pixels.
 *
 *     y = ((x - center) - center_lo) * factor          inverse: y = x * factor + center
 *
 * Constants of each channel are folded from mean, std and scale by the door. Where x and y keep the order of their
 * numbers, lines go straight through. Otherwise planes of channels stand between the two, in the cache unless y is made
 * of them. There is nothing to sum: how pixels are brought together decides no bit.
 */

/* How pixels of x (0) become pixels of y (1). */
typedef struct {
  int64_t step[2], channel[2]; /* from pixel to pixel and from channel to channel */
  int packed[2];               /* the channels of a pixel, and pixels, are side by side */
  int through;                 /* in x and y alike */
  int along;                   /* numbers of all channels are computed by turns */
  int few;                     /* so few channels that planes of all are worked on together */
  int direct;                  /* planes of y are written where they belong */
#if defined(FN_HAS_PIXELS)
  int in_bytes;   /* x is read by whole pixels */
  int past_cache; /* and written past the cache */
  int64_t first;  /* of the bytes of a pixel */
  fn_pixels pixels;
#endif
} fn_picture_plan;

#if defined(FN_HAS_PIXELS)
static void fn_plan_bytes(const fn_job *job, const fn_picture_scratch *by, fn_picture_plan *plan) {
  const fn_array *y = &job->array[FN_Y];
  const int64_t channels = job->inner.size, channel = plan->channel[0];
  int64_t offset[FN_PIXEL_CHANNELS];
  if (job->array[FN_X].dtype != FN_U8 || !by->in_float || channels > FN_PIXEL_CHANNELS || plan->step[0] == 1) return;
  plan->first = channel < 0 ? (channels - 1) * channel : 0;
  for (int64_t j = 0; j < channels; j++) offset[j] = j * channel - plan->first;
  plan->in_bytes = fn_map_pixels(&plan->pixels, offset, channels, plan->step[0]);
  plan->past_cache = plan->in_bytes && job->stream && y->dtype == FN_F32 && y->aligned && plan->step[1] == 4 &&
                     (plan->channel[1] % 64 == 0 || channels == 1);
  plan->few |= plan->in_bytes;
  plan->along &= !plan->in_bytes;
  plan->direct |= plan->past_cache;
}
#endif

static fn_picture_plan fn_plan_picture(const fn_job *job, const fn_picture_scratch *by) {
  const int64_t channels = job->inner.size;
  fn_picture_plan plan = {.step = {fn_step(job, FN_X), fn_step(job, FN_Y)},
                          .channel = {job->inner.step[FN_X], job->inner.step[FN_Y]}};
  for (int k = 0; k < 2; k++) {
    const int64_t size = fn_size_of(job->array[k ? FN_Y : FN_X].dtype);
    plan.packed[k] = channels > 1 && plan.channel[k] == size && plan.step[k] == channels * size;
  }
  plan.through = plan.packed[0] && plan.packed[1] && !job->swap;
  plan.few = channels > 1 && channels <= FN_PIXEL_CHANNELS;
  plan.direct = fn_is_direct(job, plan.step[1]);
  plan.along = plan.through || (plan.few && plan.packed[0]);
#if defined(FN_HAS_PIXELS)
  if (!plan.through) fn_plan_bytes(job, by, &plan);
#endif
  (void)by;
  return plan;
}

/* Pixels whose order of numbers stays. */
static void fn_standardize_through(const fn_job *job, char *y, const char *x, int64_t n, const fn_picture_plan *plan,
                                   fn_picture_scratch *by) {
  const int64_t count = n * job->inner.size, most = FN_TILE / by->wide * by->wide;
  const int direct = fn_is_direct(job, plan->channel[1]);
  for (int64_t at = 0, part; at < count; at += part) {
    char *to = y + at * plan->channel[1];
    float *line = direct ? (float *)(void *)to : by->flat;
    part = count - at < most ? count - at : most;
    fn_standardize_line(job, line, x + at * plan->channel[0], plan->channel[0], part, by, 0, 1);
    if (!direct) fn_store_line(job, to, plan->channel[1], line, part, by->stored);
  }
}

/* A channel after the other, while its pixels are in the cache. */
static void fn_standardize_channels(const fn_job *job, char *y, const char *x, int64_t n, const fn_picture_plan *plan,
                                    fn_picture_scratch *by) {
  const int64_t wide = plan->step[0] < 0 ? -plan->step[0] : plan->step[0];
  int64_t most = wide > 4 ? FN_TILE * 4 / wide : FN_TILE;
  most = most < FN_SHORT ? FN_SHORT : most;
  for (int64_t at = 0, count; at < n; at += count) {
    count = n - at < most ? n - at : most;
    for (int64_t j = 0; j < job->inner.size; j++) {
      char *to = y + j * plan->channel[1] + at * plan->step[1];
      float *line = plan->direct ? (float *)(void *)to : by->flat;
      fn_standardize_line(job, line, x + j * plan->channel[0] + at * plan->step[0], plan->step[0], count, by, j, 0);
      if (!plan->direct) fn_store_line(job, to, plan->step[1], line, count, by->stored);
    }
  }
}

/* At most FN_PICTURE_TILE pixels of few channels to planes, which stand in the order of x. */
static void fn_standardize_few(const fn_job *job, float *const *to, const char *x, int64_t n,
                               const fn_picture_plan *plan, fn_picture_scratch *by) {
  const int64_t channels = job->inner.size;
#if defined(FN_HAS_PIXELS)
  if (plan->in_bytes) {
    fn_standardize_planes(to, (const uint8_t *)x + plan->first, n, &plan->pixels, by, channels, plan->past_cache);
    return;
  }
#endif
  if (plan->along) {
    fn_standardize_line(job, by->flat, x, plan->channel[0], n * channels, by, 0, 1);
    fn_deinterleave(to, by->flat, n, channels);
    return;
  }
  for (int64_t j = 0; j < channels; j++)
    fn_standardize_line(job, to[j], x + j * plan->channel[0], plan->step[0], n, by, j, 0);
}

/* Planes to where they belong, in the order of y. */
static void fn_store_planes(const fn_job *job, char *y, const float *const *from, int64_t n,
                            const fn_picture_plan *plan, fn_picture_scratch *by) {
  const int64_t channels = job->inner.size;
  if (plan->packed[1]) {
    const int direct = fn_is_direct(job, plan->channel[1]);
    float *line = direct ? (float *)(void *)y : by->flat;
    fn_interleave(line, from, n, channels);
    if (!direct) fn_store_line(job, y, plan->channel[1], line, n * channels, by->stored);
    return;
  }
  for (int64_t c = 0; c < channels; c++)
    fn_store_line(job, y + c * plan->channel[1], plan->step[1], from[c], n, by->stored);
}

#if defined(FN_HAS_PIXELS)
/* Planes of floats to packed bytes; returns how many pixels are done, from the first on. */
static int64_t fn_restore_bytes(const fn_job *job, char *y, const char *x, int64_t n, const fn_picture_plan *plan,
                                const fn_picture_scratch *by) {
  const fn_array *from = &job->array[FN_X];
  const float *planes[FN_PIXEL_CHANNELS] = {0};
  int64_t place[FN_PIXEL_CHANNELS] = {0};
  if (!job->inverse || !plan->few || !plan->packed[1] || job->array[FN_Y].dtype != FN_U8 || from->dtype != FN_F32 ||
      from->swapped || !from->aligned || plan->step[0] != 4)
    return 0;
  for (int64_t j = 0; j < job->inner.size; j++) {
    planes[j] = (const float *)(const void *)(x + j * plan->channel[0]);
    place[j] = fn_swapped(job, j);
  }
  return fn_restore_pixels((uint8_t *)y, planes, n, by, place, job->inner.size);
}
#endif

/* Pixels that lie one step apart in x and y. */
static void fn_standardize_picture(const fn_job *job, char *y, const char *x, int64_t n, const fn_picture_plan *plan,
                                   fn_picture_scratch *by) {
  if (plan->through) {
    fn_standardize_through(job, y, x, n, plan, by);
    return;
  }
  if (!plan->few) {
    fn_standardize_channels(job, y, x, n, plan, by);
    return;
  }
  int64_t most = FN_PICTURE_TILE, at = 0;
#if defined(FN_HAS_PIXELS)
  at = fn_restore_bytes(job, y, x, n, plan, by);
  if (plan->in_bytes && plan->direct) most = n;
#endif
  for (int64_t count; at < n; at += count) {
    char *to = y + at * plan->step[1];
    float *planes[FN_PIXEL_CHANNELS] = {0}, *in_order[FN_PIXEL_CHANNELS] = {0};
    count = n - at < most ? n - at : most;
    for (int64_t c = 0; c < job->inner.size; c++)
      planes[c] = plan->direct ? (float *)(void *)(to + c * plan->channel[1]) : by->planes + c * FN_PICTURE_TILE;
    for (int64_t j = 0; j < job->inner.size; j++) in_order[j] = planes[fn_swapped(job, j)];
    fn_standardize_few(job, in_order, x + at * plan->step[0], count, plan, by);
    if (!plan->direct) fn_store_planes(job, to, (const float *const *)planes, count, plan, by);
  }
}

static void fn_pictures(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  fn_picture_scratch *by = scratch;
  const int64_t chunks = (job->n + job->chunk - 1) / job->chunk;
  fn_fill_constants(job, by);
  const fn_picture_plan plan = fn_plan_picture(job, by);
  if (plan.along) fn_repeat_constants(by, job->inner.size);
  for (int64_t unit = lo; unit < hi; unit++) {
    const int64_t start = unit % chunks * job->chunk, end = job->n - start < job->chunk ? job->n : start + job->chunk;
    const char *x = fn_base(job, FN_X, unit / chunks, 0);
    char *y = fn_base(job, FN_Y, unit / chunks, 0);
    for (int64_t at = start, count; at < end; at += count) {
      const fn_run from = fn_next_run(job, FN_X, at, end - at), to = fn_next_run(job, FN_Y, at, from.count);
      count = to.count;
      fn_standardize_picture(job, y + to.offset, x + from.offset, count, &plan, by);
    }
  }
  fn_stream_end();
}
