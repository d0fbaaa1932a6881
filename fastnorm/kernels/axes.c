/* The canonical form of a problem: which axes are reduced, in what order memory is walked, which driver serves it.
 *
 * Kept and reduced axes are ordered by stride and collapsed apart from each other, so a problem over any axes of an
 * array of any layout becomes rows (memory runs along a reduced axis) or columns (it runs along a kept one, `inner`).
 */
#include <string.h>

#include "kernels.h"

static int64_t magnitude(int64_t stride) {
  return stride == 0 ? INT64_MAX : stride < 0 ? -stride : stride; /* a repeated element belongs outermost */
}

/* Outermost first (stable: equal strides keep the array's order), neighbours collapsed. Returns how many are left. What
 * is read alone would give `pieces` of them, the innermost of size `run`: where results go must not change bits. */
static int canonical(fn_axis *axes, int count, int *pieces, int64_t *run) {
  for (int i = 1; i < count; i++) {
    fn_axis axis = axes[i];
    int at = i;
    for (; at > 0 && magnitude(axes[at - 1].step[FN_X]) < magnitude(axis.step[FN_X]); at--) axes[at] = axes[at - 1];
    axes[at] = axis;
  }
  int last = 0;
  *pieces = count > 0;
  *run = count > 0 ? axes[0].size : 1;
  for (int i = 1; i < count; i++) {
    fn_axis a = axes[last], b = axes[i];
    int joined = 1, read = 1;
    for (int k = 0; k < FN_STEPS; k++) {
      const int fits = a.step[k] == b.step[k] * b.size;
      joined &= fits;
      read &= fits || k == FN_Y || k == FN_S;
    }
    *pieces += !read;
    *run = read ? *run * b.size : b.size;
    if (!joined) last++;
    axes[last] = b;
    if (joined) axes[last].size = a.size * b.size;
  }
  return count ? last + 1 : 0;
}

/* How many reduced elements lie one step of kind `which` apart, from the first on and from every multiple. */
static int64_t stretch(const fn_job *job, int which) {
  const fn_axis *axes = job->reduced;
  int last = job->reduced_ndim - 1;
  if (last < 0) return 1;
  int64_t size = axes[last].size;
  for (; last > 0 && axes[last - 1].step[which] == axes[last].step[which] * axes[last].size; last--)
    size *= axes[last - 1].size;
  return size;
}

static int64_t product(const fn_axis *axes, int count) {
  int64_t size = 1;
  for (int i = 0; i < count; i++) size *= axes[i].size;
  return size;
}

static int64_t power_of_two_within(int64_t n) {
  int64_t power = 1;
  while (power <= n / 2) power *= 2;
  return power;
}

/* Depends on the number of columns alone, so that a stream cut at its multiples gives the same bits. */
int64_t fn_block_rows(int64_t columns) {
  return power_of_two_within(FN_CHUNK / (columns < FN_STRIP ? (columns > 0 ? columns : 1) : FN_STRIP));
}

void fn_plan(fn_job *job, int ndim, const int64_t *shape, const int64_t *const *steps, const char *roles) {
  int64_t p[FN_MAX_AXES], next[] = {1, 1, 0};
  for (int a = ndim - 1; a >= 0; a--) {
    p[a] = next[(int)roles[a]];
    next[(int)roles[a]] *= shape[a];
  }
  const int has_affine = job->weight || job->bias || job->dweight || job->dbias;
  const int writes = job->array[FN_Y].data != NULL; /* not by its steps: an array of no dimensions has none */
  job->kept_ndim = job->reduced_ndim = 0;
  job->p = 0;
  for (int a = 0; a < ndim; a++) {
    fn_axis axis = {.size = shape[a]};
    if (axis.size == 1) continue;
    for (int k = 0; k < FN_ARRAYS; k++) axis.step[k] = steps[k] ? steps[k][a] : 0;
    axis.step[FN_P] = roles[a] != FN_KEPT && !has_affine ? 0 : p[a];
    if (!writes && axis.step[FN_X] < 0) { /* statistics do not mind the direction */
      if (roles[a] != FN_KEPT) axis.step[FN_P] = 0;
      job->p += (axis.size - 1) * axis.step[FN_P];
      for (int k = 0; k < FN_STEPS; k++) {
        if (k < FN_ARRAYS && steps[k]) job->array[k].data += (axis.size - 1) * axis.step[k];
        axis.step[k] = -axis.step[k];
      }
    }
    if (roles[a] != FN_KEPT)
      job->reduced[job->reduced_ndim++] = axis;
    else
      job->kept[job->kept_ndim++] = axis;
  }
  int kept_pieces, pieces;
  int64_t beside, run;
  job->kept_ndim = canonical(job->kept, job->kept_ndim, &kept_pieces, &beside);
  job->reduced_ndim = canonical(job->reduced, job->reduced_ndim, &pieces, &run);
  job->n = product(job->reduced, job->reduced_ndim);
  for (int k = 0; k < FN_STEPS; k++) job->stretch[k] = stretch(job, k);

  /* Short rows go side by side; a norm takes even a single one as a column. */
  const fn_axis *kept = job->kept + job->kept_ndim - 1, *along = job->reduced + job->reduced_ndim - 1;
  const int across =
      job->kept_ndim > 0 && (job->reduced_ndim == 0 || magnitude(kept->step[FN_X]) < magnitude(along->step[FN_X]));
  job->columns = across || (job->n < job->shortest && (writes || job->kept_ndim > 0));
  job->inner = (fn_axis){.size = 1};
  if (job->columns && job->kept_ndim > 0) job->inner = job->kept[--job->kept_ndim];
  job->outer = product(job->kept, job->kept_ndim);
  job->beside = job->columns ? beside : 1;
  job->dense = pieces == 1 && job->reduced[job->reduced_ndim - 1].step[FN_X] == job->beside * job->inner.step[FN_X];
  job->chunk = fn_block_rows(job->beside);
  job->strip = FN_STRIP;
}

void fn_copy(fn_job *to, const fn_job *from) {
  memcpy(to, from, offsetof(fn_job, kept));
  for (int a = 0; a < from->kept_ndim; a++) to->kept[a] = from->kept[a];
  for (int a = 0; a < from->reduced_ndim; a++) to->reduced[a] = from->reduced[a];
}
