"""Who on this host holds an image open, and how: by device and inode, never by name.

Theory. Every open file of every process is ``/proc/<pid>/fd/<n>``; ``stat`` of that link is the
inode that is open, whatever it is called today, and ``fdinfo`` has the flags it was opened with.
One pass over all processes answers for any number of images. No process shows the files of loop devices
and the devices stacked on a block device: ``/sys`` does. Mounts are in the mount table. A tapdisk that is
paused has closed its image, so tapdisk itself is asked. Not seen by
anybody here: a memory map whose descriptor was closed (neither tapdisk nor vhd-util makes one), another
host of the pool, the kernel's own NFS server, and whatever runs outside of the container smfix itself
runs in.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import struct
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from smfix.errors import Unreadable
from smfix.host import storage_probe, tapdisk
from smfix.host.image_file import Identity
from smfix.host.mounts import mount_of
from smfix.host.statx import FileId, file_id
from smfix.sm.paths import read_path
from smfix.values import InUse

MAX_HOLDERS = 8
"""Holders that are named; a base copy can have hundreds of readers."""

_Key = tuple[int, ...]  # (st_dev, st_ino) of a file, (st_rdev,) of a device
_READ, _WRITE = "read-only", "read-write"
_LOOP_STATUS = 0x4C05
"""``LOOP_GET_STATUS64``, linux/loop.h; its answer begins with the file's device and inode, 64 bits each."""
_LOOP_INFO = 232


class _Roots(NamedTuple):
    proc: str
    sys: str


@dataclass(frozen=True, slots=True)
class OpenState:
    """How one image is held. `holders`: one phrase each, as ``tapdisk (pid 71) read-write``.

    `state` is the strongest that was seen; UNKNOWN if nothing read-write was seen but something
    could not be looked at; `blind` names it.
    """

    state: InUse
    holders: tuple[str, ...]
    blind: str | None


def open_state(identity: Identity, *, proc: str = "/proc", sys: str = "/sys") -> OpenState:
    """How one image is held by others than this process; see :func:`usage_of`."""
    return usage_of((identity,), proc=proc, sys=sys)[0]


def usage_of(identities: Sequence[Identity], *, proc: str = "/proc", sys: str = "/sys") -> tuple[OpenState, ...]:
    """How each image is held by others than this process, in one pass over the host.

    `proc`, `sys`: the mount points of those file systems. Never raises: `blind` names everything that cannot be
    read.
    """
    keys = [_key(identity) for identity in identities]
    wanted = set(keys)
    held: defaultdict[_Key, list[tuple[bool, str]]] = defaultdict(list)
    blind = _ask_processes(wanted, held, proc)
    unanswered = _ask_tapdisks(wanted, held, identities)
    unseen = _ask_loop_devices(wanted, held, identities, _Roots(proc, sys))
    blind = "; ".join(filter(None, [blind, unanswered, unseen])) or None
    for key, writes, who in _ask_kernel(identities, proc, sys):
        if key in wanted:
            held[key].append((writes, who))
    by_nobody = _usage([], blind)
    return tuple(_usage(held[key], blind) if key in held else by_nobody for key in keys)


def _key(identity: Identity) -> _Key:
    if identity.rdev is not None:
        return (identity.rdev,)
    return (identity.device, identity.inode)


def _key_of(about: FileId) -> _Key:
    if stat.S_ISBLK(about.st_mode):
        return (about.st_rdev,)
    return (about.st_dev, about.st_ino)


def _usage(holders: list[tuple[bool, str]], blind: str | None) -> OpenState:
    writers = [f"{who} {_WRITE}" for writes, who in holders if writes]
    named = writers + [f"{who} {_READ}" for writes, who in holders if not writes]
    if len(named) > MAX_HOLDERS:
        named[MAX_HOLDERS:] = [f"{len(named) - MAX_HOLDERS} more"]
    if writers:
        state = InUse.READ_WRITE
    elif blind is not None:
        state = InUse.UNKNOWN
    else:
        state = InUse.READ_ONLY if holders else InUse.NONE
    return OpenState(state, tuple(named), blind)


