from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smfix.report.escape import command, operand, printable, shell_quote


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, ünïcode and 漢字", "plain text, ünïcode and 漢字"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("one\ntwo\rthree\tfour", "one\\ntwo\\rthree\\tfour"),
        ("\x7f\x9b2J\x00", "\\x7f\\x9b2J\\x00"),
        ("a\u202eb\u2066c\u200bd\ufeff", "a\\u202eb\\u2066c\\u200bd\\ufeff"),
        ("\u2028\u2029\xa0", "\\u2028\\u2029\\xa0"),
        ("\udcff\ud800", "\\xff\\ud800"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_what_a_terminal_could_act_on_is_escaped(text, shown):
    assert printable(text) == shown


@given(st.text(st.characters()))
def test_the_result_is_one_printable_line(text):
    shown = printable(text)
    assert shown.isprintable()
    assert shown == text or not text.isprintable()


@pytest.mark.parametrize(
    ("word", "quoted"),
    [
        ("/run/sr-mount/a.vhd", "/run/sr-mount/a.vhd"),
        ("my disk.vhd", "'my disk.vhd'"),
        ("$(reboot)", "'$(reboot)'"),
        ("", "''"),
        ("a\x1bb'c\\d", "$'a\\x1bb\\x27c\\x5cd'"),
    ],
)
def test_quoting(word, quoted):
    assert shell_quote(word) == quoted


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_reads_back_every_byte():
    words = [
        "/a b/c.vhd",
        "it's",
        "-n",
        "*",
        "".join(chr(code) for code in range(1, 128)),
        "\udcff\u202e\xa0\x1b[0m0a",
    ]
    line = "printf '%s\\0' " + command(words)
    assert line.isprintable()
    done = subprocess.run(["bash", "-c", line], capture_output=True, check=True)
    assert done.stdout.split(b"\0")[:-1] == [os.fsencode(word) for word in words]


def test_a_command_is_its_words():
    assert command(["smfix", "repair", "/a b", "--yes"]) == "smfix repair '/a b' --yes"


@pytest.mark.parametrize(
    ("name", "word"), [("a", "a"), ("-a", "./-a"), ("--yes", "./--yes"), ("-", "-"), ("/-a", "/-a"), ("", "")]
)
def test_a_name_is_no_option(name, word):
    assert operand(name) == word
