"""``crossmodal compare``: every form of a run, what it prints, bad files."""

import json

import numpy as np
import pytest
from assertions import assert_names

from crossmodal.evaluation.metrics import i2t_ranks, t2i_ranks


@pytest.fixture
def three_forms(tmp_path):
    """One run as evaluation folder, as .npz without caption_image, and as similarity matrix; and another run."""
    rng = np.random.default_rng(0)
    owners = np.arange(100) // 5
    similarity = rng.normal(size=(20, 100)) + 2 * (owners == np.arange(20)[:, None])
    ranks = {"i2t_ranks": i2t_ranks(similarity, owners), "t2i_ranks": t2i_ranks(similarity, owners)}
    folder = tmp_path / "evaluation"
    folder.mkdir()
    np.savez(folder / "results.npz", **ranks, caption_image=owners)
    np.savez(tmp_path / "ranks.npz", **ranks)
    np.save(tmp_path / "similarity.npy", similarity)
    np.savez(tmp_path / "other.npz", i2t_ranks=rng.integers(0, 9, 20), t2i_ranks=rng.integers(0, 9, 100))
    return tmp_path


def test_all_forms_of_a_run_are_the_same(run, three_forms):
    results = []
    for name in ("evaluation", "ranks.npz", "similarity.npy"):
        code, out, _ = run("compare", three_forms / name, three_forms / "other.npz", "--resamples", 99, "--json")
        assert code == 0
        results.append(json.loads(out))
    assert results[0] == results[1] == results[2]
    assert set(results[0]["rsum"]) == {
        "name",
        "a",
        "b",
        "a_interval",
        "b_interval",
        "difference",
        "difference_interval",
        "p",
    }


def test_table(run, three_forms):
    paths = three_forms / "evaluation", three_forms / "other.npz"
    _, out, _ = run("compare", *paths, "--resamples", 99)
    figures = json.loads(run("compare", *paths, "--resamples", 99, "--json")[1])
    assert out.startswith(f"A {paths[0]}\nB {paths[1]}\n20 images, 100 captions\n\n")
    rows = {line.split()[0]: line for line in out.splitlines()[5:]}
    assert rows.keys() == figures.keys()
    row = rows["t2i/r1"].replace("[", " ").replace("]", " ").replace(",", " ").split()
    figure = figures["t2i/r1"]
    values = [figure["a"], *figure["a_interval"], figure["b"], *figure["b_interval"], figure["difference"]]
    np.testing.assert_allclose([float(cell) for cell in row[1:8]], values, atol=0.00501)
    assert float(row[-1]) == pytest.approx(figure["p"], abs=0.00005)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"i2t_ranks": np.zeros(20, int)}, "not readable as results with i2t_ranks and t2i_ranks"),
        ({"i2t_ranks": np.zeros(20), "t2i_ranks": np.zeros(100, int)}, "i2t_ranks is float64 (20,), expected whole"),
        ({"i2t_ranks": np.full(20, 101), "t2i_ranks": np.zeros(100, int)}, "i2t_ranks from 101 to 101, expected 0 to"),
        ({"i2t_ranks": np.full(20, -1), "t2i_ranks": np.zeros(100, int)}, "i2t_ranks from -1"),
        ({"i2t_ranks": np.zeros(20, int), "t2i_ranks": np.zeros(90, int)}, "not 5 captions for each image"),
        (
            {"i2t_ranks": np.zeros(20, int), "t2i_ranks": np.zeros(100, int), "caption_image": np.arange(100)},
            "caption_image does not give the image of each of 100 captions",
        ),
        ({"i2t_ranks": np.zeros(40, int), "t2i_ranks": np.zeros(200, int)}, "not the same test set: 40 images and 200"),
    ],
)
def test_runs_that_cannot_be(run, three_forms, arrays, message):
    np.savez(three_forms / "bad.npz", **arrays)
    code, _, error = run("compare", three_forms / "bad.npz", three_forms / "evaluation")
    assert code == 2
    assert message in error
    assert len(error.splitlines()) == 1


def test_one_image_is_not_enough(run, tmp_path):
    """Nothing can be drawn from it again."""
    np.save(tmp_path / "one.npy", np.zeros((1, 5)))
    code, out, error = run("compare", tmp_path / "one.npy", tmp_path / "one.npy")
    assert (code, out) == (2, "")
    assert_names(error, "1 image", "2")


@pytest.mark.parametrize("name", ["none.npz", "none.npy", "none"])
def test_missing_runs(run, three_forms, name):
    code, _, error = run("compare", three_forms / name, three_forms / "evaluation")
    assert code == 2
    assert "not found" in error


@pytest.mark.parametrize("content", [b"", b"nothing", b"PK\x03\x04"])
def test_files_that_are_no_results(run, three_forms, content):
    (three_forms / "bad.npz").write_bytes(content)
    code, _, error = run("compare", three_forms / "bad.npz", three_forms / "evaluation")
    assert code == 2
    assert "not readable as results" in error


def test_python_objects_are_never_unpickled(run, three_forms):
    objects = np.array([{}], dtype=object)
    np.savez(three_forms / "bad.npz", i2t_ranks=objects, t2i_ranks=objects)
    code, _, error = run("compare", three_forms / "bad.npz", three_forms / "evaluation")
    assert code == 2
    assert "holds Python objects" in error
