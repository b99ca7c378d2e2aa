/* Gradients of squared_differences of kernels.c, in fp32: torch's ten passes in one, WIDTH numbers of E at a time.

   Letters as in products.c. The differences are computed again; the second cache holds all that is read twice. */

#include "products.c"

enum { GROUP = 1 << 15 }; /* numbers of results of images that are taken together */
static const float zeros[WIDTH];

/* out (count, WIDTH) = x (count, depth) . map (depth, WIDTH), or is added to; to: between the rows of out */
static void multiply_rows(float *out, ptrdiff_t to, int count, const float *x, ptrdiff_t stride, const float *map,
                          ptrdiff_t across, int depth, int add) {
    float *dest[ROWS];
    int blocks = (count + ROWS - 1) / ROWS;
    for (int b = 0; b < blocks; b++) {
        ptrdiff_t first = first_row(count, b, blocks), rows = first_row(count, b + 1, blocks) - first;
        for (int i = 0; i < rows; i++) dest[i] = out + (first + i) * to;
        products_of(rows, dest, x + first * stride, stride, map, across, depth, add ? NULL : zeros, 0);
    }
}

/* gradients by `rows` results of map x + bias, (rows, S), from those by N(map x + bias), whose rows had these lengths;
   flipped: the same as (S, rows); to those by the bias is added */
static void through_length(float *by_mapped, float *flipped, float *by_bias, const float *grad, const float *vectors,
                           const float *lengths, int rows, int S, float eps) {
    for (ptrdiff_t i = 0; i < rows; i++) {
        const float *g = grad + i * S, *v = vectors + i * S;
        float *row = by_mapped + i * S, along = 0, length = lengths[i];
        dots_of(1, &along, g, v, S);
        if (length <= eps) along = 0, length = eps; /* a constant; NaN stays */
        for (int s = 0; s < S; s++) row[s] = (g[s] - v[s] * along) / length;
        for (int s = 0; s < S; s++) by_bias[s] += row[s];
        for (ptrdiff_t s = 0; s < S; s++) flipped[s * rows + i] = row[s];
    }
}

/* from an image's sums weights . values, (T, WIDTH), and the gradients by their squared differences from the targets:
   these squared differences and the gradients by the sums, over either; those by the targets are added to */
static void through_square(float *sums, float *by, float *by_targets, const float *targets, int T, int E) {
    for (ptrdiff_t t = 0; t < T; t++)
        for (int j = 0; j < WIDTH; j++) {
            float difference = sums[t * WIDTH + j] - targets[t * E + j];
            by[t * WIDTH + j] *= difference;
            by_targets[t * E + j] -= by[t * WIDTH + j];
            sums[t * WIDTH + j] = difference * difference;
        }
}

/* Of images (N) and T targets, the gradients by what squared_differences reads, from grad (N, T, S) by the vectors
   (N, T, S) that it made, whose lengths (N, T) were.

   by_weights (N, T, R rounded up to WIDTH) and by_targets (T, E), by_map (laid out as `map`) and by_bias (S) are added
   to, by_values (N, R, E) is written. flipped: weights as (N, R, T); map: (E / WIDTH, S, WIDTH), twice the weight.
   room: (T + GROUP / S) * 2 * (S + WIDTH) + (2 * R + WIDTH) * WIDTH numbers to work in. */
void gradients(float *by_weights, float *by_values, float *by_targets, float *by_map, float *by_bias, const float *grad,
               const float *vectors, const float *lengths, const float *weights, const float *flipped,
               const float *values, const float *targets, const float *map, float *room, int images, int T, int R,
               int E, int S, float eps) {
    int wide = (R + WIDTH - 1) / WIDTH * WIDTH, together = 1 + (int)(GROUP / ((int64_t)T * S + 1));
    float *panel = room, *panel_flipped = panel + R * WIDTH, *by_mapped = panel_flipped + wide * WIDTH;
    memset(panel_flipped, 0, sizeof(float) * wide * WIDTH);
    for (int start = 0; start < images; start += together) {
        int count = images - start < together ? images - start : together, rows = count * T;
        ptrdiff_t first = (ptrdiff_t)start * T;
        float *mapped_flipped = by_mapped + (ptrdiff_t)rows * S, *sums = mapped_flipped + (ptrdiff_t)rows * S;
        float *by_sums = sums + (ptrdiff_t)rows * WIDTH;
        through_length(by_mapped, mapped_flipped, by_bias, grad + first * S, vectors + first * S, lengths + first, rows,
                       S, eps);
        for (int e = 0; e < E; e += WIDTH) {
            multiply_rows(by_sums, WIDTH, rows, by_mapped, S, map + (ptrdiff_t)e * S, WIDTH, S, 0);
            for (ptrdiff_t i = 0; i < count; i++) {
                ptrdiff_t n = start + i;
                float *own = sums + i * T * WIDTH, *by = by_sums + i * T * WIDTH;
                pack(panel, values + n * R * E + e, R, E, 0);
                for (int r = 0; r < R; r++)
                    for (int j = 0; j < WIDTH; j++) panel_flipped[j * wide + r] = panel[r * WIDTH + j];
                multiply_rows(own, WIDTH, T, weights + n * T * R, R, panel, WIDTH, R, 0);
                through_square(own, by, by_targets + e, targets + e, T, E);
                multiply_rows(by_values + n * R * E + e, E, R, flipped + n * R * T, T, by, WIDTH, T, 0);
                for (int r = 0; r < wide; r += WIDTH)
                    multiply_rows(by_weights + n * T * wide + r, wide, T, by, WIDTH, panel_flipped + r, wide, WIDTH, 1);
            }
            multiply_rows(by_map + (ptrdiff_t)e * S, WIDTH, S, mapped_flipped, rows, sums, WIDTH, rows, 1);
        }
    }
}
