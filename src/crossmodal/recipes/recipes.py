"""reproduction.yaml: published results, the settings that reproduce them, and the results obtained.

A recipe is a set of settings of params.yaml. Results are R@1, R@5, R@10 both ways and their sum, over all test images
(``all``) or as the mean of five folds of 1,000 images (``folds``, COCO 1K). Of some models R@1 and R@5 alone are
published.
"""

from __future__ import annotations

import datetime
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from crossmodal.errors import UserError
from crossmodal.files.checked_json import read_json
from crossmodal.files.checked_yaml import Section, dotted, first_problem, read_yaml
from crossmodal.settings.params import Params, load_params

FILE = Path("reproduction.yaml")
PARAMS = Path("params.yaml")
METRICS = Path("metrics/test.json")
TEST_IMAGES = {"Flickr30k": 1000, "COCO": 5000, "Flickr8k": 1000}
ROUNDING = 0.15  # published recalls have one decimal, of rsum too

Percent = Annotated[float, Field(ge=0, le=100)]
Protocol = Literal["all", "folds"]
Settings = dict[str, Any]


class Recalls(Section):
    """R@1, R@5, R@10 in percent, both ways, and the sum of the six."""

    i2t: tuple[Percent, Percent, Percent]
    t2i: tuple[Percent, Percent, Percent]
    rsum: float

    @model_validator(mode="after")
    def _adds_up(self) -> Recalls:
        _check_sum(self)
        return self


class PublishedRecalls(Section):
    """R@1, R@5, R@10 in percent, both ways, their sum, and their source; or R@1 and R@5 alone, without rsum.

    ``ensemble``: of two models with averaged similarities.
    """

    i2t: tuple[Percent, Percent, Percent] | tuple[Percent, Percent]
    t2i: tuple[Percent, Percent, Percent] | tuple[Percent, Percent]
    rsum: float | None = None
    source: str
    ensemble: bool = False

    @model_validator(mode="after")
    def _adds_up(self) -> PublishedRecalls:
        if len(self.i2t) != len(self.t2i):
            raise ValueError(f"i2t has {len(self.i2t)} recalls, t2i {len(self.t2i)}")
        if (self.rsum is None) != (len(self.i2t) == 2):
            raise ValueError("rsum is the sum of six recalls: given with R@1, R@5 and R@10, not with R@1 and R@5 alone")
        if self.rsum is not None:
            _check_sum(self)
        return self


def total(recalls: Recalls | PublishedRecalls, ranks: int) -> float:
    """rsum, or with ``ranks`` 2 the sum of R@1 and R@5 both ways."""
    return recalls.rsum if ranks == 3 else sum((*recalls.i2t[:ranks], *recalls.t2i[:ranks]))


class PublishedPointing(Section):
    """Pointing accuracy in percent (``pointing.alignment.centre``) with its source."""

    centre: Percent
    source: str


class Ours(Section):
    """A run of a recipe: recalls, commit of code and params.yaml, date, machine, minutes."""

    figures: dict[Protocol, Recalls]
    commit: Annotated[str, Field(pattern="^[0-9a-f]{7,40}$")]
    date: datetime.date
    machine: str
    minutes: Annotated[float, Field(gt=0)]


class Overlap(Section):
    """Captions of the test split that a recipe's encoders have read in training, case and punctuation aside.

    captions, of: how many, and of how many in the split. read: the captions the encoders were trained on before the
    recipe trains them.
    """

    captions: Annotated[int, Field(ge=0)]
    of: Annotated[int, Field(gt=0)]
    read: str

    @model_validator(mode="after")
    def _is_a_share(self) -> Overlap:
        if self.captions > self.of:
            raise ValueError(f"{self.captions} captions of {self.of}")
        return self

    def __str__(self) -> str:
        return f"{self.captions:,} of {self.of:,}"


class Recipe(Section):
    """A row: model and data, settings, published recalls and ours.

    ``settings`` are nested as in params.yaml, ``parts`` included. ``needs``: keys that the user must set, such as the
    path of a file. ``overlap``: None where it was not counted.
    """

    model: str
    dataset: Literal["Flickr30k", "COCO", "Flickr8k"]
    features: str
    words: str
    needs: tuple[str, ...] = ()
    settings: Settings
    note: str | None = None
    overlap: Overlap | None = None
    published: dict[Protocol, PublishedRecalls] = Field(default_factory=dict)
    pointing: PublishedPointing | None = None
    ours: Ours | None

    @model_validator(mode="after")
    def _has_recalls(self) -> Recipe:
        if not self.published and self.pointing is None and self.ours is None:
            raise ValueError("neither published recalls nor ours")
        return self

    def overrides(self) -> list[str]:
        """The settings as ``dvc exp run -S`` takes them: section.key=value."""
        return [
            f"{'++' if key.count('.') > 1 else ''}{key}={_word(value)}" for key, value in dotted(self.settings).items()
        ]

    @property
    def expected(self) -> Mapping[Protocol, Recalls | PublishedRecalls]:
        """The recalls a run is compared with: the published ones, or those of the recorded run."""
        return self.published or (self.ours.figures if self.ours else {})


