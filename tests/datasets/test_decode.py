"""Photographs are read as a viewer shows them, and what is no photograph costs neither memory nor time."""

import os
import re
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from odd_photographs import upright, write_page
from PIL import EpsImagePlugin, Image

from crossmodal.datasets.decode import decode, kept_size, read_thumbnail, upright_size

ROOT = Path(__file__).resolve().parents[2]

LOSSY = {".jpg": 1.5, ".jfif": 1.5, ".avif": 1.5, ".mpo": 1.5}  # mean difference of a value


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Folder of the files, and by name the picture that each shows."""
    folder = tmp_path_factory.mktemp("page")
    return folder, write_page(folder)


def test_every_file_shows_its_picture(page):
    folder, pictures = page
    assert len(pictures) > 50
    for name, picture in pictures.items():
        pixels, expected = decode(folder / name), np.asarray(picture).astype(int)
        assert not isinstance(pixels, str), (name, pixels)
        assert (pixels.shape, pixels.dtype) == ((80, 120, 3), np.uint8), name
        assert np.abs(pixels - expected).mean() <= LOSSY.get(Path(name).suffix, 0), name
        assert upright_size(folder / name) == (120, 80), name
        small = picture.copy()
        small.thumbnail((48, 48), Image.Resampling.LANCZOS)
        assert np.abs(np.asarray(read_thumbnail(folder / name, 48)).astype(int) - small).mean() < 6, name


def test_features_are_those_of_the_picture(page, tmp_path):
    """Of a grid of cells: a turned photograph gives the cells of the upright one, which its stored pixels do not."""
    import timm
    import torch
    from safetensors.torch import save_file

    from crossmodal.regions.grid import GridExtractor, fetch_backbone
    from crossmodal.settings.features import Grid

    torch.manual_seed(0)
    name, weights = "mobilenetv3_small_050", tmp_path / "weights.safetensors"
    save_file(timm.create_model(name).state_dict(), weights)
    fetch_backbone(
        Grid(model=name, kwargs={}, weights=str(weights), image_size=96, mean=None, std=None, trained=0), tmp_path
    )
    extractor = GridExtractor(tmp_path)

    def features(images):
        return np.stack([regions.features for regions in extractor(images)])  # (N, cells, D)

    def cosine(a, b):
        a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
        return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)

    folder, pictures = page
    found = features([decode(folder / file) for file in pictures])
    expected = features([np.asarray(picture) for picture in pictures.values()])
    mean = expected.mean(axis=0)  # random weights give all pictures much in common
    assert cosine(found - mean, expected - mean).min() > 0.97
    stored = features([np.asarray(Image.open(folder / "turned-6.png").convert("RGB"))])
    own = features([np.asarray(upright())])
    assert cosine(stored - mean, own - mean)[0] < 0.8


def test_threads_give_one_another_nothing(page):
    folder, pictures = page
    alone = [decode(folder / name) for name in pictures]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(decode, 3 * [folder / name for name in pictures]))
    for number, pixels in enumerate(together):
        np.testing.assert_array_equal(pixels, alone[number % len(alone)])


def png(path, width, height, kind=0, bits=1, more=b""):
    """A PNG of zeros: ``kind`` 0 grey, 6 RGBA."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    line = bytes(1 + (width * bits * {0: 1, 6: 4}[kind] + 7) // 8)
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(line) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + more + chunk(b"IDAT", data) + chunk(b"IEND", b""))
    return path


def test_large_pictures_are_reduced(tmp_path):
    """To the shape and the look of what Pillow makes of the whole; from a JPEG and from what has no short way."""
    assert kept_size(2048, 2048) == (2048, 2048)
    assert kept_size(640, 480) == (640, 480)
    assert kept_size(4000, 3000) == (2364, 1773)
    large = upright().resize((3000, 2000), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6
    large.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "large.jpg", quality=95, exif=exif)
    large.save(tmp_path / "large.png", compress_level=1)
    expected = np.asarray(large.resize(kept_size(3000, 2000), Image.Resampling.BICUBIC)).astype(int)
    for name in ("large.jpg", "large.png"):
        pixels = decode(tmp_path / name)
        assert pixels.shape == (1672, 2508, 3)
        assert np.abs(pixels - expected).mean() < 1
        assert upright_size(tmp_path / name) == (3000, 2000)


