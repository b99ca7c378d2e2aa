"""A packed search as MLflow loads and serves it: a table of queries in, ranked ids out.

    model = mlflow.pyfunc.load_model("models:/crossmodal-tern-scenes/1")
    model.predict(pandas.DataFrame({"query": ["a red circle left of a blue square"]}), params={"k": 5})

Columns in and out: docs/mlflow.md. How much a request may ask for is in ``limits``. A model that was logged with
``server_files`` also takes the path of a file where it runs: as an image by its kind, or without one where there is
such a file. Who can send it queries then learns which files there are, and can search by any image among them.

MLflow calls ``_load_pyfunc`` with the folder.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossmodal.errors import UserError
from crossmodal.limits import check_image, check_queries, check_results, check_sentence, is_file, shown
from crossmodal.serving.bundle import read_serving, unpack
from crossmodal.serving.engine import Hit
from crossmodal.serving.sent import as_file

if TYPE_CHECKING:
    import pandas as pd

DEFAULT_K = 10
KINDS = ("text", "image")
DATA_URL = re.compile(r"\s*data:[a-z]+/", re.IGNORECASE)  # how it begins
_PACKAGES = "torch torchvision transformers tokenizers timm h5py safetensors numpy pillow pyyaml pydantic filelock tqdm"
# Distributions that loading and searching import; of those with a choice, the one that is installed.
REQUIREMENTS = (*((name,) for name in _PACKAGES.split()), ("faiss-gpu", "faiss-cpu"))


def _load_pyfunc(path: str) -> LoadedByMlflow:
    """The model of a folder that ``serving.bundle.pack`` wrote; called by MLflow."""
    return LoadedByMlflow(ServedSearch(Path(path)))


@dataclass(frozen=True)
class LoadedByMlflow:
    """A ServedSearch whose refusals MLflow passes on; of any other exception its server sends the traceback."""

    search: ServedSearch

    def predict(self, queries: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """As ``ServedSearch.predict``.

        Raises:
            MlflowException: where that raises a UserError.
        """
        try:
            return self.search.predict(queries, params)
        except UserError as error:
            # By name: searching needs no tracking, and MLflow, which calls this, is there.
            raise import_module("crossmodal.tracking.registry").refusal(error) from None


@dataclass(frozen=True)
class Query:
    """One row: ``text`` is a sentence, the head of a data URL whose file is ``content``, or a path."""

    kind: str
    text: str
    content: bytes | None = None


class ServedSearch:
    """A SearchSession as a model of MLflow's. Several threads may share it.

    Raises:
        UserError: the folder is no bundle of ``serving.bundle.pack``.
    """

    def __init__(self, folder: Path) -> None:
        self.session, self.server_files = unpack(folder), read_serving(folder).server_files
        self.session.load(photographs=False)
        records = [self.session.dataset.records[row] for row in self.session.split.images]
        self._images = [record.id for record in records]
        self._captions = [f"{record.id}#{number}" for record in records for number in range(len(record.captions))]

    def predict(self, queries: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Search for every row; columns as above. ``params``: ``k``, results of a query, 10 unless given.

        Raises:
            UserError: k or the number of rows beyond the limits, no column ``query``; or, with the row's number
                counted from 0, a query that is no text, an unknown kind, an empty or too long sentence, what is no
                data URL or no readable image. All rows are checked before the first is searched for.
        """
        import pandas as pd  # comes with MLflow, which is what calls this

        k = check_results((params or {}).get("k", DEFAULT_K))
        if "query" not in queries:
            raise UserError(f"queries: expected a column 'query', found {', '.join(map(shown, queries)) or 'none'}")
        check_queries(len(queries))
        kinds = queries["kind"] if "kind" in queries else [None] * len(queries)
        pairs = zip(queries["query"], kinds, strict=True)
        rows = _each(lambda pair: read_query(*pair, server_files=self.server_files), pairs)
        answers = _each(lambda query: self._answer(query, k), rows)
        return pd.DataFrame(answers, columns=["query", "kind", "ids", "scores", "captions"])

    def _answer(self, query: Query, k: int) -> tuple[str, str, list[str], list[float], list[str]]:
        session = self.session
        if query.kind == "text":
            found = session.find_images(query.text, k)
            ids = [self._images[result.item] for result in found]
            captions = [session.first_caption(result.item) for result in found]
        else:
            found = self._captions_of(query, k)
            ids = [self._captions[result.item] for result in found]
            captions = [session.caption(result.item) for result in found]
        return query.text, query.kind, ids, [result.score for result in found], captions

    def _captions_of(self, query: Query, k: int) -> list[Hit]:
        if query.content is None:
            return self.session.find_captions(Path(query.text), k)
        with as_file(query.content) as path:
            return self.session.find_captions(path, k)


def read_query(query: object, kind: object, *, server_files: bool) -> Query:
    """One row of a request, checked.

    Args:
        kind: "text", "image", or nothing: None, NaN or "".
        server_files: whether a query may be the path of a file that is here.

    Raises:
        UserError: another type or kind, beyond a limit, or neither a sentence nor an image.
    """
    import pandas as pd

    if not isinstance(query, str):
        raise UserError(f"query: expected a sentence or an image, found {shown(query)}")
    absent = not kind if isinstance(kind, str) else pd.isna(kind) is True
    if not absent and (not isinstance(kind, str) or kind not in KINDS):
        raise UserError(f"kind: expected {' or '.join(KINDS)}, found {shown(kind)}")
    inline = DATA_URL.match(query) is not None
    if (not absent and kind == "image") or (absent and (inline or (server_files and is_file(query)))):
        return _image(query, inline=inline, server_files=server_files)
    check_sentence(query)
    return Query("text", query)


def _image(query: str, *, inline: bool, server_files: bool) -> Query:
    if not inline and server_files:
        if not is_file(query):
            raise UserError(f"{shown(Path(query))}: no such file; give a photograph")
        check_image(Path(query).stat().st_size)
        return Query("image", query)
    head, comma, content = query.strip().partition(",")
    if not inline or not comma or not head.lower().startswith("data:image/") or not head.lower().endswith(";base64"):
        raise UserError(f"query: expected data:image/TYPE;base64,CONTENT, found {shown(query)}")
    check_image(len(content) * 3 // 4)
    try:
        return Query("image", head, base64.b64decode(content, validate=True))
    except ValueError as error:  # of base64 itself, or of text that is not ASCII
        raise UserError(f"{shown(query)}: expected data:image/TYPE;base64,CONTENT ({error})") from None


def _each(work: Callable[[Any], Any], rows: Iterable[Any]) -> list[Any]:
    """Results of ``work`` on every row; a UserError names the row."""
    results = []
    try:
        for row in rows:
            results.append(work(row))
    except UserError as error:
        raise UserError(f"row {len(results)} (counted from 0): {error}") from None
    return results
