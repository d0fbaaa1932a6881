/* Local response normalization: with the sum over a window of channels about each,
 *
 *     y = x / base^beta    base = k + alpha / size * sum(x^2)
 *
 * A strip of columns walks the channels once, with the window's squares and the window itself in scratch, so that y may
 * be x. Squares are summed in double; the rest is done in the compute type where beta is 1, 3/4 or 1/2. Elements whose
 * base the compute type cannot hold become NaN at first, and go the careful way.
 */

static inline T FN(root)(T v) { return FN_TYPE == FN_F32 ? (T)__builtin_sqrtf((float)v) : (T)sqrt((double)v); }

/* Some columns of a channel, at `to` or in memory. */
static inline const T *FN(load_channel)(const fn_job *job, int which, int64_t outer, int64_t j, int64_t channel,
                                        int64_t cols, T *to) {
  int64_t stride;
  return FN(load_columns)(job, which, fn_base(job, which, outer, j), channel, 1, cols, to, &stride);
}

static inline void FN(square)(double *to, const T *x, int64_t cols) {
  FN_IVDEP
  for (int64_t j = 0; j < cols; j++) to[j] = (double)x[j] * (double)x[j];
}

/* ---- one channel ------------------------------------------------------------------------------------------------- */

FN_INLINE void FN(respond_of)(T *y, const T *x, const double *end, const double *begun, int64_t cols, double alpha,
                              double k, double least, int kind) {
  const T none = (T)__builtin_nan("");
  FN_IVDEP
  for (int64_t j = 0; j < cols; j++) {
    const double sum = end[j] + begun[j];
    const T base = (T)(k + alpha * sum), root = FN(root)(base);
    const T d = kind == FN_ONE ? base : kind == FN_ONE_HALF ? root : root * FN(root)(root), v = x[j] / d;
    T held = base >= (T)FN_LEAST_SCALE ? v : none;
    held = base <= (T)FN_MOST_SCALE ? held : none;
    if (FN_TYPE == FN_F64) held = sum >= least ? held : none;
    y[j] = held;
  }
}

static void FN(respond_any)(T *y, const T *x, const double *end, const double *begun, int64_t cols, double alpha,
                            double k, double least, double beta, double *base, double *power) {
  const double none = __builtin_nan("");
  for (int64_t j = 0; j < cols; j++) base[j] = k + alpha * (end[j] + begun[j]);
  fn_powers(power, base, cols, beta);
  FN_IVDEP
  for (int64_t j = 0; j < cols; j++) {
    const double sum = end[j] + begun[j], d = power[j], v = (double)x[j] / d;
    double held = fabs(d) >= 0x1p-900 ? v : none;
    held = fabs(d) <= 0x1p+900 ? held : none;
    held = sum >= least ? held : none;
    y[j] = (T)(sum - sum == 0 ? held : none);
  }
}

/* `spare`: room for two numbers of each column. */
static void FN(respond)(const fn_job *job, T *y, const T *x, const double *end, const double *begun, int64_t cols,
                        double *spare) {
  const double alpha = job->alpha, k = job->k, least = FN_TYPE == FN_F64 ? fn_least_sum(job) : 0;
  const int kind = fn_response_kind(job);
  if (kind == FN_ONE) FN(respond_of)(y, x, end, begun, cols, alpha, k, least, FN_ONE);
  if (kind == FN_ONE_HALF) FN(respond_of)(y, x, end, begun, cols, alpha, k, least, FN_ONE_HALF);
  if (kind == FN_THREE_QUARTERS) FN(respond_of)(y, x, end, begun, cols, alpha, k, least, FN_THREE_QUARTERS);
  if (kind == FN_ANY_BETA) FN(respond_any)(y, x, end, begun, cols, alpha, k, least, job->exponent, spare, spare + cols);
}

/* ---- the careful way --------------------------------------------------------------------------------------------- */

