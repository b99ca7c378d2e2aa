"""``crossmodal register``: the last evaluated model in MLflow's model registry, ready to be loaded and served.

crossmodal register                                # as crossmodal-MODEL-DATASET
crossmodal register holiday --in results/holiday   # what crossmodal embed made
"""

from __future__ import annotations

import argparse
from pathlib import Path

from crossmodal.commands.arguments import add_gallery
from crossmodal.errors import UserError
from crossmodal.terminal import printable

_LOAD = """\
By MLflow, without the repository:

    model = mlflow.pyfunc.load_model("models:/NAME/VERSION")
    model.predict(pandas.DataFrame({"query": ["a red circle left of a blue square"]}), params={"k": 5})"""


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="in the registry (default: crossmodal-MODEL-DATASET)")
    add_gallery(parser)
    parser.add_argument(
        "--limit",
        type=float,
        default=2.0,
        metavar="GB",
        help="features that may go along with a model that scores pairs (default: %(default)g)",
    )
    parser.add_argument(
        "--server-files",
        action="store_true",
        help="let clients of the served model name image files of the machine it runs on; by default they send images",
    )


def run(arguments: argparse.Namespace) -> None:
    """Pack, try, log to the run that trained the matcher, register; print version and how to load it."""
    import shutil
    import tempfile

    import crossmodal
    from crossmodal.serving import mlflow_model
    from crossmodal.serving.bundle import digest, pack, unpack
    from crossmodal.serving.session import Folders
    from crossmodal.settings.derived import run_settings
    from crossmodal.settings.params import load_params
    from crossmodal.sharing.model_card import card_of_folders
    from crossmodal.tracking.registry import Loadable, register

    if arguments.name is not None and (not arguments.name.strip() or set("/:") & set(arguments.name)):
        raise UserError(f"NAME {arguments.name!r}: the name of a registered model is not empty and has no / and no :")
    code = Path(crossmodal.__file__).parent
    settings = Path("params.yaml")
    with tempfile.TemporaryDirectory(prefix="crossmodal-") as temporary:
        folder, package = Path(temporary) / "search", Path(temporary) / "crossmodal"
        session = pack(
            arguments.gallery, settings, Folders(), folder, arguments.limit, server_files=arguments.server_files
        )
        card = ""
        if (Folders().dataset / "manifest.json").is_file():
            card, _ = card_of_folders(session.params, Folders(), _LOAD, header=False)
            (folder / "README.md").write_text(card, encoding="utf-8")
        shutil.copytree(code, package, ignore=shutil.ignore_patterns("__pycache__"))
        unpack(folder).find_images("a try", 1)  # what cannot search is not registered
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        registered = register(
            Loadable(folder, digest([folder, package]), mlflow_model.__name__, package, mlflow_model.REQUIREMENTS),
            arguments.name or f"crossmodal-{session.config.model}-{session.dataset.name}",
            session.config.key,
            run_settings(load_params(settings)),
            card,
        )
    print(f"register: {printable(session.describe())}; {size / 1e6:,.1f} MB")
    state = "" if registered.new else ", already there"
    print(f"register: {printable(registered.name)} version {registered.version}{state}, of run {registered.run_id}")
    print(printable(f'register: load it by mlflow.pyfunc.load_model("{registered.uri}")'))
    print(printable(f"register: serve it by mlflow models serve --env-manager local -m {registered.uri}"))
