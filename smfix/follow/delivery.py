"""Deliver events: print each one, then run its hooks, one after the other.

An event leaves the outbox after its last hook. The outbox is part of the saved state, so events are delivered at least
once: a kill between delivery and the next save repeats them, with the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from smfix.follow.hooks import HookRun
from smfix.follow.policy import Hook
from smfix.follow.state import FollowerState, PendingEvent
from smfix.follow.tracker import treated_as
from smfix.report import follow_report, jsondoc
from smfix.report.follow_report import Document


def document_of(event: PendingEvent) -> Document:
    """Return the document of an event (contract, `--follow`)."""
    edits = event.disk.edits if event.disk is not None else ()
    incident = jsondoc.incident(treated_as(event.id, event.incident, event.disk), edits)
    return follow_report.event(event.number, event.time.isoformat(timespec="milliseconds"), event.name, incident)


class Delivery:
    """Delivers the events of `state`'s outbox. `print_event` returns False if the reader of the events is gone.

    `say` takes a line for the operator. `is_reader_gone`: an event could not be printed.
    """

    def __init__(
        self, state: FollowerState, print_event: Callable[[Document], bool], say: Callable[[str], None]
    ) -> None:
        self._state, self._print_event, self._say = state, print_event, say
        self.is_reader_gone = False
        self._run: HookRun | None = None
        self._left: list[int] = []  # hooks of the first event that are still to be run, by their numbers

    @property
    def is_busy(self) -> bool:
        """True while a hook runs."""
        return self._run is not None

    def deliver(self, hooks: Sequence[Hook]) -> bool:
        """Print what is not printed yet, and run `hooks`. Return True if an event left the outbox."""
        count = len(self._state.outbox)
        for event in self._state.outbox:
            if not event.is_printed:
                event.is_printed = self._print_event(document_of(event))
                if not event.is_printed:
                    self.is_reader_gone = True
                    break
        self._poll()
        while self._state.outbox and self._run is None and self._state.outbox[0].is_printed:
            event = self._state.outbox[0]
            self._left = self._left or [number for number, hook in enumerate(hooks) if hook.wants(event.name)]
            if not self._left:
                del self._state.outbox[0]
            else:
                self._start(event, hooks)
        return len(self._state.outbox) < count

    def _start(self, event: PendingEvent, hooks: Sequence[Hook]) -> None:
        number = self._left[0]
        if number >= len(hooks):  # the policy was read again meanwhile
            self._left.clear()
            return
        hook = hooks[number]
        self._run = HookRun(hook.command, follow_report.line(document_of(event)), hook.timeout)
        self._poll()

    def _poll(self) -> None:
        if self._run is None:
            return
        error = self._run.poll()
        if error is None:
            return
        if error:
            self._state.count("hook_failures_total")
            self._say(f"smfix: {error}")
        self._end_hook()

    def _end_hook(self) -> None:
        self._run = None
        self._left = self._left[1:]
        if not self._left:
            del self._state.outbox[0]

    def stop(self) -> None:
        """Give the hook that runs a moment to end."""
        if self._run is not None and self._run.stop() and len(self._left) == 1:
            self._end_hook()
