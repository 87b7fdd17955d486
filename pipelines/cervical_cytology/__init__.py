"""Cervical cytology on a slide with one or many focal planes: NILM, LSIL, HSIL or SCC.

Nuclei are found on the plane that is sharpest there; each cell is classified on every plane, and the
planes are weighed by how sharp and how suspicious they are (`planes.py`). The slide is judged by its
most suspicious cells (`slide.py`), and the thirty to look at first are shown. Nobody picks fields or
planes.
"""

from __future__ import annotations

import time
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from dicom_node.pipeline import (
    CERVICAL,
    SHARPEST,
    Bundle,
    Case,
    CellClass,
    Cells,
    Certainty,
    Engine,
    Findings,
    GalleryCell,
    IntendedUse,
    Level,
    NotPerformed,
    Nuclei,
    OpenSlide,
    Reading,
    Resume,
    Score,
    SlideNeed,
    TileMap,
    Verdict,
    code,
    find_on_slide,
    slide_crops,
    spread,
)

from .planes import Attention, read_attention
from .slide import SlideRule, read_rule, suspicion, triage
from .work import Looked, look

CELLS = "cervical_cells"

CERVIX = code("cervix")
NILM = code("nilm")
ABNORMALITY = code("epithelial-cell-abnormality")
INDETERMINATE = code("indeterminate")
PROBABILITY = code("probability")
PERCENT = code("percent")

CLASSES = (
    CellClass(NILM, "NILM", 0, (90, 170, 90)),
    CellClass(code("lsil"), "LSIL", 1, (255, 200, 0)),
    CellClass(code("hsil"), "HSIL", 2, (255, 110, 0)),
    CellClass(code("squamous-cell-carcinoma"), "SCC", 3, (220, 0, 60)),
)
"""In the order of the network's outputs."""
GALLERY = 30
"""Cells to look at first; a technologist reads 30 of the Hologic Genius system."""
SHOWN_UM = 48.0
"""Side of a picture of the gallery."""
SHOWN_PX = 160
MAP_UM = 128.0
"""Side of a square of the map of the slide."""


class CervicalCytology:
    """The pipeline; see the module."""

    name: ClassVar[str] = "cervical_cytology"
    version: ClassVar[str] = "1.0.0"
    title: ClassVar[str] = "Cervical cytology, suspicious cells"
    level: ClassVar[Level] = Level.SLIDE
    needs: ClassVar[tuple[SlideNeed, ...]] = (SlideNeed("slide", um_per_px=0.5, required=True),)
    intended_use: ClassVar[IntendedUse] = IntendedUse(
        modalities=frozenset({"SM"}),
        sex=frozenset({"F", "O"}),
        age_years=(18.0, 100.0),
        statement=(
            "Research into finding abnormal squamous cells on Papanicolaou-stained cervical cytology slides. "
            "Trained on few cells of one collection and on generated ones. Not for clinical use."
        ),
    )
    models: ClassVar[tuple[str, ...]] = (CELLS,)

    def __init__(self) -> None:
        self.bundle = Bundle(CELLS)
        self.engine = Engine(self.bundle)
        self.attention: Attention = read_attention(self.bundle.config("planes"))
        self.rule: SlideRule = read_rule(self.bundle.config("slide"))

    def run(self, case: Case) -> Findings:
        watch, reader = _Watch(), case.slides["slide"]
        case.progress(0.0, "find cells")
        plane = SHARPEST if len(reader.slide.base.planes_um) > 1 else None
        nuclei = find_on_slide(reader, CERVICAL, plane, lambda part: case.progress(0.25 * part, "find"))
        watch.lap("find")
        if not len(nuclei):
            return Findings(algorithms=(self.engine.algorithm(),), not_performed=_NOTHING)
        looked = self.look(reader, nuclei, case)
        watch.lap("forward")
        reading, probability = self.read(reader, nuclei, looked)
        verdict = self.verdict(reading, probability, case.warnings)
        watch.lap("postprocess")
        case.progress(1.0, "judge")
        return Findings(
            algorithms=(self.engine.algorithm(),), verdict=verdict, readings=(reading,), seconds=watch.seconds
        )

    def look(self, reader: OpenSlide, nuclei: Nuclei, case: Case) -> Looked:
        """Every cell on every plane."""
        planes = tuple(range(len(reader.slide.base.planes_um)))
        image = self.engine.image
        side = round(image.size_px * image.um_per_px / reader.slide.base.um_per_px[0])
        key = f"{self.version} {self.bundle.digest} {self.engine.choice.sentence}"
        return look(
            lambda first: slide_crops(reader, 0, nuclei.centre_px, planes, side, image.size_px, first),
            self.engine, len(nuclei), len(planes), len(CLASSES),
            lambda part, step: case.progress(0.25 + 0.65 * part, step), Resume(case.resume, key),
        )  # fmt: skip

    def read(self, reader: OpenSlide, nuclei: Nuclei, looked: Looked) -> tuple[Reading, float]:
        """What was found, and the slide's probability of being abnormal."""
        probability, plane = self.attention.fuse(looked.logits, looked.sharp)
        cells = Cells(
            CLASSES, nuclei.centre_px, nuclei.size_px * np.float32(1.6), self.rule.labels(probability),
            probability, plane,
        )  # fmt: skip
        ranked = suspicion(probability)
        adequacy = self.rule.adequacy(len(cells))
        slide_probability = self.rule.probability(ranked)
        certainty = self.rule.operating_point.certainty(slide_probability)
        reading = Reading(
            picture=reader.slide,
            cells=cells,
            maps=(_map(reader, cells),),
            gallery=self.gallery(reader, cells, ranked),
            adequacy=adequacy,
            triage=triage(certainty, adequacy),
            thumbnail=reader.thumbnail(2048),
            planes_read=looked.logits.shape[1],
        )
        return reading, slide_probability

    def gallery(
        self, reader: OpenSlide, cells: Cells, ranked: npt.NDArray[np.float32]
    ) -> tuple[GalleryCell, ...]:
        """The most suspicious cells, each on the plane that decided, with its Grad-CAM."""
        first = np.argsort(-ranked, kind="stable")[:GALLERY]
        um, image = reader.slide.base.um_per_px[0], self.engine.image
        shown = []
        for at in first:
            near, seen = (
                next(
                    slide_crops(reader, 0, cells.centre_px[at : at + 1], (int(cells.plane[at]),), side, out)
                )[1][0, 0]
                for side, out in (
                    (round(SHOWN_UM / um), SHOWN_PX),
                    (round(image.size_px * image.um_per_px / um), image.size_px),
                )
            )
            heat = self._heat(seen, int(cells.probability[at, 1:].argmax()) + 1)
            shown.append(GalleryCell(int(at), near, _in_the_middle(heat, image.size_px * image.um_per_px)))
        return tuple(shown)

    def _heat(self, seen: npt.NDArray[np.uint8], of_class: int) -> npt.NDArray[np.float32]:
        gradcam = self.bundle.gradcam
        _, maps = self.engine.explain(seen[None])
        size, first, step = self.engine.image.size_px, float(gradcam["first_px"]), float(gradcam["step_px"])
        return np.asarray(spread(maps[:, of_class], size, first, step)[0])

    def verdict(self, reading: Reading, probability: float, warnings: tuple[str, ...]) -> Verdict:
        point = self.rule.operating_point
        certainty = point.certainty(probability)
        worst = CLASSES[int(reading.cells.label.max(initial=0))]
        if self.rule.worst_grade and worst.grade and certainty is not Certainty.POSITIVE:
            certainty, probability = Certainty.POSITIVE, max(probability, point.high)
        diagnosis = {
            Certainty.POSITIVE: worst.code if worst.grade else ABNORMALITY, Certainty.NEGATIVE: NILM,
        }.get(certainty, INDETERMINATE)  # fmt: skip
        said = list(warnings)
        if reading.adequacy and reading.adequacy.code == code("specimen-unsatisfactory"):
            said.append(f"Unsatisfactory for evaluation: {reading.adequacy.statement}")
        return Verdict(
            finding=ABNORMALITY,
            site=CERVIX,
            diagnosis=diagnosis,
            certainty=certainty,
            probability=probability,
            positive_class=ABNORMALITY,
            negative_class=NILM,
            operating_point=point,
            probability_concept=PROBABILITY,
            scores=(Score(PROBABILITY, round(100 * probability, 2), PERCENT, "Of an abnormal slide"),),
            statement=_statement(reading, probability, certainty),
            warnings=tuple(said),
        )


