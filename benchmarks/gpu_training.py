"""Speed, time by kind of kernel, bytes over the bus and memory of training steps on a GPU.

    python benchmarks/gpu_training.py --models tern teran sgr saf vse_infty --batch 128 --steps 20
    python benchmarks/gpu_training.py --small --device cpu

Pairs of 36 regions x 2,048 and 8 to 20 token features x 768, made up, in float16 on the host, copied in every step as
training copies them; models of published sizes with random weights, hinge with hard negatives, AdamW. ``--small``: few
pairs and narrow models, to see that it runs. On a CPU the columns of a GPU are empty. No time of a GPU is known yet.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter

import torch
from torch.profiler import ProfilerActivity, profile

from crossmodal.batch import Regions, Words
from crossmodal.losses.pair import HingeLoss
from crossmodal.models.base import InputSizes, Matcher
from crossmodal.models.registry import build_model
from crossmodal.runtime import pick_device
from crossmodal.settings.params import load_params
from crossmodal.training.batches import LENGTH_BUCKETS, PairBatch

ENCODERS = {"embed_dim": 1024, "visual_dim": 2048, "visual_layers": 4, "text_layers": 0, "layers": 2}
ENCODERS |= {"feed_forward": 2048, "heads": 4}
SGRAF = {"embed_dim": 1024, "sim_dim": 256, "region_norms": 36, "dropout": 0.4}
PUBLISHED = {  # model of params.yaml, and its published sizes
    "tern": ("tern", ENCODERS),
    "teran": ("teran", ENCODERS | {"alignment": "MrSw"}),
    "sgr": ("sgraf", SGRAF | {"module": "sgr"}),
    "saf": ("sgraf", SGRAF | {"module": "saf"}),
    "vse_infty": ("vse_infty", {"embed_dim": 1024, "mlp_hidden": 512}),
}
NARROW = {"embed_dim": 32, "visual_dim": 32, "feed_forward": 32, "sim_dim": 16, "mlp_hidden": 16}
KINDS = {  # of kernels, by what their names hold; the first that fits
    "copy": ("memcpy", "memset"),
    "product": ("gemm", "cutlass", "xmma", "cublas", "matmul"),
    "attention": ("attention", "flash", "fmha"),
    "reduction": ("reduce", "softmax", "norm"),
    "index": ("index", "gather", "scatter", "sort"),
}


def make_batch(pairs: int, regions: int, words: int) -> PairBatch:
    """Pairs of one image and one caption each, as the loader gives them."""
    generator = torch.Generator().manual_seed(0)
    boxes = torch.rand(pairs, 36, 2, 2, generator=generator).sort(dim=2).values.flatten(2)
    features = torch.randn(pairs, 36, regions, generator=generator).half()
    parts = []
    for lengths in torch.randint(8, 21, (pairs,), generator=generator).sort().values.chunk(LENGTH_BUCKETS):
        longest = int(lengths.max())
        tokens = torch.randn(len(lengths), longest, words, generator=generator).half()
        parts.append(Words(tokens, torch.arange(longest) < lengths[:, None]))
    every = torch.arange(pairs)
    return PairBatch(
        Regions(features, boxes, torch.ones(pairs, 36, dtype=torch.bool)), tuple(parts), every, every, every
    )


def bytes_of(batch: PairBatch) -> int:
    """What a batch copies to the device."""
    sets = [batch.regions, *batch.words]
    tensors = [value for part in sets for value in vars(part).values() if value is not None]
    return sum(tensor.nbytes for tensor in (*tensors, batch.image_index, batch.captions))


def step(model: Matcher, loss: HingeLoss, optimizer: torch.optim.Optimizer, batch: PairBatch) -> None:
    """A training step, the copy of its batch included."""
    batch = batch.to(next(model.parameters()).device)
    images, captions = model(batch.regions, batch.words)
    scores = model.batch_similarity(images, captions, sparse=loss.sparse(9, len(batch.image_index)))
    loss(scores, batch.image_index, 9).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 2.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def measure(name: str, options: argparse.Namespace) -> dict[str, str]:
    """A row of the table."""
    section, sizes = PUBLISHED[name]
    params = load_params()
    if options.small:
        sizes = {key: NARROW.get(key, value) for key, value in sizes.items()}
    settings = getattr(params, section).model_copy(update=sizes)
    inputs = InputSizes(32, 32) if options.small else InputSizes(2048, 768)
    device = torch.device(options.device)
    model = build_model(section, settings, inputs).to(device).train()
    loss = HingeLoss(params.loss.model_copy(update={"negatives": "hard", "all_negatives_epochs": 0}))
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    batch, gpu = make_batch(options.batch, inputs.regions, inputs.words), device.type == "cuda"
    batch = batch.pin_memory() if gpu else batch

    def run(steps: int) -> float:
        started = time.perf_counter()
        for _ in range(steps):
            step(model, loss, optimizer, batch)
        if gpu:
            torch.cuda.synchronize()
        return time.perf_counter() - started

    run(options.warm_up)
    if gpu:
        torch.cuda.reset_peak_memory_stats()
    seconds = run(options.steps) / options.steps
    row = {"model": name, "samples/s": f"{options.batch / seconds:,.0f}", "MB copied": f"{bytes_of(batch) / 1e6:.3f}"}
    if not gpu:
        return row | dict.fromkeys(["peak GB", *(f"{kind} ms" for kind in (*KINDS, "other"))], "")
    row["peak GB"] = f"{torch.cuda.max_memory_allocated() / 1e9:.1f}"
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        run(1)
    times = Counter()
    for event in profiler.key_averages():
        if event.self_device_time_total and event.device_type == torch.autograd.DeviceType.CUDA:
            kind = next((kind for kind, parts in KINDS.items() if any(p in event.key.lower() for p in parts)), "other")
            times[kind] += event.self_device_time_total / 1e3
    return row | {f"{kind} ms": f"{times[kind]:.1f}" for kind in (*KINDS, "other")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(PUBLISHED), choices=list(PUBLISHED))
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warm-up", type=int, default=5)
    parser.add_argument("--device", default=pick_device().type)
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    if options.small:
        options.batch, options.steps, options.warm_up = min(options.batch, 12), 1, 0
    rows = [measure(name, options) for name in options.models]
    print("| " + " | ".join(rows[0]) + " |\n|" + " --- |" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(row.values()) + " |")


if __name__ == "__main__":
    main()
