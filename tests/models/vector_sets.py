"""Sets of vectors, and what loops over their numbers need."""

import torch
import torch.nn.functional as F

from crossmodal.batch import Encoding


def random_sets(count, longest, seed):
    """``count`` sets of 1 to ``longest`` vectors of length 1, in double precision: (count, longest, 12)."""
    generator = torch.Generator().manual_seed(seed)
    vectors = F.normalize(torch.randn(count, longest, 12, generator=generator, dtype=torch.float64), dim=-1)
    lengths = torch.randint(1, longest + 1, (count,), generator=generator)
    return Encoding(vectors, torch.arange(longest) < lengths[:, None])


def members(encoding, row):
    """The real vectors of a set, as lists."""
    return encoding.vectors[row][encoding.mask[row]].double().tolist()


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))
