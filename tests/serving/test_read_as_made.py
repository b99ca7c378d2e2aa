"""Queries are read by the settings that the gallery was made by, whatever params.yaml says by now."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from assertions import raises_naming

from crossmodal.captions.encoders import caption_reading
from crossmodal.features.batches import read_regions, read_words
from crossmodal.features.store import FeatureStore
from crossmodal.recipes.recipes import resolved
from crossmodal.regions.extraction.query import read_photograph
from crossmodal.serving.bundle import pack, unpack
from crossmodal.serving.embed import embed
from crossmodal.serving.session import Folders, SearchSession
from crossmodal.settings.derived import image_reading, with_reading
from crossmodal.settings.params import load_params

ROOT = Path(__file__).resolve().parents[2]
LATER = {
    "regions": {"backend": "torchvision", "precision": "bf16", "per_image": 3, "min_score": 0.9, "nms": 0.9},
    "captions": {"max_tokens": 4},
}


def change_settings(folder):
    content = yaml.safe_load((folder / "params.yaml").read_text())
    for section, values in LATER.items():
        content[section] |= values
    (folder / "params.yaml").write_text(yaml.safe_dump(content))


def check(session, row=1):
    """The features of a query are those of the same image and sentence in the stores."""
    dataset, regions, words = session.dataset, FeatureStore(Path("data/regions")), FeatureStore(Path("data/captions"))
    sentence = "nothing but lime <b>"
    caption = [text for record in dataset.records for text in record.captions].index(sentence)
    expected, found = read_words(words, np.array([caption])), session._reader(sentence)
    assert found.features.shape[1] == 6  # more than the four tokens of today
    torch.testing.assert_close(found.features, expected.features, atol=2e-3, rtol=0)
    image = [record.id for record in dataset.records].index("lime")
    expected = read_regions(regions, np.array([image]))
    found = read_photograph(dataset.image_path(image), session._extractor, session.params.regions.precision)
    torch.testing.assert_close(found.features, expected.features, atol=2e-3, rtol=1e-3)


def test_a_search_reads_as_the_evaluated_gallery_was_made(workspace):
    folder = workspace("vsepp")
    change_settings(folder)
    check(SearchSession(Path("results/evaluation"), load_params(), Folders()))


def test_so_does_what_is_packed_later(workspace, tmp_path):
    folder = workspace("vsepp")
    before = SearchSession(Path("results/evaluation"), load_params(), Folders()).find_images("nothing but lime <b>", 3)
    change_settings(folder)
    pack(Path("results/evaluation"), folder / "params.yaml", Folders(), tmp_path / "packed", limit=1)
    unpacked = unpack(tmp_path / "packed")
    assert unpacked.find_images("nothing but lime <b>", 3) == before
    assert (unpacked.params.captions.max_tokens, unpacked.params.regions.precision) == (40, "fp32")


def test_embed_reads_photographs_as_the_matchers_were(workspace, tmp_path):
    folder = workspace("scan")
    change_settings(folder)
    shutil.copytree("data/dataset/images", tmp_path / "photographs")
    embed(str(tmp_path / "photographs"), tmp_path / "gallery", load_params(), Folders())
    stored, own = FeatureStore(Path("data/regions")), FeatureStore(tmp_path / "gallery/regions")
    names = sorted(path.stem for path in (tmp_path / "photographs").iterdir())
    records = SearchSession(Path("results/evaluation"), load_params(), Folders()).dataset.records
    rows = [[record.id for record in records].index(name) for name in names]
    expected, found = read_regions(stored, np.array(rows)), read_regions(own, np.arange(len(names)))
    torch.testing.assert_close(found.features, expected.features, atol=2e-3, rtol=1e-3)
    settings = json.loads((tmp_path / "gallery/gallery.json").read_text())["settings"]
    assert settings == {"regions.backend": "grid", "regions.precision": "fp32", "captions.max_tokens": 40}


@pytest.mark.parametrize("backend", ["torchvision", "grid", "bottomup", "detectron2"])
def test_all_that_a_backend_reads_by_is_carried_over(backend):
    shipped = (ROOT / "params.yaml").read_text()
    changes = ["regions.per_image=3", "regions.min_score=0.9", "regions.nms=0.7", "regions.precision=bf16"]
    changes += ["bottomup.selection=airsplay", "bottomup.min_regions=5", "bottomup.nms=0.9", "captions.max_tokens=7"]
    made = resolved(shipped, [f"regions.backend={backend}", *changes])
    today = resolved(shipped, [])
    again = with_reading(today, json.loads(json.dumps(image_reading(made) | caption_reading(made))))
    assert image_reading(again) == image_reading(made) != image_reading(today)
    assert again.captions.max_tokens == 7
    assert again.regions.batch_size == today.regions.batch_size


@pytest.mark.parametrize("settings", [{"train.lr": 1}, {"captions.max_tokens": "many"}, [1]])
def test_settings_that_are_none_are_named(workspace, settings):
    workspace("vsepp")
    info = json.loads(Path("results/evaluation/gallery.json").read_text())
    Path("results/evaluation/gallery.json").write_text(json.dumps(info | {"settings": settings}))
    with raises_naming("evaluation/gallery.json: ", "settings") as found:
        SearchSession(Path("results/evaluation"), load_params(), Folders())
    assert "\n" not in str(found.value)
