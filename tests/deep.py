"""Files of 16-bit colour, which Pillow reads but cannot write."""

import struct
import zlib

import numpy as np


def png_of_16_bit_colour(values, exif=b""):
    """A PNG of (h, w, 2 | 3 | 4) 16-bit values, which Pillow reads but cannot write; of differences."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, channels = values.shape
    lines = values.astype(">u2").view(np.uint8).reshape(height, width, 2 * channels)
    lines[:, 1:] = np.diff(lines, axis=1)
    rows = b"".join(b"\1" + line.tobytes() for line in lines)
    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    chunks = chunk(b"IHDR", header) + (chunk(b"eXIf", exif) if exif else b"")
    return b"\x89PNG\r\n\x1a\n" + chunks + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff_of_16_bit_colour(values, order):
    """An uncompressed TIFF of (h, w, 3) 16-bit values, in the byte order "<" or ">"."""
    height, width, _ = values.shape
    data = values.astype(f"{order}u2").tobytes()
    bits = struct.pack(f"{order}3H", 16, 16, 16)
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, 8 + len(data)), (262, 3, 1, 2)]
    tags += [(273, 4, 1, 8), (277, 3, 1, 3), (278, 4, 1, height), (279, 4, 1, len(data))]
    entries = struct.pack(f"{order}H", len(tags))
    for tag, kind, count, value in tags:
        short = kind == 3 and count == 1
        entries += struct.pack(
            f"{order}HHI" + ("HH" if short else "I"), tag, kind, count, value, *([0] * short)
        )
    magic = {"<": b"II*\0", ">": b"MM\0*"}[order]
    return magic + struct.pack(f"{order}I", 8 + len(data) + 6) + data + bits + entries + bytes(4)
