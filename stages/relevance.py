"""Stage relevance: relevance of every test image to every test caption, from their captions."""

import shutil

import numpy as np

from crossmodal.datasets.records import read_dataset
from crossmodal.errors import exits_cleanly
from crossmodal.evaluation.rouge import rouge_l_relevance
from crossmodal.evaluation.spice.relevance import spice_relevance
from crossmodal.files.checked_json import write_json
from crossmodal.paths import DATASET, RELEVANCE
from crossmodal.settings.params import load_params
from crossmodal.workspace import publish, work_folder


@exits_cleanly
def main() -> None:
    settings = load_params().relevance
    dataset = read_dataset(DATASET)
    references = [dataset.records[row].captions for row in dataset.rows("test")]
    captions = [caption for texts in references for caption in texts]
    work = work_folder("relevance", settings.model_dump(), [DATASET / "manifest.json"])
    out = work / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    size = (len(captions), len(references))
    if settings.measure != "none":
        matrix = np.lib.format.open_memmap(out / "test.npy", mode="w+", dtype=np.float32, shape=size)
        if settings.measure == "spice":
            spice_relevance(captions, references, work / "spice", out=matrix)
        else:
            rouge_l_relevance(captions, references, out=matrix)
        matrix.flush()
    write_json(out / "relevance.json", {"measure": settings.measure, "test": size}, indent=None)
    publish(out, RELEVANCE, work)
    print(f"relevance: {settings.measure} of {size[0]:,} captions with {size[1]:,} images, in {RELEVANCE}")


if __name__ == "__main__":
    main()
