"""SGRAF's compiled products against torch, whatever the sizes, the type, the instructions and the compiler."""

import ctypes
import math
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from sgraf_library import INSTRUCTIONS, needs_compiler, use_library
from sgraf_library import random_sets as sets_of

from crossmodal.models.sgraf import compiled
from crossmodal.models.sgraf.equations import GraphReasoning, PairScorer
from crossmodal.models.sgraf.fast import score_matrix
from crossmodal.models.sgraf.graph import graph_steps, reason_over_graph
from crossmodal.models.sgraf.threads import Buffers


@pytest.fixture
def compile_for(monkeypatch, tmp_path_factory):
    """Takes the library for a processor's instructions."""
    return partial(use_library, monkeypatch=monkeypatch, tmp_path_factory=tmp_path_factory)


def random_sets(number, most, least, seed=0):
    return sets_of(number, most, least, 96, seed)


def scorer_of(module, dim=96):
    torch.manual_seed(0)
    return PairScorer(module, dim, 64, steps=3, lambda_softmax=9.0).eval()


@needs_compiler
@pytest.mark.parametrize("instructions", INSTRUCTIONS)
@pytest.mark.parametrize("targets", [1, 13, 14, 15, 45])
@pytest.mark.parametrize("regions", [1, 6, 7])
def test_vectors_against_torch(compile_for, instructions, targets, regions):
    compile_for(instructions)
    torch.manual_seed(targets)
    images, dim, size = 3, 544, 64  # more than two depths of numbers
    weights, values = torch.rand(images, targets, regions), torch.randn(images, regions, dim)
    words, weight, bias = torch.randn(targets, dim), torch.randn(size, dim), torch.randn(size)
    out = torch.full((images, 1, targets + 2, size), math.pi)
    compiled.pack_map(weight, bias, torch.float32).fill_vectors(out[:, :, 1:-1], weights, values, words)
    expected = F.normalize(F.linear((weights @ values - words).square(), weight, bias), dim=-1)
    torch.testing.assert_close(out[:, 0, 1:-1], expected, atol=1e-5, rtol=0)
    assert (out[:, :, [0, -1]] == math.pi).all(), "rows between those that are written"


@needs_compiler
@pytest.mark.parametrize("instructions", INSTRUCTIONS)
@pytest.mark.parametrize(("pairs", "nodes", "size"), [(1, 1, 32), (5, 17, 288), (40, 9, 64)])
@pytest.mark.parametrize("steps", [1, 3])
def test_reasoning_against_the_equations(compile_for, instructions, pairs, nodes, size, steps):
    compile_for(instructions)
    torch.manual_seed(0)
    graph, vectors = GraphReasoning(size, steps), torch.randn(pairs, nodes, size)
    vectors[-1, -1, 0] = math.nan
    with torch.no_grad():
        expected = graph(vectors)
        packed = graph_steps(graph, lambda weight, bias: compiled.pack_map(weight, bias, torch.float32))
        made = reason_over_graph(vectors.clone(), packed, Buffers())
    torch.testing.assert_close(made, expected, atol=1e-5, rtol=1e-5, equal_nan=True)
    assert made[:-1].isfinite().all() and made[-1].isnan().any()


@needs_compiler
def test_bf16_products_are_of_bf16_numbers_summed_in_fp32():
    if not compiled.packs(torch.empty(64, 1056), torch.bfloat16):
        pytest.skip("a processor without AVX512-BF16")
    torch.manual_seed(0)
    weight, bias = torch.randn(64, 1056), torch.randn(64)
    weights, regions, words = torch.rand(2, 15, 7).bfloat16(), torch.randn(2, 7, 1056).bfloat16(), torch.randn(15, 1056)
    out = torch.empty(2, 3, 5, 64)
    compiled.pack_map(weight, bias, torch.bfloat16).fill_vectors(out, weights, regions, words)
    squares = (weights.double() @ regions.double() - words).square().float().bfloat16()
    expected = F.normalize(F.linear(squares.double(), weight.bfloat16().double(), bias.double()), dim=-1)
    torch.testing.assert_close(out.flatten(1, 2).double(), expected, atol=2e-3, rtol=0)

    graph, nodes = GraphReasoning(1056, 1), torch.randn(29, 3, 1056)
    with torch.no_grad():
        (step,) = graph_steps(graph, lambda weight, bias: compiled.pack_map(weight, bias, torch.bfloat16))
        made = reason_over_graph(nodes.clone(), [step], Buffers())
        ((query, update),) = [[step["key"].weight.T @ step["query"].weight, step["map"].weight] for step in graph.steps]
        bias = graph.steps[0]["key"].weight.T @ graph.steps[0]["query"].bias
        query, update = query.bfloat16().double(), update.bfloat16().double()
        edges = (nodes @ (F.linear(nodes[:, 0].bfloat16().double(), query) + bias).float().unsqueeze(2)).softmax(dim=1)
        messages = (edges.mT @ nodes).squeeze(1).bfloat16().double()
        expected = F.linear(messages, update, graph.steps[0]["map"].bias.double()).relu()
    torch.testing.assert_close(made.double(), expected, atol=1e-2, rtol=0)


@needs_compiler
@pytest.mark.parametrize("instructions", INSTRUCTIONS)
@pytest.mark.parametrize("module", ["sgr", "saf"])
@pytest.mark.parametrize("tile", [None, 1, 20_000])
def test_scores_are_those_of_torch(compile_for, monkeypatch, instructions, module, tile):
    images, captions, scorer = random_sets(9, 6, 2), random_sets(23, 10, 2, seed=1), scorer_of(module)
    compile_for(instructions)
    with torch.inference_mode():
        made = score_matrix(scorer, images, captions, tile=tile)
        monkeypatch.setattr(compiled, "library", lambda: None)
        expected = score_matrix(scorer, images, captions, tile=tile)
    torch.testing.assert_close(made, expected, atol=1e-6, rtol=0)
    assert not torch.equal(made, expected), "the compiled form was not used"


