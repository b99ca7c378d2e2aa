"""Weights are taken only where they are the network's: names, shapes, types of number, finite values."""

import pytest
import torch
from assertions import raises_naming
from safetensors.torch import save_file
from torch import nn

from crossmodal.files.weights import check_folder, check_tensors, read_tensors


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


HOSTILE = {
    "int8": lambda v: v.to(torch.int8),
    "bool": lambda v: v > 0,
    "complex": lambda v: v.to(torch.complex64),
    "NaN": lambda v: v * float("nan"),
    "infinite": lambda v: v + float("inf"),
    "one NaN": lambda v: torch.where(torch.arange(v.numel()).view(v.shape) == 5, float("nan"), v),
    "beyond float32": lambda v: v.double() * 1e300,
    "shape": lambda v: v.T.contiguous(),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_refused(tmp_path, name):
    good = network().state_dict()
    save_file(good | {"0.weight": HOSTILE[name](good["0.weight"])}, tmp_path / "a.safetensors")
    with raises_naming("'0.weight'"):
        check_tensors(read_tensors(tmp_path / "a.safetensors"), good, "a", "the network")
    if name != "shape":
        with raises_naming("'0.weight'"):
            check_folder(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_every_precision_is_taken(tmp_path, dtype):
    good = network().state_dict()
    saved = {name: value.to(dtype) if value.is_floating_point() else value for name, value in good.items()}
    save_file(saved, tmp_path / "a.safetensors")
    read = read_tensors(tmp_path / "a.safetensors")
    check_tensors(read, good, "a", "the network")
    check_folder(tmp_path)
    for name, value in saved.items():
        torch.testing.assert_close(read[name], value, rtol=0, atol=0)


def test_names(tmp_path):
    good = network().state_dict()
    with raises_naming("'0.bias'"):
        check_tensors({name: value for name, value in good.items() if name != "0.bias"}, good, "a", "the network")
    with raises_naming("'more'"):
        check_tensors(good | {"more": torch.ones(1)}, good, "a", "the network")


@pytest.mark.parametrize("content", [b"", b"12345678", b"\xff" * 100, b"\x00" * 8 + b"{}"])
def test_damaged(tmp_path, content):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with raises_naming("a.safetensors"):
        read_tensors(path)
