/* Exact quantiles of rows and columns: brackets from a sample, counts, and a few candidates.
 *
 * Columns are worked on side by side, as integer keys that are ordered as the numbers are (extrema.h). A small sample
 * gives each wanted order statistic a bracket of keys; one visit to memory counts what is below the brackets, in equal
 * parts of them, between and above them, and by adding up it is known which part holds the order statistic. A last
 * visit collects the few keys in those parts, among which it is selected. The sample decides how many visits it takes,
 * never what is found: where it deceives, or a part holds more than there is room for, that part is divided by another
 * visit, in the end by its keys alone, which takes a number of visits that is bounded. Memory does not grow with x.
 *
 * The ends of a bracket are counted apart, so values that repeat cost nothing: a bracket of one key holds all of them.
 * Zeros of both signs are one key, and NaN is above all numbers.
 */
enum {
  FN(ABREAST) = 16,                            /* lanes: columns, or rows of fewer columns, side by side */
  FN(BLOCK) = FN_TILE / FN(ABREAST),           /* rows of lanes that are brought into cache together */
  FN(BINS) = 256,                              /* parts of a bracket */
  FN(ENTRIES) = FN(BINS) + 3,                  /* its counts: lower end, parts, upper end, above */
  FN(RANKS) = 2 * FN_PROBABILITIES,            /* each quantile lies between two order statistics */
  FN(BRACKETS) = FN(RANKS) + 1,                /* one of them may be split at zero */
  FN(COUNTS) = FN(BRACKETS) * FN(ENTRIES) + 1, /* and below all brackets */
  FN(SAMPLE) = 2048,                           /* elements of a column */
  FN(VISITS) = 6,                              /* that heed the sample */
};

/* Keys lo to hi, an order statistic among them: how many keys of the column are below, and how many are these. */
typedef struct {
  K lo, hi;
  int64_t below, count;
} FN(span);

/* What is known of a column: the wanted order statistics, ascending, and where each of them lies. */
typedef struct {
  int64_t rank[FN(RANKS)], valid; /* numbers that are not NaN */
  FN(span) span[FN(RANKS)];
  int divided; /* by this visit */
  int infinite;
} FN(column);

typedef struct {
  K lo, hi;
} FN(bracket);

typedef struct {
  const fn_job *job;
  int64_t outer, first, cols, group; /* which columns; rows of them that are worked on side by side */
  int64_t room;                      /* candidates per column */
  int ranks, visits;
  int brackets; /* of the column that has most */
  K lo[FN(BRACKETS)][FN(ABREAST)], hi[FN(BRACKETS)][FN(ABREAST)];
  U shift[FN(BRACKETS)][FN(ABREAST)];
  FN(column) column[FN(ABREAST)];
  int64_t taken[FN(ABREAST)]; /* of the sample; then candidates */
  /* In scratch. */
  T *tile;
  K *keys, *entry, *pool; /* pool: the sample, which candidates take the place of */
  int64_t *counts;
} FN(search);

static inline K FN(sort_key)(T x) {
  const K key = FN(key)(x + 0); /* -0 + 0 is +0 */
  return FN(unordered)(key, key) ? (K)((U)-1 >> 1) : key;
}
static inline K FN(least_key)(void) { return FN(key)(FN_MINUS_INFINITY); }
static inline K FN(most_key)(void) { return FN(key)(FN_INFINITY); }
static inline K FN(nan_key)(void) { return (K)((U)-1 >> 1); }

/* ---- selection ----------------------------------------------------------------------------------------------------
 */

static inline K FN(middle)(K a, K b, K c) {
  const K low = a < b ? a : b, high = a < b ? b : a;
  return c < low ? low : c > high ? high : c;
}

/* v[0 .. n) is reordered so that what is below `pivot` (or, with `equal`, not above) comes first: how much that is. */
FN_INLINE int64_t FN(partition)(K *v, int64_t n, K pivot, int equal) {
  int64_t at = 0;
  for (int64_t i = 0; i < n; i++) {
    const K key = v[i];
    v[i] = v[at];
    v[at] = key;
    at += equal ? key <= pivot : key < pivot;
  }
  return at;
}

