"""Find the other names by which a process may use a file: hard links, and other mounts of the same storage.

Theory. SM's locks and journals go by a path, and so does an operator who looks for the disk that was changed. An image
that has a second name may be a disk of an SR by that one: then the locks of the first name do not protect it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from smfix.host.image_file import Identity, OpenImage
from smfix.sm.paths import read_path
from smfix.values import NextStep, Reason, Refusal, StepKind


def alias_refusal(image: OpenImage, proc: str = "/proc") -> Refusal | None:
    """Return why a file must not be written by the name that it was opened by, or None. Raises Unreadable."""
    target = image.target
    if target.is_device:
        return None
    links = image.links
    if links > 1:
        return Refusal(
            Reason.UNSAFE_PATH,
            f"{target.path} has {links} names (hard links): a repair would change the file under each of them, and the "
            "storage manager's locks protect one; remove the other names, or copy the file and repair the copy",
            (NextStep(StepKind.FIND_LINKS, (os.path.dirname(target.path), "-xdev", "-samefile", target.path)),)
            if target.path.isprintable()
            else (),
        )
    own = target.sr or read_path(target.path).sr
    for name in _other_names(image.identity, proc):
        if read_path(name).sr not in (None, own):
            return Refusal(
                Reason.UNSAFE_PATH,
                f"{target.path} is a disk of another SR, {name}, whose locks it needs; name it by that path",
                (NextStep(StepKind.CHECK, (name,)),),
            )
    return None


def _other_names(identity: Identity, proc: str) -> Iterator[str]:
    """The paths that other mounts of the same file system give a file (bind mounts).

    Source: proc_pid_mountinfo(5). A file system whose files have other device numbers than its mount (btrfs, some
    overlays) shows none.
    """
    device = f"{os.major(identity.device)}:{os.minor(identity.device)}"
    try:
        with open(f"{proc}/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
            places = [(_plain(line[3]), _plain(line[4])) for line in map(str.split, mounts) if line[2] == device]
    except (OSError, IndexError):
        return
    here = [(root, point) for root, point in places if _below(identity.path, point) is not None]
    if not here:
        return
    root, point = max(reversed(here), key=lambda place: len(place[1]))  # the last mount hides those before it
    inside = _join(root, _below(identity.path, point) or "")
    for other_root, other_point in places:
        rest = _below(inside, other_root)
        if rest is not None:
            path = _join(other_point, rest)
            if path != identity.path and _is(path, identity):
                yield path


def _plain(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _below(path: str, folder: str) -> str | None:
    """Return the rest of `path` below `folder`, empty for `folder` itself (a file can be mounted), else None."""
    folder = folder.rstrip("/")
    if path == folder:
        return ""
    return path[len(folder) + 1 :] if path.startswith(f"{folder}/") else None


def _join(folder: str, rest: str) -> str:
    return f"{folder.rstrip('/')}/{rest}" if rest else folder


def _is(path: str, identity: Identity) -> bool:
    try:
        about = os.lstat(path)
    except OSError:
        return False
    return (about.st_dev, about.st_ino) == (identity.device, identity.inode)
