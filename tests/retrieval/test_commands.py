"""``crossmodal search``, ``embed`` and ``index`` over a whole, tiny pipeline, as a person runs them."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from tiny_pipeline import COLOURS

from crossmodal.commands import search as search_command
from crossmodal.features.store import FeatureStore

ROOT = Path(__file__).resolve().parents[2]


def results_of(out):
    """Position, score and the rest of every line that is a result."""
    return re.findall(r"^ +(\d+) +(-?\d\.\d{3})  (.+)$", out, flags=re.MULTILINE)


@pytest.mark.parametrize("name", ["vsepp", "scan"])
def test_a_sentence_finds_what_the_evaluation_found(run, workspace, name):
    folder = workspace(name)
    with np.load(folder / "results/evaluation/results.npz") as arrays:
        top, scores = arrays["t2i_top"], arrays["t2i_scores"]
    code, out, err = run("search", "a red picture", "nothing but lime <b>", "--k", 3)
    assert (code, err) == (0, "")
    headers = [line for line in out.splitlines() if line.endswith(" ms")]
    assert len(headers) == 2
    assert headers[0].startswith(f"a red picture: 8 images and 16 captions of colours, {name}, ")
    found = results_of(out)
    for row, caption in enumerate((0, 3)):
        for place in range(3):
            position, score, rest = found[3 * row + place]
            assert position == str(place + 1)
            assert float(score) == pytest.approx(scores[caption, place], abs=2e-3)
            assert f"images/{COLOURS[top[caption, place]]}.png" in rest


def test_a_photograph_finds_captions(run, workspace):
    folder = workspace("vsepp")
    with np.load(folder / "results/evaluation/results.npz") as arrays:
        scores = arrays["i2t_scores"][2]
    code, out, _ = run("search", "--image", "data/dataset/images/blue.png")
    assert code == 0
    found = results_of(out)
    assert len(found) == 10
    np.testing.assert_allclose([float(score) for _, score, _ in found], scores, atol=2e-3)


@pytest.mark.parametrize("name", ["vsepp", "scan"])
def test_a_folder_becomes_a_gallery(run, workspace, name):
    folder = workspace(name)
    photographs = folder / "photos"
    shutil.copytree(folder / "data/dataset/images", photographs / "below")
    (photographs / "broken.JPG").write_bytes(b"no image")
    (photographs / "notes.txt").write_text("no image either")
    code, out, _ = run("embed", "photos", "--out", "results/photos")
    assert code == 0
    assert "skipped broken.JPG: no image\n" in out
    assert f"8 images by {name}" in out
    made = folder / "results/photos"
    assert not made.with_name("photos.part").exists()
    assert (made / "regions").exists() == (name == "scan")
    records = [json.loads(line) for line in (made / "dataset/records.jsonl").read_text().splitlines()]
    assert [record["id"] for record in records] == [f"below/{colour}.png" for colour in sorted(COLOURS)]
    vectors = np.load(made / "embeddings.npy")
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    evaluated, embedded = (results_of(run("search", "a red picture", *more)[1]) for more in ([], ["--in", made]))
    assert [score for _, score, _ in evaluated] == [score for _, score, _ in embedded]
    code, _, err = run("search", "--image", photographs / "below/red.png", "--in", made)
    assert code == 2
    assert err == "error: the gallery has no captions, so that a photograph finds nothing; give a sentence\n"
    code, _, err = run("embed", "photos", "--out", "results/photos")
    assert code == 2
    assert "results/photos: already there" in err


def test_a_gallery_has_the_precision_of_the_stage(run, workspace):
    folder = workspace("scan")
    content = yaml.safe_load((folder / "params.yaml").read_text())
    content["regions"]["precision"] = "bf16"  # data/regions was made with fp32
    (folder / "params.yaml").write_text(yaml.safe_dump(content))
    assert run("embed", "data/dataset/images", "--out", "made")[0] == 0
    rows = [1 + COLOURS.index(colour) for colour in sorted(COLOURS)]
    full = FeatureStore(folder / "data/regions").padded(rows, "features").astype(float)
    low = FeatureStore(folder / "made/regions").padded(range(8), "features").astype(float)
    assert (low != full).any()
    np.testing.assert_allclose(low, full, atol=0.05 * np.abs(full).max())


def test_open_writes_a_page_and_shows_it(run, workspace, monkeypatch):
    folder, opened = workspace("vsepp"), []
    monkeypatch.setattr(search_command.webbrowser, "open", lambda uri: opened.append(uri) or True)
    assert run("search", "<script>alert(1)</script>", "--open")[0] == 0
    page = (folder / "results/search.html").read_text()
    assert opened == [(folder / "results/search.html").as_uri()]
    assert page.count("data:image/jpeg;base64,") == 8
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "but red &lt;b&gt;" not in page  # only the first caption of an image is shown
    assert run("search", "--image", "data/dataset/images/red.png", "--open", "--k", 2)[0] == 0
    page = (folder / "results/search.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 3  # the photograph and the images of two captions
    assert "://" not in page


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["search"], "give a sentence such as"),
        (["search", "a", "--image", "data/dataset/images/red.png"], "give a sentence such as"),
        (["search", "a", " "], "the sentence is empty"),
        (["search", "--image", "nowhere.jpg"], "--image nowhere.jpg: no such file"),
        (["search", "--image", "params.yaml"], "params.yaml: no image"),
        (["search", "a", "--in", "nowhere"], "nowhere/gallery.json: not found"),
        (["search", "a", "--in", "params.yaml"], "params.yaml/gallery.json: not readable (Not a directory)"),
        (["search", "a", "--in", "evaluation of scan"], "made by another matcher (scan, key of scan)"),
        (["embed", "nowhere", "--out", "new"], "nowhere: no such folder"),
        (["embed", "models", "--out", "new"], "models: no photographs"),
        (["embed", "data/dataset/images", "--out", "new", "--index", "PQ7"], "--index 'PQ7': not possible over 8"),
        (["index", "--embeddings", "nowhere.npy"], "nowhere.npy: not found"),
        (["index", "--vectors", "50", "--dim", "8", "--kind", "Nonsense"], "--kind 'Nonsense': not possible over 50"),
        (["index", "--vectors", "50", "--dim", "8", "--kind", "Flat:nprobe=2"], "--kind 'nprobe=2': not a setting of"),
    ],
)
def test_a_mistake_is_one_line(run, workspace, arguments, expected):
    folder = workspace("vsepp")
    code, _, err = run(*arguments)
    assert code == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert expected in err
    assert not (folder / "new").exists()


def test_precomputed_features_take_sentences_alone(run, workspace):
    folder = workspace("vsepp")
    settings = yaml.safe_load((folder / "params.yaml").read_text())
    settings["regions"]["backend"], settings["precomputed"]["path"] = "precomputed", "elsewhere"
    (folder / "params.yaml").write_text(yaml.safe_dump(settings))
    (folder / "models/detector/config.json").write_text('{"backend": "precomputed"}')
    (folder / "models/detector/model.safetensors").unlink()
    assert run("search", "a red picture")[0] == 0
    photographs = folder / "data/dataset/images"
    for arguments in (["search", "--image", str(photographs / "red.png")], ["embed", str(photographs), "--out", "new"]):
        code, _, err = run(*arguments)
        assert code == 2
        assert err.startswith("error: regions.backend precomputed: the features came from files, no network is here")
    assert not list(folder.glob("new*"))


@pytest.mark.parametrize(
    ("missing", "stage"),
    [
        ("models/matcher", "train"),
        ("models/bert", "bert"),
        ("data/dataset", "download"),
        ("results/evaluation/images.faiss", "evaluate"),
    ],
)
def test_a_missing_out_names_its_stage(run, workspace, missing, stage):
    path = workspace("vsepp") / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    code, _, err = run("search", "a red picture")
    assert code == 2
    assert f"not found; run the {stage} stage first" in err
    assert err.count("\n") == 1


def test_index_prints_a_table_and_what_follows(run, workspace):
    workspace("vsepp")
    np.save("mine.npy", np.random.default_rng(0).normal(size=(300, 16)))
    code, out, _ = run(
        "index", "--embeddings", "mine.npy", "--queries", 40, "--k", 5, "--kind", "Flat", "--kind", "IVF4,SQ8:nprobe=4"
    )
    assert code == 0
    lines = out.splitlines()
    assert lines[0].startswith("260 embeddings of 16, 40 queries at once")
    assert lines[1].startswith("| index | search | recall@5 |")
    assert lines[3].startswith("| Flat |  | 1.000 | ")
    assert lines[4].startswith("| IVF4,SQ8 | nprobe=4 | 0.9")
    assert "index: exact: Flat" in out
    assert "index: smallest with recall 0.85 or more: IVF4,SQ8 (nprobe=4)" in out
