"""How the operator wants it: the options that several commands share, and what follows from them.

The complete commands that reports tell people to type are made here, so that each works as this run did.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from smfix.errors import UsageError
from smfix.host import kernel_path
from smfix.report.escape import operand
from smfix.sm.paths import is_uuid, read_path
from smfix.values import ByteView, Names, NextStep, Outcome, Status, StepKind, Target

if TYPE_CHECKING:
    from smfix.host.wait_notice import Say
    from smfix.repair.apply import RepairContext
    from smfix.sm.gc_lock import Collector, GcWait
    from smfix.sm.sr_types.lvm_activation import Volumes
    from smfix.usecases import image_relatives
    from smfix.xapi.client import Pool


class Declined(NamedTuple):
    """An answer that is not yes, and is false: `why` nothing was written."""

    why: str

    def __bool__(self) -> bool:
        """It is never a yes."""
        return False


Progress = Callable[[int, int], None]
"""Takes how much of how much is done; a total of 0: unknown."""
After = Callable[[str, Outcome], None]
"""Takes the path and the outcome of an image, as soon as they are known."""
Decide = Callable[[str, Outcome], bool | Declined]
"""Whoever says yes to writing: gets the image's path and the outcome that is foreseen."""

_WRITERS = ("--confirm", "--sr-mount", "--journal-dir", "--sm-lock-dir", "--gc-wait", "--xapi-login", "--no-rescan")
_TAKES = {
    StepKind.READ_LOGS: (*_WRITERS, "--leave-sr"),
    StepKind.REPAIR: (*_WRITERS, "--size", "--uuid"),
    StepKind.CHECK: ("--sr-mount", "--xapi-login"),
    StepKind.UNDO: ("--journal-dir", "--sm-lock-dir", "--gc-wait", "--xapi-login"),
    StepKind.PRUNE: ("--journal-dir",),
}
"""The shared options that each command has."""
ROOT_JOURNALS = "/var/lib/smfix/journal"


class RunOptions(NamedTuple):
    """How the operator wants it: the options that several commands share (contract).

    `sr_mounts` and the folders are empty or None for the defaults: `journal_dir` of the undo journals,
    `lock_dir` of SM's locks, `state_dir` of smfix's own. `consent` are the codes of ``--confirm``.
    `decide` None is a dry run. `words` is the command line, for the journal. `given_size` (bytes) and
    `given_uuid` (16 bytes) are what the operator knows of a disk that lost both its footers. `pool` is XAPI,
    None where there is none; `xapi_login` the file that says how to reach it. `rescan`: let the storage
    manager look at an SR again after repairs. `gc_wait` is what ``--gc-wait`` says, and `gc` what is left of it in
    this run (None: each disk waits as long as a run of its own). `say` gets a line when storage is waited for.
    """

    sr_mounts: tuple[str, ...] = ()
    journal_dir: str | None = None
    lock_dir: str | None = None
    state_dir: str | None = None
    consent: frozenset[str] = frozenset()
    decide: Decide | None = None
    words: tuple[str, ...] = ()
    given_size: int | None = None
    given_uuid: bytes | None = None
    pool: Pool | None = None
    xapi_login: str | None = None
    rescan: bool = True
    left_srs: frozenset[str] = frozenset()
    gc_wait: str | None = None
    gc: GcWait | None = None
    say: Say | None = None

    @property
    def journals(self) -> str:
        """The folder of the undo journals, absolute."""
        return kernel_path.named(self.journal_dir) if self.journal_dir else default_journals()

    def step(self, kind: StepKind, *args: str, options: Sequence[str] = ()) -> NextStep:
        """Return a command of smfix that works as this one does: with those of the shared options that it has."""
        return NextStep(kind, args, (*options, *(word for name in _TAKES[kind] for word in self._option(name))))

    def undo_step(self, journal_id: str) -> NextStep:
        """Return the command that undoes a journal."""
        return self.step(StepKind.UNDO, journal_id)

    def repair_step(self, path: str, consent: tuple[str, ...] = ()) -> NextStep:
        """Return the command that repairs one image, with every consent that it needs."""
        agreed = self._replace(consent=self.consent.union(consent))
        return agreed.step(StepKind.REPAIR, kernel_path.typed(path), options=["--yes"])

    def _option(self, name: str) -> list[str]:
        """The option with its value, where it is not the default."""
        if name == "--sr-mount":
            return [part for mount in self.sr_mounts for part in (name, kernel_path.named(mount))]
        if name == "--confirm":
            return [part for code in sorted(self.consent) for part in (name, code)]
        if name == "--leave-sr":
            return [part for sr in sorted(self.left_srs) for part in (name, sr)]
        if name == "--size":
            return [] if self.given_size is None else [name, str(self.given_size)]
        if name == "--uuid":
            if self.given_uuid is None:
                return []
            from smfix.formats.vhd.structs import uuid_text

            return [name, uuid_text(self.given_uuid)]
        if name == "--xapi-login":
            return [] if self.xapi_login is None else [name, kernel_path.named(self.xapi_login)]
        if name == "--gc-wait":
            return [] if self.gc_wait is None else [name, self.gc_wait]
        if name == "--no-rescan":
            return [] if self.rescan else [name]
        if name == "--journal-dir":
            return [] if self.journals == default_journals() else [name, self.journals]
        return [] if self.lock_dir is None else [name, kernel_path.named(self.lock_dir)]

    def volumes(self) -> Volumes:
        """What activates a volume for the time of a repair, and puts it back."""
        from smfix.sm import locks
        from smfix.sm.sr_types.lvm_activation import Volumes

        return Volumes(locks.sm_lock_folder(self.lock_dir))

    def collector(self, sr: str | None) -> Collector | None:
        """The GC that is at work on `sr` now, by this host's locks; None: none, or it cannot be seen."""
        from smfix.sm import gc_lock, locks

        folder = locks.sm_lock_folder(self.lock_dir)
        if folder is None or sr is None or not is_uuid(sr):
            return None
        with suppress(OSError):  # the repair says why the lock cannot be read
            return gc_lock.collector(folder, sr)
        return None

    def names(self, target: Target) -> Names:
        """What the pool calls the disk, its SR and its VMs."""
        return Names() if self.pool is None else self.pool.names(target.vdi, target.sr)

    def repair_context(self, family: image_relatives.Family, *, only_appends: bool = False) -> RepairContext:
        """What apply and undo work with, for the image whose children are `family`.

        `only_appends`: what will be written lies behind the data.
        """
        from smfix.repair.apply import RepairContext
        from smfix.sm import locks
        from smfix.usecases.guard import HostGuard

        named = (read_path(path).vdi for path, _ in family)
        guard = HostGuard(
            hidden=is_hidden,
            sm_locks=locks.sm_lock_folder(self.lock_dir),
            state=self.state_dir or locks.state_folder(),
            children=tuple(vdi for vdi in named if vdi is not None),
            pool=self.pool,
            only_appends=only_appends,
            gc=self.gc,
        )
        return RepairContext(self.journals, guard, self.undo_step)


