"""Work on storage that may never answer, done so that the follower keeps its wits.

A process that touches a dead NFS mount waits in the kernel, and no signal ends it. So the work is done
by a thread, and all that it may ask or change stays with the main one: the thread asks its questions
through a queue, and somebody who has left answers no more questions with yes.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Asked = TypeVar("Asked")
Done = TypeVar("Done")


@dataclass(slots=True)
class _Question(Generic[Asked]):
    asked: Asked
    answer: queue.SimpleQueue[bool] = field(default_factory=queue.SimpleQueue)


class WorkerThread(Generic[Asked, Done]):
    """`work` in a thread of its own. It is given a function that asks, and waits for yes or no."""

    def __init__(self, work: Callable[[Callable[[Asked], bool]], Done]) -> None:
        self._questions: queue.SimpleQueue[_Question[Asked] | None] = queue.SimpleQueue()
        self._work = work
        self._result: list[Done] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True, name="smfix-errand")
        self._ended = False
        self.granted = False
        self._thread.start()

    def serve(self, seconds: float, answer: Callable[[Asked], bool]) -> bool:
        """Answer what the work asks for at most `seconds`; True when it is done."""
        until = time.monotonic() + seconds
        while not self._ended:
            try:
                question = self._questions.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                return False
            if question is None:
                self._ended = True
                break
            answered = answer(question.asked)
            self.granted = self.granted or answered
            question.answer.put(answered)
        self._thread.join()
        return True

    def result(self) -> Done:
        """What the work returned; what it raised is raised."""
        if self._error is not None:
            raise self._error
        return self._result[0]

    def _run(self) -> None:
        try:
            self._result.append(self._work(self._ask))
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is asked for
            self._error = error
        self._questions.put(None)

    def _ask(self, asked: Asked) -> bool:
        question = _Question(asked)
        self._questions.put(question)
        return question.answer.get()
