"""Chains: the parent of each image, by the UUIDs that footers and headers name. Pure.

Theory. A differencing image names its parent by UUID; nothing names the children. Out of many images that
makes a forest, unless something is wrong: a parent that is not among them, a UUID that several images carry
(a copied file), a ring. None of these is guessed away: the link is marked, and the image starts a tree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


class ChainPlace(Enum):
    """How an image is tied to the one below it."""

    ROOT = "root"
    CHILD = "child"
    PARENT_MISSING = "parent-missing"
    PARENT_AMBIGUOUS = "parent-ambiguous"
    RING = "ring"


@dataclass(frozen=True, slots=True)
class Link:
    """One image as the forest sees it: its UUID and its parent's (text; None: unknown, or no parent)."""

    uuid: str | None
    parent: str | None


@dataclass(frozen=True, slots=True)
class Place:
    """The place of an image: `index` into the links, `depth` from the top of its tree (0), `parent` index."""

    index: int
    depth: int
    parent: int | None
    standing: ChainPlace


def forest(links: Sequence[Link]) -> tuple[Place, ...]:
    """Every image once, parents before their children, trees in the order of their tops."""
    carriers = Counter(link.uuid for link in links if link.uuid is not None)
    index_of = {link.uuid: index for index, link in enumerate(links) if link.uuid is not None}
    parents: list[int | None] = []
    standings: list[ChainPlace] = []
    for link in links:
        if link.parent is None:
            parents.append(None)
            standings.append(ChainPlace.ROOT)
        elif carriers[link.parent] == 1:
            parents.append(index_of[link.parent])
            standings.append(ChainPlace.CHILD)
        else:
            parents.append(None)
            standings.append(ChainPlace.PARENT_AMBIGUOUS if carriers[link.parent] else ChainPlace.PARENT_MISSING)
    for index in _closers(parents):
        parents[index], standings[index] = None, ChainPlace.RING
    children: dict[int, list[int]] = {}
    for index, parent in enumerate(parents):
        if parent is not None:
            children.setdefault(parent, []).append(index)
    places: list[Place] = []
    stack = [(index, 0) for index in reversed(range(len(links))) if parents[index] is None]
    while stack:
        index, depth = stack.pop()
        places.append(Place(index, depth, parents[index], standings[index]))
        stack += [(child, depth + 1) for child in reversed(children.get(index, []))]
    return tuple(places)


def _closers(parents: Sequence[int | None]) -> list[int]:
    """For each ring one image, whose link is cut so that the rest hangs from it."""
    seen: dict[int, int] = {}
    found: list[int] = []
    for start in range(len(parents)):
        at: int | None = start
        while at is not None and at not in seen:
            seen[at] = start
            at = parents[at]
        if at is not None and seen[at] == start:
            found.append(at)
    return found