# ------------------------------------------------------------------------------ processes


def _ask_processes(wanted: set[_Key], held: defaultdict[_Key, list[tuple[bool, str]]], proc: str) -> str | None:
    """Enter into `held` who has what open; return what could not be seen."""
    me = str(os.getpid())
    unseen = 0
    try:
        pids = [name for name in os.listdir(proc) if name.isdigit() and name != me]
    except OSError as error:
        return f"{proc} cannot be read: {error.strerror}"
    for pid in pids:
        base = f"{proc}/{pid}"
        # Two descriptors of one process are one holder, the stronger of them.
        found: dict[_Key, bool] = {}
        try:
            for table, descriptors in _tables(base):
                for number in descriptors:
                    try:
                        about = file_id(f"{table}/fd/{number}")
                    except OSError:
                        continue
                    key = _key_of(about)
                    if key in wanted and (writes := _writes(f"{table}/fdinfo/{number}")) is not None:
                        found[key] = found.get(key, False) or writes
        except PermissionError:
            unseen += not _is_kernel_thread(base)
            continue
        for key, writes in found.items():
            held[key].append((writes, f"{_name(base)} (pid {pid})"))
    if unseen:
        return f"the files of {unseen} processes of other users"
    if os.geteuid() != 0 and "1" not in pids and me != "1":
        return "processes of other users, which /proc hides here"
    return None


def _tables(base: str) -> Iterator[tuple[str, list[str]]]:
    """(folder, descriptors) of a process, and of those of its threads that have other ones than it has.

    A process whose first thread has ended shows none, though the others go on. Raises PermissionError.
    """
    own = _descriptors(base)
    yield base, own
    for thread in _list(f"{base}/task"):
        others = _descriptors(f"{base}/task/{thread}")
        if others and others != own:
            yield f"{base}/task/{thread}", others


def _descriptors(base: str) -> list[str]:
    try:
        return os.listdir(f"{base}/fd")
    except PermissionError:
        raise
    except OSError:
        return []  # it has ended meanwhile


