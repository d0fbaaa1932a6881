/* The kernels as every machine of the architecture runs them. */
#define FN_ISA baseline
#define FN_VECTOR 16
#include "template.h"
