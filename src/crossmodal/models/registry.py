"""Models by the name that ``model:`` in params.yaml takes."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from crossmodal.files.checked_yaml import Section
from crossmodal.models.base import InputSizes, Matcher, Stored
from crossmodal.models.chan import ChanMatcher
from crossmodal.models.clip import ClipMatcher
from crossmodal.models.esa import EsaMatcher
from crossmodal.models.imram import ImramMatcher
from crossmodal.models.scan import ScanMatcher
from crossmodal.models.sgraf.model import sgraf
from crossmodal.models.teran import TeranMatcher
from crossmodal.models.tern import TernMatcher
from crossmodal.models.vse_infty import VseInftyMatcher
from crossmodal.models.vsepp import VseppMatcher
from crossmodal.models.vsrn import VsrnMatcher
from crossmodal.models.xdim import XdimMatcher

MODELS: dict[str, Callable[[Section, InputSizes], Matcher]] = {
    "tern": TernMatcher,
    "teran": TeranMatcher,
    "vsepp": VseppMatcher,
    "vse_infty": VseInftyMatcher,
    "scan": ScanMatcher,
    "imram": ImramMatcher,
    "sgraf": sgraf,
    "vsrn": VsrnMatcher,
    "esa": EsaMatcher,
    "xdim": XdimMatcher,
    "chan": ChanMatcher,
    "clip": ClipMatcher,
}


def build_model(
    name: str,
    settings: Section,
    sizes: InputSizes,
    make_text: Callable[[], nn.Module] = Stored,
    make_image: Callable[[], nn.Module] = Stored,
) -> Matcher:
    """A freshly initialised model; weights depend on torch's seed.

    ``make_text``, ``make_image``: each member's text encoder and image network.
    """
    model = MODELS[name](settings, sizes)
    for member in model.members():
        member.text, member.image = make_text(), make_image()
    return model
