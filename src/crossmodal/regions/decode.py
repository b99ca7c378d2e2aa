"""Image files as arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError


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
        return f"unreadable image ({error})"
