"""``crossmodal probe`` on the tiny pipeline, against the similarities of its own stores."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from crossmodal.datasets.contrasts import Shown
from crossmodal.datasets.records import read_dataset
from crossmodal.features.batches import read_regions, read_words
from crossmodal.features.store import FeatureStore
from crossmodal.models.checkpoint import load_matcher
from crossmodal.serving.contrasts import pixels_of
from tests.assertions import raises_naming


@pytest.mark.parametrize("name", ["vsepp", "scan"])
@torch.inference_mode()
def test_scores_are_those_of_the_pipeline(workspace, run, name):
    folder = workspace(name)
    dataset, model = read_dataset(folder / "data/dataset"), load_matcher(folder / "models/matcher")[0]
    regions, words = FeatureStore(folder / "data/regions"), FeatureStore(folder / "data/captions")
    offsets = dataset.caption_offsets()

    def similarity(row, caption):
        image = model.encode_regions(read_regions(regions, np.array([row])))
        return model.similarity(image, model.encode_text(read_words(words, np.array([caption])))).item()

    examples, single, text, image = [], [], [], []
    for one, two in [(1, 2), (3, 4), (5, 6), (7, 8), (1, 8), (4, 2)]:
        records, rows = [dataset.records[row] for row in (one, two)], (one, two)
        keys = {f"image_{n}": str(dataset.image_path(row)) for n, row in enumerate(rows)}
        examples.append(keys | {f"caption_{n}": record.captions[0] for n, record in enumerate(records)})
        single.append(
            {"image": keys["image_0"], "captions": [records[1].captions[0], records[0].captions[0]], "right": 1}
        )
        (s00, s01), (s10, s11) = [[similarity(row, offsets[of]) for of in rows] for row in rows]
        text.append(s00 > s01 and s11 > s10)
        image.append(s00 > s10 and s11 > s01)
    (folder / "pairs.json").write_text(json.dumps(examples))
    code, out, _ = run("probe", "pairs.json", "--json")
    found = json.loads(out)
    assert code == 0 and found["examples"] == 6
    assert [found["text"], found["image"]] == pytest.approx([100 * np.mean(text), 100 * np.mean(image)])
    assert found["group"] == pytest.approx(100 * np.mean(np.array(text) & np.array(image)))
    (folder / "single.json").write_text(json.dumps(single))
    code, out, _ = run("probe", "single.json")
    right = [similarity(one, offsets[one]) > similarity(one, offsets[two]) for one, two in
             [(1, 2), (3, 4), (5, 6), (7, 8), (1, 8), (4, 2)]]  # fmt: skip
    assert code == 0
    assert out.splitlines()[2].split() == ["all", "6", f"{100 * np.mean(right):.1f}"]
    assert out.splitlines()[3].split() == ["chance", "50.0"]


def test_a_box_is_cut_out(tmp_path):
    Image.fromarray(np.arange(60 * 40 * 3, dtype=np.uint8).reshape(40, 60, 3)).save(tmp_path / "a.png")
    whole = pixels_of(Shown(tmp_path / "a.png"))
    np.testing.assert_array_equal(pixels_of(Shown(tmp_path / "a.png", (5, 3, 20, 10))), whole[3:13, 5:25])
    with raises_naming("a.png", "60 x 40"):
        pixels_of(Shown(tmp_path / "a.png", (70, 3, 20, 10)))
