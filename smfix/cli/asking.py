"""What the operator wants: the setting of a use case, and who says yes to a plan."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from smfix import pipeline
from smfix.cli.console import answer, emit, redraw
from smfix.errors import UsageError
from smfix.model import Outcome, Pruned, Record
from smfix.report import journals, layout, text


def setting_of(
    sr_mount: list[str] | None,
    journal_dir: str | None,
    lock_dir: str | None,
    confirm: list[str] | None,
    decide: pipeline.Decide | None,
) -> pipeline.Setting:
    """The shared options as one value. Raises UsageError for a code that no consent is asked for."""
    return pipeline.Setting(
        sr_mounts=tuple(sr_mount or ()),
        journal_dir=journal_dir,
        lock_dir=lock_dir,
        consent=pipeline.consent(confirm or ()),
        decide=decide,
        words=tuple(sys.argv),
    )


@contextmanager
def with_pool(setting: pipeline.Setting, login: str | None, *, rescan: bool = True) -> Iterator[pipeline.Setting]:
    """The setting with the pool's XAPI, where there is one; its session is ended behind the block."""
    pool = pipeline.pool_at(login)
    try:
        yield replace(setting, pool=pool, xapi_login=login, rescan=rescan)
    finally:
        if pool is not None:
            pool.close()


def decider(*, yes: bool, dry_run: bool, as_json: bool) -> pipeline.Decide | None:
    """Who says yes to a plan; None: nobody, a dry run."""
    if yes and dry_run:
        raise UsageError("--yes and --dry-run contradict each other")
    if yes:
        return lambda _path, _outcome: True
    if dry_run or as_json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return None
    return _ask


def _ask(path: str, outcome: Outcome) -> bool:
    """Show the plan, ask; anything but yes is no."""
    redraw("")
    emit("\n" + text.proposal(path, outcome) + "\n")
    return answer("   Write this? [y/N] ")


def undo_decider(*, yes: bool, dry_run: bool, as_json: bool) -> Callable[[Record], bool] | None:
    """As :func:`decider`, for an undo."""
    decide = decider(yes=yes, dry_run=dry_run, as_json=as_json)
    if decide is not _ask:
        return None if decide is None else lambda _record: True
    return _ask_back


def _ask_back(record: Record) -> bool:
    emit("\n" + journals.proposal(record) + "\n")
    return answer("   Put it back? [y/N] ")


def prune_decider(*, yes: bool, dry_run: bool, as_json: bool) -> Callable[[Sequence[Pruned]], bool] | None:
    """As :func:`decider`, for throwing journals away."""
    decide = decider(yes=yes, dry_run=dry_run, as_json=as_json)
    if decide is not _ask:
        return None if decide is None else lambda _going: True
    return _ask_away


def _ask_away(going: Sequence[Pruned]) -> bool:
    emit("\n" + journals.prune_proposal(going) + "\n")
    return answer("   Throw them away? [y/N] ")


def how_to_go_on(setting: pipeline.Setting, planned: int, words: Sequence[str]) -> str:
    """What a dry run says at its end; empty where there was nothing to write."""
    if setting.decide is not None or not planned:
        return ""
    again = setting.command(*words, "--yes")
    return (
        f"Nothing was changed: a dry run. {layout.counted(planned, 'image')} would be repaired by\n"
        f"{layout.INDENT}{again}"
    )
