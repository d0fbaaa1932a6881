/* Stamps every kernel family for each type and emits the table of one ISA, fn_table_<FN_ISA>.
 *
 * A wrapper isa_<name>.c sets the target by a pragma, defines FN_ISA and FN_VECTOR (bytes of a vector register) and
 * includes this file; nothing else differs.
 */
#include <math.h>
#include <string.h>

#include "kernels.h"

#define FN_JOIN_(a, b) a##b
#define FN_JOIN(a, b) FN_JOIN_(a, b)

/* The next loop's elements do not depend on each other, although the compiler cannot see it. */
#if defined(__clang__)
#define FN_IVDEP _Pragma("clang loop vectorize(assume_safety)")
#else
#define FN_IVDEP _Pragma("GCC ivdep")
#endif

#define FN_INLINE static inline __attribute__((always_inline))

#include "memory.h"
#include "half.h"
#include "state.h"
#include "power.h"
#include "wide.h"

/* ---- storage types that are not computed in: extrema (bytes first: masks are bytes) ------------------------------ */

#define T uint8_t
#define K T
#define FN(name) name##_u8
#define FN_TYPE FN_U8
#define FN_SOURCES(X) X(FN_U8, T, uint8_t, , FN_AS_IS)
#include "convert.h"
#include "mask.h"
#include "extrema.h"
#include "unstamp.h"

#define T int8_t
#define K T
#define FN(name) name##_i8
#define FN_TYPE FN_I8
#define FN_SOURCES(X) X(FN_I8, T, uint8_t, , FN_AS_IS)
#include "convert.h"
#include "extrema.h"
#include "unstamp.h"

#define T int16_t
#define K T
#define FN(name) name##_i16
#define FN_TYPE FN_I16
#define FN_SOURCES(X) X(FN_I16, T, uint16_t, fn_swap16, FN_AS_IS)
#include "convert.h"
#include "extrema.h"
#include "unstamp.h"

#define T uint16_t
#define K T
#define FN(name) name##_u16
#define FN_TYPE FN_U16
#define FN_SOURCES(X) X(FN_U16, T, uint16_t, fn_swap16, FN_AS_IS)
#include "convert.h"
#include "extrema.h"
#include "unstamp.h"

#define T int32_t
#define K T
#define FN(name) name##_i32
#define FN_TYPE FN_I32
#define FN_SOURCES(X) X(FN_I32, T, uint32_t, fn_swap32, FN_AS_IS)
#include "convert.h"
#include "extrema.h"
#include "unstamp.h"

#define T uint32_t
#define K T
#define FN(name) name##_u32
#define FN_TYPE FN_U32
#define FN_SOURCES(X) X(FN_U32, T, uint32_t, fn_swap32, FN_AS_IS)
#include "convert.h"
#include "extrema.h"
#include "unstamp.h"

#define T int64_t
#define K T
#define FN(name) name##_i64
#define FN_TYPE FN_I64
#define FN_SOURCES(X) X(FN_I64, T, uint64_t, fn_swap64, FN_AS_IS)
#include "convert.h"
#include "extrema.h"
#include "unstamp.h"

#define T uint64_t
#define K T
#define FN(name) name##_u64
#define FN_TYPE FN_U64
#define FN_SOURCES(X) X(FN_U64, T, uint64_t, fn_swap64, FN_AS_IS)
#include "convert.h"
#include "extrema.h"
#include "unstamp.h"

#define T uint16_t
#define K int16_t
#define FN(name) name##_f16
#define FN_TYPE FN_F16
#define FN_SOURCES(X) X(FN_F16, T, uint16_t, fn_swap16, FN_AS_IS)
#define FN_KEY_FLIP(bits) ((bits) ^ (int16_t)((uint16_t)((bits) >> 15) >> 1))
#define FN_INFINITY 0x7c00
#define FN_MINUS_INFINITY 0xfc00
#define FN_NAN 0x7e00
#include "convert.h"
#include "extrema.h"
#include "unstamp.h"

#define T uint16_t
#define K int16_t
#define FN(name) name##_bf16
#define FN_TYPE FN_BF16
#define FN_SOURCES(X) X(FN_BF16, T, uint16_t, fn_swap16, FN_AS_IS)
#define FN_KEY_FLIP(bits) ((bits) ^ (int16_t)((uint16_t)((bits) >> 15) >> 1))
#define FN_INFINITY 0x7f80
#define FN_MINUS_INFINITY 0xff80
#define FN_NAN 0x7fc0
#include "convert.h"
#include "extrema.h"
#include "unstamp.h"

/* ---- compute types (double first: float sums in it) -------------------------------------------------------------- */

