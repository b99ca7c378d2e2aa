"""Tiles in threads: order, gradients, errors, and nothing of the process that a call changes."""

from concurrent.futures import ThreadPoolExecutor
from threading import Thread

import pytest
import torch
from test_sgraf import build, encoded

from crossmodal.models.sgraf.threads import Buffers, map_tiles


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def threads_of_a_new_thread():
    found = []
    thread = Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return found[0]


def test_tiles_are_worked_on_in_order_with_one_thread_each(two_threads):
    def work(number):
        return number, torch.get_num_threads(), torch.is_grad_enabled(), threads_of_a_new_thread()

    found = map_tiles(work, [(number,) for number in range(40)], "cpu")
    assert found == [(number, 1, False, 2) for number in range(40)]
    assert torch.get_num_threads() == threads_of_a_new_thread() == 2


def test_an_error_leaves_everything_as_it_was(two_threads):
    def work(number):
        if number == 3:
            raise ValueError(number)
        return number

    with pytest.raises(ValueError, match="3"):
        map_tiles(work, [(number,) for number in range(10)], "cpu")
    assert map_tiles(work, [(0,), (1,)], "cpu") == [0, 1]
    assert torch.get_num_threads() == threads_of_a_new_thread() == 2


def test_each_thread_has_buffers_of_its_own(two_threads):
    buffers = Buffers()
    first = buffers.take("a", torch.empty(0), 2, 3)
    assert buffers.take("a", torch.empty(0), 6).data_ptr() == first.data_ptr()
    other = []
    thread = Thread(target=lambda: other.append(buffers.take("a", torch.empty(0), 2, 3)))
    thread.start()
    thread.join()
    assert other[0].data_ptr() != first.data_ptr()


@pytest.mark.parametrize("module", ["sgr", "saf"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_eight_threads_get_the_answers_of_one(two_threads, module, precision):
    """Whole matrices and single captions, rounded and exact ones side by side."""
    model = build(module)
    model.precision = precision
    with torch.inference_mode():
        images, captions = encoded(model, 40, 24)

    def ask(number):
        sentences = captions[number % 24 : number % 24 + 1] if number % 2 else captions
        with torch.inference_mode():
            return model.similarity(images, sentences, exact=number % 3 == 0)

    expected = [ask(number) for number in range(48)]
    with ThreadPoolExecutor(8) as clients:
        for found, alone in zip(clients.map(ask, range(48)), expected, strict=True):
            torch.testing.assert_close(found, alone, atol=1e-6, rtol=0)
    assert torch.get_num_threads() == threads_of_a_new_thread() == 2
