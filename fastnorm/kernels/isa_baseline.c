/* The kernels as every machine of the architecture runs them. */
#define FN_ISA baseline
#include "template.h"
