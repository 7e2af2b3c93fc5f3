"""Some who ask a vLLM without a break, while a test does things to it."""

from __future__ import annotations

import threading

from tests.engine.real import TOKENS, Answer, ask


class Users:
    """``many`` of them, each for one answer of ``count`` tokens after another. A context manager.

    One whose answer failed or was cut asks no more.
    """

    def __init__(self, url: str, *, many: int, count: int) -> None:
        self.answers: list[Answer] = []
        self.failed: list[Exception] = []
        self._url, self._count = url, count
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(many)]

    @property
    def labels(self) -> set[str]:
        """Of the versions that answered."""
        return {label for answer in self.answers for label, _, _ in answer.spans}

    def __enter__(self) -> Users:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.answers.append(ask(self._url, TOKENS, self._count))
            except Exception as error:  # any is a failure
                self.failed.append(error)
                return
