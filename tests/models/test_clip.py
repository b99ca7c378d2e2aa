"""CLIP and SigLIP as a yardstick: the stages' embeddings are transformers' own, from both halves to the matcher."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from assertions import raises_naming
from PIL import Image
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import (
    AutoImageProcessor,
    AutoModel,
    AutoTokenizer,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
)

from crossmodal.batch import Regions, Words
from crossmodal.captions.base import store_captions
from crossmodal.captions.clip import ClipText
from crossmodal.datasets.records import read_dataset
from crossmodal.datasets.splits import split_rows
from crossmodal.evaluation.metrics import i2t_ranks, retrieval_metrics, t2i_ranks
from crossmodal.features import store
from crossmodal.features.store import FeatureStore
from crossmodal.models.base import InputSizes
from crossmodal.models.checkpoint import load_matcher
from crossmodal.models.registry import build_model
from crossmodal.published.dual_encoder import fetch_half, load_half
from crossmodal.regions.clip import ClipRegions
from crossmodal.settings.models import Clip
from stages import bert, captions, detector, download, evaluate, regions, report, train

ROOT = Path(__file__).resolve().parents[2]
KINDS = ["clip", "siglip"]
LONGEST = 12  # tokens of a text
OVERRIDES = {"model": "clip", "regions.backend": "clip", "captions.encoder": "clip", "bert.source": "clip"}
WORDS = "a red blue green circle square star ring above below left right of the two three plain striped small large"
TEXTS = ["a red circle", "The large blue star above a small green ring", "square", "a red star " * 9, "zebra"]


def tokenizer(**settings):
    """Words by number, with the start and end that both kinds read their embedding from."""
    entries = {word: number for number, word in enumerate(["<pad>", "<unk>", "<start>", "<end>", *WORDS.split()])}
    words = Tokenizer(WordLevel(entries, unk_token="<unk>"))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [(name, entries[name]) for name in ("<start>", "<end>")]
    words.post_processor = processors.TemplateProcessing(single="<start> $A <end>", special_tokens=ends)
    names = {"unk_token": "<unk>", "pad_token": "<pad>", "bos_token": "<start>", "eos_token": "<end>"}
    return PreTrainedTokenizerFast(tokenizer_object=words, **names, **settings)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Folders as a hub gives them: a small CLIP and a small SigLIP with random weights."""
    root = tmp_path_factory.mktemp("hub")
    torch.manual_seed(0)
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {"vocab_size": len(tokenizer()), "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    text = {**tower, **ids, "max_position_embeddings": LONGEST}
    vision = {**tower, "image_size": 32, "patch_size": 8}
    models = {
        "clip": CLIPModel(
            CLIPConfig(
                text_config=text | {"projection_dim": 8}, vision_config=vision | {"projection_dim": 8}, projection_dim=8
            )
        ),
        "siglip": SiglipModel(SiglipConfig(text_config=text | {"projection_size": 16}, vision_config=vision)),
    }
    preparers = {
        "clip": (
            CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
            tokenizer(),
        ),
        "siglip": (SiglipImageProcessor(size={"height": 32, "width": 32}), tokenizer(model_input_names=["input_ids"])),
    }
    for kind, model in models.items():
        for part in model.parameters():  # far enough from their start that texts and images differ
            torch.nn.init.normal_(part, std=0.3) if part.ndim > 1 else None
        model.save_pretrained(root / kind)
        for preparer in preparers[kind]:
            preparer.save_pretrained(root / kind)
    return {kind: root / kind for kind in KINDS}


@pytest.fixture
def pictures():
    """Drawn images of several sizes, one of them three pixels high."""
    rng = np.random.default_rng(0)
    found = []
    for height, width in ((50, 80), (32, 32), (120, 30), (3, 60)):
        small = rng.integers(0, 256, (1 + height // 9, 1 + width // 9, 3), dtype=np.uint8)
        found.append(np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)))
    return found


def own_images(source, images):
    """transformers' own: the whole model's image embeddings, length 1."""
    model, processor = AutoModel.from_pretrained(source).eval(), AutoImageProcessor.from_pretrained(source)
    pixels = processor(images=[Image.fromarray(image) for image in images], return_tensors="pt")
    with torch.inference_mode():
        return torch.nn.functional.normalize(model.get_image_features(**pixels).pooler_output, dim=-1).numpy()


def own_texts(source, texts):
    model, words = AutoModel.from_pretrained(source).eval(), AutoTokenizer.from_pretrained(source)
    padding = "max_length" if "siglip" in str(source) else True
    ids = words(texts, padding=padding, truncation=True, max_length=LONGEST, return_tensors="pt")
    with torch.inference_mode():
        return torch.nn.functional.normalize(model.get_text_features(**ids).pooler_output, dim=-1).numpy()


def half_of(source, half, folder):
    folder.mkdir(parents=True)
    fetch_half(str(source), half, folder)
    return folder


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("kind", KINDS)
def test_images_are_transformers_own(tmp_path, sources, pictures, kind):
    extractor = ClipRegions(half_of(sources[kind], "vision", tmp_path / "detector"))
    found = extractor(pictures)
    assert [region.features.shape for region in found] == [(1, extractor.feature_dim)] * 4
    features = np.concatenate([region.features for region in found])
    own = own_images(sources[kind], pictures)
    np.testing.assert_allclose(unit(features), own, atol=1e-4)
    assert np.abs(own[:, None] - own).max(axis=-1)[~np.eye(4, dtype=bool)].min() > 0.05  # images are told apart
    for region, image in zip(found, pictures, strict=True):
        assert region.boxes.tolist() == [[0, 0, image.shape[1], image.shape[0]]]
        np.testing.assert_allclose(extractor([image])[0].features, region.features, atol=1e-4)


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shard_rows", [2, 2048])
def test_texts_are_transformers_own(tmp_path, monkeypatch, sources, kind, shard_rows):
    monkeypatch.setattr(store, "SHARD_ROWS", shard_rows)
    half = load_half(half_of(sources[kind], "text", tmp_path / "bert"), "text", "bert")
    store_captions(ClipText(*half), TEXTS, tmp_path / "store", batch_size=3, chunk=shard_rows)
    read = FeatureStore(tmp_path / "store")
    assert read.lengths.tolist() == [1] * len(TEXTS)
    stored = np.concatenate([read.read(row, "features") for row in range(len(TEXTS))]).astype(np.float32)
    own = own_texts(sources[kind], TEXTS)
    np.testing.assert_allclose(unit(stored), own, atol=5e-4)  # float16
    np.testing.assert_allclose(own[0], own_texts(sources[kind], TEXTS[:1])[0], atol=1e-5)
    assert np.abs(own[:, None] - own).max(axis=-1)[~np.eye(5, dtype=bool)].min() > 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_text_half_before_the_store_is_exact(tmp_path, sources, kind):
    """The forward of the whole model, both sides at once, against the two halves: what the store rounds is exact."""
    model, words = load_half(half_of(sources[kind], "text", tmp_path / "bert"), "text", "bert")
    padding = "max_length" if kind == "siglip" else "longest"
    ids = words(TEXTS, padding=padding, truncation=True, max_length=LONGEST, return_tensors="pt")
    assert ("attention_mask" in ids) == (kind == "clip")  # a tokenizer's own choice survives being copied
    whole = AutoModel.from_pretrained(sources[kind]).eval()
    with torch.inference_mode():
        output = whole(**ids, pixel_values=torch.zeros(1, 3, 32, 32))
        half = model(**ids)
    embeddings = half.text_embeds if kind == "clip" else half.pooler_output
    torch.testing.assert_close(torch.nn.functional.normalize(embeddings, dim=-1), output.text_embeds, atol=1e-6, rtol=0)


def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path, monkeypatch, sources):
    monkeypatch.setattr(store, "SHARD_ROWS", 2)
    model, words = load_half(half_of(sources["clip"], "text", tmp_path / "bert"), "text", "bert")
    store_captions(ClipText(model, words), TEXTS, tmp_path / "whole", batch_size=3, chunk=2)
    cut = tmp_path / "cut"
    cut.mkdir()
    shutil.copy(tmp_path / "whole" / "00000.h5", cut)
    asked = []

    def listening(texts, **settings):
        asked.extend(texts)
        return words(texts, **settings)

    store_captions(ClipText(model, listening), TEXTS, cut, batch_size=3, chunk=2)
    assert asked == TEXTS[2:]
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (cut / path.name).read_bytes(), path.name


