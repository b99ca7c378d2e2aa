"""``crossmodal search``, ``embed`` and ``index`` over a whole, tiny pipeline, as a person runs them."""

import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from tiny_pipeline import COLOURS, ROOT

from crossmodal import runtime
from crossmodal.commands import search as search_command
from crossmodal.features.store import FeatureStore


def results_of(out):
    """Position, score and the rest of every line that is a result."""
    return re.findall(r"^ +(\d+) +(-?\d\.\d{3})  (.+)$", out, flags=re.MULTILINE)


@pytest.mark.parametrize("name", ["vsepp", "scan"])
def test_a_sentence_finds_what_the_evaluation_found(run, workspace, name):
    folder = workspace(name)
    with np.load(folder / "results/evaluation/results.npz") as arrays:
        top, scores = arrays["t2i_top"], arrays["t2i_scores"]
    code, out, err = run("search", "a red picture", "nothing but lime <b>", "--k", 3)
    assert (code, err) == (0, search_command.LOADING)
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


def test_a_search_imports_what_it_needs_alone(workspace):
    """Each of the others takes as long to import as all that a search by a sentence does."""
    workspace("vsepp")
    others = [
        "transformers",
        "timm",
        "torchvision",
        "mlflow",
        "scipy",
        "sympy",
        "dvc",
        "matplotlib",
        "pandas",
        "torch._dynamo",
        "ray",
    ]
    code = "import sys\nfrom crossmodal import cli\nsys.argv = ['crossmodal', 'search', 'a red picture']\ncli.main()\n"
    code += f"print({{*{others}}} & set(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout.endswith("\nset()\n"), done.stderr
    assert len(results_of(done.stdout)) == 8


