"""`smfix show`: an image's metadata."""

from __future__ import annotations

from typing import Annotated

import typer

from smfix.cli.console import emit, guarded, say, width
from smfix.cli.options import AsJson, SrMount, Storage, Target
from smfix.cli.prompt import run_options_of
from smfix.formats.registry import format_of
from smfix.report import diagram, jsondoc
from smfix.report.hexdump import hexdump
from smfix.usecases.show import show as read_image


@guarded
def show(
    target: Target,
    *,
    hex_dump: Annotated[bool, typer.Option("--hex", help="Both footers, as `hexdump -C` prints them.")] = False,
    file_layout: Annotated[
        bool, typer.Option("--layout", help="A picture of the file: its structures, and where its footer belongs.")
    ] = False,
    sr_mount: SrMount = None,
    as_json: AsJson = False,
) -> int:
    """Print an image's metadata in the layout of `vhd-util read -p`."""
    path, image, shown = read_image(target, run_options_of(Storage(sr_mount)))
    if as_json or not (hex_dump or file_layout):
        for note in shown.notes:
            say(f"smfix: {note}")
        emit(jsondoc.dumps(jsondoc.show(path, shown)) if as_json else shown.text)
        return 0
    parts = [diagram.text(format_of(image).diagram(image), path, width()) + "\n"] if file_layout else []
    if hex_dump:
        parts += [f"{one.title}:\n{hexdump(one.raw, one.offset)}" for one in format_of(image).structures(image)]
    emit("\n".join(parts))
    return 0
