"""The checksum of an exported model: SHA-256 over every byte of its files.

It stands in the description that the first file holds. While it is computed, BLANK stands in its place.
"""

import hashlib
import re

BLANK = "0" * 64


def sealed(content: bytes, *beside: bytes) -> bytes:
    """Return a file's content with its checksum in the place of BLANK; `beside` are the other files."""
    return content.replace(BLANK.encode(), _sha256(content, *beside).encode(), 1)


def is_whole(checksum: object, content: bytes, *beside: bytes) -> bool:
    """Whether a checksum, as the description of a file gives it, is that of the file's content."""
    if not isinstance(checksum, str) or not re.fullmatch("[0-9a-f]{64}", checksum):
        return False
    view, start = (
        memoryview(content),
        content.find(checksum.encode()),
    )  # a copy would take longer than the sum
    parts = view[:start], BLANK.encode(), view[start + len(BLANK) :]
    return start >= 0 and checksum == _sha256(*parts, *beside)


def _sha256(*parts: bytes | memoryview) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
