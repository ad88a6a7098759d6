"""Run storage I/O in a daemon thread, so that a hung mount cannot block the follower.

A process that touches a dead NFS mount waits in the kernel, and no signal ends it. The thread changes no state of the
follower: it asks the main thread for permission through a queue, and waits for the answer.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Request = TypeVar("Request")
Result = TypeVar("Result")


@dataclass(slots=True)
class _Question(Generic[Request]):
    request: Request
    answer: queue.SimpleQueue[bool] = field(default_factory=queue.SimpleQueue)


class WorkerThread(Generic[Request, Result]):
    """Runs `work` in a thread of its own; `work` gets a function that asks the main thread for permission.

    `has_permission`: a request was granted.
    """

    def __init__(self, work: Callable[[Callable[[Request], bool]], Result]) -> None:
        self._questions: queue.SimpleQueue[_Question[Request] | None] = queue.SimpleQueue()
        self._work = work
        self._result: list[Result] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True, name="smfix-worker")
        self._ended = False
        self.has_permission = False
        self._thread.start()

    def serve(self, seconds: float, answer: Callable[[Request], bool]) -> bool:
        """Answer requests for at most `seconds`. Return True if the work is done."""
        until = time.monotonic() + seconds
        while not self._ended:
            try:
                question = self._questions.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                return False
            if question is None:
                self._ended = True
                break
            is_granted = answer(question.request)
            self.has_permission = self.has_permission or is_granted
            question.answer.put(is_granted)
        self._thread.join()
        return True

    def result(self) -> Result:
        """Return the result of the work. Raises the exception that the work raised."""
        if self._error is not None:
            raise self._error
        return self._result[0]

    def _run(self) -> None:
        try:
            self._result.append(self._work(self._ask))
        except BaseException as error:  # noqa: BLE001 - result() raises it
            self._error = error
        self._questions.put(None)

    def _ask(self, request: Request) -> bool:
        question = _Question(request)
        self._questions.put(question)
        return question.answer.get()
