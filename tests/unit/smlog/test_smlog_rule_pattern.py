"""Patterns of rules: no text makes them slow, and the limit is seen where one would be."""

from __future__ import annotations

import re
import sys
import time

import pytest

from smfix.smlog.correlate.failures import TOO_SLOW
from smfix.smlog.rules import rule_pattern
from smfix.smlog.rules.messages import RULES
from smfix.smlog.rules.other_words import OTHER_WORDS, other_words
from smfix.smlog.rules.resolutions import RESOLUTION_RULES
from smfix.smlog.rules.rule_pattern import RulePattern
from smfix.smlog.rules.tool_output import COMPLAINTS
from smlog_text import check, corrupted, events_of, failed, gc, noise_of, said

ROWS = [
    *((f"{number} {rule.name}", rule.pattern, rule.samples) for number, rule in enumerate(RULES)),
    *((f"{number} {row.kind or 'storage'}", row.pattern, row.samples) for number, row in enumerate(COMPLAINTS)),
    *((f"{number} {row.name}", row.pattern, row.samples) for number, row in enumerate(RESOLUTION_RULES)),
]


@pytest.mark.parametrize(("name", "found", "samples"), ROWS, ids=[name for name, _, _ in ROWS])
def test_a_row_is_quick_with_its_own_words_gone_wrong(name, found, samples):
    """Each sample's beginning again and again, and its characters in thousands: what makes a pattern try again."""
    begun = time.process_time()
    for sample in samples:
        for end in range(len(sample) // 4, len(sample), max(1, len(sample) // 12)):
            found.search(sample[:end] * (3_000 // max(1, end)) + "\n")
            found.search(sample[:end] + sample[end] * 3_000 + "\n")
            found.search((sample[:end] + " ") * (3_000 // max(1, end)) + sample[end:] + "!")
    assert time.process_time() - begun < 2.0, name


def test_a_search_that_takes_too_long_is_counted_and_the_rest_is_read(monkeypatch):
    pytest.importorskip("regex")
    monkeypatch.setattr(rule_pattern, "LIMIT", 0.05)
    slow = RulePattern(r"EXCEPTION (?:a|a|aa)+b")
    monkeypatch.setattr(RULES[0].pattern, "_find", None)
    monkeypatch.setattr(RULES[0].pattern, "text", slow.text)
    text = "EXCEPTION " + "a" * 2000 + "c"
    begun = time.perf_counter()
    with pytest.raises(TimeoutError):
        slow.search(text)
    lines = [gc(text), check(), *failed("header is invalid: x\n")]
    assert [event.kinds for event in events_of(lines)] == [("header-invalid",)]
    assert noise_of(lines)[TOO_SLOW] == 1
    assert time.perf_counter() - begun < 5


def test_a_proof_that_takes_too_long_is_counted(monkeypatch):
    def slow(*_):
        raise TimeoutError

    monkeypatch.setattr(RESOLUTION_RULES[0].pattern, "_find", slow)
    lines = [check(), *failed("header is invalid: x\n"), corrupted(), check(), said("  pread SUCCESS")]
    assert noise_of(lines)[TOO_SLOW] == 1


def test_without_regex_the_patterns_say_the_same(monkeypatch):
    monkeypatch.setitem(sys.modules, "regex", None)
    for name, row, samples in ROWS:
        plain = RulePattern(row.text)
        assert all(plain.search(sample) for sample in samples), name
        assert isinstance(plain.search(samples[0]), re.Match)


@pytest.mark.parametrize("row", OTHER_WORDS, ids=lambda row: row.name)
def test_words_of_other_texts(row):
    for sample in row.samples:
        assert other_words(sample) is row
    for miss in row.near_misses:
        assert not row.pattern.search(miss)
        assert other_words(miss) is not row
