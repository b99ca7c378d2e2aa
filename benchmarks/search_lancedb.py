"""Search exported images with LanceDB: one vector an image, or sets compared by MaxSim, the sum of the best cosines.

    crossmodal export --format lance vectors/
    python benchmarks/search_lancedb.py vectors/

Prints R@1, R@5, R@10 of the captions as queries. Needs lancedb, in the extra ``engines``. MaxSim is the score of TERAN
with alignment MrSw; MrAVGw is its mean over a caption's words, which ranks images alike. Without an index the search is
exact; ``table.create_index(metric="cosine", vector_column_name="vectors")`` makes an approximate one for many images.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import lancedb
import numpy as np

BATCH = 256


def search(table: lancedb.table.Table, query: np.ndarray, k: int) -> list[tuple[str, float]]:
    """Ids and distances of the k best images for a caption's vector (E,) or words (W, E), best first."""
    column = "vectors" if "vectors" in table.schema.names else "vector"
    found = table.search(query, vector_column_name=column).metric("cosine").limit(k)
    return [(row["id"], row["_distance"]) for row in found.select(["id", "_distance"]).to_list()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="that crossmodal export --format lance wrote")
    arguments = parser.parse_args()
    database = lancedb.connect(arguments.folder)
    images, ranks = database.open_table("images"), []
    count = images.count_rows()
    for row in database.open_table("captions").to_arrow().to_pylist():
        query = np.asarray(row["vectors" if "vectors" in row else "vector"], dtype=np.float32)
        found = [image for image, _ in search(images, query, 10)]
        ranks.append(found.index(row["image"]) if row["image"] in found else count)
    recalls = ", ".join(f"R@{k} {100 * np.mean(np.array(ranks) < k):.1f}" for k in (1, 5, 10))
    print(f"{len(ranks):,} captions, {count:,} images: {recalls}")


if __name__ == "__main__":
    main()
