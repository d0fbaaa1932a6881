/* What a call needs to know about the machine: which table of kernels, how many threads, and a known floating-point
 * control word.
 *
 * A forced ISA and a forced thread count belong to the calling Python thread. OpenMP workers have thread-locals of
 * their own, so the door asks both questions once, before a parallel region. This header and the files behind it know
 * neither Python nor OpenMP: what OpenMP says comes in as an argument.
 */
#ifndef FASTNORM_RUNTIME_H
#define FASTNORM_RUNTIME_H

#include <stddef.h>
#include <stdint.h>

#include "kernels.h"

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

/* ---- instruction sets: an ISA is its index in the list of dispatch.c, best first --------------------------------- */

void fn_isa_init(void); /* reads the CPU and the OS state; until then the baseline is active */
int fn_isa_count(void);
const char *fn_isa_name(int isa);
int fn_isa_supported(int isa);
void fn_isa_set_default(int isa); /* for the process; meant for import time */
int fn_isa_force(int isa);        /* for the calling thread; -1: nothing forced. Returns what was forced before */
int fn_isa_active(void);
const fn_table *fn_active_table(void);

/* ---- threads: a count of 0 means "not set", a limit of 0 "no limit" ---------------------------------------------- */

#define FN_PATH_SIZE 4352 /* PATH_MAX of Linux and room for a mount point */

typedef struct {
  int affinity; /* CPUs that the thread which read the limits may run on */
  int quota;    /* of the control group, in CPUs, rounded up */
  int set;      /* by fn_threads_set */
  int forced;   /* by fn_threads_force, in the calling thread */
  int forked;   /* this process is a forked child */
} fn_thread_limits;

int fn_threads_init(void);   /* installs the fork handler and reads the limits; returns 0 or an errno */
void fn_threads_set(int n);  /* for the process; 0 returns to the limits and reads them again */
int fn_threads_force(int n); /* for the calling thread; 0: nothing forced. Returns what was forced before */
int fn_thread_count(int omp_max);
fn_thread_limits fn_threads_limits(void);

/* The CPU quota of this process's control group, version 1 or 2: the smallest between the group and the root, in CPUs
 * rounded up. `root` stands before /proc and /sys ("" is this machine); `file` receives the path that decided. */
int fn_cgroup_quota(const char *root, char file[FN_PATH_SIZE]);

/* ---- scratch of a call ------------------------------------------------------------------------------------------- */

void *fn_scratch_take(size_t bytes); /* aligned to a cache line, with whatever it held; NULL: no memory */
void fn_scratch_give(void *scratch); /* NULL is nothing */

/* ---- floating-point control word --------------------------------------------------------------------------------- */

/* Another library may have set flush-to-zero or a rounding mode, which would change bits. Every thread that runs
 * kernels calls fn_fp_enter before and fn_fp_leave after. The word is written only where it differs, because writing
 * it drains the pipeline. */
#if defined(__SSE__)
#define FN_FP_STATUS 0x003fu  /* sticky exception flags, not control */
#define FN_FP_DEFAULT 0x1f80u /* round to nearest, subnormals kept, exceptions masked */
static inline unsigned fn_fp_read(void) { return _mm_getcsr(); }
static inline void fn_fp_write(unsigned word) { _mm_setcsr(word); }
#elif defined(__aarch64__)
#define FN_FP_STATUS 0u
#define FN_FP_DEFAULT 0u
static inline unsigned fn_fp_read(void) {
  uint64_t word;
  __asm__ __volatile__("mrs %0, fpcr" : "=r"(word));
  return (unsigned)word;
}
static inline void fn_fp_write(unsigned word) { __asm__ __volatile__("msr fpcr, %0" : : "r"((uint64_t)word)); }
#else
#define FN_FP_STATUS 0u
#define FN_FP_DEFAULT 0u
static inline unsigned fn_fp_read(void) { return FN_FP_DEFAULT; }
static inline void fn_fp_write(unsigned word) { (void)word; }
#endif

static inline int fn_fp_is_default(unsigned word) { return (word & ~FN_FP_STATUS) == FN_FP_DEFAULT; }

static inline unsigned fn_fp_enter(void) {
  unsigned word = fn_fp_read();
  if (!fn_fp_is_default(word)) fn_fp_write(FN_FP_DEFAULT | (word & FN_FP_STATUS));
  return word;
}

static inline void fn_fp_leave(unsigned word) {
  if (!fn_fp_is_default(word)) fn_fp_write(word);
}

#endif
