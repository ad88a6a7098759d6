"""The locks: the storage manager's own, in its order, and smfix's one per image.

Theory. SM locks with POSIX record locks (``fcntl``), so only those exclude it; ``flock`` does not.
Such a lock belongs to the process and is lost when **any** descriptor of that file is closed in it:
each file is opened once, kept open, and never unlinked by us. SM unlinks lock files when it deletes
a VDI, so a lock counts only if the path still leads to the file that was locked. The order is
``running`` (which excludes a coalesce), ``sr`` (which a starting VM waits for), ``<vdi>/vdi``;
release is in reverse. Every wait is bounded. While GC is at work on the SR none is taken
(:mod:`smfix.sm.gc_lock`). GC becomes active under `sr`, and scans under `sr` before it asks for `running`: so
`running` and `sr` are taken both at once or not at all, and then no process can become GC.

smfix's own lock excludes other smfix from one image, whatever it is called: it is keyed by device
and inode, and is an ``flock``, which no stray ``close`` can drop.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

from smfix.errors import WriteFailed
from smfix.host.image_file import Identity
from smfix.sm.gc_lock import GC_ACTIVE, GcWait, collector
from smfix.sm.paths import is_uuid
from smfix.values import Log, Reason, Refusal

_log = Log(__name__)

INVENTORY = "/etc/xensource-inventory"
"""A storage manager may be at work on a host that has this file."""

SM_LOCKS = "/var/lock/sm"

# Seconds. GC holds `running` for a whole coalesce, which no wait of ours outlasts. `sr` is held
# briefly by everybody. `vdi` is waited for while `sr` blocks VM starts: hardly at all.
RUNNING_WAIT, SR_WAIT, VDI_WAIT = 5.0, 20.0, 1.0
_PAUSE = 0.05

_PID_WIDTH = 20  # as wide as any pid, so that a shorter one overwrites all of a longer one

_OPEN = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_Wanted = tuple[str, str, float]

# Paths locked by this process: a second descriptor would lose the lock when it is closed.
_held: set[str] = set()


@dataclass(frozen=True, slots=True)
class Clock:
    """Time as the waits see it: `now()` in seconds, `sleep(seconds)`."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


def sm_lock_folder(given: str | None = None, *, inventory: str = INVENTORY) -> str | None:
    """Return the folder of SM's locks: `given`, else SM's own on a host that has a storage manager, else None."""
    if given is not None:
        return given
    return SM_LOCKS if os.path.exists(inventory) else None


@contextmanager
def sm_locks(
    folder: str, sr: str, vdi: str | None, *, clock: Clock = Clock(), gc: GcWait | None = None
) -> Iterator[Refusal | None]:
    """Hold SM's locks ``<sr>/running``, ``<sr>/sr`` and ``<vdi>/vdi`` while the block runs.

    `sr`, `vdi`: UUIDs, for they become names of files; without a `vdi` the first two. `gc`: how long GC's end is
    waited for first (None: as a run of its own). Gives a Refusal (locked) if GC is at work or a lock is busy
    after its wait, or cannot be opened; then none is held. Raises ValueError for anything but a UUID.
    """
    if not is_uuid(sr) or not (vdi is None or is_uuid(vdi)):
        raise ValueError(f"no UUIDs: {sr} {vdi}")
    gc = GcWait() if gc is None else gc
    of_vdi = [] if vdi is None else [(vdi, "vdi", VDI_WAIT)]
    if gc.takes_gap:
        # Hold `running` while `sr` is waited for: GC, which meets it, ends, and so gives `sr` back.
        with record_locks(folder, [(sr, "running", RUNNING_WAIT), (sr, "sr", SR_WAIT), *of_vdi], clock=clock) as busy:
            yield busy
        return
    with ExitStack() as held:
        refusal = _of_sr(folder, sr, gc, held, clock)
        if refusal is None:
            refusal = held.enter_context(record_locks(folder, of_vdi, clock=clock))
        if refusal is not None:
            held.close()
        yield refusal


def _of_sr(folder: str, sr: str, gc: GcWait, held: ExitStack, clock: Clock) -> Refusal | None:
    """Take ``running`` and ``sr`` of an SR on which no GC is at work, until `held` is closed; else say why not."""
    ends: dict[str, float] = {}  # when the wait for each lock is over
    path = ""
    try:
        while True:
            path = os.path.join(folder, sr, GC_ACTIVE)
            refusal = gc.until_free(folder, sr, clock)
            if refusal is not None:
                return refusal
            for name, wait in (("running", RUNNING_WAIT), ("sr", SR_WAIT)):
                path = os.path.join(folder, sr, name)
                if held.enter_context(_record_lock(path, 0.0, clock)):
                    continue
                held.close()
                if clock.now() >= ends.setdefault(name, clock.now() + wait):
                    return _is_held(path)
                clock.sleep(_PAUSE)
                break
            else:
                if collector(folder, sr) is None:
                    for name, wait in (("running", RUNNING_WAIT), ("sr", SR_WAIT)):
                        _log.debug("lock %s, waited for %s s at most: taken", os.path.join(folder, sr, name), wait)
                    return None
                held.close()  # a GC began after the look above; it scans before it asks for `running`
    except OSError as error:
        return _cannot(path, error)


