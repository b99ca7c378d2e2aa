/* Products of small matrices, and functions of their rows, of which the code of a pair is made (pairs.c).

   Rows are whole vectors: their numbers, or what they are padded to, are a multiple of LANES. */

#include "products.c"
#undef CASE

typedef int32_t ints __attribute__((vector_size(4 * LANES), aligned(4)));

INLINE int whole_vectors(int size) { return (size + LANES - 1) / LANES * LANES; }

/* out (M, N) = [out +] a (M, K) b (K, N): a(i, k) is a[i * row + k * column], b and out have rows of so many numbers */
INLINE void block(int rows, int vectors, float *out, ptrdiff_t out_row, const float *a, ptrdiff_t row, ptrdiff_t column,
                  const float *b, ptrdiff_t b_row, int K, int add) {
    vec sums[ROWS][2];
    EVERY_ROW for (int v = 0; v < vectors; v++) sums[i][v] = add ? load(out + i * out_row + v * LANES) : (vec){0};
    for (int k = 0; k < K; k++) {
        vec left = load(b + k * b_row), right = vectors > 1 ? load(b + k * b_row + LANES) : left;
        EVERY_ROW {
            float x = a[i * row + k * column];
            sums[i][0] += x * left;
            if (vectors > 1) sums[i][1] += x * right;
        }
    }
    EVERY_ROW for (int v = 0; v < vectors; v++) store(out + i * out_row + v * LANES, sums[i][v]);
}

static void product(float *out, ptrdiff_t out_row, const float *a, ptrdiff_t row, ptrdiff_t column, const float *b,
                    ptrdiff_t b_row, int M, int N, int K, int add) {
    int blocks = (M + ROWS - 1) / ROWS;
    for (int p = 0; p < blocks; p++) {
        int first = first_row(M, p, blocks), rows = first_row(M, p + 1, blocks) - first;
        float *to = out + first * out_row;
        const float *from = a + first * row;
#define CASE(r) case r: block(r, 2, to + j, out_row, from, row, column, b + j, b_row, K, add); break;
        int j = 0;
        for (; j + 2 * LANES <= N; j += 2 * LANES) switch (rows) { CASES }
#undef CASE
#define CASE(r) case r: block(r, 1, to + j, out_row, from, row, column, b + j, b_row, K, add); break;
        if (j < N) switch (rows) { CASES }
#undef CASE
    }
}

INLINE float dot(const float *x, const float *y, int size) {
    vec sums = {0};
    for (int j = 0; j < size; j += LANES) sums += load(x + j) * load(y + j);
    return total(sums);
}

/* where x is true, lane by lane, y, else z */
INLINE vec choose(ints x, vec y, vec z) { return (vec)((x & (ints)y) | (~x & (ints)z)); }

/* e^x of x <= 0 to a few units of the last digit (Cephes' expf) */
INLINE vec exponential(vec x) {
    const float round = 12582912.f;
    x = choose(x < -87.f, (vec){0} - 87.f, x);
    vec n = (x * 1.44269504f + round) - round;
    vec r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    vec p = ((((1.9875691500e-4f * r + 1.3981999507e-3f) * r + 8.3334519073e-3f) * r + 4.1665795894e-2f) * r +
             1.6666665459e-1f) * r + 5.0000001201e-1f;
    ints power = (__builtin_convertvector(n, ints) + 127) << 23;
    return (p * r * r + r + 1.f) * (vec)power;
}

/* softmax of a row in place; what is below -1e29 becomes 0, as may be all of it */
static void softmax(float *row, int size) {
    float most = row[0];
    for (int j = 1; j < size; j++) most = row[j] > most ? row[j] : most;
    vec sums = {0};
    for (int j = 0; j < size; j += LANES) {
        vec x = load(row + j), e = exponential(x - most);
        e = choose(x < -1e29f, (vec){0}, e);
        store(row + j, e);
        sums += e;
    }
    float sum = total(sums), scale = sum == 0 ? 0 : 1 / sum;
    for (int j = 0; j < size; j += LANES) store(row + j, load(row + j) * scale);
}

/* gradient of a row's logits, in place of that of its softmax */
static void softmax_gradient(float *grad, const float *softmaxed, int size) {
    float sum = dot(grad, softmaxed, size);
    for (int j = 0; j < size; j += LANES) store(grad + j, load(softmaxed + j) * (load(grad + j) - sum));
}

/* gradient of x, in place of that of y = x / max(|x|, eps) */
static void unit_gradient(float *grad, const float *y, float length, float eps, int size) {
    float along = length > eps ? dot(grad, y, size) : 0, scale = 1 / at_least(length, eps);
    for (int j = 0; j < size; j += LANES) store(grad + j, (load(grad + j) - along * load(y + j)) * scale);
}

static void fill_rows(float *out, const float *row, int rows, int size) {
    for (int i = 0; i < rows; i++) memcpy(out + (ptrdiff_t)i * size, row, 4 * size);
}

static void add_rows(float *sum, const float *values, int rows, int size) {
    for (int j = 0; j < size; j += LANES) {
        vec sums = load(sum + j);
        for (int i = 0; i < rows; i++) sums += load(values + (ptrdiff_t)i * size + j);
        store(sum + j, sums);
    }
}