#define T double
#define K int64_t
#define U uint64_t
#define FN(name) name##_f64
#define FN_TYPE FN_F64
#define FN_COMPUTES 1
#define FN_SOURCES(X) FN_STORAGE(X)
#define FN_KEY_FLIP(bits) ((bits) ^ (int64_t)((uint64_t)((bits) >> 63) >> 1))
#define FN_INFINITY (T)__builtin_inf()
#define FN_MINUS_INFINITY -(T)__builtin_inf()
#define FN_NAN (T)__builtin_nan("")
#define FN_EPS 0x1p-52
#define FN_LARGE 0x1p+1022
#define FN_LEAST_SCALE 0x1p-900
#define FN_MOST_SCALE 0x1p+900
#define FN_LEAST_SQUARE 0x1p-900
#include "convert.h"
#include "extrema.h"
#include "vectors.h"
#include "moments.h"
#include "masked.h"
#include "norm_stats.h"
#include "careful.h"
#include "apply.h"
#include "apply_halves.h"
#include "norm.h"
#include "channels.h"
#include "backward_rows.h"
#include "backward_sums.h"
#include "backward_careful.h"
#include "backward_batch.h"
#include "backward_short.h"
#include "backward.h"
#include "channel_slopes.h"
#include "channel_rows.h"
#include "channel_planes.h"
#include "channel_columns.h"
#include "channel_backward.h"
#include "normalize_careful.h"
#include "normalize.h"
#include "response.h"
#include "response_backward.h"
#include "rescale_lines.h"
#include "rescale.h"
#include "fold.h"
#include "quantiles.h"
#include "unstamp.h"

#define T float
#define K int32_t
#define U uint32_t
#define FN(name) name##_f32
#define FN_TYPE FN_F32
#define FN_COMPUTES 1
#define FN_SOURCES(X) X(FN_F32, float, uint32_t, fn_swap32, FN_AS_IS) FN_HALVES(X)
#define FN_KEY_FLIP(bits) ((bits) ^ (int32_t)((uint32_t)((bits) >> 31) >> 1))
#define FN_INFINITY (T)__builtin_inf()
#define FN_MINUS_INFINITY -(T)__builtin_inf()
#define FN_NAN (T)__builtin_nan("")
#define FN_EPS 0x1p-23
#define FN_LARGE 0x1p+126       /* differences from a center no larger do not overflow */
#define FN_LEAST_SCALE 0x1p-100 /* scales in between are rounded to full precision, and so is what they scale */
#define FN_MOST_SCALE 0x1p+100
#define FN_LEAST_SQUARE 0x1p-100 /* sums of squares above lose nothing to underflow */
#include "convert.h"
#include "extrema.h"
#include "vectors.h"
#include "moments.h"
#include "masked.h"
#include "norm_stats.h"
#include "careful.h"
#include "apply.h"
#include "apply_halves.h"
#include "norm.h"
#include "channels.h"
#include "backward_rows.h"
#include "backward_sums.h"
#include "backward_careful.h"
#include "backward_batch.h"
#include "backward_short.h"
#include "backward.h"
#include "channel_slopes.h"
#include "channel_rows.h"
#include "channel_planes.h"
#include "channel_columns.h"
#include "channel_backward.h"
#include "normalize_careful.h"
#include "normalize.h"
#include "response.h"
#include "response_backward.h"
#include "rescale_lines.h"
#include "rescale.h"
#include "fold.h"
#include "quantiles.h"
#include "unstamp.h"

/* ---- both compute types at once: pictures ------------------------------------------------------------------------ */

#include "picture_lines.h"
#include "picture_pixels.h"
#include "picture.h"

/* ---- the table --------------------------------------------------------------------------------------------------- */

#define FN_STRING_(name) #name
#define FN_STRING(name) FN_STRING_(name)

const fn_table FN_JOIN(fn_table_, FN_ISA) = {.isa = FN_STRING(FN_ISA),
#define FN_SLOT(name) .name = {name##_f32, name##_f64},
                                             FN_KERNELS(FN_SLOT)
#undef FN_SLOT
#define FN_SLOT(name) .name = fn_##name,
                                                 FN_STATE_KERNELS(FN_SLOT)
#undef FN_SLOT
#define FN_SLOT(name)                                                                                                  \
  .name = {name##_f32, name##_f64, name##_f16, name##_bf16, name##_i8,  name##_u8,                                     \
           name##_i16, name##_u16, name##_i32, name##_u32,  name##_i64, name##_u64},
                                                     FN_EXTREMA_KERNELS(FN_SLOT)
#undef FN_SLOT
};
