"""Stage train: fit the chosen model, keep the best epoch by validation.

With ``train.devices`` above 1 it starts as many processes that run this script, see training/processes.py; the
first of them writes, tracks and publishes.
"""

import csv
import time
from functools import partial
from typing import Any

import numpy as np

from crossmodal.captions.bert import load_bert, read_bert_config
from crossmodal.captions.token_table import table_of_tokenizer, table_of_vocabulary
from crossmodal.captions.vocabulary import Vocabulary
from crossmodal.datasets.records import Dataset, read_dataset
from crossmodal.datasets.splits import Split, caption_images, first_images, require_split
from crossmodal.errors import UserError, exits_cleanly
from crossmodal.evaluation.rouge import rouge_l_relevance
from crossmodal.features.batches import TokenTable
from crossmodal.features.store import FeatureStore
from crossmodal.inference.compatibility import check_boxes
from crossmodal.models.base import InputSizes
from crossmodal.models.checkpoint import MatcherConfig, save_matcher
from crossmodal.models.registry import build_model
from crossmodal.models.text import build_text, load_pretrained
from crossmodal.paths import BERT, CAPTIONS, DATASET, MATCHER, REGIONS
from crossmodal.runtime import seed_everything
from crossmodal.settings.derived import run_settings
from crossmodal.settings.params import Params, load_params
from crossmodal.tracking.run import open_training_run
from crossmodal.training.loop import Trainer, fit_in_turn, untrained_history
from crossmodal.training.processes import start_processes
from crossmodal.training.validation import TrainingData, validate
from crossmodal.workspace import content_key, publish, work_folder


def token_table(params: Params) -> TokenTable | None:
    """Token table for ``train.word_dropout_kind`` words; None if no words are dropped.

    Raises:
        UserError: words are to be masked, and the tokenizer has no token for it.
    """
    encoder = params.captions.encoder
    if params.train.word_dropout_kind != "words" or not params.train.word_dropout or encoder == "clip":
        return None
    if encoder == "bigru":
        return table_of_vocabulary(Vocabulary.load(CAPTIONS / "vocabulary.json"))
    table = table_of_tokenizer(load_bert(BERT)[1])
    if table.mask is None and encoder == "bert_finetune":
        raise UserError(f"{BERT}: no mask token, which train.word_dropout_kind words needs; use tokens")
    return table


def relevance_of(dataset: Dataset, val: Split) -> np.ndarray:
    """ROUGE-L of the validation captions with the validation images: (captions, images)."""
    references = [dataset.records[row].captions for row in val.images]
    return rouge_l_relevance([caption for texts in references for caption in texts], references)


def text_of(params: Params, words: FeatureStore, table: TokenTable | None) -> tuple[dict[str, Any], int]:
    """Settings of the text encoder, and the size of the token features it makes."""
    if params.captions.encoder == "bigru":
        rows = len(Vocabulary.load(CAPTIONS / "vocabulary.json")) if table is None else len(table.continues)
        return {"vocabulary": rows, **params.bigru.model_dump()}, params.bigru.hidden
    if params.captions.encoder == "bert_finetune":
        config = read_bert_config(BERT)
        return {"config": config.to_diff_dict()}, config.hidden_size
    return {}, words.arrays["features"][1][0]


@exits_cleanly
def main() -> None:
    started = time.monotonic()
    params = load_params()
    dataset, regions, words = read_dataset(DATASET), FeatureStore(REGIONS), FeatureStore(CAPTIONS)
    check_boxes(params.model, params.model_settings.model_dump(), regions)
    processes = start_processes(params.train.devices, module="stages.train")
    if processes is None:  # others were started and have done the work
        return
    settings = run_settings(params)
    inputs = [DATASET / "manifest.json", REGIONS / "index.json", CAPTIONS / "index.json"]
    key = content_key(settings, inputs)
    work = work_folder("train", {"key": key}) if processes.first else None

    seed_everything(params.seed)
    encoder, table = params.captions.encoder, token_table(params)
    text_settings, word_size = text_of(params, words, table)
    sizes = InputSizes(regions=regions.arrays["features"][1][0], words=word_size)
    model = build_model(params.model, params.model_settings, sizes, partial(build_text, encoder, text_settings))
    model = model.to(processes.device)
    val = first_images(require_split(dataset, "val", regions.left_out), params.train.validation_images)
    data = TrainingData(
        regions,
        words,
        caption_images(dataset),
        require_split(dataset, "train", regions.left_out),
        val,
        token_table=table,
        relevance=relevance_of(dataset, val) if params.train.best == "ndcg" else None,
    )
    text_lr = params.bert_finetune.lr_factor if encoder == "bert_finetune" else 1.0
    train = partial(
        Trainer,
        data=data,
        settings=params.train,
        loss=params.loss,
        seed=params.seed,
        text_lr=text_lr,
        processes=processes,
    )
    trainers = []
    trainable = next(model.parameters(), None) is not None
    for number, member in enumerate(model.members() if trainable else []):
        load_pretrained(member.text, BERT)
        trainers.append(train(member, resume=work and work / f"member{number}"))
    run_id = trainers[0].state.run_id if trainable else None
    with open_training_run(key, settings, run_id=run_id, enabled=processes.first) as tracker:
        if trainable:
            trainers[0].state.run_id = tracker.run_id
        tracker.log_dataset(dataset.name, digest=content_key({}, inputs[:1]), context="training")
        tracker.log_dataset(f"{dataset.name}-regions", digest=regions.digest, context="training")
        tracker.log_dataset(f"{dataset.name}-captions", digest=words.digest, context="training")
        history = (
            fit_in_turn(trainers, tracker.log_metrics)
            if trainable
            else untrained_history(model, data, params.train.batch_size, tracker.log_metrics)
        )
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
    out.mkdir(exist_ok=True)
    config = MatcherConfig(params.model, params.model_settings.model_dump(), sizes, key, encoder, text_settings)
    save_matcher(out, model, config)
    with (out / "history.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(history[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)
    publish(out, MATCHER, work)
    print(
        f"train: {params.model} ({parameters:,} parameters), validation rsum {rsum:.1f}, "
        f"{history[-1]['epoch']} epochs, {minutes:.1f} minutes, in {MATCHER}"
    )


if __name__ == "__main__":
    main()
