"""Have the storage manager scan SRs after repairs, one after the other, while the follower goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from smfix.follow.worker_thread import WorkerThread


class Rescans:
    """The SRs to be scanned. A scan may take minutes; at the end of the follower it goes on without smfix.

    `rescan` scans one SR, and returns whether the scan succeeded, and a message; None: no SR is scanned.
    """

    def __init__(self, rescan: Callable[[str], tuple[bool, str]] | None) -> None:
        self._rescan = rescan
        self._wanted: list[str] = []
        self._running: tuple[str, WorkerThread[None, tuple[bool, str]]] | None = None

    @property
    def is_busy(self) -> bool:
        """True while a result is to come."""
        return self._running is not None or bool(self._wanted)

    def want(self, srs: Iterable[str | None]) -> None:
        """Scan these too, each once; an SR whose scan has begun already is scanned again after it."""
        if self._rescan is not None:
            self._wanted = list(dict.fromkeys((*self._wanted, *filter(None, srs))))

    def poll(self) -> tuple[str, bool, str] | None:
        """Return the SR whose scan has ended, with its result; None if none has. Begin with the next one."""
        ended = None
        if self._running is not None:
            sr, worker = self._running
            if not worker.serve(0.0, bool):
                return None
            self._running = None
            try:
                ended = sr, *worker.result()
            except Exception as error:  # noqa: BLE001 - a bug here must not end the service
                ended = sr, False, f"unexpected {type(error).__name__}: {error}; this is a bug, please report it"
        if self._wanted and (rescan := self._rescan) is not None:
            sr = self._wanted.pop(0)
            self._running = sr, WorkerThread(lambda _ask: rescan(sr))
        return ended
