"""The search: every engine is `bytes`, and all literals together are found as one after the other would be."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smfix.smlog.parse import literal_search
from smfix.smlog.parse.literal_search import LiteralSearch, PlainEngine, fastest_engine
from smfix.smlog.rules.messages import ANCHORS
from smfix.smlog.rules.resolutions import RESOLUTION_ANCHORS

ENGINES = [PlainEngine(), fastest_engine()]


@given(st.binary(max_size=80), st.lists(st.binary(min_size=1, max_size=3), min_size=1, max_size=3), st.data())
@settings(max_examples=200)
def test_every_engine_is_bytes_find(data, needles, more):
    start = more.draw(st.integers(0, len(data)))
    stop = more.draw(st.integers(start, len(data)))
    for engine in ENGINES:
        for needle in needles:
            assert engine.find(data, needle, start, stop) == data.find(needle, start, stop)
            assert engine.rfind(data, needle, start, stop) == data.rfind(needle, start, stop)
        assert engine.lines(bytearray(data), start, stop) == data.count(b"\n", start, stop)


LITERALS = (b"opterr=", b"scan-error", b"error open", b"alone", b"x")
PIECES = [b"opterr", b"=", b"scan-", b"error", b" open", b"al", b"one", b"err", b"\n", b"x"]


def one_by_one(literals, data):
    found = []
    for index, literal in enumerate(literals):
        hit = data.find(literal)
        while hit >= 0:
            found.append((hit, index))
            hit = data.find(literal, hit + len(literal))
    return sorted(found)


@pytest.fixture(scope="module", params=["one pass", "one pass for each"])
def searches(request):
    """Both ways; the first only where hyperscan is installed."""
    if request.param == "one pass":
        pytest.importorskip("hyperscan")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(literal_search, "_MANY", 0)
            yield [_long(LiteralSearch(LITERALS, engine)) for engine in ENGINES]
        return
    yield [LiteralSearch(LITERALS, engine, (b"err", b"alo")) for engine in ENGINES]


def _long(search):
    search._searched = 1 << 60
    return search


@given(st.lists(st.sampled_from(PIECES), max_size=40).map(b"".join), st.integers(0, 30))
@settings(max_examples=300)
def test_every_search_finds_what_one_search_after_the_other_finds(searches, data, behind):
    """And nothing behind the size that is in use."""
    for search in searches:
        found = search.find_all(bytearray(data + b"opterr=" + bytes(behind)), len(data))
        assert found == one_by_one(LITERALS, data)


def test_what_stands_across_the_size_is_not_found(monkeypatch):
    monkeypatch.setattr(literal_search, "_MANY", 0)
    for searched in (0, 1 << 60):
        search = LiteralSearch((b"abc", b"xbc"), PlainEngine())
        search._searched = searched
        assert search.find_all(b"abcabc", 5) == [(0, 0)]
        assert search.find_all(b"abcabc", 6) == [(0, 0), (3, 0)]


def test_without_hyperscan_a_long_text_is_searched_all_the_same(monkeypatch):
    monkeypatch.setattr(literal_search, "_MANY", 0)
    monkeypatch.setitem(sys.modules, "hyperscan", None)
    search = LiteralSearch((b"abc",), PlainEngine())
    search._searched = 1 << 60
    assert search.find_all(b"xabc", 4) == [(1, 0)]


def test_no_anchor_stands_in_another():
    """So that what is found for one is not found for another as well."""
    anchors = ANCHORS + RESOLUTION_ANCHORS
    assert not [(one, other) for one in anchors for other in anchors if one != other and one in other]


def test_without_stringzilla_the_plain_engine(monkeypatch):
    import types

    monkeypatch.setitem(sys.modules, "stringzilla", None)
    assert isinstance(fastest_engine(), PlainEngine)
    monkeypatch.setitem(sys.modules, "stringzilla", types.ModuleType("stringzilla"))
    assert isinstance(fastest_engine(), PlainEngine)
