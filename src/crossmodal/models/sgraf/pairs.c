/* SGR's scores of some pairs of a batch and their gradients, pair by pair within the first caches, see pairs.py.

   Letters as in pair_scores.c. */

#include "pair_gradients.c"

/* Scores of pairs, and where grads is given the gradients of their sum weighted by it.

   images (N, 1 + R, E), regions_t (N, E, RP), present (N, RP) above 0 where there is a region, captions (C, most, E),
   lengths (C): 1 + L; row, column (pairs); factors (C, S): dropout, or NULL; weights, transposed: see map_at; scores, grads (pairs); grad_images,
   grad_captions, grad_weights: added to. scratch: pair_scratch of the longest caption. */
void score_pairs(const float *images, const float *regions_t, const float *present, const float *captions,
                 const int64_t *lengths, const int64_t *row, const int64_t *column, const float *factors,
                 const float *weights, const float *transposed, float *scores, const float *grads, float *grad_images,
                 float *grad_captions, float *grad_weights, float *scratch, int pairs, int R, int most, int E, int S,
                 int steps, float lambda, float slope, float eps) {
    Model m = {R, whole_vectors(R), E, S, steps, lambda, slope, eps, weights, transposed};
    for (int i = 0; i < pairs; i++) {
        ptrdiff_t image = row[i] * (ptrdiff_t)(1 + R) * E, caption = column[i] * (ptrdiff_t)most * E;
        int n = (int)lengths[column[i]];
        Pair p = {images + image, regions_t + row[i] * (ptrdiff_t)E * m.RP, present + row[i] * m.RP,
                  captions + caption, factors ? factors + column[i] * (ptrdiff_t)S : NULL, n - 1, n, whole_vectors(n)};
        State s = state_in(scratch, &m, &p);
        float score = forward(&m, &p, &s);
        if (grads == NULL)
            scores[i] = score;
        else
            backward(&m, &p, &s, score, grads[i], &(Sums){grad_images + image, grad_captions + caption, grad_weights});
    }
}
