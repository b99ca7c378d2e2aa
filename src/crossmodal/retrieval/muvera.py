"""MUVERA's fixed dimensional encodings: a set of vectors as one vector, so that an index finds sets.

Dhulipala, Hadian, Jayaram, Lee, Mirrokni: MUVERA: Multi-Vector Retrieval via Fixed Dimensional Encodings, NeurIPS 2024,
arXiv 2405.19504, section 2. The inner product of a caption's encoding with an image's approximates the sum over words
of the best region, which late interaction calls MaxSim and the paper the Chamfer similarity:

    chamfer(Q, P) = sum_q max_p q . p                                                                   (1)
    phi(x) = ([g_1 . x > 0], ..., [g_k . x > 0])     bucket of a vector, k random planes g               (2)
    psi(x) = S x / sqrt(d)                            random signs S, (d, E): to d dimensions            (3)
    Q_b = sum_{q: phi(q) = b} psi(q)                  bucket b of a query's encoding                     (4)
    P_b = mean_{p: phi(p) = b} psi(p)                 of an item's                                       (5)
    P_b = psi(p) of the p whose phi is nearest to b   (Hamming) where no p is in it                      (6)

Buckets b = 0 .. 2^k - 1 follow each other, for ``repetitions`` draws of g and S. Here an encoding is divided by the
root of their number, so that the inner product estimates (1) itself. Captions are the queries and images the items in
both directions, as the sum is over words in both. Each draw depends on the seed alone.

Shapes: B sets of N vectors of E, K = 2^planes buckets of D = ``dim`` values, M = repetitions * K * D.
"""

from __future__ import annotations

import numpy as np
import torch

from crossmodal.batch import Encoding
from crossmodal.inference.scoring import SearchInputs, evaluating, numbers
from crossmodal.models.base import Matcher
from crossmodal.settings.evaluation import Muvera

IMAGE_CHUNK = 1024  # images whose sets are held at a time


class FixedEncoder:
    """Fixed dimensional encodings of sets of vectors of ``dim`` values, (B, M) float32 on the sets' device."""

    def __init__(self, settings: Muvera, dim: int) -> None:
        generator = np.random.default_rng(settings.seed)
        repetitions, planes = settings.repetitions, settings.planes
        draws = generator.standard_normal((repetitions, dim, planes), dtype=np.float32)
        self.planes = torch.from_numpy(draws)
        if settings.dim < dim:
            signs = generator.choice(np.array([-1, 1], dtype=np.float32), (repetitions, dim, settings.dim))
            self.signs = torch.from_numpy(signs) / settings.dim**0.5
        else:  # nothing is gained by more dimensions than a vector has
            self.signs = torch.eye(dim).expand(repetitions, dim, dim)
        codes = torch.arange(2**planes)
        self.bits = 2 ** torch.arange(planes)
        self.code_bits = ((codes[:, None] & self.bits) > 0).float()  # (K, planes)

    def queries(self, sets: Encoding, *, average: bool = False) -> torch.Tensor:
        """Sums of each bucket, (4). ``average``: of the mean over a set's members in (1), instead of the sum."""
        encoded = self._encode(sets, items=False)
        return encoded / sets.mask.sum(dim=1, keepdim=True).clamp(min=1) if average else encoded

    def items(self, sets: Encoding) -> torch.Tensor:
        """Means of each bucket, (5), filled by (6)."""
        return self._encode(sets, items=True)

    def _encode(self, sets: Encoding, *, items: bool) -> torch.Tensor:
        vectors, mask = sets.vectors.float(), sets.mask
        parts = []
        for planes, signs in zip(self.planes.to(vectors.device), self.signs.to(vectors.device), strict=True):
            bits = vectors @ planes > 0  # (B, N, planes)
            codes = (bits * self.bits.to(bits.device)).sum(dim=-1)
            inside = torch.nn.functional.one_hot(codes, len(self.code_bits)) * mask.unsqueeze(-1)  # (B, N, K)
            values = vectors @ signs  # (B, N, D)
            buckets = inside.mT.float() @ values  # (B, K, D)
            if items:
                counts = inside.sum(dim=1)  # (B, K)
                nearest = self._nearest(bits, mask).unsqueeze(-1).expand(-1, -1, values.shape[-1])
                filled = values.gather(1, nearest) * mask.any(dim=1)[:, None, None]
                buckets = torch.where(counts.unsqueeze(-1) > 0, buckets / counts.clamp(min=1).unsqueeze(-1), filled)
            parts.append(buckets.flatten(1))
        return torch.cat(parts, dim=1) / len(self.planes) ** 0.5

    def _nearest(self, bits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Of each bucket the member with the nearest code, the first of several: (B, K)."""
        code_bits, bits = self.code_bits.to(bits.device), bits.float()
        distance = bits.sum(dim=-1, keepdim=True) + code_bits.sum(dim=1) - 2 * bits @ code_bits.T  # (B, N, K)
        members = bits.shape[1]
        order = distance * members + torch.arange(members, device=bits.device)[:, None]
        return order.masked_fill(~mask.unsqueeze(-1), torch.inf).argmin(dim=1)


@torch.inference_mode()
def muvera_vectors(inputs: SearchInputs, settings: Muvera) -> tuple[np.ndarray, np.ndarray]:
    """Encodings of a split, images (N, M) and captions (C, M), float32, whose inner products rank shortlists.

    Captions stand for the mean over words of the best region, or for the sum where the matcher's score is a sum.

    Raises:
        UserError: a value is NaN.
    """
    split, images, captions = inputs.split, [], []
    with evaluating(inputs.model):
        for start in range(0, len(split.images), IMAGE_CHUNK):
            sets = inputs.encode_images(slice(start, start + IMAGE_CHUNK))
            encoder = FixedEncoder(settings, sets.vectors.shape[-1])
            images.append(numbers(encoder.items(sets)))
        average = not adds_words(inputs.model, sets[:8], inputs.encode_captions(slice(0, 8)))
        rows = []
        for chunk, sets in inputs.caption_chunks():
            rows.append(chunk)
            captions.append(numbers(encoder.queries(sets, average=average)))
    return np.concatenate(images), np.concatenate(captions)[np.argsort(np.concatenate(rows))]


def adds_words(model: Matcher, images: Encoding, captions: Encoding) -> bool:
    """Whether a pair's score is a sum over words: with every word twice it is then the double, else much the same."""
    twice = Encoding(captions.vectors.repeat(1, 2, 1), captions.mask.repeat(1, 2))
    once, doubled = model.similarity(images, captions), model.similarity(images, twice)
    return bool((doubled - 2 * once).abs().mean() < (doubled - once).abs().mean())
