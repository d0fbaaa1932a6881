/* Local response normalization, backward. With base as forward, of each channel,
 *
 *     dx = dy / base^beta - 2 alpha / size * beta * x * sum(dy * x / base^(beta + 1))
 *
 * where the sum is over the channels whose windows hold this one: a window turned about. All in double. What leaves its
 * range becomes NaN at first, and so does every sum it is part of; these elements go the careful way.
 */

/* ---- one channel ------------------------------------------------------------------------------------------------- */

/* slope = dy / base^beta, term = slope * x / base; by roots, or by powers that stand where the terms will. */
FN_INLINE void FN(respond_back_of)(double *slope, double *term, const T *x, const T *dy, const double *end,
                                   const double *begun, int64_t cols, double alpha, double k, double least, int kind) {
  const double none = __builtin_nan("");
  FN_IVDEP
  for (int64_t j = 0; j < cols; j++) {
    const double sum = end[j] + begun[j], base = k + alpha * sum, root = sqrt(base), v = (double)x[j];
    const double by_root = kind == FN_ONE ? base : kind == FN_ONE_HALF ? root : root * sqrt(root);
    const double d = kind == FN_ANY_BETA ? term[j] : by_root, g = (double)dy[j] / d;
    const double product = g * v / base, size = fabs(product);
    double lost = (double)dy[j] == 0 ? product : none;
    lost = v == 0 ? product : lost;
    double held = size >= 0x1p-900 ? product : lost;
    held = fabs(base) >= 0x1p-300 ? held : none;
    held = fabs(base) <= 0x1p+300 ? held : none;
    held = fabs(d) >= 0x1p-600 ? held : none;
    held = fabs(d) <= 0x1p+600 ? held : none;
    held = sum >= least ? held : none;
    slope[j] = g;
    term[j] = held;
  }
}

static void FN(respond_back)(const fn_job *job, double *slope, double *term, const T *x, const T *dy, const double *end,
                             const double *begun, int64_t cols) {
  const double alpha = job->alpha, k = job->k, least = FN_TYPE == FN_F64 ? fn_least_sum(job) : 0;
  const int kind = fn_response_kind(job);
  if (kind == FN_ANY_BETA) {
    for (int64_t j = 0; j < cols; j++) slope[j] = k + alpha * (end[j] + begun[j]);
    fn_powers(term, slope, cols, job->exponent);
  }
  switch (kind) {
#define FN_CASE(kind)                                                                                                  \
  case kind:                                                                                                           \
    FN(respond_back_of)(slope, term, x, dy, end, begun, cols, alpha, k, least, kind);                                  \
    break;
    FN_RESPONSE_KINDS(FN_CASE)
#undef FN_CASE
  }
}

/* ---- the careful way --------------------------------------------------------------------------------------------- */

static inline double FN(element)(const fn_job *job, int which, int64_t outer, int64_t j, int64_t channel) {
  T one = 0;
  return (double)*FN(load_channel)(job, which, outer, j, channel, 1, &one);
}

/* base of one channel, from memory. */
static int FN(careful_base_of)(const fn_job *job, int64_t outer, int64_t j, int64_t channel, T *window, fn_wide *base) {
  const int64_t first = channel < job->before ? 0 : channel - job->before;
  const int64_t last = channel + job->after < job->n ? channel + job->after : job->n - 1;
  for (int64_t i = first; i <= last; i++) window[i - first] = (T)FN(element)(job, FN_X, outer, j, i);
  return FN(careful_base)(job, window, 1, last - first + 1, base);
}