# --------------------------------------------------------------------------- options as they are typed


def consent(codes: Iterable[str]) -> frozenset[str]:
    """The codes of ``--confirm``, as the table writes them. Raises UsageError for an unknown one."""
    codes = tuple(codes)
    if not codes:
        return frozenset()
    from smfix.formats.vhd.problems.registry import row

    known = set()
    for code in codes:
        problem = row(code)
        if problem is None:
            raise UsageError(f"--confirm {code}: there is no such finding; `smfix explain` lists them")
        known.add(problem.code)
    return frozenset(known)


def left_srs(srs: Iterable[str]) -> frozenset[str]:
    """The UUIDs of ``--leave-sr``. Raises UsageError for what is none."""
    for sr in srs:
        if not is_uuid(sr.lower()):
            raise UsageError(f"--leave-sr {sr}: an SR's UUID is 32 hex digits with four dashes")
    return frozenset(sr.lower() for sr in srs)


def given_uuid(text: str | None) -> bytes | None:
    """The UUID of ``--uuid`` as 16 bytes. Raises UsageError for what is none."""
    if text is None:
        return None
    if not is_uuid(text.lower()):
        raise UsageError(f"--uuid {text}: a footer's UUID is 32 hex digits with four dashes")
    return bytes.fromhex(text.replace("-", ""))


def given_size(text: str | None) -> int | None:
    """The size of ``--size`` in bytes. Raises UsageError for what is none."""
    if text is None:
        return None
    import re

    size = re.fullmatch(r"([0-9]{1,18})(?:([KMGT])(?:iB)?)?", text.strip(), re.ASCII | re.IGNORECASE)
    if size is None:
        raise UsageError(f"--size {text}: a whole number of bytes, or of K, M, G or T (1024 each: 64M is 67108864)")
    return int(size[1]) << (0 if size[2] is None else 10 * ("KMGT".index(size[2].upper()) + 1))


def planned(outcomes: Iterable[Outcome]) -> int:
    """How many images a run without dry run would write to."""
    return sum(outcome.status is Status.WOULD_REPAIR for outcome in outcomes)


def absolute(name: str) -> str:
    """A file's name as a word that is right in every folder; ``-`` stays, and a UUID that names no file.

    Nothing else is looked at: it may be on storage that does not answer.
    """
    could_be_uuid = set(name.lower().removeprefix("old_")) <= set("0123456789abcdef-/") and not os.path.isabs(name)
    if name == "-" or (could_be_uuid and not os.path.lexists(name)):
        return operand(name)
    return kernel_path.typed(name)


def default_journals() -> str:
    """Where journals lie unless the operator says otherwise: root's folder, else the XDG state."""
    if os.geteuid() == 0:
        return ROOT_JOURNALS
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return kernel_path.named(os.path.join(state, "smfix", "journal"))


def is_hidden(view: ByteView) -> bool | None:
    """The mark of a base copy, by the footer the image is read by; None: no footer is sound."""
    from smfix.formats.vhd.image import inspect

    footer = inspect(view).footer
    return None if footer is None else footer.hidden != 0
