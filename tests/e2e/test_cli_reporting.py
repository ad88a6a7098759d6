"""The end of a command: who copied one file somewhere is told what to type for smfix."""

from __future__ import annotations

import sys

import pytest

from smfix.cli import output

LEFT = "What is left, and what to type next:\n   smfix repair /x.vhd --yes"


def copied(monkeypatch):
    """It was started as /root/smfix, at a terminal, and PATH has no smfix."""
    monkeypatch.setattr(sys, "argv", ["/root/smfix", "from-log"])
    monkeypatch.setattr("shutil.which", lambda _: None)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)


@pytest.mark.parametrize(
    ("report", "hint"),
    [(LEFT, ""), ("1 image", LEFT), ("   next     smfix repair /x.vhd", ""), ("   undo     smfix undo 1", "")],
)
def test_what_to_type_for_smfix(monkeypatch, capsys, report, hint):
    copied(monkeypatch)
    assert output.finish(report, {"exit": 4}, hint, as_json=False) == 4
    assert capsys.readouterr().err == "smfix: type /root/smfix instead of smfix: smfix itself is not on PATH\n"


def test_not_where_no_command_is_shown(monkeypatch, capsys):
    copied(monkeypatch)
    output.finish("smfix is a tool. No disk is in trouble.", {"exit": 0}, "", as_json=False)
    output.finish(LEFT, {"exit": 4}, "", as_json=True)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("name", "value"),
    [("argv", ["/x/smfix/__main__.py"]), ("stderr.isatty", lambda: False)],
)
def test_not_for_others(monkeypatch, capsys, name, value):
    copied(monkeypatch)
    monkeypatch.setattr(f"sys.{name}", value)
    output.finish(LEFT, {"exit": 4}, "", as_json=False)
    assert capsys.readouterr().err == ""


def test_not_where_it_is_on_path(monkeypatch, capsys):
    copied(monkeypatch)
    monkeypatch.setattr("shutil.which", lambda _: "/usr/bin/smfix")
    output.finish(LEFT, {"exit": 4}, "", as_json=False)
    assert capsys.readouterr().err == ""
