"""`smfix demo`: a repair to watch."""

from __future__ import annotations

from typing import Annotated

import typer

from smfix.cli.console import emit, guarded
from smfix.cli.output import say_own_name
from smfix.demo.run import run


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
    code = run(keep, lambda piece: emit(piece + "\n"))
    say_own_name()
    return int(code)
