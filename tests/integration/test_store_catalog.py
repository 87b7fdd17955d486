"""T1's row and T2: what is known of instances, and how a study gets its revisions and jobs."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import sqlalchemy as sa

from dicom_node.domain.identity import UID
from dicom_node.domain.job import ResultKind, State
from dicom_node.store.catalog import Recorded
from dicom_node.store.schema import instances, revisions
from support.ledger import STUDY, Books, books, instance_uid, planned


def test_the_same_bytes_twice_are_one_instance(store: Books) -> None:
    """A repeated transmission makes no second row and no new work."""
    assert [Recorded.NEW, Recorded.SAME] == [store.arrives(1), store.arrives(1)]
    assert 1 == len(store.catalog.instances(STUDY))
    assert () == store.catalog.conflicts()


def test_other_bytes_under_a_known_uid_are_kept_aside(store: Books) -> None:
    """The first instance stays what it is; the other object is on disk, in `conflicts`, once."""
    store.arrives(1, b"first")

    again = [store.arrives(1, b"other"), store.arrives(1, b"other")]

    assert [Recorded.CONFLICT] * 2 == again
    assert [b"first"] == [found.path.read_bytes() for found in store.catalog.instances(STUDY)]
    assert [b"other"] == [store.archive.path(row.digest).read_bytes() for row in store.catalog.conflicts()]
    assert ["instance.conflict"] == store.events()
    assert () == store.catalog.orphans(older_than_s=0)


def test_a_study_is_pending_until_it_has_a_revision(store: Books) -> None:
    """Pending says how many are new, from whom, when the last came, and how many are unread."""
    store.arrives(1, peer="scanner")
    last = store.clock.passes(5)
    store.arrives(2, peer="pacs")
    store.catalog.keep_headers({instance_uid(1): {"rows": 4}}, {})

    (pending,) = store.catalog.pending()

    assert (STUDY, last, 2, ("pacs", "scanner"), 1) == (
        pending.study_uid, pending.last_received_at, pending.new_instances, pending.peers, pending.unread
    )  # fmt: skip
    assert ("pacs", "scanner") == store.catalog.peers_of(STUDY)
    assert store.completes(new=2) is not None
    assert [] == store.catalog.pending()


def test_headers_are_read_once(store: Books) -> None:
    """An instance is unread until a header, or the reason why there is none, is kept."""
    for number in range(4):
        store.arrives(number)
    assert 4 == len(store.catalog.unread(10))
    assert 2 == len(store.catalog.unread(2))

    store.catalog.keep_headers(
        {instance_uid(0): {"rows": 512, "cosines": [1.0, 0.0]}, instance_uid(1): {"b": float("nan")}},
        {instance_uid(2): "sequences are nested too deeply\0"},
    )

    assert [instance_uid(3)] == [left.sop_instance_uid for left in store.catalog.unread(10)]
    assert {"rows": 512, "cosines": [1.0, 0.0]} == store.catalog.instances(STUDY)[0].header
    assert {instance_uid(1), instance_uid(2)} == set(store.catalog.unreadable(STUDY))


def test_completing_makes_a_revision_and_its_jobs(store: Books) -> None:
    """T2: instances in revision 1, one SCHEDULED job, and the plan as it was described."""
    store.arrives(1)

    completed = store.completes(planned("key"))

    assert completed is not None and 1 == completed.revision
    job = store.queue.job(completed.job_ids[0])
    assert (State.SCHEDULED, 1, "p", STUDY) == (job.state, job.revision, job.pipeline, job.subject_uid)
    assert {"choices": ["T2 axial"]} == store.queue.plan(job.id)
    assert "key" == store.queue.input_key(job.id)
    assert ["study.complete", "job.scheduled"] == store.events()


def test_a_late_image_stops_completing(store: Books) -> None:
    """What was judged is not what is there any more: nothing changes, and the study stays pending."""
    store.arrives(1)
    store.arrives(2)

    assert store.completes(planned(), new=1) is None

    assert 2 == store.catalog.pending()[0].new_instances
    assert () == store.queue.jobs()
    assert [] == store.events()


def test_completing_twice_is_nothing(store: Books) -> None:
    """A repeat of T2 after a crash finds no new instances and does nothing."""
    store.arrives(1)
    store.completes(planned())

    assert store.completes(planned()) is None
    assert store.completes(planned(), new=0) is None
    assert 1 == len(store.queue.jobs())


def test_a_late_image_makes_a_new_revision(store: Books) -> None:
    """Revision 2 holds all; revision 1 stays what it was; the waiting job of 1 is canceled."""
    first = store.scheduled(key="a", number=1)
    second = store.scheduled(key="b", number=2)

    assert [1, 2] == [len(store.catalog.instances(STUDY, revision)) for revision in (1, 2)]
    assert [State.CANCELED, State.SCHEDULED] == [store.queue.job(job).state for job in (first, second)]
    assert ["study.complete", "job.scheduled"] * 1 + [
        "study.complete", "job.canceled", "job.scheduled"
    ] == store.events()  # fmt: skip


def test_what_would_only_repeat_a_result_is_not_scheduled(store: Books) -> None:
    """The same input key: the job that is waiting, running or done stands for the new revision too."""
    first = store.scheduled(key="same", number=1)
    store.arrives(2)
    while_waiting = store.completes(planned("same"))
    _, lease = store.claimed()
    store.arrives(3)
    while_running = store.completes(planned("same"))
    store.queue.finish(lease, [store.result()], {"pacs": [ResultKind.SR]}, {})
    store.arrives(4)
    when_done = store.completes(planned("same"))

    assert [()] * 3 == [done and done.job_ids for done in (while_waiting, while_running, when_done)]
    assert [first] == [job.id for job in store.queue.jobs()]
    assert 3 == store.events().count("job.unchanged")


def test_a_failed_or_canceled_job_does_not_stand_for_the_new_revision(store: Books) -> None:
    """Same key, but there is no result: the new revision asks again."""
    first = store.scheduled(key="same", number=1)
    _, lease = store.claimed()
    store.queue.fail(lease, "no", retry_at=None)

    second = store.scheduled(key="same", number=2)

    assert [State.FAILED, State.SCHEDULED] == [store.queue.job(job).state for job in (first, second)]


def test_another_pipeline_or_version_is_other_work(store: Books) -> None:
    """Jobs are unique by subject, revision, pipeline and version; nothing else is merged."""
    store.arrives(1)

    completed = store.completes(planned(), planned(pipeline="q"), planned(version="2"))

    assert completed is not None and 3 == len(completed.job_ids)


def test_two_routes_of_one_pipeline_make_one_job(store: Books) -> None:
    """The second cannot be scheduled beside the first; the history says so."""
    store.arrives(1)

    completed = store.completes(planned("a", route=0), planned("b", route=1))

    assert completed is not None and 1 == len(completed.job_ids)
    assert "job.two_routes" in store.events()


def test_two_assemblers_make_one_revision(database: str, tmp_path: Path) -> None:
    """Processes that complete the same study at once: one succeeds, each time."""
    with books(database, tmp_path / "archive") as store:
        studies = [UID(f"1.2.3.{number}") for number in range(20)]
        for study in studies:
            store.arrives(1, study=study)
    context = multiprocessing.get_context("spawn")
    with context.Pool(3) as pool:
        done = pool.starmap(_complete_all, [(database, tmp_path / "archive", studies)] * 3)
    with books(database, tmp_path / "archive") as store, store.engine.connect() as connection:
        rows = connection.execute(sa.select(revisions.c.study_uid, revisions.c.revision)).all()

        assert 20 == sum(done)
        assert sorted((study, 1) for study in studies) == sorted(map(tuple, rows))
        assert 20 == len(store.queue.jobs())


def _complete_all(url: str, folder: Path, studies: list[UID]) -> int:
    with books(url, folder) as store:
        return sum(store.completes(planned(study=study), study=study) is not None for study in studies)


def test_own_results_are_known(store: Books) -> None:
    """What this node made is recognised when a PACS sends it back."""
    store.scheduled()
    _, lease = store.claimed()
    made = store.result()

    store.queue.finish(lease, [made], {}, {})

    assert store.catalog.is_result(made[0].sop_instance_uid)
    assert not store.catalog.is_result(instance_uid(1))


def test_an_object_without_a_row_is_an_orphan(store: Books) -> None:
    """A process killed between rename and commit leaves one; a fresh one may still get its row."""
    store.arrives(1)
    orphan = store.archive.put(b"nobody was told success")

    assert (orphan,) == store.catalog.orphans(older_than_s=0)
    assert () == store.catalog.orphans()


def test_the_ledger_keeps_uids_not_paths(store: Books) -> None:
    """Paths are derived from digests when asked, so that data_dir can move."""
    store.arrives(1)

    with store.engine.connect() as connection:
        row = connection.execute(sa.select(instances)).mappings().one()

    assert not [value for value in row.values() if isinstance(value, str) and "/" in value]
