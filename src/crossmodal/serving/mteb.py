"""A trained matcher in MTEB's image-text retrieval tasks: the SearchProtocol of MTEB 2.

    import mteb
    from crossmodal.serving.mteb import MatcherSearch

    tasks = mteb.get_tasks(tasks=["Flickr30kT2IRetrieval", "Flickr30kI2TRetrieval"])
    mteb.evaluate(MatcherSearch(), tasks)

Any matcher will do: images and captions are encoded as the stages encode them and every pair is scored, so that models
which compare sets and have no vector an item take part. ``hit_rate_at_K`` is the R@K of metrics.json but for items of
the same score, which MTEB orders by their ids and metrics.json counts against the model. Needs the extra ``mteb``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crossmodal.captions.base import store_captions
from crossmodal.datasets.assemble import check_images
from crossmodal.datasets.records import ImageRecord, read_dataset, write_dataset
from crossmodal.datasets.splits import Split
from crossmodal.errors import UserError
from crossmodal.features.store import FeatureStore
from crossmodal.inference.rescore import rescore_leading
from crossmodal.inference.scoring import SearchInputs, similarity_matrix
from crossmodal.models.checkpoint import load_matcher
from crossmodal.regions.base import RegionExtractor
from crossmodal.regions.extraction.extract import Extraction, extract_regions
from crossmodal.runtime import pick_device
from crossmodal.serving.session import Folders, as_stored, matching_extractor, matching_reader
from crossmodal.settings.params import Params, load_params

if TYPE_CHECKING:
    from datasets import Dataset as Rows
    from mteb.models import ModelMeta

IMAGE, TEXT = "image", "text"  # columns of MTEB's datasets


class MatcherSearch:
    """The matcher of a pipeline, with the detector and the text encoder that it was trained on.

    Args:
        params: of the pipeline; None: params.yaml. Photographs and sentences are read by the settings of the feature
            stores, where these are there.
        name: for MTEB's results, "ORGANISATION/MODEL"; None: crossmodal and the model's name.

    Raises:
        UserError: models are missing, damaged or do not belong together.
    """

    def __init__(self, params: Params | None = None, folders: Folders | None = None, name: str | None = None) -> None:
        self.folders = folders or Folders()
        self.model, self.config = load_matcher(self.folders.matcher)
        self.model.to(pick_device())
        self.name = name or f"crossmodal/{self.config.model}"
        self.params = as_stored(params or load_params(), self.folders)
        self._work = tempfile.TemporaryDirectory(prefix="mteb-")  # features of one side, removed with this object
        self._corpus: tuple[str, list[str], FeatureStore] | None = None

    @cached_property
    def mteb_model_meta(self) -> ModelMeta:
        """The matcher as MTEB describes models."""
        from mteb.models import ModelMeta

        return ModelMeta(
            loader=None,
            name=self.name,
            revision=self.config.key,
            release_date=None,
            languages=["eng-Latn"],
            n_parameters=sum(parameter.numel() for parameter in self.model.parameters()),
            memory_usage_mb=None,
            max_tokens=self.params.captions.max_tokens,
            embed_dim=None,
            license=None,
            open_weights=None,
            public_training_code=None,
            public_training_data=None,
            framework=["PyTorch"],
            similarity_fn_name=None,
            use_instructions=False,
            training_datasets=None,
            modalities=["image", "text"],
        )

    def index(self, corpus: Rows, **_: Any) -> None:
        """Read the images or the texts of a corpus.

        Raises:
            UserError: it has both, or an image that cannot be read.
        """
        self._corpus = self._read(corpus, "corpus")

    def search(
        self,
        queries: Rows,
        *,
        top_k: int,
        top_ranked: Mapping[str, Sequence[str]] | None = None,
        **_: Any,
    ) -> dict[str, dict[str, float]]:
        """Scores of the ``top_k`` best items of the corpus for each query, by id.

        Args:
            top_ranked: of a reranking task, the items that a query is compared with.

        Raises:
            UserError: queries and corpus are not images and texts.
        """
        if self._corpus is None:
            raise ValueError("search before index")
        kind, items, _ = self._corpus
        own, ids, values = self._read(queries, "queries")
        if own == kind:
            raise UserError(f"MTEB task: queries and corpus are both of {kind}s, expected images and texts")
        scores = self._scores(**{kind: self._corpus[2], own: values})  # images x texts
        scores = scores if own == IMAGE else scores.T
        number, found = {item: row for row, item in enumerate(items)}, {}
        for row, query in enumerate(ids):
            listed = np.arange(len(items))
            if top_ranked is not None:
                listed = np.array([number[item] for item in top_ranked[query]], dtype=np.int64)
            best = listed[np.argsort(-scores[row, listed], kind="stable")[:top_k]]
            found[query] = {items[item]: float(scores[row, item]) for item in best}
        return found

    def _scores(self, image: FeatureStore, text: FeatureStore) -> np.ndarray:
        split = Split(np.arange(len(image)), np.arange(len(text)), np.zeros(len(text), dtype=np.int64))
        inputs = SearchInputs(self.model, image, text, split, self.params.evaluate.batch_size, self.config)
        matrix = similarity_matrix(inputs)
        rescore_leading(inputs, matrix)
        return matrix

    def _read(self, rows: Rows, name: str) -> tuple[str, list[str], FeatureStore]:
        """Kind, ids and features of a dataset with a column of images or one of texts."""
        kinds = [kind for kind in (IMAGE, TEXT) if kind in rows.column_names]
        if len(kinds) != 1:
            raise UserError(
                f"MTEB task: the {name} have columns {', '.join(rows.column_names)}, expected image or text"
            )
        folder = Path(tempfile.mkdtemp(dir=self._work.name))
        if kinds == [IMAGE]:
            self._extract(rows, folder)
        else:
            encoder = matching_reader(self.params, self.folders, self.config).encoder
            store_captions(encoder, rows[TEXT], folder / "store", batch_size=self.params.captions.batch_size)
        return kinds[0], [str(item) for item in rows["id"]], FeatureStore(folder / "store")

    def _extract(self, rows: Rows, folder: Path) -> None:
        """Regions of images, whose files are copied as they are: the pipeline's own decoder reads them."""
        from datasets import Image

        images = folder / "dataset/images"
        images.mkdir(parents=True)
        for number, row in enumerate(rows.cast_column(IMAGE, Image(decode=False))):
            stored = row[IMAGE]
            (images / str(number)).write_bytes(stored["bytes"] or Path(stored["path"]).read_bytes())
        records = []
        for number, size in enumerate(check_images([images / str(number) for number in range(len(rows))])):
            if isinstance(size, str):
                raise UserError(f"MTEB task: image {rows['id'][number]}: {size}")
            records.append(ImageRecord(str(number), f"images/{number}", "test", *size, captions=()))
        write_dataset(folder / "dataset", "mteb", records)
        extract_regions(
            read_dataset(folder / "dataset"),
            self._extractor,
            folder / "store",
            replace(Extraction.of(self.params), max_broken=0),
        )

    @cached_property
    def _extractor(self) -> RegionExtractor:
        return matching_extractor(self.params, self.folders, self.config)
