"""The tables of gpu_training.py and region_extraction.py, written into docs/gpu.md between two markers.

    make gpu-figures
    make gpu-figures PUBLISHED="SGRAF vse_infty"      # folders: checkouts, see published_steps.py

Without a GPU both run small and print their tables, whose figures mean nothing; the file is left alone without --write.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import gpu_training
import region_extraction
import torch
from gpu_table import markdown

from crossmodal.errors import UserError, exits_cleanly
from crossmodal.runtime import pick_device

BEGIN, END = "<!-- gpu-figures: begin -->", "<!-- gpu-figures: end -->"
DOCS = Path(__file__).resolve().parents[1] / "docs/gpu.md"


def tables(published: list[str], *, small: bool) -> str:
    """Both tables, each below its command."""
    theirs = ["--published", *published] if published else []
    commands = [
        (gpu_training, [], theirs),
        (gpu_training, ["--precision", "bf16", "--features", "device"], []),
        (region_extraction, ["--batch", "64", "--workers", "8", "--images", "2048"], []),
    ]
    if small:
        commands = [(gpu_training, ["--small"], theirs), (region_extraction, ["--small"], [])]
    parts = []
    for script, options, folders in commands:
        shown = [f"python benchmarks/{script.__name__}.py", *options, *(["--published ..."] if folders else [])]
        parts.append(f"`{' '.join(shown)}`\n\n{markdown(script.rows([*options, *folders]))}")
    device = torch.cuda.get_device_name() if pick_device().type == "cuda" else "a CPU, small sizes: no figures"
    return f"{device}, torch {torch.__version__.split('+')[0]}.\n\n" + "\n\n".join(parts)


def with_tables(text: str, found: str, name: Path) -> str:
    """A document with the tables between its markers.

    Raises:
        UserError: it has no markers.
    """
    pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    if not pattern.search(text):
        raise UserError(f"{name}: expected the lines {BEGIN} and {END}")
    return pattern.sub(lambda _: f"{BEGIN}\n\n{found}\n\n{END}", text)


@exits_cleanly
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--published", nargs="*", default=[], metavar="FOLDER")
    parser.add_argument("--docs", type=Path, default=DOCS)
    parser.add_argument("--write", action="store_true", help="write the file without a GPU too")
    options = parser.parse_args()
    gpu = pick_device().type == "cuda"
    text = options.docs.read_text(encoding="utf-8")
    with_tables(text, "", options.docs)  # says that the markers are missing before an hour of work
    found = tables(options.published, small=not gpu)
    print(found)
    if not gpu and not options.write:
        raise UserError(f"{options.docs}: left as it is, there is no GPU; --write writes it all the same")
    options.docs.write_text(with_tables(text, found, options.docs), encoding="utf-8")


if __name__ == "__main__":
    main()
