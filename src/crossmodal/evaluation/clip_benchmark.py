"""Results in the JSON that CLIP_benchmark writes and its ``build`` command gathers into a table.

One object a run: dataset, model, pretrained, task, metrics, language. Recalls are the field's R@K, any hit counts, as
shares from 0 to 1. ``image_retrieval`` ranks images for a caption (t2i here), ``text_retrieval`` captions for an image.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crossmodal.errors import UserError
from crossmodal.evaluation.metrics import RECALL_AT

DATASETS = {"coco": "mscoco_captions"}  # where CLIP_benchmark has another name for the same split
WAYS = {"image_retrieval": "t2i", "text_retrieval": "i2t"}


def clip_benchmark_record(
    metrics: Mapping[str, Any], source: Path, *, dataset: str, model: str, pretrained: str
) -> dict[str, Any]:
    """The content of CLIP_benchmark's file of a zero-shot retrieval task.

    Args:
        metrics: content of metrics.json, read from ``source``.
        pretrained: which weights; CLIP_benchmark calls a row ``model`` and ``pretrained``.

    Raises:
        UserError: the metrics have no recalls.
    """
    recalls = {}
    for k in RECALL_AT:
        for name, way in WAYS.items():
            of_way = metrics.get(way)
            value = of_way.get(f"r{k}") if isinstance(of_way, Mapping) else None
            if not isinstance(value, int | float):
                raise UserError(f"{source}: {way}.r{k} is {value!r}, expected a number; run the evaluate stage again")
            recalls[f"{name}_recall@{k}"] = value / 100
    return {
        "dataset": DATASETS.get(dataset, dataset),
        "model": model,
        "pretrained": pretrained,
        "task": "zeroshot_retrieval",
        "metrics": recalls,
        "language": "en",
    }
