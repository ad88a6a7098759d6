"""`smfix show`: an image's metadata."""

from __future__ import annotations

from typing import Annotated

import typer

from smfix.cli.console import emit, guarded, say, width
from smfix.cli.options import AsJson, SrMount, Storage, Target
from smfix.cli.prompt import run_options_of
from smfix.formats.vhd import metadata
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
    path, image, seen = read_image(target, run_options_of(Storage(sr_mount)))
    if as_json or not (hex_dump or file_layout):
        for note in metadata.notes(image, seen):
            say(f"smfix: {note}")
        emit(jsondoc.dumps(jsondoc.show(path, image)) if as_json else metadata.metadata(seen, path))
        return 0
    parts = [diagram.text(diagram.diagram(image), path, width()) + "\n"] if file_layout else []
    if hex_dump:
        parts += [f"{title}\n{hexdump(raw, offset)}" for title, offset, raw in metadata.footers(image)]
    emit("\n".join(parts))
    return 0
