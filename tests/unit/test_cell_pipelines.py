"""The pipelines for cells: weighing planes, judging slides, counting white cells; and each one whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from dicom_node.domain.findings import Certainty, Findings
from dicom_node.domain.identity import UID, Digest
from dicom_node.domain.pipeline import Case, silent
from dicom_node.domain.slide import Photograph
from dicom_node.errors import ModelError
from dicom_node.infer.runtime import Runtime, use
from dicom_node.pipeline import CROPS_AT_A_TIME, Resume
from dicom_node.train.cells.slides import SceneReader, case_of
from dicom_node.train.phantoms.slides.build import Wish, build_slide
from dicom_node.train.phantoms.slides.cytology import cytology
from dicom_node.train.phantoms.slides.scene import Scene
from dicom_node.train.phantoms.slides.spec import SlideSpec
from pipelines.blood_smear import CLASSES as WHITE_CLASSES
from pipelines.blood_smear import PRECURSOR, WHITE, BloodSmear
from pipelines.blood_smear.differential import chance_of_precursors, differential
from pipelines.cervical_cytology import CLASSES, CervicalCytology
from pipelines.cervical_cytology.planes import Attention, read_attention
from pipelines.cervical_cytology.slide import SlideRule, read_rule, suspicion, triage
from pipelines.cervical_cytology.work import Picture, look
from pipelines.cervical_fields import CervicalFields
from support.bundles import bundle

POINT = {"threshold": 0.5, "low": 0.3, "high": 0.7, "chosen_on": "nothing: a test."}
RULE = {
    "top": 3, "slope": 1.0, "intercept": 0.0, "call_from": 0.5, "worst_grade": False, "cells_needed": 5000,
    "operating_point": POINT,
}  # fmt: skip
PLANES = {"focus": 2.0, "abnormality": 1.0, "temperature": 1.0}


def rule(**changed: object) -> SlideRule:
    return read_rule(RULE | changed)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small untrained bundles of the three pipelines."""
    folder = tmp_path_factory.mktemp("models")
    bundle(folder, "cervical_cells", extra={"planes": PLANES, "slide": RULE}, seed=1)
    smear = {"temperature": 1.0, "attention_from": 0.2, "um_per_px_unstated": 0.1}
    bundle(folder, "blood_cells", extra={"smear": smear}, seed=2)
    bundle(folder, "cervical_fields", extra={"fields": {"temperature": 1.0}}, seed=3)
    return folder


@pytest.fixture(scope="module")
def stack() -> Scene:
    spec = SlideSpec("a small stack", 1, 1, um_per_px=0.25, planes=3, levels=2, seed=5)
    return build_slide(spec, cytology(um_per_px=0.25, seed=5), Wish(12, 3, background=0.0))


def test_the_sharpest_plane_decides_where_only_focus_counts() -> None:
    logits = np.zeros((1, 3, 4), np.float32)
    logits[0, 0, 2] = 5
    sharp = np.array([[1.0, 50.0, 1.0]], np.float32)

    probability, plane = Attention(4.0, 0.0, 1.0).fuse(logits, sharp)

    assert plane[0] == 1
    assert probability[0].argmax() != 2 or probability[0, 2] < 0.3


def test_the_most_suspicious_plane_decides_where_abnormality_counts() -> None:
    """A lesion seen on one plane of three is not outvoted by the two that do not show it."""
    logits = np.zeros((1, 3, 4), np.float32)
    logits[0, :, 0] = 3
    logits[0, 2] = (0, 0, 6, 0)
    sharp = np.ones((1, 3), np.float32)

    mean, _ = Attention(0.0, 0.0, 1.0).fuse(logits, sharp)
    attentive, plane = Attention(0.0, 2.0, 1.0).fuse(logits, sharp)

    assert mean[0].argmax() == 0
    assert attentive[0].argmax() == 2
    assert plane[0] == 2


def test_fused_probabilities_sum_to_one() -> None:
    rng = np.random.default_rng(0)
    probability, plane = Attention(1.0, 1.0, 1.3).fuse(
        rng.normal(0, 4, (50, 7, 4)).astype(np.float32), rng.random((50, 7)).astype(np.float32)
    )

    assert np.abs(probability.sum(axis=1) - 1).max() < 1e-5
    assert plane.max() < 7


