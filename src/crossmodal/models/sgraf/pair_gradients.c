/* Gradients of SGR's score of a pair, from its last equation to its first (pairs.c); letters as in pair_scores.c. */

#include "pair_scores.c"

/* gradients that a pair's are added to: of its image (1 + R, E), its caption (n, E) and the parameters, see map_at */
typedef struct {
    float *image, *caption, *weights;
} Sums;

/* a pair's own gradients; nodes of a step, next: those that it gives */
typedef struct {
    float *nodes, *next, *message, *query; /* (n, S) each */
    float *edges, *difference, *alpha;     /* (n, NP), (n, E), (L, RP) */
} Gradients;

static Gradients gradients_in(float *work, const Model *m, const Pair *p) {
    const int nS = p->n * m->S;
    float *edges = work + 4 * nS, *difference = edges + p->n * p->NP, *alpha = difference + p->n * m->E;
    return (Gradients){work, work + nS, work + 2 * nS, work + 3 * nS, edges, difference, alpha};
}

/* of node 0 after the last step; grad: of the score */
static void score_gradient(const Model *m, const Pair *p, const State *s, float score, float grad, Gradients *g,
                           Sums *sums) {
    const int S = m->S;
    const float *weight = m->weights + map_at(m, 2 + 2 * m->steps), *last = s->nodes + (ptrdiff_t)m->steps * p->n * S;
    float *of_weight = sums->weights + map_at(m, 2 + 2 * m->steps);
    grad *= score * (1 - score);
    of_weight[S] += grad;
    for (int j = 0; j < S; j += LANES) {
        store(of_weight + j, load(of_weight + j) + grad * load(last + j));
        store(g->next + j, grad * load(weight + j));
    }
}

/* equations (6) and (5) of step k: of its nodes, in g->next for the step before */
static void step_gradients(const Model *m, const Pair *p, const State *s, int k, Gradients *g, Sums *sums) {
    const int S = m->S, n = p->n, NP = p->NP, rows = k == m->steps - 1 ? 1 : n;
    const float *nodes = s->nodes + (ptrdiff_t)k * n * S, *next = nodes + n * S;
    const float *nodes_t = s->nodes_t + (ptrdiff_t)k * S * NP, *query = s->query + (ptrdiff_t)k * n * S;
    const float *message = s->message + (ptrdiff_t)k * n * S, *edges = s->edges + (ptrdiff_t)k * n * NP;
    const float *query_map = m->weights + map_at(m, 2 + 2 * k), *update_map = m->weights + map_at(m, 3 + 2 * k);
    float *of_query_map = sums->weights + map_at(m, 2 + 2 * k), *of_update_map = sums->weights + map_at(m, 3 + 2 * k);
    for (int j = 0; j < rows * S; j += LANES)
        store(g->next + j, choose(load(next + j) > 0, load(g->next + j), (vec){0}));
    product(of_update_map, S, g->next, 1, S, message, S, S, S, rows, 1);
    add_rows(of_update_map + S * S, g->next, rows, S);
    product(g->message, S, g->next, S, 1, update_map, S, rows, S, S, 0);
    product(g->nodes, S, edges, 1, NP, g->message, S, n, S, rows, 0);
    product(g->edges, NP, g->message, S, 1, nodes_t, NP, rows, NP, S, 0);
    for (int r = 0; r < rows; r++) softmax_gradient(g->edges + r * NP, edges + r * NP, NP);
    product(g->query, S, g->edges, NP, 1, nodes, S, rows, S, n, 0);
    product(g->nodes, S, g->edges, 1, NP, query, S, n, S, rows, 1);
    product(of_query_map, S, g->query, 1, S, nodes, S, S, S, rows, 1);
    add_rows(of_query_map + S * S, g->query, rows, S);
    product(g->nodes, S, g->query, S, 1, query_map, S, rows, S, S, 1);
    float *swap = g->next;
    g->next = g->nodes, g->nodes = swap;
}

