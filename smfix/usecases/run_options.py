"""The options that several commands share: as data, as they are typed, and as words of the next commands.

The steps that reports suggest are made here, so that each works as this run did.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from smfix.errors import UsageError
from smfix.host import kernel_path
from smfix.report.escape import operand
from smfix.sm.paths import is_uuid
from smfix.values import NextStep, Outcome, Status, StepKind, uuid_text

if TYPE_CHECKING:
    from smfix.host.wait_notice import Say
    from smfix.sm.gc_lock import GcWait
    from smfix.xapi.client import Pool


class Declined(NamedTuple):
    """An answer that counts as no: `why` nothing was written."""

    why: str

    def __bool__(self) -> bool:
        """Return False: it is never a yes."""
        return False


Progress = Callable[[int, int], None]
"""Takes how much of how much is done; a total of 0: unknown."""
After = Callable[[str, Outcome], None]
"""Takes the path and the outcome of an image, as soon as they are known."""
Decide = Callable[[str, Outcome], bool | Declined]
"""Decides whether to write an image: takes its path and the outcome that is foreseen."""

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
    """The options that several commands share (contract), and the objects of this run that go with them.

    `sr_mounts` and the folders are empty or None for the defaults: `journal_dir` of the undo journals, `lock_dir` of
    SM's locks, `state_dir` of smfix's own. `consent` are the codes of ``--confirm``. `decide` None is a dry run.
    `words` is the command line, for the journal. `given_size` (bytes) and `given_uuid` (16 bytes) are the operator's
    facts of a disk that lost both its footers. `pool` is XAPI, None if there is none; `xapi_login` the file with its
    address. `rescan`: have the storage manager scan an SR after repairs. `gc_wait` is the text of ``--gc-wait``, `gc`
    the part of it that is left in this run (None: each disk waits as long as a run of its own). `say` takes a line when
    smfix waits for storage.
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
        """Return the folder of the undo journals, absolute."""
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
        """Return the option with its value, if it is not the default."""
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


# --------------------------------------------------------------------------- options as they are typed


def consent(codes: Iterable[str]) -> frozenset[str]:
    """Return the codes of ``--confirm`` in upper case. Raises UsageError for an unknown one."""
    codes = tuple(codes)
    if not codes:
        return frozenset()
    from smfix.formats.registry import row

    known = set()
    for code in codes:
        problem = row(code)
        if problem is None:
            raise UsageError(f"--confirm {code}: there is no such finding; `smfix explain` lists them")
        known.add(problem.code)
    return frozenset(known)


def left_srs(srs: Iterable[str]) -> frozenset[str]:
    """Return the UUIDs of ``--leave-sr``. Raises UsageError for other text."""
    for sr in srs:
        if not is_uuid(sr.lower()):
            raise UsageError(f"--leave-sr {sr}: an SR's UUID is 32 hex digits with four dashes")
    return frozenset(sr.lower() for sr in srs)


def given_uuid(text: str | None) -> bytes | None:
    """Return the UUID of ``--uuid`` as 16 bytes. Raises UsageError for other text."""
    if text is None:
        return None
    if not is_uuid(text.lower()):
        raise UsageError(f"--uuid {text}: a footer's UUID is 32 hex digits with four dashes")
    return bytes.fromhex(text.replace("-", ""))


def given_size(text: str | None) -> int | None:
    """Return the size of ``--size`` in bytes. Raises UsageError for other text."""
    if text is None:
        return None
    import re

    size = re.fullmatch(r"([0-9]{1,18})(?:([KMGT])(?:iB)?)?", text.strip(), re.ASCII | re.IGNORECASE)
    if size is None:
        raise UsageError(f"--size {text}: a whole number of bytes, or of K, M, G or T (1024 each: 64M is 67108864)")
    return int(size[1]) << (0 if size[2] is None else 10 * ("KMGT".index(size[2].upper()) + 1))


def planned(outcomes: Iterable[Outcome]) -> int:
    """Count the images that a run without --dry-run would write."""
    return sum(outcome.status is Status.WOULD_REPAIR for outcome in outcomes)


def absolute(name: str) -> str:
    """Return a file's name as a word that is right in every folder; ``-`` stays, and a UUID that names no file.

    No other file is touched: it may be on storage that does not answer.
    """
    could_be_uuid = set(name.lower().removeprefix("old_")) <= set("0123456789abcdef-/") and not os.path.isabs(name)
    if name == "-" or (could_be_uuid and not os.path.lexists(name)):
        return operand(name)
    return kernel_path.typed(name)


def default_journals() -> str:
    """Return the default folder of journals: root's, else the XDG state folder."""
    if os.geteuid() == 0:
        return ROOT_JOURNALS
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return kernel_path.named(os.path.join(state, "smfix", "journal"))
