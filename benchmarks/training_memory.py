"""Peak memory and time of a training step, with the batch encoded whole and in chunks (train.chunk).

    python benchmarks/training_memory.py --model tern --batch 256 --chunks 0 64 16
    python benchmarks/training_memory.py --model vse_infty --batch 4096 --chunks 0 256 --device cuda

Pairs of 36 regions x 2,048 and 16 token features x 768, made up, one caption an image; the model has random weights and
the sizes below, the loss is InfoNCE. Memory is what the step takes in addition to model, features and gradients.
"""

from __future__ import annotations

import argparse
from contextlib import nullcontext

import torch
from measure import peak_memory, seconds
from torch import nn

from crossmodal.batch import Regions, Words
from crossmodal.losses.pair import infonce_loss
from crossmodal.models.base import InputSizes, Matcher
from crossmodal.models.registry import build_model
from crossmodal.settings.params import load_params
from crossmodal.training.chunks import ChunkedEncoder

REGIONS, WORDS = (36, 2048), (16, 768)
SIZES = {
    "tern": {"embed_dim": 256, "visual_dim": 256, "visual_layers": 2, "layers": 2, "feed_forward": 1024, "heads": 4},
    "teran": {"embed_dim": 256, "visual_dim": 256, "visual_layers": 2, "layers": 2, "feed_forward": 1024, "heads": 4},
    "vse_infty": {"embed_dim": 1024, "mlp_hidden": 0},
}


def inputs(
    name: str, batch: int, chunk: int, device: str, *, small: bool = False
) -> tuple[Matcher, Regions, Words, int]:
    """Model with gradients, and a batch of pairs; ``small``: of four."""
    torch.manual_seed(0)
    settings = load_params().model_copy(update={"model": name}).model_settings.model_copy(update=SIZES[name])
    model = build_model(name, settings, InputSizes(regions=REGIONS[1], words=WORDS[1])).to(device).train()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    count = 4 if small else batch
    boxes = torch.rand(count, REGIONS[0], 2, 2, device=device).sort(dim=2).values.flatten(2)
    regions = Regions(
        torch.rand(count, *REGIONS, device=device),
        boxes,
        torch.ones(count, REGIONS[0], dtype=torch.bool, device=device),
    )
    words = torch.ones(count, WORDS[0], dtype=torch.bool, device=device)
    return model, regions, Words(torch.rand(count, *WORDS, device=device), words), chunk


def step(model: Matcher, regions: Regions, words: Words, chunk: int) -> None:
    """Forward and backward pass of a batch."""
    chunks = ChunkedEncoder(model, chunk, nullcontext) if chunk else None
    encode = (lambda: chunks.encode(regions, [words], torch.manual_seed)) if chunks else lambda: model(regions, [words])
    images, captions = encode()
    infonce_loss(model.batch_similarity(images, captions, sparse=0), temperature=0.07).backward()
    if chunks:
        chunks.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 2.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=sorted(SIZES), default="tern")
    parser.add_argument("--batch", type=int, default=256, help="pairs")
    parser.add_argument("--chunks", type=int, nargs="+", default=[0, 64, 16], help="of train.chunk; 0: the batch whole")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    for chunk in arguments.chunks:
        case = (arguments.model, arguments.batch, chunk, arguments.device)
        taken, given = peak_memory(step, inputs, *case, device=arguments.device), inputs(*case)
        time = seconds(lambda given=given: step(*given), arguments.device)
        print(f"{arguments.model}, {arguments.batch} pairs, chunk {chunk}: {taken:,.0f} MiB, {time:.1f} s")


if __name__ == "__main__":
    main()
