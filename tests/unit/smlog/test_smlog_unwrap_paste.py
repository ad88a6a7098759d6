"""Pastes, as mails, forums and terminals leave them."""

from __future__ import annotations

import json
import re
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smfix.smlog.inputs.unwrap_paste import LARGEST, mend
from smlog_corpus import LOGS, TRUTHS, log_of
from smlog_text import PATH, check, corrupted, failed, gc, said

DUMP = f"primary footer invalid: invalid cookie\n{PATH} appears invalid; dumping metadata\nCookie : conectix\n"
LOG = [gc("Coalescing *1d994938(1G) -> *2e994938(1G)"), check(), *failed(DUMP), corrupted(), gc("In cleanup")]


def mended(text: str) -> tuple[list[str], tuple[int, ...]]:
    found = mend(text.encode())
    assert found is not None
    return found.data.decode().split("\n"), found.numbers


def wrap(lines: list[str], width: int) -> str:
    return "\n".join("\n".join(line[at : at + width] for at in range(0, len(line), width)) for line in lines)


@pytest.mark.parametrize("width", [60, 80, 97, 100, 120, 132])
def test_lines_cut_by_a_terminal(width):
    lines, numbers = mended(wrap(LOG, width))
    assert lines == LOG
    assert list(numbers) == sorted(numbers)


def test_lines_broken_by_a_mail_program():
    broken = "\n".join("\n".join(textwrap.wrap(line, 76)) for line in LOG)
    lines, _ = mended(broken)
    assert [re.sub(r"\s+", " ", line) for line in lines] == [re.sub(r"\s+", " ", line).strip() for line in LOG]


def test_half_a_path_in_a_raw_log():
    text = (
        "[7] 2012-05-15 00:18:35.1\tx\n/run/sr-mount/7a142a29-9556-ee47-1e04-1a8517813369/1d994938-058e-\n102f-80dc.vhd"
    )
    lines, numbers = mended(text + "\nVHD Footer Summary:\n-------------------\nCookie : x")
    assert lines[1].endswith("/1d994938-058e-102f-80dc.vhd")
    assert numbers == (1, 2, 4, 5, 6)


def test_line_ends_that_became_blanks():
    lines, numbers = mended(" ".join(LOG))
    assert lines == LOG
    assert set(numbers) == {1}
    raw = "[7] 2012-05-15 00:18:35.1 one <7> 2012-05-15 00:18:36 two"
    assert mended(raw)[0] == raw.replace(" <7>", "\n<7>").split("\n")


def test_escapes():
    assert mended("\n".join(re.sub(r"([*_\[\]<>])", r"\\\1", line) for line in LOG))[0] == LOG
    html = "\n".join(line.replace("<", "&lt;").replace(">", "&gt;") for line in LOG)
    assert mended(html)[0] == LOG


def test_numbers_of_grep():
    assert mended("\n".join(f"{number}:{line}" for number, line in enumerate(LOG, 2170)))[0] == LOG
    assert mended("\n".join(f"SMlog.1-{number}-{line}" for number, line in enumerate(LOG, 2170)))[0] == LOG
    assert mended("\n".join([f"/var/log/SMlog:{line}" for line in LOG] + ["--"]))[0] == [*LOG, ""]


def test_windows_line_ends_stay_lines():
    assert mend("\r\n".join(LOG).encode()) is None


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(LOG),
        "",
        "\n\n",
        "plain\nprose\n",
        "x" * 80 + "\ngoes on\n",
        '{"MESSAGE": "' + "x" * 70 + '"}\n' * 3,
        "2026-05-01T10:00:00Z xen1 SM: [7] x\n" * 5,
        "Aug  9 12:00:00 xen1 SM: [1] " + "x" * 45 + "\n[root@xen1 ~]# ls\n",
        "x" * (LARGEST + 1),
    ],
)
def test_what_needs_no_mending(text):
    assert mend(text.encode()) is None


def test_no_log_of_the_corpus_is_taken_for_a_paste():
    for truth in TRUTHS:
        if "paste" not in truth.name and "damaged" not in truth.name:
            assert mend(log_of(truth).read_bytes()) is None, truth.name


@given(st.lists(st.sampled_from([*LOG, "plain", "", "/x/y-", "z" * 80, "> q"]), max_size=12), st.integers(20, 140))
@settings(max_examples=150)
def test_mending_loses_no_word(lines, width):
    text = wrap(lines, width)
    found = mend(text.encode())
    if found is not None:
        assert "".join(found.data.decode().split()) == "".join(text.split())
        assert len(found.numbers) == found.data.count(b"\n") + 1
        assert all(1 <= number <= text.count("\n") + 1 for number in found.numbers)


def test_a_paste_has_a_truth_of_its_own():
    assert len(list(LOGS.glob("paste-*.log"))) >= 8
    for truth in LOGS.glob("paste-*.incidents.json"):
        assert len(json.loads(truth.read_text(encoding="utf-8"))["incidents"]) == 1


def test_a_short_line_at_the_end_of_a_message_said_once():
    text = said("x" * 40) + "\n" + said("short") + "\nend\n"
    assert mend(text.encode()) is None
