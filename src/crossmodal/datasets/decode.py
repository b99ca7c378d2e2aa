"""Image files as upright RGB pixels: the one decoder of stages, search, embed, served models and thumbnails.

A picture is read as a viewer shows it: turned as its EXIF orientation says, transparency laid on white, more than 8
bits a channel scaled to 8, the first frame or page of several. CMYK (Adobe's inverted too) becomes RGB by Pillow's
plain formula. ICC profiles are not applied: features are those of the stored values, as in the published pipelines.
"""

from __future__ import annotations

import math
import stat
import warnings
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from crossmodal.errors import UserError, without_path

try:  # Pillow itself reads no HEIC
    import pillow_heif
except ImportError:
    pillow_heif = None
else:
    pillow_heif.register_heif_opener()

# Formats that may be opened, MPO being JPEG's. Pillow's others include EPS, for which it starts Ghostscript.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", *(("HEIF",) if pillow_heif else ()))
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".heic", ".heif"),
)
NOT_FOUND = "not found"
MAX_BYTES = 2**30  # of a file
MAX_PIXELS = 120_000_000  # of a file, half of it in _HEAVY formats; about 1 GB at most while it is decoded
MAX_ASPECT = 100  # one side to the other
KEPT_PIXELS = 2**22  # of what is decoded; larger pictures are reduced to it, which bounds the memory of every network

_HEAVY = ("WEBP", "AVIF", "HEIF")  # their decoders hold several copies
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_NUMBERS = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
_STRIP = 2**20  # pixels that are scaled at a time
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")

# Of sizes, for which MAX_PIXELS is the limit here, and of damaged metadata, line by line.
warnings.filterwarnings("ignore", module=r"PIL\.")


def decode(path: Path) -> np.ndarray | str:
    """An image file as (H, W, 3) uint8 RGB, or why it cannot be read: "not found", "no image", "unreadable ...".

    H and W are ``kept_size`` of the upright picture's.
    """
    read = _read(path)
    return read if isinstance(read, str) else np.asarray(read[0])


def decode_sized(path: Path) -> tuple[np.ndarray, tuple[int, int]] | str:
    """As ``decode``, with (width, height) of the upright picture in the file."""
    read = _read(path)
    return read if isinstance(read, str) else (np.asarray(read[0]), read[1])


def upright_size(path: Path) -> tuple[int, int] | str:
    """(width, height) of the upright picture, which is decoded in full, or why it cannot be read."""
    read = _read(path)
    return read if isinstance(read, str) else read[1]


def read_image(path: Path) -> np.ndarray:
    """As ``decode``; a UserError if the file is missing, truncated, too large, or no image."""
    return np.asarray(read_thumbnail(path))


def read_thumbnail(path: Path, side: int | None = None) -> Image.Image:
    """The upright picture in RGB, its longer side reduced to ``side`` pixels; None: of ``kept_size``.

    Raises:
        UserError: as ``read_image``.
    """
    read = _read(path, side)
    if isinstance(read, str):
        raise UserError(f"{path}: {read}")
    return read[0]


def kept_size(width: int, height: int) -> tuple[int, int]:
    """Size at which a picture is decoded: its own, or that of its shape with about ``KEPT_PIXELS`` pixels."""
    scale = math.sqrt(KEPT_PIXELS / (width * height))
    return (width, height) if scale >= 1 else (max(int(width * scale), 1), max(int(height * scale), 1))


