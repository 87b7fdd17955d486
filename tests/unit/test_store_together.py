"""Group commit: those who wait at the same time share a transaction, and each gets its own answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from dicom_node.errors import LedgerUnavailable
from dicom_node.store.together import AT_A_TIME, Together


class Journal:
    """Commits numbers; the first commit waits until `go` is set, so that others gather behind it."""

    def __init__(self, fail: Callable[[Sequence[int]], None] = lambda batch: None) -> None:
        self.batches: list[list[int]] = []
        self.began, self.go = threading.Event(), threading.Event()
        self._fail = fail

    def commit(self, batch: Sequence[int]) -> list[str]:
        self.began.set()
        assert self.go.wait(10)
        self.batches.append(list(batch))
        self._fail(batch)
        return [f"answer {number}" for number in batch]


def gathered(journal: Journal, numbers: range) -> list[str | BaseException]:
    """One caller commits, the others come while it does; what each of them got."""
    together = Together(journal.commit)
    results: list[str | BaseException] = []
    with ThreadPoolExecutor(len(numbers)) as pool:
        futures = [pool.submit(together.add, numbers[0])]
        assert journal.began.wait(10)
        futures += [pool.submit(together.add, number) for number in numbers[1:]]
        while len(together._waiting) < len(numbers) - 1:
            threading.Event().wait(0.001)
        journal.go.set()
        for future in futures:
            error = future.exception()
            results.append(error or future.result())
    return results


def test_a_lone_caller_commits_at_once() -> None:
    """On its own thread, by itself."""
    journal = Journal()
    journal.go.set()

    assert "answer 7" == Together(journal.commit).add(7)
    assert [[7]] == journal.batches


def test_those_who_wait_share_a_transaction() -> None:
    """The second commit holds all that came during the first, and everybody gets its own answer."""
    journal = Journal()

    assert [f"answer {number}" for number in range(9)] == gathered(journal, range(9))
    assert [[0], list(range(1, 9))] == [sorted(batch) for batch in journal.batches]


def test_a_batch_is_bounded() -> None:
    """So that nobody waits for a hundred others."""
    journal = Journal()

    gathered(journal, range(AT_A_TIME + 3))

    assert [1, AT_A_TIME, 2] == [len(batch) for batch in journal.batches]


def test_an_item_that_cannot_be_committed_fails_alone() -> None:
    """An unforeseen error of one is not the others': each is tried by itself."""

    def fail(batch: Sequence[int]) -> None:
        if 3 in batch:
            raise ValueError("three")

    results = gathered(Journal(fail), range(6))

    assert isinstance(results[3], ValueError)
    assert [f"answer {number}" for number in (0, 1, 2, 4, 5)] == results[:3] + results[4:]


def test_a_ledger_that_does_not_answer_is_said_to_all() -> None:
    """It is asked once, not once for each who waits: none of them sees success."""

    def fail(batch: Sequence[int]) -> None:
        if batch[0]:
            raise LedgerUnavailable

    journal = Journal(fail)
    results = gathered(journal, range(5))

    assert 2 == len(journal.batches)
    assert "answer 0" == results[0]
    assert all(isinstance(result, LedgerUnavailable) for result in results[1:])


def test_what_ends_the_program_ends_it_for_the_caller_only_once() -> None:
    """Those who waited with it get the error instead of waiting for ever."""

    def fail(batch: Sequence[int]) -> None:
        if batch[0]:
            raise KeyboardInterrupt

    results = gathered(Journal(fail), range(4))

    assert all(isinstance(result, KeyboardInterrupt) for result in results[1:])
    with pytest.raises(KeyboardInterrupt):
        Together(lambda batch: fail([1]) or []).add(1)