@contextmanager
def record_locks(folder: str, wanted: Sequence[_Wanted], *, clock: Clock = Clock()) -> Iterator[Refusal | None]:
    """Hold several of SM's locks while the block runs: (namespace, name, seconds to wait), in that order.

    The names are the caller's to vouch for. Gives a Refusal (locked) as :func:`sm_locks` does.
    """
    with ExitStack() as held:
        refusal = None
        for namespace, name, wait in wanted:
            path = os.path.join(folder, namespace, name)
            try:
                refusal = None if held.enter_context(_record_lock(path, wait, clock)) else _is_held(path)
            except OSError as error:
                refusal = _cannot(path, error)
            taken = "taken" if refusal is None else refusal.message
            _log.debug("lock %s, waited for %s s at most: %s", path, wait, taken)
            if refusal is not None:
                held.close()
                break
        yield refusal


def _is_held(path: str) -> Refusal:
    return Refusal(Reason.LOCKED, f"the lock {path} is held: the storage manager is at work on it; try again later")


def _cannot(path: str, error: OSError) -> Refusal:
    return Refusal(Reason.LOCKED, f"the lock {path} cannot be taken: {error.strerror}")


@contextmanager
def _record_lock(path: str, wait: float, clock: Clock) -> Iterator[bool]:
    """Hold the POSIX lock of `path` while the block runs; False when it is busy after `wait`."""
    if path in _held:
        yield False
        return
    fd = _take(path, wait, clock)
    if fd is None:
        yield False
        return
    _held.add(path)
    try:
        yield True
    finally:
        _held.discard(path)
        os.close(fd)  # closing releases


def _take(path: str, wait: float, clock: Clock) -> int | None:
    """The descriptor of the locked file, or None. Raises OSError."""
    deadline = clock.now() + wait
    while True:
        # SM removes an empty namespace at any moment: the folder may be gone again.
        os.makedirs(os.path.dirname(path), exist_ok=True)
        fd = -1
        try:
            fd = os.open(path, _OPEN, 0o644)
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _leads_to(path, fd):
                return fd
        except FileNotFoundError:
            pass
        except OSError as error:
            if fd < 0 or error.errno not in (errno.EACCES, errno.EAGAIN):
                _close(fd)
                raise
        except BaseException:
            _close(fd)
            raise
        _close(fd)
        if clock.now() >= deadline:
            return None
        clock.sleep(_PAUSE)


def _leads_to(path: str, fd: int, below: int | None = None) -> bool:
    """True when `path` is still the file that was locked, not one made after an unlink."""
    try:
        there = os.stat(path, dir_fd=below, follow_symlinks=False)
        return os.path.samestat(there, os.fstat(fd))
    except FileNotFoundError:
        return False


def _close(fd: int) -> None:
    if fd >= 0:
        os.close(fd)


# ------------------------------------------------------------------------------ smfix's own


def state_folder() -> str:
    """Return the folder of smfix's own locks: ``/run/smfix`` for root, else one of the user's own folders.

    Their names hold device numbers, which are valid until the next boot, so they are below ``/run``.
    """
    if os.geteuid() == 0:
        return "/run/smfix"
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        return os.path.join(runtime, "smfix")
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return os.path.join(state, "smfix", "lock")


@contextmanager
def own_lock(identity: Identity, folder: str) -> Iterator[Refusal | None]:
    """Exclude every other smfix (that uses `folder`) from one image while the block runs.

    Gives a Refusal (locked) if another process has it. The last holder removes the file while it still
    holds the lock, so each process that has locked a file looks whether the name still leads to it. Raises
    WriteFailed if `folder` cannot be made, or belongs to others.
    """
    name = f"{identity.key}.lock"
    with ExitStack() as held:
        try:
            below = _own_folder(folder)
            held.callback(os.close, below)
            refusal = _lock_own(name, below, held)
        except OSError as error:
            raise WriteFailed(f"cannot lock in {folder}: {error.strerror}") from error
        yield refusal


def _own_folder(folder: str) -> int:
    os.makedirs(folder, mode=0o700, exist_ok=True)
    below = os.open(folder, _FOLDER)
    about = os.fstat(below)
    if about.st_uid != os.geteuid() or about.st_mode & 0o022:
        os.close(below)
        raise WriteFailed(f"cannot lock in {folder}: others may write to it")
    return below


def _lock_own(name: str, below: int, held: ExitStack) -> Refusal | None:
    """Lock `name` in the folder `below` until `held` is closed. Raises OSError."""
    while True:
        fd = os.open(name, _OPEN, 0o600, dir_fd=below)
        with ExitStack() as unless_kept:
            unless_kept.callback(os.close, fd)
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError(errno.EINVAL, f"{name} is not a file")
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return _busy(os.pread(fd, _PID_WIDTH, 0).decode("ascii", "replace").strip())
            if _leads_to(name, fd, below):
                held.push(unless_kept.pop_all())
                held.callback(_unlink, name, below)
                # For the message of the next one only: the lock is the flock, on a full disk too.
                with suppress(OSError):
                    os.write(fd, f"{os.getpid():<{_PID_WIDTH}}".encode())
                return None


def _busy(owner: str) -> Refusal:
    who = f"pid {owner}" if owner.isdigit() else "another process"
    return Refusal(Reason.LOCKED, f"another smfix ({who}) is at work on this image")


def _unlink(name: str, below: int) -> None:
    with suppress(OSError):
        os.unlink(name, dir_fd=below)
