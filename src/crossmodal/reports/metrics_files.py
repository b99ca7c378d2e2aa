"""The metrics files that ``dvc metrics show`` and ``dvc metrics diff`` read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crossmodal.files.checked_json import read_json, write_json
from crossmodal.reports.curves import best_epoch, read_history

DIGITS = 4


def write_metrics(folder: Path, metrics: Mapping[str, Any], search: Path, history: Path, detector: Path) -> None:
    """Write ``test.json``, ``search.json``, ``validation.json`` and ``detector.json``, floats to four decimals.

    Args:
        folder: made if missing.
        metrics: of the test split, as the evaluate stage wrote them.
        search: ``search.json`` of the evaluation folder: recall lost by the index or the shortlists, and bytes per
            vector; empty where all pairs were scored.
        history: ``history.csv`` of the matcher folder.
        detector: ``metrics.json`` of the detector folder; grid backbones have none, and the file is empty then.

    Raises:
        UserError: a file is missing or is not what its stage writes.
    """
    epochs = read_history(history)
    best = best_epoch(epochs)
    files = {
        "test": metrics,
        "search": read_metrics(search),
        "validation": {"epoch": int(best["epoch"]), "rsum": best["rsum"], "epochs": int(epochs[-1]["epoch"])},
        "detector": read_metrics(detector) if detector.is_file() else {},
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        rounded = json.loads(json.dumps(content), parse_float=lambda number: round(float(number), DIGITS))
        write_json(folder / f"{name}.json", rounded, indent=2)


def read_metrics(path: Path) -> dict[str, Any]:
    """Nested metrics of a JSON file.

    Raises:
        UserError: missing or not JSON.
    """
    return read_json(path, dict, nan=True, advice="run the evaluate stage first")
