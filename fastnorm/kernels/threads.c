/* How many threads a call may use, and where each limit comes from.
 *
 * What was asked for wins: in the calling thread, then for the process. Otherwise the smallest limit counts. The limits
 * of the operating system cost files to read, so their minimum is kept until somebody asks to read them again; OpenMP's
 * belongs to the calling thread and may change between two calls, so it comes in as an argument.
 *
 * After fork a child has none of the OpenMP workers that the runtime believes to have (gcc's waits for them for ever):
 * from then on every count is 1, whatever was asked for. Nothing here takes a lock that a fork could leave held.
 */
#if defined(__linux__)
#define _GNU_SOURCE
#endif
#include "runtime.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static _Thread_local int forced_threads;
static atomic_int set_threads;
static atomic_int system_limit; /* min(affinity, quota); 0: not read */
static atomic_int affinity, quota;
static atomic_int forked;

static int smaller(int a, int b) { return a < b ? a : b; }

/* ---- the limits of the operating system -------------------------------------------------------------------------- */

#if defined(__linux__)
static int read_affinity(void) {
  /* The kernel refuses a set smaller than its own, whose size it does not tell. */
  for (size_t cpus = CPU_SETSIZE; cpus <= (size_t)1 << 20; cpus *= 2) {
    cpu_set_t *set = CPU_ALLOC(cpus);
    if (!set) break;
    size_t size = CPU_ALLOC_SIZE(cpus);
    int refused = sched_getaffinity(0, size, set) ? errno : 0;
    int count = refused ? 0 : CPU_COUNT_S(size, set);
    CPU_FREE(set);
    if (count > 0) return count;
    if (refused != EINVAL) break;
  }
  return (int)sysconf(_SC_NPROCESSORS_ONLN);
}
#else
static int read_affinity(void) { return (int)sysconf(_SC_NPROCESSORS_ONLN); }
#endif

/* Reads up to two integers, returns how many there were; "max", the word for no quota, is none. */
static int read_integers(const char *path, long long *first, long long *second) {
  FILE *stream = fopen(path, "re");
  if (!stream) return 0;
  int count = fscanf(stream, "%lld %lld", first, second);
  fclose(stream);
  return count;
}

/* Lowers *best to the smallest quota of `group` and its ancestors below `mount`. Version 2 keeps quota and period in
 * one file (`period_name` is NULL), version 1 in two. A group that is not there (a container sees the path of its
 * host) only means that the walk begins higher up. */
static void walk_groups(const char *mount, const char *group, const char *quota_name, const char *period_name,
                        int *best, char file[FN_PATH_SIZE]) {
  char path[FN_PATH_SIZE], period_path[FN_PATH_SIZE];
  int end = (int)strlen(group);
  while (end && group[end - 1] == '/') end--;
  for (;;) {
    long long time = 0, period = 100000, unused;
    int fits = snprintf(path, sizeof path, "%s%.*s/%s", mount, end, group, quota_name) < (int)sizeof path;
    int found = fits && read_integers(path, &time, &period) > 0;
    if (found && period_name) {
      fits = snprintf(period_path, sizeof period_path, "%s%.*s/%s", mount, end, group, period_name) <
             (int)sizeof period_path;
      found = fits && read_integers(period_path, &period, &unused) > 0;
    }
    if (found && time > 0 && period > 0) {
      long long cpus = time / period + (time % period != 0);
      if (cpus < (*best ? *best : INT_MAX)) {
        *best = (int)cpus;
        memcpy(file, path, strlen(path) + 1);
      }
    }
    if (!end) return;
    while (group[--end] != '/') {
    }
  }
}

static int list_has(const char *list, const char *word) {
  for (;;) {
    size_t length = strcspn(list, ",");
    if (length == strlen(word) && !strncmp(list, word, length)) return 1;
    if (!list[length]) return 0;
    list += length + 1;
  }
}

int fn_cgroup_quota(const char *root, char file[FN_PATH_SIZE]) {
  static const char *const unified[] = {"", "/unified"};
  char mount[FN_PATH_SIZE], line[FN_PATH_SIZE];
  int best = 0;
  file[0] = 0;
  if (snprintf(mount, sizeof mount, "%s/proc/self/cgroup", root) >= (int)sizeof mount) return 0;
  FILE *groups = fopen(mount, "re");
  if (!groups) return 0;
  /* A line is id:controllers:/path; version 2 names no controllers. */
  while (fgets(line, sizeof line, groups)) {
    line[strcspn(line, "\n")] = 0;
    char *controllers = strchr(line, ':');
    char *colon = controllers ? strchr(controllers + 1, ':') : NULL;
    if (!colon) continue;
    *colon = 0;
    controllers++;
    /* A path through ".." is outside what this namespace shows; its root is the nearest group to be seen. */
    const char *group = colon[1] == '/' && !strstr(colon + 1, "/..") ? colon + 1 : "/";
    int version_2 = !*controllers;
    if (!version_2 && !list_has(controllers, "cpu")) continue;
    for (int i = 0; i < 2; i++) {
      const char *name = version_2 ? unified[i] : i ? controllers : "cpu";
      const char *slash = version_2 ? "" : "/";
      if (snprintf(mount, sizeof mount, "%s/sys/fs/cgroup%s%s", root, slash, name) >= (int)sizeof mount) continue;
      walk_groups(mount, group, version_2 ? "cpu.max" : "cpu.cfs_quota_us", version_2 ? NULL : "cpu.cfs_period_us",
                  &best, file);
    }
  }
  fclose(groups);
  return best;
}

static int read_limits(void) {
  char file[FN_PATH_SIZE];
  int cpus = read_affinity(), share = fn_cgroup_quota("", file);
  int limit = cpus < 1 ? 1 : cpus;
  atomic_store(&affinity, limit);
  atomic_store(&quota, share);
  limit = share ? smaller(limit, share) : limit;
  atomic_store(&system_limit, limit);
  return limit;
}

/* ---- the count --------------------------------------------------------------------------------------------------- */

static int get_limit(void) {
  int limit = atomic_load_explicit(&system_limit, memory_order_relaxed);
  return limit ? limit : read_limits();
}

int fn_thread_count(int omp_max) {
  int n;
  if (atomic_load_explicit(&forked, memory_order_relaxed)) return 1;
  if ((n = forced_threads)) return n;
  if ((n = atomic_load_explicit(&set_threads, memory_order_relaxed))) return n;
  return smaller(get_limit(), omp_max);
}

int fn_threads_force(int n) {
  int previous = forced_threads;
  forced_threads = n;
  return previous;
}

void fn_threads_set(int n) {
  if (!n) read_limits();
  atomic_store(&set_threads, n);
}

fn_thread_limits fn_threads_limits(void) {
  get_limit();
  return (fn_thread_limits){
      .affinity = atomic_load(&affinity),
      .quota = atomic_load(&quota),
      .set = atomic_load(&set_threads),
      .forced = forced_threads,
      .forked = atomic_load(&forked),
  };
}

static void in_forked_child(void) {
  atomic_store(&forked, 1);
  atomic_store(&system_limit, 0);
}

int fn_threads_init(void) {
  static int installed;
  int error = installed ? 0 : pthread_atfork(NULL, NULL, in_forked_child);
  installed = !error;
  read_limits();
  return error;
}
