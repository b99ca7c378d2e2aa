"""The MLflow store: its URI, connection within seconds, and errors if it cannot be reached.

It is mlflow.db with mlruns/ at the root of the repository, or what MLFLOW_TRACKING_URI names; set to the empty string
that turns tracking off.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sqlite3
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from crossmodal.runtime import project_root

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "crossmodal"

# So that the UI shows it as runs of trainings, not as traces of a language model's calls.
_EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
_LOCKED_SECONDS = 5  # how long a database may be locked when a run is opened
_SCHEMA_SECONDS = 60  # how long other processes may take over the schema of a new database

# mlflow's own 7 retries of 120 s would hold a stage up for minutes. What the user has set stays.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


def tracking_uri() -> str:
    """URI of the store: MLFLOW_TRACKING_URI, else SQLite at the project root; empty when tracking is off.

    A relative SQLite path is taken from the project root: the folder of a ``dvc queue`` run is thrown away.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    if not uri.startswith("sqlite:///"):
        return uri
    from sqlalchemy import make_url

    url = make_url(uri)
    path = str(project_root() / (url.database or ""))
    plain = f"sqlite:///{path}"
    if make_url(plain).database == path and not url.query:
        return plain
    return url.set(database=path).render_as_string(hide_password=False)  # ? and % of a path are not those of a URL


def connect(uri: str) -> tuple[MlflowClient, str]:
    """A client for the store, and the id of the experiment, created when missing."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    if "MLFLOW_LOGGING_LEVEL" not in os.environ:  # its errors reach the user as one line of ours
        for name in ("mlflow", "alembic", "urllib3.connectionpool"):
            logging.getLogger(name).setLevel(logging.CRITICAL)

    if not uri.startswith("sqlite:///"):
        client = MlflowClient(uri)
        return client, _experiment(client, None)
    from sqlalchemy import make_url

    database = Path(make_url(uri).database or "")
    database.parent.mkdir(parents=True, exist_ok=True)
    # Two processes that create the schema at the same time break each other: "duplicate column name" (mlflow#4123).
    with FileLock(f"{database}.lock", timeout=_SCHEMA_SECONDS):
        _check_writable(database)
        client = MlflowClient(uri)
        return client, _experiment(client, (project_root() / "mlruns").as_uri())


def _check_writable(database: Path) -> None:
    """Raise within seconds where mlflow would retry for minutes: locked, read-only, not a database."""
    with contextlib.closing(sqlite3.connect(database, _LOCKED_SECONDS, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")


def _experiment(client: MlflowClient, artifacts: str | None) -> str:
    """The id of the experiment, created when missing."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(EXPERIMENT)
    if found is None:
        try:
            return client.create_experiment(EXPERIMENT, artifacts, tags=_EXPERIMENT_TAGS)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another client of the server was quicker
                raise
            found = client.get_experiment_by_name(EXPERIMENT)
    return found.experiment_id


def failure(uri: str, error: Exception, consequence: str = "") -> str:
    """One line that says what failed, ``consequence``, and why; passwords are removed."""
    reason = textwrap.shorten(f"{type(error).__name__}: {error}", 200, placeholder=" ...")
    return re.sub(r"//[^/\s]+@", "//", f"MLflow at {uri} failed{consequence} ({reason})")
