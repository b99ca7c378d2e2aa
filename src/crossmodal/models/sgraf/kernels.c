/* SGRAF's large products on a CPU, see compiled.py: nothing between a product and the next leaves the first cache.

   T: targets, words or global vectors of captions; R: regions of an image; E: embedding; S: similarity vector
   map: weight (S, E), laid out as (S / WIDTH, E, WIDTH)
   unit: 4 bytes, one fp32 number, or in bf16 a pair of numbers; such a map is (S / WIDTH, E / 2, WIDTH, 2)
   room: scratch memory of the caller, for the packed regions of an image
   out_rows, dest: where the results of a block's rows go, and WIDTH of them; stride, across: between the rows of an
   input, and of a map
   Sums are fp32. Blocks of ROWS x WIDTH sums stay in registers; DEPTH units of a map and RESULTS bytes of results fit a
   core's second cache. */

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
enum { WIDTH = 2 * LANES, DEPTH = 256, RESULTS = 1 << 19, NODES = 1 << 16 };
typedef float vec __attribute__((vector_size(4 * LANES), aligned(4)));

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

static void unit_length(float *row, int size, float eps) {
    float squares[WIDTH] = {0}, total = 0;
    for (int s = 0; s < size; s += WIDTH)
        for (int j = 0; j < WIDTH; j++) squares[j] += row[s + j] * row[s + j];
    for (int j = 0; j < WIDTH; j++) total += squares[j];
    float length = sqrtf(total);
    for (int s = 0; s < size; s++) row[s] /= length > eps ? length : eps;
}

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

int width(void) { return WIDTH; }

int has_bf16(void) {
#ifdef __AVX512BF16__
    return 1;
#else
    return 0;
#endif
}

/* numbers k to k + most of the differences of an image's targets, and what they add to N(map (differences) + bias) */
static void of_image(float *out, const float *weights, const char *values, const float *targets, const float *map,
                     const float *bias, float *room, int k, int most, int T, int R, int E, int S, int group, int period,
                     float eps, int bf16) {
    float block[ROWS * DEPTH] __attribute__((aligned(64)));
    float *out_rows[ROWS], *dest[ROWS];
    int units = bf16 ? 2 : 1, regions = (R + units - 1) / units, blocks = (T + ROWS - 1) / ROWS;
    for (int e = 0; e < most; e += WIDTH)
        pack(room + e * regions, values + (ptrdiff_t)(k + e) * 4 / units, R, E, bf16);
    for (int b = 0; b < blocks; b++) {
        int first = first_row(T, b, blocks), rows = first_row(T, b + 1, blocks) - first;
        for (int i = 0; i < rows; i++) {
            ptrdiff_t t = first + i;
            out_rows[i] = out + (t / group * period + t % group) * S;
        }
        for (int e = 0; e < most; e += WIDTH)
            differences_of(rows, block + e / units, weights + (ptrdiff_t)first * regions, regions, room + e * regions,
                           targets + (ptrdiff_t)first * E + k + e, E, bf16);
        for (int s = 0; s < S; s += WIDTH) {
            for (int i = 0; i < rows; i++) dest[i] = out_rows[i] + s;
            products_of(rows, dest, block, DEPTH, map + ((ptrdiff_t)s * E + (ptrdiff_t)k * WIDTH) / units, WIDTH,
                        most / units, k ? NULL : bias + s, bf16);
        }
        for (int i = 0; k + most == E && i < rows; i++) unit_length(out_rows[i], S, eps);
    }
}

/* N(map (weights . values - targets)^2 + bias) of images and T targets; room: DEPTH * (R + 1) numbers to work in.

   weights (images, T, units of R), values (images, R, E), targets (T, E) fp32, into rows of S fp32 numbers: target t of
   an image is row (image * T / group + t / group) * period + t % group, so that sets of `group` rows may have others
   between them. In bf16 an R that is odd has a weight of zero after it. */
void squared_differences(float *out, const float *weights, const void *values, const float *targets, const float *map,
                         const float *bias, float *room, int images, int T, int R, int E, int S, int group, int period,
                         float eps, int bf16) {
    int units = bf16 ? 2 : 1, regions = (R + units - 1) / units, together = 1 + RESULTS / (T * S * 4);
    for (int start = 0; start < images; start += together)
        for (int k = 0; k < E; k += DEPTH * units)
            for (int n = start; n < images && n < start + together; n++)
                of_image(out + (ptrdiff_t)n * (T / group) * period * S, weights + (ptrdiff_t)n * T * regions,
                         (const char *)values + (ptrdiff_t)n * R * E * 4 / units, targets, map, bias, room, k,
                         E - k < DEPTH * units ? E - k : DEPTH * units, T, R, E, S, group, period, eps, bf16);
}

