"""Checkpoints that claim more than they hold, and state dicts of other types than torch's."""

import argparse
import tracemalloc
import zipfile
from collections import OrderedDict

import pytest
import torch
from assertions import raises_naming

from crossmodal.errors import UserError
from crossmodal.published.checkpoints import import_checkpoint
from crossmodal.published.unpickle import read_array_pickle, read_checkpoint


def test_strides_of_zero(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"model": {"fc.weight": torch.zeros(1).expand(30_000, 30_000)}}, path)
    assert path.stat().st_size < 5000
    with raises_naming(path, "(30000, 30000)", "fewer"):
        read_checkpoint(path)


def test_views_of_what_is_there_are_taken(tmp_path):
    values = torch.arange(12.0).view(3, 4)
    torch.save({"model": {"a": values.T, "b": values[1:], "c": values[:0]}}, tmp_path / "a.pth")
    read = read_checkpoint(tmp_path / "a.pth")["model"]
    torch.testing.assert_close(read["a"], values.T)
    torch.testing.assert_close(read["b"], values[1:])


def test_a_checkpoint_that_unpacks(tmp_path):
    torch.save({"model": {"weight": torch.zeros(1 << 20)}}, tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth") as source, zipfile.ZipFile(tmp_path / "b.pth", "w", 8) as packed:
        for name in source.namelist():
            packed.writestr(name, source.read(name))
    first = packed.infolist()[0]
    sizes = f"{first.compress_size:,} to {first.file_size:,} bytes"
    tracemalloc.start()
    with raises_naming(tmp_path / "b.pth", repr(first.filename), sizes, "torch.save"):
        read_checkpoint(tmp_path / "b.pth")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20
    assert len(read_checkpoint(tmp_path / "a.pth")["model"]["weight"]) == 1 << 20


def test_lists_that_hold_one_another(tmp_path):
    import pickle

    circle = [torch.ones(1)]
    circle.append(circle)
    many = [1]
    for _ in range(60):
        many = [many, many]  # 2^60 paths, 61 lists
    for name, content in (("circle", circle), ("many", many)):
        torch.save({"model": content}, tmp_path / name)
        with pytest.raises(UserError):
            import_checkpoint("tern", [tmp_path / name], None, "key")
    (tmp_path / "many.pkl").write_bytes(pickle.dumps({"a": many}))
    assert len(read_array_pickle(tmp_path / "many.pkl")["a"]) == 2
    (tmp_path / "circle.pkl").write_bytes(pickle.dumps([circle[1:]]))
    with pytest.raises(UserError):
        read_array_pickle(tmp_path / "circle.pkl")


@pytest.mark.parametrize(
    "content",
    [
        {"model": {1: torch.ones(2)}},
        {"model": {None: torch.ones(2), "a": torch.ones(2)}},
        {"model": [{("a", "b"): torch.ones(2)}]},
        {"model": OrderedDict(a=torch.ones(2)), "opt": argparse.Namespace(no_imgnorm=torch.ones(3), num_layers=[1])},
        {"model": OrderedDict(a=torch.ones(2)), "opt": argparse.Namespace(precomp_enc_type=torch.ones(3))},
        {"model": OrderedDict(a=torch.ones(2)), "config": {"training": {"measure": torch.ones(2), 3: 4}, 5: 6}},
    ],
)
@pytest.mark.parametrize("project", ["tern", "teran", "sgraf", "vse_infty"])
def test_keys_and_options_of_other_types(tmp_path, content, project):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(UserError) as error:
        import_checkpoint(project, [tmp_path / "a.pth"], None, "key")
    assert "\n" not in str(error.value)
