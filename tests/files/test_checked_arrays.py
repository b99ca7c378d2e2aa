"""Arrays whose headers claim more than their file holds; what is sound is read as NumPy reads it."""

import hashlib
import struct
import tracemalloc
import zipfile
from dataclasses import dataclass

import faiss
import numpy as np
import pytest
from assertions import raises_naming

from crossmodal.errors import UserError
from crossmodal.files.checked_arrays import load_arrays, read_npy, read_npz, save_arrays
from crossmodal.retrieval.index import IndexKind, build_index, read_index, save_index


def npy(shape, dtype="<f4", content=b""):
    header = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape!r}}}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1) + header + b"\n" + content


HOSTILE = {
    "2^36": npy((2**36,)),
    "2^50": npy((2**25, 2**25)),
    "one more": npy((3,), content=bytes(8)),
    "negative": npy((-1,)),
    "objects": npy((1,), "|O", bytes(8)),
    "text shape": npy("many"),
    "cut": npy((3,))[:40],
    "empty": b"",
    "nested": npy((3,)).replace(b"'<f4'", b"[" * 200),
}
NAMED = {"2^36": "(68719476736,)", "2^50": "(33554432, 33554432)", "objects": "Python objects", "text shape": "'many'"}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_refused(tmp_path, name):
    path, archive = tmp_path / "a.npy", tmp_path / "a.npz"
    path.write_bytes(HOSTILE[name])
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.npy", HOSTILE[name])
    tracemalloc.start()
    for read, hostile in ((read_npy, path), (read_npz, archive)):
        with raises_naming(hostile, "as arrays", NAMED.get(name, "")):
            read(hostile, "arrays")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 22


def test_an_archive_that_unpacks_to_a_thousand_times_its_size(tmp_path):
    np.savez_compressed(tmp_path / "bomb.npz", a=np.zeros(1 << 23, dtype=np.uint8))
    with raises_naming(tmp_path / "bomb.npz", "as arrays", "a.npy", "8,388,736"):
        read_npz(tmp_path / "bomb.npz", "arrays")


@pytest.mark.parametrize("dtype", ["f2", "f4", "i8", "?", "U3", ">f8"])
def test_what_is_sound_is_read(tmp_path, dtype):
    values = np.arange(12).reshape(3, 4).astype(dtype)
    for array in (values, values.T, values[:0], values[0, 0]):
        np.save(tmp_path / "a.npy", array)
        np.savez(tmp_path / "a.npz", a=array, b=values)
        read = read_npz(tmp_path / "a.npz", "arrays")
        np.testing.assert_array_equal(read_npy(tmp_path / "a.npy", "an array"), array)
        np.testing.assert_array_equal(read["a"], array)
        np.testing.assert_array_equal(read["b"], values)


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


@pytest.mark.parametrize("factory", ["Flat", "HNSW8", "IVF4,Flat"])
def test_an_index_that_claims_more_than_its_file(tmp_path, factory):
    vectors = np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32)
    index = build_index(vectors, IndexKind(factory))
    save_index(index, tmp_path / "good.faiss")
    content = (tmp_path / "good.faiss").read_bytes()
    limit = faiss.get_deserialization_vector_byte_limit()
    refused = 0
    for at in range(0, 120, 3):
        for claimed in (2**36, 2**50):
            (tmp_path / "bad.faiss").write_bytes(content[:at] + struct.pack("<q", claimed) + content[at + 8 :])
            try:
                read = read_index(tmp_path / "bad.faiss")
            except UserError as error:
                assert "\n" not in str(error)
                refused += 1
            else:
                assert read.ntotal <= 8 * len(content)
    assert refused > 10
    assert faiss.get_deserialization_vector_byte_limit() == limit
    expected, found = index.search(vectors[:5], 3), read_index(tmp_path / "good.faiss").search(vectors[:5], 3)
    np.testing.assert_array_equal(found[1], expected[1])
