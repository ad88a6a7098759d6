"""Keep a follower's state on disk: written whole and atomically, read up to a limit, locked by one follower.

:mod:`smfix.host.atomic_file` writes it. The lock is `flock` on a file of its own that is never removed: the process
that holds it follows the log.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
import time

from smfix.errors import SmfixError, Unreadable, WriteFailed
from smfix.follow import state_format
from smfix.follow.state import FollowerState
from smfix.host import atomic_file
from smfix.values import Exit

STATE = atomic_file.FileKind("a follower's state", lambda head: head.startswith(b'{"schema": "smfix.'))

MOST_BYTES = 256 << 20
"""A state file larger than this is not read."""

_LOCK = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class AlreadyFollowed(SmfixError):
    """Another smfix follows this log."""

    exit_bit = Exit.FAILED


class StateFile:
    """The state of the follower of the log at `log`, in `folder` (made when it is written to)."""

    def __init__(self, folder: str, log: str) -> None:
        self.folder = folder
        name = hashlib.sha256(os.path.abspath(log).encode()).hexdigest()[:12]
        self.path = os.path.join(self.folder, f"follow-{name}.json")
        self._lock_path = os.path.join(self.folder, f"follow-{name}.lock")
        self._lock = -1
        self._encoded: state_format.Encoded = {}

    def hold(self) -> None:
        """Take the lock of this log. Raises AlreadyFollowed, WriteFailed."""
        try:
            os.makedirs(self.folder, mode=0o700, exist_ok=True)
            self._lock = os.open(self._lock_path, _LOCK | os.O_RDWR | os.O_CREAT, 0o600)
            if not stat.S_ISREG(os.fstat(self._lock).st_mode):
                raise OSError(errno.EINVAL, f"{self._lock_path} is not a regular file")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise AlreadyFollowed(f"another smfix follows this log (it holds {self._lock_path})") from None
        except OSError as error:
            self.release()
            raise WriteFailed(f"{self.folder}: {error.strerror}; name another folder with --state-dir") from error

    def release(self) -> None:
        """Release the lock."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def is_held(self) -> bool:
        """Return True while a process follows the log."""
        try:
            descriptor = os.open(self._lock_path, _LOCK | os.O_RDONLY)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def load(self) -> FollowerState | None:
        """Return the state, None if there is none. Raises Unreadable, StateDamaged."""
        return read_state(self.path)

    def save(self, state: FollowerState) -> None:
        """Write `state` durably. Raises WriteFailed; the file then holds the old state."""
        text = state_format.encode(state, self._encoded)
        atomic_file.replace(self.path, text.encode("ascii"), STATE)

    def set_aside(self) -> str:
        """Rename a state that cannot be read, and return its new name. Raises WriteFailed."""
        name = f"{self.path}.damaged-{int(time.time())}"
        try:
            os.rename(self.path, name)
        except OSError as error:
            raise WriteFailed(f"{self.path}: {error.strerror}") from error
        return name


def state_files(folder: str) -> list[str]:
    """Return the paths of the states in `folder`, sorted. Raises Unreadable if it cannot be listed."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise Unreadable(f"{folder}: {error.strerror}") from error
    states = [name for name in sorted(names) if name.startswith("follow-") and name.endswith(".json")]
    return [os.path.join(folder, name) for name in states]


def read_state(path: str) -> FollowerState | None:
    """Return the state in the file at `path`, None if there is no file. Raises Unreadable, StateDamaged."""
    try:
        data = atomic_file.read_own(path, MOST_BYTES + 1)
    except OSError as error:
        raise Unreadable(f"{path}: {error.strerror}") from error
    if data is None:
        return None
    if len(data) > MOST_BYTES:
        raise Unreadable(f"{path}: larger than any state file ({MOST_BYTES} bytes)")
    return state_format.decode(data.decode("utf-8", "replace"))
