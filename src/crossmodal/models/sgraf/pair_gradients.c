/* Gradients of SGR's score of a pair, from its last equation to its first (pairs.c); letters as in pair_scores.c. */

#include "pair_scores.c"

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