/* equations (1), (2) and (4): of the global vectors, of the words, and of sum_i alpha_ij v_i in g->difference */
static void vector_gradients(const Model *m, const Pair *p, const State *s, Gradients *g, Sums *sums) {
    const int E = m->E, S = m->S, n = p->n;
    const float *vectors = p->factors ? s->vectors : s->nodes;
    for (int l = 0; l < n; l++) {
        float *row = g->next + l * S;
        for (int j = 0; p->factors && j < S; j += LANES) store(row + j, load(row + j) * load(p->factors + j));
        unit_gradient(row, vectors + l * S, s->mapped_length[l], m->eps, S);
    }
    for (int global = 0; global < 2; global++) {
        int first = global ? 0 : 1, rows = global ? 1 : p->L;
        const float *map = m->weights + map_at(m, global);
        float *of_map = sums->weights + map_at(m, global), *of_mapped = g->next + first * S;
        product(of_map, E, of_mapped, 1, S, s->squares + first * E, E, S, E, rows, 1);
        add_rows(of_map + (ptrdiff_t)S * E, of_mapped, rows, S);
        product(g->difference + first * E, E, of_mapped, S, 1, map, E, rows, E, S, 0);
    }
    for (ptrdiff_t e = 0; e < (ptrdiff_t)n * E; e += LANES) {
        vec d = 2 * load(s->difference + e) * load(g->difference + e);
        store(g->difference + e, d);
        store(sums->caption + e, load(sums->caption + e) - d);
    }
    for (int e = 0; e < E; e += LANES) store(sums->image + e, load(sums->image + e) + load(g->difference + e));
    for (int l = 1; l < n; l++)
        unit_gradient(g->difference + (ptrdiff_t)l * E, s->attended + (ptrdiff_t)l * E, s->length[l], m->eps, E);
}

/* equation (3), and the sum of (4): of the regions and words */
static void attention_gradients(const Model *m, const Pair *p, const State *s, Gradients *g, Sums *sums) {
    const int E = m->E, RP = m->RP, R = m->R, L = p->L;
    product(g->alpha, RP, g->difference + E, E, 1, p->regions_t, RP, L, RP, E, 0);
    product(sums->image + E, E, s->alpha, 1, RP, g->difference + E, E, R, E, L, 1);
    for (int l = 0; l < L; l++) softmax_gradient(g->alpha + l * RP, s->alpha + l * RP, RP);
    for (int r = 0; r < RP; r += LANES) { /* logits are lambda f / norm, norm^2 = sum f^2 */
        vec inverse = load(s->inverse + r), sum = {0};
        for (int l = 0; l < L; l++) {
            vec c = load(s->cosines + l * RP + r), f = choose(c > 0, c, c * m->slope);
            sum += load(g->alpha + l * RP + r) * f;
        }
        sum *= inverse * inverse * load(s->varies + r);
        for (int l = 0; l < L; l++) {
            vec c = load(s->cosines + l * RP + r), f = choose(c > 0, c, c * m->slope);
            vec d = m->lambda * inverse * (load(g->alpha + l * RP + r) - f * sum);
            store(g->alpha + l * RP + r, choose(c > 0, d, d * m->slope));
        }
    }
    product(sums->caption + E, E, g->alpha, RP, 1, p->image + E, E, L, E, R, 1);
    product(sums->image + E, E, g->alpha, 1, RP, p->caption + E, E, R, E, L, 1);
}

/* adds the gradients of a pair; grad: of its score */
static void backward(const Model *m, const Pair *p, const State *s, float score, float grad, Sums *sums) {
    Gradients g = gradients_in(s->work, m, p);
    score_gradient(m, p, s, score, grad, &g, sums);
    for (int k = m->steps - 1; k >= 0; k--) step_gradients(m, p, s, k, &g, sums);
    vector_gradients(m, p, s, &g, sums);
    attention_gradients(m, p, s, &g, sums);
}
