"""A file system that stops answering: ``python hanging_fs.py MOUNT SOURCE OPERATION HOW``.

It shows the files of the folder SOURCE at MOUNT, speaking FUSE's own protocol over ``/dev/fuse`` (linux/fuse.h), until
SIGUSR1. HOW it hangs from then on: ``swallow`` takes a request of the kind OPERATION and never answers: nothing ends
that waiting, SIGKILL neither. ``stall`` answers one more OPERATION and takes no request after it, so that whoever
waits can be killed, as one that waits for a dead NFS server can.

Ending this process ends the connection, and all that wait get an error. Needs root.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

DEVICE = "/dev/fuse"
LOOKUP, FORGET, GETATTR, SETATTR, OPEN, READ, WRITE, STATFS = 1, 2, 3, 4, 14, 15, 16, 17
RELEASE, FSYNC, INIT, OPENDIR, READDIR, RELEASEDIR = 18, 20, 26, 27, 28, 29
FSYNCDIR, ACCESS, INTERRUPT, BATCH_FORGET = 30, 34, 36, 42
OPERATIONS = {"getattr": GETATTR, "open": OPEN, "read": READ, "write": WRITE, "opendir": OPENDIR}
SIZE_CHANGES = 1 << 3  # FATTR_SIZE
ROOT = 1
_HEADER = struct.Struct("<IIQQIIIHH")
_MNT_DETACH = 2


class Server:
    """The files of one folder, until it hangs."""

    def __init__(self, device: int, source: Path, last: int, *, swallow: bool) -> None:
        self.device, self.source, self.last, self.swallow = device, source, last, swallow
        self.names: list[str] = []
        self.hangs = False

    def hang(self, *_signal: object) -> None:
        self.hangs = True

    def run(self) -> None:
        """Answer until the file system is unmounted."""
        while True:
            try:
                request = os.read(self.device, 1 << 21)
            except OSError as error:
                if error.errno == errno.ENOENT:  # the asker was killed meanwhile
                    continue
                return
            _, opcode, unique, node, *_ = _HEADER.unpack_from(request)
            if opcode in (FORGET, BATCH_FORGET, INTERRUPT):
                continue
            is_last = self.hangs and opcode == self.last
            if is_last and self.swallow:
                continue
            try:
                answer, code = self.answer(opcode, node, request[_HEADER.size :]), 0
            except OSError as error:
                answer, code = b"", -(error.errno or errno.EIO)
            os.write(self.device, struct.pack("<IiQ", 16 + len(answer), code, unique) + answer)
            if is_last:
                signal.pause()

    def answer(self, opcode: int, node: int, body: bytes) -> bytes:
        """The body of the answer. Raises OSError for what there is not."""
        if opcode in (RELEASE, RELEASEDIR, FSYNC, FSYNCDIR, ACCESS):
            return b""
        answers = {
            INIT: lambda: struct.pack("<IIIIHHIIHHI28x", 7, 31, 0, 0, 12, 9, 1 << 17, 1, 0, 0, 0),
            LOOKUP: lambda: self._lookup(body.rstrip(b"\0").decode()),
            SETATTR: lambda: self._setattr(node, *struct.unpack_from("<I12xQ", body)),
            GETATTR: lambda: self._getattr(node),
            OPEN: lambda: bytes(16),
            OPENDIR: lambda: bytes(16),
            READ: lambda: self._read(node, *struct.unpack_from("<8xQI", body)),
            WRITE: lambda: self._write(node, *struct.unpack_from("<8xQI", body), body[40:]),
            READDIR: lambda: self._entries(*struct.unpack_from("<8xQI", body)),
            STATFS: lambda: struct.pack("<QQQQQIIII24x", 1 << 20, 1 << 20, 1 << 20, 99, 99, 4096, 255, 4096, 0),
        }
        if opcode not in answers:  # FLUSH too: it is not asked for again, and so nobody who is killed waits for it
            raise OSError(errno.ENOSYS, "not here")
        return answers[opcode]()

    def _lookup(self, name: str) -> bytes:
        about = self._attributes(name)
        if name not in self.names:
            self.names.append(name)
        return struct.pack("<QQQQII", 2 + self.names.index(name), 0, 0, 0, 0, 0) + about

    def _getattr(self, node: int) -> bytes:
        return struct.pack("<QII", 0, 0, 0) + self._attributes(self._name(node))

    def _setattr(self, node: int, valid: int, size: int) -> bytes:
        if valid & SIZE_CHANGES:
            os.truncate(self._path(node), size)
        return self._getattr(node)

    def _read(self, node: int, offset: int, size: int) -> bytes:
        with self._path(node).open("rb") as file:
            return os.pread(file.fileno(), size, offset)

    def _write(self, node: int, offset: int, size: int, data: bytes) -> bytes:
        with self._path(node).open("r+b") as file:
            return struct.pack("<II", os.pwrite(file.fileno(), data[:size], offset), 0)

    def _name(self, node: int) -> str:
        return "." if node == ROOT else self.names[node - 2]

    def _path(self, node: int) -> Path:
        return self.source / self._name(node)

    def _attributes(self, name: str) -> bytes:
        about = os.stat(self.source / name)
        times = (int(about.st_atime), int(about.st_mtime), int(about.st_ctime), 0, 0, 0)
        numbers = (about.st_mode, about.st_nlink, 0, 0, 0, 4096, 0)
        return struct.pack("<6Q10I", about.st_ino, about.st_size, about.st_blocks, *times, *numbers)

    def _entries(self, offset: int, size: int) -> bytes:
        found = b""
        for index, name in enumerate(sorted(os.listdir(self.source))):
            raw = name.encode()
            entry = struct.pack("<QQII", index + 2, index + 1, len(raw), 0) + raw
            entry += bytes(-len(entry) % 8)
            if index >= offset and len(found) + len(entry) <= size:
                found += entry
        return found


def serve(mount: str, source: str, operation: str, how: str) -> None:
    """Mount, say so, and answer."""
    device = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other"
    if libc.mount(b"smfix-test", os.fsencode(mount), b"fuse.hanging", 0, options.encode()):
        print(f"cannot mount: {os.strerror(ctypes.get_errno())}", flush=True)
        return
    server = Server(device, Path(source), OPERATIONS[operation], swallow=how == "swallow")
    signal.signal(signal.SIGUSR1, server.hang)
    print("mounted", flush=True)
    server.run()


class Cannot(Exception):
    """Why there can be no such file system here."""


@contextmanager
def served(mount: Path, source: Path, operation: str, how: str) -> Iterator[Callable[[], None]]:
    """`source` shown at `mount` meanwhile, by a process of its own; the call lets it hang. Raises Cannot."""
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        raise Cannot(f"no {DEVICE} here")
    line = [sys.executable, __file__, str(mount), str(source), operation, how]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        said = server.stdout.readline().strip()
        try:
            if said != "mounted":
                raise Cannot(f"FUSE: {said}")
            for path in mount.iterdir():
                path.read_bytes()
            yield lambda: server.send_signal(signal.SIGUSR1)
        finally:
            # Without its server the connection is aborted: whoever waits gets an error, and no process is left
            # behind that nothing can end.
            server.kill()
            server.wait()
            ctypes.CDLL(None).umount2(os.fsencode(mount), _MNT_DETACH)


if __name__ == "__main__":
    serve(*sys.argv[1:])