/* The key of a rank among n, which are reordered: those of lower ranks come before it, of higher ranks behind. */
static K FN(select)(K *v, int64_t n, int64_t rank) {
  int64_t from = 0, to = n;
  K low = FN(least_key)(), high = FN(nan_key)();
  for (int round = 0; to - from > 1; round++) {
    const int64_t left = to - from, step = left / 9;
    const K *w = v + from;
    K pivot = FN(middle)(w[0], w[left / 2], w[left - 1]);
    if (left > 64)
      pivot = FN(middle)(pivot, FN(middle)(w[step], w[4 * step], w[7 * step]),
                         FN(middle)(w[2 * step], w[5 * step], w[8 * step]));
    if (round >= 32) pivot = (K)((U)low + ((U)high - (U)low) / 2); /* halves what keys there can be */
    const int64_t mid = from + FN(partition)(v + from, left, pivot, 0);
    if (rank < mid) {
      to = mid;
      high = pivot;
      continue;
    }
    const int64_t end = mid + FN(partition)(v + mid, to - mid, pivot, 1);
    if (rank < end) return pivot;
    from = end;
    low = pivot;
  }
  return v[rank];
}

/* ---- visits to memory ---------------------------------------------------------------------------------------------
 */

/* Keys of the n rows from `start` on, `group` rows side by side. */
static void FN(load_keys)(const FN(search) *s, int64_t start, int64_t n) {
  const char *base = fn_base(s->job, FN_X, s->outer, s->first);
  const int64_t cols = s->cols, wide = s->group * cols;
  int64_t stride = 1;
  const T *x = s->job->columns ? FN(load_columns)(s->job, FN_X, base, start, n, cols, s->tile, &stride)
                               : FN(load)(s->job, FN_X, base, start, n, s->tile);
  K *keys = s->keys;
  if (stride == cols) {
    for (int64_t left = n * cols; left > 0; left -= wide, x += wide, keys += FN(ABREAST))
      for (int64_t l = 0; l < (left < wide ? left : wide); l++) keys[l] = FN(sort_key)(x[l]);
    return;
  }
  for (int64_t i = 0, side = 0; i < n; i++, x += stride) {
    for (int64_t c = 0; c < cols; c++) keys[side * cols + c] = FN(sort_key)(x[c]);
    if (++side == s->group) {
      side = 0;
      keys += FN(ABREAST);
    }
  }
}

/* NaN and infinities among `rows` rows of lanes. */
static void FN(count_special)(FN(search) *s, int64_t rows, int64_t width) {
  enum { L = FN(ABREAST) };
  const K nan = FN(nan_key)(), least = FN(least_key)(), most = FN(most_key)();
  K nans[L] = {0}, infinite[L] = {0};
  for (int64_t r = 0; r < rows; r++)
    for (int l = 0; l < L; l++) {
      const K key = s->keys[r * L + l];
      nans[l] += key == nan;
      infinite[l] |= (key == least) | (key == most);
    }
  for (int64_t l = 0; l < width; l++) {
    s->column[l % s->cols].valid -= nans[l];
    s->column[l % s->cols].infinite |= infinite[l] != 0;
  }
}

/* Counts keys by what part of which bracket they are in. */
static void FN(count_keys)(FN(search) *s, int64_t rows, int64_t width) {
  enum { L = FN(ABREAST) };
  K *restrict entry = s->entry;
  const K *restrict keys = s->keys;
  memset(entry, 0, (size_t)(rows * L) * sizeof *entry);
  for (int b = 0; b < s->brackets; b++) {
    const K first = (K)(1 + b * FN(ENTRIES));
    K lo[L], hi[L];
    U shift[L];
    memcpy(lo, s->lo[b], sizeof lo);
    memcpy(hi, s->hi[b], sizeof hi);
    memcpy(shift, s->shift[b], sizeof shift);
    for (int64_t r = 0; r < rows; r++)
      for (int l = 0; l < L; l++) {
        const K key = keys[r * L + l], before = entry[r * L + l];
        const K part = (K)((((U)key - (U)lo[l] - 1) >> shift[l]) + 1);
        const K within = key > lo[l] ? part : 0, above = key > hi[l] ? FN(BINS) + 2 : FN(BINS) + 1;
        const K at = key >= hi[l] ? above : within;
        entry[r * L + l] = key >= lo[l] ? first + at : before;
      }
  }
  for (int64_t r = 0; r < rows; r++)
    for (int64_t l = 0; l < width; l++) s->counts[l * FN(COUNTS) + entry[r * L + l]]++;
}

