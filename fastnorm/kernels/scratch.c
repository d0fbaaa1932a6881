/* Scratch that calls borrow.
 *
 * What was given back last is kept for the next call: the system would have to clear its pages anew, which takes longer
 * than many a call. Calls at the same time find nothing kept and allocate their own. Nothing here takes a lock.
 */
#include <stdatomic.h>
#include <stdlib.h>

#include "runtime.h"

enum { ALIGNMENT = 64, MOST_KEPT = 16 << 20 };

/* The size stands before the scratch. */
static _Atomic(char *) kept;

void *fn_scratch_take(size_t bytes) {
  char *block = atomic_exchange(&kept, NULL);
  if (block && *(size_t *)(void *)block >= bytes) return block + ALIGNMENT;
  free(block);
  block = aligned_alloc(ALIGNMENT, (bytes + 2 * ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
  if (!block) return NULL;
  *(size_t *)(void *)block = bytes;
  return block + ALIGNMENT;
}

void fn_scratch_give(void *scratch) {
  if (!scratch) return;
  char *block = (char *)scratch - ALIGNMENT, *none = NULL;
  if (*(size_t *)(void *)block > MOST_KEPT || !atomic_compare_exchange_strong(&kept, &none, block)) free(block);
}
