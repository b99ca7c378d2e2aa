"""Whether the feature stores hold what a matcher reads: certain after training, not after an import."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crossmodal.errors import UserError
from crossmodal.features.store import FeatureStore
from crossmodal.models.checkpoint import MatcherConfig
from crossmodal.models.text import TRAINED


def check_inputs(matcher: Path, config: MatcherConfig, regions: FeatureStore, words: FeatureStore) -> None:
    """Compare feature sizes, the kind of token features, and the vocabulary of an imported matcher.

    Args:
        matcher: folder of the matcher, with a ``vocabulary.json`` if it was imported with one.

    Raises:
        UserError: something differs: scores would be wrong, or none.
    """
    check_size(f"{regions.folder}: region", regions.arrays["features"][1][0], matcher, config.stored_regions)
    check_boxes(config.model, config.settings, regions)
    stored = config.encoder not in TRAINED  # features; ids for an encoder that is trained with the matcher
    if ("features" in words.arrays) != stored:
        found = "features" if "features" in words.arrays else "token ids"
        raise UserError(f"{words.folder}: holds {found}, {matcher} was made for captions.encoder {config.encoder}")
    if stored:
        check_size(f"{words.folder}: token", words.arrays["features"][1][0], matcher, config.sizes.words)
    own, stored = matcher / "vocabulary.json", words.folder / "vocabulary.json"
    if own.is_file() and (not stored.is_file() or own.read_bytes() != stored.read_bytes()):
        raise UserError(
            f"{words.folder}: token ids of another vocabulary than {matcher}'s; "
            f"run the captions stage with captions.vocabulary set to its vocabulary.json"
        )


def check_extractor(detector: Path, extractor: Any, matcher: Path, config: MatcherConfig) -> None:
    """See that photographs are read as the matcher takes them.

    Args:
        extractor: a RegionExtractor, which ``detector`` holds.

    Raises:
        UserError: its regions are of another size, or of a backbone that is cut elsewhere.
    """
    check_size(f"{detector}: region", extractor.feature_dim, matcher, config.stored_regions)
    cut = getattr(extractor, "cut", None)  # of a grid backbone
    found, expected = cut.trained if cut else 0, config.image["cut"]["trained"] if config.image else 0
    if found != expected:
        raise UserError(f"{detector}: made for grid.trained {found}, {matcher} for {expected}")


def check_size(name: str, found: int, matcher: Path, expected: int) -> None:
    """Raise a UserError where features, of ``name``, have another size than the matcher takes."""
    if found != expected:
        raise UserError(f"{name} features of {found}, {matcher} takes {expected}")


def check_boxes(model: str, settings: Mapping[str, Any], regions: FeatureStore) -> None:
    """Precomputed features may be without boxes, which a model that uses positions cannot do without.

    Raises:
        UserError: the model's ``positions`` need boxes, the store has none.
    """
    positions = settings.get("positions", "none")
    if positions != "none" and "boxes" not in regions.arrays:
        raise UserError(
            f"{regions.folder}: holds no boxes, which {model}.positions {positions} needs; set {model}.positions=none"
        )
