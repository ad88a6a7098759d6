"""A command is one file in cli/, one in usecases/ and its row in the list of commands."""

from __future__ import annotations

import sys

import pytest

import smfix.cli
import smfix.usecases
from smfix.cli import app
from world import BASE, OTHER, make_world

USECASE = '''
"""Count the disks that the targets name."""

from smfix.sm.resolve import Found
from smfix.usecases.resolve import resolved


def tally(targets, run_options):
    images = resolved(targets, run_options)
    return sum(isinstance(image, Found) for image in images)
'''
COMMAND = '''
"""`smfix tally`: count disks."""

from smfix.cli.console import emit, guarded
from smfix.cli.options import SrMount, Storage, Targets
from smfix.cli.prompt import run_options_of
from smfix.usecases.tally import tally as count


@guarded
def tally(targets: Targets, *, sr_mount: SrMount = None) -> int:
    """Count the disks that are there."""
    emit(f"{count(targets, run_options_of(Storage(sr_mount)))} disks\\n")
    return 0
'''


@pytest.fixture
def world(tmp_path, capsys, monkeypatch):
    """A host, and a program to which a command was added."""
    for package, text in ((smfix.cli, COMMAND), (smfix.usecases, USECASE)):
        folder = tmp_path / package.__name__
        folder.mkdir()
        (folder / "tally.py").write_text(text, encoding="utf-8")
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
    monkeypatch.setitem(app._COMMANDS, "tally", "Count disks.")
    yield make_world(tmp_path / "host", capsys, monkeypatch)
    for name in ("smfix.cli.tally", "smfix.usecases.tally"):
        sys.modules.pop(name, None)


def test_a_command_is_added_by_two_files_and_a_row(world, capsys):
    for vdi in (BASE, OTHER):
        world.put(world.image(vdi), vdi)
    assert app.run(["tally", str(world.sr)]) == 0
    assert capsys.readouterr().out == "2 disks\n"
    assert app.run(["tally", "--help"]) == 0
    assert "Count the disks that are there." in capsys.readouterr().out
    assert app.run(["--help"]) == 0
    assert "Count disks." in capsys.readouterr().out


def test_its_mistakes_are_told_as_those_of_every_command(world, capsys):
    assert app.run(["tally"]) == 16
    assert "Missing argument" in capsys.readouterr().err
