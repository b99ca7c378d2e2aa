"""Shards whose datasets are not where their offsets say, and indexes that claim what is not there."""

import json

import h5py
import numpy as np
import pytest
from single_changes import changed, single_changes

from crossmodal.errors import UserError
from crossmodal.features.store import FeatureStore, StoreWriter

ROWS = [np.arange(8, dtype=np.float32).reshape(2, 4), np.ones((3, 4), dtype=np.float32)]


@pytest.fixture
def folder(tmp_path):
    for name in ("store", "other"):
        writer = StoreWriter(tmp_path / name, {"features": ("float32", (4,))})
        for row in ROWS:
            writer.append({"features": row if name == "store" else row + 100})
        writer.close({"made": "by a test"})
    return tmp_path / "store"


def replaced(file, name="features", **options):
    values = file[name][:]
    del file[name]
    file.create_dataset(name, data=values, **options)


def external_link(file):
    del file["features"]
    file["features"] = h5py.ExternalLink("../other/00000.h5", "features")


def soft_link(file):
    file.move("features", "hidden")
    file["features"] = h5py.SoftLink("/hidden")


def virtual(file):
    del file["features"]
    layout = h5py.VirtualLayout(shape=(5, 4), dtype="float32")
    layout[:] = h5py.VirtualSource("../other/00000.h5", "features", shape=(5, 4))
    file.create_virtual_dataset("features", layout)


def external_storage(file):
    del file["features"]
    file.create_dataset("features", shape=(5, 4), dtype="float32", external=[("../other/00000.h5", 0, 80)])


def group(file):
    del file["features"]
    file.create_group("features")


def lengths(*values, dtype="int32"):
    def change(file):
        del file["lengths"]
        file.create_dataset("lengths", data=np.array(values, dtype=dtype))

    return change


def claims(file):
    del file["features"]
    file.create_dataset("features", shape=(2**40, 4), dtype="float32")


def lengths_that_claim(file):
    del file["lengths"]
    file.create_dataset("lengths", shape=(2**40,), dtype="int32")


HOSTILE = {
    "external link": external_link,
    "soft link": soft_link,
    "virtual": virtual,
    "external storage": external_storage,
    "group": group,
    "chunked": lambda file: replaced(file, chunks=(2, 4)),
    "compressed": lambda file: replaced(file, compression="gzip"),
    "other type": lambda file: replaced(file, dtype="float64"),
    "negative length": lengths(6, -1),
    "longer": lengths(2, 4),
    "floats as lengths": lengths(2, 3, dtype="float64"),
    "more rows": lengths(2, 2, 1),
    "lengths in chunks": lambda file: replaced(file, "lengths", chunks=(1,)),
    "claims 2^44 bytes": claims,
    "claims 2^40 rows": lengths_that_claim,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_shard_is_refused(folder, name):
    with h5py.File(folder / "00000.h5", "r+") as file:
        HOSTILE[name](file)
    with pytest.raises(UserError) as error:
        FeatureStore(folder)
    assert str(error.value).startswith(f"{folder / '00000.h5'}: ") and "\n" not in str(error.value)


def test_the_honest_one_is_read(folder):
    store = FeatureStore(folder)
    for number, row in enumerate(ROWS):
        np.testing.assert_array_equal(store.read(number, "features"), row)
    assert store.metadata == {"made": "by a test"}


OTHER_TYPES = (None, True, -1, 2**70, 1.5, "text", [], {}, ["a"], {"a": 1})


def test_every_single_change_of_the_index_gives_a_line_or_the_same_rows(folder):
    path = folder / "index.json"
    good = json.loads(path.read_text())
    refused = 0
    for place in single_changes(good):
        for value in OTHER_TYPES:
            path.write_text(json.dumps(changed(good, place, value)))
            try:
                store = FeatureStore(folder)
            except UserError as error:
                assert "\n" not in str(error)
                refused += 1
                continue
            assert place[0] == "metadata" or place[-1] == "sha256" or not (store.arrays and len(store))
    assert refused > 60
