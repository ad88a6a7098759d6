"""Write the metrics of a follower to a file for node-exporter's textfile collector."""

from __future__ import annotations

import time
from collections.abc import Callable

from smfix.errors import WriteFailed
from smfix.follow.incident_state import EVENTS, Stage
from smfix.follow.state import FollowerState
from smfix.host import atomic_file
from smfix.report import follow_report
from smfix.smlog.inputs.tail import Tail

METRICS = atomic_file.FileKind("a metrics file of smfix", follow_report.is_metrics, 0o644, "--metrics", "smfix.prom")
_INTERVAL = 15.0  # seconds
_COUNTERS = ("repairs_total", "log_bytes_total", "hook_failures_total")


class MetricsFile:
    """The metrics file at `path`; None: there is none. `say` takes a line for the operator."""

    def __init__(self, path: str | None, say: Callable[[str], None]) -> None:
        self._path, self._say = path, say
        self._written_at = 0.0
        self._error = ""

    def write_if_due(self, state: FollowerState, tail: Tail, left_out: int) -> None:
        """Write the metrics anew, 15 seconds after the last time."""
        if time.monotonic() - self._written_at >= _INTERVAL:
            self.write(state, tail, left_out)

    def write(self, state: FollowerState, tail: Tail, left_out: int) -> None:
        """Write the metrics; report an error once. `left_out` counts the reports that were not filed."""
        if not self._path:
            return
        self._written_at = time.monotonic()
        text = follow_report.metrics(_samples(state, tail, left_out))
        try:
            atomic_file.replace(self._path, text.encode(), METRICS)
            self._error = ""
        except WriteFailed as error:
            if str(error) != self._error:
                self._error = str(error)
                self._say(f"smfix: the metrics cannot be written: {error}")


def _samples(state: FollowerState, tail: Tail, left_out: int) -> list[tuple[str, dict[str, str], float]]:
    log = {"log": state.log}
    stages = [tracked.progress.stage for tracked in state.incidents.values()]
    return [
        *(("incidents", {**log, "stage": stage.value}, stages.count(stage)) for stage in Stage),
        *(("events_total", {**log, "event": name}, state.totals.get(f"event {name}", 0)) for name in EVENTS),
        *((name, log, state.totals.get(name, 0)) for name in _COUNTERS),
        ("reports_left_out_total", log, left_out),
        ("log_unread_bytes", log, tail.unread()),
        ("log_gaps_total", log, tail.position.gaps),
        ("log_lost_bytes_total", log, tail.position.lost),
        ("last_look_seconds", log, time.time()),
    ]
