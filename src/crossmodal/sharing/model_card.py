"""The card of a trained matcher, README.md of its folder: data, licence, metrics, seeds, settings, how to load it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from crossmodal.captions.encoders import training_files
from crossmodal.datasets.records import Dataset, read_dataset
from crossmodal.files.checked_json import read_json
from crossmodal.files.checked_yaml import dotted
from crossmodal.models.checkpoint import MatcherConfig, read_config
from crossmodal.retrieval.gallery import is_made_of, read_info
from crossmodal.serving.session import Folders
from crossmodal.settings.derived import bert_source, region_backend, run_settings
from crossmodal.settings.params import Params
from crossmodal.training.inputs import training_inputs
from crossmodal.workspace import content_key

_FLICKR = (
    "other",
    "The photographs are their photographers', under Flickr's terms of use; the dataset is given out for "
    "non-commercial research and education, and weights trained on it are meant for the same.",
)
# License of the hub, and the sentence about data, by dataset. A folder's owner has to write both.
LICENCES = {
    "scenes": ("mit", "The pictures and captions are rendered by the pipeline and free; so are these weights (MIT)."),
    "flickr8k": _FLICKR,
    "flickr30k": _FLICKR,
    "coco": ("other", "The photographs are under Flickr's terms of use, the captions under CC BY 4.0."),
}
TO_DO = "TO DO: say here whose the photographs are, and what may be done with weights that were trained on them."
_OWN = ("other", TO_DO)
_RECALLS = ("r1", "r5", "r10", "medr")


@dataclass(frozen=True)
class Known:
    """What a card says besides the matcher's config.

    metrics: of the test split, as metrics/test.json; None where results/evaluation is not of this matcher and
        dataset.
    settings: that it was trained by, nested; None where params.yaml is no longer, or never was, what trained it.
    """

    dataset: Dataset
    metrics: dict[str, Any] | None
    settings: dict[str, Any] | None


def known_of(params: Params, folders: Folders, config: MatcherConfig) -> Known:
    """What the pipeline's outs say of a matcher.

    Raises:
        UserError: the dataset or the metrics are damaged.
    """
    metrics = folders.evaluation / "metrics.json"
    dataset, evaluated = read_dataset(folders.dataset), False
    if metrics.is_file():
        info = read_info(folders.evaluation)
        evaluated = info.key == config.key and is_made_of(info, dataset)
    settings = run_settings(params)
    outs = (folders.dataset, folders.regions, folders.captions, folders.detector)
    inputs = training_inputs(params, *outs, training_files(params, folders.bert, folders.captions))
    trained = all(path.is_file() for path in inputs) and content_key(settings, inputs) == config.key
    return Known(
        dataset,
        read_json(metrics, dict) if evaluated else None,
        without_paths(settings) if trained else None,
    )


def without_paths(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings without this machine's folders: of an absolute path, or one below ``~``, its last part."""
    kept = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            kept[name] = without_paths(value)
        else:
            kept[name] = _without_path(value)
    return kept


def _without_path(value: Any) -> Any:
    return Path(value).name if isinstance(value, str) and value.startswith(("/", "~")) else value


def model_card(params: Params, config: MatcherConfig, known: Known, load: str, *, header: bool = True) -> str:
    """The card, in Markdown; of a matcher whose training is not known it names no training data and no licence.

    Args:
        load: how to load the model, a sentence and indented code. header: the hub's data in YAML at the top.
    """
    dataset, settings = known.dataset, known.settings
    licence, rights = _OWN if settings is None else LICENCES.get(dataset.name, _OWN)
    name = f"crossmodal-{config.model}" if settings is None else f"crossmodal-{config.model}-{dataset.name}"
    seeds = {key: value for key, value in dotted(settings or {}).items() if key.split(".")[-1] == "seed"}
    card = _environment().get_template("model_card.md.j2")
    counts = {split: (len(dataset.rows(split)), _captions(dataset, split)) for split in ("train", "val", "test")}
    return card.render(
        header=_header(name, licence, config, known) if header else "",
        name=name,
        config=config,
        dataset=dataset,
        counts=counts,
        backend=region_backend(params),
        bert=_without_path(bert_source(params)),
        rights=rights,
        metrics=known.metrics,
        recalls=_RECALLS,
        seeds=", ".join(f"`{key}: {value}`" for key, value in seeds.items()),
        settings=yaml.safe_dump(settings or {config.model: config.settings}, sort_keys=False),
        trained=settings is not None,
        load=load,
    )


def card_of_folders(params: Params, folders: Folders, load: str, *, header: bool = True) -> tuple[str, Known]:
    """The card of ``folders.matcher``, and what it is made of.

    Raises:
        UserError: an out is missing or damaged.
    """
    config = read_config(folders.matcher)
    known = known_of(params, folders, config)
    return model_card(params, config, known, load, header=header), known


def _captions(dataset: Dataset, split: str) -> int:
    return sum(len(dataset.records[row].captions) for row in dataset.rows(split))


def _header(name: str, licence: str, config: MatcherConfig, known: Known) -> str:
    """The hub's data: licence, tags and, where the matcher was evaluated, its recalls as results."""
    data: dict[str, Any] = {
        "license": licence,
        "library_name": "crossmodal",
        "tags": ["image-text-retrieval", "region-features", config.model],
    }
    if known.settings is not None:
        data["tags"].append(known.dataset.name)  # that it was trained on
    if known.metrics is not None:
        ways = (("i2t", "image to text"), ("t2i", "text to image"))
        found = [
            {
                "type": f"{way}_{metric}",
                "name": f"{title} R@{metric[1:]}",
                "value": round(known.metrics[way][metric], 2),
            }
            for way, title in ways
            for metric in ("r1", "r5", "r10")
        ]
        found.append({"type": "rsum", "name": "rsum", "value": round(known.metrics["rsum"], 2)})
        kind = {"type": "image-text-retrieval", "name": "Image-text retrieval"}
        of = {"type": known.dataset.name, "name": known.dataset.name, "split": "test"}
        data["model-index"] = [{"name": name, "results": [{"task": kind, "dataset": of, "metrics": found}]}]
    return yaml.safe_dump(data, sort_keys=False)


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("crossmodal.sharing", "templates"),
        undefined=StrictUndefined,
        autoescape=False,  # Markdown
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
