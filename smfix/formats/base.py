"""The seam between smfix and an image format: the operations that a format provides.

Theory. Repair, use cases and reports work on any image through these two protocols, and get the format of an image
from :mod:`smfix.formats.registry`. A format is one package beside this module; it knows nothing of logs, hosts or
commands. Offsets and sizes in bytes, UUIDs 16 bytes. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

from smfix.values import ByteView, Diagnosis, Edit, Extent, Placed

if TYPE_CHECKING:
    from smfix.formats.diagram import Diagram
    from smfix.formats.problem import Context, Problem

MOST_PLACES = 1 << 17
"""Most places that :meth:`ImageFormat.reachable` returns; one more shows that there are more."""


class Image(Protocol):
    """One inspected image, sound or damaged. A value is None if no sound structure holds it."""

    @property
    def format(self) -> str:
        """The name of its format."""

    @property
    def view(self) -> ByteView:
        """The bytes it was read from."""

    @property
    def size(self) -> int:
        """Length of the view."""

    @property
    def end_of_data(self) -> int:
        """First byte after everything that is allocated, as far as that is known."""

    @property
    def append_from(self) -> int | None:
        """First byte that no structure and no data uses to the end of the view; None: not known."""

    @property
    def virtual_size(self) -> int | None:
        """Size of the guest's disk."""

    @property
    def allocated(self) -> int | None:
        """Number of blocks (clusters) that have a place."""

    @property
    def is_hidden(self) -> bool | None:
        """It is marked as a base copy, which no VM opens for writing."""

    @property
    def uuid(self) -> bytes | None:
        """The UUID that children name."""

    @property
    def uuids(self) -> frozenset[str]:
        """The UUIDs of the sound structures by which the image is read, as text."""

    @property
    def known_uuids(self) -> frozenset[bytes]:
        """Every UUID by which a child or a copy may know it, from all sound structures."""

    @property
    def has_parent(self) -> bool:
        """It reads from a parent the bytes that it does not hold."""

    @property
    def parent_uuid(self) -> bytes | None:
        """The UUID of the parent that it names."""

    @property
    def parent_paths(self) -> tuple[str, ...]:
        """The stored paths that lead to the parent."""


class ParentLink(NamedTuple):
    """The parent that an image names: its UUID, and its file name (None: not decodable).

    `has_paths`: the image also stores paths to it (:attr:`Image.parent_paths`).
    """

    uuid: bytes
    name: str | None
    has_paths: bool = False


class RawStructure(NamedTuple):
    """The bytes at a structure's place: `raw` at byte `offset`; `title` names the structure, its place and its state.

    `is_metadata`: every byte is known to be metadata, so a report may show all of them. `is_of_guest`: the place is one
    of the guest's data, so a report leaves it out. `like`: the bytes that belong there, None if unknown.
    """

    title: str
    offset: int
    raw: bytes
    is_sound: bool
    is_metadata: bool
    is_of_guest: bool
    like: bytes | None


class ExternalCheck(NamedTuple):
    """The format's own checker: its argument vector, its time limit (seconds), and how its answer is read.

    `complaint` gets the exit code and all output; it returns the complaint about this image, None if there is none.
    """

    argv: tuple[str, ...]
    limit: float
    complaint: Callable[[int, bytes], str | None]


@dataclass(frozen=True, slots=True)
class Shown:
    """An image for ``smfix show``: the dump of the format's own tool, notes on it, and every field by name."""

    text: str
    notes: tuple[str, ...]
    fields: Mapping[str, Any]


I = TypeVar("I")  # noqa: E741 - the image


@dataclass(frozen=True, slots=True)
class Change(Generic[I]):
    """A plan that is to be proved: `edits` make `after` of `before`; `first` and `second` are their diagnoses.

    `agreed` are the blocks whose place the operator agreed to change. `reread`: the edits change the structures by
    which the image is read, so only the map after them counts.
    """

    before: I
    after: I
    edits: tuple[Edit, ...]
    first: Diagnosis
    second: Diagnosis
    agreed: frozenset[int] = frozenset()
    reread: bool = False


class NewImage(NamedTuple):
    """An image that is to be made: `size` of the guest's disk, `sectors` number -> 512 bytes in the order of writing.

    `parent` is in the same folder; `timestamp` counts seconds since 2000.
    """

    size: int
    uuid: bytes
    sectors: Mapping[int, bytes]
    parent: ParentLink | None = None
    timestamp: int = 0
    hidden: bool = False


class ImageFormat(Protocol[I]):
    """The operations of one image format; `I` is the type of its images.

    `suffixes` end the names of its files, `lv_prefix` begins those of its volumes. `rows` is its problem table.
    """

    @property
    def name(self) -> str:
        """Its name in logs and reports."""

    @property
    def suffixes(self) -> tuple[str, ...]:
        """With the dot."""

    @property
    def lv_prefix(self) -> str:
        """With the dash."""

    @property
    def rows(self) -> tuple[Problem, ...]:
        """The problem table, in the order in which the format's own checker looks."""

    def inspect(self, view: ByteView) -> I:
        """Read every structure of `view`. Raises Unreadable if the storage fails, nothing else."""

    def is_recognised(self, image: I) -> bool:
        """Some structure carries the format's mark: the image is, or was, one of this format."""

    def diagnose(self, image: I, context: Context) -> Diagnosis:
        """Return every finding and the verdict. Raises nothing but Unreadable."""

    def prove(self, change: Change[I]) -> list[str]:
        """Return the reasons why the edits must not be written, each a sentence; empty: they are proved."""

    def reachable(self, before: I, after: I, edits: Sequence[Edit]) -> tuple[Placed, ...]:
        """Return the places that a guest can read after `edits` and could not before, which an undo takes away."""

    def identity(self, view: ByteView) -> bytes | None:
        """Read the image's UUID in as few reads as possible."""

    def parent_link(self, view: ByteView) -> ParentLink | None:
        """Read the parent that the image names in as few reads as possible."""

    def is_rival(self, image: I, other: I) -> bool:
        """`other`, which has one of the image's UUIDs, is another disk and no copy."""

    def external_check(self, path: str) -> ExternalCheck:
        """Return how the format's own checker looks at the image at `path` (absolute) without writing to it."""

    def show(self, image: I, view: ByteView, path: str) -> Shown:
        """Return the image's metadata for a reader; `view` is what it was inspected from."""

    def structures(self, image: I) -> tuple[RawStructure, ...]:
        """Return the structures that a repair most often rewrites (a VHD's footers), in a fixed order."""

    def read_guest(self, image: I, extent: Extent) -> dict[int, bytes]:
        """Return offset in the guest's disk -> 512 bytes, for every sector of `extent` that `image` itself holds."""

    def build(self, new: NewImage) -> bytes:
        """Make a new image as the storage manager does, for the demo and for tests."""

    def diagram(self, image: I) -> Diagram:
        """Return the layout of the file. Reads nothing: the image's view may be closed."""
