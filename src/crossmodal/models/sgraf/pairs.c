/* SGR's scores of some pairs of a batch and their gradients, pair by pair within the first caches, see pairs.py.

   A pair is an image of R regions and a caption of L words, n = 1 + L nodes; E: embedding, S: similarity vector.
   RP, NP: R and n, rounded up to whole vectors. E and S are multiples of LANES. Numbers of equations as in
   equations.py. Matrices are row by row. */

#include "products.c"
#undef CASE

typedef int32_t ints __attribute__((vector_size(4 * LANES), aligned(4)));

enum { SLOTS = 2 }; /* matrices (n, S) of a step that the backward pass reads, beside its nodes: query and message */

/* sizes, and what is the same for all pairs */
typedef struct {
    int R, RP, E, S, steps;
    float lambda, slope, eps;
    const float *weights, *transposed; /* see parameters() */
} Model;

/* where a model's parameters are in one row of numbers: weight (S, inputs), then bias (S); local, global, and of each
   step query and update; at the end the score's weight (S) and bias. `transposed` has the weights alone, (inputs, S). */
static ptrdiff_t map_at(const Model *m, int number) {
    ptrdiff_t wide = (ptrdiff_t)m->S * m->E + m->S, square = (ptrdiff_t)m->S * m->S + m->S;
    return number < 2 ? number * wide : 2 * wide + (number - 2) * square;
}
static ptrdiff_t transposed_at(const Model *m, int number) {
    ptrdiff_t wide = (ptrdiff_t)m->S * m->E, square = (ptrdiff_t)m->S * m->S;
    return number < 2 ? number * wide : 2 * wide + (number - 2) * square;
}

typedef struct {
    const float *image, *regions_t, *present, *caption; /* (1 + R, E), (E, RP), (RP), (1 + L, E) */
    int L, n, NP;
} Pair;

/* what the forward pass leaves for the backward pass, and room to work in */
typedef struct {
    float *cosines, *alpha, *inverse, *fixed;    /* (L, RP) twice, (RP) twice */
    float *attended, *length;                    /* (n, E) of length 1, from row 1 on; (n) */
    float *difference, *squares;                 /* (n, E) */
    float *mapped_length;                        /* (n) */
    float *nodes, *nodes_t, *query, *edges, *message; /* of each step; nodes has one more */
    float *work;                                 /* of the backward pass */
} State;

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
        int first = M * p / blocks, rows = M * (p + 1) / blocks - first;
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

/* softmax of a row in place; what is below -1e29 becomes 0 */
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
    float scale = 1 / total(sums);
    for (int j = 0; j < size; j += LANES) store(row + j, load(row + j) * scale);
}

/* gradient of a row's logits, in place of that of its softmax */
static void softmax_gradient(float *grad, const float *softmaxed, int size) {
    float sum = dot(grad, softmaxed, size);
    for (int j = 0; j < size; j += LANES) store(grad + j, load(softmaxed + j) * (load(grad + j) - sum));
}

