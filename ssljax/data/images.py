"""One image: from a file, and to the size that the others have."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ssljax.errors import UsageError

GREY_MODES = ("1", "L")  # Pillow's modes of one channel without colours
_DEEP_MODES = ("I", "F")  # more than 8 bits a channel; also their variants, such as I;16


def fit(image: np.ndarray, size: int) -> np.ndarray:
    """uint8 `[H, W, C]` -> `[size, size, C]`: the largest central square, resized (bicubic)."""
    picture = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)
    picture = ImageOps.fit(picture, (size, size), Image.Resampling.BICUBIC)
    return np.asarray(picture).reshape(size, size, -1)


def read(path: Path) -> tuple[np.ndarray, str]:
    """Decodes a file of any 8-bit format of Pillow's, turned upright as its EXIF data says.

    Returns:
      uint8 `[H, W, 3]`, and the mode it had in the file ("L", "RGB", "RGBA", …). Transparency is
      dropped; of several frames the first one is read.

    Raises:
      UsageError: the file is missing or cannot be decoded; names it.
    """
    try:
        with Image.open(path) as picture:
            mode = picture.mode
            if mode.startswith(_DEEP_MODES):
                raise ValueError(f"its pixels are of mode {mode}; allowed: 8 bits a channel")
            upright = ImageOps.exif_transpose(picture)
            return np.asarray(upright.convert("RGB")), mode
    # Pillow's decoders raise SyntaxError and others about damaged files
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise UsageError(f"image {path} cannot be read: {' '.join(str(error).split())}") from error
