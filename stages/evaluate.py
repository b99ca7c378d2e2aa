"""Stage evaluate: search the test split both ways, by embeddings, all pairs or shortlists; score the probe."""

from dataclasses import replace

import numpy as np

from crossmodal.datasets.records import Dataset, read_dataset
from crossmodal.datasets.splits import Split, require_split, split_rows
from crossmodal.errors import exits_cleanly
from crossmodal.evaluation.files import read_relevance
from crossmodal.evaluation.metrics import flat, merged
from crossmodal.evaluation.protocols import check_folds, extra_metrics
from crossmodal.evidence.alignment import keep_evidence
from crossmodal.evidence.pointed import FILE as POINTED
from crossmodal.evidence.pointing import measure_pointing
from crossmodal.features.store import FeatureStore
from crossmodal.files.checked_arrays import save_arrays
from crossmodal.files.checked_json import write_json
from crossmodal.inference.compatibility import check_inputs
from crossmodal.inference.scoring import SearchInputs, probe_similarity
from crossmodal.models.checkpoint import load_matcher
from crossmodal.paths import BERT, CAPTIONS, DATASET, EVALUATION, MATCHER, REGIONS, RELEVANCE
from crossmodal.retrieval.gallery import save_info, save_threshold
from crossmodal.retrieval.results import summary
from crossmodal.retrieval.search_split import cost_line, describe, search_split
from crossmodal.retrieval.threshold import measure_threshold
from crossmodal.runtime import pick_device
from crossmodal.settings.derived import run_settings
from crossmodal.settings.params import load_params
from crossmodal.tracking.run import find_run
from crossmodal.workspace import publish, work_folder


def graded_relevance(dataset: Dataset, split: Split) -> np.ndarray | None:
    """Relevance of the searched images to their captions, (captions, images); None without such a file.

    The relevance stage goes by the dataset alone: it has images that the regions stage left out.
    """
    path, whole = RELEVANCE / "test.npy", split_rows(dataset, "test")
    if not path.is_file():
        return None
    matrix = read_relevance(path, len(whole.images), len(whole.captions))
    if len(split.images) == len(whole.images):
        return matrix
    return matrix[np.isin(whole.captions, split.captions)][:, np.isin(whole.images, split.images)]


@exits_cleanly
def main() -> None:
    params = load_params()
    settings = params.evaluate
    dataset, regions, words = read_dataset(DATASET), FeatureStore(REGIONS), FeatureStore(CAPTIONS)
    model, config = load_matcher(MATCHER)
    check_inputs(MATCHER, config, regions, words)
    test = require_split(dataset, "test", regions.left_out)
    if settings.folds:
        check_folds("evaluate.folds", settings.folds, len(test.images))
    inputs = SearchInputs(model.to(pick_device()), regions, words, test, settings.batch_size, config)
    info = describe(inputs, settings, dataset.digest)
    work = work_folder("evaluate", settings.model_dump(), [MATCHER / "config.json"])

    pairs = split_rows(dataset, "probe", regions.left_out)
    probe = probe_similarity(replace(inputs, split=pairs))
    searched = search_split(inputs, settings, work)
    results = replace(searched.results, probe=probe)
    metrics = summary(results)
    if searched.matrix is not None:
        graded = graded_relevance(dataset, test)
        extra = extra_metrics(searched.rankings, searched.matrix, test.caption_image, graded, settings.folds)
        metrics = merged(metrics, extra)
    measured = measure_pointing(inputs, dataset, bert=BERT, images=settings.pointing)
    if measured is not None:
        metrics["pointing"], pointed = measured
        save_arrays(pointed, work / POINTED)
    threshold = measure_threshold(
        replace(inputs, split=split_rows(dataset, "val", regions.left_out)), settings.threshold
    )
    if threshold is not None:
        save_threshold(work, threshold)
    save_arrays(results, work / "results.npz")
    save_info(work, info)
    write_json(work / "metrics.json", metrics)
    write_json(work / "search.json", searched.figures)
    keep_evidence(work, inputs, dataset, pairs, results, bert=BERT, explained=settings.explained)
    publish(work, EVALUATION, work)

    with find_run(config.key, run_settings(params)) as tracker:
        tracker.log_metrics({f"test/{name}": value for name, value in flat(metrics).items()})
        costs = flat(searched.figures) | searched.timings
        tracker.log_metrics({f"search/{name}": value for name, value in costs.items()})
    recalls = {name: value for name, value in flat(metrics).items() if "/r" in name and not name.startswith("folds/")}
    line = " ".join(f"{name} {value:.1f}" for name, value in recalls.items())
    solved = f", probe image score {metrics['probe']['image']:.1f}" if "probe" in metrics else ""
    print(f"evaluate: {cost_line(info, searched)}")
    print(f"evaluate: {line}, rsum {metrics['rsum']:.1f}{solved}, in {EVALUATION}")


if __name__ == "__main__":
    main()
