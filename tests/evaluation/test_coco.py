"""ECCV Caption, CxC and PMRP: a small stand-in for the package against loops, and the package itself where it is."""

import importlib.util
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from crossmodal.evaluation.coco import coco_metrics

IMAGES, CAPTIONS = np.array([70, 20, 50, 90]), np.arange(120, 100, -1)
OWN = {
    "i2t": {image: CAPTIONS[5 * i : 5 * i + 5].tolist() for i, image in enumerate(IMAGES.tolist())},
    "t2i": {caption: [int(IMAGES[j // 5])] for j, caption in enumerate(CAPTIONS.tolist())},
}
JUDGED = {"i2t": {20: [120, 115, 103], 90: [101, 101]}, "t2i": {118: [70, 90], 105: [20], 102: [90, 50, 70]}}


@pytest.fixture
def stand_in(monkeypatch):
    """A package of four images whose ECCV and CxC judgements are the same, and PMRP's where a folder is named."""

    def metrics(extra_file_dir=None):
        pm = JUDGED if extra_file_dir else {}
        return SimpleNamespace(coco_ids=CAPTIONS, coco_gts=OWN, eccv_gts=JUDGED, cxc_gts=JUDGED, pm_gts=pm)

    monkeypatch.setitem(sys.modules, "eccv_caption", SimpleNamespace(Metrics=metrics))


def loop(scores, queries, items, judged):
    """R@1, R@5, R-precision and mAP@R from ranked lists of ids."""
    found = {"r1": [], "r5": [], "rprecision": [], "map_r": []}
    for query, right in judged.items():
        ranked = items[np.argsort(-scores[queries.tolist().index(query)])].tolist()
        right = set(right)
        hits = [item in right for item in ranked]
        size = len(right)
        found["r1"].append(hits[0])
        found["r5"].append(any(hits[:5]))
        found["rprecision"].append(sum(hits[:size]) / size)
        found["map_r"].append(sum(hits[place] * sum(hits[: place + 1]) / (place + 1) for place in range(size)) / size)
    return {name: np.mean(values) for name, values in found.items()}


def test_figures_of_ranked_lists(stand_in, tmp_path):
    similarity = np.random.default_rng(0).normal(size=(4, 20))
    for name in ("pm_image_to_caption.json", "pm_caption_to_image.json"):
        (tmp_path / name).write_text("{}")
    metrics = coco_metrics(similarity, tmp_path)
    sides = {"i2t": (similarity, IMAGES, CAPTIONS), "t2i": (similarity.T, CAPTIONS, IMAGES)}
    for direction, (scores, queries, items) in sides.items():
        expected, ours = loop(scores, queries, items, JUDGED[direction]), metrics[direction]
        assert ours["eccv_map_r"] == pytest.approx(expected["map_r"])
        assert ours["eccv_rprecision"] == ours["pmrp"] == pytest.approx(expected["rprecision"])
        assert ours["eccv_r1"] == ours["cxc_r1"] == pytest.approx(100 * expected["r1"])
        assert ours["cxc_r5"] == pytest.approx(100 * expected["r5"])
    assert "pmrp" not in coco_metrics(similarity)["i2t"]


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("eccv_caption") is None, reason="the package eccv-caption is not installed"
)
@pytest.mark.filterwarnings("ignore:failed to import `ujson`")
def test_figures_of_the_package_itself(tmp_path):
    import eccv_caption

    rng = np.random.default_rng(0)
    similarity = rng.normal(size=(5000, 25000)).astype(np.float32)
    similarity[np.arange(25000) // 5, np.arange(25000)] += 4
    package = eccv_caption.Metrics()
    captions = package.coco_ids
    images = np.array([package.coco_gts["t2i"][caption][0] for caption in captions[::5].tolist()])
    plausible = {
        "image_to_caption": {int(image): rng.choice(captions, 40, replace=False).tolist() for image in images[:30]},
        "caption_to_image": {int(text): rng.choice(images, 40, replace=False).tolist() for text in captions[:30]},
    }
    for name, judged in plausible.items():
        (tmp_path / f"pm_{name}.json").write_text(json.dumps(judged))
    metrics = coco_metrics(similarity, tmp_path)

    package = eccv_caption.Metrics(extra_file_dir=str(tmp_path))
    rows = {image: row for row, image in enumerate(images.tolist())}
    columns = {caption: column for column, caption in enumerate(captions.tolist())}
    asked = {direction: {**package.eccv_gts[direction], **package.pm_gts[direction]} for direction in ("i2t", "t2i")}
    ranked = {
        "i2t": {image: captions[np.argsort(-similarity[rows[image]])].tolist() for image in asked["i2t"]},
        "t2i": {text: images[np.argsort(-similarity[:, columns[text]])].tolist() for text in asked["t2i"]},
    }
    eccv, pmrp = package.eccv_metrics(ranked, "all"), package.pmrp(ranked, "all")
    for direction in ("i2t", "t2i"):
        ours = metrics[direction]
        assert ours["eccv_map_r"] == pytest.approx(eccv["eccv_map_at_r"][direction])
        assert ours["eccv_rprecision"] == pytest.approx(eccv["eccv_rprecision"][direction])
        assert ours["eccv_r1"] == pytest.approx(100 * eccv["eccv_r1"][direction])
        assert ours["pmrp"] == pytest.approx(pmrp[direction])
