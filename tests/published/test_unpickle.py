"""Published pickles are read as data: what they would run does not run, and is named."""

import argparse
import builtins
import collections
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from assertions import raises_naming

from crossmodal.errors import UserError
from crossmodal.published.unpickle import read_array_pickle, read_checkpoint, read_vocabulary_pickle

FORMATS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


class Call:
    """Pickles as a call of ``function``, which loading would make."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


class Forged:
    """Pickles as an allowed class with a state that is not its own."""

    def __init__(self, made, state):
        self.made, self.state = made, state

    def __reduce__(self):
        return (*self.made, self.state)


class Vocabulary:
    """The shape of the published class."""

    def __init__(self, words):
        self.word2idx = {word: number for number, word in enumerate(words)}
        self.idx2word = dict(enumerate(words))
        self.idx = len(words)


def import_os(mark):
    return f"__import__('pathlib').Path({str(mark)!r}).touch()"


def attacks(mark):
    import os

    touch = Call(os.system, f"touch {mark}")
    return {
        "posix.system": touch,
        "eval": Call(builtins.eval, import_os(mark)),
        "exec": Call(builtins.exec, import_os(mark)),
        "getattr": Call(builtins.getattr, Path, "home"),
        "torch.hub.load": Call(torch.hub.load, "somebody/something", "anything"),
        "pathlib.PosixPath": Path("/somewhere"),
    }


@FORMATS
@pytest.mark.parametrize("name", attacks(""))
@pytest.mark.parametrize(
    "hide",
    [
        lambda attack: attack,
        lambda attack: {"model": {"weight": torch.ones(2)}, "opt": argparse.Namespace(margin=0.2, extra=[attack])},
        lambda attack: {"model": [collections.OrderedDict(weight=torch.ones(2), more=(1, {"deep": attack}))]},
    ],
    ids=["alone", "in opt", "deep in the model"],
)
def test_nothing_in_a_checkpoint_is_run(tmp_path, hide, name, zipped):
    mark, path = tmp_path / "mark", tmp_path / "file.pth"
    torch.save(hide(attacks(mark)[name]), path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError) as error:
        read_checkpoint(path)
    assert str(error.value).startswith(f"{path}: refers to {name}, ")
    assert "\n" not in str(error.value)
    assert not mark.exists()


def test_the_attacks_would_work(tmp_path):
    """Read without protection, the same files do what they say: the tests above can fail."""
    for number, name in enumerate(["posix.system", "eval", "exec"]):
        mark = tmp_path / f"mark{number}"
        for zipped in (True, False):
            torch.save(attacks(mark)[name], tmp_path / "file.pth", _use_new_zipfile_serialization=zipped)
            mark.unlink(missing_ok=True)
            torch.load(tmp_path / "file.pth", weights_only=False)
            assert mark.exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", ["posix.system", "eval", "exec", "getattr"])
@pytest.mark.parametrize("hide", [lambda attack: attack, lambda attack: {"word2idx": {"a": attack}}])
def test_nothing_in_a_vocabulary_is_run(tmp_path, hide, name, protocol):
    mark, path = tmp_path / "mark", tmp_path / "vocab.pkl"
    path.write_bytes(pickle.dumps(hide(attacks(mark)[name]), protocol=protocol))
    with pytest.raises(UserError) as error:
        read_vocabulary_pickle(path)
    assert str(error.value).startswith(f"{path}: refers to ")
    assert name.split(".")[-1] in str(error.value)
    assert not mark.exists()


@FORMATS
def test_what_projects_save_beside_tensors_is_read(tmp_path, zipped):
    path = tmp_path / "file.pth"
    saved = {
        "epoch": 3,
        "model": [collections.OrderedDict(weight=torch.arange(6.0).view(2, 3).T)],
        "opt": argparse.Namespace(margin=0.2, name="run", layers=[1, 2], none=None, big=10**15),
        "best_rsum": np.float64(412.8),
        "best": np.float32(0.25),
        "steps": np.int64(-7),
        "flag": np.bool_(True),
        "swapped": np.dtype(">f8").type(1.5),
    }
    torch.save(saved, path, _use_new_zipfile_serialization=zipped)
    read = read_checkpoint(path)
    torch.testing.assert_close(read["model"][0]["weight"], saved["model"][0]["weight"])
    assert read["opt"] == saved["opt"]
    for name in ("epoch", "best_rsum", "best", "steps", "flag", "swapped"):
        assert read[name] == saved[name]


def test_a_scalar_saved_by_an_older_numpy_is_read(tmp_path, monkeypatch):
    """Before NumPy 2 the function that makes a scalar had another address."""
    path = tmp_path / "file.pth"
    torch.save({"best": np.float64(0.5)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    assert b"numpy._core.multiarray" in content
    path.write_bytes(content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert read_checkpoint(path) == {"best": 0.5}


@pytest.mark.parametrize(
    "forged",
    [
        Forged((np.dtype, ("O8", False, True)), (3, "|", None, None, None, -1, -1, 63)),
        Forged((np.dtype, ("f8", False, True)), "not a state"),
        Forged((np.dtype, (["f8"], False, True)), (3, "<", None, None, None, -1, -1, 0)),
        Call(np.dtype, "V16"),
    ],
    ids=["object", "state", "list", "void"],
)
def test_a_forged_dtype_is_refused(tmp_path, forged):
    torch.save({"best": forged}, tmp_path / "file.pth")
    try:
        read = read_checkpoint(tmp_path / "file.pth")
    except UserError:
        return
    assert not isinstance(read["best"], np.generic | np.dtype)  # a stand-in that NumPy never sees


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickled_vocabulary_is_read(tmp_path, protocol):
    words = ["<pad>", "<start>", "<end>", "<unk>", "dog", "café"]
    path = tmp_path / "vocab.pkl"
    path.write_bytes(pickle.dumps(Vocabulary(words), protocol=protocol))
    assert read_vocabulary_pickle(path) == vars(Vocabulary(words))


@pytest.mark.parametrize("content", [b"", b"hello world\n", bytes(range(256)), b"PK\x03\x04 no zip"])
def test_damaged_files_are_named(tmp_path, content):
    path = tmp_path / "file.pth"
    path.write_bytes(content)
    for read in (read_checkpoint, read_vocabulary_pickle, read_array_pickle):
        with pytest.raises(UserError) as error:
            read(path)
        assert str(error.value).startswith(f"{path}: not a ")
        assert "weights_only" not in str(error.value)
    path.unlink()
    for read in (read_checkpoint, read_vocabulary_pickle, read_array_pickle):
        with raises_naming(path, "not found"):
            read(path)


@FORMATS
def test_a_cut_off_checkpoint_is_named(tmp_path, zipped):
    path = tmp_path / "file.pth"
    torch.save({"model": {"weight": torch.ones(1000)}}, path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[:2000])
    with raises_naming("file.pth"):
        read_checkpoint(path)


PROTOCOLS = pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))


@PROTOCOLS
@pytest.mark.parametrize("core", ["_core", "core"])  # since NumPy 2, and before
def test_a_pickle_of_arrays_is_read(tmp_path, protocol, core):
    arrays = {
        "matrix": np.arange(6, dtype=np.float32).reshape(2, 3),
        "columns first": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "swapped": np.arange(3, dtype=">f4"),
        "half": np.ones(2, dtype=np.float16),
        "none": np.zeros((0, 4), dtype=np.float32),
        "single": np.array(7),
        "flags": np.array([True, False]),
    }
    saved = {"model": collections.OrderedDict(arrays), "scalar": np.float32(0.5), "list": [1, (arrays["half"], "a")]}
    path = tmp_path / "weights.pkl"
    content = pickle.dumps(saved, protocol=protocol)
    if protocol < 4:  # from protocol 4 on names have their length before them
        content = content.replace(b"numpy._core.", f"numpy.{core}.".encode())
    path.write_bytes(content)
    read = read_array_pickle(path)
    for name, array in arrays.items():
        assert read["model"][name].dtype == array.dtype
        np.testing.assert_array_equal(read["model"][name], array)
    assert read["scalar"] == 0.5
    assert read["list"][0] == 1 and read["list"][1][1] == "a"
    np.testing.assert_array_equal(read["list"][1][0], arrays["half"])


def array_as(*state):
    """An array whose pickle gives it ``state``."""
    return Forged((np._core.multiarray._reconstruct, (np.ndarray, (0,), b"b")), state)


def test_an_array_pickled_by_python_2_is_read(tmp_path):
    """Its bytes are text there."""
    array = np.array([1.5, -2.25, 1e-30], dtype=np.float32)
    path = tmp_path / "weights.pkl"
    state = (1, (3,), np.dtype("f4"), False, array.tobytes().decode("latin1"))
    path.write_bytes(pickle.dumps({"weight": array_as(*state)}, protocol=2))
    np.testing.assert_array_equal(read_array_pickle(path)["weight"], array)


@pytest.mark.parametrize(
    "forged",
    [
        np.array([object()]),
        np.array(["text"]),
        array_as(1, (10**9,), np.dtype("f4"), False, b"1234"),
        array_as(1, (1,), "f4", False, b"1234"),
        array_as("not a state"),
        Call(np._core.multiarray._reconstruct, collections.OrderedDict, (0,), b"b"),
        Call(np._core.numeric._frombuffer, b"1234", "f4", (1,), "C"),
    ],
    ids=["objects", "text", "too long", "type", "state", "class", "buffer"],
)
def test_a_forged_array_is_refused(tmp_path, forged):
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps({"weight": forged}))
    with raises_naming("weights.pkl"):
        read_array_pickle(path)


@PROTOCOLS
@pytest.mark.parametrize("name", ["posix.system", "eval", "exec", "getattr"])
@pytest.mark.parametrize("hide", [lambda attack: attack, lambda attack: {"model": {"weight": [np.ones(2), attack]}}])
def test_nothing_in_a_pickle_of_arrays_is_run(tmp_path, hide, name, protocol):
    mark, path = tmp_path / "mark", tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps(hide(attacks(mark)[name]), protocol=protocol))
    with pytest.raises(UserError) as error:
        read_array_pickle(path)
    assert str(error.value).startswith(f"{path}: refers to ")
    assert name.split(".")[-1] in str(error.value)
    assert not mark.exists()
