"""The metrics files that ``dvc metrics show`` and ``dvc metrics diff`` read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crossmodal.files.checked_json import read_json, write_json
from crossmodal.reports.curves import best_epoch, read_history

DIGITS = 4


def write_metrics(folder: Path, metrics: Mapping[str, Any], history: Path, detector: Path) -> None:
    """Write ``test.json``, ``validation.json`` and ``detector.json``.

    Args:
        folder: made if missing.
        metrics: of the test split, as the evaluate stage wrote them.
        history: ``history.csv`` of the matcher folder.
        detector: ``metrics.json`` of the detector folder; grid backbones have none, and the file is empty then.

    Raises:
        UserError: a file is not what its stage writes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "test.json", metrics)
    _write(folder / "validation.json", validation_metrics(history))
    _write(folder / "detector.json", read_metrics(detector) if detector.is_file() else {})


def write_search(folder: Path, source: Path) -> None:
    """Write ``search.json``: recall lost by the index or the shortlists, and bytes per vector; empty for all pairs.

    Args:
        folder: exists. source: ``search.json`` of the evaluation folder.

    Raises:
        UserError: ``source`` is missing or unreadable.
    """
    _write(folder / "search.json", read_metrics(source))


def validation_metrics(history: Path) -> dict[str, float]:
    """Epoch of the kept weights (see ``best_epoch``), its validation rsum, and the epochs trained."""
    rows = read_history(history)
    best = best_epoch(rows)
    return {"epoch": int(best["epoch"]), "rsum": best["rsum"], "epochs": int(rows[-1]["epoch"])}


def rounded(value: Any) -> Any:
    """The same nested metrics with every float rounded to four decimals."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return round(value, DIGITS) if isinstance(value, float) else value


def read_metrics(path: Path) -> dict[str, Any]:
    """Nested metrics of a JSON file.

    Raises:
        UserError: missing or not JSON.
    """
    return read_json(path, dict, nan=True, advice="run the evaluate stage first")


def _write(path: Path, metrics: Mapping[str, Any]) -> None:
    write_json(path, rounded(metrics), indent=2)
