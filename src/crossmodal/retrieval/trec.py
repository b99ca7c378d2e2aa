"""Results of the evaluate stage as TREC runs and qrels of both directions."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from crossmodal.datasets.records import Dataset
from crossmodal.datasets.splits import Split
from crossmodal.errors import UserError
from crossmodal.evaluation.trec import Retrieved, trec_id, write_qrels, write_run
from crossmodal.files.whole_folder import whole_folder
from crossmodal.retrieval.results import SearchResults


def export_trec(results: SearchResults, dataset: Dataset, split: Split, out: Path, tag: str) -> dict[str, int]:
    """Write ``i2t.run``, ``i2t.qrels``, ``t2i.run`` and ``t2i.qrels`` into a folder, made once it is complete.

    An image has the id of its record, a caption the same with ``#`` and its number. Runs hold the results that were
    kept (``evaluate.top_k``); Success@K of them is the R@K of metrics.json for K up to their number.

    Returns:
        Lines of each file.

    Raises:
        UserError: the results are not of this dataset.
    """
    if not np.array_equal(results.caption_image, split.caption_image):
        sizes = f"{len(results.i2t_ranks)} images and {len(results.t2i_ranks)} captions"
        raise UserError(f"{dataset.folder}: other captions than the results of {sizes}; run the evaluate stage again")
    owners = results.caption_image
    images = [trec_id(dataset.records[row].id) for row in split.images]
    numbers = np.arange(len(owners)) - np.searchsorted(owners, owners)  # captions of an image follow each other
    captions = [f"{images[image]}#{number}" for image, number in zip(owners, numbers, strict=True)]
    right = (owners[results.i2t_top] == np.arange(len(images))[:, None]) & (results.i2t_top >= 0)
    i2t = Retrieved(results.i2t_top, results.i2t_scores, right, results.i2t_ranks)
    t2i = Retrieved(results.t2i_top, results.t2i_scores, results.t2i_top == owners[:, None], results.t2i_ranks)
    with whole_folder(out) as part:
        write_run(part / "i2t.run", images, captions, i2t, tag)
        write_run(part / "t2i.run", captions, images, t2i, tag)
        write_qrels(part / "i2t.qrels", images, captions, ((image, caption) for caption, image in enumerate(owners)))
        write_qrels(part / "t2i.qrels", captions, images, enumerate(owners))
    return {path.name: path.read_bytes().count(b"\n") for path in sorted(out.iterdir())}
