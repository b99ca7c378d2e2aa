"""Captions into the store: a run that was killed goes on to the bytes of one that was not."""

import shutil

import numpy as np
import pytest

from crossmodal.captions.base import FEATURES, IDS, CaptionEncoder, store_captions
from crossmodal.features import store
from crossmodal.features.store import FeatureStore

CAPTIONS = ["word " * (1 + 7 * number % 11) for number in range(30)]
CHUNK, BATCH = 8, 3


class Padded(CaptionEncoder):
    """Features that tell what a caption was padded to, as the last bits of a network's do."""

    def __init__(self, max_tokens):
        super().__init__(max_tokens)
        self.size, self.arrays = 1, {FEATURES: ("float16", (1,)), IDS: ("int32", ())}

    @classmethod
    def load(cls, bert, vocabulary, max_tokens):
        return cls(max_tokens)

    def ids(self, texts):
        return [list(range(len(text.split()))) for text in texts]

    def features(self, ids, batch_size):
        starts = range(0, len(ids), batch_size)
        longest = [max(map(len, ids[first : first + batch_size])) for first in starts]
        return [np.full((len(row), 1), longest[number // batch_size]) for number, row in enumerate(ids)]


@pytest.mark.parametrize("shard_bytes", [60, 150, 10_000])
def test_a_killed_run_goes_on_in_the_same_chunks(tmp_path, monkeypatch, shard_bytes):
    """Wherever it was killed: a shard may end, by its bytes, in the middle of a chunk."""
    monkeypatch.setattr(store, "SHARD_BYTES", shard_bytes)
    store_captions(Padded(40), CAPTIONS, tmp_path / "whole", batch_size=BATCH, chunk=CHUNK)
    whole = FeatureStore(tmp_path / "whole")
    expected = [max(len(text.split()) for text in CAPTIONS[i : min(i + BATCH, 8)]) for i in (0, 3, 6)]
    assert [whole.read(row, FEATURES)[0, 0] for row in (0, 3, 6)] == expected
    shards = sorted((tmp_path / "whole").glob("*.h5"))
    assert shard_bytes == 10_000 or len(shards) > len(CAPTIONS) // CHUNK + 1
    for kept in range(len(shards)):
        cut = tmp_path / f"cut {kept}"
        cut.mkdir()
        for path in shards[:kept]:
            shutil.copy(path, cut)
        store_captions(Padded(40), CAPTIONS, cut, batch_size=BATCH, chunk=CHUNK)
        for path in (tmp_path / "whole").iterdir():
            assert path.read_bytes() == (cut / path.name).read_bytes(), (kept, path.name)
