"""A searched gallery on disk: what was indexed, by which matcher and how.

gallery.json                     the matcher and the way of searching, see GalleryInfo
threshold.json                   see Threshold; absent where there was too little to measure
images.faiss, captions.faiss     indexes, where FAISS takes part
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from crossmodal.datasets.records import Dataset
from crossmodal.errors import UserError, first_line
from crossmodal.files.checked_json import Record, read_record, write_json
from crossmodal.settings.derived import with_reading
from crossmodal.settings.evaluation import Muvera
from crossmodal.settings.params import Params

THRESHOLD = "threshold.json"
Mode = Literal["embeddings", "exact_pairwise", "shortlist_rerank"]
OWN_VECTORS = ("own", "muvera")  # values of shortlist_by that take the searching matcher's own vectors


class GalleryInfo(Record):
    """How a gallery is searched: the content of gallery.json.

    model, key: name and key of the matcher that encoded it. images, captions: how many there are.
    dataset: digest of the dataset that it was made of (``Dataset.digest``); empty in files of a former version.
    index: FAISS factory string, empty for exact_pairwise. shortlist: items that shortlist_rerank scores.
    shortlist_by: "own", "muvera", or the folder of the matcher that finds them, whose key is ``shortlist_key``.
    muvera: ``evaluate.muvera`` of that gallery, where its encodings find them; else not in the file.
    settings: of its features, by dotted key of params.yaml; queries are read by the same.
    """

    model: str
    key: str
    images: Annotated[int, Field(ge=0)]
    captions: Annotated[int, Field(ge=0)]
    dataset: str = ""
    mode: Mode
    index: str = ""
    shortlist: Annotated[int, Field(ge=0)] = 0
    shortlist_by: str = "own"
    shortlist_key: str = ""
    muvera: Muvera | None = None
    settings: dict[str, Any] = Field(default_factory=dict)


class Threshold(Record):
    """Content of threshold.json.

    key: of the matcher. score: of the image found first, at which the right image is as likely in the gallery as not;
    slope: of the logistic curve there. images, captions: searched, of the validation split.
    """

    key: str
    score: float
    slope: float
    images: Annotated[int, Field(ge=1)]
    captions: Annotated[int, Field(ge=1)]


def save_info(folder: Path, info: GalleryInfo) -> None:
    """Write ``gallery.json``."""
    write_json(folder / "gallery.json", info.model_dump(exclude=None if info.muvera else {"muvera"}))


def read_info(folder: Path) -> GalleryInfo:
    """Read ``gallery.json``.

    Raises:
        UserError: missing, or something else.
    """
    return read_record(folder / "gallery.json", GalleryInfo, advice="run the evaluate stage first")


def is_made_of(info: GalleryInfo, dataset: Dataset) -> bool:
    """Whether a gallery was made of a dataset; of one that does not say, it is believed."""
    return info.dataset in ("", dataset.digest)


def check_made_of(folder: Path, info: GalleryInfo, dataset: Dataset) -> None:
    """See that the gallery of ``folder``, and the results beside it, were made of a dataset.

    Raises:
        UserError: they were made of another one.
    """
    if not is_made_of(info, dataset):
        raise UserError(
            f"{folder}: made of another dataset ({info.dataset[:8]}) than {dataset.folder} holds ({dataset.name}, "
            f"{dataset.digest[:8]}); make it again, with the evaluate stage or crossmodal embed"
        )


def as_made(params: Params, settings: Any, path: Path) -> Params:
    """Params with the settings of features that the file ``path`` holds; a UserError where they are none."""
    try:
        return with_reading(params, settings)
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not settings of features ({first_line(error)})") from None


def save_threshold(folder: Path, threshold: Threshold) -> None:
    """Write ``threshold.json``."""
    write_json(folder / THRESHOLD, threshold.model_dump())


def read_threshold(folder: Path, key: str) -> Threshold | None:
    """Read ``threshold.json``; None where there is none, or where it is of another matcher than that of ``key``.

    Raises:
        UserError: it is damaged.
    """
    path = folder / THRESHOLD
    if not path.is_file():
        return None
    threshold = read_record(path, Threshold)
    return threshold if threshold.key == key else None
