"""contact-sheet.jpg: some rows of the sheets that the report stage drew, small enough for the README.

python docs/make_contact_sheet.py               # after dvc repro

Queries are drawn at random by the report stage; of the six of each sheet every second is shown.
"""

from pathlib import Path

from PIL import Image

from crossmodal.paths import REPORT
from crossmodal.reports.sheets import GAP, HEAD, MARGIN, TILE, WIDTH

OUT = Path(__file__).parent / "pictures/contact-sheet.jpg"
SHEETS = {"text-to-image.png": (TILE + 36, (1, 3, 5)), "image-to-text.png": (TILE + 8, (0, 2, 4))}  # height, rows
SHOWN_WIDTH = 1100


def rows_of(path: Path, height: int, rows: tuple[int, ...]) -> Image.Image:
    """The heading of a sheet and some of its rows, each ``height`` pixels high with a gap above and below."""
    pitch = height + 2 * GAP
    with Image.open(path) as image:
        sheet = image.convert("RGB")
    part = Image.new("RGB", (WIDTH, HEAD + len(rows) * pitch), "white")
    part.paste(sheet.crop((0, 0, WIDTH, HEAD)), (0, 0))
    for number, row in enumerate(rows):
        top = HEAD + row * pitch
        part.paste(sheet.crop((0, top, WIDTH, top + pitch)), (0, HEAD + number * pitch))
    return part


def main() -> None:
    parts = [rows_of(REPORT / name, *which) for name, which in SHEETS.items()]
    whole = Image.new("RGB", (WIDTH, sum(part.height for part in parts) + MARGIN), "white")
    top = 0
    for part in parts:
        whole.paste(part, (0, top))
        top += part.height
    size = (SHOWN_WIDTH, whole.height * SHOWN_WIDTH // WIDTH)
    whole.resize(size, Image.Resampling.LANCZOS).save(OUT, quality=82, optimize=True)
    print(f"{OUT}: {OUT.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
