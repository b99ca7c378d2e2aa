"""Matcher folders with other types, sizes and numbers than were saved: one line, little memory, nothing believed."""

import json
import resource
from pathlib import Path

import pytest
import torch
from assertions import raises_naming
from safetensors.torch import load_file, save_file
from single_changes import changed, single_changes

from crossmodal.errors import UserError
from crossmodal.models.base import InputSizes
from crossmodal.models.checkpoint import MatcherConfig, load_matcher, save_matcher
from crossmodal.models.registry import build_model
from crossmodal.regions.fitted.network import RegionDetector, load_detector, save_detector
from crossmodal.settings.params import load_params

PARAMS = load_params(Path(__file__).resolve().parents[2] / "params.yaml")
SIZES = InputSizes(regions=10, words=8)
OTHER_TYPES = (None, True, -1, 2**40, 1.5, "text", [], {"a": 1}, 10**6)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folders of a small matcher and of a small detector, with what reads them."""
    root = tmp_path_factory.mktemp("saved")
    torch.manual_seed(0)
    sizes = {"embed_dim": 16, "visual_dim": 16, "heads": 2, "feed_forward": 16}
    settings = PARAMS.tern.model_copy(update=sizes)
    (root / "matcher").mkdir()
    model = build_model("tern", settings, SIZES)
    save_matcher(root / "matcher", model, MatcherConfig("tern", settings.model_dump(), SIZES, "key", "bert", {}))
    save_detector(root / "detector", RegionDetector(["cat"], ["red", "blue"], 8, 16))
    return {
        "matcher": (root / "matcher", lambda folder: load_matcher(folder)[0]),
        "detector": (root / "detector", load_detector),
    }


BOTH = pytest.mark.parametrize("kind", ["matcher", "detector"])


def spoiled(saved, kind, tmp_path, spoil):
    folder, read = saved[kind]
    weights = load_file(folder / "model.safetensors")
    name = max(weights, key=lambda key: weights[key].numel())
    save_file(weights | {name: spoil(weights[name])}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    return name, lambda: read(tmp_path)


@BOTH
@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda v: v.to(torch.int8), "int8"),
        (lambda v: v > 0, "bool"),
        (lambda v: v.to(torch.complex64), "complex64"),
        (lambda v: v / 0, "finite"),
        (lambda v: v.double() * 1e300, "finite"),
    ],
    ids=["int8", "bool", "complex", "infinite", "too large"],
)
def test_weights_of_another_kind(saved, kind, tmp_path, spoil, found):
    name, read = spoiled(saved, kind, tmp_path, spoil)
    with raises_naming(tmp_path / "model.safetensors", repr(name), found, "float32"):
        read()


@BOTH
def test_weights_of_half_precision_are_rounded_ones(saved, kind, tmp_path):
    name, read = spoiled(saved, kind, tmp_path, lambda v: v.half())
    expected = load_file(saved[kind][0] / "model.safetensors")[name]
    torch.testing.assert_close(read().state_dict()[name], expected.half().float(), rtol=0, atol=0)


@BOTH
def test_every_single_change_of_a_config_gives_a_line_or_the_same_weights(saved, kind, tmp_path):
    folder, read = saved[kind]
    expected = read(folder).state_dict()
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    good, refused = json.loads((folder / "config.json").read_text()), 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for place in single_changes(good):
        for value in OTHER_TYPES:
            (tmp_path / "config.json").write_text(json.dumps(changed(good, place, value)))
            try:
                found = read(tmp_path).state_dict()
            except UserError as error:
                assert "\n" not in str(error)
                refused += 1
                continue
            for name, weights in expected.items():
                torch.testing.assert_close(found[name], weights, rtol=0, atol=0)
    assert refused > 40
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes
