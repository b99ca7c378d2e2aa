"""Paths that settings name, room on the disk, and precisions that the machine is fast in."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from assertions import raises_naming

from crossmodal import runtime
from crossmodal.runtime import check_space, hub_name_or_path, in_units, setting_path, usable_precision

ROOT = Path(__file__).resolve().parents[1]


def test_paths_of_settings(tmp_path, monkeypatch):
    """DVC_ROOT is tmp_path here."""
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.chdir("/")
    assert setting_path("features/x.npy") == tmp_path / "features/x.npy"
    assert setting_path("/data/x.npy") == Path("/data/x.npy")
    assert setting_path("~/x.npy") == Path("/home/somebody/x.npy")


def test_a_folder_goes_before_a_hub(tmp_path):
    assert hub_name_or_path("bert-base-uncased") == "bert-base-uncased"
    (tmp_path / "bert-base-uncased").mkdir()
    assert hub_name_or_path("bert-base-uncased") == str(tmp_path / "bert-base-uncased")


def test_space_where_a_folder_is_or_would_be(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("shutil.disk_usage", lambda folder: asked.append(folder) or type("Usage", (), {"free": 1000}))
    check_space(tmp_path / "not/yet", 1000, "what just fits")
    with raises_naming("not/yet", "1.5", "1.0"):
        check_space(tmp_path / "not/yet", 1500, "the copy")
    check_space(tmp_path, 0, "nothing")
    assert asked == [tmp_path] * 3


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (13_510_573_713, "13.5 GB")]
)
def test_sizes_as_people_read_them(size, text):
    assert in_units(size) == text


@pytest.mark.parametrize(
    ("found", "fast"),
    [
        ({"avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, set()),
        ({"avx512_f": True, "avx512_bf16": True, "avx512_fp16": False}, {"bf16"}),
        ({"avx2": True, "amx_bf16": True, "amx_fp16": True}, {"bf16", "fp16"}),
        ({"avx2": True}, set()),
    ],
)
def test_a_precision_is_used_where_the_processor_is_fast_in_it(monkeypatch, found, fast):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    runtime.computes_fast.cache_clear()
    try:
        assert {name for name in ("bf16", "fp16") if usable_precision(name, "cpu", "regions.precision") == name} == fast
        assert usable_precision("fp32", "cpu", "regions.precision") == "fp32"
    finally:
        runtime.computes_fast.cache_clear()


@pytest.mark.parametrize("fast", [True, False])
def test_bf16_on_a_gpu_without_it(monkeypatch, fast):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: fast and not including_emulation)
    runtime.computes_fast.cache_clear()
    try:
        assert usable_precision("bf16", "cuda", "train.precision") == ("bf16" if fast else "fp32")
        assert usable_precision("fp16", "cuda", "train.precision") == "fp16"
    finally:
        runtime.computes_fast.cache_clear()


@pytest.mark.parametrize(("capability", "fast"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_tf32_on_a_gpu(monkeypatch, capability, fast):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    runtime.computes_fast.cache_clear()
    try:
        assert usable_precision("tf32", "cuda", "train.precision") == ("tf32" if fast else "fp32")
        assert usable_precision("tf32", "cpu", "train.precision") == "fp32"
    finally:
        runtime.computes_fast.cache_clear()


def float32_settings():
    """Of matrix products on a GPU and on the CPU, of convolutions and of recurrent networks."""
    backends = torch.backends
    parts = (backends.cuda.matmul, backends.mkldnn.matmul, backends.cudnn.conv, backends.cudnn.rnn)
    return [part.fp32_precision == "tf32" for part in parts]


@pytest.mark.parametrize(("precision", "tf32"), [("fp32", False), ("tf32", True), ("bf16", True)])
def test_products_of_float32_on_a_gpu_alone(precision, tf32):
    before = float32_settings()
    assert before == [False, False, True, True]  # torch's own
    with runtime.float32_products(precision, "cpu"):
        assert float32_settings() == before
    with pytest.raises(KeyError), runtime.float32_products(precision, "cuda"):
        matrix, _, *others = float32_settings()
        assert [matrix, *others] == [tf32] * 3
        assert torch.get_float32_matmul_precision() == ("high" if tf32 else "highest")  # Inductor asks
        raise KeyError
    assert float32_settings() == before
    assert torch.get_float32_matmul_precision() == "highest"


def test_a_run_says_once_that_it_falls_back(monkeypatch, capsys):
    monkeypatch.setattr(runtime, "computes_fast", lambda *_: False)
    runtime._say_fp32.cache_clear()
    for _ in range(3):
        assert usable_precision("bf16", "cpu", "sgraf.precision") == "fp32"
    warnings = capsys.readouterr().err
    assert warnings.count("\n") == 1
    assert "sgraf.precision bf16" in warnings


FAULTS = """
import resource
import torch
from crossmodal.runtime import keep_large_blocks

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        torch.ones(2**21)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

by_default = faults()
keep_large_blocks()
faults()  # the heap grows once
print(by_default, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="memory is kept by glibc's own settings")
def test_memory_of_freed_tensors_is_used_again():
    """50 tensors of 8 MB, one after the other: by default the system hands out each one's pages anew."""
    output = subprocess.run([sys.executable, "-c", FAULTS], check=True, capture_output=True, text=True).stdout
    by_default, kept = map(int, output.split())
    assert by_default >= 50
    assert kept < by_default / 10


@pytest.mark.parametrize(
    ("stages", "libraries"),
    [
        (("settings", "download", "relevance"), {"torch", "transformers", "mlflow"}),
        (("captions", "train", "report"), {"transformers", "timm", "torchvision", "mlflow", "sympy"}),
    ],
)
def test_a_stage_starts_without_libraries_that_it_need_not_import(stages, libraries):
    """Each takes seconds of every run."""
    code = f"import sys, {', '.join(f'stages.{stage}' for stage in stages)}\nprint({libraries} & set(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
