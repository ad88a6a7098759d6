"""`smfix explain` and `demo`: what a finding means, and a repair to watch."""

from __future__ import annotations

from typing import Annotated

import typer

from smfix.cli.console import emit, guarded
from smfix.cli.options import AsJson
from smfix.cli.output import finish, say_own_name
from smfix.report import explain


@guarded
def explain_(
    codes: Annotated[
        list[str] | None,
        typer.Argument(metavar="[CODE]...", help="Findings, VHD101 for example. Default: a list of all."),
    ] = None,
    *,
    as_json: AsJson = False,
) -> int:
    """Say what findings mean, why they happen, and what smfix does about it."""
    rows = explain.rows(codes or ())
    document = explain.document(rows)
    report = "\n\n".join(map(explain.full, rows)) if codes else explain.listing(rows)
    return finish(report, document, "", as_json=as_json)


@guarded
def demo(
    keep: Annotated[
        str | None,
        typer.Option("--keep", metavar="DIR", help="Build it in DIR and leave it there."),
    ] = None,
) -> int:
    """Build a throw-away SR with damaged disks and their log, repair it, prove the guest data.

    Needs no root, no XenServer, no network.
    """
    from smfix.demo.run import run as play

    code = play(keep, lambda piece: emit(piece + "\n"))
    say_own_name()
    return int(code)