def test_one_suspicious_cell_among_thousands_moves_the_slide() -> None:
    normal = np.full(5000, -6.0, np.float32)
    with_one = normal.copy()
    with_one[77] = 8.0

    assert rule(top=1).probability(normal) < 0.01
    assert rule(top=1).probability(with_one) > 0.99
    assert rule().probability(np.zeros(0, np.float32)) == 0


def test_cells_below_the_calling_probability_are_called_normal() -> None:
    probability = np.array([[0.6, 0.3, 0.1, 0.0], [0.4, 0.1, 0.2, 0.3], [0.5, 0.3, 0.1, 0.1]], np.float32)

    assert rule().labels(probability).tolist() == [0, 3, 1]


def test_a_high_grade_is_more_suspicious_than_a_low_one() -> None:
    low, high = suspicion(np.array([[0.3, 0.7, 0, 0], [0.3, 0, 0.7, 0]], np.float32))

    assert high > low


@pytest.mark.parametrize(
    ("certainty", "cells", "said"),
    [
        (Certainty.NEGATIVE, 6000, "no further review"),
        (Certainty.NEGATIVE, 4000, "review"),
        (Certainty.INDETERMINATE, 6000, "review"),
        (Certainty.POSITIVE, 100, "priority review"),
    ],
)
def test_triage(certainty: Certainty, cells: int, said: str) -> None:
    """Too few cells are never passed without a look."""
    assert triage(certainty, rule().adequacy(cells)) == said


def test_adequacy_says_how_many_and_by_which_code() -> None:
    enough, few = rule().adequacy(5000), rule().adequacy(4999)

    assert (enough.code.value, few.code.value) == ("125152006", "125154007")
    assert "4999 cells" in few.statement


@pytest.mark.parametrize("config", [{}, {"focus": 1, "abnormality": 1, "temperature": 0}])
def test_a_bundle_without_its_numbers_is_refused(config: dict[str, float]) -> None:
    with pytest.raises(ModelError):
        read_attention(config)


def test_a_differential_counts_white_cells_only_and_says_its_intervals() -> None:
    counts = [1, 2, 9, 30, 5, 40, 0, 0, 0, 2, 60]

    shares = differential(WHITE_CLASSES, counts, WHITE)

    assert {share.total for share in shares} == {100}
    assert [share.cell_class.label for share in shares if share.count == 60] == ["segmented"]
    segmented = shares[-1]
    assert (segmented.low, segmented.high) == pytest.approx((0.497, 0.697), abs=1e-3)
    assert all(share.cell_class.count_code for share in shares)


def test_precursors_are_more_than_a_few_or_not() -> None:
    none = np.zeros((200, len(WHITE_CLASSES)), np.float32)
    none[:, 10] = 1
    many = none.copy()
    many[:20] = 0
    many[:20, 7] = 1

    assert chance_of_precursors(none, PRECURSOR, WHITE) < 0.05
    assert chance_of_precursors(many, PRECURSOR, WHITE) > 0.95


def test_cytology_reads_every_plane_and_points_at_cells(models: Path, stack: Scene) -> None:
    """From an open slide with three planes to a verdict, a gallery, a map and an adequacy statement."""
    use(Runtime(models))

    findings = CervicalCytology().run(case_of({"slide": SceneReader(stack)}))

    (reading,) = findings.readings
    assert reading.planes_read == 3
    assert len(reading.cells) >= 10
    assert set(reading.cells.plane.tolist()) <= {0, 1, 2}
    assert 0 < len(reading.gallery) <= 30
    ranked = suspicion(reading.cells.probability)
    assert reading.gallery[0].cell == int(ranked.argmax())
    assert reading.gallery[0].image.shape == (160, 160, 3)
    assert reading.gallery[0].heat is not None
    assert reading.gallery[0].heat.shape == (160, 160)
    assert reading.maps[0].values.shape[0] == len(CLASSES) - 1
    assert findings.verdict is not None
    assert reading.adequacy is not None
    assert any("Unsatisfactory" in warning for warning in findings.verdict.warnings)


def test_the_worst_grade_rule_names_the_slide_after_one_cell(models: Path, stack: Scene) -> None:
    use(Runtime(models))
    pipeline = CervicalCytology()
    pipeline.rule = rule(intercept=-20.0, call_from=0.0, worst_grade=True)

    verdict = pipeline.run(case_of({"slide": SceneReader(stack)})).verdict

    assert verdict is not None
    assert verdict.certainty is Certainty.POSITIVE
    assert verdict.diagnosis in {one.code for one in CLASSES[1:]}


