"""Stage train: fit the chosen model, keep the best epoch by validation.

With ``train.devices`` above 1 it starts as many processes that run this script, see training/processes.py; the
first of them writes, tracks and publishes.
"""

import csv
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from crossmodal.captions.encoders import ENCODERS, training_files, uses_token_table
from crossmodal.datasets.records import Dataset, read_dataset
from crossmodal.datasets.splits import Split, caption_images, first_images, require_split
from crossmodal.errors import UserError, exits_cleanly
from crossmodal.evaluation.rouge import rouge_l_relevance
from crossmodal.features.batches import TokenTable
from crossmodal.features.store import FeatureStore
from crossmodal.inference.compatibility import check_boxes
from crossmodal.models.base import InputSizes, Matcher
from crossmodal.models.checkpoint import MatcherConfig, save_matcher
from crossmodal.models.grid_backbone import BackboneSettings, build_image, load_backbone
from crossmodal.models.registry import build_model
from crossmodal.models.text import build_text, load_pretrained
from crossmodal.models.timm_network import create_network, read_network_config
from crossmodal.paths import BERT, CAPTIONS, DATASET, DETECTOR, MATCHER, REGIONS
from crossmodal.runtime import keep_large_blocks, seed_everything
from crossmodal.settings.derived import loss_in_use, run_settings, trains_backbone
from crossmodal.settings.params import Params, load_params
from crossmodal.terminal import warn
from crossmodal.tracking.run import open_training_run
from crossmodal.training.batches import TrainingData
from crossmodal.training.choices import choices_of
from crossmodal.training.feed import with_features
from crossmodal.training.idle import idle_settings
from crossmodal.training.inputs import training_inputs
from crossmodal.training.loop import Trainer, TrainerSettings
from crossmodal.training.members import fit_in_turn, untrained_history
from crossmodal.training.mismatched import FILE as MISMATCHED
from crossmodal.training.mismatched import training_images, with_wrong_pairs
from crossmodal.training.processes import start_processes
from crossmodal.training.validation import validate
from crossmodal.workspace import content_key, publish, work_folder


def image_network(params: Params, stored: int) -> tuple[dict[str, Any], int]:
    """Settings for ``build_image``, empty without an image network, and the size of the regions that the model gets.

    Args:
        stored: values of a row of the region store.

    Raises:
        UserError: the region store, or the detector stage's folder, are of another ``grid.trained``.
    """
    if not trains_backbone(params):
        return {}, stored
    network, own = read_network_config(DETECTOR), params.grid_finetune
    if network.cut is None or network.cut.channels != stored:
        raise UserError(f"{REGIONS}: not made for grid.trained {params.grid.trained}; run the regions stage again")
    settings = network.model_dump() | own.model_dump(exclude={"lr_factor", "frozen_epochs"})
    settings = BackboneSettings(**settings, region_dropout=params.train.region_dropout)
    return settings.model_dump(), create_network(network.model, network.kwargs).num_features


def words_table(params: Params) -> TokenTable | None:
    """What ``train.word_dropout_kind: words`` knows of each token, where it is used."""
    if uses_token_table(params):
        return ENCODERS[params.captions.encoder].token_table(BERT, CAPTIONS)
    return None


def new_matcher(
    params: Params, regions: FeatureStore, words: FeatureStore, table: TokenTable | None, key: str
) -> tuple[Matcher, MatcherConfig, float]:
    """A matcher that starts from drawn weights, its config, and the learning-rate factor of its text network."""
    encoder = params.captions.encoder
    text = ENCODERS[encoder].text_settings(params, BERT, words, table)
    image, size = image_network(params, regions.arrays["features"][1][0])
    sizes = InputSizes(regions=size, words=text.size)
    make_text, make_image = partial(build_text, encoder, text.settings), partial(build_image, image)
    model = build_model(params.model, params.model_settings, sizes, make_text, make_image)
    settings = params.model_settings.model_dump()
    return model, MatcherConfig(params.model, settings, sizes, key, encoder, text.settings, image), text.lr_factor


def rouge_l_of_split(dataset: Dataset, val: Split) -> np.ndarray:
    """ROUGE-L of a split's captions with its images: (captions, images)."""
    references = [dataset.records[row].captions for row in val.images]
    return rouge_l_relevance([caption for texts in references for caption in texts], references)


