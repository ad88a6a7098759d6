"""`smfix journal`: list what was changed on this machine, and delete old journals."""

from __future__ import annotations

from typing import Annotated

import typer

from smfix.cli.console import guarded
from smfix.cli.options import AsJson, JournalDir, Storage, Writing
from smfix.cli.output import finish
from smfix.cli.prompt import prune_decider, run_options_of
from smfix.errors import UsageError
from smfix.report import journals, jsondoc, layout
from smfix.report.next_steps import command_line
from smfix.usecases import journal as usecase
from smfix.usecases.run_options import RunOptions
from smfix.values import Pruning, StepKind

PRUNE = "prune"
"""Given instead of an id. An id begins with a digit, so it is never this word (docs/adr/0017)."""


@guarded
def journal(
    journal_id: Annotated[
        str | None,
        typer.Argument(metavar="[ID|prune]", help="A journal's id, or the start of it; `prune` deletes old journals."),
    ] = None,
    *,
    older_than: Annotated[
        str | None, typer.Option("--older-than", metavar="AGE", help="With prune: the age, 90d, 12w or 36h.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With prune: delete them without asking.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="With prune: change nothing, say what would be deleted.")
    ] = False,
    journal_dir: JournalDir = None,
    as_json: AsJson = False,
) -> int:
    """List what smfix has changed on this machine, show one change byte by byte, or delete old journals.

    `smfix journal prune --older-than AGE` asks, or needs --yes. Journals of interrupted repairs are kept whatever
    their age, and so are those that the undo of a later journal needs. A repair cannot be undone without its journal.
    """
    run_options = run_options_of(Storage(), Writing(journal_dir))
    if journal_id == PRUNE:
        agree = prune_decider(yes=yes, dry_run=dry_run, as_json=as_json)
        return _prune(older_than, run_options, agree, as_json=as_json)
    if older_than is not None or yes or dry_run:
        raise UsageError(f"--older-than, --yes and --dry-run go with `smfix journal {PRUNE}`")
    entries = usecase.journals(run_options, journal_id)
    report = journals.listing(entries, run_options.journals) if journal_id is None else journals.detail(entries[0])
    return finish(report, jsondoc.journal(entries), "", as_json=as_json)


def _prune(older_than: str | None, run_options: RunOptions, agree: usecase.Agree | None, *, as_json: bool) -> int:
    if older_than is None:
        raise UsageError(f"say from which age on: smfix journal {PRUNE} --older-than 90d")
    done = usecase.prune(older_than, run_options, agree)
    hint = ""
    if agree is None and any(one.action is Pruning.WOULD_PRUNE for one in done):
        again = command_line(run_options.step(StepKind.PRUNE, options=["--older-than", older_than, "--yes"]))
        hint = f"Nothing was changed: this was a dry run. To delete them:\n{layout.INDENT}{again}"
    return finish(journals.pruned(done, run_options.journals), jsondoc.prune(done, older_than), hint, as_json=as_json)
