"""Files that are not what they were: every stage says so, or makes them again; none goes on in silence or crashes."""

import shutil

import forks
import pytest

pytestmark = pytest.mark.slow

# A file of an out, and the first stage that reads it.
READ = {
    "data/dataset/manifest.json": "detector",
    "data/dataset/records.jsonl": "detector",
    "data/dataset/images/train/train-00000.jpg": "detector",
    "models/detector/config.json": "regions",
    "models/detector/model.safetensors": "regions",
    "models/detector/metrics.json": "report",
    "data/regions/index.json": "train",
    "data/regions/00000.h5": "train",
    "models/bert/config.json": "captions",
    "models/bert/model.safetensors": "captions",
    "models/bert/tokenizer.json": "captions",
    "models/bert/tokenizer_config.json": "captions",
    "data/captions/index.json": "train",
    "data/captions/00000.h5": "train",
    "data/dataset/phrases.jsonl": "evaluate",
    "data/relevance/test.npy": "evaluate",
    "models/matcher/config.json": "evaluate",
    "models/matcher/model.safetensors": "evaluate",
    "models/matcher/history.csv": "report",
    "results/evaluation/results.npz": "report",
    "results/evaluation/evidence.npz": "report",
    "results/evaluation/pointing.npz": "report",
    "results/evaluation/search.json": "report",
}


def half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [half, empty])
@pytest.mark.parametrize("file", READ)
def test_a_cut_off_input_is_named(workspace, file, damage):
    stage = READ[file]
    shutil.rmtree(workspace / forks.OUTS[stage], ignore_errors=True)
    damage(workspace / file)
    done = forks.run(stage, workspace)
    assert done.code == 2, done
    assert done.is_clear(), done
    assert file in done.err or str((workspace / file).parent.relative_to(workspace)) in done.err
    assert not (workspace / forks.OUTS[stage]).exists()


def test_every_file_is_damaged_somewhere(pristine):
    """But for those that no stage reads, and photographs, of which one stands for all."""
    files = {f"{out}/{name}" for out in forks.OUTS.values() for name in forks.contents(pristine / out)}
    kept = (
        "captions.faiss",
        "images.faiss",
        "gallery.json",
        "metrics.json",
        "threshold.json",
    )  # for crossmodal search and people
    unread = {f"results/evaluation/{name}" for name in kept} | {"data/relevance/relevance.json"}
    drawn = ("results/report/", "data/dataset/images/")
    assert {file for file in files - set(READ) if not file.startswith(drawn)} <= unread


def test_a_photograph_that_is_cut_off_is_left_out(workspace):
    """One among many does not stop the extraction: the index names it."""
    shutil.rmtree(workspace / "data/regions")
    half(workspace / "data/dataset/images/train/train-00003.jpg")
    done = forks.run("regions", workspace)
    assert done.code == 0, done
    assert "1 images left out, see index.json" in done.out
    assert "train-00003" in (workspace / "data/regions/index.json").read_text()


@pytest.mark.parametrize("damage", [half, empty])
@pytest.mark.parametrize("stage", ["detector", "bert", "train"])
def test_a_damaged_state_starts_again(pristine, workspace, stage, damage):
    """What a killed stage left is cut off: a warning, and the bytes of an undisturbed run."""
    shutil.rmtree(workspace / forks.OUTS[stage])
    process = forks.start(stage, workspace)
    while not (states := list((workspace / ".resume" / stage).rglob("state.pt"))):
        process.process.join(0.005)
        assert process.process.is_alive(), process.wait()
    process.kill()
    process.wait()
    damage(states[0])
    done = forks.run(stage, workspace)
    assert done.code == 0, done
    assert "state.pt: damaged, this starts from the beginning" in done.err
    assert "Traceback" not in done.err
    assert forks.outs(workspace, stage) == forks.outs(pristine, stage)
    assert not forks.unfinished(workspace)


@pytest.mark.parametrize("damage", [half, empty])
@pytest.mark.parametrize("stage", ["regions", "captions"])
def test_a_damaged_shard_is_made_again(pristine, workspace, stage, damage):
    """A shard of an unfinished store is cut off."""
    expected = forks.outs(pristine, stage)
    shutil.rmtree(workspace / forks.OUTS[stage])
    process = forks.start(stage, workspace)
    while not (keys := [path for path in (workspace / ".resume" / stage).glob("*") if path.is_dir()]):
        process.process.join(0.005)
        assert process.process.is_alive(), process.wait()
    process.kill()
    process.wait()
    out = keys[0] / "out"
    out.mkdir(parents=True, exist_ok=True)
    (out / "00000.h5").write_bytes(expected["00000.h5"])
    damage(out / "00000.h5")
    done = forks.run(stage, workspace)
    assert done.code == 0, done
    assert forks.outs(workspace, stage) == expected
    assert not forks.unfinished(workspace)
