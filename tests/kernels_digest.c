/* Prints a digest of what the kernels of one instruction set answer to fixed inputs, operation by operation, as JSON.
 *
 *     kernels_digest ISA
 *
 * It links with the kernels alone, so that it can be built for any machine and run where there is no Python. Inputs are
 * bits made of integers. Jobs are those that need few kernels: what drivers do with several threads, and with what does
 * not fit a cache, is not repeated here. test_kernels_digest.py says what the digests should be.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels.h"
#include "runtime.h"

/* ---- memory and digests ------------------------------------------------------------------------------------------ */

enum { ARENA = 1 << 24, SEED_DY = 1, SEED_WEIGHT, SEED_BIAS, SEED_MASK };

static char *arena, *scratch;
static size_t taken;
static uint64_t hash;

/* Zeroed memory until the end of a case, on a cache line of its own. */
static void *take(size_t bytes) {
  void *start = arena + taken;
  taken += (bytes + 63) / 64 * 64;
  if (taken > ARENA) abort();
  return memset(start, 0, bytes);
}

static void digest(const void *data, size_t bytes) { /* FNV-1a */
  for (size_t i = 0; i < bytes; i++) hash = (hash ^ ((const unsigned char *)data)[i]) * 0x100000001b3u;
}

/* ---- inputs ------------------------------------------------------------------------------------------------------ */

enum kind { UNIFORM, POWERS, CONSTANT, LARGEST, SUBNORMAL, SPECIAL, KINDS };

static const struct { int bytes, digits, exponents; } formats[FN_DTYPES] = {
    [FN_F32] = {4, 23, 8}, [FN_F64] = {8, 52, 11}, [FN_F16] = {2, 10, 5}, [FN_BF16] = {2, 7, 8},
    [FN_I8] = {1, 0, 0},   [FN_U8] = {1, 0, 0},    [FN_I16] = {2, 0, 0},  [FN_U16] = {2, 0, 0},
    [FN_I32] = {4, 0, 0},  [FN_U32] = {4, 0, 0},   [FN_I64] = {8, 0, 0},  [FN_U64] = {8, 0, 0},
};

