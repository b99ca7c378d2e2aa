"""Recalls of the matcher in models/matcher by MTEB's evaluator, on a task made of the dataset's test split.

    python benchmarks/search_mteb.py                # after dvc repro, both directions, next to results/evaluation

Detector and text encoder read the photographs and captions again, as they would those of any task of MTEB: minutes for
a few hundred images on a CPU. Needs the extra ``mteb``.
"""

from __future__ import annotations

from pathlib import Path

import datasets
import mteb
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata

from crossmodal.datasets.records import read_dataset
from crossmodal.files.checked_json import read_json
from crossmodal.paths import DATASET, EVALUATION
from crossmodal.serving.mteb import MatcherSearch

K = (1, 5, 10)


def task_of(folder: Path, way: str) -> AbsTaskRetrieval:
    """A retrieval task of a dataset's test images and captions; ``way``: i2t or t2i."""
    dataset = read_dataset(folder)
    images, texts, owners = [], [], []
    for row in dataset.rows("test"):
        images.append({"id": f"image-{row:05}", "image": str(dataset.image_path(row))})
        for number, caption in enumerate(dataset.records[row].captions):
            texts.append({"id": f"text-{row:05}-{number}", "text": caption})
            owners.append(f"image-{row:05}")
    sides = {
        "image": datasets.Dataset.from_list(images).cast_column("image", datasets.Image()),
        "text": datasets.Dataset.from_list(texts),
    }
    query, item = ("image", "text") if way == "i2t" else ("text", "image")
    relevant = {}
    for text, image in zip(texts, owners, strict=True):
        pair = {"image": image, "text": text["id"]}
        relevant.setdefault(pair[query], {})[pair[item]] = 1

    class Scenes(AbsTaskRetrieval):
        metadata = TaskMetadata(
            name=f"Scenes{way.upper()}Retrieval",
            description="Images and captions of the test split.",
            reference=None,
            dataset={"path": "local/scenes", "revision": "1"},
            type="Any2AnyRetrieval",
            category=way,
            eval_splits=["test"],
            eval_langs=["eng-Latn"],
            main_score="hit_rate_at_1",
            date=("2020-01-01", "2020-12-31"),
            domains=[],
            task_subtypes=[],
            license="not specified",
            annotations_creators="derived",
            dialect=[],
            modalities=["text", "image"],
            sample_creation="created",
            bibtex_citation="",
        )

        def load_data(self, *_: object, **__: object) -> None:
            data = {"corpus": sides[item], "queries": sides[query], "relevant_docs": relevant, "top_ranked": None}
            self.dataset, self.data_loaded = {"default": {"test": data}}, True

    return Scenes()


def hit_rates(folder: Path, way: str, model: MatcherSearch) -> dict[str, float]:
    """Hit rates in percent, by the names of metrics.json."""
    result = mteb.evaluate(model, task_of(folder, way), cache=None, co2_tracker=False)
    (scores,) = result.task_results[0].scores["test"]
    return {f"r{k}": 100 * scores[f"hit_rate_at_{k}"] for k in K}


def main() -> None:
    model, metrics = MatcherSearch(), read_json(EVALUATION / "metrics.json", dict, nan=True)
    for way in ("i2t", "t2i"):
        found = hit_rates(DATASET, way, model)
        both = ", ".join(f"R@{k} {found[f'r{k}']:.2f} ({metrics[way][f'r{k}']:.2f})" for k in K)
        print(f"{model.name} {way}, by MTEB (metrics.json): {both}", flush=True)


if __name__ == "__main__":
    main()
