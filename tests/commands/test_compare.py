"""``crossmodal compare``: every form of a run, what it prints, bad files."""

import json

import numpy as np
import pytest

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


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"i2t_ranks": np.zeros(20, int)}, "not readable as results with i2t_ranks and t2i_ranks"),
        ({"i2t_ranks": np.full(20, 101), "t2i_ranks": np.zeros(100, int)}, "i2t_ranks from 101 to 101, expected 0 to"),
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


def test_python_objects_are_never_unpickled(run, three_forms):
    objects = np.array([{}], dtype=object)
    np.savez(three_forms / "bad.npz", i2t_ranks=objects, t2i_ranks=objects)
    code, _, error = run("compare", three_forms / "bad.npz", three_forms / "evaluation")
    assert code == 2
    assert "holds Python objects" in error
