"""Arrays of a dataclass in an .npz whose bytes depend on the arrays alone."""

import hashlib
from dataclasses import dataclass

import numpy as np

from crossmodal.files.arrays import load_arrays, save_arrays


@dataclass(frozen=True)
class Pair:
    ranks: np.ndarray
    depth: int


def test_same_arrays_are_the_same_bytes_on_every_python(tmp_path):
    pair = Pair(np.arange(6, dtype=np.int64).reshape(2, 3), 4)
    save_arrays(pair, tmp_path / "a.npz")
    content = (tmp_path / "a.npz").read_bytes()
    assert hashlib.sha256(content).hexdigest() == "110f2be9bc459bf4e2c1c6fa443a2e0b04f66eaa9087e9aaf1b8e31eef40dcc9"
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:  # as NumPy's own are read
        assert list(arrays) == ["ranks", "depth"]
        np.testing.assert_array_equal(arrays["ranks"], pair.ranks)
    assert load_arrays(Pair, tmp_path / "a.npz").depth == 4
