"""`smfix undo`: put an image back as it was before a repair."""

from __future__ import annotations

from typing import Annotated

import typer

from smfix.cli.console import guarded
from smfix.cli.options import AsJson, DryRun, Storage, Writing, XapiLogin
from smfix.cli.output import finish
from smfix.cli.prompt import run_options_of, undo_decider, with_pool
from smfix.report import exitcode, journals, jsondoc
from smfix.usecases import journal as usecase


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
    writing: Writing,
    xapi_login: XapiLogin = None,
    as_json: AsJson = False,
) -> int:
    """Put an image back as it was before a repair, byte for byte.

    Refused if the disk has been written to since: the new data would be lost. If a guest wrote to a block that the
    repair made readable again, the undo takes that data along only with --confirm UNDO-NEWER.
    """
    with with_pool(run_options_of(Storage(), writing), xapi_login) as run_options:
        agree = undo_decider(yes=yes, dry_run=dry_run, as_json=as_json)
        image = usecase.undo(journal_id, run_options, agree, tuple(confirm or ()))
    document = jsondoc.undo(image, exitcode.of_undo(image.outcome))
    return finish(journals.undone(image), document, "", as_json=as_json)