static uint64_t word(uint64_t i) { /* SplitMix64 */
  uint64_t z = i * 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

/* The bits of a number: for integers any. */
static uint64_t number(int dtype, enum kind kind, uint64_t z) {
  const int digits = formats[dtype].digits, exponents = formats[dtype].exponents, spread = exponents > 5 ? 20 : 6;
  const uint64_t most = (1u << exponents) - 1, bias = most / 2, choice = z >> 8 & 0xff;
  if (exponents == 0) return z;
  const uint64_t exponent = kind == POWERS      ? bias - spread + choice % (2 * spread + 1)
                            : kind == LARGEST   ? most - 1 - choice % 2
                            : kind == SUBNORMAL ? choice % 8 == 0
                                                : bias - 1 - choice % 4;
  const uint64_t sign = (z & 1) << (digits + exponents), fraction = (z >> 11) & (((uint64_t)1 << digits) - 1);
  if (kind == CONSTANT) return bias << digits | 5;
  if (kind == SPECIAL && choice < 8) return sign | (choice < 4 ? 0 : most) << digits | (choice == 7);
  return sign | exponent << digits | fraction;
}

static void *numbers(int dtype, int64_t count, enum kind kind, uint64_t seed) {
  const int bytes = formats[dtype].bytes;
  char *to = take(count * bytes);
  for (int64_t i = 0; i < count; i++) {
    const uint64_t bits = number(dtype, kind, word((seed << 40) + i + 1));
    memcpy(to + i * bytes, &bits, bytes); /* little-endian, as all machines that are compared */
  }
  return to;
}

static void *mask(int64_t count) {
  char *to = take(count);
  for (int64_t i = 0; i < count; i++) to[i] = word(((uint64_t)SEED_MASK << 40) + i) % 5 != 0;
  return to;
}

/* ---- jobs -------------------------------------------------------------------------------------------------------- */

typedef struct { int ndim; int64_t shape[3]; char roles[3]; } layout;

typedef struct { const fn_table *table; int dtype; layout at; enum kind kind; int64_t size; } problem;

static int compute_type(int dtype) { return dtype == FN_F64 || dtype > FN_BF16 ? FN_F64 : FN_F32; }
static int64_t parts(int64_t whole, int64_t part) { return (whole + part - 1) / part; }

static void use(fn_job *job, int which, void *data, int dtype) {
  job->array[which] = (fn_array){.data = data, .dtype = dtype, .aligned = 1};
}

static fn_job begin(const problem *p) {
  fn_job job;
  memset(&job, 0, sizeof job);
  use(&job, FN_X, numbers(p->dtype, p->size, p->kind, 0), p->dtype);
  job.shortest = FN_SHORT;
  job.written = -1;
  job.order = 2;
  job.period = job.places = job.span = 1;
  job.dtype = job.out_dtype = job.parameter_dtype = compute_type(p->dtype);
  return job;
}

static void write_result(fn_job *job, const problem *p) {
  use(job, FN_Y, take(p->size * formats[p->dtype].bytes), p->dtype);
}

static void read_dy(fn_job *job, const problem *p) {
  use(job, FN_Z, numbers(p->dtype, p->size, UNIFORM, SEED_DY), p->dtype);
}

static void plan(fn_job *job, const problem *p) {
  int64_t steps[FN_ARRAYS][3];
  const int64_t *given[FN_ARRAYS] = {0};
  for (int which = 0; which < FN_ARRAYS; which++) {
    if (!job->array[which].data) continue;
    int64_t step = formats[job->array[which].dtype].bytes;
    for (int a = p->at.ndim - 1; a >= 0; step *= p->at.shape[a--]) steps[which][a] = step;
    given[which] = steps[which];
  }
  fn_plan(job, p->at.ndim, p->at.shape, given, p->at.roles);
}

/* How many statistics, or parameters, there are. */
static int64_t count(const problem *p, int kept) {
  int64_t size = 1;
  for (int a = 0; a < p->at.ndim; a++)
    if ((p->at.roles[a] == FN_KEPT) == kept) size *= p->at.shape[a];
  return size;
}

static void *parameters(const problem *p, int64_t size, uint64_t seed) {
  return numbers(compute_type(p->dtype), size, UNIFORM, seed);
}

static void digest_array(const fn_job *job, const problem *p, int which) {
  digest(job->array[which].data, p->size * formats[job->array[which].dtype].bytes);
}

/* ---- operations -------------------------------------------------------------------------------------------------- */

static void moments(const problem *p, int order, int masked) {
  fn_job job = begin(p);
  const int64_t kept = count(p, 1);
  if (masked) use(&job, FN_WHERE, mask(p->size), FN_U8);
  job.omit = masked;
  job.order = order;
  job.extrema = order > 2;
  job.state_stride = kept;
  if (order > 2) job.state = take(FN_PLANES * kept * sizeof(double));
  job.mean = take(kept * sizeof(double));
  job.spread = take(kept * sizeof(double));
  plan(&job, p);
  (job.columns ? p->table->moments_columns : p->table->moments_rows)[job.dtype](
      &job, 0, job.outer * parts(job.inner.size, job.strip), scratch);
  if (job.state) digest(job.state, FN_PLANES * kept * sizeof(double));
  digest(job.mean, kept * formats[job.out_dtype].bytes);
  digest(job.spread, kept * formats[job.out_dtype].bytes);
}

static void mean_var(const problem *p) { moments(p, 2, 0); }
static void mean_var_where(const problem *p) { moments(p, 2, 1); }
static void moments_4(const problem *p) { moments(p, 4, 0); }
static void moments_3_where(const problem *p) { moments(p, 3, 1); }

/* A long row, chunk by chunk. */
static void moments_merged(const problem *p) {
  fn_job job = begin(p), wave;
  double *running = take(FN_PLANES * sizeof(double)), results[2];
  job.order = 4;
  job.state = take(FN_PLANES * sizeof(double));
  job.state_stride = 1;
  job.mean = results;
  job.spread = results + 1;
  job.out_dtype = FN_F64;
  plan(&job, p);
  const int64_t chunks = parts(job.n, job.chunk);
  wave = job;
  wave.state = take(FN_PLANES * chunks * sizeof(double));
  wave.state_stride = chunks;
  p->table->begin_columns(&job, 0, 1, running);
  p->table->moments_chunks[job.dtype](&wave, 0, chunks, scratch);
  p->table->merge_slots(&wave, 0, chunks, running);
  p->table->finish_columns(&job, 0, 1, running);
  digest(job.state, FN_PLANES * sizeof(double));
  digest(results, sizeof results);
}

static void extrema(const problem *p) {
  fn_job job = begin(p);
  const int64_t kept = count(p, 1), bytes = kept * formats[p->dtype].bytes;
  plan(&job, p);
  job.chunk = job.n;
  job.state_stride = kept;
  job.min = take(bytes);
  job.max = take(bytes);
  (job.columns ? p->table->extrema_columns : p->table->extrema_rows)[p->dtype](
      &job, 0, job.outer * parts(job.inner.size, job.strip), scratch);
  digest(job.min, bytes);
  digest(job.max, bytes);
}

static void run_norm(const problem *p, fn_job *job) {
  const int64_t run = job->stretch[FN_X];
  p->table->find_special[job->dtype](job, 0, job->unit ? job->period : job->n, &job->quiet);
  job->strip = 64;
  if (job->period < job->strip) job->strip -= job->strip % job->period;
  if (job->columns)
    p->table->norm_columns[job->dtype](job, 0, job->outer * parts(job->inner.size, job->strip), scratch);
  else if (job->unit && run < job->n && run >= FN_RUN)
    p->table->norm_planes[job->dtype](job, 0, parts(job->outer, job->strip), scratch);
  else
    p->table->norm_rows[job->dtype](job, 0, job->outer, scratch);
}

static void norm(const problem *p, fn_job *job) {
  const int64_t bytes = count(p, 1) * sizeof(double);
  job->shortest = job->unit ? FN_RUN : FN_SHORT_NORM;
  job->mean = take(bytes);
  job->spread = take(bytes);
  write_result(job, p);
  plan(job, p);
  run_norm(p, job);
  digest_array(job, p, FN_Y);
  if (job->source == FN_S) digest_array(job, p, FN_S);
  digest(job->mean, bytes);
  digest(job->spread, bytes);
}

static fn_job layer(const problem *p) {
  fn_job job = begin(p);
  job.eps = 0x1p-17;
  job.finish = FN_RECIPROCAL;
  job.weight = parameters(p, count(p, 0), SEED_WEIGHT);
  job.bias = parameters(p, count(p, 0), SEED_BIAS);
  return job;
}

static void layer_norm(const problem *p) {
  fn_job job = layer(p);
  norm(p, &job);
}

static void layer_norm_where(const problem *p) {
  fn_job job = layer(p);
  use(&job, FN_WHERE, mask(p->size), FN_U8);
  norm(p, &job);
}

static void add_layer_norm(const problem *p) {
  fn_job job = layer(p);
  use(&job, FN_Z, numbers(p->dtype, p->size, p->kind, SEED_DY), p->dtype);
  use(&job, FN_S, take(p->size * formats[p->dtype].bytes), p->dtype);
  job.source = FN_S;
  norm(p, &job);
}

static void rms_norm(const problem *p) {
  fn_job job = layer(p);
  job.bias = NULL;
  job.norm = FN_RMS;
  norm(p, &job);
}

static void standardize(const problem *p) {
  fn_job job = begin(p);
  job.finish = FN_DEVIATION;
  job.omit = job.quiet = 1;
  norm(p, &job);
}

static void min_max_scale(const problem *p) {
  fn_job job = begin(p);
  job.norm = FN_RANGE;
  job.finish = FN_DEVIATION;
  job.extrema = 1;
  job.least = -1;
  job.most = 2;
  job.out_dtype = p->dtype;
  norm(p, &job);
}

/* What is shared along an axis belongs to its channel: axis 1 of a problem. */
static fn_job channels(const problem *p) {
  fn_job job = begin(p);
  job.eps = 0x1p-17;
  job.finish = FN_RECIPROCAL;
  job.unit = 1;
  job.period = p->at.shape[1];
  job.weight = parameters(p, job.period, SEED_WEIGHT);
  job.bias = parameters(p, job.period, SEED_BIAS);
  return job;
}

static void channel_norm(const problem *p) {
  fn_job job = channels(p);
  norm(p, &job);
}

static void channel_norm_relu(const problem *p) {
  fn_job job = channels(p);
  job.relu = 1;
  norm(p, &job);
}

/* As in evaluation, by statistics that are given. */
static void channel_scale(const problem *p) {
  fn_job job = channels(p);
  const int64_t bytes = job.period * sizeof(double);
  job.given = 1;
  job.shortest = FN_RUN;
  job.state = take(FN_PLANES * bytes);
  job.state_stride = job.period;
  memcpy(job.state + FN_MEAN * job.period, numbers(FN_F64, job.period, UNIFORM, SEED_DY), bytes);
  for (int64_t c = 0; c < job.period; c++) {
    job.state[FN_COUNT * job.period + c] = 1;
    job.state[FN_VAR * job.period + c] = 1 + c;
  }
  job.folded = take(4 * bytes);
  write_result(&job, p);
  plan(&job, p);
  p->table->find_special[job.dtype](&job, 0, job.period, &job.quiet);
  p->table->fold_channels[job.dtype](&job, 0, job.period, NULL);
  if (job.columns)
    p->table->scale_columns[job.dtype](
        &job, 0, job.outer * parts(job.n, job.chunk) * parts(job.inner.size, FN_STRIP), scratch);
  else
    p->table->scale_rows[job.dtype](&job, 0, job.outer * parts(job.n, FN_CHUNK), scratch);
  digest_array(&job, p, FN_Y);
}

/* The saved statistics of a forward pass. */
static void save(const problem *p, fn_job *job) {
  fn_job forward = job->unit ? channels(p) : begin(p);
  forward.eps = 0x1p-17;
  forward.finish = FN_RECIPROCAL;
  forward.norm = job->norm;
  norm(p, &forward);
  job->mean = forward.mean;
  job->spread = forward.spread;
}

static void norm_backward(const problem *p, int kind, int masked) {
  fn_job job = begin(p);
  const fn_table *t = p->table;
  const int64_t along = count(p, 0), kept = count(p, 1);
  job.norm = kind;
  save(p, &job);
  job.weight = parameters(p, along, SEED_WEIGHT);
  job.dweight = take(along * sizeof(double));
  job.dbias = kind == FN_RMS ? NULL : take(along * sizeof(double));
  if (masked) use(&job, FN_WHERE, mask(p->size), FN_U8);
  read_dy(&job, p);
  write_result(&job, p);
  plan(&job, p);
  job.most = 1;
  t->backward_weight[job.dtype](&job, 0, job.n, &job.most);
  job.chunk = job.width = job.n;
  job.block = 16;
  job.wave = parts(kept, job.block);
  job.slots = take((1 + job.wave) * 2 * job.width * sizeof(double));
  t->backward_blocks[job.dtype](&job, 0, job.wave, scratch);
  t->backward_fold[job.dtype](&job, 0, 2 * job.width, scratch);
  t->backward_finish[job.dtype](&job, 0, job.width, scratch);
  digest_array(&job, p, FN_Y);
  digest(job.dweight, along * formats[job.parameter_dtype].bytes);
  if (job.dbias) digest(job.dbias, along * formats[job.parameter_dtype].bytes);
}

static void layer_norm_backward(const problem *p) { norm_backward(p, FN_LAYER, 0); }
static void layer_norm_backward_where(const problem *p) { norm_backward(p, FN_LAYER, 1); }
static void rms_norm_backward(const problem *p) { norm_backward(p, FN_RMS, 0); }

static void channel_norm_backward(const problem *p) {
  fn_job job = channels(p);
  const int64_t kept = count(p, 1), bytes = job.period * formats[job.parameter_dtype].bytes;
  save(p, &job);
  job.shortest = FN_RUN;
  job.dweight = take(bytes);
  job.dbias = take(bytes);
  read_dy(&job, p);
  write_result(&job, p);
  plan(&job, p);
  const int64_t run = job.stretch[FN_X];
  job.chunk = job.columns ? fn_block_rows(job.beside) : FN_CHUNK / run * run;
  job.strip = job.n < FN_SHORT ? FN_STRIP / 4 : FN_STRIP;
  job.block = run > FN_TILE ? 1 : FN_TILE / run < 16 ? FN_TILE / run : 16;
  job.width = kept;
  job.slots = take(FN_SUMS * kept * sizeof(double));
  job.factors = take(FN_FACTORS * kept * sizeof(double));
  job.slopes = take(kept * sizeof(fn_slope));
  job.totals = take(2 * job.period * sizeof(double));
  const int64_t blocks = job.columns ? job.outer * parts(job.inner.size, job.strip) : parts(kept, job.block);
  p->table->channel_visit[job.dtype](&job, 0, blocks, scratch);
  p->table->channel_totals[job.dtype](&job, 0, job.period, scratch);
  p->table->channel_finish[job.dtype](&job, 0, job.period, scratch);
  digest_array(&job, p, FN_Y);
  digest(job.dweight, bytes);
  digest(job.dbias, bytes);
}

static void normalize_by(const problem *p, double exponent, int backward) {
  fn_job job = begin(p);
  job.exponent = exponent;
  job.eps = 0x1p-40;
  job.shortest = FN_SHORT_NORM;
  if (backward) read_dy(&job, p);
  write_result(&job, p);
  plan(&job, p);
  job.strip = 64;
  (job.columns ? p->table->normalize_columns : p->table->normalize_rows)[job.dtype](
      &job, 0, job.outer * parts(job.inner.size, job.columns ? job.strip : 1), scratch);
  digest_array(&job, p, FN_Y);
}

static void normalize(const problem *p) {
  static const double exponents[] = {1, 2, 3, 0.5, -1.25, __builtin_inf()};
  for (size_t i = 0; i < sizeof exponents / sizeof *exponents; i++)
    for (int backward = 0; backward < 2; backward++) normalize_by(p, exponents[i], backward);
}

static void response_by(const problem *p, double beta, int backward) {
  fn_job job = begin(p);
  job.exponent = beta;
  job.alpha = 0.25;
  job.k = 1;
  job.before = 2;
  job.after = 1;
  if (backward) read_dy(&job, p);
  write_result(&job, p);
  plan(&job, p);
  if (!job.columns && job.kept_ndim > 0) {
    job.inner = job.kept[--job.kept_ndim];
    job.outer /= job.inner.size;
    job.columns = 1;
  }
  job.strip = 64;
  (backward ? p->table->response_backward : p->table->response_columns)[job.dtype](
      &job, 0, job.outer * parts(job.inner.size, job.strip), scratch);
  digest_array(&job, p, FN_Y);
}

static void local_response_norm(const problem *p) {
  for (int backward = 0; backward < 2; backward++) {
    response_by(p, 0.75, backward);
    response_by(p, 0.6, backward);
  }
}

static void quantiles(const problem *p) {
  static const double probabilities[] = {0.25, 0.5, 0.9};
  fn_job job = begin(p);
  const int64_t kept = count(p, 1);
  job.probability = probabilities;
  job.probabilities = 3;
  job.state_stride = kept;
  job.mean = take(3 * kept * sizeof(double));
  job.counts = take(kept * sizeof(int64_t));
  job.infinite = take(kept);
  plan(&job, p);
  job.strip = 8;
  (job.columns ? p->table->quantiles_columns : p->table->quantiles_rows)[job.dtype](
      &job, 0, job.outer * parts(job.inner.size, job.columns ? job.strip : 1), scratch);
  digest(job.mean, 3 * kept * sizeof(double));
  digest(job.counts, kept * sizeof(int64_t));
  digest(job.infinite, kept);
}

/* Features are the last axis; what lies before it is shared. */
static void rescale(const problem *p) {
  for (int inverse = 0; inverse < 2; inverse++) {
    fn_job job = begin(p);
    int found = 0;
    job.period = p->at.shape[p->at.ndim - 1];
    job.center = numbers(FN_F64, job.period, UNIFORM, SEED_BIAS);
    job.scale = numbers(FN_F64, job.period, UNIFORM, SEED_WEIGHT);
    job.shift = numbers(FN_F64, job.period, UNIFORM, SEED_DY);
    job.least = -__builtin_inf();
    job.most = 2;
    job.inverse = inverse;
    job.found = &found;
    write_result(&job, p);
    plan(&job, p);
    p->table->rescale_columns[job.dtype](
        &job, 0, job.outer * parts(job.n, job.chunk) * parts(job.inner.size, FN_BROAD), scratch);
    digest_array(&job, p, FN_Y);
    digest(&found, sizeof found);
  }
}

static void fold(const problem *p) {
  fn_job job = begin(p);
  job.period = count(p, 1);
  job.scale = numbers(FN_F64, job.period, UNIFORM, SEED_WEIGHT);
  write_result(&job, p);
  plan(&job, p);
  const int64_t chunks = parts(job.n, job.columns ? job.chunk : FN_CHUNK);
  const int64_t units = chunks * parts(job.inner.size, FN_BROAD);
  (job.columns ? p->table->fold_columns : p->table->fold_rows)[job.dtype](&job, 0, job.outer * units, scratch);
  digest_array(&job, p, FN_Y);
}

static void round_doubles(const problem *p) {
  fn_job job = begin(p);
  use(&job, FN_X, numbers(FN_F64, p->size, p->kind, 0), FN_F64);
  write_result(&job, p);
  p->table->round_doubles(&job, 0, p->size, NULL);
  digest(job.array[FN_Y].data, p->size * formats[p->dtype].bytes);
}

/* Pixels of the last axis, to planes or to pixels; and back. */
static void picture(const problem *p, int to, int planes, int inverse) {
  fn_job job = begin(p);
  const int64_t pixels = p->at.shape[0], period = p->at.shape[1];
  const int from_bytes = formats[p->dtype].bytes, to_bytes = formats[to].bytes;
  use(&job, FN_Y, take(p->size * to_bytes), to);
  job.kept_ndim = job.reduced_ndim = 1;
  job.kept[0].size = job.outer = 1;
  job.inner.size = job.period = period;
  job.inner.step[FN_X] = from_bytes;
  job.inner.step[FN_Y] = planes ? pixels * to_bytes : to_bytes;
  job.reduced[0].size = job.n = pixels;
  job.reduced[0].step[FN_X] = period * from_bytes;
  job.reduced[0].step[FN_Y] = planes ? to_bytes : period * to_bytes;
  for (int k = 0; k < FN_STEPS; k++) job.stretch[k] = pixels;
  job.center = numbers(FN_F64, period, UNIFORM, SEED_BIAS);
  job.center_lo = inverse ? NULL : take(period * sizeof(double));
  job.scale = numbers(FN_F64, period, UNIFORM, SEED_WEIGHT);
  job.most = to == FN_U8 ? 255 : 65535;
  job.inverse = inverse;
  job.swap = period > 2;
  job.chunk = 64;
  p->table->pictures(&job, 0, parts(pixels, job.chunk), scratch);
  digest(job.array[FN_Y].data, p->size * to_bytes);
}

static void pictures(const problem *p) {
  static const int floats[] = {FN_F32, FN_F16, FN_BF16};
  const int integer = p->dtype == FN_U8 || p->dtype == FN_U16;
  if (p->dtype == FN_F64 || (p->dtype > FN_BF16 && !integer)) return;
  for (int planes = 0; planes < 2; planes++) {
    for (int i = 0; i < 3; i++) picture(p, floats[i], planes, 0);
    if (!integer) picture(p, FN_U8, planes, 1), picture(p, FN_U16, planes, 1);
  }
}

static void widen_halves(const problem *p) {
  enum { ALL = 1 << 16 };
  uint16_t *halves = take(ALL * sizeof *halves);
  float *floats = take(ALL * sizeof *floats);
  for (int i = 0; i < ALL; i++) halves[i] = (uint16_t)i;
  fn_job job = begin(p);
  use(&job, FN_X, halves, p->dtype);
  use(&job, FN_Y, floats, FN_F32);
  p->table->widen_halves(&job, 0, ALL, NULL);
  for (int i = 0; i < ALL; i++) /* what a NaN carries is no part of any result */
    if (floats[i] == floats[i]) digest(floats + i, sizeof *floats);
}

/* ---- the list ---------------------------------------------------------------------------------------------------- */

#define K FN_KEPT
#define R FN_REDUCED
#define S FN_SHARED
static const layout lines[] = {
    {2, {9, 5, 0}, {K, R, 0}},    {2, {40, 55, 0}, {K, R, 0}},  {2, {8, 64, 0}, {K, R, 0}},
    {2, {5, 100, 0}, {K, R, 0}},  {2, {3, 513, 0}, {K, R, 0}},  {2, {2, 5003, 0}, {K, R, 0}},
    {2, {1, 600, 0}, {R, K, 0}},  {2, {300, 31, 0}, {R, K, 0}}, {2, {70, 8, 0}, {R, K, 0}},
    {2, {37, 600, 0}, {R, K, 0}}, {2, {509, 3, 0}, {R, K, 0}},  {3, {3, 33, 70}, {K, R, K}},
    {3, {4, 7, 130}, {R, K, R}},  {3, {5, 4, 9}, {R, K, R}},
};
static const layout planes[] = {
    {3, {4, 7, 130}, {S, K, S}}, {3, {3, 5, 1030}, {S, K, S}}, {3, {6, 9, 49}, {K, K, S}}, {3, {5, 4, 9}, {S, K, S}},
    {2, {300, 31, 0}, {S, K, 0}}, {2, {37, 600, 0}, {S, K, 0}},
};
static const layout windows[] = {
    {3, {2, 11, 7}, {K, R, K}}, {3, {1, 40, 100}, {K, R, K}}, {3, {3, 5, 1}, {K, R, K}},
};
static const layout tables[] = {
    {2, {300, 31, 0}, {S, K, 0}}, {2, {3, 2100, 0}, {S, K, 0}}, {2, {70, 1, 0}, {S, K, 0}},
};
static const layout long_rows[] = {{1, {70001, 0, 0}, {R, 0, 0}}};
static const layout pixels[] = {
    {2, {1000, 3, 0}, {S, K, 0}}, {2, {77, 4, 0}, {S, K, 0}}, {2, {130, 1, 0}, {S, K, 0}}, {2, {90, 7, 0}, {S, K, 0}},
};
static const layout nothing[] = {{1, {1, 0, 0}, {R, 0, 0}}};
#undef K
#undef R
#undef S

#define OP(function, layouts, first, last) {#function, function, layouts, sizeof layouts / sizeof *layouts, first, last}
static const struct {
  const char *name;
  void (*run)(const problem *);
  const layout *layouts;
  size_t count;
  int first, last; /* storage types */
} ops[] = {
    OP(mean_var, lines, FN_F32, FN_U64),
    OP(mean_var_where, lines, FN_F32, FN_U64),
    OP(moments_4, lines, FN_F32, FN_BF16),
    OP(moments_3_where, lines, FN_F32, FN_BF16),
    OP(moments_merged, long_rows, FN_F32, FN_BF16),
    OP(extrema, lines, FN_F32, FN_U64),
    OP(layer_norm, lines, FN_F32, FN_BF16),
    OP(layer_norm_where, lines, FN_F32, FN_BF16),
    OP(add_layer_norm, lines, FN_F32, FN_BF16),
    OP(rms_norm, lines, FN_F32, FN_BF16),
    OP(standardize, lines, FN_F32, FN_BF16),
    OP(min_max_scale, lines, FN_F32, FN_BF16),
    OP(layer_norm_backward, lines, FN_F32, FN_BF16),
    OP(layer_norm_backward_where, lines, FN_F32, FN_BF16),
    OP(rms_norm_backward, lines, FN_F32, FN_BF16),
    OP(channel_norm, planes, FN_F32, FN_BF16),
    OP(channel_norm_relu, planes, FN_F32, FN_BF16),
    OP(channel_scale, planes, FN_F32, FN_BF16),
    OP(channel_norm_backward, planes, FN_F32, FN_BF16),
    OP(normalize, lines, FN_F32, FN_BF16),
    OP(local_response_norm, windows, FN_F32, FN_BF16),
    OP(quantiles, lines, FN_F32, FN_BF16),
    OP(rescale, tables, FN_F32, FN_BF16),
    OP(fold, planes, FN_F32, FN_BF16),
    OP(round_doubles, long_rows, FN_F32, FN_BF16),
    OP(pictures, pixels, FN_F32, FN_U16),
    OP(widen_halves, nothing, FN_F16, FN_BF16),
};

int main(int argc, char **argv) {
  int isa = 0;
  fn_isa_init();
  while (argc == 2 && isa < fn_isa_count() && strcmp(fn_isa_name(isa), argv[1])) isa++;
  if (argc != 2 || isa == fn_isa_count() || !fn_isa_supported(isa)) {
    fprintf(stderr, "kernels_digest: expected one of the instruction sets of this machine\n");
    return 2;
  }
  fn_isa_force(isa);
  arena = aligned_alloc(64, ARENA);
  scratch = aligned_alloc(64, FN_SCRATCH_BYTES);
  if (!arena || !scratch) return 1;
  for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
    hash = 0xcbf29ce484222325u;
    for (int dtype = ops[i].first; dtype <= ops[i].last; dtype++)
      for (size_t l = 0; l < ops[i].count; l++)
        for (enum kind kind = 0; kind < (formats[dtype].digits ? KINDS : 1); kind++) {
          problem p = {fn_active_table(), dtype, ops[i].layouts[l], kind, 1};
          for (int a = 0; a < p.at.ndim; a++) p.size *= p.at.shape[a];
          taken = 0;
          ops[i].run(&p);
        }
    printf("%s\"%s\": \"%016llx\"", i ? ",\n" : "{\n", ops[i].name, (unsigned long long)hash);
  }
  printf("\n}\n");
  return 0;
}
