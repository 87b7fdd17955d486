"""Group commit: what several threads want to commit at the same time goes into one transaction.

Each waits until its own is durable; nobody waits for a thread that is not there. A lone caller
commits at once, on its own thread.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from dicom_node.errors import DicomNodeError

Item = TypeVar("Item")
Answer = TypeVar("Answer")

AT_A_TIME = 64
"""Items in one transaction, at most."""


@dataclass(eq=False)
class _Entry(Generic[Item, Answer]):
    """Mutable: answered by whichever thread commits it."""

    item: Item
    done: bool = False
    answer: Answer | None = None
    error: BaseException | None = None


class Together(Generic[Item, Answer]):
    """`commit` gets a batch and returns an answer for each, in order; or raises, and nothing is committed."""

    def __init__(self, commit: Callable[[Sequence[Item]], Sequence[Answer]]) -> None:
        self._commit = commit
        self._waiting: deque[_Entry[Item, Answer]] = deque()  # append and popleft are atomic
        self._turn = threading.Lock()

    def add(self, item: Item) -> Answer:
        """Returns when the item is committed; raises what its commit raised."""
        entry: _Entry[Item, Answer] = _Entry(item)
        self._waiting.append(entry)
        while not entry.done:
            with self._turn:  # whoever has the turn commits for all who wait
                if not entry.done:
                    self._commit_batch([self._waiting.popleft() for _ in range(self._batch_size())])
        if entry.error is not None:
            raise entry.error
        return entry.answer  # type: ignore[return-value]  # set with `done`

    def _batch_size(self) -> int:
        return min(len(self._waiting), AT_A_TIME)

    def _commit_batch(self, batch: list[_Entry[Item, Answer]]) -> None:
        try:
            answers = self._commit([entry.item for entry in batch])
        except BaseException as error:
            if len(batch) > 1 and isinstance(error, Exception) and not isinstance(error, DicomNodeError):
                for entry in batch:  # one is at fault: each by itself, so that it fails alone
                    self._commit_batch([entry])
                return
            for entry in batch:
                entry.error, entry.done = error, True
            if not isinstance(error, Exception):
                raise
            return
        for entry, answer in zip(batch, answers, strict=True):
            entry.answer, entry.done = answer, True
