"""The seam between smfix and the kinds of storage repositories (SRs).

Theory. An SR type decides where its images are, which names each of them has, whether an image must be activated, and
who else may use it. Each of these questions is a method of :class:`SrType`; no other module asks for an SR's type. To
add a type, derive from SrType (or from the type that is nearest) in one file, and put an instance into ``SR_TYPES`` of
:mod:`smfix.sm.sr_types.registry`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, NamedTuple

from smfix.host import device_mapper
from smfix.host.device_mapper import named_device
from smfix.sm.paths import read_path
from smfix.values import Backing, Refusal, Target

if TYPE_CHECKING:
    from smfix.sm.sr_types.lvm_activation import Volumes


class Found(NamedTuple):
    """One image. `root`: the SR's folder (for ``open_image(sr_root=...)``), None if unknown."""

    target: Target
    root: str | None = None


class SrType:
    """One kind of SR. The methods here describe images that are always there and that only this host uses.

    `mounts`: the folders in which file SRs are mounted. `root`: the folder of one SR. Every method that looks at the
    machine may raise Unreadable, or Unanswered if the storage or its tools do not answer.
    """

    name = ""
    can_be_inactive = False
    """True if an image of this type has no node until it is activated."""
    has_folder = True
    """True if the images beside one are the files of its folder."""

    # ------------------------------------------------------------------ the SRs of this host

    def keeps(self, target: Target) -> bool:
        """True if `target` is an image of an SR of this type."""
        raise NotImplementedError

    def roots(self, mounts: Sequence[str]) -> Iterator[str]:  # noqa: ARG002 - a type overrides it
        """Give the folder of each attached SR."""
        yield from ()

    def root_of(self, sr: str, mounts: Sequence[str]) -> str | None:  # noqa: ARG002
        """Return the folder of the SR with the UUID `sr`; None if it is not attached, or of another type."""
        return None

    def mounted(self, sr: str | None, mounts: Sequence[str]) -> Iterator[str]:  # noqa: ARG002
        """Give the folders whose storage must answer before an image of `sr` (None: of any SR) is looked for."""
        yield from ()

    def holds_image(self, root: str) -> bool:  # noqa: ARG002
        """True if the SR at `root` holds an image."""
        return False

    # ------------------------------------------------------------------ finding images

    def images_in(self, folder: str) -> tuple[Found, ...] | None:  # noqa: ARG002
        """Return all images of the SR whose folder was named; None if `folder` is no SR of this type."""
        return None

    def find(self, ref: str, sr: str | None, mounts: Sequence[str]) -> Iterator[Found]:  # noqa: ARG002
        """Give every image of a VDI. `ref`: its UUID or a prefix of it; `sr`: a UUID, None for every SR."""
        yield from ()

    def patterns(self, ref: str, sr: str | None, mounts: Sequence[str]) -> Iterator[str]:  # noqa: ARG002
        """Give the patterns of the paths at which :meth:`find` looks, for a message."""
        yield from ()

    def locate(self, path: str, mounts: Sequence[str]) -> tuple[list[Found], list[str]]:
        """Return the images that a path of the storage manager's log names, and where each was looked for."""
        raise NotImplementedError

    # ------------------------------------------------------------------ the names of one image

    def place_at(self, path: str) -> str | None:  # noqa: ARG002
        """Return the one spelling of an image that has several names; None if it is not of this type."""
        return None

    def node_at(self, path: str) -> str | None:  # noqa: ARG002
        """Return a path that opens the image, if `path` is one of its several names; else None."""
        return None

    def folders_beside(self, path: str) -> tuple[str, ...]:
        """Return the folders to which a relative path in the image at `path` is relative."""
        return (os.path.dirname(os.path.realpath(os.path.abspath(path))),)

    def may_have_relative(self, path: str, place: str) -> bool:
        """True if the image at `path` may have a parent at `place`: in its folder, or in its SR."""
        sr = read_path(path).sr
        folders = (*self.folders_beside(path), os.path.dirname(os.path.abspath(path)))
        return os.path.dirname(place) in folders or (sr is not None and read_path(place).sr == sr)

    # ------------------------------------------------------------------ what is beside one image

    def neighbours(self, target: Target, suffixes: tuple[str, ...]) -> list[Target]:  # noqa: ARG002
        """Return the readable images of the same SR, by name. `suffixes`: of a file's name."""
        return []

    def names_beside(self, target: Target, folder: str) -> list[str]:  # noqa: ARG002
        """Return the names beside an image, sorted: SM's journals are among them. `folder`: its real folder."""
        try:
            return sorted(os.listdir(folder or os.curdir))
        except OSError:
            return []

    def journal_value(self, path: str) -> str | None:
        """Return the last word of the journal of SM at `path`; None if its content may be hidden from us."""
        return _last_word(path)

    # ------------------------------------------------------------------ using one image

    def shared_storage(self, target: Target, resolved: str, proc: str) -> str | None:  # noqa: ARG002
        """Name the storage that other hosts may use too, for a message; None if only this host can use the image."""
        return None

    def probed_path(self, target: Target) -> str | None:  # noqa: ARG002
        """Return the path whose storage must be asked before the image is opened; None: its folder was asked."""
        return None

    def is_without_node(self, target: Target) -> bool:  # noqa: ARG002
        """True if the image is not active, as far as its path shows."""
        return False

    def inactive_refusal(self, target: Target) -> Refusal | None:  # noqa: ARG002
        """Return why an image that is not active cannot be read without a change of the host; None: it can be read."""
        return None

    def active(self, target: Target, volumes: Volumes) -> AbstractContextManager[Refusal | None]:  # noqa: ARG002
        """Keep the image active while the block runs, or give the reason why it cannot be."""
        return nullcontext(None)

    def writable(self, target: Target, volumes: Volumes) -> AbstractContextManager[Refusal | None]:  # noqa: ARG002
        """Keep the image writable while the block runs, or give the reason why it cannot be."""
        return nullcontext(None)


def image_at(path: str) -> Found:
    """Return the image at an absolute path, as a file or as a device: by what is there, not by its name."""
    name = read_path(path)
    try:
        about = os.stat(path, follow_symlinks=path.startswith(f"{device_mapper.DEVICES}/"))
    except OSError:
        about = None
    if about is not None and stat.S_ISBLK(about.st_mode):
        volume = Target(path, Backing.BLOCK, name.vdi, name.sr)
        own = named_device(volume, about.st_rdev)
        return Found(volume if isinstance(own, Refusal) else own)
    root = None if name.rest is None else path[: -len(name.rest) - 1]
    return Found(Target(path, Backing.FILE, name.vdi, name.sr), root)


def _last_word(path: str) -> str:
    """Return the last word of a file's first line; empty if it cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(fd, 128).decode("ascii", "replace").split("\n")[0].strip().rpartition(" ")[2]
    except OSError:
        return ""
    finally:
        os.close(fd)
