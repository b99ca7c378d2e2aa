"""Every caption, read by an encoder, into the feature store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from crossmodal.captions.base import CaptionEncoder
from crossmodal.features.store import SHARD_ROWS, StoreWriter
from crossmodal.runtime import progress


def encode_captions(
    encoder: CaptionEncoder, captions: Sequence[str], folder: Path, *, batch_size: int, chunk: int = SHARD_ROWS
) -> None:
    """Write a store whose row c is ``encoder``'s of caption c, and what the encoder keeps beside it.

    Goes on after the shards that ``folder`` already holds. Captions are read in chunks that begin at multiples of
    ``chunk``, wherever the last shard ended: the captions of a batch, and with them its padding and the last bits of
    its features, are those of an undisturbed run.
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
