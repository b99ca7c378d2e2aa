"""The description at the top of a run's page in MLflow: model and dataset, metrics, paths of the pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crossmodal.models.checkpoint import MatcherConfig


def run_note(config: MatcherConfig, dataset: str, metrics: Mapping[str, Any]) -> str:
    """Markdown. ``metrics``: of the test split, nested as in metrics/test.json."""
    probe = f", probe image score {metrics['probe']['image']:.1f} %" if "probe" in metrics else ""
    lines = [
        f"**{config.model} on {dataset}**, {metrics['images']:,} test images, {metrics['captions']:,} captions: "
        f"rsum {metrics['rsum']:.1f} of 600{probe}",
        "",
        "| | R@1 | R@5 | R@10 | median rank |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {title} | {' | '.join(f'{metrics[way][name]:.1f}' for name in ('r1', 'r5', 'r10', 'medr'))} |"
            for way, title in (("i2t", "image to text"), ("t2i", "text to image"))
        ),
        "",
        "Artifacts: `report/gallery.html` (queries and what they found), `report/analysis.html` (where it errs), "
        "`report/*.png` (curves), `matcher/` (weights), `settings/params.yaml` (to run it again).",
    ]
    return "\n".join(lines)
