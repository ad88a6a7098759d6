"""A follower's state on disk: written whole and atomically, read bounded, held by one follower.

A text is written beside its file, synced, renamed over it, and the folder is synced: a reader sees
the old text or the new one, whatever is killed. The lock is `flock` on a file of its own that is
never removed: who holds it follows the log.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from contextlib import suppress

from smfix.errors import SmfixError, Unreadable, WriteFailed
from smfix.model import Exit

MOST_BYTES = 256 << 20
"""A state file larger than this is not read."""


class Followed(SmfixError):
    """Another smfix follows this log."""

    exit_bit = Exit.FAILED


class StateFile:
    """The state of the follower of the log at `log`, in `folder` (made when it is written to)."""

    def __init__(self, folder: str, log: str) -> None:
        self.folder = os.path.abspath(folder)
        name = hashlib.sha256(os.path.abspath(log).encode()).hexdigest()[:12]
        self.path = os.path.join(self.folder, f"follow-{name}.json")
        self._lock_path = os.path.join(self.folder, f"follow-{name}.lock")
        self._lock = -1

    def hold(self) -> None:
        """Be the only follower of this log. Raises Followed, WriteFailed."""
        try:
            os.makedirs(self.folder, mode=0o700, exist_ok=True)
            self._lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise Followed(f"another smfix follows this log (it holds {self._lock_path})") from None
        except OSError as error:
            raise WriteFailed(f"{self.folder}: {error.strerror}; name another folder with --state-dir") from error

    def release(self) -> None:
        """Let another follower have it."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def is_held(self) -> bool:
        """True while some process follows the log."""
        try:
            descriptor = os.open(self._lock_path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def load(self) -> str | None:
        """The text, None where there is none. Raises Unreadable."""
        return read_state(self.path)

    def save(self, text: str) -> None:
        """Make `text` the state, durably. Raises WriteFailed; the state is then the old one."""
        write_whole(self.path, text.encode("ascii"), durable=True)

    def set_aside(self) -> str:
        """Move a state that cannot be read out of the way; its new name. Raises WriteFailed."""
        name = f"{self.path}.damaged-{int(time.time())}"
        try:
            os.rename(self.path, name)
        except OSError as error:
            raise WriteFailed(f"{self.path}: {error.strerror}") from error
        return name


def state_files(folder: str) -> list[str]:
    """The states in `folder`, by name. Raises Unreadable where it must not be read."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise Unreadable(f"{folder}: {error.strerror}") from error
    states = [name for name in sorted(names) if name.startswith("follow-") and name.endswith(".json")]
    return [os.path.join(folder, name) for name in states]


def read_state(path: str) -> str | None:
    """The text at `path`, None where there is none. Raises Unreadable."""
    try:
        with open(path, "rb") as file:
            data = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unreadable(f"{path}: {error.strerror}") from error
    if len(data) > MOST_BYTES:
        raise Unreadable(f"{path}: larger than any state file ({MOST_BYTES} bytes)")
    return data.decode("utf-8", "replace")


def write_whole(path: str, data: bytes, *, durable: bool, mode: int = 0o600) -> None:
    """Replace the file at `path` by `data`, all or nothing. Raises WriteFailed."""
    beside = f"{path}.new"
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(beside, path)
        if durable:
            _sync_folder(os.path.dirname(path))
    except OSError as error:
        with suppress(OSError):
            os.unlink(beside)
        raise WriteFailed(f"{path}: {error.strerror}") from error


def _sync_folder(folder: str) -> None:
    at = os.open(folder or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(at)
    finally:
        os.close(at)
