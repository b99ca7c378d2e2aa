"""Stage report: metrics and curves for git, pictures and gallery, all of it to the run that trained the model."""

from crossmodal.datasets.records import read_dataset
from crossmodal.datasets.splits import split_rows
from crossmodal.errors import exits_cleanly
from crossmodal.features.resume import publish, work_folder
from crossmodal.features.store import FeatureStore
from crossmodal.models.checkpoint import read_config
from crossmodal.params import load_params
from crossmodal.reports.curves import plot_curves, write_curves
from crossmodal.reports.gallery import write_gallery
from crossmodal.reports.write import write_metrics
from crossmodal.retrieval.search import load_results
from crossmodal.tracking import find_run
from stages.paths import DATASET, DETECTOR, EVALUATION, MATCHER, METRICS, REGIONS, REPORT


@exits_cleanly
def main() -> None:
    params = load_params()
    dataset, regions, results = read_dataset(DATASET), FeatureStore(REGIONS), load_results(EVALUATION)
    config, history = read_config(MATCHER), MATCHER / "history.csv"
    work = work_folder("report", params.report.model_dump(), [EVALUATION / "metrics.json"])

    write_metrics(METRICS, results, history, DETECTOR / "metrics.json")
    write_curves(METRICS / "plots", results, history)
    plot_curves(work, results, history)
    write_gallery(
        work,
        dataset,
        split_rows(dataset, "test", regions.left_out),
        results,
        regions,
        title=f"{config.model} on {dataset.name}",
        queries=params.report.gallery_queries,
        seed=0,
    )
    publish(work, REPORT, work)
    with find_run(config.key, params.run_settings()) as tracker:
        tracker.log_artifacts(REPORT, "report")
        tracker.log_artifacts(METRICS, "metrics")
    print(f"report: figures in {METRICS}, gallery and plots in {REPORT}")


if __name__ == "__main__":
    main()