def _writes(fdinfo: str) -> bool | None:
    """Whether a descriptor may write; None when it holds nothing (``O_PATH``, closed since)."""
    try:
        with open(fdinfo, encoding="ascii") as lines:
            flags = next(int(line.split()[1], 8) for line in lines if line.startswith("flags:"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, IndexError, StopIteration):
        return True  # better one refusal too many
    if flags & os.O_PATH:
        return None
    return flags & os.O_ACCMODE != os.O_RDONLY


def _is_kernel_thread(base: str) -> bool:
    """A child of kthreadd (2), or itself: it has no descriptors to hide."""
    try:
        with open(f"{base}/stat", "rb") as status:
            # The name in parentheses may hold anything; what follows it is: state, ppid.
            ppid = status.read(4096).rpartition(b")")[2].split()[1]
    except (OSError, IndexError):
        return False
    return ppid == b"2" or base.endswith("/2")


def _name(base: str) -> str:
    try:
        with open(f"{base}/comm", encoding="utf-8", errors="replace") as comm:
            return comm.read(64).strip() or "a process"
    except OSError:
        return "a process"


def _ask_tapdisks(
    wanted: set[_Key], held: defaultdict[_Key, list[tuple[bool, str]]], identities: Sequence[Identity]
) -> str | None:
    """Enter the tapdisks that hold an image without a descriptor; return what could not be seen.

    The disks of other SRs than those of the images are not touched: their storage may be dead.
    """
    try:
        disks = tapdisk.listed()
    except Unreadable as error:
        return f"the tapdisks ({error})"
    srs = {read_path(identity.path).sr for identity in identities} if disks else set[str | None]()
    for disk in disks:
        sr = read_path(disk.path).sr
        if sr is not None and None not in srs and sr not in srs:
            continue
        try:
            key = _key_of(file_id(disk.path))
        except OSError:
            continue  # it has a name of yesterday, or is on a node that was removed: no image of ours
        who = f"(pid {disk.pid})" if disk.pid is not None else "tapdisk"
        if key in wanted and not any(who in name for _, name in held[key]):
            # It has no descriptor of the image now. When it opens it, it opens it for writing.
            state = "paused " if disk.is_paused else ""
            held[key].append((True, f"{state}tapdisk {who}" if disk.pid is not None else f"{state}tapdisk"))
    return None


# ------------------------------------------------------------------------------ the kernel


def _ask_kernel(identities: Sequence[Identity], proc: str, sys: str) -> Iterator[tuple[_Key, bool, str]]:
    """Give the images that the kernel itself holds: (which, writes, who)."""
    devices = {identity.rdev for identity in identities if identity.rdev is not None}
    if not devices:
        return
    for rdev in devices:
        numbers = f"{os.major(rdev)}:{os.minor(rdev)}"
        for holder in _list(f"{sys}/dev/block/{numbers}/holders"):
            yield (rdev,), True, f"device {holder}"
    try:
        with open(f"{proc}/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
            for line in mounts:
                fields = line.split()
                major, _, minor = fields[2].partition(":")
                rdev = os.makedev(int(major), int(minor))
                if rdev in devices:
                    read_only = "ro" in fields[5].split(",")
                    yield (rdev,), not read_only, f"mount {fields[4]}"
    except (OSError, ValueError, IndexError):
        return  # no /proc at all: the question for the processes has reported it


def _loop_devices(sys: str) -> dict[str, tuple[str, bool]]:
    """Return the attached loop devices: the path of each one's file, and whether it may be written."""
    found = {}
    for name in _list(f"{sys}/block"):
        if not name.startswith("loop"):
            continue
        try:
            with open(f"{sys}/block/{name}/loop/backing_file", "rb") as link:
                path = os.fsdecode(link.read(4097).removesuffix(b"\n"))
            with open(f"{sys}/block/{name}/ro", "rb") as flag:
                found[name] = path, flag.read(1) != b"1"
        except OSError:
            continue  # not attached
    return found


def _ask_loop_devices(
    wanted: set[_Key], held: defaultdict[_Key, list[tuple[bool, str]]], identities: Sequence[Identity], roots: _Roots
) -> str | None:
    """Enter the files of loop devices (the kernel holds them, no process does); return those that could not be seen.

    The storage of such a file may be dead, and then the kernel does not say which file it is. If it is on another
    mount than the images, it is none of them.
    """
    devices = _loop_devices(roots.sys)
    heard = storage_probe.answers(
        {f"/dev/{name}": partial(_keys_of, name, path) for name, (path, _) in devices.items()}
    )
    blind = []
    for name, (path, writes) in devices.items():
        said = heard.get(f"/dev/{name}")
        if said is None:
            mount = mount_of(path, roots.proc)
            if mount is None or any(mount_of(one.path, roots.proc) in (mount, None) for one in identities):
                blind.append(f"the file of loop device {name} ({path}), whose storage does not answer")
        for key in map(tuple, json.loads(said or b"[]")):
            if key in wanted:
                held[key].append((writes, f"loop device {name}"))
    return "; ".join(blind) or None


def _keys_of(name: str, path: str) -> bytes:
    """Return the file of a loop device by the kernel's record, and by its path."""
    return json.dumps(list(filter(None, {_key_in_kernel(f"/dev/{name}"), _key_at(path)}))).encode()


def _key_in_kernel(device: str) -> _Key | None:
    """Return the file of a loop device by the kernel's record; None without the permission to ask."""
    try:
        fd = os.open(device, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            told = fcntl.ioctl(fd, _LOOP_STATUS, bytes(_LOOP_INFO))
        finally:
            os.close(fd)
    except OSError:
        return None
    return struct.unpack_from("=QQ", told)


def _key_at(path: str) -> _Key | None:
    """Return the file at the path of a loop device's file: the same one, if the path is of this mount namespace."""
    try:
        return _key_of(file_id(path))
    except (OSError, ValueError):
        return None  # deleted, or a path of another namespace


def _list(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