/* base of a window of n elements that are `stride` apart, and whether all of it is finite; if not, only `m` counts. */
static int FN(careful_base)(const fn_job *job, const T *x, int64_t stride, int64_t n, fn_wide *base) {
  double most = 0, special = 0, sum = 0;
  for (int64_t i = 0; i < n; i++) {
    most = FN(larger)(most, x[i * stride]);
    if (!fn_finite((double)x[i * stride])) special += (double)x[i * stride] * (double)x[i * stride];
  }
  if (special != 0) {
    *base = (fn_wide){job->k + job->alpha * special, 0};
    return 0;
  }
  const int64_t scale = FN(reverse)(most);
  for (int64_t i = 0; i < n; i++) {
    const double v = (double)x[i * stride] * FN(power)(scale);
    sum += v * v;
  }
  *base = fn_wide_plus(fn_wide_of(job->k, 0), fn_wide_times(fn_wide_of(job->alpha, 0), fn_wide_of(sum, -2 * scale)));
  return 1;
}

/* Can base^beta be taken without ends to its range? Otherwise it is that of base->m. */
static inline int FN(has_power)(const fn_job *job, const fn_wide *base) {
  const double beta = job->exponent;
  return base->m > 0 || (base->m < 0 && (fabs(beta) >= 0x1p+53 || (double)(int64_t)beta == beta));
}

static T FN(careful_response)(const fn_job *job, double x, const T *window, int64_t stride, int64_t n) {
  fn_wide base;
  const int finite = FN(careful_base)(job, window, stride, n, &base);
  if (!finite || !FN(has_power)(job, &base)) return (T)fn_quiet(x / fn_power(base.m, job->exponent));
  return (T)fn_narrow_wide(fn_wide_times(fn_wide_of(x, 0), fn_wide_power(base, -job->exponent)));
}

/* ---- kernel ------------------------------------------------------------------------------------------------------ */

static void FN(response_columns)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  const int64_t channels = job->n, strips = (job->inner.size + job->strip - 1) / job->strip;
  const int64_t width = job->before + 1 + job->after, across = job->inner.step[FN_Y];
  const int in_line = FN(native)(&job->array[FN_Y]) && across == (int64_t)sizeof(T);
  for (int64_t unit = lo; unit < hi; unit++) {
    const int64_t outer = unit / strips, j = unit % strips * job->strip;
    const int64_t cols = job->inner.size - j < job->strip ? job->inner.size - j : job->strip;
    char *base = fn_base(job, FN_Y, outer, j);
    fn_windows squares;
    /* The channels of the window; before the first and behind the last, zeros. */
    double *spare = fn_windows_begin(&squares, width, cols, scratch);
    T *kept = (T *)(void *)(spare + 2 * cols), *tile = kept + width * cols;
    memset(kept, 0, (size_t)(width * cols) * sizeof(T));
    for (int64_t t = 0; t < channels + job->after; t++) {
      double *terms = fn_window_terms(&squares, t);
      T *to = kept + t % width * cols;
      if (t < channels) {
        const T *x = FN(load_channel)(job, FN_X, outer, j, t, cols, to);
        if (x != to) memcpy(to, x, (size_t)cols * sizeof(T));
        FN(square)(terms, to, cols);
      } else {
        memset(to, 0, (size_t)cols * sizeof(T));
        memset(terms, 0, (size_t)cols * sizeof(double));
      }
      const double *end, *begun;
      fn_window(&squares, t, &end, &begun);
      const int64_t channel = t - job->after;
      if (channel >= 0) {
        const T *x = kept + channel % width * cols;
        char *y_to = base + fn_along(job, FN_Y, channel);
        T *y = in_line && !job->stream ? (T *)(void *)y_to : tile;
        FN(respond)(job, y, x, end, begun, cols, spare);
        for (int64_t c = 0; c < cols; c++)
          if (y[c] != y[c]) y[c] = FN(careful_response)(job, (double)x[c], kept + c, cols, width);
        if (in_line && job->stream)
          fn_stream(y_to, (const char *)tile, cols * (int64_t)sizeof(T));
        else if (!in_line)
          FN(scatter_run)(y_to, tile, cols, across, job->array[FN_Y].dtype);
      }
      fn_window_passed(&squares, t);
    }
  }
  fn_stream_end();
}
