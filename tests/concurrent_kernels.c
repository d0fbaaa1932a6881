/* Kernels at work as the native module lets them: threads share the pieces of one job, several jobs read one input at
 * the same time, and all borrow scratch. Built with ThreadSanitizer, which speaks of every race; the results of all
 * rounds must be the same bytes. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels.h"
#include "runtime.h"

enum { ROWS = 96, COLS = 3000, SIZE = ROWS * COLS, CREW = 3, ROUNDS = 3 };

static float x[SIZE];
static const fn_table *const table = &fn_table_baseline;

typedef struct {
  fn_kernel kernel;
  const fn_job *job;
  int64_t units;
  _Atomic(int64_t) next;
} work;

static void *take_part(void *of) {
  work *shared = of;
  int64_t unit;
#ifdef RACE /* what the sanitizer must speak of */
  static char scratch[FN_SCRATCH_BYTES] __attribute__((aligned(64)));
#else
  void *scratch = fn_scratch_take(FN_SCRATCH_BYTES);
#endif
  const int before = fn_threads_force(2);
  while ((unit = atomic_fetch_add(&shared->next, 1)) < shared->units) {
    const unsigned word = fn_fp_enter();
    shared->kernel(shared->job, unit, unit + 1, scratch);
    fn_fp_leave(word);
    if (fn_thread_count(CREW) != 2) abort();
  }
  fn_threads_force(before);
#ifndef RACE
  fn_scratch_give(scratch);
#endif
  return NULL;
}

static void share(fn_kernel kernel, const fn_job *job, int64_t units) {
  pthread_t crew[CREW];
  work shared = {.kernel = kernel, .job = job, .units = units};
  for (int i = 0; i < CREW; i++)
    if (pthread_create(&crew[i], NULL, take_part, &shared)) abort();
  for (int i = 0; i < CREW; i++) pthread_join(crew[i], NULL);
}

static fn_job plan(int axis, float *y) {
  static const int64_t shape[2] = {ROWS, COLS}, steps[2] = {COLS * sizeof(float), sizeof(float)};
  const int64_t *const all[FN_ARRAYS] = {[FN_X] = steps, [FN_Y] = y ? steps : NULL};
  const char roles[2] = {axis == 0 ? FN_REDUCED : FN_KEPT, axis == 0 ? FN_KEPT : FN_REDUCED};
  fn_job job;
  memset(&job, 0, sizeof job);
  job.array[FN_X] = (fn_array){.data = (char *)x, .dtype = FN_F32, .aligned = 1};
  if (y) job.array[FN_Y] = (fn_array){.data = (char *)y, .dtype = FN_F32, .aligned = 1};
  job.dtype = job.out_dtype = FN_F32;
  job.shortest = FN_SHORT;
  job.written = -1;
  job.order = 2;
  job.period = job.places = 1;
  fn_plan(&job, 2, shape, all, roles);
  return job;
}

static int64_t parts(int64_t whole, int64_t part) { return (whole + part - 1) / part; }

static void normalize(float *y, int axis) {
  fn_job job = plan(axis, y);
  job.eps = 1e-5;
  job.finish = FN_RECIPROCAL;
  if (job.columns) job.strip = 64;
  share(job.columns ? table->norm_columns[FN_F32] : table->norm_rows[FN_F32], &job,
        job.outer * (job.columns ? parts(job.inner.size, job.strip) : 1));
}

/* Chunk states side by side, folded from the left. */
static void take_moments(float *mean, float *var) {
  fn_job whole = plan(0, NULL), wave = whole;
  const int64_t chunks = parts(whole.n, whole.chunk);
  double *states = malloc(FN_PLANES * COLS * (size_t)(chunks + 1) * sizeof *states);
  if (!states) abort();
  whole.mean = mean;
  whole.spread = var;
  wave.state = states + FN_PLANES * COLS;
  wave.state_stride = chunks * COLS;
  table->begin_columns(&whole, 0, COLS, states);
  share(table->moments_chunks[FN_F32], &wave, chunks);
  table->merge_slots(&wave, 0, chunks, states);
  table->finish_columns(&whole, 0, COLS, states);
  free(states);
}

static void take_extrema(float *low, float *high) {
  fn_job job = plan(1, NULL);
  job.chunk = job.n;
  job.state_stride = ROWS;
  job.min = low;
  job.max = high;
  share(job.columns ? table->extrema_columns[FN_F32] : table->extrema_rows[FN_F32], &job,
        job.outer * parts(job.inner.size, job.strip));
}

static int find_nonfinite(void) {
  int found = 0;
  fn_job job = plan(1, NULL);
  job.found = &found;
  share(table->find_nonfinite[FN_F32], &job, job.outer * parts(job.n, FN_CHUNK));
  return found;
}

typedef struct {
  float rows[SIZE], columns[SIZE], mean[COLS], var[COLS], low[ROWS], high[ROWS];
  int found;
} results;

static void *all_of_it(void *to) {
  results *got = to;
  for (int round = 0; round < ROUNDS; round++) {
    normalize(got->rows, 1);
    take_moments(got->mean, got->var);
    fn_threads_set(round);
    normalize(got->columns, 0);
    take_extrema(got->low, got->high);
    got->found = find_nonfinite();
    fn_threads_limits();
  }
  return NULL;
}

int main(void) {
  enum { CALLERS = 3 };
  pthread_t callers[CALLERS];
  results *got = calloc(CALLERS, sizeof *got);
  if (!got || fn_threads_init()) return 1;
  for (int i = 0; i < SIZE; i++) x[i] = (float)(i * 7919 % 10007) / 10007;
  x[SIZE - 1] = 1.0f / 0.0f;
  for (int i = 0; i < CALLERS; i++)
    if (pthread_create(&callers[i], NULL, all_of_it, &got[i])) return 1;
  for (int i = 0; i < CALLERS; i++) pthread_join(callers[i], NULL);
  for (int i = 1; i < CALLERS; i++)
    if (memcmp(&got[0], &got[i], sizeof *got)) return 2;
  printf("%d %.6f\n", got[0].found, (double)got[0].var[0]);
  free(got);
  return 0;
}
