"""Stage evaluate: embed the test split and search it both ways with FAISS, or score all pairs; score the probe."""

import numpy as np

from crossmodal.datasets.records import read_dataset
from crossmodal.datasets.splits import split_rows
from crossmodal.errors import exits_cleanly
from crossmodal.evaluation.metrics import flat
from crossmodal.features.resume import publish, work_folder
from crossmodal.features.store import FeatureStore
from crossmodal.models.checkpoint import load_matcher
from crossmodal.params import load_params
from crossmodal.retrieval.explain import keep_evidence
from crossmodal.retrieval.inputs import check_inputs
from crossmodal.retrieval.search import rank_pairs, save_results, search_both_ways, summary
from crossmodal.retrieval.similarity import encode_captions, encode_images, probe_similarity, similarity_matrix
from crossmodal.runtime import pick_device
from crossmodal.tracking import find_run
from stages.paths import BERT, CAPTIONS, DATASET, EVALUATION, MATCHER, REGIONS


@exits_cleanly
def main() -> None:
    params = load_params()
    settings = params.evaluate
    dataset, regions, words = read_dataset(DATASET), FeatureStore(REGIONS), FeatureStore(CAPTIONS)
    model, config = load_matcher(MATCHER)
    check_inputs(MATCHER, config, regions, words)
    model = model.to(pick_device())
    work = work_folder("evaluate", settings.model_dump(), [MATCHER / "config.json"])

    test, size = split_rows(dataset, "test"), settings.batch_size
    probe = probe_similarity(model, regions, words, split_rows(dataset, "probe"), size)
    if model.pooled:
        results = search_both_ways(
            images=encode_images(model, regions, test.images, size).vectors.cpu().numpy(),
            captions=encode_captions(model, words, test.captions, size).vectors.cpu().numpy(),
            split=test,
            probe=probe,
            factory=settings.index,
            top_k=settings.top_k,
            folder=work,
        )
    else:
        matrix = np.lib.format.open_memmap(
            work / "similarity.npy", mode="w+", dtype=np.float32, shape=(len(test.images), len(test.captions))
        )
        similarity_matrix(model, regions, test.images, words, test.captions, size, out=matrix)
        results = rank_pairs(matrix, test, probe, top_k=settings.top_k)
    save_results(results, work)
    keep_evidence(
        work,
        model,
        dataset,
        regions,
        words,
        test,
        split_rows(dataset, "probe"),
        results,
        encoder=config.encoder,
        bert=BERT,
        explained=settings.explained,
        batch_size=size,
    )
    publish(work, EVALUATION, work)
    metrics = summary(results)
    with find_run(config.key, params.run_settings()) as tracker:
        tracker.log_metrics({f"test/{name}": value for name, value in flat(metrics).items()})
    line = " ".join(f"{name} {value:.1f}" for name, value in flat(metrics).items() if "/r" in name)
    probe = f", probe {metrics['probe']:.1f}" if "probe" in metrics else ""
    print(f"evaluate: {line}, rsum {metrics['rsum']:.1f}{probe}, in {EVALUATION}")


if __name__ == "__main__":
    main()
