"""Models by the name that ``model:`` in params.yaml takes."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from crossmodal.models.base import InputSizes, Matcher, StoredFeatures
from crossmodal.models.tern import TernMatcher
from crossmodal.models.vsepp import VseppMatcher
from crossmodal.params import Section

MODELS: dict[str, Callable[[Section, InputSizes], Matcher]] = {
    "tern": TernMatcher,
    "vsepp": VseppMatcher,
}


def build_model(
    name: str, settings: Section, sizes: InputSizes, make_text: Callable[[], nn.Module] = StoredFeatures
) -> Matcher:
    """A freshly initialised model; weights depend on torch's seed. ``make_text``: each member's text encoder."""
    model = MODELS[name](settings, sizes)
    for member in model.members():
        member.text = make_text()
    return model
