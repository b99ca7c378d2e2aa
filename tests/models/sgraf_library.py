"""SGRAF's compiled library for several processors, and random sets to score."""

import shutil

import pytest
import torch
import torch.nn.functional as F

from crossmodal.batch import Encoding
from crossmodal.models.sgraf import compiled

INSTRUCTIONS = {"native": ("-march=native",), "plain": (), "avx2": ("-march=haswell",)}
needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler (cc)")


def use_library(instructions, monkeypatch, tmp_path_factory):
    """The library compiled for these instructions, in a cache folder of the tests, which the models then use."""
    if instructions == "avx2" and "AVX2" not in torch.backends.cpu.get_cpu_capability().replace("512", "2"):
        pytest.skip("a processor without AVX2")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "libraries"))
    monkeypatch.setattr(compiled, "FLAGS", ("-O2", *INSTRUCTIONS[instructions], "-shared", "-fPIC"))
    found = compiled.library.__wrapped__()
    assert found is not None
    monkeypatch.setattr(compiled, "library", lambda: found)
    return found


def random_sets(number, most, least, dim, seed=0):
    """``number`` sets of ``least`` to ``most`` vectors of length 1."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(most) < torch.randint(least, most + 1, (number, 1), generator=generator)
    vectors = F.normalize(torch.randn(number, most, dim, generator=generator), dim=-1)
    return Encoding(vectors.masked_fill(~mask.unsqueeze(-1), 0), mask)
