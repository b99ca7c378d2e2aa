"""Image files as arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from crossmodal.errors import UserError, without_path


def decode(path: Path) -> np.ndarray | str:
    """An image file as (H, W, 3) uint8 RGB, or why it cannot be read: "not found", "no image", "unreadable ..."."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except FileNotFoundError:
        return "not found"
    except UnidentifiedImageError:  # its own message names the file by its absolute path
        return "no image"
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return f"unreadable image ({without_path(error)})"


def read_image(path: Path) -> np.ndarray:
    """An image file as (H, W, 3) uint8 RGB.

    Raises:
        UserError: missing, truncated, too large, or no image.
    """
    image = decode(path)
    if isinstance(image, str):
        raise UserError(f"{path}: {image}")
    return image
