/* SGRAF's large products on a CPU, see compiled.py: nothing between a product and the next leaves the first cache.

   Letters as in products.c. DEPTH units of a map, RESULTS bytes of results and NODES bytes of nodes fit a core's second
   cache. */

#include "products.c"

enum { RESULTS = 1 << 19, NODES = 1 << 16 };

static float unit_length(float *row, int size, float eps) {
    float squares[WIDTH] = {0}, total = 0;
    for (int s = 0; s < size; s += WIDTH)
        for (int j = 0; j < WIDTH; j++) squares[j] += row[s + j] * row[s + j];
    for (int j = 0; j < WIDTH; j++) total += squares[j];
    float length = sqrtf(total);
    for (int s = 0; s < size; s++) row[s] /= at_least(length, eps);
    return length;
}

int width(void) { return WIDTH; }

int has_bf16(void) {
#ifdef __AVX512BF16__
    return 1;
#else
    return 0;
#endif
}

/* numbers k to k + most of the differences of an image's targets, and their share of N(map (differences) + bias) */
static void fill_image(float *out, float *lengths, const float *weights, const char *values, const float *targets,
                       const float *map, const float *bias, float *scratch, int k, int most, int T, int R,
                       int E, int S, int group, int period, float eps, int bf16) {
    float block[ROWS * DEPTH] __attribute__((aligned(64)));
    float *out_rows[ROWS], *dest[ROWS];
    int units = bf16 ? 2 : 1, regions = (R + units - 1) / units, blocks = (T + ROWS - 1) / ROWS;
    for (int e = 0; e < most; e += WIDTH)
        pack(scratch + e * regions, values + (ptrdiff_t)(k + e) * 4 / units, R, E, bf16);
    for (int b = 0; b < blocks; b++) {
        int first = first_row(T, b, blocks), rows = first_row(T, b + 1, blocks) - first;
        for (int i = 0; i < rows; i++) {
            ptrdiff_t t = first + i;
            out_rows[i] = out + (t / group * period + t % group) * S;
        }
        for (int e = 0; e < most; e += WIDTH)
            differences_of(rows, block + e / units, weights + (ptrdiff_t)first * regions, regions,
                           scratch + e * regions, targets + (ptrdiff_t)first * E + k + e, E, bf16);
        for (int s = 0; s < S; s += WIDTH) {
            for (int i = 0; i < rows; i++) dest[i] = out_rows[i] + s;
            products_of(rows, dest, block, DEPTH, map + ((ptrdiff_t)s * E + (ptrdiff_t)k * WIDTH) / units, WIDTH,
                        most / units, k ? NULL : bias + s, bf16);
        }
        for (int i = 0; k + most == E && i < rows; i++) {
            float length = unit_length(out_rows[i], S, eps);
            if (lengths) lengths[first + i] = length;
        }
    }
}

/* N(map (weights . values - targets)^2 + bias) of images and T targets; scratch: DEPTH * (R + 1) numbers to work in.

   weights (images, T, units of R), values (images, R, E), targets (T, E) fp32, into rows of S fp32 numbers: target t of
   an image is row (image * T / group + t / group) * period + t % group, so that sets of `group` rows may have others
   between them. lengths: (images, T), what the rows were divided by, or NULL. In bf16 an R that is odd has a weight of
   zero after it. */
void squared_differences(float *out, float *lengths, const float *weights, const void *values, const float *targets,
                         const float *map, const float *bias, float *scratch, int images, int T, int R, int E,
                         int S, int group, int period, float eps, int bf16) {
    int units = bf16 ? 2 : 1, regions = (R + units - 1) / units, chunk = 1 + (int)(RESULTS / ((int64_t)T * S * 4));
    for (int start = 0; start < images; start += chunk)
        for (int k = 0; k < E; k += DEPTH * units)
            for (int n = start; n < images && n < start + chunk; n++)
                fill_image(out + (ptrdiff_t)n * (T / group) * period * S, lengths ? lengths + (ptrdiff_t)n * T : NULL,
                           weights + (ptrdiff_t)n * T * regions,
                           (const char *)values + (ptrdiff_t)n * R * E * 4 / units, targets, map, bias, scratch, k,
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

   maps: of each step the query's weight and bias, the update's weight and bias; scratch: (pairs, n, S) and (ROWS,
   n) numbers to work in. A chunk of NODES bytes of nodes goes through all steps. */
void reason(float *out, float *nodes, const float *const *maps, float *scratch, int pairs, int n, int S, int steps,
            int bf16) {
    int chunk = 1 + (int)(NODES / ((int64_t)n * S * 4)), last = steps - 1;
    float *edges = scratch + (ptrdiff_t)pairs * n * S;
    for (int start = 0; start < pairs; start += chunk) {
        int count = pairs - start < chunk ? pairs - start : chunk;
        float *own = nodes + (ptrdiff_t)start * n * S;
        for (int step = 0; step < last; step++) {
            linear(scratch, own, S, maps[4 * step], maps[4 * step + 1], count * n, S, S, 0, bf16);
            for (ptrdiff_t p = 0; p < count; p++)
                pass_messages(scratch + p * n * S, own + p * n * S, edges, n, n, S);
            linear(own, scratch, S, maps[4 * step + 2], maps[4 * step + 3], count * n, S, S, 1, bf16);
        }
    }
    linear(scratch, nodes, (ptrdiff_t)n * S, maps[4 * last], maps[4 * last + 1], pairs, S, S, 0, bf16);
    for (ptrdiff_t p = 0; p < pairs; p++) pass_messages(scratch + p * S, nodes + p * n * S, edges, 1, n, S);
    linear(out, scratch, S, maps[4 * last + 2], maps[4 * last + 3], pairs, S, S, 1, bf16);
}
