"""What the operator wants: the setting of a use case, and who says yes to a plan."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from smfix.cli import console
from smfix.cli.console import answer, emit, redraw, say
from smfix.errors import UsageError
from smfix.report import journals, layout, summary, text
from smfix.usecases import from_log
from smfix.values import Exit, JournalRecord, Outcome, Pruned, Rescan


def setting_of(
    sr_mount: list[str] | None,
    journal_dir: str | None,
    lock_dir: str | None,
    confirm: list[str] | None,
    decide: from_log.Decide | None,
    gc_wait: str | None = None,
) -> from_log.RunOptions:
    """The shared options as one value. Raises UsageError for a code that no consent is asked for, or no duration."""
    return from_log.RunOptions(
        sr_mounts=tuple(sr_mount or ()),
        journal_dir=journal_dir,
        lock_dir=lock_dir,
        consent=from_log.consent(confirm or ()),
        decide=decide,
        words=tuple(sys.argv),
        say=_said,
        gc_wait=gc_wait,
        gc=from_log.gc_wait(gc_wait, redraw),
    )


def _said(line: str) -> None:
    """Say a line on stderr, unless a question of ours waits for its answer."""
    if not console.is_asking():
        say(line)


@contextmanager
def with_pool(
    run_options: from_log.RunOptions, login: str | None, *, rescan: bool = True
) -> Iterator[from_log.RunOptions]:
    """The setting with the pool's XAPI, where there is one; its session is ended behind the block."""
    if login is not None:
        redraw("smfix: asking XAPI")
    try:
        pool = from_log.pool_at(login)
    finally:
        redraw("")
    try:
        yield run_options._replace(pool=pool, xapi_login=login, rescan=rescan)
    finally:
        if pool is not None:
            pool.close()


def rescanned(
    treated: Sequence[tuple[str | None, Outcome | None]], run_options: from_log.RunOptions
) -> tuple[Rescan, ...]:
    """Each repaired SR handed back to the storage manager, which may take a while."""
    if run_options.pool is None:
        return from_log.rescan(treated, run_options)
    redraw("smfix: asking the storage manager to look at the repaired SRs again")
    try:
        return from_log.rescan(treated, run_options)
    finally:
        redraw("")


def decider(*, yes: bool, dry_run: bool, as_json: bool) -> from_log.Decide | None:
    """Who says yes to a plan; None: nobody, a dry run."""
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
    """Shows each plan on a terminal, asks, and says at once what became of it.

    `interrupted`: a question was answered with Ctrl-C, and the exit code says so; `unanswered`: with that or with
    the end of the input, which are `quit`.
    """

    def __init__(self) -> None:
        self.interrupted = self.unanswered = False
        self._number = self._total = 1
        self._rest: bool | from_log.Declined | None = None  # the answer to all that follows
        self._agreed = self._asked = False  # to the disk at hand; about it

    def each(self, done: int, total: int) -> None:
        """`done` disks of `total` are treated."""
        self._number, self._total = done + 1, total
        self._agreed = self._asked = False

    def __call__(self, path: str, outcome: Outcome) -> bool | from_log.Declined:
        """Whether the plan of the image at `path` may be written."""
        if self._rest is not None:
            self._agreed = bool(self._rest)
            return self._rest
        redraw("")
        emit("\n" + text.proposal(path, outcome) + "\n")
        self._asked = True
        word = self._answered()
        self._agreed = word in ("yes", "all")
        if word == "all":
            self._rest = True
        elif word == "quit":
            self._rest = from_log.Declined("not asked: the rest was left")
        elif not word:
            self.unanswered = True
            self._rest = from_log.Declined("not asked: interrupted")
            return from_log.Declined("interrupted before an answer")
        return self._agreed

    def after(self, path: str, outcome: Outcome) -> None:
        """The disk at `path` is treated: what became of it is seen now, not behind all the others."""
        if self._agreed:
            redraw("")
            emit(text.came_of(None if self._asked else path, outcome) + "\n")
        elif self._asked:
            emit(layout.row("result", "left as it is") + "\n")
        elif self._rest is None and self._total > 1:
            redraw("")
            emit("\n" + summary.not_asked(self._number, path, outcome) + "\n")
        self._agreed = self._asked = False

    def _answered(self) -> str:
        """The word; empty where there was no answer."""
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
    """Who watches the disks being treated: the progress line, and whoever is asked."""

    def __init__(self, decide: from_log.Decide | None, progress: from_log.Progress) -> None:
        self._asker = decide if isinstance(decide, Asker) else None
        self._progress = progress

    def each(self, done: int, total: int) -> None:
        """`done` disks of `total` are treated."""
        self._progress(done, total)
        if self._asker is not None:
            self._asker.each(done, total)

    def after(self, path: str, outcome: Outcome) -> None:
        """What became of the disk at `path`."""
        if self._asker is not None:
            self._asker.after(path, outcome)


def undo_decider(*, yes: bool, dry_run: bool, as_json: bool) -> Callable[[JournalRecord], bool] | None:
    """As :func:`decider`, for an undo."""
    decide = decider(yes=yes, dry_run=dry_run, as_json=as_json)
    if not isinstance(decide, Asker):
        return None if decide is None else lambda _record: True
    return _ask_back


def _ask_back(record: JournalRecord) -> bool:
    emit("\n" + journals.proposal(record) + "\n")
    words = {"yes": "put the old bytes back", "no": "leave the disk as it is (so does Enter)"}
    return answer("Put it back?", words) == "yes"


def prune_decider(*, yes: bool, dry_run: bool, as_json: bool) -> Callable[[Sequence[Pruned]], bool] | None:
    """As :func:`decider`, for throwing journals away."""
    decide = decider(yes=yes, dry_run=dry_run, as_json=as_json)
    if not isinstance(decide, Asker):
        return None if decide is None else lambda _going: True
    return _ask_away


def _ask_away(going: Sequence[Pruned]) -> bool:
    emit("\n" + journals.prune_proposal(going) + "\n")
    words = {"yes": "delete them: those repairs cannot be undone any more", "no": "keep them (so does Enter)"}
    return answer("Throw them away?", words) == "yes"


def how_to_go_on(run_options: from_log.RunOptions, planned: int, words: Sequence[str]) -> str:
    """What a dry run or an interrupted one says at its end; empty where there was nothing to write."""
    if isinstance(run_options.decide, Asker) and run_options.decide.unanswered:
        return "Interrupted: nothing was written after that. The same command goes on from here."
    if run_options.decide is not None or not planned:
        return ""
    again = run_options.command(*words, "--yes")
    return (
        f"Nothing was changed: this was a dry run. To repair {layout.counted(planned, 'image')}:\n"
        f"{layout.INDENT}{again}"
    )


def ended(decide: from_log.Decide | None, code: int) -> int:
    """The exit code of a run in which `decide` was asked: 32 where Ctrl-C was the answer."""
    return int(Exit.INTERRUPTED) if isinstance(decide, Asker) and decide.interrupted else code
