"""Models in MLflow: a folder as a loadable model of a run, and as a version in the model registry.

A failure is an error here, other than in tracking.run: without the store there is nothing left to do.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossmodal.errors import UserError
from crossmodal.tracking.run import find_run
from crossmodal.tracking.store import EXPERIMENT, failure, tracking_uri

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

LOADER = "crossmodal.serving.mlflow_model"
DIGEST_TAG = "content"
_LONGEST = 5000  # characters of a description, MLflow's limit
MODEL_NAME = "search"  # of the model on the run's page


@dataclass(frozen=True)
class Loadable:
    """A folder that MLflow is to load by code.

    folder: becomes the model's data. digest: of folder and code. loader: module with ``_load_pyfunc(folder)``.
    code: folder of the package it belongs to, which travels with the model.
    requirements: distributions; of those with a choice the one that is installed.
    """

    folder: Path
    digest: str
    loader: str
    code: Path
    requirements: Sequence[tuple[str, ...]]


@dataclass(frozen=True)
class Registered:
    """A version in the model registry. ``new``: this call made it. ``run_id``: of the run that it belongs to."""

    name: str
    version: str
    run_id: str
    new: bool

    @property
    def uri(self) -> str:
        """URI for ``mlflow.pyfunc.load_model`` and ``mlflow models serve -m``."""
        return f"models:/{self.name}/{self.version}"


def register(loadable: Loadable, name: str, key: str, settings: Mapping[str, Any], card: str = "") -> Registered:
    """Log a folder as a model of the run that trained the matcher, and make it a version of a registered model.

    What is there already, by digest, is neither logged nor registered twice.

    Args:
        name: in the registry. key, settings: of the run, as ``tracking.find_run`` takes them.
        card: Markdown, description of the version.

    Raises:
        UserError: tracking is off, or the store failed, has no registry, or refused the name.
    """
    uri = tracking_uri()
    if not uri:
        raise UserError(
            "MLFLOW_TRACKING_URI: empty, so that tracking is off; unset it, or name a store with a registry"
        )
    with find_run(key, settings, strict=True) as tracker:
        run_id = tracker.run_id
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        mlflow.set_tracking_uri(uri)
        client = mlflow.MlflowClient()
        quote = '"' if "'" in name else "'"  # MLflow's filters know no escape
        for found in client.search_model_versions(f"name={quote}{name}{quote}"):
            if found.tags.get(DIGEST_TAG) == loadable.digest and found.run_id == run_id:
                return Registered(name, found.version, run_id, new=False)
        query = f"tags.`{DIGEST_TAG}` = '{loadable.digest}' AND source_run_id = '{run_id}'"
        logged = client.search_logged_models([client.get_run(run_id).info.experiment_id], query)
        model = logged[0].model_uri if logged else _log(loadable, run_id)
        with redirect_stderr(io.StringIO()):  # it says what the command says too
            made = mlflow.register_model(model, name, tags={DIGEST_TAG: loadable.digest})
        if card:
            client.update_model_version(name, made.version, card[:_LONGEST])
    except (MlflowException, OSError) as error:
        raise UserError(failure(uri, error)) from None
    return Registered(name, made.version, run_id, new=True)


def download(uri: str, folder: Path) -> Path:
    """The content of a registered model, models:/NAME/VERSION, that ``register`` logged: its folder, below ``folder``.

    Raises:
        UserError: tracking is off, there is no such model, it is another project's, or the store failed.
    """
    store = tracking_uri()
    if not store:
        raise UserError(
            "MLFLOW_TRACKING_URI: empty, so that tracking is off; unset it, or name a store with a registry"
        )
    import mlflow
    from mlflow.exceptions import MlflowException
    from mlflow.models import Model

    try:
        mlflow.set_tracking_uri(store)
        folder.mkdir(parents=True, exist_ok=True)
        with redirect_stderr(io.StringIO()):  # of its progress bars
            path = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(folder)))
        flavor = Model.load(str(path)).flavors.get("python_function", {})
    except (MlflowException, OSError) as error:
        raise UserError(f"{uri}: {failure(store, error)}") from None
    if flavor.get("loader_module") != LOADER:
        raise UserError(f"{uri}: no model that crossmodal register made ({flavor.get('loader_module', 'no Python')})")
    return path / flavor["data"]


def refusal(error: UserError) -> Exception:
    """The exception with which a served model answers HTTP status 400: the error's message, no traceback."""
    from mlflow.exceptions import MlflowException

    return MlflowException.invalid_parameter_value(str(error))


def _log(loadable: Loadable, run_id: str) -> str:
    """Log it; its URI."""
    import mlflow

    mlflow.set_experiment(EXPERIMENT)
    with warnings.catch_warnings(), mlflow.start_run(run_id=run_id):
        warnings.simplefilter("ignore")  # of mlflow's own calls
        model = mlflow.pyfunc.log_model(
            name=MODEL_NAME,
            loader_module=loadable.loader,
            data_path=str(loadable.folder),
            code_paths=[str(loadable.code)],
            signature=_signature(),
            pip_requirements=requirements(loadable.requirements),
            tags={DIGEST_TAG: loadable.digest},
        )
    return model.model_uri


def _signature() -> ModelSignature:
    """Input, output and parameters of serving.mlflow_model."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import Array

    text, texts, numbers = DataType.string, Array(DataType.string), Array(DataType.double)
    outputs = {"query": text, "kind": text, "ids": texts, "scores": numbers, "captions": texts}
    return ModelSignature(
        inputs=Schema([ColSpec(text, "query"), ColSpec(text, "kind", required=False)]),
        outputs=Schema([ColSpec(kind, name) for name, kind in outputs.items()]),
        params=ParamSchema([ParamSpec("k", DataType.long, 10)]),
    )


def requirements(distributions: Sequence[tuple[str, ...]]) -> list[str]:
    """``name==version`` of what is installed here, mlflow in front; without local parts such as +cpu."""
    lines = []
    for choices in (("mlflow",), *distributions):
        for choice in choices:
            with suppress(PackageNotFoundError):
                lines.append(f"{choice}=={version(choice).partition('+')[0]}")
                break
    return lines
