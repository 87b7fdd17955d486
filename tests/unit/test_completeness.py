"""A study is complete when its needs are shown to be met; quiet is the last resort."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from dicom_node.assemble.completeness import NOBODY_ASKED, Judgement, Told, judge
from dicom_node.assemble.study import read_study
from dicom_node.config import Receive
from dicom_node.domain.expectation import Expectation
from dicom_node.domain.identity import UID
from dicom_node.domain.pipeline import Need
from dicom_node.domain.series import Contrast, Plane
from support import mr
from support.stored import stored

NEEDS = (
    Need("t2_axial", Contrast.T2, Plane.AXIAL, required=True),
    Need("dwi", Contrast.DWI, b_value=(500.0, 1500.0)),
    Need("adc", Contrast.ADC),
)
RECEIVE = Receive(settle_s=3.0, stable_after_s=30.0)


def judged(
    instances: Iterable[Dataset], folder: Path, quiet_s: float = 3.0,
    needs: tuple[tuple[Need, ...], ...] = (NEEDS,), told: Told = NOBODY_ASKED,
) -> Judgement:  # fmt: skip
    members = stored(instances, folder / "files")
    study = read_study(members[0].study_uid, 0, members)
    return judge(study, members, needs, quiet_s, RECEIVE, told)


def test_a_whole_study_is_complete_once_it_settled(tmp_path: Path) -> None:
    """Even a study seen to be whole may have its last slices on the way."""
    settling = judged(mr.uterine_study(), tmp_path / "a", quiet_s=2.9)
    settled = judged(mr.uterine_study(), tmp_path / "b", quiet_s=3.0)

    assert Judgement(False, "seen to be complete; settling for 3 s") == settling
    assert Judgement(True, "every series is whole and every need is met; quiet for 3 s") == settled


def without(keep: int, series: int) -> list[Dataset]:
    """The study whose given series has only its first `keep` images yet."""
    study = mr.uterine_study()
    late = [ds for ds in study if ds.SeriesNumber == series][keep:]
    return [ds for ds in study if ds not in late]


def announced(count: int) -> list[Dataset]:
    return [
        *mr.uterine_study(),
        *mr.mr_series(mr.T1, 10, SeriesNumber=9, ImagesInAcquisition=count, AcquisitionNumber=1),
    ]


@pytest.mark.parametrize(
    ("instances", "doubt"),
    [
        (without(0, 6), "nothing yet for ADC"),
        (without(9, 5), "nothing yet for DWI b500-1500"),
        (without(13, 5), "series 5: its stacks have 5 to 8 slices"),
        ([ds for ds in mr.uterine_study() if (ds.SeriesNumber, ds.InstanceNumber) != (3, 5)],
         "nothing yet for T2 axial"),
        ([ds for ds in mr.uterine_study() if (ds.SeriesNumber, ds.InstanceNumber) != (4, 5)],
         "series 4, T1 axial: 1 slice is missing between image 4 at -28.0 mm and image 6 at -20.0 mm along "
         "the slice normal (8.0 mm where the slices are 4.0 mm apart)"),
        ([ds for ds in mr.uterine_study() if (ds.SeriesNumber, ds.InstanceNumber) != (4, 1)],
         "series 4: instance numbers 1 are absent"),
        (announced(12), "series 9: 10 of 12 announced images are here"),
    ],
)  # fmt: skip
def test_what_is_missing_makes_it_wait(tmp_path: Path, instances: list[Dataset], doubt: str) -> None:
    """Needs, gaps, numbers, announced counts, uneven b values: each keeps the study open."""
    assert Judgement(False, doubt) == judged(instances, tmp_path, quiet_s=29.0)


def test_as_many_images_as_announced_are_enough(tmp_path: Path) -> None:
    assert judged(announced(10), tmp_path).complete


def test_quiet_completes_it_as_the_last_resort_and_says_so(tmp_path: Path) -> None:
    judgement = judged(without(0, 6), tmp_path, quiet_s=30.0)

    because = "no image came for 30 s, the last resort, since: nothing yet for ADC"
    assert Judgement(True, because) == judgement


def test_one_satisfied_pipeline_is_enough(tmp_path: Path) -> None:
    """Another one may ask for what this patient was never scanned with."""
    other = (Need("flair", Contrast.FLAIR, required=True),)

    assert judged(mr.uterine_study(), tmp_path, needs=(other, NEEDS)).complete


def test_without_a_routed_pipeline_only_quiet_completes(tmp_path: Path) -> None:
    waiting = judged(mr.uterine_study(), tmp_path, needs=())

    assert Judgement(False, "no pipeline with declared needs is routed to it") == waiting


def test_enhanced_objects_need_no_instance_numbers(tmp_path: Path) -> None:
    objects = [
        mr.enhanced_mr(mr.T2, 8, SeriesNumber=1, InstanceNumber=7),
        mr.enhanced_mr(mr.DWI, 8, SeriesNumber=2, b_values=(0.0, 800.0)),
        mr.enhanced_mr(mr.ADC, 8, SeriesNumber=3),
    ]

    assert judged(objects, tmp_path).complete


def test_the_sentence_holds_no_free_text(tmp_path: Path) -> None:
    """It goes into the history and the log."""
    assert "CANARY" not in judged(without(5, 3), tmp_path).because


# ---- where a peer was asked what it has --------------------------------------------------

LAST_IMAGE = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LATER, EARLIER = LAST_IMAGE + timedelta(seconds=3), LAST_IMAGE - timedelta(seconds=3)


def told(there: int, here: int, *, asked_at: datetime = LATER, more: int = 0, unknown: int = 0) -> Told:
    """A peer has `there` images of series 4, `here` are here; `more` of another series that it has not."""
    series = UID(mr.mr_series(mr.T1, 1, SeriesNumber=4)[0].SeriesInstanceUID)
    said = [Expectation(UID("1.2"), series, "pacs", there, asked_at)]
    if unknown:
        said.append(Expectation(UID("1.2"), UID("1.2.9"), "pacs", unknown, asked_at))
    return Told(said, {series: here} | ({UID("1.2.3"): more} if more else {}), LAST_IMAGE)


SERIES_4 = mr.mr_series(mr.T1, 5, SeriesNumber=4, missing=(2,))
"""With a gap, and no pipeline's needs met: only the peer can say that this is all."""


