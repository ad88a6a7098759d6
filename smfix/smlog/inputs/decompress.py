"""Compressed logs, recognised by content: gzip, bzip2, xz, zstd. Bounded memory, bounded excess.

A rotated log may still be being compressed, or cut off: the readable part is read, and the rest is
said. A stream that unpacks to more than :data:`MOST_TIMES` its size is a bomb, not a log.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Callable
from typing import Any, Protocol

CHUNK = 256 << 10  # packed bytes read at a time
MOST_TIMES = 400  # unpacked : packed; a log reaches 10 to 60
_FREELY = 256 << 20  # unpacked bytes before that is asked

MAGIC = {
    b"\x1f\x8b\x08": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}


class Raw(Protocol):
    """The source of packed bytes."""

    def read(self, count: int, /) -> bytes:
        """Return at most `count` bytes; none at the end."""


class Damaged(Exception):
    """The stream ends early, has another format, or is a bomb. The message says which."""


def packing(head: bytes) -> str | None:
    """Return the compression of a file that starts with `head`; None for plain text."""
    return next((name for magic, name in MAGIC.items() if head.startswith(magic)), None)


def is_utf16(head: bytes) -> bool:
    """Return True for text that starts with a byte order mark of UTF-16."""
    return head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))


class Recoded(io.RawIOBase):
    """UTF-16, as a log has that an editor of Windows saved, as UTF-8."""

    def __init__(self, raw: Raw) -> None:
        self._raw = raw
        self._decode = codecs.getincrementaldecoder("utf-16")("replace").decode
        self._text = b""

    def readable(self) -> bool:
        """Return True: the stream can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer`; return the count, 0 at the end."""
        while not self._text and (data := self._raw.read(CHUNK)):
            self._text = self._decode(data).encode("utf-8", "replace")
        view = memoryview(buffer).cast("B")
        count = min(len(view), len(self._text))
        view[:count] = self._text[:count]
        self._text = self._text[count:]
        return count


class Unpacked(io.RawIOBase):
    """The plain bytes of a compressed stream. Members that follow each other are one text."""

    def __init__(self, raw: Raw, kind: str) -> None:
        self._raw = raw
        self._packed = b""
        self._taken = 0
        self._given = 0
        self._given_before = 0  # by the members before this one
        self._make = _decompressors(kind)
        self._decompressor = self._make()
        self._ended = False

    def readable(self) -> bool:
        """Return True: the stream can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer`; return the count, 0 at the end. Raises Damaged."""
        view = memoryview(buffer).cast("B")
        data = self._next(len(view))
        view[: len(data)] = data
        return len(data)

    def _next(self, count: int) -> bytes:
        while not self._ended:
            if self._decompressor.eof and not self._next_member():
                break
            if not self._packed and _wants_input(self._decompressor):
                self._packed = self._more()
                if not self._packed:
                    return self._last(count)
            data = self._unpack(count)
            if data:
                return data
        return b""

    def _next_member(self) -> bool:
        """Start the next member; return False if nothing follows a whole member."""
        self._packed = (self._decompressor.unused_data or self._more()).lstrip(b"\0")  # some tools pad
        self._ended = not self._packed
        self._decompressor = self._make()
        self._given_before = self._given
        return not self._ended

    @property
    def _is_garbage(self) -> bool:
        """Return True if the bytes after a whole member gave nothing: gzip ignores them too."""
        return 0 < self._given == self._given_before

    def _last(self, count: int) -> bytes:
        """Handle the end of the packed bytes: the decompressor's rest, or a stream cut off."""
        data = self._unpack(count) if self._taken else b""
        if not data and not self._decompressor.eof:
            self._ended = True
            if self._taken and not self._is_garbage:
                raise Damaged("it ends before its time")
        return data

    def _unpack(self, count: int) -> bytes:
        try:
            data, self._packed = _decompress(self._decompressor, self._packed, count)
        except Exception as error:  # each library has its own
            self._ended = True
            if self._is_garbage:
                return b""
            raise Damaged("its compression is damaged") from error
        self._given += len(data)
        if self._given > _FREELY and self._given > MOST_TIMES * self._taken:
            raise Damaged(f"it unpacks to more than {MOST_TIMES} times its size")
        return data

    def _more(self) -> bytes:
        data = self._raw.read(CHUNK)
        self._taken += len(data)
        return data


def _wants_input(decompressor: Any) -> bool:
    return bool(getattr(decompressor, "needs_input", True))


def _decompress(decompressor: Any, packed: bytes, count: int) -> tuple[bytes, bytes]:
    """Return at most `count` plain bytes, and the packed bytes that were not used yet."""
    data = decompressor.decompress(packed, count)
    rest = getattr(decompressor, "unconsumed_tail", b"")  # zlib hands back; the others keep
    return data, rest


def _decompressors(kind: str) -> Callable[[], Any]:
    """Return the constructor of a decompressor for one member. Raises Damaged if the machine has none."""
    if kind == "gzip":
        return _gzip()
    try:
        if kind == "bzip2":
            import bz2

            return bz2.BZ2Decompressor
        if kind == "xz":
            import lzma

            return lambda: lzma.LZMADecompressor(memlimit=128 << 20)
        return _zstd()
    except ImportError as error:
        raise Damaged(f"it is compressed with {kind}, and this Python cannot read that") from error


def _gzip() -> Callable[[], Any]:
    try:
        from isal import isal_zlib
    except ImportError:
        import zlib

        return lambda: zlib.decompressobj(31)
    return lambda: isal_zlib.decompressobj(31)


def _zstd() -> Callable[[], Any]:
    try:
        from compression import zstd  # type: ignore[import-not-found,unused-ignore] # Python 3.14
    except ImportError:
        from backports import zstd  # type: ignore[import-not-found,import-untyped,unused-ignore]
    make: Callable[[], Any] = zstd.ZstdDecompressor
    return make