def test_memory_is_bounded(tmp_path):
    """11 kB of PNG with 88 million pixels."""
    path = png(tmp_path / "large.png", 9400, 9400)
    assert path.stat().st_size < 11_000
    code = (
        "import resource, sys; from pathlib import Path; from crossmodal.datasets.decode import decode\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "before = peak(); print(*decode(Path(sys.argv[1])).shape, peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    *shape, megabytes = done.stdout.split()
    assert shape == ["2048", "2048", "3"]
    assert float(megabytes) < 350


@pytest.mark.parametrize(
    ("width", "height", "reason"),
    [
        (13_300, 13_300, "13,300 x 13,300 pixels, more than 120,000,000"),
        (1_000_000, 1, "1,000,000 x 1 pixels, one side more than 100 times the other"),
        (40_000, 40_000, "Image size (1600000000 pixels) exceeds limit"),
    ],
)
def test_sizes_that_no_photograph_has(tmp_path, width, height, reason):
    path = png(tmp_path / "odd.png", width, height if height < 20_000 else 1)
    if height >= 20_000:  # the header alone claims it
        content = bytearray(path.read_bytes())
        content[20:24] = struct.pack(">I", height)
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
        path.write_bytes(content)
    assert decode(path).startswith(f"unreadable image ({reason}")


@pytest.mark.filterwarnings("ignore:Tag data larger than file")
def test_large_metadata(tmp_path):
    """Compressed text of 64 MB is not unpacked; a directory of EXIF that is nothing but damage costs no pixels."""
    text = b"key\0\0" + zlib.compress(bytes(2**26), 9)
    chunk = struct.pack(">I", len(text)) + b"zTXt" + text + struct.pack(">I", zlib.crc32(b"zTXt" + text))
    assert decode(png(tmp_path / "text.png", 8, 8, more=chunk)).startswith("unreadable image (Decompressed data too")
    entries = b"".join(struct.pack("<HHLL", tag, 2, 2**31, 8) for tag in range(5000))
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 5000) + entries
    upright().save(tmp_path / "exif.jpg", quality=95, subsampling=0, exif=exif)
    assert decode(tmp_path / "exif.jpg").shape == (80, 120, 3)


def test_what_is_no_regular_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "circle.jpg").symlink_to(tmp_path / "circle.jpg")
    assert decode(tmp_path / "pipe.jpg") == "unreadable image (not a regular file)"
    assert decode(Path("/dev/zero")) == "unreadable image (not a regular file)"
    assert decode(tmp_path / "folder.jpg") == "unreadable image (Is a directory)"
    assert decode(tmp_path / "circle.jpg").startswith("unreadable image (")
    assert decode(tmp_path / "none.jpg") == "not found"
    assert decode(tmp_path / ("a" * 5000)).startswith("unreadable image (")


def test_no_other_program_is_started(tmp_path, monkeypatch):
    upright().save(tmp_path / "plain.eps")
    (tmp_path / "plain.eps").rename(tmp_path / "photo.jpg")
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was started"))
    assert decode(tmp_path / "photo.jpg") == "no image"


def test_every_open_names_its_formats():
    for path in [*(ROOT / "src").rglob("*.py"), *(ROOT / "stages").rglob("*.py")]:
        for call in re.findall(r"Image\.open\([^\n]*", path.read_text(encoding="utf-8")):
            assert "formats=" in call, f"{path.name}: {call}"


def test_damage_gives_a_reason(page, tmp_path):
    """Cut or changed anywhere, a file gives pixels or a reason, never an error."""
    folder, pictures = page
    rng = np.random.default_rng(0)
    for name in pictures:
        content = (folder / name).read_bytes()
        path = tmp_path / name
        for _ in range(6):
            damaged = bytearray(content)
            for place in rng.integers(0, min(len(content), 400), 3):
                damaged[place] = rng.integers(256)
            path.write_bytes(damaged[: rng.integers(len(content) // 2, len(content) + 1)])
            decoded = decode(path)
            assert isinstance(decoded, np.ndarray) or (decoded and "\n" not in decoded and str(tmp_path) not in decoded)


def test_heic_with_pillow_heif(tmp_path):
    pytest.importorskip("pillow_heif", reason="pillow-heif is an optional package")
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "photo.heic"
    upright().transpose(Image.Transpose.ROTATE_90).save(path, quality=95, exif=exif.tobytes())
    pixels = decode(path)
    assert pixels.shape == (80, 120, 3)
    assert np.abs(pixels - np.asarray(upright()).astype(int)).mean() < 4


def test_plain_files_have_the_pixels_that_pillow_gives(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (90, 140, 3), dtype=np.uint8)
    for name, options in (("a.png", {}), ("a.jpg", {"quality": 80}), ("grey.png", {}), ("a.webp", {"quality": 70})):
        image = Image.fromarray(pixels if name[0] == "a" else pixels[..., 0])
        image.save(tmp_path / name, **options)
        np.testing.assert_array_equal(decode(tmp_path / name), np.asarray(Image.open(tmp_path / name).convert("RGB")))
