"""Make the options of a run, and ask before something is written."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

from smfix.cli import console
from smfix.cli.console import answer, emit, redraw, say
from smfix.cli.options import Consent, Storage, Writing
from smfix.errors import UsageError
from smfix.report import journals, layout, summary, text
from smfix.report.next_steps import command_line
from smfix.usecases.repair_context import gc_wait, pool_at
from smfix.usecases.rescan import rescan as rescan_srs
from smfix.usecases.run_options import Decide, Declined, Progress, RunOptions
from smfix.usecases.run_options import consent as consent_to
from smfix.values import Exit, JournalRecord, NextStep, Outcome, Pruned, Rescan

T = TypeVar("T")
_NO_WRITING, _NO_CONSENT = Writing(), Consent()


def run_options_of(
    storage: Storage,
    writing: Writing = _NO_WRITING,
    consent: Consent = _NO_CONSENT,
    decide: Decide | None = None,
) -> RunOptions:
    """Make the options of a run from those of the command.

    Raises UsageError for a code that needs no consent, or for what is no duration.
    """
    return RunOptions(
        sr_mounts=tuple(storage.sr_mount or ()),
        journal_dir=writing.journal_dir,
        lock_dir=writing.sm_lock_dir,
        consent=consent_to(consent.confirm or ()),
        decide=decide,
        words=tuple(sys.argv),
        say=_said,
        gc_wait=writing.gc_wait,
        gc=gc_wait(writing.gc_wait, redraw),
    )


def _said(line: str) -> None:
    """Say a line on stderr, unless a question of ours waits for its answer."""
    if not console.is_asking():
        say(line)


@contextmanager
def with_pool(run_options: RunOptions, login: str | None, *, rescan: bool = True) -> Iterator[RunOptions]:
    """Add the pool's XAPI to the options, if there is one; end its session after the block."""
    if login is not None:
        redraw("smfix: asking XAPI")
    pool = pool_at(login)
    redraw("")
    try:
        yield run_options._replace(pool=pool, xapi_login=login, rescan=rescan)
    finally:
        if pool is not None:
            pool.close()


def rescanned(outcomes: Sequence[tuple[str | None, Outcome | None]], run_options: RunOptions) -> tuple[Rescan, ...]:
    """Let the storage manager scan each repaired SR of `outcomes` (SR, outcome); that may take minutes."""
    if run_options.pool is not None:
        redraw("smfix: asking the storage manager to look at the repaired SRs again")
    return rescan_srs(outcomes, run_options)


def decider(*, yes: bool, dry_run: bool, as_json: bool) -> Decide | None:
    """Return the function that accepts or declines a plan; None for a dry run. Raises UsageError."""
    if yes and dry_run:
        raise UsageError("--yes and --dry-run contradict each other")
    if yes:
        return lambda _path, _outcome: True
    if dry_run or as_json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return None
    return Asker()


WRITE = {
    "yes": "write it: journalled before, checked after, and `smfix undo` puts it back",
    "no": "leave this disk as it is (so does Enter)",
    "all": "write this and all that follow, without asking again",
    "quit": "leave this and all that follow as they are; then the report",
}


