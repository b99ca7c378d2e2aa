"""Speed, time by kind of kernel, bytes over the bus and memory of training steps on a GPU.

    python benchmarks/gpu_training.py --models tern teran sgr saf vse_infty --batch 128 --steps 20
    python benchmarks/gpu_training.py --models sgr saf vse_infty --published SGRAF vse_infty     # folders: checkouts
    python benchmarks/gpu_training.py --small --device cpu

Pairs of 36 regions x 2,048 and a caption of 8 to 20 tokens, made up, on the host, copied in every step as training
copies them; models of published sizes with random weights, hinge with hard negatives, AdamW. TERN and TERAN take stored
token features x 768, SGRAF trains a bidirectional GRU, VSE-infinity BERT base, as published. ``--published``: the step
of the published code on the same pairs, see published_steps.py. ``--features device``: regions are kept on the device
and gathered in every step. ``--small``: few pairs and narrow models, to see that it runs. On a CPU there are no columns
of a GPU. No time of a GPU is known yet.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from gpu_table import device_columns, markdown
from published_steps import published_steps

from crossmodal.batch import Regions, Words
from crossmodal.errors import exits_cleanly
from crossmodal.features.on_device import DeviceRegions
from crossmodal.features.store import FeatureStore, StoreWriter
from crossmodal.losses.pair import HingeLoss
from crossmodal.models.base import InputSizes, Matcher
from crossmodal.models.registry import build_model
from crossmodal.models.text import build_text
from crossmodal.runtime import float32_products, pick_device, usable_precision
from crossmodal.settings.params import load_params
from crossmodal.training.batches import LENGTH_BUCKETS, PairBatch

VOCABULARY = 8481  # words of Flickr30k's published vocabulary
ENCODERS = {"embed_dim": 1024, "visual_dim": 2048, "visual_layers": 4, "text_layers": 0, "layers": 2}
ENCODERS |= {"feed_forward": 2048, "heads": 4}
SGRAF = {"embed_dim": 1024, "sim_dim": 256, "region_norms": 36, "dropout": 0.4}
PUBLISHED = {  # model of params.yaml, its published sizes, and its text encoder
    "tern": ("tern", ENCODERS | {"image_aggregation": "cls", "text_aggregation": "cls"}, "bert"),
    "teran": ("teran", ENCODERS | {"alignment": "MrSw"}, "bert"),
    "sgr": ("sgraf", SGRAF | {"module": "sgr"}, "bigru"),
    "saf": ("sgraf", SGRAF | {"module": "saf"}, "bigru"),
    "vse_infty": ("vse_infty", {"embed_dim": 1024, "mlp_hidden": 512}, "bert_finetune"),
}
GRU = {"vocabulary": VOCABULARY, "embed_dim": 300, "hidden": 1024, "dropout": 0.4}
BERT = {"vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12, "intermediate_size": 3072}
NARROW = {"embed_dim": 32, "visual_dim": 32, "feed_forward": 32, "sim_dim": 16, "mlp_hidden": 16}
NARROW_GRU = {"embed_dim": 12, "hidden": 32}
NARROW_BERT = {"vocab_size": VOCABULARY, "num_hidden_layers": 1, "intermediate_size": 32, "num_attention_heads": 2}


def make_batch(pairs: int, regions: int, words: int, *, ids: bool = False) -> PairBatch:
    """Pairs of one image and one caption each, as the loader gives them: token features, or ids."""
    generator = torch.Generator().manual_seed(0)
    boxes = torch.rand(pairs, 36, 2, 2, generator=generator).sort(dim=2).values.flatten(2)
    features = torch.randn(pairs, 36, regions, generator=generator).half()
    parts = []
    for lengths in torch.randint(8, 21, (pairs,), generator=generator).sort().values.chunk(LENGTH_BUCKETS):
        longest = int(lengths.max())
        mask = torch.arange(longest) < lengths[:, None]
        if ids:
            tokens = torch.randint(1, VOCABULARY, mask.shape, generator=generator).masked_fill(~mask, 0)
            parts.append(Words(None, mask, tokens))
        else:
            parts.append(Words(torch.randn(len(lengths), longest, words, generator=generator).half(), mask))
    every = torch.arange(pairs)
    return PairBatch(
        Regions(features, boxes, torch.ones(pairs, 36, dtype=torch.bool)), tuple(parts), every, every, every
    )


def bytes_of(batch: PairBatch) -> int:
    """What a batch copies to the device."""
    sets = [batch.regions, *batch.words]
    tensors = [value for part in sets for value in vars(part).values() if value is not None]
    return sum(tensor.nbytes for tensor in (*tensors, batch.image_index, batch.captions))


def step(
    model: Matcher,
    loss: HingeLoss,
    optimizer: torch.optim.Optimizer,
    batch: PairBatch,
    kept: DeviceRegions | None,
    precision: str,
) -> None:
    """A training step, the copy of its batch included, and the gathering of regions that are ``kept`` on the device."""
    device = next(model.parameters()).device
    moved = batch.to(device, kept)
    index = moved.image_index
    with float32_products(precision, device.type):
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
            images, captions = model(moved.regions, moved.words)
        images, captions = images.float(), [part.float() for part in captions]
        scores = model.batch_similarity(images, captions, sparse=loss.sparse(9, len(index)))
        loss(scores, index, 9).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def own_step(name: str, options: argparse.Namespace) -> tuple[Callable[[], None], int]:
    """A model's training step, and the bytes that it copies."""
    section, sizes, encoder = PUBLISHED[name]
    params, small, device = load_params(), options.small, torch.device(options.device)
    text = {"bert": {}, "bigru": GRU | (NARROW_GRU if small else {})}
    text["bert_finetune"] = {"config": {"model_type": "bert"} | BERT | (NARROW_BERT if small else {})}
    sizes = {key: NARROW.get(key, value) for key, value in sizes.items()} if small else sizes
    settings = getattr(params, section).model_copy(update=sizes)
    stored = 32 if small else 768
    inputs = InputSizes(32 if small else 2048, {"bert": stored, "bigru": text["bigru"]["hidden"]}.get(encoder, 768))
    model = build_model(section, settings, inputs, partial(build_text, encoder, text[encoder])).to(device).train()
    loss = HingeLoss(params.loss.model_copy(update={"negatives": "hard", "all_negatives_epochs": 0}))
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    batch = make_batch(options.batch, inputs.regions, stored, ids=encoder != "bert")
    kept = kept_regions(batch.regions, device) if options.features == "device" else None
    batch = batch if kept is None else replace(batch, regions=kept.index(np.arange(options.batch)))
    batch = batch.pin_memory() if device.type == "cuda" else batch
    precision = usable_precision(options.precision, device.type, "--precision")
    return partial(step, model, loss, optimizer, batch, kept, precision), bytes_of(batch)


