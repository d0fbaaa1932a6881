/* Ends one stamp of template.h, so that the next can begin. */
#undef T
#undef K
#undef U
#undef FN
#undef FN_TYPE
#undef FN_COMPUTES
#undef FN_SOURCES
#undef FN_KEY_FLIP
#undef FN_INFINITY
#undef FN_MINUS_INFINITY
#undef FN_NAN
#undef FN_EPS
#undef FN_LARGE
#undef FN_LEAST_SCALE
#undef FN_MOST_SCALE
#undef FN_LEAST_SQUARE
