"""Comparison of metrics with another commit's, within the tolerances of params.yaml.

Both sides are files in git, so that neither data nor DVC's cache is needed: metrics/*.json and params.yaml of the
working tree and of the commit. They are not read by ``dvc metrics diff``, which takes a damaged file for a missing one.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from crossmodal.errors import UserError
from crossmodal.files.checked_json import parse_json
from crossmodal.files.checked_yaml import dotted
from crossmodal.revisions.files import file_at, file_here
from crossmodal.settings.params import load_params

PARAMS = Path("params.yaml")
METRICS = Path("metrics")
LOWER_IS_BETTER = {"medr", "meanr", "bytes_per_vector"}
ROUNDING = 1e-9  # of decimals, so that a fall of exactly the tolerance is allowed


@dataclass(frozen=True)
class MetricChange:
    """A metric on both sides, None if missing, and by how much it may get worse, in the metric's units."""

    metric: str
    base: float | None
    now: float | None
    allowed: float

    @property
    def change(self) -> float | None:
        """From base to now."""
        return None if self.base is None or self.now is None else self.now - self.base

    @property
    def verdict(self) -> str:
        """WORSE is what fails a gate; NaN and infinity are WORSE too, unless the base had nothing better."""
        if self.now is None:
            return "missing"
        if self.base is None or not math.isfinite(self.base):
            return "new"
        if not math.isfinite(self.now):
            return "WORSE"
        loss = self.now - self.base if self.metric.rsplit(".", 1)[-1] in LOWER_IS_BETTER else self.base - self.now
        if loss > self.allowed + ROUNDING:
            return "WORSE"
        return "allowed" if loss > 0 else "better" if loss < 0 else "same"


@dataclass(frozen=True)
class GateResult:
    """All metrics of the gate, and the differences that make the two sides incomparable, if any."""

    rows: list[MetricChange]
    differences: list[str]
    notes: list[str]

    @property
    def fallen(self) -> list[MetricChange]:
        """Metrics that fail the gate: none where the two sides are not comparable."""
        return [] if self.differences else [row for row in self.rows if row.verdict == "WORSE"]


def read_gate(commit: str) -> GateResult:
    """Compare the working directory with a commit.

    The metrics are not comparable if ``model``, ``dataset`` or the dataset's own section differ, or the number of
    test images or captions.

    Raises:
        UserError: params.yaml or metrics/test.json is missing or wrong; a metric is not a number; a name of section
            gate is on neither side though its file is there.
    """
    gate, files = load_params(PARAMS).gate, {}
    for name in ("test", *gate):
        path = METRICS / f"{name}.json"
        texts = {f"{path} of {commit[:7]}": file_at(commit, path), str(path): file_here(path)}
        files[name] = [
            (side, dotted(parse_json(text, side, dict, nan=True)) if text is not None else {})
            for side, text in texts.items()
        ]
    (_, base), (path, now) = files["test"]
    if not now:
        raise UserError(f"{path}: not found; the report stage writes it, it is in git too")
    rows = []
    for name, allowed in gate.items():
        for key, drop in allowed.items():
            sides = files[name]
            if any(found for _, found in sides) and not any(key in found for _, found in sides):
                raise UserError(f"{PARAMS}: gate.{name}.{key}: no such metric in {sides[1][0]}, then or now")
            rows.append(MetricChange(f"{name}.{key}", *(_number(*side, key) for side in sides), drop))
    differences, notes = _other_settings(file_at(commit, PARAMS))
    differences += [
        f"{base[name]} test {name} then, {now[name]} now"
        for name in ("images", "captions")
        if base.get(name, now.get(name)) != now.get(name, base.get(name))
    ]
    return GateResult(rows, differences, notes)


def _other_settings(text: str | None) -> tuple[list[str], list[str]]:
    """Differences to params.yaml as it was that make it another experiment, in words; and notes.

    It is read unchecked: older commits had other keys.
    """
    try:
        before = yaml.safe_load(text or "")
    except (yaml.YAMLError, ValueError):
        before = None
    if not isinstance(before, dict):
        return [f"{PARAMS} was not there, or was no settings"], [f"{PARAMS}: section gate is not the base's"]
    after = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    found = [
        f"{key} was {before.get(key)}, is {after[key]}" for key in ("model", "dataset") if before.get(key) != after[key]
    ]
    section = after["dataset"]
    if not found and before.get(section) != after[section]:
        found = [f"section {section} of {PARAMS} differs"]
    return found, [] if before.get("gate") == after["gate"] else [f"{PARAMS}: section gate is not the base's"]


def _number(file: str, metrics: dict[str, Any], key: str) -> float | None:
    value = metrics.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float | None):
        raise UserError(f"{file}: {key}: expected a number, found {json.dumps(value)}")
    return value