/* dx of one element. In every term of the sum, dy / base^beta meets alpha * x[i] * x / base, which is at most 1/2. */
static T FN(careful_back)(const fn_job *job, int64_t outer, int64_t j, int64_t channel, T *window) {
  const int64_t first = channel < job->after ? 0 : channel - job->after;
  const int64_t last = channel + job->before < job->n ? channel + job->before : job->n - 1;
  const double beta = job->exponent, x = FN(element)(job, FN_X, outer, j, channel);
  fn_wide total = {0, 0}, base;
  double plain = 0, none = 0;
  for (int64_t i = first; i <= last; i++) {
    const double dy = FN(element)(job, FN_Z, outer, j, i), v = FN(element)(job, FN_X, outer, j, i);
    const int finite = FN(careful_base_of)(job, outer, j, i, window, &base);
    if (finite && fn_finite(dy) && FN(has_power)(job, &base)) {
      const fn_wide slope = fn_wide_times(fn_wide_of(dy, 0), fn_wide_power(base, -beta));
      const fn_wide share = fn_wide_times(fn_wide_times(fn_wide_of(v, 0), fn_wide_of(x, 0)), fn_wide_of(job->alpha, 0));
      const fn_wide weight = fn_wide_times(fn_wide_over(share, base), fn_wide_of(-2 * beta, 0));
      total = fn_wide_plus(total, fn_wide_times(slope, weight));
      if (i == channel) total = fn_wide_plus(total, slope);
    } else {
      const double b = finite ? fn_narrow_wide(base) : base.m, slope = dy / fn_power(b, beta);
      plain -= 2 * beta * slope * (job->alpha * v * x / b);
      plain += i == channel ? slope : 0;
      none = 1;
    }
  }
  return (T)fn_quiet(none != 0 ? plain + fn_narrow_wide(total) : fn_narrow_wide(total));
}

/* ---- kernel ------------------------------------------------------------------------------------------------------ */

static void FN(response_backward)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  const int64_t channels = job->n, strips = (job->inner.size + job->strip - 1) / job->strip;
  const int64_t before = job->before, after = job->after, width = before + 1 + after;
  const int64_t across = job->inner.step[FN_Y];
  const int in_line = FN(native)(&job->array[FN_Y]) && across == (int64_t)sizeof(T);
  for (int64_t unit = lo; unit < hi; unit++) {
    const int64_t outer = unit / strips, j = unit % strips * job->strip;
    const int64_t cols = job->inner.size - j < job->strip ? job->inner.size - j : job->strip;
    char *base = fn_base(job, FN_Y, outer, j);
    fn_windows squares, terms;
    double *slopes = fn_windows_begin(&terms, width, cols, fn_windows_begin(&squares, width, cols, scratch));
    T *x_tile = (T *)(void *)(slopes + (before + 1) * cols), *dy_tile = x_tile + cols, *tile = dy_tile + cols;
    const double *end, *begun;
    for (int64_t t = 0; t < channels + after + before; t++) {
      const int64_t middle = t - after, channel = middle - before;
      if (t < channels)
        FN(square)(fn_window_terms(&squares, t), FN(load_channel)(job, FN_X, outer, j, t, cols, x_tile), cols);
      else
        memset(fn_window_terms(&squares, t), 0, (size_t)cols * sizeof(double));
      fn_window(&squares, t, &end, &begun);
      if (middle >= 0) {
        double *term = fn_window_terms(&terms, middle);
        if (middle < channels)
          FN(respond_back)(job, slopes + middle % (before + 1) * cols, term,
                           FN(load_channel)(job, FN_X, outer, j, middle, cols, x_tile),
                           FN(load_channel)(job, FN_Z, outer, j, middle, cols, dy_tile), end, begun, cols);
        else
          memset(term, 0, (size_t)cols * sizeof(double));
      }
      fn_window_passed(&squares, t);
      if (middle < 0) continue;
      fn_window(&terms, middle, &end, &begun);
      if (channel >= 0) {
        const double *slope = slopes + channel % (before + 1) * cols, twice = -2 * job->alpha * job->exponent;
        const T *x = FN(load_channel)(job, FN_X, outer, j, channel, cols, x_tile);
        char *to = base + fn_along(job, FN_Y, channel);
        T *dx = in_line && !job->stream ? (T *)(void *)to : tile;
        FN_IVDEP
        for (int64_t c = 0; c < cols; c++) dx[c] = (T)(slope[c] + twice * (double)x[c] * (end[c] + begun[c]));
        for (int64_t c = 0; c < cols; c++)
          if (!fn_finite((double)dx[c])) dx[c] = FN(careful_back)(job, outer, j + c, channel, tile + cols);
        if (in_line && job->stream)
          fn_stream(to, (const char *)tile, cols * (int64_t)sizeof(T));
        else if (!in_line)
          FN(scatter_run)(to, tile, cols, across, job->array[FN_Y].dtype);
      }
      fn_window_passed(&terms, middle);
    }
  }
  fn_stream_end();
}