/* gradient of x, in place of that of y = x / max(|x|, eps) */
static void unit_gradient(float *grad, const float *y, float length, float eps, int size) {
    float along = length > eps ? dot(grad, y, size) : 0, scale = 1 / (length > eps ? length : eps);
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

/* numbers of room for a pair of at most so many words */
ptrdiff_t pair_room(int L, int R, int E, int S, int steps) {
    ptrdiff_t n = L + 1, RP = whole_vectors(R), NP = whole_vectors((int)n);
    return 4 * n * RP + 5 * n * E + 2 * RP + 2 * NP + (steps + 1) * (n * S * (2 + SLOTS) + S * NP + n * NP) +
           6 * n * S + n * NP + 4 * S + 16 * LANES;
}

static State state_in(float *room, const Model *m, const Pair *p) {
    State s;
    ptrdiff_t n = p->n, steps = m->steps;
#define TAKE(name, size) s.name = room, room += (size)
    TAKE(cosines, n * m->RP); TAKE(alpha, n * m->RP); TAKE(inverse, m->RP); TAKE(fixed, m->RP);
    TAKE(attended, n * m->E); TAKE(length, p->NP); TAKE(difference, n * m->E); TAKE(squares, n * m->E);
    TAKE(mapped_length, p->NP);
    TAKE(nodes, (steps + 1) * n * m->S); TAKE(nodes_t, steps * m->S * p->NP);
    TAKE(query, steps * n * m->S); TAKE(edges, steps * n * p->NP); TAKE(message, steps * n * m->S);
    TAKE(work, 0);
#undef TAKE
    return s;
}

/* equations (1) to (4): similarity vectors to s->nodes */
static void similarity_vectors(const Model *m, const Pair *p, State *s) {
    const int E = m->E, S = m->S, RP = m->RP, L = p->L, n = p->n;
    const float *words = p->caption + E;
    product(s->cosines, RP, words, E, 1, p->regions_t, RP, L, RP, E, 0);
    for (int r = 0; r < RP; r += LANES) {
        vec sums = {0};
        for (int l = 0; l < L; l++) {
            vec c = load(s->cosines + l * RP + r), f = choose(c > 0, c, c * m->slope);
            sums += f * f;
        }
        for (int i = 0; i < LANES; i++) { /* of a norm at its bound no gradient */
            float least = m->eps * m->eps;
            s->fixed[r + i] = sums[i] > least ? 1 : 0;
            s->inverse[r + i] = 1 / sqrtf(sums[i] > least ? sums[i] : least);
        }
    }
    for (int l = 0; l < L; l++) {
        float *row = s->alpha + l * RP;
        for (int r = 0; r < RP; r += LANES) {
            vec c = load(s->cosines + l * RP + r), f = choose(c > 0, c, c * m->slope);
            f *= m->lambda * load(s->inverse + r);
            store(row + r, choose(load(p->present + r) > 0, f, (vec){0} - 1e30f));
        }
        softmax(row, RP);
    }
    product(s->attended + E, E, s->alpha, RP, 1, p->image + E, E, L, E, m->R, 0);
    for (int l = 0; l < n; l++) {
        float *row = s->attended + (ptrdiff_t)l * E, scale = 1;
        if (l) {
            float length = s->length[l] = sqrtf(dot(row, row, E));
            scale = 1 / (length > m->eps ? length : m->eps);
        } else {
            memcpy(row, p->image, 4 * E);
        }
        for (int e = 0; e < E; e += LANES) {
            vec a = load(row + e) * scale, d = a - load(p->caption + (ptrdiff_t)l * E + e);
            store(row + e, a);
            store(s->difference + (ptrdiff_t)l * E + e, d);
            store(s->squares + (ptrdiff_t)l * E + e, d * d);
        }
    }
    for (int global = 0; global < 2; global++) {
        float *out = s->nodes + (global ? 0 : S);
        int rows = global ? 1 : L;
        fill_rows(out, m->weights + map_at(m, global) + (ptrdiff_t)S * E, rows, S);
        product(out, S, s->squares + (global ? 0 : E), E, 1, m->transposed + transposed_at(m, global), S, rows, S, E, 1);
    }
    for (int l = 0; l < n; l++) {
        float *row = s->nodes + l * S, length = s->mapped_length[l] = sqrtf(dot(row, row, S));
        float scale = 1 / (length > m->eps ? length : m->eps);
        for (int j = 0; j < S; j += LANES) store(row + j, load(row + j) * scale);
    }
}

/* equations (5) and (6), the query's map being folded as in graph.py, and the score */
static float forward(const Model *m, const Pair *p, State *s) {
    const int S = m->S, n = p->n, NP = p->NP;
    similarity_vectors(m, p, s);
    for (int k = 0; k < m->steps; k++) {
        const float *query_map = m->weights + map_at(m, 2 + 2 * k), *update_map = m->weights + map_at(m, 3 + 2 * k);
        float *nodes = s->nodes + (ptrdiff_t)k * n * S, *next = nodes + n * S, *nodes_t = s->nodes_t + (ptrdiff_t)k * S * NP;
        float *query = s->query + (ptrdiff_t)k * n * S, *message = s->message + (ptrdiff_t)k * n * S;
        float *edges = s->edges + (ptrdiff_t)k * n * NP;
        int rows = k == m->steps - 1 ? 1 : n; /* the score reads node 0 alone */
        for (int j = 0; j < S; j++)
            for (int q = 0; q < NP; q++) nodes_t[j * NP + q] = q < n ? nodes[q * S + j] : 0;
        fill_rows(query, query_map + S * S, rows, S);
        product(query, S, nodes, S, 1, m->transposed + transposed_at(m, 2 + 2 * k), S, rows, S, S, 1);
        product(edges, NP, query, S, 1, nodes_t, NP, rows, NP, S, 0);
        for (int r = 0; r < rows; r++) {
            for (int q = n; q < NP; q++) edges[r * NP + q] = -1e30f;
            softmax(edges + r * NP, NP);
        }
        product(message, S, edges, NP, 1, nodes, S, rows, S, n, 0);
        fill_rows(next, update_map + S * S, rows, S);
        product(next, S, message, S, 1, m->transposed + transposed_at(m, 3 + 2 * k), S, rows, S, S, 1);
        for (int j = 0; j < rows * S; j += LANES) store(next + j, choose(load(next + j) < 0, (vec){0}, load(next + j)));
    }
    const float *score = m->weights + map_at(m, 2 + 2 * m->steps);
    return 1 / (1 + expf(-dot(s->nodes + (ptrdiff_t)m->steps * n * S, score, S) - score[S]));
}

/* adds a pair's gradients to those of its image, its caption and the parameters; grad: of its score */
static void backward(const Model *m, const Pair *p, State *s, float score, float grad, float *of_image,
                     float *of_caption, float *of_weights) {
    const int E = m->E, S = m->S, RP = m->RP, R = m->R, L = p->L, n = p->n, NP = p->NP;
    float *of_nodes = s->work, *of_next = of_nodes + n * S, *of_message = of_next + n * S, *of_query = of_message + n * S;
    float *of_edges = of_query + n * S, *of_difference = of_edges + n * NP, *of_alpha = of_difference + n * E;
    float *of_score = of_weights + map_at(m, 2 + 2 * m->steps);
    const float *weight = m->weights + map_at(m, 2 + 2 * m->steps), *last = s->nodes + (ptrdiff_t)m->steps * n * S;
    grad *= score * (1 - score);
    of_score[S] += grad;
    for (int j = 0; j < S; j += LANES) {
        store(of_score + j, load(of_score + j) + grad * load(last + j));
        store(of_next + j, grad * load(weight + j));
    }
    for (int k = m->steps - 1; k >= 0; k--) {
        const float *nodes = s->nodes + (ptrdiff_t)k * n * S, *next = nodes + n * S;
        const float *nodes_t = s->nodes_t + (ptrdiff_t)k * S * NP, *query = s->query + (ptrdiff_t)k * n * S;
        const float *message = s->message + (ptrdiff_t)k * n * S, *edges = s->edges + (ptrdiff_t)k * n * NP;
        ptrdiff_t query_at = map_at(m, 2 + 2 * k), update_at = map_at(m, 3 + 2 * k);
        int rows = k == m->steps - 1 ? 1 : n;
        for (int j = 0; j < rows * S; j += LANES)
            store(of_next + j, choose(load(next + j) > 0, load(of_next + j), (vec){0}));
        product(of_weights + update_at, S, of_next, 1, S, message, S, S, S, rows, 1);
        add_rows(of_weights + update_at + S * S, of_next, rows, S);
        product(of_message, S, of_next, S, 1, m->weights + update_at, S, rows, S, S, 0);
        product(of_nodes, S, edges, 1, NP, of_message, S, n, S, rows, 0);
        product(of_edges, NP, of_message, S, 1, nodes_t, NP, rows, NP, S, 0);
        for (int r = 0; r < rows; r++) softmax_gradient(of_edges + r * NP, edges + r * NP, NP);
        product(of_query, S, of_edges, NP, 1, nodes, S, rows, S, n, 0);
        product(of_nodes, S, of_edges, 1, NP, query, S, n, S, rows, 1);
        product(of_weights + query_at, S, of_query, 1, S, nodes, S, S, S, rows, 1);
        add_rows(of_weights + query_at + S * S, of_query, rows, S);
        product(of_nodes, S, of_query, S, 1, m->weights + query_at, S, rows, S, S, 1);
        float *swap = of_next; /* the gradient of this step's nodes is that of the step before's next ones */
        of_next = of_nodes, of_nodes = swap;
    }
    for (int l = 0; l < n; l++) unit_gradient(of_next + l * S, s->nodes + l * S, s->mapped_length[l], m->eps, S);
    for (int global = 0; global < 2; global++) {
        int first = global ? 0 : 1, rows = global ? 1 : L;
        ptrdiff_t at = map_at(m, global);
        product(of_weights + at, E, of_next + first * S, 1, S, s->squares + first * E, E, S, E, rows, 1);
        add_rows(of_weights + at + (ptrdiff_t)S * E, of_next + first * S, rows, S);
        product(of_difference + first * E, E, of_next + first * S, S, 1, m->weights + at, E, rows, E, S, 0);
    }
    for (ptrdiff_t e = 0; e < (ptrdiff_t)n * E; e += LANES) {
        vec d = 2 * load(s->difference + e) * load(of_difference + e);
        store(of_difference + e, d);
        store(of_caption + e, load(of_caption + e) - d);
    }
    for (int e = 0; e < E; e += LANES) store(of_image + e, load(of_image + e) + load(of_difference + e));
    for (int l = 1; l < n; l++)
        unit_gradient(of_difference + (ptrdiff_t)l * E, s->attended + (ptrdiff_t)l * E, s->length[l], m->eps, E);
    product(of_alpha, RP, of_difference + E, E, 1, p->regions_t, RP, L, RP, E, 0);
    product(of_image + E, E, s->alpha, 1, RP, of_difference + E, E, R, E, L, 1);
    for (int l = 0; l < L; l++) softmax_gradient(of_alpha + l * RP, s->alpha + l * RP, RP);
    for (int r = 0; r < RP; r += LANES) { /* logits are lambda f / norm, norm^2 = sum f^2 */
        vec inverse = load(s->inverse + r), sum = {0};
        for (int l = 0; l < L; l++) {
            vec c = load(s->cosines + l * RP + r), f = choose(c > 0, c, c * m->slope);
            sum += load(of_alpha + l * RP + r) * f;
        }
        sum *= inverse * inverse * load(s->fixed + r);
        for (int l = 0; l < L; l++) {
            vec c = load(s->cosines + l * RP + r), f = choose(c > 0, c, c * m->slope);
            vec d = m->lambda * inverse * (load(of_alpha + l * RP + r) - f * sum);
            store(of_alpha + l * RP + r, choose(c > 0, d, d * m->slope));
        }
    }
    product(of_caption + E, E, of_alpha, RP, 1, p->image + E, E, L, E, R, 1);
    product(of_image + E, E, of_alpha, 1, RP, p->caption + E, E, R, E, L, 1);
}

/* Scores of pairs, and where grads is given the gradients of their sum weighted by it.

   images (N, 1 + R, E), regions_t (N, E, RP), present (N, RP) above 0 where there is a region, captions (C, most, E),
   lengths (C): 1 + L; row, column (pairs); weights, transposed: see map_at; scores, grads (pairs); of_images,
   of_captions, of_weights: added to. room: pair_room of the longest caption. */
void score_pairs(const float *images, const float *regions_t, const float *present, const float *captions,
                 const int64_t *lengths, const int64_t *row, const int64_t *column, const float *weights,
                 const float *transposed, float *scores, const float *grads, float *of_images, float *of_captions,
                 float *of_weights, float *room, int pairs, int R, int most, int E, int S, int steps, float lambda,
                 float slope, float eps) {
    Model m = {R, whole_vectors(R), E, S, steps, lambda, slope, eps, weights, transposed};
    for (int i = 0; i < pairs; i++) {
        ptrdiff_t image = row[i] * (ptrdiff_t)(1 + R) * E, caption = column[i] * (ptrdiff_t)most * E;
        int n = (int)lengths[column[i]];
        Pair p = {images + image, regions_t + row[i] * (ptrdiff_t)E * m.RP, present + row[i] * m.RP,
                  captions + caption, n - 1, n, whole_vectors(n)};
        State s = state_in(room, &m, &p);
        float score = forward(&m, &p, &s);
        if (grads == NULL)
            scores[i] = score;
        else
            backward(&m, &p, &s, score, grads[i], of_images + image, of_captions + caption, of_weights);
    }
}