/* Keys that are inside of a bracket become candidates. */
static void FN(collect_keys)(FN(search) *s, int64_t rows, int64_t width) {
  enum { L = FN(ABREAST), FEW = 8 };
  for (int64_t from = 0; from < rows; from += FEW) {
    const int64_t few = rows - from < FEW ? rows - from : FEW;
    const K *keys = s->keys + from * L;
    K inside[FEW * L] = {0}, any[L] = {0};
    for (int b = 0; b < s->brackets; b++) {
      K lo[L], hi[L];
      memcpy(lo, s->lo[b], sizeof lo);
      memcpy(hi, s->hi[b], sizeof hi);
      for (int64_t r = 0; r < few; r++)
        for (int l = 0; l < L; l++) {
          const K in = (keys[r * L + l] >= lo[l]) & (keys[r * L + l] <= hi[l]);
          inside[r * L + l] |= in;
          any[l] |= in;
        }
    }
    K found = 0;
    for (int l = 0; l < L; l++) found |= any[l];
    if (!found) continue;
    for (int64_t l = 0; l < width; l++) {
      const int64_t c = l % s->cols;
      K *pool = s->pool + c * (s->room + 1);
      int64_t at = s->taken[c];
      for (int64_t r = 0; r < few; r++) {
        pool[at] = keys[r * L + l];
        at += inside[r * L + l];
      }
      s->taken[c] = at;
    }
  }
}

/* The order statistics that are wanted of so many numbers: both neighbours of each quantile, ascending. */
static void FN(set_ranks)(const fn_job *job, FN(column) *column, int ranks) {
  for (int r = 0; r < ranks; r++) {
    const int64_t last = column->valid - 1, previous = (int64_t)((double)last * job->probability[r / 2]);
    int64_t rank = previous + r % 2 < last ? previous + r % 2 : last;
    int at = r;
    for (; at > 0 && column->rank[at - 1] > rank; at--) column->rank[at] = column->rank[at - 1];
    column->rank[at] = rank;
    column->span[r].count = column->valid;
  }
}

/* All rows, from the first to the last. */
static void FN(visit)(FN(search) *s, int collect) {
  const int64_t n = s->job->n, block = FN(BLOCK) * s->group;
  for (int64_t start = 0; start < n; start += block) {
    const int64_t count = n - start < block ? n - start : block, rows = count / s->group;
    FN(load_keys)(s, start, count);
    for (int tail = 0; tail < 2; tail++) { /* the rows that are left over fill some of the lanes */
      const int64_t width = (tail ? count % s->group : s->group) * s->cols, height = tail ? width > 0 : rows;
      if (tail && height) memmove(s->keys, s->keys + rows * FN(ABREAST), FN(ABREAST) * sizeof(K));
      if (height == 0) continue;
      if (s->visits == 0) FN(count_special)(s, height, width);
      if (collect)
        FN(collect_keys)(s, height, width);
      else
        FN(count_keys)(s, height, width);
    }
  }
  for (int64_t c = 0; s->visits == 0 && c < s->cols; c++) FN(set_ranks)(s->job, s->column + c, s->ranks);
  s->visits++;
}

/* ---- planning -----------------------------------------------------------------------------------------------------
 */

/* One element of each of FN(SAMPLE) equal stretches, at a place that nothing in the data is likely to follow. */
static void FN(take_sample)(FN(search) *s) {
  const int64_t step = s->job->n / FN(SAMPLE), group = s->group;
  for (int64_t c = 0; c < s->cols; c++) s->taken[c] = 0;
  s->group = 1;
  for (int64_t k = 0; k < FN(SAMPLE); k++) {
    uint64_t word = (uint64_t)(k + 1) * 0x9e3779b97f4a7c15u;
    word = (word ^ word >> 32) * 0xd6e8feb86659fd93u;
    FN(load_keys)(s, k * step + (int64_t)((word ^ word >> 32) % (uint64_t)step), 1);
    for (int64_t c = 0; c < s->cols; c++) {
      s->pool[c * FN(SAMPLE) + s->taken[c]] = s->keys[c];
      s->taken[c] += s->keys[c] != FN(nan_key)();
    }
  }
  s->group = group;
}

