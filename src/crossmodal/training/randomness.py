"""Random numbers of training, which depend on the seed, the batch and their purpose alone: a resumed run needs no other
state.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class BatchRandomness:
    """Random numbers of one batch of an epoch, both counted from 0."""

    seed: int
    epoch: int
    batch: int

    def seed_torch(self, *stream: int) -> None:
        """Seed torch's own generators, from which layers and miners draw."""
        torch.manual_seed(self._number(*stream))

    def generator(self, purpose: int) -> torch.Generator:
        """A generator on the CPU, for what all processes draw alike."""
        return torch.Generator().manual_seed(self._number(0, purpose))

    def _number(self, *stream: int) -> int:
        words = np.random.SeedSequence([self.seed, self.epoch, self.batch, *stream]).generate_state(2)
        return int(words[0]) << 32 | int(words[1])
