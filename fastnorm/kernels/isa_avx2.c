/* The kernels for x86 with AVX2. */
#if defined(__x86_64__)
#include <immintrin.h>
#define FN_ISA avx2
#define FN_VECTOR 32
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#include "template.h"
#pragma clang attribute pop
#else
#pragma GCC target("avx2,fma,f16c")
#include "template.h"
#endif
#endif
