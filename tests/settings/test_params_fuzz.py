"""Whatever stands in params.yaml: it is taken, or refused in one line; what is taken, models can be built from."""

import copy
import datetime
import math
import typing
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from crossmodal.errors import UserError
from crossmodal.losses.registry import build_loss
from crossmodal.models.base import InputSizes
from crossmodal.models.registry import MODELS, build_model
from crossmodal.settings.derived import run_settings
from crossmodal.settings.params import Params, load_params
from crossmodal.settings.training import Loss
from crossmodal.tracking.run import flatten
from crossmodal.workspace import content_key

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "params.yaml").read_text()
SHIPPED = yaml.safe_load(TEXT)
KEYS = [(name,) for name in SHIPPED] + [
    (section, key) for section, values in SHIPPED.items() if isinstance(values, dict) for key in values
]
FUZZ = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,  # the same cases on every machine
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 600),
    st.integers(),
    st.sampled_from([2**31, 2**63, 10**30, 10**400, -(10**400)]),
    st.floats(),
    st.floats(0, 1),
    st.text(max_size=20),
    st.sampled_from(
        ["1", "1e-3", "true", "", "null", "tern", "fp32", "auto", "clip", "precomputed", "a\nb", "x" * 9999]
    ),
    st.just(datetime.date(2024, 1, 1)),
    st.binary(max_size=4),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3),
    max_leaves=5,
)


def load(path):
    """What load_params made of a file: settings, or None where it refused it as it is meant to."""
    try:
        return load_params(path)
    except UserError as error:
        message = str(error)
        assert message.startswith(f"{path}: ")
        assert "\n" not in message
        assert len(message) < len(str(path)) + 600
        return None


def check_use(params):
    """What stages do with settings before any work: hash them, log them, look up what ``auto`` stands for."""
    settings = run_settings(params)
    assert len(content_key(settings)) == 16
    assert all(isinstance(value, str) for value in flatten(settings).values())
    numbers = [value for section in settings.values() if isinstance(section, dict) for value in section.values()]
    assert all(math.isfinite(value) for value in numbers if isinstance(value, float))


@FUZZ
@given(
    changes=st.lists(
        st.tuples(st.sampled_from(KEYS), st.sampled_from(["set", "set", "set", "remove", "rename", "add"]), VALUES),
        min_size=1,
        max_size=3,
    )
)
def test_any_value_is_taken_or_refused(tmp_path, changes):
    content = copy.deepcopy(SHIPPED)
    for (*parents, last), action, value in changes:
        section = content
        for parent in parents:
            section = section.get(parent) if isinstance(section, dict) else None
        if not isinstance(section, dict) or last not in section:
            continue
        if action == "set":
            section[last] = value
        elif action == "remove":
            del section[last]
        elif action == "rename":
            section[f"{last}s"] = section.pop(last)
        else:
            section[f"{last}_"] = value
    path = tmp_path / "params.yaml"
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(content, file, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), allow_unicode=True)
    params = load(path)
    if params is not None:
        check_use(params)


@pytest.mark.parametrize("value", ["2024-13-45", "9" * 5000, "[" * 1000, ".nan", ".inf", "1e999"])
def test_odd_scalars_are_refused(tmp_path, value):
    path = tmp_path / "params.yaml"
    for key, shipped in (("epochs", "24"), ("lr", "2.0e-3")):
        before, after = TEXT.split("\ntrain:\n")
        replaced = after.replace(f"  {key}: {shipped}", f"  {key}: {value}", 1)
        assert replaced != after
        path.write_text(f"{before}\ntrain:\n{replaced}")
        if not (key == "lr" and value == "2147483648"):  # a rate may be as high
            assert load(path) is None


def values_of(annotation):
    """Small values of a field's type, right and wrong ones of its range."""
    if typing.get_origin(annotation) is typing.Literal:
        return st.sampled_from(typing.get_args(annotation))
    return {
        bool: st.booleans(),
        int: st.integers(0, 12),
        float: st.one_of(st.floats(0, 1), st.floats(0, 1e4), st.just(1e30)),
    }.get(annotation, st.none())


def draw_section(data, section, shipped):
    """The section with some of its fields drawn anew; None where params.yaml would be refused."""
    fields = section.model_fields
    chosen = data.draw(st.lists(st.sampled_from(sorted(fields)), unique=True))
    values = {name: data.draw(values_of(fields[name].annotation), label=name) for name in chosen}
    try:
        return section.model_validate(shipped | {name: value for name, value in values.items() if value is not None})
    except ValidationError:
        return None


@settings(FUZZ, max_examples=15)
@given(data=st.data())
@pytest.mark.parametrize("name", sorted(set(MODELS) - {"clip"}))  # which has weights of its own and no settings
def test_models_can_be_built_from_what_is_taken(batch, name, data):
    small = {"embed_dim": 8, "visual_dim": 8, "feed_forward": 8, "sim_dim": 4, "word_dim": 8, "mlp_hidden": 4}
    section = draw_section(
        data,
        Params.model_fields[name].annotation,
        SHIPPED[name] | {key: value for key, value in small.items() if key in SHIPPED[name]},
    )
    if section is None:
        return
    regions, words = batch
    torch.manual_seed(0)
    try:
        model = build_model(name, section, InputSizes(regions=10, words=8)).eval()
    except UserError as error:
        assert name in str(error) and "\n" not in str(error)
        return
    with torch.inference_mode():
        similarity = model.similarity(model.encode_regions(regions), model.encode_text(words))
    assert similarity.shape == (4, 4)


@settings(FUZZ, max_examples=40)
@given(data=st.data())
def test_losses_can_be_built_from_what_is_taken(data):
    section = draw_section(data, Loss, SHIPPED["loss"])
    if section is None:
        return
    try:
        loss = build_loss(section, 4)
    except UserError as error:
        assert "loss" in str(error) and str(error).count("\n") <= 1
        return
    if not loss.takes_vectors:
        similarity = torch.linspace(-1, 1, 16).reshape(4, 4).requires_grad_()
        captions = {"captions": torch.arange(4)} if loss.takes_captions else {}
        loss(similarity, torch.arange(4), 0, **captions).backward()
        assert similarity.grad.isfinite().all()