/* A bracket, of keys of the span, for what has a part p of the span below it. Four standard deviations of the sample to
 * either side; all of the span where the sample has too little to say. */
static FN(bracket) FN(bracket_of)(FN(search) *s, int64_t c, const FN(span) *span, double p) {
  FN(bracket) all = {span->lo, span->hi}, some;
  K *few = s->keys; /* not in use between visits */
  int64_t n = 0;
  for (int64_t i = 0; s->visits < FN(VISITS) && i < s->taken[c]; i++) {
    few[n] = s->pool[c * FN(SAMPLE) + i];
    n += (few[n] >= span->lo) & (few[n] <= span->hi);
  }
  if (n < 2) return all;
  some.lo = FN(select)(few, n, 0);
  some.hi = FN(select)(few, n, n - 1);
  if (n < 32) return some.lo == some.hi ? some : all;
  const double center = p * (double)n, margin = 4 * sqrt(center * (1 - p)) + 2;
  const int64_t below = (int64_t)(center - margin), above = (int64_t)(center + margin) + 1;
  if (below > 0) some.lo = FN(select)(few, n, below);
  if (above < n - 1) some.hi = FN(select)(few, n, above);
  return some;
}

static void FN(set_bracket)(FN(search) *s, int b, int64_t c, K lo, K hi) {
  U shift = 0;
  while (hi > lo && ((U)hi - (U)lo - 1) >> shift >= FN(BINS)) shift++;
  for (int64_t l = c; l < s->group * s->cols; l += s->cols) {
    s->lo[b][l] = lo;
    s->hi[b][l] = hi;
    s->shift[b][l] = shift;
  }
}

/* How many candidates a column has: keys of the different spans of more than one key. */
static int64_t FN(candidates)(const FN(column) *column, int ranks) {
  int64_t sum = 0;
  for (int r = 0; r < ranks; r++) {
    const FN(span) *span = column->span + r;
    if (span->lo < span->hi && (r == 0 || span->lo != span[-1].lo)) sum += span->count;
  }
  return sum;
}

/* Brackets for the next visit; whether there is something to divide. Brackets that overlap are joined. One that has
 * numbers of both signs leaves out what is small: keys there are as many as anywhere, and numbers few. */
static int FN(plan_counts)(FN(search) *s) {
  const K cut = 8 * (FN(key)(2) - FN(key)(1)); /* a factor of 256 */
  s->brackets = 0;
  for (int64_t c = 0; c < s->cols; c++) {
    FN(column) *column = s->column + c;
    FN(bracket) plan[FN(BRACKETS)];
    int count = 0;
    column->divided = FN(candidates)(column, s->ranks) > s->room;
    for (int r = 0; column->divided && r < s->ranks; r++) {
      const FN(span) *span = column->span + r;
      if (span->lo == span->hi) continue;
      const double p = s->visits == 0 ? s->job->probability[r / 2]
                                      : ((double)(column->rank[r] - span->below) + 0.5) / (double)span->count;
      const FN(bracket) next = FN(bracket_of)(s, c, span, p);
      FN(bracket) *last = plan + count - 1;
      if (count > 0 && next.lo <= last->hi)
        last->hi = next.hi > last->hi ? next.hi : last->hi;
      else
        plan[count++] = next;
    }
    int at = 0;
    for (int b = 0; b < count; b++) {
      const int split = plan[b].lo < 0 && plan[b].hi > 0 && s->visits < FN(VISITS);
      if (split) FN(set_bracket)(s, at++, c, plan[b].lo, plan[b].lo < -cut ? plan[b].lo + cut : -1);
      FN(set_bracket)(s, at++, c, split ? plan[b].hi > cut ? plan[b].hi - cut : 0 : plan[b].lo, plan[b].hi);
    }
    for (int b = at; b < FN(BRACKETS); b++) FN(set_bracket)(s, b, c, FN(nan_key)(), FN(nan_key)());
    s->brackets = at > s->brackets ? at : s->brackets;
  }
  return s->brackets > 0;
}