def _read(path: Path, thumbnail: int | None = None) -> tuple[Image.Image, tuple[int, int]] | str:
    """The upright picture in RGB and its size in the file; or why not. ``thumbnail``: longer side, else kept_size."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe or a device would be waited for, or read for ever
            return "unreadable image (Is a directory)" if path.is_dir() else "unreadable image (not a regular file)"
        if status.st_size > MAX_BYTES:
            return f"unreadable image ({status.st_size:,} bytes, more than {MAX_BYTES:,})"
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            if reason := _beyond_limits(width, height, MAX_PIXELS // (2 if image.format in _HEAVY else 1)):
                return f"unreadable image ({reason})"
            size = kept_size(width, height)
            if thumbnail or size != image.size:  # lets JPEG decode at a fraction of its size
                image.draft(None, (2 * thumbnail, 2 * thumbnail) if thumbnail else size)
            rawmode = image.tile[0][3] if image.format == "PNG" and image.tile else None
            image.load()
            turn = _orientation(image)
            picture = _as_plain(image, rawmode)
    except FileNotFoundError:
        return NOT_FOUND
    except UnidentifiedImageError:  # its own message names the file by its absolute path
        return "HEIC, which needs pillow-heif: pip install 'crossmodal[heic]'" if _is_unread_heic(path) else "no image"
    except Exception as error:  # Pillow's parsers raise whatever a damaged file leads them to
        return f"unreadable image ({' '.join(without_path(error).split())[:200] or type(error).__name__})"
    if thumbnail:
        picture.thumbnail((thumbnail, thumbnail), Image.Resampling.LANCZOS)
    elif picture.size != size:
        picture = picture.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
    if turn in _TURNS:
        picture = picture.transpose(_TURNS[turn])
    return _converted(picture, "RGB"), (height, width) if turn in (5, 6, 7, 8) else (width, height)


def _beyond_limits(width: int, height: int, pixels: int) -> str:
    if width * height > pixels:
        return f"{width:,} x {height:,} pixels, more than {pixels:,}"
    if max(width, height) > MAX_ASPECT * min(width, height):
        return f"{width:,} x {height:,} pixels, one side more than {MAX_ASPECT} times the other"
    return ""


def _is_unread_heic(path: Path) -> bool:
    if pillow_heif is not None:
        return False
    with path.open("rb") as file:
        head = file.read(12)
    return head[4:8] == b"ftyp" and head[8:] in _HEIC_BRANDS


def _orientation(image: Image.Image) -> int:
    """Of a loaded image, 1 to 8: metadata may follow the pixels, and loading a TIFF turns it already."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # of damaged metadata; the pixels are whole
        return 1


def _converted(image: Image.Image, mode: str) -> Image.Image:
    return image if image.mode == mode else image.convert(mode)  # convert would copy


def _as_plain(image: Image.Image, rawmode: str | None) -> Image.Image:
    """A loaded image of any mode as RGB or 8-bit grey; ``rawmode``: how a PNG stores its pixels."""
    if image.mode in _NUMBERS:
        return _as_grey(image)
    if not image.has_transparency_data:
        return _converted(image, "L" if image.mode in ("1", "L") else "RGB")
    key = image.info.get("transparency")  # a PNG has one in the file's own bits, Pillow's pixels have 8
    if rawmode in ("L;2", "L;4") and isinstance(key, int):
        image.info["transparency"] = key * (85 if rawmode == "L;2" else 17)
    elif rawmode == "RGB;16B" and isinstance(key, tuple):
        image.info["transparency"] = tuple(value >> 8 for value in key)
    clear = _converted(image, "RGBA")
    white = Image.new("RGB", image.size, "white")
    white.paste(clear, mask=clear)
    return white


def _as_grey(image: Image.Image) -> Image.Image:
    """16-bit, 32-bit and floating-point grey as 8-bit grey.

    White is the largest number of the file's bits. Where a TIFF does not tell (32 bits and floats), it is the first of
    1 (floats alone), 255 and 65,535 (integers alone) that no value is above; other values are spread from their least
    to their largest.
    """
    values, tags = np.asarray(image), getattr(image, "tag_v2", {})
    step = max(_STRIP // image.width, 1)
    strips = [slice(start, start + step) for start in range(0, image.height, step)]
    if image.mode.startswith("I;16"):
        black, white = 0.0, float(2 ** tags.get(ExifTags.Base.BitsPerSample, (16,))[0] - 1)
    elif image.format != "TIFF":
        black, white = 0.0, 65535.0
    else:
        if image.mode == "I" and tags.get(ExifTags.Base.SampleFormat, (1,))[0] == 1:
            values = values.view(np.uint32)
        finite = [part[np.isfinite(part)] for part in (values[strip] for strip in strips)]
        black = min((float(part.min()) for part in finite if part.size), default=0.0)
        white = max((float(part.max()) for part in finite if part.size), default=0.0)
        usual = [top for top in ((1, 255) if image.mode == "F" else (255, 65535)) if white <= top]
        if usual and black >= 0:
            black, white = 0.0, float(usual[0])
    if tags.get(ExifTags.Base.PhotometricInterpretation) == 0:  # white is zero, which Pillow heeds in 8 bits alone
        black, white = white, black
    grey = np.empty(values.shape, np.uint8)
    scale = 255 / (white - black) if white != black else 0.0
    for strip in strips:
        scaled = (np.nan_to_num(values[strip].astype(np.float64), nan=black) - black) * scale
        grey[strip] = np.clip(np.rint(scaled), 0, 255)
    if image.mode.startswith("I;16") and isinstance(key := image.info.get("transparency"), int):
        grey[values == key] = 255
    return Image.fromarray(grey)