@needs_compiler
@pytest.mark.parametrize("module", ["sgr", "saf"])
def test_bf16_scores_are_near(module):
    images, captions = random_sets(9, 6, 2), random_sets(23, 10, 2, seed=1)
    with torch.inference_mode():
        made, expected = (score_matrix(scorer_of(module), images, captions, bf16=bf16) for bf16 in (True, False))
    torch.testing.assert_close(made, expected, atol=1e-2, rtol=0)


@needs_compiler
@pytest.mark.parametrize("module", ["sgr", "saf"])
def test_captions_of_no_word_are_compared_as_a_whole(monkeypatch, module):
    images, captions, scorer = random_sets(3, 6, 2), random_sets(4, 1, 1, seed=1), scorer_of(module)
    with torch.inference_mode():
        made = score_matrix(scorer, images, captions)
        monkeypatch.setattr(compiled, "library", lambda: None)
        torch.testing.assert_close(made, score_matrix(scorer, images, captions), atol=1e-6, rtol=0)


@needs_compiler
def test_a_row_that_is_not_finite_is_nan_as_in_torch():
    torch.manual_seed(0)
    weights, values, words = torch.rand(2, 3, 4), torch.randn(2, 4, 96), torch.randn(3, 96)
    weight, bias, out = torch.randn(64, 96), torch.randn(64), torch.empty(2, 1, 3, 64)
    bias[5] = math.nan
    compiled.pack_map(weight, bias, torch.float32).fill_vectors(out, weights, values, words)
    assert out.isnan().all()


@needs_compiler
def test_sizes_beyond_32_bits():
    """Of no image, so that no memory is needed: products of sizes that are 2^32 would be 0 in an int."""
    found, many, sizes = compiled.library(), 2**24, [32, 64, 1, 2**24, ctypes.c_float(1e-8), 0]
    found.squared_differences(*[None] * 8, 0, many, 1, *sizes)
    found.reason(None, None, (ctypes.c_void_p * 4)(), None, 0, many, 64, 1, 0)


@needs_compiler
def test_sizes_it_is_not_made_for_go_to_torch():
    assert compiled.packs(torch.empty(64, 96), torch.float32)
    assert not compiled.packs(torch.empty(6, 96), torch.float32)
    assert not compiled.packs(torch.empty(64, 90), torch.float32)
    assert not compiled.packs(torch.empty(64, 96), torch.float64)


@needs_compiler
def test_compiled_once_into_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert compiled.library.__wrapped__() is not None
    assert len(list((tmp_path / "crossmodal").iterdir())) == 1, "nothing but the library stays"

    def refuse(*_):
        raise AssertionError("compiled again")

    monkeypatch.setattr(compiled, "_compile", refuse)
    assert compiled.library.__wrapped__() is not None


@needs_compiler
def test_a_damaged_library_is_compiled_again(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(compiled, "FLAGS", ("-O0", "-shared", "-fPIC"))
    assert compiled.library.__wrapped__() is not None
    (file,) = (tmp_path / "crossmodal").iterdir()
    for damaged in (b"", b"no library"):
        file.unlink()
        file.write_bytes(damaged)
        assert compiled.library.__wrapped__().width() > 0
    subprocess.run(["cc", "-shared", "-o", file, "-xc", "-"], input=b"int width(void) { return 0; }", check=True)
    assert compiled.library.__wrapped__().width() > 0


@needs_compiler
def test_compiled_by_two_processes_together(tmp_path, monkeypatch):
    """Each writes a file of its own and moves it to its name, whichever is last."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(compiled, "FLAGS", ("-O0", "-shared", "-fPIC"))
    together, compile_ = threading.Barrier(2, timeout=60), compiled._compile

    def compile_together(*arguments):
        together.wait()
        compile_(*arguments)

    monkeypatch.setattr(compiled, "_compile", compile_together)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: compiled.library.__wrapped__(), range(2)))
    assert all(library.width() > 0 for library in found)
    assert len(list((tmp_path / "crossmodal").iterdir())) == 1


@needs_compiler
def test_the_compiler_may_have_options(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(compiled, "FLAGS", ("-O0", "-shared", "-fPIC"))
    for compiler in ("cc -g0", ""):
        monkeypatch.setenv("CC", compiler)
        assert compiled.library.__wrapped__() is not None
    assert len(list((tmp_path / "crossmodal").iterdir())) == 2, "a library of its own for other options"


@pytest.mark.parametrize("compiler", ["no-such-compiler", "false", "cc 'unclosed"])
def test_without_a_compiler_torch_does_the_work(tmp_path, monkeypatch, compiler):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CC", compiler)
    assert compiled.library.__wrapped__() is None
    monkeypatch.setattr(compiled, "library", compiled.library.__wrapped__)
    with torch.inference_mode():
        scores = score_matrix(scorer_of("sgr"), random_sets(3, 6, 2), random_sets(4, 9, 2))
    assert torch.isfinite(scores).all()


def test_a_compiler_that_fails_or_a_full_disk_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for fault in (OSError("No space left on device"), subprocess.CalledProcessError(1, "cc")):

        def fail(*_, fault=fault):
            raise fault

        monkeypatch.setattr(compiled, "_compile", fail)
        assert compiled.library.__wrapped__() is None
        assert capsys.readouterr().err.count("\n") == 1
