"""The bytes that docs/gpu.md says processes gather are those that the gather receives."""

import re
from pathlib import Path

import pytest
import torch
from torch import distributed

from crossmodal.batch import Encoding
from crossmodal.training.processes import Processes

DOCS = Path(__file__).resolve().parents[2] / "docs/gpu.md"
BATCH = 128
ITEMS = {"tern": 1, "sgraf": 37}  # vectors of 1,024 an image


def documented(model):
    """Megabytes by number of processes."""
    row = next(line for line in DOCS.read_text().splitlines() if re.match(rf"\| {model}\b.* kB \|", line))
    return dict(zip((2, 4, 8), map(float, re.findall(r"([\d.]+) MB", row)), strict=True))


@pytest.mark.parametrize("model", ITEMS)
@pytest.mark.parametrize("count", [2, 4, 8])
def test_images_that_a_process_receives(monkeypatch, model, count):
    """Of its own rows none come from others; a set's mask is a thousandth of it."""
    received = []

    def all_gather(parts, own):
        received.append(sum(part.nbytes for part in parts) - own.nbytes)
        for part in parts:
            part.copy_(own)

    monkeypatch.setattr(distributed, "all_gather", all_gather)
    monkeypatch.setattr(distributed, "get_world_size", lambda: count)
    items = ITEMS[model]
    vectors = torch.ones(BATCH // count, *[items] * (items > 1), 1024)
    images = Encoding(vectors, torch.ones(vectors.shape[:2], dtype=torch.bool) if items > 1 else None)
    gathered = Processes(torch.device("cpu"), 0, count).gather_encoding(images)
    assert len(gathered.vectors) == BATCH
    assert sum(received) / 1e6 == pytest.approx(documented(model)[count], rel=0.03)
