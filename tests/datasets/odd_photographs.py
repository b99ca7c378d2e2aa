"""One picture in files that need more than ``convert("RGB")``, each with the picture that a viewer shows."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageCms, ImageDraw, ImageOps

ORIENTATION = 0x0112
# How an upright picture is stored for each orientation: the inverse of what the tag asks for.
_STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def upright():
    """A landscape of 120 x 80 pixels, whose four corners differ."""
    x, y = np.meshgrid(np.linspace(0, 1, 120), np.linspace(0, 1, 80))
    sky = np.stack([90 + 60 * y, 140 + 50 * y, 235 - 30 * y + 10 * np.sin(9 * x)], axis=2)
    picture = Image.fromarray(sky.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 55, 119, 79), fill=(60, 130, 50))
    draw.ellipse((88, 6, 110, 28), fill=(250, 220, 60))
    draw.polygon([(14, 58), (34, 22), (54, 58)], fill=(190, 40, 40))
    draw.rectangle((70, 46, 100, 70), fill=(235, 235, 230))
    draw.line((4, 76, 60, 64), fill=(30, 30, 30), width=3)
    return picture


def write_page(folder: Path) -> dict[str, Image.Image]:
    """Write the files; returns by name the RGB picture that each of them shows."""
    page: dict[str, Image.Image] = {}
    picture = upright()
    for writer in (_turned, _formats, _grey, _transparent, _inks, _several):
        page |= writer(folder, picture)
    return page


def _turned(folder, picture):
    for orientation, turn in _STORED.items():
        stored, tags = picture.transpose(turn) if turn is not None else picture, Image.Exif()
        tags[ORIENTATION] = orientation
        exif = tags.tobytes()  # saving an AVIF takes the tag out of the object
        stored.save(folder / f"turned-{orientation}.jpg", quality=95, subsampling=0, exif=exif)
        if orientation in (3, 6):
            stored.save(folder / f"turned-{orientation}.png", exif=exif)
            stored.save(folder / f"turned-{orientation}.webp", lossless=True, exif=exif)
            stored.save(folder / f"turned-{orientation}.tif", tiffinfo={ORIENTATION: orientation})
            stored.save(folder / f"turned-{orientation}.avif", quality=95, subsampling="4:4:4", exif=exif)
            second = Image.new("RGB", stored.size)
            frames = {"save_all": True, "append_images": [second]}
            stored.save(folder / f"turned-{orientation}.mpo", quality=95, subsampling=0, exif=exif, **frames)
    return {path.name: picture for path in folder.glob("turned-*")}


def _formats(folder, picture):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture.save(folder / "progressive.jpg", quality=95, subsampling=0, progressive=True)
    picture.save(folder / "profile.jpg", quality=95, subsampling=0, icc_profile=profile)
    picture.save(folder / "name.jfif", "JPEG", quality=95, subsampling=0)
    picture.save(folder / "wrong-suffix.jpg", "PNG")
    picture.save(folder / "plain.bmp")
    picture.save(folder / "plain.ppm")
    return dict.fromkeys(
        ("progressive.jpg", "profile.jpg", "name.jfif", "wrong-suffix.jpg", "plain.bmp", "plain.ppm"), picture
    )


def _grey(folder, picture):
    grey = picture.convert("L")
    values = np.asarray(grey)
    sixteen = values.astype(np.uint16) * 257
    Image.fromarray(sixteen).save(folder / "grey-16.png")
    Image.fromarray(sixteen).save(folder / "grey-16.tif")
    Image.fromarray(sixteen).save(folder / "grey-16-packed.tif", compression="tiff_lzw")
    Image.fromarray(sixteen.astype(">u2")).save(folder / "grey-16-big.tif")
    Image.fromarray(65535 - sixteen).save(folder / "grey-16-white-is-zero.tif", tiffinfo={262: 0})
    _as_photometric_zero(folder / "grey-16-white-is-zero.tif")
    (folder / "grey-16.pgm").write_bytes(b"P5 120 80 65535\n" + sixteen.astype(">u2").tobytes())
    Image.fromarray((values / 255).astype(np.float32)).save(folder / "grey-float-1.tif")
    Image.fromarray(values.astype(np.float32)).save(folder / "grey-float-255.tif")
    spread = ImageOps.autocontrast(grey)
    Image.fromarray(np.asarray(spread) * np.float32(7) - 500).save(folder / "grey-float-spread.tif")
    Image.fromarray(values.astype(np.int32)).save(folder / "grey-32.tif")
    Image.fromarray(sixteen.astype(np.int32)).save(folder / "grey-32-of-16.tif")
    Image.fromarray(np.where(np.arange(120) < 3, np.nan, values / 255).astype(np.float32)).save(folder / "grey-nan.tif")
    grey.save(folder / "grey.png")
    page = {path.name: grey.convert("RGB") for path in folder.glob("grey*")}
    page["grey-float-spread.tif"] = spread.convert("RGB")
    holes = grey.copy()
    holes.paste(0, (0, 0, 3, 80))
    page["grey-nan.tif"] = holes.convert("RGB")
    bits = picture.convert("1")
    bits.save(folder / "bits.png")
    bits.save(folder / "bits.tif", compression="group4")
    return page | dict.fromkeys(("bits.png", "bits.tif"), bits.convert("RGB"))


def _as_photometric_zero(path):
    """Set the tag in the file itself: Pillow writes what fits the mode."""
    content = bytearray(path.read_bytes())
    at = content.index(b"\x06\x01\x03\x00\x01\x00\x00\x00")  # 262, SHORT, one value
    content[at + 8 : at + 10] = b"\0\0"
    path.write_bytes(content)


def _transparent(folder, picture):
    mask = Image.new("L", picture.size, 255)
    ImageDraw.Draw(mask).rectangle((0, 0, 60, 80), fill=0)
    ImageDraw.Draw(mask).rectangle((100, 0, 120, 80), fill=96)
    black = Image.composite(picture, Image.new("RGB", picture.size), mask.point(lambda value: 255 * (value > 0)))

    def shown(image):
        return Image.composite(image, Image.new("RGB", image.size, "white"), mask)

    clear = black.copy()
    clear.putalpha(mask)
    clear.save(folder / "clear-rgba.png")
    clear.save(folder / "clear-rgba.webp", lossless=True, exact=True)
    clear.save(folder / "clear-rgba.tif")
    page = dict.fromkeys(("clear-rgba.png", "clear-rgba.webp", "clear-rgba.tif"), shown(black))
    grey = black.convert("L")
    Image.merge("LA", (grey, mask)).save(folder / "clear-la.png")
    page["clear-la.png"] = shown(grey.convert("RGB"))

    few = picture.quantize(16)
    few.save(folder / "clear-palette.png", transparency=bytes([0, 128] + 14 * [255]))
    few.save(folder / "clear-palette.gif", transparency=0)
    colours, index = few.convert("RGB"), np.asarray(few)
    for name, alphas in (("clear-palette.png", {0: 0, 1: 128}), ("clear-palette.gif", {0: 0})):
        alpha = np.full(index.shape, 255, np.uint8)
        for place, value in alphas.items():
            alpha[index == place] = value
        page[name] = Image.composite(colours, Image.new("RGB", few.size, "white"), Image.fromarray(alpha))

    keyed = picture.copy()
    keyed.paste((1, 2, 3), (0, 0, 40, 80))
    keyed.save(folder / "clear-key.png", transparency=(1, 2, 3))
    keyed.paste((255, 255, 255), (0, 0, 40, 80))
    page["clear-key.png"] = keyed
    grey = picture.convert("L").point(lambda value: max(value, 20))
    grey.paste(7, (0, 0, 40, 80))
    grey.save(folder / "clear-key-grey.png", transparency=7)
    Image.fromarray(np.asarray(grey).astype(np.uint16) * 257).save(folder / "clear-key-16.png", transparency=7 * 257)
    grey.paste(255, (0, 0, 40, 80))
    page |= dict.fromkeys(("clear-key-grey.png", "clear-key-16.png"), grey.convert("RGB"))
    return page


def _inks(folder, picture):
    picture.convert("CMYK").save(folder / "inks.jpg", quality=95, subsampling=0)
    picture.convert("CMYK").save(folder / "inks.tif")
    # YCCK: inks as YCbCr, black as it is; told by the last byte of Adobe's marker. Pillow writes complements.
    cyan, magenta, yellow, black = picture.convert("CMYK").split()
    inks = Image.merge("RGB", (cyan, magenta, yellow)).convert("YCbCr")
    ycck = Image.merge("CMYK", [*(ImageChops.invert(channel) for channel in inks.split()), black])
    buffer = io.BytesIO()
    ycck.save(buffer, "JPEG", quality=95, subsampling=0)
    content = bytearray(buffer.getvalue())
    content[content.index(b"Adobe") + 11] = 2
    (folder / "inks-ycck.jpg").write_bytes(content)
    return dict.fromkeys(("inks.jpg", "inks.tif", "inks-ycck.jpg"), picture)


def _several(folder, picture):
    other = ImageChops.invert(picture).transpose(Image.Transpose.ROTATE_180)
    for name, options in (
        ("moving.webp", {"lossless": True}),
        ("moving.png", {}),
        ("pages.tif", {}),
    ):
        picture.save(folder / name, save_all=True, append_images=[other], **options)
    few = picture.quantize(200)
    few.save(folder / "moving.gif", save_all=True, append_images=[other.quantize(200)])
    return dict.fromkeys(("moving.webp", "moving.png", "pages.tif"), picture) | {"moving.gif": few.convert("RGB")}
