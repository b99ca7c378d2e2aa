"""One MLflow run per trained model, found again by content; a store that fails never fails a stage.

Where the store is and how it is reached: tracking.store. mlflow is imported when the first run is opened: it takes
seconds.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from crossmodal.errors import UserError
from crossmodal.files.checked_yaml import dotted
from crossmodal.terminal import warn
from crossmodal.tracking.store import connect, failure, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

KEY_TAG = "model.key"
KIND_TAG = "kind"  # training | evaluation-only
EXPERIMENTS_TAG = "dvc.experiments"  # all DVC experiments that wrote to the run; DVC_EXP_NAME is the last of them
_NOTE_TAG, _NOTE_MARK = "mlflow.note.content", "<!-- written by the pipeline -->"

_MAX_VALUE = 6000  # characters of a parameter, MLflow's limit
_MAX_DIGEST = 36  # the same of a dataset's digest
_KEY_SHOWN = 7  # characters of a key in a run's name
_BATCH = 100  # parameters or tags in one request


def flatten(params: Mapping[str, Any]) -> dict[str, str]:
    """Nested settings as flat text: ``{"a": {"b": 1}}`` becomes ``{"a.b": "1"}``; long values are cut."""
    return {name: str(value)[:_MAX_VALUE] for name, value in dotted(params).items()}


def _guarded(method: Callable[..., None]) -> Callable[..., None]:
    """A method of a Tracker that does nothing when tracking is off; a failure turns it off, with one line on stderr."""

    @functools.wraps(method)
    def guarded(self: Tracker, *arguments: Any, **named: Any) -> None:
        if not self._uri:
            return
        try:
            method(self, *arguments, **named)
        except Exception as error:
            uri, self._uri = self._uri, ""
            if self._strict:
                raise UserError(failure(uri, error)) from None
            warn(failure(uri, error, ", this stage goes on without it"))

    return guarded


class Tracker:
    """A run that is written to; or a no-op, when tracking is off or the store failed (one warning says so).

    As a context manager it ends the run: FINISHED, FAILED on an exception, KILLED on Ctrl-C.

    Attributes:
        run_id: of the MLflow run, for the resume state of training; None without a run.
    """

    def __init__(self, *, enabled: bool, strict: bool = False) -> None:
        """``strict``: a failure is a UserError, for commands that are about the store and nothing else."""
        self.run_id: str | None = None
        self._uri, self._strict = tracking_uri() if enabled else "", strict
        self._client: MlflowClient

    @_guarded
    def open(
        self,
        find: Callable[[MlflowClient, str], Run | None],
        kind: str,
        key: str,
        params: Mapping[str, Any],
        tags: Mapping[str, Any],
    ) -> None:
        """Go on with the run that ``find(client, experiment id)`` gives, else with a new one that gets ``params``."""
        self._client, experiment = connect(self._uri)
        run = find(self._client, experiment)
        if run is None:
            run = self._client.create_run(experiment, tags=_origin(key, params) | {KEY_TAG: key, KIND_TAG: kind})
            self.run_id = run.info.run_id
            self._log("params", "Param", flatten(params).items())
        else:
            self.run_id = run.info.run_id
            self._client.update_run(self.run_id, "RUNNING")
            tags = {**_dvc_experiment(run.data.tags), **tags}
        self._log("tags", "RunTag", flatten(tags).items())

    @_guarded
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add one point to each metric. Names: letters, digits and ``_ - . space : /``, so no ``@``.

        Logging a step twice stores two points, so resume after the last logged step. Without a step it is a run-level
        metric, logged again only if its value has changed.
        """
        if step is None:
            there = self._client.get_run(self.run_id).data.metrics
            metrics, step = {name: value for name, value in metrics.items() if there.get(name) != value}, 0
        at = int(time.time() * 1000)
        self._log("metrics", "Metric", ((name, float(value), at, step) for name, value in metrics.items()))

    @_guarded
    def log_curve(self, name: str, values: Sequence[float]) -> None:
        """Add a metric with a point for each value, its steps from 1: a curve that is not over time.

        The points have the time of the run's start, so that what is logged twice is there once.
        """
        at = self._client.get_run(self.run_id).info.start_time
        self._log("metrics", "Metric", ((name, float(value), at, step) for step, value in enumerate(values, start=1)))

    @_guarded
    def describe(self, text: str) -> None:
        """Set the description at the top of the run's page, in Markdown; one that a person wrote stays."""
        there = self._client.get_run(self.run_id).data.tags.get(_NOTE_TAG, _NOTE_MARK)
        if there.endswith(_NOTE_MARK):
            self._client.set_tag(self.run_id, _NOTE_TAG, f"{text}\n\n{_NOTE_MARK}")

    @_guarded
    def log_artifact(self, path: Path, into: str | None = None) -> None:
        """Copy a file, or what a folder holds, into the run, below ``into`` of its artifacts."""
        copy = self._client.log_artifacts if path.is_dir() else self._client.log_artifact
        copy(self.run_id, str(path), into)

    @_guarded
    def log_dataset(self, name: str, digest: str, context: str) -> None:
        """Note a dataset by name and digest (36 characters are kept); context: training, evaluation, ..."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(name, digest[:_MAX_DIGEST], "local", json.dumps({"uri": name}))
        tags = [InputTag("mlflow.data.context", context)]
        self._client.log_inputs(self.run_id, [DatasetInput(dataset, tags)])

    def __enter__(self) -> Tracker:
        return self

    @_guarded
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        status = "FINISHED" if kind is None else "KILLED" if kind is KeyboardInterrupt else "FAILED"
        self._client.set_terminated(self.run_id, status)
        self._uri = ""

    def _log(self, field: str, entity: str, rows: Iterable[tuple]) -> None:
        from mlflow import entities

        items = [getattr(entities, entity)(*row) for row in rows]
        for start in range(0, len(items), _BATCH):
            self._client.log_batch(self.run_id, **{field: items[start : start + _BATCH]}, synchronous=True)


def open_training_run(
    key: str,
    params: Mapping[str, Any],
    tags: Mapping[str, Any] | None = None,
    *,
    run_id: str | None = None,
    enabled: bool = True,
) -> Tracker:
    """Open the run of a training: a new one, unless resume state carries the id of one that still exists.

    Args:
        key: hash of what determines the model (settings and data); ``find_run`` looks for it.
        params: settings, nested; logged once, when the run is new.
        tags: set on the run, be it new or resumed.
        run_id: ``Tracker.run_id`` of the training that this one continues.
        enabled: False gives a tracker that does nothing.
    """
    tracker = Tracker(enabled=enabled)
    tracker.open(lambda client, _: _existing(client, run_id), "training", key, params, tags or {})
    return tracker


def find_run(
    key: str,
    params: Mapping[str, Any],
    tags: Mapping[str, Any] | None = None,
    *,
    enabled: bool = True,
    strict: bool = False,
) -> Tracker:
    """Reopen the newest run of a trained model; without one open a run tagged ``kind: evaluation-only``.

    Arguments as in ``open_training_run``; the parameters count for the evaluation-only run alone.

    Raises:
        UserError: the store failed, with ``strict``.
    """
    query = f"tags.`{KEY_TAG}` = '{key}'"

    def newest(client: MlflowClient, experiment: str) -> Run | None:
        order = ["attributes.start_time DESC"]
        return next(iter(client.search_runs([experiment], query, max_results=1, order_by=order)), None)

    tracker = Tracker(enabled=enabled, strict=strict)
    tracker.open(newest, "evaluation-only", key, params, tags or {})
    return tracker


def _existing(client: MlflowClient, run_id: str | None) -> Run | None:
    """The run with this id; None without an id, or when the run is gone or deleted."""
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id) if run_id else None
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return run if run and run.info.lifecycle_stage == "active" else None


def run_name(key: str, params: Mapping[str, Any]) -> str:
    """A run's name, its model first, e.g. "tern-scenes-seed0-ce6baf7"; the key's beginning alone without settings."""
    known = [str(params[name]) for name in ("model", "dataset") if name in params]
    seed = [f"seed{params['seed']}"] if "seed" in params else []
    return "-".join([*known, *seed, key[:_KEY_SHOWN]])


def _origin(key: str, params: Mapping[str, Any]) -> dict[str, str]:
    """Tags that say where a run comes from: user, script, git commit, DVC experiment; and its name."""
    from mlflow.tracking.context.registry import resolve_tags

    tags = {name: str(value) for name, value in resolve_tags().items()}
    if "mlflow.source.git.commit" not in tags:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
            tags["mlflow.source.git.commit"] = commit.stdout.strip()
    return tags | _dvc_experiment({}) | {"mlflow.runName": run_name(key, params)}


def _dvc_experiment(before: Mapping[str, str]) -> dict[str, str]:
    """Tags of the DVC experiment that this process is part of; ``before``: the run's tags, if it was there."""
    names = ("DVC_EXP_NAME", "DVC_EXP_BASELINE_REV")
    tags = {name: os.environ[name] for name in names if os.environ.get(name)}
    if "DVC_EXP_NAME" in tags:
        others = [name for name in before.get(EXPERIMENTS_TAG, before.get("DVC_EXP_NAME", "")).split(", ") if name]
        experiments = list(dict.fromkeys([*others, tags["DVC_EXP_NAME"]]))
        while len(text := ", ".join(experiments)) > _MAX_VALUE:  # the oldest go
            del experiments[0]
        tags[EXPERIMENTS_TAG] = text
    return tags
