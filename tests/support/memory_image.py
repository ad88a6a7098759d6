"""An image in memory with the interface of `OpenImage`, that can die between any two sectors."""

from __future__ import annotations

from typing import Self

from smfix.errors import WriteFailed
from smfix.host.image_file import Identity
from smfix.host.statx import Lineage
from smfix.values import SECTOR, Backing, Extent, Target


class Killed(BaseException):
    """The process is gone: nothing behind this instant is executed."""


class MemoryImage:
    """`data` are the bytes. After `lives` sectors written or sizes set, it dies (None: never).

    `fail_at`: the write or resize with this number (from 0) fails with WriteFailed instead.
    """

    def __init__(self, data: bytes, *, path: str = "/sr/disk.vhd", growable: bool = True) -> None:
        self.data = bytearray(data)
        self.growable = growable
        self.target = Target(path, Backing.FILE if growable else Backing.BLOCK)
        self.identity = Identity(1, 2, None if growable else 7, len(data), path)
        self.lineage = Lineage()
        self.mtime = 1 if growable else None
        self.lives: int | None = None
        self.fail_at: int | None = None
        self.calls = 0
        self.syncs = 0

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, extent: Extent) -> bytes:
        return bytes(self.data[extent.offset : extent.end])

    def write(self, offset: int, data: bytes) -> None:
        assert 0 <= offset <= self.size
        assert self.growable or offset + len(data) <= self.size
        self._count()
        at = 0
        while at < len(data):
            self._live()
            length = min(len(data) - at, SECTOR - (offset + at) % SECTOR)
            self.data[offset + at : offset + at + length] = data[at : at + length]
            at += length

    def resize(self, size: int) -> None:
        assert self.growable
        self._count()
        self._live()
        if size < self.size:
            del self.data[size:]
        self.data.extend(bytes(size - self.size))

    def sync(self) -> None:
        self._live()
        self.syncs += 1

    def reopen(self) -> MemoryImage:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing to release."""

    def free_space(self) -> int | None:
        return 1 << 40 if self.growable else None

    def _live(self) -> None:
        if self.lives is not None:
            if self.lives == 0:
                raise Killed
            self.lives -= 1

    def _count(self) -> None:
        self.calls += 1
        if self.mtime is not None:
            self.mtime += 1
        if self.fail_at == self.calls - 1:
            raise WriteFailed("cannot write /sr/disk.vhd: Input/output error")
