"""`smfix explain`: the meaning of findings."""

from __future__ import annotations

from typing import Annotated

import typer

from smfix.cli.console import guarded
from smfix.cli.options import AsJson
from smfix.cli.output import finish
from smfix.report import explain as texts


@guarded
def explain(
    codes: Annotated[
        list[str] | None,
        typer.Argument(metavar="[CODE]...", help="Findings, VHD101 for example. Default: a list of all."),
    ] = None,
    *,
    as_json: AsJson = False,
) -> int:
    """Say what findings mean, why they happen, and what smfix does about it."""
    rows = texts.rows(codes or ())
    report = "\n\n".join(map(texts.full, rows)) if codes else texts.listing(rows)
    return finish(report, texts.document(rows), "", as_json=as_json)
