"""What TIFF files say about their values, as far as Pillow does not heed or tell it."""

from typing import BinaryIO

import PIL.Image
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, SAMPLEFORMAT, ImageFileDirectory_v2

SIGNATURES = (b"II*\0", b"MM\0*")
KINDS = {1: "unsigned integers", 2: "signed integers", 3: "floats"}


def white_is_zero(picture: PIL.Image.Image) -> bool:
    """Whether 0 is white in a picture opened from a TIFF file, which Pillow heeds for 8 bits or fewer."""
    return getattr(picture, "tag_v2", {}).get(PHOTOMETRIC_INTERPRETATION) == 0


def check_values(picture: PIL.Image.Image) -> None:
    """Raise ValueError for a TIFF file whose values Pillow would take for others, without a word."""
    formats = getattr(picture, "tag_v2", {}).get(SAMPLEFORMAT, ())
    if 2 in formats and picture.mode != "I":
        raise ValueError("its values are signed integers of 8 bits; unsigned ones are wanted")
    if picture.mode == "F" and white_is_zero(picture):
        raise ValueError("its values are floats of which 0 is white; 0 must be black")


def unknown_kind(file: BinaryIO) -> str | None:
    """Say of which kind the values of a TIFF file are that Pillow does not know; None: it is no TIFF file."""
    file.seek(0)
    header = file.read(8)
    if not header.startswith(SIGNATURES):
        return None
    try:
        tags = ImageFileDirectory_v2(header)
        file.seek(tags.next)
        tags.load(file)
        bits, formats = tags[BITSPERSAMPLE], tags.get(SAMPLEFORMAT, (1,))
        values = f", {len(bits)} x {bits[0]} bits, {KINDS.get(formats[0], 'of an unknown kind')}"
    except Exception:  # whatever Pillow raises on what is damaged
        values = ""
    return f"it is a TIFF file that is damaged, or of a kind that Pillow does not know{values}"