def run(stage, monkeypatch):
    monkeypatch.setattr(sys, "argv", [stage.__name__])
    stage.main()


def write_params(folder, changes):
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    for key, value in changes.items():
        *parents, last = key.split(".")
        section = content
        for parent in parents:
            section = section[parent]
        section[last] = value
    (folder / "params.yaml").write_text(yaml.safe_dump(content))


@pytest.mark.parametrize("kind", KINDS)
def test_stages_end_to_end(tmp_path, monkeypatch, capsys, sources, kind):
    """From rendered pictures to the report, with no training: the figures are those of transformers' embeddings."""
    monkeypatch.chdir(tmp_path)
    small = {"train": 6, "val": 12, "test": 16, "probe": 2, "size": 96, "captions": 2, "siblings": 2}
    changes = {f"scenes.{key}": value for key, value in small.items()}
    write_params(tmp_path, OVERRIDES | changes | {"clip.source": str(sources[kind])})
    for stage in (download, detector, regions, bert, captions, train, evaluate, report):
        run(stage, monkeypatch)
    said = capsys.readouterr().out
    assert "train: clip (0 parameters)" in said
    assert "0 epochs" in said

    dataset = read_dataset(Path("data/dataset"))
    images = [np.asarray(Image.open(dataset.image_path(row)).convert("RGB")) for row in range(len(dataset.records))]
    texts = [caption for record in dataset.records for caption in record.captions]
    own = own_images(sources[kind], images), own_texts(sources[kind], texts)
    stored = []
    for folder, vectors in zip(("data/regions", "data/captions"), own, strict=True):
        rows = FeatureStore(Path(folder)).padded(np.arange(len(vectors)), "features")
        stored.append(unit(rows[:, 0].astype(np.float32)))
        np.testing.assert_allclose(stored[-1], vectors, atol=5e-4)  # float16

    measured = {}
    for name in ("val", "test"):
        rows = split_rows(dataset, name)
        similarity = stored[0][rows.images] @ stored[1][rows.captions].T
        measured[name] = retrieval_metrics(
            i2t_ranks(similarity, rows.caption_image), t2i_ranks(similarity, rows.caption_image)
        )
    test = json.loads(Path("metrics/test.json").read_text())
    assert test["rsum"] == pytest.approx(measured["test"]["rsum"], abs=1e-3)
    assert json.loads(Path("metrics/validation.json").read_text())["epoch"] == 0
    history = Path("models/matcher/history.csv").read_text().splitlines()
    assert len(history) == 2
    row = dict(zip(history[0].split(","), history[1].split(","), strict=True))
    assert (row["epoch"], float(row["loss"]), float(row["lr"])) == ("0", 0, 0)
    assert float(row["rsum"]) == pytest.approx(measured["val"]["rsum"], abs=1e-3)
    assert Path("results/report/gallery.html").stat().st_size > 10_000
    matcher, config = load_matcher(Path("models/matcher"))
    assert not list(matcher.parameters())
    assert config.model == "clip"


def test_matcher_only_normalises():
    generator = torch.Generator().manual_seed(0)
    images, texts = torch.randn(3, 1, 6, generator=generator), torch.randn(5, 1, 6, generator=generator)
    model = build_model("clip", Clip(source="x"), InputSizes(6, 6))
    scores = model.similarity(
        model.encode_images(Regions(images, torch.zeros(3, 1, 4), torch.ones(3, 1, dtype=torch.bool))),
        model.encode_text(Words(texts, torch.ones(5, 1, dtype=torch.bool))),
    )
    torch.testing.assert_close(scores, torch.nn.functional.cosine_similarity(images, texts[:, 0], dim=-1))
    assert model.members() == []  # none is trained


def test_damaged_source_is_named(tmp_path, sources):
    folder = tmp_path / "source"
    shutil.copytree(sources["clip"], folder)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:60])
    with raises_naming(path, "readable") as error:
        half_of(folder, "vision", tmp_path / "out")
    assert "\n" not in str(error.value)