def test_the_same_slide_gives_the_same_findings(models: Path, stack: Scene) -> None:
    use(Runtime(models))

    first, again = (CervicalCytology().run(case_of({"slide": SceneReader(stack)})) for _ in range(2))

    assert np.array_equal(first.readings[0].cells.probability, again.readings[0].cells.probability)
    assert first.verdict == again.verdict


class Counting:
    """A network that says of a picture what its first pixel is, and counts what it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def run(self, images: Picture) -> npt.NDArray[np.float32]:
        self.asked += len(images)
        return np.repeat(images[:, 0, 0, :1].astype(np.float32), len(CLASSES), axis=1)


def squares(first: int) -> Iterator[tuple[npt.NDArray[np.int64], Picture]]:
    """200 cells on two planes, the last ones first; picture n is of the grey value n."""
    order = np.arange(200)[::-1]
    for start in range(first * CROPS_AT_A_TIME, 200, CROPS_AT_A_TIME):
        which = order[start : start + CROPS_AT_A_TIME]
        grey = which.astype(np.uint8)[:, None, None, None, None]
        yield which, np.broadcast_to(grey, (len(which), 2, 8, 8, 3)).copy()


def test_cells_looked_at_before_a_crash_are_not_looked_at_again(tmp_path: Path) -> None:
    """Two of four batches were done; the next attempt does the other two, and the answer is the same."""

    def crash(part: float, step: str) -> None:
        if part >= 0.5:
            raise KeyboardInterrupt

    resume = Resume(tmp_path / "job", "the key")
    with pytest.raises(KeyboardInterrupt):
        look(squares, Counting(), 200, 2, len(CLASSES), crash, resume)
    network = Counting()

    looked = look(squares, network, 200, 2, len(CLASSES), silent, resume)

    assert 2 * (200 - 2 * CROPS_AT_A_TIME) == network.asked
    assert np.array_equal(np.arange(200), looked.logits[:, 1, 0])
    assert (200, 2) == looked.sharp.shape


def photographs(count: int, rows: int = 300, columns: int = 400) -> Case:
    """Fields with three stained discs each, which do not say their scale."""
    taken = tuple(
        Photograph(
            UID("2.25.1"), UID("2.25.2"), UID("1.2.840.10008.5.1.4.1.1.77.1.2"), UID(f"2.25.{3 + at}"), 1,
            Path("nowhere"), Digest("0" * 64), rows, columns, 1, at + 1,
        )
        for at in range(count)
    )  # fmt: skip
    picture = np.full((rows, columns, 3), (236, 234, 238), np.uint8)
    down, across = np.mgrid[0:rows, 0:columns]
    for x, y in ((90, 80), (300, 90), (200, 220)):
        picture[np.hypot(across - x, down - y) <= 50] = (90, 70, 150)
    case = case_of({})
    return Case(
        study=case.study, volumes={}, choices=(), photographs={"fields": taken},
        read_photograph=lambda one: picture,
    )  # fmt: skip


def test_a_smear_is_counted_over_all_photographs(models: Path) -> None:
    use(Runtime(models))

    findings = BloodSmear().run(photographs(2))

    assert [len(reading.cells) for reading in findings.readings] == [3, 3]
    assert findings.verdict is not None
    assert any("scale of 2 photographs" in warning for warning in findings.verdict.warnings)
    attention = findings.readings[0].cells.attention_in_cell
    assert attention is not None
    assert ((attention >= 0) & (attention <= 1)).all()


def test_a_specimen_takes_the_worst_of_its_fields(models: Path) -> None:
    use(Runtime(models))

    findings = CervicalFields().run(photographs(3))

    worst = max(float(reading.cells.probability[0, 2]) for reading in findings.readings)
    assert len(findings.readings) == 3
    assert findings.verdict is not None
    assert findings.verdict.probability == pytest.approx(worst, abs=1e-4)
    assert findings.readings[0].maps[0].values.shape == (1, 24, 32)


@pytest.mark.parametrize("pipeline", [BloodSmear, CervicalFields])
def test_without_a_cell_or_a_photograph_the_reason_is_said(models: Path, pipeline: type) -> None:
    use(Runtime(models))

    findings: Findings = pipeline().run(photographs(0))

    assert findings.not_performed is not None