_NOTHING = NotPerformed("no cell nucleus was found on the slide", "no-cells")


def _statement(reading: Reading, probability: float, certainty: Certainty) -> str:
    counts = ", ".join(
        f"{n} {one.label}" for one, n in zip(CLASSES, reading.cells.counts(), strict=True) if one.grade and n
    )
    heads = {
        Certainty.POSITIVE: "Epithelial cell abnormality suspected",
        Certainty.NEGATIVE: "No epithelial cell abnormality suspected",
    }
    review = f"; {reading.triage}" if reading.triage else ""
    return (
        f"{heads.get(certainty, 'Indeterminate')}: probability {100 * probability:.1f} %, "
        f"{len(reading.cells)} cells on {reading.planes_read} focal "
        f"plane{'s' * (reading.planes_read > 1)}, called abnormal: {counts or 'none'}{review}."
    )


def _map(reader: OpenSlide, cells: Cells) -> TileMap:
    """The largest probability of each abnormal class, by square of the slide."""
    base = reader.slide.base
    step = MAP_UM / base.um_per_px[0]
    rows, columns = int(np.ceil(base.rows / step)), int(np.ceil(base.columns / step))
    values = np.zeros((len(CLASSES) - 1, rows, columns), np.float32)
    at = np.minimum((cells.centre_px / step).astype(int), (columns - 1, rows - 1))
    for channel in range(len(CLASSES) - 1):
        np.maximum.at(values[channel], (at[:, 1], at[:, 0]), cells.probability[:, channel + 1])
    abnormal = CLASSES[1:]
    return TileMap(
        values, tuple(one.label for one in abnormal), tuple(one.code for one in abnormal), PROBABILITY, step,
        colours=tuple(one.colour for one in abnormal),
    )  # fmt: skip


def _in_the_middle(heat: npt.NDArray[np.float32], field_um: float) -> npt.NDArray[np.float32]:
    """A map of the network's field on the gallery's larger one, 0 around it."""
    side = min(SHOWN_PX, round(SHOWN_PX * field_um / SHOWN_UM))
    small = spread(heat[None], side, 0.0, side / heat.shape[0])[0]
    placed = np.zeros((SHOWN_PX, SHOWN_PX), np.float32)
    start = (SHOWN_PX - side) // 2
    placed[start : start + side, start : start + side] = small
    return placed


class _Watch:
    """Seconds per step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = time.perf_counter()

    def lap(self, step: str) -> None:
        now = time.perf_counter()
        self.seconds[step] = self.seconds.get(step, 0.0) + now - self._since
        self._since = now