class Reproduction(Section):
    """The whole of reproduction.yaml."""

    tolerance: Annotated[float, Field(ge=0)]
    sources: dict[str, str]
    recipes: dict[str, Recipe]
    flickr8k: dict[str, Recipe]

    @model_validator(mode="after")
    def _sources_are_named(self) -> Reproduction:
        for name, recipe in self.all_recipes.items():
            for figures in (*recipe.published.values(), *filter(None, [recipe.pointing])):
                if figures.source not in self.sources:
                    raise ValueError(f"{name}: source {figures.source!r} is not one of {', '.join(self.sources)}")
        if twice := set(self.recipes) & set(self.flickr8k):
            raise ValueError(f"{min(twice)} is in both recipes and flickr8k")
        return self

    @property
    def all_recipes(self) -> dict[str, Recipe]:
        """Recipes by name, in the order of the file."""
        return self.recipes | self.flickr8k

    def recipe(self, name: str) -> Recipe:
        """The recipe of a name; a UserError if there is none."""
        if name not in self.all_recipes:
            raise UserError(f"{FILE}: no recipe {name!r}; `crossmodal recipe` lists them")
        return self.all_recipes[name]


def read_reproduction(path: Path = FILE) -> Reproduction:
    """Read and check reproduction.yaml; parts are merged into the settings of the recipes that name them.

    Raises:
        UserError: file missing or not YAML; unknown key or part, wrong type, recalls that do not add up.
    """
    content = read_yaml(path)
    try:
        parts = content.pop("parts")
        for section in ("recipes", "flickr8k"):
            for name, row in content[section].items():
                row["settings"] = _whole_settings(f"{path}: {section}.{name}", row, parts)
        return Reproduction.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{path}: {first_problem(error)}") from None
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{path}: expected tolerance, sources, parts, recipes, flickr8k ({error!r})") from None


def read_recalls(dataset: str, path: Path = METRICS) -> dict[Protocol, Recalls]:
    """The recalls in metrics/test.json, over all test images and, if there are any, of folds.

    Raises:
        UserError: the file is missing or holds no recalls, or those of another number of images than ``dataset``'s test
            split has.
    """
    try:
        metrics = read_json(path, dict, nan=True, advice="the report stage writes it")
        images = metrics["images"]
        if images != TEST_IMAGES[dataset]:
            raise UserError(f"{path}: of {images} test images; recalls of {dataset} are of {TEST_IMAGES[dataset]}")
        return {
            protocol: Recalls(
                **{way: [round(part[way][f"r{k}"], 2) for k in (1, 5, 10)] for way in ("i2t", "t2i")},
                rsum=round(part["rsum"], 2),
            )
            for protocol, part in (("all", metrics), ("folds", metrics.get("folds")))
            if part
        }
    except ValidationError as error:
        raise UserError(f"{path}: {first_problem(error)}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: expected recalls i2t, t2i and rsum ({' '.join(str(error).split())})") from None


def read_pointing(path: Path = METRICS) -> float | None:
    """Pointing accuracy in metrics/test.json, ``pointing.alignment.centre``; None where it was not measured.

    Raises:
        UserError: the file is missing, or its pointing is not as the report stage writes it.
    """
    pointing = read_json(path, dict, nan=True, advice="the report stage writes it").get("pointing", {})
    try:
        return float(pointing["alignment"]["centre"]) if "alignment" in pointing else None
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: pointing.alignment: expected a number centre ({error!r})") from None


def resolved(params: str, overrides: list[str], name: str = PARAMS.name) -> Params:
    """Settings of the text of params.yaml with overrides applied by DVC, as ``dvc exp run -S`` does.

    Args:
        name: of the file, for messages.

    Raises:
        UserError: an override, or the result, is not valid.
    """
    from dvc.exceptions import DvcException
    from dvc.utils.hydra import apply_overrides

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / PARAMS.name
        path.write_text(params, encoding="utf-8")
        try:
            apply_overrides(path, overrides)
        except DvcException as error:
            reason = error.__cause__ or error
            raise UserError(f"-S: {' '.join(str(reason).split())}") from None
        try:
            return load_params(path)
        except UserError as error:
            raise UserError(str(error).replace(str(path), name)) from None


def _whole_settings(name: str, row: Settings, parts: Mapping[str, Settings]) -> Settings:
    """The settings of a row's parts, later ones over earlier ones, then its own."""
    settings: Settings = {}
    for part in row.pop("parts", ()):
        if part not in parts:
            raise UserError(f"{name}: no part {part!r}; there are {', '.join(parts)}")
        settings = _over(settings, parts[part])
    return _over(settings, row.get("settings", {}))


def _over(settings: Settings, others: Settings) -> Settings:
    result = dict(settings)
    for key, value in others.items():
        result[key] = _over(result.get(key, {}), value) if isinstance(value, dict) else value
    return result


def _check_sum(recalls: Recalls | PublishedRecalls) -> None:
    found = sum((*recalls.i2t, *recalls.t2i))
    if abs(found - recalls.rsum) > ROUNDING:
        raise ValueError(f"the six recalls add up to {found:.1f}, rsum is {recalls.rsum}")


def _word(value: Any) -> str:
    """A value without spaces: one word for a shell."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
