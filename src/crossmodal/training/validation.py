"""Validation of an epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from crossmodal.datasets.splits import Split
from crossmodal.evaluation.metrics import RECALL_AT, i2t_ranks, retrieval_metrics, t2i_ranks
from crossmodal.evaluation.relevance import DEPTH, best_relevance, exponential, normalised, ranked_relevance
from crossmodal.inference.scoring import SearchInputs, similarity_matrix
from crossmodal.models.base import Matcher
from crossmodal.training.batches import TrainingData
from crossmodal.training.processes import ALONE, Processes

NDCG = f"ndcg{DEPTH}"


def validate(model: Matcher, data: TrainingData, batch_size: int, processes: Processes = ALONE) -> dict[str, Any]:
    """Retrieval metrics of the validation split (see evaluation.metrics.retrieval_metrics), with relevance nDCG too.

    Each of several processes scores all images against its share of the captions, with the first one's batch norms.
    """
    val = data.val
    processes.copy_first(model.buffers())
    captions, caption_image = (
        np.array_split(values, processes.count)[processes.rank] for values in (val.captions, val.caption_image)
    )
    own = Split(val.images, captions, caption_image)
    regions = data.regions if data.on_device is None else data.on_device
    columns = similarity_matrix(SearchInputs(model, regions, data.words, own, batch_size)).T
    if processes.count > 1:
        columns = processes.gather(torch.from_numpy(columns).to(processes.device)).cpu().numpy()
    similarity = columns.T
    metrics = retrieval_metrics(i2t_ranks(similarity, val.caption_image), t2i_ranks(similarity, val.caption_image))
    if data.relevance is not None:
        ranked, best = ranked_relevance(similarity.T, data.relevance), best_relevance(data.relevance)
        metrics["t2i"][NDCG] = float(np.nanmean(normalised(ranked, best, exponential)))
    return metrics


def best_metric(metrics: Mapping[str, Any], best: str) -> float:
    """The one of ``validate``'s metrics by which ``train.best`` keeps an epoch; higher is better."""
    if best == "t2i":
        return sum(metrics["t2i"][f"r{k}"] for k in RECALL_AT)
    return metrics["t2i"][NDCG] if best == "ndcg" else metrics["rsum"]
