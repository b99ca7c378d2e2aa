/* Gradients of squared_differences of kernels.c, in fp32: torch's ten passes in one, WIDTH numbers of E at a time.

   Letters as in products.c. The differences are computed again; the second cache holds all that is read twice. */

#include "products.c"

enum { GROUP = 1 << 15 }; /* numbers of results of the images of a chunk */
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

/* gradients of `rows` results of map x + bias, (rows, S), from those of N(map x + bias), whose rows had these lengths;
   transposed: the same as (S, rows); those of the bias are added to */
static void through_length(float *grad_mapped, float *transposed, float *grad_bias, const float *grad,
                           const float *vectors, const float *lengths, int rows, int S, float eps) {
    for (ptrdiff_t i = 0; i < rows; i++) {
        const float *g = grad + i * S, *v = vectors + i * S;
        float *row = grad_mapped + i * S, along = 0, length = lengths[i];
        dots_of(1, &along, g, v, S);
        if (length <= eps) along = 0, length = eps; /* a constant; NaN stays */
        for (int s = 0; s < S; s++) row[s] = (g[s] - v[s] * along) / length;
        for (int s = 0; s < S; s++) grad_bias[s] += row[s];
        for (ptrdiff_t s = 0; s < S; s++) transposed[s * rows + i] = row[s];
    }
}

/* from an image's sums weights . values, (T, WIDTH), and the gradients of their squared differences from the targets:
   these squared differences and the gradients of the sums, in place of either; those of the targets are added to */
static void through_square(float *sums, float *grad, float *grad_targets, const float *targets, int T, int E) {
    for (ptrdiff_t t = 0; t < T; t++)
        for (int j = 0; j < WIDTH; j++) {
            float difference = sums[t * WIDTH + j] - targets[t * E + j];
            grad[t * WIDTH + j] *= difference;
            grad_targets[t * E + j] -= grad[t * WIDTH + j];
            sums[t * WIDTH + j] = difference * difference;
        }
}

/* Of images (N) and T targets, the gradients of the input of squared_differences, from grad_vectors (N, T, S) of the
   vectors (N, T, S) that it made, whose lengths (N, T) were.

   grad_weights (N, T, R rounded up to WIDTH) and grad_targets (T, E), grad_map (laid out as `map`) and grad_bias (S)
   are added to, grad_values (N, R, E) is written. transposed: weights as (N, R, T); map: (E / WIDTH, S, WIDTH), twice
   the weight.
   scratch: (T + GROUP / S) * 2 * (S + WIDTH) + (2 * R + WIDTH) * WIDTH numbers to work in. */
void gradients(float *grad_weights, float *grad_values, float *grad_targets, float *grad_map, float *grad_bias,
               const float *grad_vectors, const float *vectors, const float *lengths, const float *weights,
               const float *transposed, const float *values, const float *targets, const float *map, float *scratch,
               int images, int T, int R, int E, int S, float eps) {
    int wide = (R + WIDTH - 1) / WIDTH * WIDTH, chunk = 1 + (int)(GROUP / ((int64_t)T * S + 1));
    float *panel = scratch, *panel_transposed = panel + R * WIDTH, *grad_mapped = panel_transposed + wide * WIDTH;
    memset(panel_transposed, 0, sizeof(float) * wide * WIDTH);
    for (int start = 0; start < images; start += chunk) {
        int count = images - start < chunk ? images - start : chunk, rows = count * T;
        ptrdiff_t first = (ptrdiff_t)start * T;
        float *mapped_transposed = grad_mapped + (ptrdiff_t)rows * S, *sums = mapped_transposed + (ptrdiff_t)rows * S;
        float *grad_sums = sums + (ptrdiff_t)rows * WIDTH;
        through_length(grad_mapped, mapped_transposed, grad_bias, grad_vectors + first * S, vectors + first * S,
                       lengths + first, rows, S, eps);
        for (int e = 0; e < E; e += WIDTH) {
            multiply_rows(grad_sums, WIDTH, rows, grad_mapped, S, map + (ptrdiff_t)e * S, WIDTH, S, 0);
            for (ptrdiff_t i = 0; i < count; i++) {
                ptrdiff_t n = start + i;
                float *own = sums + i * T * WIDTH, *grad = grad_sums + i * T * WIDTH;
                pack(panel, values + n * R * E + e, R, E, 0);
                for (int r = 0; r < R; r++)
                    for (int j = 0; j < WIDTH; j++) panel_transposed[j * wide + r] = panel[r * WIDTH + j];
                multiply_rows(own, WIDTH, T, weights + n * T * R, R, panel, WIDTH, R, 0);
                through_square(own, grad, grad_targets + e, targets + e, T, E);
                multiply_rows(grad_values + n * R * E + e, E, R, transposed + n * R * T, T, grad, WIDTH, T, 0);
                for (int r = 0; r < wide; r += WIDTH)
                    multiply_rows(grad_weights + n * T * wide + r, wide, T, grad, WIDTH, panel_transposed + r, wide,
                                  WIDTH, 1);
            }
            multiply_rows(grad_map + (ptrdiff_t)e * S, WIDTH, S, mapped_transposed, rows, sums, WIDTH, rows, 1);
        }
    }
}
