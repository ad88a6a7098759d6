"""A glance at a view: the same bytes, asked for once."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import example, given
from hypothesis import strategies as st

from images import Buffer, small
from smfix.formats.cached_view import HEAD, CachedView
from smfix.formats.vhd.image import inspect
from smfix.values import Extent


@dataclass
class Counting(Buffer):
    """Counts what is asked."""

    asked: list[Extent] = field(default_factory=list)

    def read(self, extent: Extent) -> bytes:
        self.asked.append(extent)
        return super().read(extent)


@given(st.sampled_from([0, 1, 511, HEAD - 1, HEAD, HEAD + 1, 3 * HEAD]), st.integers(0, 4 * HEAD), st.integers(0, HEAD))
@example(3 * HEAD, HEAD - 1, 1)
@example(3 * HEAD, HEAD - 1, 2)
@example(3 * HEAD, 3 * HEAD, 1)
def test_it_reads_as_the_view_does(size, offset, length):
    view = Buffer(bytes(range(251)) * (size // 251) + bytes(size % 251))
    glance = CachedView(view)
    assert (glance.size, glance.growable) == (view.size, view.growable)
    assert glance.read(Extent(offset, length)) == view.read(Extent(offset, length))


def test_what_grows_meanwhile_is_not_seen_and_what_shrinks_is_short():
    data = bytearray(b"x" * (2 * HEAD))
    glance = CachedView(Buffer(data))
    data += b"y" * 100
    assert glance.read(Extent(2 * HEAD - 10, 100)) == b"x" * 10
    assert glance.read(Extent(2 * HEAD, 100)) == b""
    del data[HEAD + 5 :]
    assert glance.read(Extent(HEAD, 100)) == b"x" * 5
    assert glance.size == 2 * HEAD


def test_a_small_image_is_inspected_in_two_reads():
    view = Counting(small())
    assert inspect(CachedView(view)).batmap == inspect(Buffer(small())).batmap
    assert view.asked == [Extent(0, HEAD), Extent(len(small()) - 512, 512)]