class Asker:
    """Shows each plan on a terminal, asks, and prints the result at once.

    `interrupted`: a question was answered with Ctrl-C, which makes the exit code 32. `unanswered`: with Ctrl-C or the
    end of the input; both mean `quit`.
    """

    def __init__(self) -> None:
        self.interrupted = self.unanswered = False
        self._number = self._total = 1
        self._rest: bool | Declined | None = None  # the answer to all further plans
        self._agreed = self._asked = False  # about the current disk

    def each(self, done: int, total: int) -> None:
        """Take notice that `done` disks of `total` are finished."""
        self._number, self._total = done + 1, total
        self._agreed = self._asked = False

    def __call__(self, path: str, outcome: Outcome) -> bool | Declined:
        """Return whether the plan of the image at `path` may be written."""
        if self._rest is not None:
            self._agreed = bool(self._rest)
            return self._rest
        emit("\n" + text.proposal(path, outcome) + "\n")
        self._asked = True
        word = self._ask()
        self._agreed = word in ("yes", "all")
        if word == "all":
            self._rest = True
        elif word == "quit":
            self._rest = Declined("not asked: the rest was left")
        elif not word:
            self.unanswered = True
            self._rest = Declined("not asked: interrupted")
            return Declined("interrupted before an answer")
        return self._agreed

    def after(self, path: str, outcome: Outcome) -> None:
        """Print the result of the disk at `path` now, not only in the report after the last disk."""
        if self._agreed:
            emit(text.repaired_now(None if self._asked else path, outcome) + "\n")
        elif self._asked:
            emit(layout.row("result", "left as it is") + "\n")
        elif self._rest is None and self._total > 1:
            emit("\n" + summary.not_asked(self._number, path, outcome) + "\n")
        self._agreed = self._asked = False

    def _ask(self) -> str:
        """Ask, and return the word; "" if there was no answer."""
        many = self._total > 1
        words = WRITE if many else {word: WRITE[word] for word in ("yes", "no")}
        try:
            return answer(f"Write this? Disk {self._number} of {self._total}." if many else "Write this?", words)
        except KeyboardInterrupt:
            self.interrupted = True
            say("")
            say("smfix: interrupted: nothing more is written, the report so far follows")
            return ""


class Watch:
    """Passes on what happens to the disks: to the progress line, and to the :class:`Asker`."""

    def __init__(self, decide: Decide | None, progress: Progress) -> None:
        self._asker = decide if isinstance(decide, Asker) else None
        self._progress = progress

    def each(self, done: int, total: int) -> None:
        """Take notice that `done` disks of `total` are finished."""
        self._progress(done, total)
        if self._asker is not None:
            self._asker.each(done, total)

    def after(self, path: str, outcome: Outcome) -> None:
        """Pass on the outcome of the disk at `path`."""
        if self._asker is not None:
            self._asker.after(path, outcome)


def undo_decider(*, yes: bool, dry_run: bool, as_json: bool) -> Callable[[JournalRecord], bool] | None:
    """Return the function that accepts or declines an undo; None for a dry run. Raises UsageError."""
    words = {"yes": "put the old bytes back", "no": "leave the disk as it is (so does Enter)"}
    decide = decider(yes=yes, dry_run=dry_run, as_json=as_json)
    return _asked_once(decide, journals.proposal, "Put it back?", words)


def prune_decider(*, yes: bool, dry_run: bool, as_json: bool) -> Callable[[Sequence[Pruned]], bool] | None:
    """Return the function that accepts or declines a deletion of journals; None for a dry run. Raises UsageError."""
    words = {"yes": "delete them: those repairs cannot be undone any more", "no": "keep them (so does Enter)"}
    decide = decider(yes=yes, dry_run=dry_run, as_json=as_json)
    return _asked_once(decide, journals.prune_proposal, "Delete them?", words)


def _asked_once(
    decide: Decide | None, propose: Callable[[T], str], question: str, words: Mapping[str, str]
) -> Callable[[T], bool] | None:
    """Make the function that shows a proposal and asks; it asks nothing with --yes, and is None for a dry run."""
    if not isinstance(decide, Asker):
        return None if decide is None else lambda _: True

    def agree(value: T) -> bool:
        emit("\n" + propose(value) + "\n")
        return answer(question, words) == "yes"

    return agree


def how_to_continue(run_options: RunOptions, planned: int, step: NextStep) -> str:
    """Return the last words of a dry run or an interrupted run; "" if there was nothing to write. `step` writes."""
    if isinstance(run_options.decide, Asker) and run_options.decide.unanswered:
        return "Interrupted: nothing was written after that. The same command goes on from here."
    if run_options.decide is not None or not planned:
        return ""
    return (
        f"Nothing was changed: this was a dry run. To repair {layout.counted(planned, 'image')}:\n"
        f"{layout.INDENT}{command_line(step)}"
    )


def ended(decide: Decide | None, code: int) -> int:
    """Return the exit code of a run: `code`, or 32 if a question was answered with Ctrl-C."""
    return int(Exit.INTERRUPTED) if isinstance(decide, Asker) and decide.interrupted else code
