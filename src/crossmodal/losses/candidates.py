"""Losses of some of a batch's pairs: each image and caption is compared with its candidates (``loss.candidates``).

Of B pairs only those in A or S are scored. A are the pairs that always count, the own one among them. S is drawn
uniformly from what A leaves out: m_i of the n_i further pairs of row i. A sum over a row, the denominator of a softmax
or the hinge's costs, is estimated with each drawn pair in the name of n_i / m_i (importance weights, as in sampled
softmax: Bengio and Senecal, IEEE TNN 2008; Jean et al., arXiv 1412.2007):

    sum_j f(s_ij)  ~  sum_(j in A_i) f(s_ij) + n_i / m_i sum_(j in S_i) f(s_ij)

and the same of columns. The estimate of the sum is unbiased, its logarithm is on average too low (Jensen), and a
maximum over the candidates is at most that over the row. Where all scores are equal, the estimate is exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Candidates:
    """Pairs of a batch that are scored: ``certain`` are A, ``sampled`` are S; (images, captions) bool, disjoint."""

    certain: torch.Tensor
    sampled: torch.Tensor

    def __getitem__(self, rows: torch.Tensor) -> Candidates:
        return Candidates(self.certain[rows], self.sampled[rows])

    @property
    def scored(self) -> torch.Tensor:
        """All of them."""
        return self.certain | self.sampled

    def weights(self, dim: int, ignore: torch.Tensor | None = None) -> torch.Tensor:
        """The weight of each pair in sums over a dimension: 1 of A, n / m of S, 0 where there is no score.

        Args:
            ignore: pairs that do not count, nor add to the weight of others.
        """
        ignore = torch.zeros_like(self.certain) if ignore is None else ignore
        drawn = self.sampled & ~ignore
        others = (~self.certain & ~ignore).sum(dim=dim, keepdim=True)
        share = others / drawn.sum(dim=dim, keepdim=True).clamp(min=1)
        return torch.where(drawn, share, (self.certain & ~ignore).float())
