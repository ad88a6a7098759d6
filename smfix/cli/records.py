"""`smfix journal` and `undo`: what was changed on this machine, and the way back."""

from __future__ import annotations

from typing import Annotated

import typer

from smfix import pipeline
from smfix.cli.asking import setting_of, undo_decider, with_pool
from smfix.cli.console import guarded
from smfix.cli.options import AsJson, DryRun, JournalDir, LockDir, XapiLogin
from smfix.cli.reporting import finish
from smfix.report import exitcode, journals, jsondoc


@guarded
def journal(
    journal_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="A journal's id, or the start of it.")
    ] = None,
    *,
    journal_dir: JournalDir = None,
    as_json: AsJson = False,
) -> int:
    """List what smfix has changed on this machine, or show one change byte by byte."""
    setting = setting_of(None, journal_dir, None, None, None)
    entries = pipeline.journals(setting, journal_id)
    report = journals.listing(entries) if journal_id is None else journals.detail(entries[0])
    return finish(report, jsondoc.journal(entries), "", as_json=as_json)


@guarded
def undo(
    journal_id: Annotated[str, typer.Argument(metavar="ID", help="A journal's id, or the start of it.")],
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Put it back without asking.")] = False,
    dry_run: DryRun = False,
    journal_dir: JournalDir = None,
    sm_lock_dir: LockDir = None,
    xapi_login: XapiLogin = None,
    as_json: AsJson = False,
) -> int:
    """Put an image back as it was before a repair, byte for byte.

    Refused where the disk has been written to since: what is on it now would be lost.
    """
    setting = setting_of(None, journal_dir, sm_lock_dir, None, None)
    with with_pool(setting, xapi_login) as setting:
        image = pipeline.undo(journal_id, setting, undo_decider(yes=yes, dry_run=dry_run, as_json=as_json))
    document = jsondoc.undo(image, exitcode.of_undo(image.outcome))
    return finish(journals.undone(image), document, "", as_json=as_json)