def test_all_that_the_peer_has_is_complete_once_it_settled(tmp_path: Path) -> None:
    """The peer knows better than a gap or an unmet need; even then the settling time is given."""
    settled = judged(SERIES_4, tmp_path / "a", quiet_s=3.0, told=told(4, 4))
    settling = judged(SERIES_4, tmp_path / "b", quiet_s=2.9, told=told(4, 4))

    assert Judgement(True, "PACS 'pacs' has 4 images of it, all are here; quiet for 3 s") == settled
    assert Judgement(False, "seen to be complete; settling for 3 s") == settling


@pytest.mark.parametrize(
    ("answer", "doubt"),
    [
        (told(120, 4), "PACS 'pacs' has 120 images of series 4, 4 are here"),
        (told(2, 1), "PACS 'pacs' has 2 images of series 4, 1 is here"),
        (told(120, 4, asked_at=EARLIER), "PACS 'pacs' has 120 images of series 4, 4 are here"),
        (told(4, 4, unknown=1), "PACS 'pacs' has 1 image of a series that is not here, 0 are here"),
    ],
)
def test_fewer_than_the_peer_has_keeps_it_open(tmp_path: Path, answer: Told, doubt: str) -> None:
    """Whatever the images look like; after the quiet time it is the last resort that completes it."""
    whole = [*mr.uterine_study(), *SERIES_4]

    waiting = judged(whole, tmp_path / "a", quiet_s=29.0, told=answer)
    resort = judged(whole, tmp_path / "b", quiet_s=30.0, told=answer)

    assert Judgement(False, doubt) == waiting
    assert Judgement(True, f"no image came for 30 s, the last resort, since: {doubt}") == resort


@pytest.mark.parametrize(
    "answer",
    [told(4, 4, asked_at=EARLIER), told(4, 4, more=2), told(3, 4), Told((), {UID("1.2.3"): 4}, LAST_IMAGE)],
    ids=["asked before the last image", "another series is not there", "fewer there", "no answer"],
)
def test_an_answer_that_proves_nothing_leaves_the_judgement_to_the_images(
    tmp_path: Path, answer: Told
) -> None:
    """An old answer, and a peer that has less than is here: it may be receiving still."""
    doubtful = judged(SERIES_4, tmp_path / "a", quiet_s=29.0, told=answer)
    whole = judged(mr.uterine_study(), tmp_path / "b", quiet_s=3.0, told=answer)

    assert not doubtful.complete
    assert Judgement(True, "every series is whole and every need is met; quiet for 3 s") == whole


def test_while_a_peer_is_asked_only_the_last_resort_completes(tmp_path: Path) -> None:
    """Else the study would be done before the answer, and again after it."""
    asking = Told(asking=("pacs",))

    waiting = judged(mr.uterine_study(), tmp_path / "a", quiet_s=29.0, told=asking)
    resort = judged(mr.uterine_study(), tmp_path / "b", quiet_s=30.0, told=asking)

    assert Judgement(False, "PACS 'pacs' is being asked what it has of it") == waiting
    assert resort.complete
