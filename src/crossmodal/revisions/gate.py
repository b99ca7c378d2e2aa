"""Comparison of metrics with another commit's, within the tolerances of params.yaml.

Both sides are files in git, so that neither data nor DVC's cache is needed: metrics/*.json and params.yaml of the
working tree and of the commit.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

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

Verdict = Literal["better", "same", "allowed", "WORSE", "new", "missing"]


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
    def verdict(self) -> Verdict:
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

    rows: tuple[MetricChange, ...]
    differences: tuple[str, ...]
    notes: tuple[str, ...]

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
    gate = load_params(PARAMS).gate
    now = {name: _metrics(name, file_here(METRICS / f"{name}.json")) for name in {"test", *gate}}
    of_base = f" of {commit[:7]}"
    base = {name: _metrics(name, file_at(commit, METRICS / f"{name}.json"), of_base) for name in now}
    if not now["test"]:
        raise UserError(f"{METRICS / 'test.json'}: not found; the report stage writes it, it is in git too")
    rows = []
    for name, allowed in gate.items():
        for key, drop in allowed.items():
            if (now[name] or base[name]) and key not in now[name] and key not in base[name]:
                raise UserError(f"{PARAMS}: gate.{name}.{key}: no such metric in {METRICS / name}.json, then or now")
            values = _value(name, base[name], key, of_base), _value(name, now[name], key)
            rows.append(MetricChange(f"{name}.{key}", *values, drop))
    before, after = _settings(file_at(commit, PARAMS)), _settings(file_here(PARAMS))
    notes = () if before.get("gate") == after["gate"] else (f"{PARAMS}: section gate is not the base's",)
    return GateResult(tuple(rows), (*_other_settings(before, after), *_other_size(base["test"], now["test"])), notes)


def _other_settings(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Differences in settings that make it another experiment, in words."""
    if not before:
        return [f"{PARAMS} was not there, or was no settings"]
    chosen = ("model", "dataset")
    found = [f"{key} was {before.get(key)}, is {after[key]}" for key in chosen if before.get(key) != after[key]]
    section = after["dataset"]
    if not found and before.get(section) != after[section]:
        found = [f"section {section} of {PARAMS} differs"]
    return found


def _other_size(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    return [
        f"{before[name]} test {name} then, {after[name]} now"
        for name in ("images", "captions")
        if name in before and name in after and before[name] != after[name]
    ]


def _settings(text: str | None) -> dict[str, Any]:
    """params.yaml as it was, unchecked: older commits had other keys."""
    try:
        content = yaml.safe_load(text or "")
    except (yaml.YAMLError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _metrics(name: str, text: str | None, suffix: str = "") -> dict[str, Any]:
    """Metrics of a file in metrics/, by dotted name as ``dvc metrics diff`` prints it; empty where there is no file."""
    if text is None:
        return {}
    return dotted(parse_json(text, f"{METRICS / name}.json{suffix}", dict, nan=True))


def _value(name: str, metrics: Mapping[str, Any], key: str, suffix: str = "") -> float | None:
    value = metrics.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float | None):
        raise UserError(f"{METRICS / name}.json{suffix}: {key}: expected a number, found {json.dumps(value)}")
    return value
