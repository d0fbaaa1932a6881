/* The memory limit of this machine: what a plain C loop reaches with the same bytes and threads.
 *
 * Each function splits its buffer into one contiguous part per thread. Bytes are counted once per access by the
 * program: a read of n bytes moves n, a copy moves 2 n (n read, n written). An ordinary store to memory also reads the
 * line it is about to fill; that traffic is not counted, which is why streaming stores show a higher rate.
 *
 * The sum is over integers: exact in any order, so the compiler may not drop it and needs no licence to reorder it.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define WIDTH 64
#elif defined(__AVX2__)
#define WIDTH 32
#else
#define WIDTH 16
#endif
#define UNROLL 8
#define BLOCK (WIDTH * UNROLL)

typedef uint64_t vector __attribute__((vector_size(WIDTH), aligned(8), may_alias));

static void stream_vector(char *dst, vector value)
{
#if defined(__AVX512F__)
    _mm512_stream_si512((void *)dst, (__m512i)value);
#elif defined(__AVX2__)
    _mm256_stream_si256((void *)dst, (__m256i)value);
#elif defined(__SSE2__)
    _mm_stream_si128((void *)dst, (__m128i)value);
#else
    *(vector *)dst = value;
#endif
}

/* First byte of a thread's part; parts begin on block boundaries and the last one takes the rest. */
static size_t part(size_t n, int threads, int index)
{
    return index == threads ? n : n / BLOCK * (size_t)index / (size_t)threads * BLOCK;
}

/* Walks two halves side by side: two streams keep more lines in flight than one. */
static uint64_t read_part(const char *src, size_t n)
{
    size_t half = n / 2 / BLOCK * BLOCK;
    vector acc[UNROLL] = {{0}};
    for (size_t i = 0; i < half; i += BLOCK) {
        for (int k = 0; k < UNROLL; k++)
            acc[k] += *(const vector *)(src + i + k * WIDTH);
        for (int k = 0; k < UNROLL; k++)
            acc[k] += *(const vector *)(src + half + i + k * WIDTH);
    }
    uint64_t sum = 0;
    for (int k = 0; k < UNROLL; k++)
        for (int lane = 0; lane < WIDTH / 8; lane++)
            sum += acc[k][lane];
    for (size_t i = 2 * half; i + 8 <= n; i += 8) {
        uint64_t word;
        memcpy(&word, src + i, 8);
        sum += word;
    }
    return sum;
}

static void stream_part(char *dst, const char *src, size_t n)
{
    size_t head = -(uintptr_t)dst % 64; /* streaming stores need alignment, and whole lines to be fast */
    if (head > n)
        head = n;
    memcpy(dst, src, head);
    size_t i = head;
    for (; i + BLOCK <= n; i += BLOCK) {
        vector value[UNROLL];
        for (int k = 0; k < UNROLL; k++)
            value[k] = *(const vector *)(src + i + k * WIDTH);
        for (int k = 0; k < UNROLL; k++)
            stream_vector(dst + i + k * WIDTH, value[k]);
    }
    memcpy(dst + i, src + i, n - i);
#if defined(__SSE2__)
    _mm_sfence();
#endif
}

/* Ordinary stores, for what stays in a cache. */
static void copy_part(char *dst, const char *src, size_t n)
{
    size_t i = 0;
    for (; i + BLOCK <= n; i += BLOCK)
        for (int k = 0; k < UNROLL; k++)
            *(vector *)(dst + i + k * WIDTH) = *(const vector *)(src + i + k * WIDTH);
    memcpy(dst + i, src + i, n - i);
}

/* Each byte becomes a word of four bytes. A block of words is made in cache first, which compilers do with vectors. */
static void widen_part(uint32_t *dst, const uint8_t *src, size_t n)
{
    size_t i = 0;
    for (; i < n && (uintptr_t)(dst + i) % 64; i++)
        dst[i] = src[i];
    for (; i + BLOCK / 4 <= n; i += BLOCK / 4) {
        uint32_t value[BLOCK / 4] __attribute__((aligned(64)));
        for (int k = 0; k < BLOCK / 4; k++)
            value[k] = src[i + k];
        for (int k = 0; k < UNROLL; k++)
            stream_vector((char *)(dst + i) + k * WIDTH, ((const vector *)value)[k]);
    }
    for (; i < n; i++)
        dst[i] = src[i];
#if defined(__SSE2__)
    _mm_sfence();
#endif
}

static void update_part(char *x, size_t n, uint64_t mask)
{
    vector masks = (vector){0} | mask;
    size_t i = 0;
    for (; i + BLOCK <= n; i += BLOCK)
        for (int k = 0; k < UNROLL; k++)
            *(vector *)(x + i + k * WIDTH) ^= masks;
    for (; i + 8 <= n; i += 8) {
        uint64_t word;
        memcpy(&word, x + i, 8);
        word ^= mask;
        memcpy(x + i, &word, 8);
    }
}

/* Sum of the 64-bit words of src, modulo 2^64; up to seven bytes at the end are left out. */
uint64_t memory_read(const char *src, size_t n, int threads)
{
    uint64_t sum = 0;
#pragma omp parallel for num_threads(threads) schedule(static, 1) reduction(+ : sum)
    for (int t = 0; t < threads; t++)
        sum += read_part(src + part(n, threads, t), part(n, threads, t + 1) - part(n, threads, t));
    return sum;
}

void memory_stream(char *dst, const char *src, size_t n, int threads)
{
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int t = 0; t < threads; t++) {
        size_t lo = part(n, threads, t), hi = part(n, threads, t + 1);
        stream_part(dst + lo, src + lo, hi - lo);
    }
}

void memory_copy(char *dst, const char *src, size_t n, int threads)
{
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int t = 0; t < threads; t++) {
        size_t lo = part(n, threads, t), hi = part(n, threads, t + 1);
        copy_part(dst + lo, src + lo, hi - lo);
    }
}

/* Writes n words, each a byte of src: n bytes read, 4 n written. */
void memory_widen(uint32_t *dst, const uint8_t *src, size_t n, int threads)
{
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int t = 0; t < threads; t++) {
        size_t lo = part(n, threads, t), hi = part(n, threads, t + 1);
        widen_part(dst + lo, src + lo, hi - lo);
    }
}

/* Flips the bits of a mask in every 64-bit word of x, but for up to seven bytes at the end. The mask is an argument so
 * that the compiler cannot know that 0 changes nothing.
 */
void memory_update(char *x, size_t n, uint64_t mask, int threads)
{
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int t = 0; t < threads; t++) {
        size_t lo = part(n, threads, t), hi = part(n, threads, t + 1);
        update_part(x + lo, hi - lo, mask);
    }
}
