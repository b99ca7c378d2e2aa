"""Stage report: metrics and curves for git, pictures and pages, all of it to the run that trained the model."""

from crossmodal.datasets.records import read_dataset
from crossmodal.datasets.splits import split_rows
from crossmodal.errors import exits_cleanly
from crossmodal.features.resume import publish, work_folder
from crossmodal.features.store import FeatureStore
from crossmodal.models.checkpoint import read_config
from crossmodal.params import load_params
from crossmodal.reports.analysis import write_analysis
from crossmodal.reports.breakdown import break_down, write_breakdown
from crossmodal.reports.curves import plot_curves, recall_rows, write_curves
from crossmodal.reports.figures import DIRECTIONS
from crossmodal.reports.gallery import write_gallery
from crossmodal.reports.pictures import Pictures
from crossmodal.reports.queries import QueryReader
from crossmodal.reports.scores import separation, write_scores
from crossmodal.reports.words import WordReader
from crossmodal.reports.write import write_metrics, write_search
from crossmodal.retrieval.evidence import load_evidence
from crossmodal.retrieval.search import load_results
from crossmodal.tracking import find_run
from stages.paths import DATASET, DETECTOR, EVALUATION, MATCHER, METRICS, REGIONS, REPORT


@exits_cleanly
def main() -> None:
    params = load_params()
    dataset, regions = read_dataset(DATASET), FeatureStore(REGIONS)
    results, evidence = load_results(EVALUATION), load_evidence(EVALUATION)
    test = split_rows(dataset, "test", regions.left_out)
    config, history = read_config(MATCHER), MATCHER / "history.csv"
    work = work_folder("report", params.report.model_dump(), [EVALUATION / "metrics.json"])

    write_metrics(METRICS, results, history, DETECTOR / "metrics.json")
    write_search(METRICS, EVALUATION / "search.json")
    write_curves(METRICS / "plots", results, history)
    plot_curves(work, results, history)
    write_scores(METRICS / "plots", work, evidence, results)
    breakdown = break_down(dataset, test, results, regions)
    write_breakdown(METRICS / "plots", work, breakdown)
    reader = QueryReader(dataset, test, results, Pictures(dataset, regions), WordReader(dataset, evidence))
    shown = {"title": f"{config.model} on {dataset.name}", "dataset": dataset.name}
    write_gallery(work, reader, queries=params.report.gallery_queries, **shown)
    write_analysis(work, reader, breakdown, separation=separation(evidence), **shown)
    publish(work, REPORT, work)
    with find_run(config.key, params.run_settings()) as tracker:
        for way in DIRECTIONS:
            tracker.log_curve(f"test/recall/{way}", [row[way] for row in recall_rows(results)])
        tracker.log_artifacts(REPORT, "report")
        tracker.log_artifacts(METRICS, "metrics")
    print(f"report: figures in {METRICS}, gallery.html, analysis.html and plots in {REPORT}")


if __name__ == "__main__":
    main()