/* The keys that an entry of the counts of column c stands for. */
static FN(bracket) FN(keys_of)(const FN(search) *s, int64_t c, int entry) {
  FN(bracket) keys = {FN(least_key)(), FN(most_key)()};
  const int b = (entry - 1) / FN(ENTRIES), part = (entry - 1) % FN(ENTRIES);
  if (entry == 0) {
    keys.hi = (K)((U)s->lo[0][c] - 1);
    return keys;
  }
  const K lo = s->lo[b][c], hi = s->hi[b][c];
  if (part == 0) return (FN(bracket)){lo, lo};
  if (part == FN(BINS) + 1) return (FN(bracket)){hi, hi};
  if (part == FN(BINS) + 2) {
    keys.lo = (K)((U)hi + 1);
    if (b + 1 < s->brackets && s->lo[b + 1][c] <= keys.hi) keys.hi = (K)((U)s->lo[b + 1][c] - 1);
    return keys;
  }
  const U start = (U)(part - 1) << s->shift[b][c], left = (U)hi - (U)lo - 1 - start;
  const U size = ((U)1 << s->shift[b][c]) < left ? (U)1 << s->shift[b][c] : left;
  return (FN(bracket)){(K)((U)lo + start + 1), (K)((U)lo + start + size)};
}

/* Counts say in which entry each order statistic is: its span becomes what the two have in common. */
static void FN(narrow)(FN(search) *s, int64_t c) {
  int64_t *counts = s->counts + c * FN(COUNTS), below = 0;
  FN(column) *column = s->column + c;
  for (int64_t l = c + s->cols; l < s->group * s->cols; l += s->cols)
    for (int e = 0; e < FN(COUNTS); e++) counts[e] += s->counts[l * FN(COUNTS) + e];
  for (int r = 0, e = 0; r < s->ranks; r++) {
    FN(span) *span = column->span + r;
    while (below + counts[e] <= column->rank[r]) below += counts[e++];
    const FN(bracket) keys = FN(keys_of)(s, c, e);
    const int64_t up_to = below + counts[e], end = span->below + span->count;
    span->lo = keys.lo > span->lo ? keys.lo : span->lo;
    span->hi = keys.hi < span->hi ? keys.hi : span->hi;
    span->below = below > span->below ? below : span->below;
    span->count = (up_to < end ? up_to : end) - span->below;
  }
}

static void FN(plan_collection)(FN(search) *s) {
  s->brackets = 0;
  for (int64_t c = 0; c < s->cols; c++) {
    const FN(span) *span = s->column[c].span;
    int at = 0;
    for (int r = 0; r < s->ranks; r++)
      if (span[r].lo < span[r].hi && (r == 0 || span[r].lo != span[r - 1].lo))
        FN(set_bracket)(s, at++, c, span[r].lo, span[r].hi);
    s->brackets = at > s->brackets ? at : s->brackets;
    for (; at < FN(BRACKETS); at++) FN(set_bracket)(s, at, c, FN(nan_key)(), FN(least_key)());
    s->taken[c] = 0;
  }
}

/* ---- results ------------------------------------------------------------------------------------------------------
 */

/* The order statistics of a column, by rank, from its spans and candidates. */
static void FN(select_ranks)(const FN(search) *s, int64_t c, K *found) {
  K *pool = s->pool + c * (s->room + 1);
  const FN(column) *column = s->column + c;
  int64_t before = 0, done = 0; /* candidates of earlier spans; those in their place */
  for (int r = 0; r < s->ranks; r++) {
    const FN(span) *span = column->span + r;
    if (r > 0 && span->lo != span[-1].lo && span[-1].lo < span[-1].hi) before += span[-1].count;
    if (span->lo == span->hi) {
      found[r] = span->lo;
      continue;
    }
    const int64_t at = before + column->rank[r] - span->below;
    found[r] = FN(select)(pool + done, s->taken[c] - done, at - done);
    done = at;
  }
}

