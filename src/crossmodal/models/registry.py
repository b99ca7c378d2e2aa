"""Models by the name that ``model:`` in params.yaml takes."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from crossmodal.models.base import InputSizes, Matcher
from crossmodal.models.tern import TernMatcher
from crossmodal.models.vsepp import VseppMatcher
from crossmodal.params import Section

MODELS: dict[str, Callable[[Section, InputSizes], Matcher]] = {
    "tern": TernMatcher,
    "vsepp": VseppMatcher,
}


def build_model(name: str, settings: Section, sizes: InputSizes, text: nn.Module | None = None) -> Matcher:
    """A freshly initialised model; weights depend on torch's seed. ``text``: see Matcher."""
    model = MODELS[name](settings, sizes)
    if text is not None:
        model.text = text
    return model