def test_captions_and_names_do_not_reach_the_terminal_as_they_are(run, workspace):
    folder = workspace("vsepp")
    manifest = folder / "data/dataset/records.jsonl"
    records = [json.loads(line) for line in manifest.read_text().splitlines()]
    for record in records[1:]:
        (folder / "data/dataset" / record["path"]).rename(folder / "data/dataset" / f"{record['path']}\x9b2J.png")
        record["path"] += "\x9b2J.png"
        record["captions"] = [f"\x1b]0;owned\x07{record['captions'][0]}", "one\n   1    9.999  a line of its own\u202e"]
    manifest.write_text("".join(json.dumps(record) + "\n" for record in records))
    broken = folder / "photos"
    broken.mkdir()
    (broken / "\x1b[31mred.jpg").write_bytes(b"no image")
    shutil.copy(next((folder / "data/dataset/images").iterdir()), broken / "good.png")
    outputs = [
        run("search", "a red picture \x1b[1A", "--k", 8),
        run("search", "--image", str(folder / records[1]["path"]).replace(str(folder), "data/dataset"), "--k", 16),
        run("search", "--image", "\x1b[31m.jpg"),
        run("embed", "photos", "--out", "results/photos"),
    ]
    assert [code for code, _, _ in outputs] == [0, 0, 2, 0]
    shown = "".join(out + err for _, out, err in outputs)
    assert not set(shown) & set("\x1b\x07\x9b\u202e")
    assert r"\x1b]0;owned\x07a red picture" in shown
    assert r"one\n   1    9.999  a line of its own\u202e" in shown
    assert r"skipped \x1b[31mred.jpg: " in shown
    assert len(results_of(outputs[0][1])) == 8


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
    (photographs / "vector.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    (photographs / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(12))
    os.mkfifo(photographs / "pipe.png")
    (folder / "album").mkdir()
    Image.new("RGB", (30, 20), "red").save(folder / "album/scan.JFIF", "JPEG")
    Image.new("RGB", (30, 20), "red").save(folder / "album/web.avif")
    (folder / "album/circle").symlink_to(photographs)
    (photographs / "linked").symlink_to(folder / "album")
    code, out, _ = run("embed", "photos", "--out", "results/photos")
    assert code == 0
    assert "skipped broken.JPG: no image\n" in out
    assert "skipped vector.jpg: no image\n" in out
    assert "skipped pipe.png: unreadable image (not a regular file)\n" in out
    assert "skipped linked/circle: a link to a folder that is read already, as .\n" in out
    assert "6 files or folders skipped; all are in results/photos/dataset/manifest.json" in out
    assert f"10 images by {name}" in out
    made = folder / "results/photos"
    assert not made.with_name("photos.part").exists()
    assert (made / "regions").exists() == (name == "scan")
    records = [json.loads(line) for line in (made / "dataset/records.jsonl").read_text().splitlines()]
    assert [record["id"] for record in records] == [
        *(f"below/{colour}.png" for colour in sorted(COLOURS)),
        *("linked/scan.JFIF", "linked/web.avif"),
    ]
    vectors = np.load(made / "embeddings.npy")
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    evaluated, embedded = (results_of(run("search", "a red picture", *more)[1]) for more in ([], ["--in", made]))
    assert [score for _, score, _ in evaluated] == [score for _, score, path in embedded if "album" not in path]
    code, _, err = run("search", "--image", photographs / "below/red.png", "--in", made)
    assert code == 2
    assert err.splitlines()[1:] == [
        "error: the gallery has no captions, so that a photograph finds nothing; give a sentence"
    ]
    code, out, _ = run("embed", "photos", "--out", "results/photos")
    assert code == 0
    assert f"10 images by {name} ({vectors.shape[1]} dimensions), 10 of them known before" in out
    code, _, err = run("embed", "photos", "--out", "results/evaluation")
    assert code == 2
    assert "results/evaluation: already there, and not made by crossmodal embed" in err


def test_a_gallery_has_the_precision_of_the_stage(run, workspace, monkeypatch):
    monkeypatch.setattr(runtime, "computes_fast", lambda *_: True)
    folder = workspace("scan")
    index = json.loads((folder / "data/regions/index.json").read_text())
    index["metadata"]["settings"]["regions.precision"] = "bf16"  # it was made with fp32
    (folder / "data/regions/index.json").write_text(json.dumps(index))
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
        (["search", "a", " "], "the sentence is empty"),
        (["search", "--image", "nowhere.jpg"], "--image nowhere.jpg: no such file"),
        (["search", "a red picture " * 1000], "has 14,000 characters, expected 10,000 at most"),
        (["search", "a", "--in", "nowhere"], "nowhere/gallery.json: not found"),
        (["search", "a", "--in", "evaluation of scan"], "made by another matcher (scan, key of scan)"),
        (["embed", "data/dataset/images", "--out", "new", "--index", "PQ7"], "'PQ7'"),
        (["index", "--vectors", "50", "--dim", "8", "--kind", "Flat:nprobe=2"], "'nprobe=2'"),
    ],
)
def test_a_mistake_is_one_line(run, workspace, arguments, expected):
    folder = workspace("vsepp")
    code, _, err = run(*arguments)
    assert code == 2
    err = err.removeprefix(search_command.LOADING)
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert expected in err
    assert not (folder / "new").exists()


@pytest.mark.parametrize(
    ("missing", "stage"),
    [
        ("models/matcher", "train"),
        ("results/evaluation/images.faiss", "evaluate"),
    ],
)
def test_a_missing_out_names_its_stage(run, workspace, missing, stage):
    path = workspace("vsepp") / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    code, _, err = run("search", "a red picture")
    assert code == 2
    assert f"not found; run the {stage} stage first" in err
    assert err.removeprefix(search_command.LOADING).count("\n") == 1


def test_index_prints_a_table_and_what_follows(run, workspace):
    workspace("vsepp")
    np.save("mine.npy", np.random.default_rng(0).normal(size=(300, 16)))
    code, out, _ = run(
        "index", "--embeddings", "mine.npy", "--queries", 40, "--k", 5, "--kind", "Flat", "--kind", "IVF4,SQ8:nprobe=4"
    )
    assert code == 0
    lines = out.splitlines()
    assert lines[0].startswith("260 embeddings of 16, 40 queries")
    assert lines[1].startswith("| index | search | recall@5 |")
    assert lines[3].startswith("| Flat |  | 1.000 | ")
    assert lines[4].startswith("| IVF4,SQ8 | nprobe=4 | 0.9")
    assert "index: exact: Flat" in out
    assert "index: smallest with recall 0.85 or more: IVF4,SQ8 (nprobe=4)" in out