/* map x + bias, or relu of it: x (T, E) fp32 to (T, S) */
static void linear(float *out, const float *x, ptrdiff_t stride, const float *map, const float *bias, int T, int E,
                   int S, int relu, int bf16) {
    float block[ROWS * DEPTH] __attribute__((aligned(64)));
    float *dest[ROWS];
    int units = bf16 ? 2 : 1, blocks = (T + ROWS - 1) / ROWS;
    for (int k = 0; k < E; k += DEPTH * units) {
        int most = E - k < DEPTH * units ? E - k : DEPTH * units;
        for (int b = 0; b < blocks; b++) {
            int first = first_row(T, b, blocks), rows = first_row(T, b + 1, blocks) - first;
            const float *from = x + first * stride + k;
            for (int i = 0; bf16 && i < rows; i++)
                for (int e = 0; e < most; e += WIDTH) {
                    const float *row = from + i * stride + e;
                    write(block + i * DEPTH + e / 2, load(row), load(row + LANES), 1);
                }
            for (int s = 0; s < S; s += WIDTH) {
                const float *part = map + ((ptrdiff_t)s * E + (ptrdiff_t)k * WIDTH) / units;
                for (int i = 0; i < rows; i++) dest[i] = out + (ptrdiff_t)(first + i) * S + s;
                products_of(rows, dest, bf16 ? block : from, bf16 ? DEPTH : stride, part, WIDTH, most / units,
                            k ? NULL : bias + s, bf16);
                for (int i = 0; relu && k + most == E && i < rows; i++)
                    for (int j = 0; j < WIDTH; j++) dest[i][j] = dest[i][j] < 0 ? 0 : dest[i][j]; /* NaN stays */
            }
        }
    }
}

static void softmax(float *row, int size) {
    float most = row[0], total = 0;
    for (int q = 1; q < size; q++) most = row[q] > most ? row[q] : most;
    for (int q = 0; q < size; q++) total += row[q] = expf(row[q] - most);
    for (int q = 0; q < size; q++) row[q] /= total;
}

/* queries (T, S) of a pair become softmax(queries . nodes') . nodes, of nodes (n, S); edges: (ROWS, n) to work in */
static void pass_messages(float *queries, const float *nodes, float *edges, int T, int n, int S) {
    static const float zeros[WIDTH];
    float *dest[ROWS];
    int blocks = (T + ROWS - 1) / ROWS, groups = (n + ROWS - 1) / ROWS;
    for (int b = 0; b < blocks; b++) {
        int first = first_row(T, b, blocks), rows = first_row(T, b + 1, blocks) - first;
        float *own = queries + (ptrdiff_t)first * S;
        for (int i = 0; i < rows; i++) {
            for (int g = 0; g < groups; g++) {
                ptrdiff_t q = first_row(n, g, groups);
                dots_of(first_row(n, g + 1, groups) - q, edges + i * n + q, nodes + q * S, own + (ptrdiff_t)i * S, S);
            }
            softmax(edges + i * n, n);
        }
        for (int s = 0; s < S; s += WIDTH) {
            for (int i = 0; i < rows; i++) dest[i] = own + (ptrdiff_t)i * S + s;
            products_of(rows, dest, edges, n, nodes + s, S, n, zeros, 0);
        }
    }
}

/* graph.py's steps for nodes (pairs, n, S), which are written over: node 0 after them, (pairs, S).

   maps: of each step the query's weight and bias, the update's weight and bias; room: (pairs, n, S) and (ROWS,
   n) numbers to work in. NODES bytes of nodes go through a step together. */
void reason(float *out, float *nodes, const float *const *maps, float *room, int pairs, int n, int S, int steps,
            int bf16) {
    int together = 1 + NODES / (n * S * 4), last = steps - 1;
    float *edges = room + (ptrdiff_t)pairs * n * S;
    for (int start = 0; start < pairs; start += together) {
        int count = pairs - start < together ? pairs - start : together;
        float *own = nodes + (ptrdiff_t)start * n * S;
        for (int step = 0; step < last; step++) {
            linear(room, own, S, maps[4 * step], maps[4 * step + 1], count * n, S, S, 0, bf16);
            for (ptrdiff_t p = 0; p < count; p++)
                pass_messages(room + p * n * S, own + p * n * S, edges, n, n, S);
            linear(own, room, S, maps[4 * step + 2], maps[4 * step + 3], count * n, S, S, 1, bf16);
        }
    }
    linear(room, nodes, (ptrdiff_t)n * S, maps[4 * last], maps[4 * last + 1], pairs, S, S, 0, bf16);
    for (ptrdiff_t p = 0; p < pairs; p++) pass_messages(room + p * S, nodes + p * n * S, edges, 1, n, S);
    linear(out, room, S, maps[4 * last + 2], maps[4 * last + 3], pairs, S, S, 1, bf16);
}
