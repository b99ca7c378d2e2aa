"""Encoding of all captions into the feature store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from crossmodal.captions.base import CaptionEncoder
from crossmodal.features.store import SHARD_ROWS, StoreWriter
from crossmodal.runtime import progress


def encode_captions(
    encoder: CaptionEncoder, captions: Sequence[str], folder: Path, *, batch_size: int, chunk: int = SHARD_ROWS
) -> None:
    """Write a store with one row a caption, and the encoder's own files.

    Resumes after the shards that ``folder`` already holds. Chunks begin at multiples of ``chunk``, wherever the last
    shard ended: batches, their padding and so the last bits of features are those of an uninterrupted run.
    """
    writer = StoreWriter(folder, encoder.arrays)
    done = len(writer)
    bar = progress(total=len(captions), initial=done, desc="captions", unit="caption")
    for start in range(done - done % chunk, len(captions), chunk):
        rows = encoder.rows(captions[start : start + chunk], batch_size)
        for row in rows[max(0, done - start) :]:
            writer.append(row)
            bar.update()
    bar.close()
    writer.close(encoder.metadata)
    encoder.save(folder)
