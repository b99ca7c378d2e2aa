/* SGR's score of a pair, equations (1) to (6) of equations.py, and what its gradients need of it (pairs.c).

   A pair is an image of R regions and a caption of L words, n = 1 + L nodes; E: embedding, S: similarity vector.
   RP, NP: R and n, rounded up to whole vectors. E and S are multiples of LANES. Matrices are row by row. */

#include "pair_products.c"

/* sizes, and all that is the same for every pair */
typedef struct {
    int R, RP, E, S, steps;
    float lambda, slope, eps;
    const float *weights, *transposed; /* see map_at */
} Model;

/* where a model's parameters are in one row of numbers: weight (S, inputs), then bias (S); local, global, and of each
   step query and update; at the end the score's weight (S) and bias. `transposed` has weights alone, (inputs, S). */
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
    const float *factors;                               /* (S), dropout of the similarity vectors; NULL: none */
    int L, n, NP;
} Pair;

/* results of the forward pass that the backward pass reads, and memory to work in */
typedef struct {
    float *cosines, *alpha;                  /* (L, RP) */
    float *inverse, *varies;                 /* (RP): 1 / norm of (3), and 1, or 0 where the norm is at its bound */
    float *attended, *length;                /* (n, E) of length 1, from row 1 on; (n) */
    float *difference, *squares;             /* (n, E) */
    float *mapped_length, *vectors;          /* (n); (n, S), the similarity vectors without dropout, where there is one */
    float *nodes, *nodes_t;                  /* of each step (n, S), one more of nodes; (S, NP) */
    float *query, *edges, *message;          /* of each step (n, S), (n, NP), (n, S) */
    float *work;                             /* of the backward pass */
} State;

/* size of `scratch`, in numbers, for a pair of at most so many words: a State, and the work of gradients_in */
ptrdiff_t pair_scratch(int L, int R, int E, int S, int steps) {
    ptrdiff_t n = L + 1, RP = whole_vectors(R), NP = whole_vectors((int)n);
    return 2 * n * RP + 2 * RP + 3 * n * E + 2 * NP + (steps + 2) * n * S + steps * (S * NP + 2 * n * S + n * NP) +
           4 * n * S + n * NP + n * E + n * RP;
}

static State state_in(float *scratch, const Model *m, const Pair *p) {
    State s;
    ptrdiff_t n = p->n, steps = m->steps;
#define TAKE(name, size) s.name = scratch, scratch += (size)
    TAKE(cosines, n * m->RP); TAKE(alpha, n * m->RP); TAKE(inverse, m->RP); TAKE(varies, m->RP);
    TAKE(attended, n * m->E); TAKE(length, p->NP); TAKE(difference, n * m->E); TAKE(squares, n * m->E);
    TAKE(mapped_length, p->NP); TAKE(vectors, n * m->S);
    TAKE(nodes, (steps + 1) * n * m->S); TAKE(nodes_t, steps * m->S * p->NP);
    TAKE(query, steps * n * m->S); TAKE(edges, steps * n * p->NP); TAKE(message, steps * n * m->S);
    TAKE(work, 0);
#undef TAKE
    return s;
}

/* equation (3), and the sum of (4), to row 1 and on of s->attended */
static void attend(const Model *m, const Pair *p, State *s) {
    const int E = m->E, RP = m->RP, L = p->L;
    product(s->cosines, RP, p->caption + E, E, 1, p->regions_t, RP, L, RP, E, 0);
    for (int r = 0; r < RP; r += LANES) {
        vec sums = {0};
        for (int l = 0; l < L; l++) {
            vec c = load(s->cosines + l * RP + r), f = choose(c > 0, c, c * m->slope);
            sums += f * f;
        }
        for (int i = 0; i < LANES; i++) { /* a norm at its bound has no gradient */
            float least = m->eps * m->eps;
            s->varies[r + i] = sums[i] > least ? 1 : 0;
            s->inverse[r + i] = 1 / sqrtf(at_least(sums[i], least));
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
}

/* equations (1), (2) and (4), and the dropout: similarity vectors to s->nodes */
static void similarity_vectors(const Model *m, const Pair *p, State *s) {
    const int E = m->E, S = m->S, L = p->L, n = p->n;
    for (int l = 0; l < n; l++) {
        float *row = s->attended + (ptrdiff_t)l * E, scale = 1;
        if (l) {
            float length = s->length[l] = sqrtf(dot(row, row, E));
            scale = 1 / at_least(length, m->eps);
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
        product(out, S, s->squares + (global ? 0 : E), E, 1, m->transposed + transposed_at(m, global), S, rows, S, E,
                1);
    }
    for (int l = 0; l < n; l++) {
        float *row = s->nodes + l * S, length = s->mapped_length[l] = sqrtf(dot(row, row, S));
        float scale = 1 / at_least(length, m->eps);
        for (int j = 0; j < S; j += LANES) store(row + j, load(row + j) * scale);
    }
    for (int l = 0; p->factors && l < n; l++)
        for (int j = 0; j < S; j += LANES) {
            vec v = load(s->nodes + l * S + j);
            store(s->vectors + l * S + j, v);
            store(s->nodes + l * S + j, v * load(p->factors + j));
        }
}

/* equations (5) and (6), the query's map being folded as in graph.py, and the score */
static float forward(const Model *m, const Pair *p, State *s) {
    const int S = m->S, n = p->n, NP = p->NP;
    attend(m, p, s);
    similarity_vectors(m, p, s);
    for (int k = 0; k < m->steps; k++) {
        const float *query_map = m->weights + map_at(m, 2 + 2 * k), *update_map = m->weights + map_at(m, 3 + 2 * k);
        float *nodes = s->nodes + (ptrdiff_t)k * n * S, *next = nodes + n * S;
        float *nodes_t = s->nodes_t + (ptrdiff_t)k * S * NP;
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