def kept_regions(regions: Regions, device: torch.device) -> DeviceRegions:
    """Regions on the device, by way of a store, as ``train.features: device`` keeps them."""
    arrays = {"features": regions.features.numpy(), "boxes": regions.boxes.numpy()}
    with tempfile.TemporaryDirectory() as folder:
        writer = StoreWriter(Path(folder), {name: (str(part.dtype), part.shape[2:]) for name, part in arrays.items()})
        for row in range(len(regions)):
            writer.append({name: part[row] for name, part in arrays.items()})
        writer.close()
        return DeviceRegions(FeatureStore(Path(folder)), np.arange(len(regions)), device)


def published(folder: Path, options: argparse.Namespace) -> dict[str, tuple[Callable[[], None], int]]:
    """Steps of published code by name of the row, and the bytes that they copy: features are float32."""
    regions = 32 if options.small else 2048
    sizes = {"img_dim": regions, "embed_size": 32 if options.small else 1024, "vocab_size": VOCABULARY}
    sizes |= {"word_dim": 12, "sim_dim": 16} if options.small else {}
    batch = make_batch(options.batch, regions, 0, ids=True)
    copied = batch.regions.features.numel() * 4 + sum(part.ids.nbytes for part in batch.words)
    made = published_steps(folder, sizes, BERT | (NARROW_BERT if options.small else {}))
    return {name: (make(batch), copied) for name, make in made.items()}


def measure(name: str, work: Callable[[], None], copied: int, options: argparse.Namespace) -> dict[str, str]:
    """A row of the table."""
    gpu = torch.device(options.device).type == "cuda"

    def run(steps: int) -> float:
        started = time.perf_counter()
        for _ in range(steps):
            work()
        if gpu:
            torch.cuda.synchronize()
        return time.perf_counter() - started

    run(options.warm_up)
    seconds = run(options.steps) / options.steps
    row = {"model": name, "samples/s": f"{options.batch / seconds:,.0f}", "MB copied": f"{copied / 1e6:.3f}"}
    return row | device_columns(work, options.device)


def rows(arguments: Sequence[str] | None = None) -> list[dict[str, str]]:
    """The table's rows; ``arguments``: of the command line, None for this process's own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(PUBLISHED), choices=list(PUBLISHED))
    parser.add_argument("--published", nargs="+", type=Path, default=[], metavar="FOLDER")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warm-up", type=int, default=5)
    parser.add_argument("--device", default=pick_device().type)
    parser.add_argument("--precision", default="fp32", choices=["fp32", "tf32", "bf16"], help="of our steps")
    parser.add_argument("--features", default="host", choices=["host", "device"])
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args(arguments)
    if options.small:
        options.batch, options.steps, options.warm_up = min(options.batch, 12), 1, 0
    theirs = [steps for folder in options.published for steps in published(folder, options).items()]
    found = [measure(name, *own_step(name, options), options) for name in options.models]
    return found + [measure(name, *made, options) for name, made in theirs]


@exits_cleanly
def main() -> None:
    print(markdown(rows()))


if __name__ == "__main__":
    main()