def training_data(
    params: Params, dataset: Dataset, regions: FeatureStore, words: FeatureStore, table: TokenTable | None
) -> TrainingData:
    """Training and validation splits, with wrong pairs if ``train.mismatched`` asks for them.

    Raises:
        UserError: a split is empty, or the training split has fewer images than ``train.training_images`` asks for.
    """
    train, count = require_split(dataset, "train", regions.left_out), params.train.training_images
    if count > len(train.images):
        raise UserError(
            f"params.yaml: train.training_images {count}: the training split has {len(train.images):,} images; "
            "use fewer, or 0 for all"
        )
    train = first_images(train, count)
    val = first_images(require_split(dataset, "val", regions.left_out), params.train.validation_images)
    relevance = rouge_l_of_split(dataset, val) if params.train.best == "ndcg" else None
    data = TrainingData(regions, words, caption_images(dataset), train, val, token_table=table, relevance=relevance)
    return with_wrong_pairs(data, training_images(train, params.train)) if params.train.mismatched else data


def write_matcher(
    out: Path, model: Matcher, config: MatcherConfig, history: list[dict[str, float]], wrong: np.ndarray | None
) -> None:
    """The matcher, the history of its training, and which images its captions were given, where some were wrong."""
    out.mkdir(exist_ok=True)
    save_matcher(out, model, config)
    if wrong is not None:
        np.save(out / MISMATCHED, wrong)
    with (out / "history.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(history[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)


@exits_cleanly
def main() -> None:
    started = time.monotonic()
    keep_large_blocks()
    params = load_params()
    dataset, regions, words = read_dataset(DATASET), FeatureStore(REGIONS), FeatureStore(CAPTIONS)
    check_boxes(params.model, params.model_settings.model_dump(), regions)
    processes = start_processes(params.train.devices, module="stages.train")
    if processes is None:  # others were started and have done the work
        return
    for problem in idle_settings(params) if processes.first else ():
        warn(problem)
    settings = run_settings(params)
    table = words_table(params)
    data = training_data(params, dataset, regions, words, table)
    wrong = data.train.caption_image if params.train.mismatched else None
    text_files = training_files(params, BERT, CAPTIONS)
    key = content_key(settings, training_inputs(params, DATASET, REGIONS, CAPTIONS, DETECTOR, text_files))
    work = work_folder("train", {"key": key}) if processes.first else None

    seed_everything(params.seed)
    model, config, text_lr = new_matcher(params, regions, words, table, key)
    model = model.to(processes.device)
    if model.members():  # one without parameters computes on the CPU
        data = with_features(data, params.train.features, processes.device)
    how = TrainerSettings(
        params.train,
        loss_in_use(params),
        params.seed,
        text_lr=text_lr,
        image_lr=params.grid_finetune.lr_factor,
        frozen_epochs=params.grid_finetune.frozen_epochs,
    )
    trainers = []
    for number, member in enumerate(model.members()):
        load_pretrained(member.text, BERT)
        load_backbone(member.image, DETECTOR)
        trainers.append(Trainer(member, data, how, resume=work and work / f"member{number}", processes=processes))
    run_id = next((trainer.state.run_id for trainer in trainers), None)
    used = choices_of(trainers[0]) if trainers else None
    if used and processes.first:
        print(f"train: {used}", flush=True)
    with open_training_run(key, settings, used and used.tags(), run_id=run_id, enabled=processes.first) as tracker:
        for trainer in trainers:
            trainer.state.run_id = tracker.run_id
        tracker.log_dataset(dataset.name, digest=content_key({}, [DATASET / "manifest.json"]), context="training")
        tracker.log_dataset(f"{dataset.name}-regions", digest=regions.digest, context="training")
        tracker.log_dataset(f"{dataset.name}-captions", digest=words.digest, context="training")
        history = fit_in_turn(trainers, tracker.log_metrics)
        if not history:  # nothing to train
            history = untrained_history(model, data, params.train.batch_size, tracker.log_metrics)
        if len(trainers) == 1:  # the kept epoch was validated in training
            rsum = history[trainers[0].state.best_epoch]["rsum"]
        else:
            rsum = validate(model, data, params.train.batch_size, processes)["rsum"]
        parameters = sum(parameter.numel() for parameter in model.parameters())
        minutes = (time.monotonic() - started) / 60
        tracker.log_metrics({"model/parameters": parameters, "train/minutes": minutes})
    processes.close()
    if work is None:
        return

    out = work / "out"
    write_matcher(out, model, config, history, wrong)
    publish(out, MATCHER, work)
    print(
        f"train: {params.model} ({parameters:,} parameters), validation rsum {rsum:.1f}, "
        f"{history[-1]['epoch']} epochs, {minutes:.1f} minutes, in {MATCHER}"
    )


if __name__ == "__main__":
    main()
