"""The forest of chains: nothing lost, nothing twice, what is wrong is marked."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from smfix.formats.chain_links import ChainPlace, Link, Place, forest


def _told(links):
    return [(place.index, place.depth, place.parent, place.standing.value) for place in forest(links)]


def test_a_chain_reads_from_its_top():
    links = [Link("c", "b"), Link("b", "a"), Link("a", None)]
    assert _told(links) == [(2, 0, None, "root"), (1, 1, 2, "child"), (0, 2, 1, "child")]


def test_siblings_keep_their_order_below_one_parent():
    links = [Link("a", None), Link("x", "a"), Link("y", "a"), Link("z", "x")]
    assert [(p.index, p.depth) for p in forest(links)] == [(0, 0), (1, 1), (3, 2), (2, 1)]


def test_a_parent_that_is_not_there_starts_a_tree():
    assert _told([Link("b", "a")]) == [(0, 0, None, "parent-missing")]


def test_a_copied_parent_is_not_guessed():
    links = [Link("a", None), Link("a", None), Link("b", "a")]
    assert _told(links)[2] == (2, 0, None, "parent-ambiguous")


def test_images_of_unknown_uuid_are_no_ones_parent():
    assert [p.standing for p in forest([Link(None, None), Link("b", None)])] == [ChainPlace.ROOT] * 2


def test_a_ring_is_cut_once_and_the_rest_hangs_from_it():
    links = [Link("a", "b"), Link("b", "a"), Link("c", "b")]
    told = _told(links)
    assert sorted(index for index, *_ in told) == [0, 1, 2]
    assert [standing for *_, standing in told].count("ring") == 1
    assert told[0][3] == "ring"


def test_an_image_that_names_itself_is_a_ring():
    assert forest([Link("a", "a")]) == (Place(0, 0, None, ChainPlace.RING),)


def test_a_deep_chain_needs_no_deep_stack():
    links = [Link(str(n), str(n - 1) if n else None) for n in range(5000)]
    assert forest(links)[-1].depth == 4999


_uuids = st.one_of(st.none(), st.sampled_from("abcdefgh"))


@given(st.lists(st.builds(Link, _uuids, _uuids), max_size=12))
def test_every_image_stands_once_behind_its_parent(links):
    places = forest(links)
    assert sorted(place.index for place in places) == list(range(len(links)))
    seen = set()
    for place in places:
        assert place.parent is None or place.parent in seen
        assert (place.parent is None) == (place.standing is not ChainPlace.CHILD)
        seen.add(place.index)
