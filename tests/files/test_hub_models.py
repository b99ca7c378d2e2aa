"""Folders of models from elsewhere: no code of theirs runs, and no single change of a config ends in a traceback."""

import io
import json
import shutil

import numpy as np
import pytest
import torch
from assertions import raises_naming
from safetensors.torch import load_file, save_file
from single_changes import changed, single_changes
from transformers import BertConfig, BertModel, CLIPConfig, CLIPImageProcessor, CLIPModel

from crossmodal.captions.bert import fetch_bert, load_bert
from crossmodal.captions.fit import fit_tokenizer
from crossmodal.errors import UserError
from crossmodal.published.dual_encoder import fetch_half, load_half

OTHER_TYPES = (None, True, -1, 2**40, 1.5, "text", [], {"a": 1}, 0)
SIZES = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 12}


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    tokenizer = fit_tokenizer(["a red circle", "a blue ring"], 60)
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=20, type_vocab_size=2, **SIZES)
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    tokenizer = fit_tokenizer(["a red circle", "a blue ring"], 60)
    torch.manual_seed(0)
    text = {
        **SIZES,
        "projection_dim": 6,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 12,
        "eos_token_id": 3,
    }
    vision = {**SIZES, "projection_dim": 6, "image_size": 16, "patch_size": 8}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=6)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=16).save_pretrained(folder)
    return folder


@pytest.fixture
def copy(tmp_path):
    def _copy(folder):
        return shutil.copytree(folder, tmp_path / "copy", dirs_exist_ok=True)

    return _copy


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize("read", ["load_bert", "fetch_bert", "fetch_half"])
def test_code_of_a_folder_is_not_run(bert, clip, copy, tmp_path, monkeypatch, read):
    """Not though whoever runs it says yes to everything."""
    folder, mark = copy(clip if read == "fetch_half" else bert), tmp_path / "mark"
    classes = {"AutoConfig": "evil.C", "AutoModel": "evil.M", "AutoTokenizer": ["evil.T", None]}
    for name in ("config.json", "tokenizer_config.json", "preprocessor_config.json"):
        if (folder / name).is_file():
            change(folder / name, auto_map={**classes, "AutoImageProcessor": "evil.P"})
    (folder / "evil.py").write_text(f"import pathlib\npathlib.Path({str(mark)!r}).touch()\nC = M = T = P = None\n")
    monkeypatch.setattr("sys.stdin", io.StringIO("yes\n" * 20))
    (tmp_path / "out").mkdir()
    try:
        if read == "load_bert":
            load_bert(folder)
        elif read == "fetch_bert":
            fetch_bert(str(folder), 0, tmp_path / "out")
        else:
            fetch_half(str(folder), "text", tmp_path / "out")
    except UserError:
        pass
    assert not mark.exists()


def test_the_weights_are_taken_as_they_are(bert):
    model, tokenizer = load_bert(bert)
    for name, value in load_file(bert / "model.safetensors").items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=0, atol=0)
    assert tokenizer("a red circle")["input_ids"][0] == tokenizer.cls_token_id


@pytest.mark.parametrize(
    ("spoil", "named"),
    [(lambda v: v.to(torch.int8), ["I8", "F32"]), (lambda v: v * float("nan"), ["finite"]), (None, ["lacks"])],
)
def test_weights_that_are_none(bert, copy, spoil, named):
    folder = copy(bert)
    weights = load_file(folder / "model.safetensors")
    name = "encoder.layer.0.output.dense.weight"
    value = weights.pop(name)
    if spoil:
        weights[name] = spoil(value)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with raises_naming(folder / "model.safetensors", repr(name), *named):
        load_bert(folder)


@pytest.mark.parametrize("half", [None, "vision", "text"])
def test_a_source_that_lacks_weights_is_not_copied(bert, clip, copy, tmp_path, half):
    """What is missing would be drawn at random, and copied as if it had been there."""
    folder, out = copy(clip if half else bert), tmp_path / "out"
    weights = load_file(folder / "model.safetensors")
    names = {None: "encoder.layer.0.attention.self.query.weight", "vision": "visual_projection.weight"}
    name = names.get(half, "text_projection.weight")
    del weights[name]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    out.mkdir()
    with raises_naming("clip.source" if half else "bert.source", folder, repr(name)):
        fetch_half(str(folder), half, out) if half else fetch_bert(str(folder), 0, out)
    assert not list(out.iterdir())


def try_single_changes(path, read, *, every):
    """How many of every so many changes of a JSON file are refused; all others are read without an error."""
    good, refused = json.loads(path.read_text()), 0
    cases = [(place, value) for place in single_changes(good) for value in OTHER_TYPES]
    for place, value in cases[::every]:
        path.write_text(json.dumps(changed(good, place, value)))
        try:
            read()
        except UserError as error:
            refused += 1
            assert "\n" not in str(error) and len(str(error)) < 600, (place, value)
    path.write_text(json.dumps(good))
    return refused


def test_single_changes_of_berts_config(bert, copy):
    folder = copy(bert)
    assert try_single_changes(folder / "config.json", lambda: load_bert(folder), every=2) > 60


def test_single_changes_of_berts_tokenizer(bert, copy):
    folder = copy(bert)
    assert try_single_changes(folder / "tokenizer.json", lambda: load_bert(folder), every=11) > 20


@pytest.mark.parametrize("half", ["text", "vision"])
def test_single_changes_of_a_half(clip, copy, tmp_path, half):
    folder = tmp_path / "half"
    folder.mkdir()
    fetch_half(str(clip), half, folder)
    model, _ = load_half(folder, half, "bert")
    assert sum(value.numel() for value in model.parameters()) > 100
    for name in ("config.json", "preprocessor_config.json" if half == "vision" else "tokenizer_config.json"):
        try_single_changes(folder / name, lambda: load_half(folder, half, "bert"), every=3)
    again, _ = load_half(folder, half, "bert")
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(again.state_dict()[name].numpy(), value.numpy())
