"""Further judgements of COCO's test captions: ECCV Caption (arXiv 2204.03359), Crisscrossed Captions and PMRP.

ECCV Caption (1,261 image and 1,332 caption queries) and CxC (arXiv 2004.15020; images with captions) add the pairs that
people judged right; PMRP (arXiv 2101.05068) counts images with the same objects as right. The judgements come with the
package eccv-caption, those of PMRP in two files. Rankings are of all 5,000 images and 25,000 captions.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np

from crossmodal.errors import UserError
from crossmodal.evaluation import binary
from crossmodal.evaluation.metrics import RECALL_AT
from crossmodal.evaluation.ranking import Pairs, Ranking, rank_captions, rank_images

PMRP_FILES = ("pm_image_to_caption.json", "pm_caption_to_image.json")
Judged = Mapping[int, Sequence[int]]


def coco_metrics(similarity: np.ndarray, pmrp: Path | None = None) -> dict[str, dict[str, float]]:
    """ECCV Caption's mAP@R, R-precision and R@1, CxC's recalls, and PMRP where its files are: of i2t and t2i.

    Recalls are in percent, the others from 0 to 1.

    Args:
        similarity: (5000, 25000) in the order of Karpathy's test split, captions 5 i to 5 i + 4 of image i.
        pmrp: folder with ``pm_image_to_caption.json`` and ``pm_caption_to_image.json``.

    Raises:
        UserError: another shape; the package or a file is missing.
    """
    for path in () if pmrp is None else (pmrp / name for name in PMRP_FILES):
        if not path.is_file():
            raise UserError(f"{path}: not found; github.com/naver-ai/eccv-caption says where PMRP's files are")
    judgements = _package().Metrics(extra_file_dir=pmrp and str(pmrp))
    captions = np.asarray(judgements.coco_ids)
    images = np.array([judgements.coco_gts["t2i"][caption][0] for caption in captions[::5].tolist()])
    if similarity.shape != (len(images), len(captions)):
        raise UserError(
            f"similarity of shape {similarity.shape}: ECCV Caption and CxC are of COCO's test split, "
            f"images x captions ({len(images)}, {len(captions)})"
        )
    metrics: dict[str, dict[str, float]] = {"i2t": {}, "t2i": {}}
    for name, judged in (("eccv", judgements.eccv_gts), ("cxc", judgements.cxc_gts), ("pm", judgements.pm_gts)):
        if not judged:
            continue
        i2t = rank_captions(similarity, Pairs(*_rows(judged["i2t"], images, captions)))
        t2i = rank_images(similarity, Pairs(*reversed(_rows(judged["t2i"], captions, images))))
        metrics["i2t"] |= _metrics(name, i2t)
        metrics["t2i"] |= _metrics(name, t2i)
    return metrics


def _metrics(name: str, ranking: Ranking) -> dict[str, float]:
    """The metrics reported for one set of judgements."""
    if name == "pm":
        return {"pmrp": float(binary.first_tier(ranking).mean())}
    recalls = {f"{name}_r{k}": float(100 * np.mean(ranking.first < k)) for k in RECALL_AT}
    if name == "cxc":
        return recalls
    return {
        "eccv_map_r": float(binary.average_precision(ranking, ranking.total).mean()),
        "eccv_rprecision": float(binary.first_tier(ranking).mean()),
        "eccv_r1": recalls["eccv_r1"],
    }


def _rows(judged: Judged, queries: np.ndarray, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of query and item of every pair (P,) from their COCO ids; no pair twice."""
    pairs = np.array([(query, item) for query, found in judged.items() for item in set(found)])
    columns = zip((queries, items), pairs.T, strict=True)
    return tuple(np.argsort(ids)[np.searchsorted(np.sort(ids), column)] for ids, column in columns)


def _package() -> ModuleType:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it has no ujson
            import eccv_caption
    except ImportError:
        raise UserError(
            "ECCV Caption and CxC need the package eccv-caption, which is not installed: pip install 'crossmodal[coco]'"
        ) from None
    return eccv_caption
