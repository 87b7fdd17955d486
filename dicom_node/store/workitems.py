"""Work items in the ledger: what was claimed of which manager, and how far it is.

A row is durable before the manager hears of the claim, with the Transaction UID it is claimed under:
whatever is lost after that, a repeat asks for the same item under the same lock. Every change names
the step it leads away from, so that a change that comes late changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, Row, and_, or_, select, update

from dicom_node.domain.identity import UID
from dicom_node.domain.job import State
from dicom_node.domain.workitem import OPEN, Claim, Input, Output, Step
from dicom_node.store.database import insert_new, reading, utc_now, writing
from dicom_node.store.history import stored_text, tell
from dicom_node.store.schema import deliveries, jobs, results, work_items

_OPEN = [step.value for step in sorted(OPEN)]


class WorkItems:
    def __init__(self, engine: Engine, clock: Callable[[], datetime] = utc_now) -> None:
        self._engine = engine
        self._clock = clock

    def begin(self, peer: str, uid: UID, transaction_uid: UID, pipeline: str, workitem: str) -> Claim | None:
        """A row at CLAIMING, durable before anything is sent; None where the item is known already."""
        now = self._clock()
        values = {
            "peer": peer, "uid": uid, "transaction_uid": transaction_uid, "pipeline": pipeline,
            "workitem": workitem, "step": Step.CLAIMING.value, "inputs": [], "jobs": [], "since": now,
            "claimed_at": now,
        }  # fmt: skip
        with writing(self._engine) as connection:
            row = insert_new(connection, work_items, values, *work_items.c).first()
            return None if row is None else _claim(row)

    def due(self, peer: str) -> tuple[Claim, ...]:
        """Open items of a manager whose pause is over, the oldest first."""
        ready = or_(work_items.c.not_before.is_(None), work_items.c.not_before <= self._clock())
        query = select(work_items).where(_open(peer), ready).order_by(work_items.c.id)
        with reading(self._engine) as connection:
            return tuple(_claim(row) for row in connection.execute(query))

    def known(self, peer: str, uids: Sequence[UID]) -> frozenset[UID]:
        """Which of these items have a row."""
        query = select(work_items.c.uid).where(work_items.c.peer == peer, work_items.c.uid.in_(uids))
        with reading(self._engine) as connection:
            return frozenset(UID(uid) for uid in connection.execute(query).scalars())

    def open_count(self, peer: str, workitem: str) -> int:
        query = select(work_items.c.id).where(_open(peer), work_items.c.workitem == workitem)
        with reading(self._engine) as connection:
            return len(connection.execute(query).all())

    def item(self, claim_id: int) -> Claim:
        with reading(self._engine) as connection:
            return _claim(connection.execute(select(work_items).where(work_items.c.id == claim_id)).one())

    def latest(self, limit: int = 100) -> tuple[Claim, ...]:
        """The newest first."""
        query = select(work_items).order_by(work_items.c.id.desc()).limit(limit)
        with reading(self._engine) as connection:
            return tuple(_claim(row) for row in connection.execute(query))

    def go_on(
        self, claim: Claim, step: Step, *, inputs: Sequence[Input] | None = None,
        job_ids: Sequence[int] | None = None, outcome: dict[str, object] | None = None, reason: str = "",
    ) -> Claim | None:  # fmt: skip
        """The next step, with what it needs; None where the item was at another step than `claim` says."""
        now = self._clock()
        values: dict[str, Any] = {  # Any: columns of `work_items`
            "step": step.value, "since": now, "attempts": 0, "not_before": None,
            "reason": stored_text(reason), "finished_at": None if step in OPEN else now,
        }  # fmt: skip
        if inputs is not None:
            values["inputs"] = [_as_json(one) for one in inputs]
        if job_ids is not None:
            values["jobs"] = list(job_ids)
        if outcome is not None:
            values["outcome"] = outcome
        statement = update(work_items).where(_at(claim)).values(**values).returning(*work_items.c)
        with writing(self._engine) as connection:
            row = connection.execute(statement).first()
            if row is None:
                return None
            moved = _claim(row)
            what = f"for {moved.peer}, {moved.pipeline}" + (f": {moved.reason}" if moved.reason else "")
            for study_uid in dict.fromkeys(one.study_uid for one in moved.inputs):
                tell(connection, now, study_uid, f"workitem.{step.value.lower()}", what)
            return moved

    def put_off(self, claim: Claim, reason: str, not_before: datetime, *, failed: bool = True) -> None:
        """The step is tried again then; `failed` counts it as an attempt."""
        values = {
            "attempts": claim.attempts + failed, "not_before": not_before, "reason": stored_text(reason),
        }  # fmt: skip
        with writing(self._engine) as connection:
            connection.execute(update(work_items).where(_at(claim)).values(**values))

    def told(self, claim: Claim, said: str) -> None:
        """The manager heard of the progress."""
        values = {"told_at": self._clock(), "said": stored_text(said)}
        with writing(self._engine) as connection:
            connection.execute(update(work_items).where(_at(claim)).values(**values))

    def failures(self, job_ids: Sequence[int]) -> dict[int, str]:
        """Why jobs are FAILED, as the word of `node/failure.py`."""
        failed = and_(jobs.c.id.in_(job_ids), jobs.c.state == State.FAILED.value)
        with reading(self._engine) as connection:
            rows = connection.execute(select(jobs.c.id, jobs.c.failure).where(failed)).all()
        return {row.id: row.failure for row in rows}

    def outputs(self, job_ids: Sequence[int]) -> tuple[tuple[State, str, Output, bool], ...]:
        """Deliveries of these jobs: state, reason, object, and whether a later revision replaced it."""
        query = (
            select(
                deliveries.c.state, deliveries.c.reason, deliveries.c.destination, results.c.sop_class_uid,
                results.c.sop_instance_uid, results.c.series_uid, results.c.superseded_at, jobs.c.study_uid,
            )
            .join_from(deliveries, results, results.c.id == deliveries.c.result_id)
            .join(jobs, jobs.c.id == results.c.job_id)
            .where(results.c.job_id.in_(job_ids))
            .order_by(deliveries.c.id)
        )  # fmt: skip
        with reading(self._engine) as connection:
            rows = connection.execute(query).all()
        return tuple(
            (
                State(row.state),
                row.reason,
                Output(
                    row.destination, UID(row.study_uid), UID(row.series_uid), UID(row.sop_class_uid),
                    UID(row.sop_instance_uid),
                ),
                row.superseded_at is not None,
            )
            for row in rows
        )  # fmt: skip


def _open(peer: str) -> Any:  # Any: SQLAlchemy's expression types
    return and_(work_items.c.peer == peer, work_items.c.step.in_(_OPEN))


def _at(claim: Claim) -> Any:  # Any: SQLAlchemy's expression types
    return and_(work_items.c.id == claim.id, work_items.c.step == claim.step.value)


def _claim(row: Row[Any]) -> Claim:  # Any: columns of `work_items`
    return Claim(
        id=row.id, peer=row.peer, uid=UID(row.uid), transaction_uid=UID(row.transaction_uid),
        pipeline=row.pipeline, workitem=row.workitem, step=Step(row.step),
        inputs=tuple(_input(one) for one in row.inputs), jobs=tuple(row.jobs), attempts=row.attempts,
        since=row.since, claimed_at=row.claimed_at, told_at=row.told_at, said=row.said, reason=row.reason,
        outcome=row.outcome,
    )  # fmt: skip


def _as_json(one: Input) -> dict[str, object]:
    return {
        "study": one.study_uid, "series": one.series_uid, "ae_titles": list(one.ae_titles),
        "instances": [list(instance) for instance in one.instances],
    }  # fmt: skip


def _input(said: dict[str, Any]) -> Input:  # Any: JSON of `_as_json`
    return Input(
        UID(said["study"]), UID(said["series"]) if said["series"] else None,
        tuple((UID(uid), sop_class) for uid, sop_class in said["instances"]), tuple(said["ae_titles"]),
    )  # fmt: skip
