"""Stage report: metrics and curves for git, pictures and pages, all of it to the run that trained the model."""

from pathlib import Path
from typing import Any

from crossmodal.datasets.records import Dataset, read_dataset
from crossmodal.datasets.splits import require_split
from crossmodal.errors import exits_cleanly
from crossmodal.evaluation.metrics import flat
from crossmodal.evidence.evidence import EVIDENCE_FILE, Evidence
from crossmodal.evidence.pointed import load_pointed
from crossmodal.features.store import FeatureStore
from crossmodal.files.checked_arrays import load_arrays
from crossmodal.models.checkpoint import MatcherConfig, read_config
from crossmodal.paths import DATASET, DETECTOR, EVALUATION, MATCHER, METRICS, REGIONS, REPORT
from crossmodal.reports.analysis import write_analysis
from crossmodal.reports.breakdown import break_down, write_breakdown
from crossmodal.reports.curves import recall_rows, write_curves
from crossmodal.reports.figures import DIRECTIONS
from crossmodal.reports.gallery import write_gallery
from crossmodal.reports.metrics_files import read_metrics, write_metrics
from crossmodal.reports.note import run_note
from crossmodal.reports.pictures import Pictures
from crossmodal.reports.pointing import pointing_part
from crossmodal.reports.queries import QueryReader
from crossmodal.reports.scores import roc_auc, write_scores
from crossmodal.reports.words import WordReader
from crossmodal.retrieval.gallery import check_made_of, read_info
from crossmodal.retrieval.results import SearchResults
from crossmodal.settings.derived import run_settings
from crossmodal.settings.params import Params, load_params
from crossmodal.tracking.run import find_run
from crossmodal.workspace import content_key, publish, work_folder


@exits_cleanly
def main() -> None:
    params = load_params()
    dataset, regions = read_dataset(DATASET), FeatureStore(REGIONS)
    check_made_of(EVALUATION, read_info(EVALUATION), dataset)
    results = load_arrays(SearchResults, EVALUATION / "results.npz")
    evidence = load_arrays(Evidence, EVALUATION / EVIDENCE_FILE)
    metrics = read_metrics(EVALUATION / "metrics.json")
    test = require_split(dataset, "test", regions.left_out)
    config, history = read_config(MATCHER), MATCHER / "history.csv"
    work = work_folder("report", params.report.model_dump(), [EVALUATION / "metrics.json"])

    write_metrics(METRICS, metrics, EVALUATION / "search.json", history, DETECTOR / "metrics.json")
    write_curves(METRICS / "plots", work, results, history)
    write_scores(METRICS / "plots", work, evidence, results)
    breakdown = break_down(dataset, test, results, regions)
    write_breakdown(METRICS / "plots", work, breakdown)
    pictures = Pictures(dataset, regions, evidence.boxes)
    reader = QueryReader(dataset, test, results, pictures, WordReader(dataset, evidence))
    shown = {"title": f"{config.model} on {dataset.name}", "metrics": metrics}
    write_gallery(work, reader, queries=params.report.gallery_queries, **shown)
    pointing = pointing_part(pictures, load_pointed(EVALUATION), metrics)
    write_analysis(work, reader, breakdown, roc_auc=roc_auc(evidence), pointing=pointing, **shown)
    publish(work, REPORT, work)
    track(params, config, dataset, regions, results, metrics)
    print(f"report: metrics in {METRICS}, gallery.html, analysis.html and plots in {REPORT}")


def track(
    params: Params,
    config: MatcherConfig,
    dataset: Dataset,
    regions: FeatureStore,
    results: SearchResults,
    metrics: dict[str, Any],
) -> None:
    """Log everything about the run, also if DVC took training and evaluation from its cache."""
    parts = {"test": metrics, "search": read_metrics(METRICS / "search.json")}
    logged = {f"{part}/{name}": value for part, group in parts.items() for name, value in flat(group).items()}
    detector = read_metrics(METRICS / "detector.json")
    logged |= {f"detector/{name}": value for name, value in detector.items() if not isinstance(value, dict)}
    with find_run(config.key, run_settings(params), {"evaluate": params.evaluate.model_dump(mode="json")}) as tracker:
        tracker.log_dataset(dataset.name, content_key({}, [DATASET / "manifest.json"]), context="testing")
        tracker.log_dataset(f"{dataset.name}-regions", regions.digest, context="testing")
        tracker.log_metrics(logged)
        for way in DIRECTIONS:
            tracker.log_curve(f"test/recall/{way}", [row[way] for row in recall_rows(results)])
        tracker.describe(run_note(config, dataset.name, metrics))
        artifacts = {"report": REPORT, "metrics": METRICS, "matcher": MATCHER}
        artifacts |= {"settings": Path("params.yaml"), "data": DATASET / "manifest.json"}
        for into, path in artifacts.items():
            tracker.log_artifact(path, into)


if __name__ == "__main__":
    main()
