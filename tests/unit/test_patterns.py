"""Expressions that are compiled at their first use do what compiled ones do."""

from __future__ import annotations

import re

import pytest

from smfix.smlog.patterns import pattern


def test_what_is_asked_of_it_is_what_re_says():
    lazy, compiled = pattern(r"(?P<word>[a-z]+)", re.IGNORECASE), re.compile(r"(?P<word>[a-z]+)", re.IGNORECASE)
    for _ in range(2):
        assert lazy.search("12 Ab")["word"] == "Ab"
        assert lazy.match("12 Ab") is None
        assert lazy.findall("a b") == compiled.findall("a b")
        assert (lazy.pattern, lazy.flags, lazy.groups) == (compiled.pattern, compiled.flags, compiled.groups)


def test_nothing_is_compiled_before():
    wrong = pattern("(")
    with pytest.raises(re.error):
        wrong.search("x")
    with pytest.raises(AttributeError):
        pattern("x").nothing  # noqa: B018 - asking is the test
