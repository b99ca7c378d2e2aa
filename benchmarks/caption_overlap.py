"""How many captions of the dataset's test split are in other files word for word, case and punctuation aside.

    python benchmarks/caption_overlap.py flickr30k_train.jsonl flickr30k_val.jsonl flickr30k_test.jsonl
    python benchmarks/caption_overlap.py --fitted flickr30k_train.jsonl      # of what bert.captions takes from the file

The dataset is that of data/dataset. What a published encoder was trained on is in its model card. The field ``overlap``
of reproduction.yaml has the counts of the recipes. With --fitted the training captions count too: short sentences
("a dog runs through the grass") are captions of several photographs.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from crossmodal.captions.further import join_captions, word_for_word
from crossmodal.datasets.caption_files import read_caption_file
from crossmodal.datasets.records import ImageRecord, read_dataset
from crossmodal.errors import exits_cleanly
from crossmodal.paths import DATASET


def overlaps(records: Sequence[ImageRecord], files: Sequence[Path], *, fitted: bool) -> list[tuple[str, int]]:
    """Test captions found in each file, by its name, and in all of them together.

    Args:
        fitted: count in the training captions and what ``join_captions`` takes from the file, as the bert stage does.
    """
    test = [caption for record in records if record.split == "test" for caption in record.captions]
    known: dict[str, list[str]] = {}
    for path in files:
        images = join_captions(records, path).images if fitted else _captions(path)
        known[path.name] = [caption for image in images for caption in image]
    known["together"] = [caption for captions in known.values() for caption in captions]
    return [(name, word_for_word(test, captions)) for name, captions in known.items()]


def _captions(path: Path) -> list[list[str]]:
    return [image.captions for image in read_caption_file(path)[0].values()]


@exits_cleanly
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="captions in a form of dataset folder")
    parser.add_argument(
        "--fitted", action="store_true", help="as the bert stage joins the file, held-out ones left out"
    )
    arguments = parser.parse_args()
    records = read_dataset(DATASET).records
    total = sum(len(record.captions) for record in records if record.split == "test")
    for name, count in overlaps(records, arguments.files, fitted=arguments.fitted):
        print(f"{count:>6,} of {total:,}  {name}")


if __name__ == "__main__":
    main()
