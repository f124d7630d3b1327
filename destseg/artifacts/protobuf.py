"""Just enough of protocol buffers to change a few fields of a message and leave all others as they are.

An ONNX file is one message. With this, a PC that only runs models can change thresholds without the package
onnx. Source: https://protobuf.dev/programming-guides/encoding
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types: how a value is written
SIZES = {FIXED64: 8, FIXED32: 4}
MOST_FIELDS = 100_000  # of a message: each takes memory, though it may be written in two bytes


class Field(NamedTuple):
    """One field of a message; several fields may have the same number."""

    number: int
    value: "int | bytes | memoryview"  # a number, or the bytes of a string, of a message or of fixed size
    kind: int = BYTES

    def message(self) -> "Message":
        """Return the message that the field holds; an empty one if it holds a number."""
        return Message() if isinstance(self.value, int) else Message.decode(self.value)


class Message:
    """The fields of a message, in order."""

    def __init__(self, fields: Iterable[Field] = ()) -> None:
        self.fields = list(fields)

    @classmethod
    def decode(cls, content: bytes | memoryview) -> "Message":
        """Read a message. Raises ValueError if the content is cut short or no message."""
        message, view, at = cls(), memoryview(content), 0
        while at < len(view):
            if len(message.fields) == MOST_FIELDS:
                raise ValueError(f"a message has more than {MOST_FIELDS} fields")
            tag, at = _varint(view, at)
            number, kind = tag >> 3, tag & 7
            if kind == VARINT:
                value, at = _varint(view, at)
                message.fields.append(Field(number, value, kind))
                continue
            size = SIZES.get(kind, 0)
            if kind == BYTES:
                size, at = _varint(view, at)
            elif kind not in SIZES:
                raise ValueError(f"no protocol buffer: a field is written in the unknown way {kind}")
            if at + size > len(view):
                raise ValueError("no protocol buffer, or cut short")
            message.fields.append(Field(number, view[at : at + size], kind))
            at += size
        return message

    def encode(self) -> bytes:
        """Return the message as bytes."""
        parts: list[bytes | memoryview] = []
        for number, value, kind in self.fields:
            parts.append(_as_varint(number << 3 | kind))
            if isinstance(value, int):
                parts.append(_as_varint(value))
            else:
                parts += [_as_varint(len(value)), value] if kind == BYTES else [value]
        return b"".join(parts)

    def all(self, number: int) -> list[bytes]:
        """Return the bytes of every string or message with this field number."""
        found = [field.value for field in self.fields if field.number == number]
        return [bytes(value) for value in found if not isinstance(value, int)]

    def messages(self, number: int) -> "Iterator[Message]":
        """Yield every message with this field number."""
        return (field.message() for field in self.fields if field.number == number)

    def first(self, number: int) -> bytes:
        """Return the first of `all`, or no bytes."""
        return next(iter(self.all(number)), b"")


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    """Return the number that begins at a position, and the position after it."""
    number = 0
    for shift in range(0, 70, 7):
        if at >= len(view):
            raise ValueError("no protocol buffer, or cut short")
        byte, at = view[at], at + 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
    raise ValueError("no protocol buffer: a number has more than ten bytes")


def _as_varint(number: int) -> bytes:
    parts = bytearray()
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    parts.append(number)
    return bytes(parts)
