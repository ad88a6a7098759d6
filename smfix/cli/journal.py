"""`smfix journal` and `undo`: what was changed on this machine, and the way back."""

from __future__ import annotations

from typing import Annotated

import typer

from smfix.cli.console import guarded
from smfix.cli.options import AsJson, DryRun, GcWait, JournalDir, LockDir, XapiLogin
from smfix.cli.output import finish
from smfix.cli.prompt import prune_decider, setting_of, undo_decider, with_pool
from smfix.errors import UsageError
from smfix.report import exitcode, journals, jsondoc, layout
from smfix.usecases import from_log, prune
from smfix.usecases.from_log import RunOptions
from smfix.values import Pruning

PRUNE = "prune"
"""In the place of an id, which begins with a digit: so it can be none (docs/adr/0017)."""


@guarded
def journal(
    journal_id: Annotated[
        str | None,
        typer.Argument(
            metavar="[ID|prune]", help="A journal's id, or the start of it; `prune` throws old journals away."
        ),
    ] = None,
    *,
    older_than: Annotated[
        str | None, typer.Option("--older-than", metavar="AGE", help="With prune: the age, 90d, 12w or 36h.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With prune: throw them away without asking.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="With prune: change nothing, say what would go.")
    ] = False,
    journal_dir: JournalDir = None,
    as_json: AsJson = False,
) -> int:
    """List what smfix has changed on this machine, show one change byte by byte, or throw old journals away.

    `smfix journal prune --older-than AGE` asks, or wants --yes. Journals of interrupted repairs stay whatever
    their age, and those that a later journal's undo leads back to. What is thrown away cannot be undone.
    """
    run_options = setting_of(None, journal_dir, None, None, None)
    if journal_id == PRUNE:
        return _prune(
            older_than, run_options, prune_decider(yes=yes, dry_run=dry_run, as_json=as_json), as_json=as_json
        )
    if older_than is not None or yes or dry_run:
        raise UsageError(f"--older-than, --yes and --dry-run go with `smfix journal {PRUNE}`")
    entries = from_log.journals(run_options, journal_id)
    report = journals.listing(entries, run_options.journals) if journal_id is None else journals.detail(entries[0])
    return finish(report, jsondoc.journal(entries), "", as_json=as_json)


def _prune(older_than: str | None, run_options: RunOptions, agree: prune.Agree | None, *, as_json: bool) -> int:
    if older_than is None:
        raise UsageError(f"say from which age on: smfix journal {PRUNE} --older-than 90d")
    done = prune.prune(older_than, run_options, agree)
    hint = ""
    if agree is None and any(one.action is Pruning.WOULD_PRUNE for one in done):
        again = run_options.command("journal", PRUNE, "--older-than", older_than, "--yes")
        hint = f"Nothing was changed: this was a dry run. To throw them away:\n{layout.INDENT}{again}"
    return finish(journals.pruned(done, run_options.journals), jsondoc.prune(done, older_than), hint, as_json=as_json)


@guarded
def undo(
    journal_id: Annotated[str, typer.Argument(metavar="ID", help="A journal's id, or the start of it.")],
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Put it back without asking.")] = False,
    dry_run: DryRun = False,
    confirm: Annotated[
        list[str] | None,
        typer.Option("--confirm", metavar="UNDO-NEWER", help="Agree to lose the guest data that was written since."),
    ] = None,
    journal_dir: JournalDir = None,
    sm_lock_dir: LockDir = None,
    gc_wait: GcWait = None,
    xapi_login: XapiLogin = None,
    as_json: AsJson = False,
) -> int:
    """Put an image back as it was before a repair, byte for byte.

    Refused if the disk has been written to since: the new data would be lost. If a guest wrote to a block that the
    repair made readable again, the undo takes that data along only with --confirm UNDO-NEWER.
    """
    run_options = setting_of(None, journal_dir, sm_lock_dir, None, None, gc_wait)
    with with_pool(run_options, xapi_login) as run_options:
        agree = undo_decider(yes=yes, dry_run=dry_run, as_json=as_json)
        image = from_log.undo(journal_id, run_options, agree, tuple(confirm or ()))
    document = jsondoc.undo(image, exitcode.of_undo(image.outcome))
    return finish(journals.undone(image), document, "", as_json=as_json)
