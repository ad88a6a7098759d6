"""A guard for tests: it lets everybody in, says what it was told to, and remembers what it was asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from smfix.values import Refusal


class OpenGuard:
    """`own`, `host`: answered when the locks are asked for. `objections`: one answer per look.

    An exception among them is raised.
    """

    def __init__(self, own: Refusal | None = None, host: Refusal | None = None, objections=()) -> None:
        self.own, self.host = own, host
        self.objections = list(objections)
        self.said: list[str] = []
        self.on_host_lock = lambda: None

    @contextmanager
    def own_lock(self, image) -> Iterator[Refusal | None]:
        self.said.append("own")
        if isinstance(self.own, Exception):
            raise self.own
        yield self.own
        self.said.append("own released")

    @contextmanager
    def host_locks(self, image) -> Iterator[Refusal | None]:
        self.said.append("host")
        self.on_host_lock()
        yield self.host
        self.said.append("host released")

    def objection(self, image) -> Refusal | None:
        self.said.append("look")
        answer = self.objections.pop(0) if self.objections else None
        if isinstance(answer, Exception):
            raise answer
        return answer
