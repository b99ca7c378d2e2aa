"""Text, image and group score of compositional tests, see datasets.contrasts for what these are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from crossmodal.evaluation.probe import probe_scores

PAIR_CHANCE = {"text": 25.0, "image": 25.0, "group": 100 / 6}


def contrast_scores(scores: Sequence[np.ndarray], right: Sequence[int], kinds: Sequence[str]) -> dict[str, Any]:
    """Scores in percent with those of chance, and where there are kinds, of each and their mean.

    Of two images: Winoground's three, see evaluation.probe. Of one image ``text`` alone: the right caption scores
    higher than every other. Ties are misses.

    Args:
        scores: similarity (images, captions) of each example; all have as many images. right: of one image, the number
            of the right caption. kinds: "" for none.
    """
    if len(scores[0]) == 2:
        chance = PAIR_CHANCE
        of_examples = [probe_scores(values[None]) for values in scores]
    else:
        chance = {"text": float(np.mean([100 / values.shape[1] for values in scores]))}
        of_examples = [
            {"text": 100.0 * bool((values[0, number] > np.delete(values[0], number)).all())}
            for values, number in zip(scores, right, strict=True)
        ]
    result: dict[str, Any] = {"examples": len(scores), **_mean(of_examples), "chance": chance}
    if any(kinds):
        groups: dict[str, list[dict[str, float]]] = {}
        for kind, of_example in zip(kinds, of_examples, strict=True):
            groups.setdefault(kind, []).append(of_example)
        result["kinds"] = {kind: {"examples": len(part), **_mean(part)} for kind, part in sorted(groups.items())}
        result["mean_of_kinds"] = _mean([_mean(part) for part in groups.values()])
    return result


def _mean(parts: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([part[name] for part in parts])) for name in parts[0]}
