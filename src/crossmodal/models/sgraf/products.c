/* Products of blocks that stay in registers: what kernels.c, gradients.c and pairs.c are made of.

   T: targets, words or global vectors of captions; R: regions of an image; E: embedding; S: similarity vector
   map: weight (S, E), laid out as (S / WIDTH, E, WIDTH)
   unit: 4 bytes, one fp32 number, or in bf16 a pair of numbers; such a map is (S / WIDTH, E / 2, WIDTH, 2)
   scratch: memory of the caller to work in
   out_rows, dest: where the results of a block's rows go, and WIDTH of them; stride, across: between the rows of an
   input, and of a map
   Sums are fp32. Blocks of ROWS x WIDTH sums stay in registers. */

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
enum { LANES = 16, ROWS = 14 };
#elif defined(__AVX__)
enum { LANES = 8, ROWS = 6 };
#else
enum { LANES = 4, ROWS = 8 };
#endif
enum { WIDTH = 2 * LANES, DEPTH = 256 };
/* may_alias: pack writes numbers of bf16, which are read as units */
typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

#define INLINE static inline __attribute__((always_inline))
#define EVERY_ROW _Pragma("GCC unroll 14") for (int i = 0; i < rows; i++)

INLINE vec load(const float *from) { return *(const vec *)from; }
INLINE void store(float *to, vec values) { *(vec *)to = values; }

/* sums + x * y, x one unit for all lanes; in bf16 both numbers of a unit */
INLINE vec multiply(vec sums, const float *x, vec y, int bf16) {
#ifdef __AVX512BF16__
    if (bf16) {
        int pair;
        memcpy(&pair, x, sizeof pair);
        return (vec)_mm512_dpbf16_ps((__m512)sums, (__m512bh)_mm512_set1_epi32(pair), (__m512bh)y);
    }
#endif
    return sums + *x * y;
}

/* out[i] (WIDTH) = x[i] (depth) . map (depth, WIDTH) + bias (WIDTH), or + what out[i] holds */
INLINE void products(int rows, float *const *out, const float *x, ptrdiff_t stride, const float *map, ptrdiff_t across,
                     int depth, const float *bias, int bf16) {
    vec sums[ROWS][2];
    EVERY_ROW sums[i][0] = load(bias ? bias : out[i]), sums[i][1] = load((bias ? bias : out[i]) + LANES);
    for (int k = 0; k < depth; k++) {
        vec left = load(map + k * across), right = load(map + k * across + LANES);
        EVERY_ROW {
            sums[i][0] = multiply(sums[i][0], x + i * stride + k, left, bf16);
            sums[i][1] = multiply(sums[i][1], x + i * stride + k, right, bf16);
        }
    }
    EVERY_ROW store(out[i], sums[i][0]), store(out[i] + LANES, sums[i][1]);
}

INLINE void write(float *to, vec left, vec right, int bf16) {
#ifdef __AVX512BF16__
    if (bf16) {
        __m512bh both = _mm512_cvtne2ps_pbh((__m512)right, (__m512)left);
        memcpy(to, &both, sizeof both);
        return;
    }
#endif
    store(to, left), store(to + LANES, right);
}

/* out[i] (WIDTH numbers) = (weights[i] (regions units) . values (regions, WIDTH) - targets[i] (WIDTH))^2 */
INLINE void differences(int rows, float *out, const float *weights, int regions, const float *values,
                        const float *targets, ptrdiff_t stride, int bf16) {
    vec sums[ROWS][2];
    EVERY_ROW sums[i][0] = -load(targets + i * stride), sums[i][1] = -load(targets + i * stride + LANES);
    for (int r = 0; r < regions; r++) {
        vec left = load(values + r * WIDTH), right = load(values + r * WIDTH + LANES);
        EVERY_ROW {
            sums[i][0] = multiply(sums[i][0], weights + i * regions + r, left, bf16);
            sums[i][1] = multiply(sums[i][1], weights + i * regions + r, right, bf16);
        }
    }
    EVERY_ROW write(out + i * DEPTH, sums[i][0] * sums[i][0], sums[i][1] * sums[i][1], bf16);
}

/* the same with a number of rows and a type that are known when this is compiled, so that sums stay in registers */
#if defined(__AVX512F__)
#define CASES CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12) CASE(13) CASE(14)
#elif defined(__AVX__)
#define CASES CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)
#else
#define CASES CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8)
#endif
#define CASE(n) case n: if (bf16) WORK(n, 1); else WORK(n, 0); break;

static void products_of(int rows, float *const *out, const float *x, ptrdiff_t stride, const float *map,
                        ptrdiff_t across, int depth, const float *bias, int bf16) {
#define WORK(n, bf16) products(n, out, x, stride, map, across, depth, bias, bf16)
    switch (rows) { CASES }
#undef WORK
}

static void differences_of(int rows, float *out, const float *weights, int regions, const float *values,
                           const float *targets, ptrdiff_t stride, int bf16) {
#define WORK(n, bf16) differences(n, out, weights, regions, values, targets, stride, bf16)
    switch (rows) { CASES }
#undef WORK
}

/* the larger of x and least; NaN stays */
INLINE float at_least(float x, float least) { return x < least ? least : x; }

INLINE float total(vec values) {
    float sums[LANES];
    store(sums, values);
    for (int half = LANES / 2; half; half /= 2)
        for (int j = 0; j < half; j++) sums[j] += sums[j + half];
    return sums[0];
}

/* out[i] = x[i] (size) . y (size) */
INLINE void dots(int rows, float *out, const float *x, const float *y, int size) {
    vec sums[ROWS] = {0};
    for (int s = 0; s < size; s += LANES) {
        vec own = load(y + s);
        EVERY_ROW sums[i] += own * load(x + (ptrdiff_t)i * size + s);
    }
    EVERY_ROW out[i] = total(sums[i]);
}

static void dots_of(int rows, float *out, const float *x, const float *y, int size) {
    const int bf16 = 0;
#define WORK(n, bf16) dots(n, out, x, y, size)
    switch (rows) { CASES }
#undef WORK
}

/* the first of `rows` rows that block `b` of `blocks` takes, these being of nearly the same size */
INLINE int first_row(int rows, int b, int blocks) { return (int)((int64_t)rows * b / blocks); }

/* values (regions, E) of one image, numbers k to k + WIDTH: to (units of regions, WIDTH) */
static void pack(float *out, const void *values, int regions, ptrdiff_t E, int bf16) {
    if (!bf16) {
        for (int r = 0; r < regions; r++) memcpy(out + r * WIDTH, (const float *)values + r * E, 4 * WIDTH);
        return;
    }
    uint16_t *to = (uint16_t *)out;
    const uint16_t *from = values;
    for (int r = 0; r < regions; r += 2)
        for (int j = 0; j < WIDTH; j++) {
            to[r * WIDTH + 2 * j] = from[r * E + j];
            to[r * WIDTH + 2 * j + 1] = r + 1 < regions ? from[(r + 1) * E + j] : 0;
        }
}
