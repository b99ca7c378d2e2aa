"""Columns of a GPU's tables, for gpu_training.py and region_extraction.py: peak memory and time by kind of kernel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

KINDS = {  # of kernels, by what their names hold; the first that fits
    "copy": ("memcpy", "memset"),
    "product": ("gemm", "cutlass", "xmma", "cublas", "matmul", "conv"),
    "attention": ("attention", "flash", "fmha"),
    "reduction": ("reduce", "softmax", "norm"),
    "index": ("index", "gather", "scatter", "sort", "nms", "roi"),
}


def device_columns(work: Callable[[], None], device: str) -> dict[str, str]:
    """Peak memory and milliseconds of one call by kind of kernel; all empty on a CPU."""
    if device == "cpu":
        return dict.fromkeys(["peak GB", *(f"{kind} ms" for kind in (*KINDS, "other"))], "")
    torch.cuda.reset_peak_memory_stats()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        work()
        torch.cuda.synchronize()
    times = Counter()
    for event in profiler.key_averages():
        if event.self_device_time_total and event.device_type == torch.autograd.DeviceType.CUDA:
            kind = next((kind for kind, parts in KINDS.items() if any(p in event.key.lower() for p in parts)), "other")
            times[kind] += event.self_device_time_total / 1e3
    peak = {"peak GB": f"{torch.cuda.max_memory_allocated() / 1e9:.1f}"}
    return peak | {f"{kind} ms": f"{times[kind]:.1f}" for kind in (*KINDS, "other")}


def markdown(rows: list[dict[str, str]]) -> str:
    """A table whose columns are the keys of the first row; empty columns are left out."""
    columns = [name for name in rows[0] if any(row[name] for row in rows)]
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    return "\n".join(lines + ["| " + " | ".join(row[name] for name in columns) + " |" for row in rows])
