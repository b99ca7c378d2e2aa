/* Gradients of squared_differences of kernels.c, in fp32: torch's ten passes in one, WIDTH numbers of E at a time.

   Letters as in products.c. The differences are computed again; the second cache holds all that is read twice. */

#include "products.c"

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

/* gradients by map x + bias, (T, S), and by the bias, of those by N(map x + bias); flipped: the former as (S, T) */
static void through_length(float *by_mapped, float *flipped, float *by_bias, const float *grad, const float *vectors,
                           const float *lengths, int T, int S, float eps) {
    for (int t = 0; t < T; t++) {
        const float *g = grad + (ptrdiff_t)t * S, *v = vectors + (ptrdiff_t)t * S;
        float *row = by_mapped + (ptrdiff_t)t * S, along = 0, length = lengths[t];
        dots_of(1, &along, g, v, S);
        if (!(length > eps)) along = 0, length = eps;
        for (int s = 0; s < S; s++) row[s] = (g[s] - v[s] * along) / length;
        for (int s = 0; s < S; s++) by_bias[s] += row[s];
        for (int s = 0; s < S; s++) flipped[(ptrdiff_t)s * T + t] = row[s];
    }
}

/* Of images (N) and T targets, the gradients by what squared_differences reads, from grad (N, T, S) by the vectors
   (N, T, S) that it made, whose lengths (N, T) were.

   by_weights (N, T, R rounded up to WIDTH) and by_values (N, R, E) are zeros before; to by_targets (T, E), by_map (laid
   out as `map`) and by_bias (S) is added. flipped: weights as (N, R, T); map: (E / WIDTH, S, WIDTH), twice the weight.
   room: T * (2 * S + 2 * WIDTH) + (2 * R + WIDTH) * WIDTH numbers to work in. */
void gradients(float *by_weights, float *by_values, float *by_targets, float *by_map, float *by_bias, const float *grad,
               const float *vectors, const float *lengths, const float *weights, const float *flipped,
               const float *values, const float *targets, const float *map, float *room, int images, int T, int R,
               int E, int S, float eps) {
    int wide = (R + WIDTH - 1) / WIDTH * WIDTH;
    float *by_mapped = room, *mapped_flipped = by_mapped + (ptrdiff_t)T * S;
    float *squares = mapped_flipped + (ptrdiff_t)T * S, *by_sums = squares + T * WIDTH, *panel = by_sums + T * WIDTH;
    float *panel_flipped = panel + R * WIDTH;
    memset(panel_flipped, 0, sizeof(float) * WIDTH * wide);
    for (ptrdiff_t n = 0; n < images; n++) {
        const float *own = weights + n * T * R, *own_flipped = flipped + n * R * T, *image = values + n * R * E;
        through_length(by_mapped, mapped_flipped, by_bias, grad + n * T * S, vectors + n * T * S, lengths + n * T, T, S,
                       eps);
        for (int e = 0; e < E; e += WIDTH) {
            pack(panel, image + e, R, E, 0);
            for (int r = 0; r < R; r++)
                for (int j = 0; j < WIDTH; j++) panel_flipped[j * wide + r] = panel[r * WIDTH + j];
            multiply_rows(squares, WIDTH, T, own, R, panel, WIDTH, R, 0);
            multiply_rows(by_sums, WIDTH, T, by_mapped, S, map + (ptrdiff_t)e * S, WIDTH, S, 0);
            for (int t = 0; t < T; t++) {
                const float *target = targets + (ptrdiff_t)t * E + e;
                float *by_target = by_targets + (ptrdiff_t)t * E + e;
                float *by = by_sums + t * WIDTH, *square = squares + t * WIDTH;
                for (int j = 0; j < WIDTH; j++) {
                    float difference = square[j] - target[j];
                    by[j] *= difference;
                    by_target[j] -= by[j];
                    square[j] = difference * difference;
                }
            }
            multiply_rows(by_map + (ptrdiff_t)e * S, WIDTH, S, mapped_flipped, T, squares, WIDTH, T, 1);
            multiply_rows(by_values + n * R * E + e, E, R, own_flipped, T, by_sums, WIDTH, T, 0);
            for (int r = 0; r < wide; r += WIDTH)
                multiply_rows(by_weights + n * T * wide + r, wide, T, by_sums, WIDTH, panel_flipped + r, wide, WIDTH,
                              1);
        }
    }
}
