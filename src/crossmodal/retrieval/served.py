"""A packed search as MLflow loads and serves it: a table of queries in, ranked ids out.

    model = mlflow.pyfunc.load_model("models:/crossmodal-tern-scenes/1")
    model.predict(pandas.DataFrame({"query": ["a red circle left of a blue square"]}), params={"k": 5})

Columns in: ``query``, and ``kind`` (text or image), which may be absent or empty. Without a kind a query is an image
when it begins with ``data:image/`` (an image file in base64, from a client that has no file here) or when it is the
path of a file that exists where the model runs; everything else is a sentence.

Columns out, a row a query in the order of the queries: ``query``, ``kind`` (what it was taken for), ``ids`` and
``scores``, best first, and ``captions``. For a sentence the ids are those of images, and the caption is the first of
each; for an image they are ``IMAGE#n``, caption n of an image counted from 0, and the caption is that one.

MLflow is not imported here: it calls ``_load_pyfunc`` with the folder.
"""

from __future__ import annotations

import base64
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossmodal.errors import UserError
from crossmodal.retrieval.bundle import unpack

if TYPE_CHECKING:
    import pandas as pd

DEFAULT_K = 10
KINDS = ("text", "image")
INLINE = "data:image/"
# Distributions that loading and searching import; of those with a choice, the one that is installed.
REQUIREMENTS = (
    ("torch",),
    ("torchvision",),
    ("transformers",),
    ("tokenizers",),
    ("timm",),
    ("faiss-gpu", "faiss-cpu"),
    ("h5py",),
    ("safetensors",),
    ("numpy",),
    ("pillow",),
    ("pyyaml",),
    ("pydantic",),
    ("filelock",),
    ("tqdm",),
)


def _load_pyfunc(path: str) -> ServedSearch:
    """What MLflow calls with the folder that ``retrieval.bundle.pack`` wrote."""
    return ServedSearch(Path(path))


class ServedSearch:
    """A SearchSession behind MLflow's interface of models.

    Raises:
        UserError: the folder is not what ``retrieval.bundle.pack`` writes.
    """

    def __init__(self, folder: Path) -> None:
        self.session = unpack(folder)
        self.session.load(photographs=False)
        records = [self.session.dataset.records[row] for row in self.session.split.images]
        self._images = [record.id for record in records]
        self._captions = [f"{record.id}#{number}" for record in records for number in range(len(record.captions))]

    def predict(self, queries: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Search for every row; columns as above. ``params``: ``k``, results of a query, 10 unless given.

        Raises:
            UserError: k below 1, no column ``query``, a query that is no text, an unknown kind, an empty sentence, an
                unreadable image.
        """
        import pandas as pd  # comes with MLflow, which is what calls this

        k = int((params or {}).get("k", DEFAULT_K))
        if k < 1:
            raise UserError(f"k: expected 1 or more, found {k}")
        if "query" not in queries:
            raise UserError(f"queries: expected a column 'query', found {', '.join(map(str, queries)) or 'none'}")
        kinds = queries["kind"] if "kind" in queries else [None] * len(queries)
        answers = [self._answer(*row, k) for row in zip(queries["query"], kinds, strict=True)]
        return pd.DataFrame(answers, columns=["query", "kind", "ids", "scores", "captions"])

    def _answer(self, query: str, kind: str | None, k: int) -> tuple[str, str, list[str], list[float], list[str]]:
        if not isinstance(query, str):
            raise UserError(f"query: expected a sentence or an image, found {query!r}")
        session, kind = self.session, kind_of(query, kind)
        if kind == "text":
            found = session.find_images(query, k)
            ids = [self._images[result.item] for result in found]
            captions = [session.first_caption(result.item) for result in found]
        else:
            found = self._captions_of(query, k)
            ids = [self._captions[result.item] for result in found]
            captions = [session.caption(result.item) for result in found]
            query = query if not query.startswith(INLINE) else query.partition(",")[0]
        return query, kind, ids, [result.score for result in found], captions

    def _captions_of(self, query: str, k: int) -> list:
        if not query.startswith(INLINE):
            return self.session.find_captions(Path(query), k)
        try:
            content = base64.b64decode(query.partition(",")[2], validate=True)
        except ValueError as error:  # of base64 itself, or of text that is not ASCII
            raise UserError(f"{query[:40]}...: expected data:image/TYPE;base64,CONTENT ({error})") from None
        with tempfile.NamedTemporaryFile(prefix="query-") as file:
            file.write(content)
            file.flush()
            try:
                return self.session.find_captions(Path(file.name), k)
            except UserError as error:
                raise UserError(str(error).replace(file.name, "the image that was sent")) from None


def kind_of(query: str, kind: str | None) -> str:
    """text or image: what ``kind`` says, or else what the query looks like, see above.

    Raises:
        UserError: another kind.
    """
    if isinstance(kind, str) and kind:
        if kind not in KINDS:
            raise UserError(f"kind: expected {' or '.join(KINDS)}, found {kind!r}")
        return kind
    return "image" if query.startswith(INLINE) or _is_file(query) else "text"


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # a sentence may be longer than a path can be
        return False
