/* The kernels for x86 with AVX-512 (F, VL, DQ, BW), 64-byte vectors preferred. */
#if defined(__x86_64__)
#include <immintrin.h>
#define FN_ISA avx512
#define FN_VECTOR 64
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512dq,avx512bw,fma,f16c"))),                   \
                             apply_to = function)
#pragma clang attribute push(__attribute__((min_vector_width(512))), apply_to = function)
#include "template.h"
#pragma clang attribute pop
#pragma clang attribute pop
#else
#pragma GCC target("avx512f,avx512vl,avx512dq,avx512bw,fma,f16c,prefer-vector-width=512")
#include "template.h"
#endif
#endif