/* Between the neighbours a and b of a quantile, as numpy.percentile does it: from the nearer one. */
static double FN(between)(double a, double b, double t) {
  const double d = b - a, value = t >= 0.5 ? b - d * (1 - t) : a + d * t;
  return value == value ? value : __builtin_nan("");
}

static void FN(write_quantiles)(const FN(search) *s, int64_t c) {
  const fn_job *job = s->job;
  const FN(column) *column = s->column + c;
  const int64_t p = fn_place(job, s->outer, s->first + c);
  double *to = (double *)job->mean + p;
  K found[FN(RANKS)];
  job->counts[p] = column->valid;
  job->infinite[p] = (char)(column->infinite != 0);
  if (column->valid > 0) FN(select_ranks)(s, c, found);
  for (int q = 0; 2 * q < s->ranks; q++, to += job->state_stride) {
    const int64_t last = column->valid - 1;
    const double place = (double)last * job->probability[q];
    const int64_t previous = (int64_t)place, next = previous < last ? previous + 1 : last;
    double a = 0, b = 0;
    for (int r = 0; r < s->ranks && last >= 0; r++) {
      const double value = (double)FN(unkey)(found[r]);
      if (column->rank[r] == previous) a = value;
      if (column->rank[r] == next) b = value;
    }
    *to = last >= 0 ? FN(between)(a, b, place - (double)previous) : __builtin_nan("");
  }
}

/* Columns first <= column < first + cols <= first + FN(ABREAST) of problem `outer`. */
static void FN(quantiles)(const fn_job *job, int64_t outer, int64_t first, int64_t cols, void *scratch) {
  FN(search) s = {.job = job,
                  .outer = outer,
                  .first = first,
                  .cols = cols,
                  .group = FN(ABREAST) / cols,
                  .ranks = 2 * job->probabilities};
  char *next = scratch;
  s.tile = (T *)(void *)next, next += FN_TILE * sizeof(T);
  s.keys = (K *)(void *)next, next += FN_TILE * sizeof(K);
  s.entry = (K *)(void *)next, next += FN_TILE * sizeof(K);
  s.counts = (int64_t *)(void *)next, next += FN(ABREAST) * FN(COUNTS) * sizeof *s.counts;
  s.pool = (K *)(void *)next;
  s.room = ((char *)scratch + FN_SCRATCH_BYTES - next) / (int64_t)sizeof(K) / cols - 1;
  for (int64_t c = 0; c < cols; c++) {
    s.column[c].valid = job->n;
    for (int r = 0; r < s.ranks; r++) s.column[c].span[r] = (FN(span)){FN(least_key)(), FN(most_key)(), 0, job->n};
  }
  if (job->n > s.room) FN(take_sample)(&s);
  while (FN(plan_counts)(&s)) {
    memset(s.counts, 0, FN(ABREAST) * FN(COUNTS) * sizeof *s.counts);
    FN(visit)(&s, 0);
    for (int64_t c = 0; c < cols; c++) {
      if (s.column[c].valid == 0)
        for (int r = 0; r < s.ranks; r++) s.column[c].span[r].hi = s.column[c].span[r].lo;
      else if (s.column[c].divided)
        FN(narrow)(&s, c);
    }
  }
  FN(plan_collection)(&s);
  if (s.brackets > 0 && job->n > 0) FN(visit)(&s, 1);
  for (int64_t c = 0; c < cols; c++) FN(write_quantiles)(&s, c);
}

static void FN(quantiles_rows)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  for (int64_t row = lo; row < hi; row++) FN(quantiles)(job, row, 0, 1, scratch);
}

static void FN(quantiles_columns)(const fn_job *job, int64_t lo, int64_t hi, void *scratch) {
  const int64_t strips = (job->inner.size + job->strip - 1) / job->strip;
  for (int64_t unit = lo; unit < hi; unit++) {
    const int64_t j = unit % strips * job->strip, left = job->inner.size - j;
    FN(quantiles)(job, unit / strips, j, left < job->strip ? left : job->strip, scratch);
  }
}
