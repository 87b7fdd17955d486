"""White cells on a blood smear, a slide or photographs of fields: found, named by type and stage, counted.

Every call comes with its Grad-CAM and an index of how much of it lies in the cell: where the network
looked elsewhere, the call is doubtful (Tottori University, Mach Learn Appl 2025;100780). The differential
has binomial intervals. A photograph that does not say its scale gets it from its red cells.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from dicom_node.pipeline import (
    WHITE_CELLS,
    AnyNeed,
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
    OpenSlide,
    OperatingPoint,
    Photograph,
    PhotographNeed,
    Reading,
    Score,
    Share,
    Slide,
    SlideNeed,
    Verdict,
    attention_in_cell,
    cell_mask,
    code,
    cut,
    find_nuclei,
    find_on_slide,
    red_cell_scale,
    shrunk,
    slide_crops,
    softmax,
    spread,
    white_of,
)

from .differential import chance_of_precursors, differential

CELLS = "blood_cells"

BLOOD = code("blood")
PRECURSORS = code("precursors-present")
NO_PRECURSORS = code("no-precursors")
INDETERMINATE = code("indeterminate")
PERCENT = code("percent")
ERYTHROBLASTS = code("erythroblasts-per-leukocytes")

CLASSES = (
    CellClass(code("basophil"), "basophil", 0, (70, 60, 140), code("share-basophils")),
    CellClass(code("eosinophil"), "eosinophil", 0, (255, 140, 60), code("share-eosinophils")),
    CellClass(code("erythroblast"), "erythroblast", 1, (170, 0, 0)),
    CellClass(code("lymphocyte"), "lymphocyte", 0, (60, 120, 220), code("share-lymphocytes")),
    CellClass(code("monocyte"), "monocyte", 0, (120, 120, 120), code("share-monocytes")),
    CellClass(code("platelet"), "platelet", 0, (200, 160, 255)),
    CellClass(code("promyelocyte"), "promyelocyte", 2, (230, 0, 120), code("share-promyelocytes")),
    CellClass(code("myelocyte"), "myelocyte", 1, (230, 60, 160), code("share-myelocytes")),
    CellClass(code("metamyelocyte"), "metamyelocyte", 1, (230, 120, 200), code("share-metamyelocytes")),
    CellClass(code("band-neutrophil"), "band", 0, (90, 200, 160), code("share-band")),
    CellClass(code("segmented-neutrophil"), "segmented", 0, (0, 160, 90), code("share-segmented")),
)
"""In the order of the network's outputs."""
WHITE = tuple(one.label not in ("erythroblast", "platelet") for one in CLASSES)
PRECURSOR = tuple(one.grade > 0 for one in CLASSES)
POINT = OperatingPoint(
    threshold=0.5, low=0.1, high=0.9,
    chosen_on="By hand: the chance that precursors are more than 2 % of white cells, as counted here.",
)  # fmt: skip
GALLERY, SHOWN_PX = 30, 160


@dataclass(frozen=True, slots=True)
class _Field:
    """Cells of one photograph or slide, as the network sees them."""

    picture: Photograph | Slide
    thumbnail: npt.NDArray[np.uint8]
    centre_px: npt.NDArray[np.float32]
    size_px: npt.NDArray[np.float32]
    crops: npt.NDArray[np.uint8]


class BloodSmear:
    """The pipeline; see the module."""

    name: ClassVar[str] = "blood_smear"
    version: ClassVar[str] = "1.0.0"
    title: ClassVar[str] = "White cell differential of a blood smear"
    level: ClassVar[Level] = Level.SLIDE
    needs: ClassVar[tuple[AnyNeed, ...]] = (
        SlideNeed("slide", um_per_px=0.3, group="smear"),
        PhotographNeed("fields", group="smear"),
    )
    intended_use: ClassVar[IntendedUse] = IntendedUse(
        modalities=frozenset({"SM", "GM", "XC", "OT"}),
        statement=(
            "Research into counting white cells on Giemsa-stained blood smears. Trained on normal blood of "
            "one analyser. Not for clinical use."
        ),
    )
    models: ClassVar[tuple[str, ...]] = (CELLS,)

    def __init__(self) -> None:
        self.bundle = Bundle(CELLS)
        self.engine = Engine(self.bundle)
        smear = self.bundle.config("smear")
        self.temperature = float(smear["temperature"])
        self.attention_from = float(smear["attention_from"])
        self.unstated_um_per_px = float(smear["um_per_px_unstated"])

    def run(self, case: Case) -> Findings:
        started = time.perf_counter()
        warnings = list(case.warnings)
        fields = [*self._slides(case), *self._photographs(case, warnings)]
        if not any(len(field.crops) for field in fields):
            return Findings(algorithms=(self.engine.algorithm(),), not_performed=_NOTHING)
        readings = []
        for number, field in enumerate(fields):
            case.progress(0.4 + 0.55 * number / len(fields), "classify")
            readings.append(self._read(field))
        verdict = self._verdict(readings, warnings)
        seconds = {"forward": time.perf_counter() - started}
        return Findings(
            (self.engine.algorithm(),), verdict=verdict, readings=tuple(readings), seconds=seconds
        )

    def _photographs(self, case: Case, warnings: list[str]) -> Iterator[_Field]:
        """Each photograph's cells; the scale is one for all that do not say theirs."""
        taken = case.photographs.get("fields", ())
        pictures = [case.read_photograph(one) for one in taken]
        unsure = [one.um_per_px is None for one in taken]
        guesses = [red_cell_scale(p) for p, no in zip(pictures, unsure, strict=True) if no]
        known = [guess for guess in guesses if guess is not None]
        common = float(np.median(known)) if known else self.unstated_um_per_px
        if any(unsure):
            how = "taken from the size of red cells" if known else "not stated and no red cell to measure"
            warnings.append(f"The scale of {sum(unsure)} photographs was {how}: {common:.3g} um per pixel")
        for one, picture in zip(taken, pictures, strict=True):
            um = common if one.um_per_px is None else one.um_per_px[0]
            nuclei, white = find_nuclei(picture, um, WHITE_CELLS), white_of(picture)
            image = self.engine.image
            crops = cut(picture, nuclei.centre_px, image.size_px * image.um_per_px / um, image.size_px, white)
            small = shrunk(picture, max(1, round(max(picture.shape[:2]) / 1600)))
            yield _Field(one, small, nuclei.centre_px, nuclei.size_px, crops)

    def _slides(self, case: Case) -> Iterator[_Field]:
        for reader in case.slides.values():
            yield self._slide(reader, case)

    def _slide(self, reader: OpenSlide, case: Case) -> _Field:
        """All white cells of a slide, on its middle plane."""
        plane = len(reader.slide.base.planes_um) // 2
        nuclei = find_on_slide(reader, WHITE_CELLS, plane, lambda part: case.progress(0.3 * part, "find"))
        image, um = self.engine.image, reader.slide.base.um_per_px[0]
        crops = np.zeros((len(nuclei), image.size_px, image.size_px, 3), np.uint8)
        side = round(image.size_px * image.um_per_px / um)
        for which, pictures in slide_crops(reader, 0, nuclei.centre_px, (plane,), side, image.size_px):
            crops[which] = pictures[:, 0]
        return _Field(reader.slide, reader.thumbnail(2048), nuclei.centre_px, nuclei.size_px, crops)

    def _read(self, field: _Field) -> Reading:
        logits, maps = self.engine.explain(field.crops)
        probability = softmax(logits, self.temperature)
        label = probability.argmax(axis=1).astype(np.uint8)
        image, gradcam = self.engine.image, self.bundle.gradcam
        heat = spread(
            maps[np.arange(len(label)), label],
            image.size_px,
            float(gradcam["first_px"]),
            float(gradcam["step_px"]),
        )
        inside = np.array(
            [
                attention_in_cell(one, cell_mask(crop, image.um_per_px))
                for one, crop in zip(heat, field.crops, strict=True)
            ],
            np.float32,
        )
        cells = Cells(
            CLASSES, field.centre_px, field.size_px, label, probability, np.zeros(len(label), np.uint16),
            np.nan_to_num(inside),
        )  # fmt: skip
        first = np.argsort(-_worth_a_look(probability), kind="stable")[:GALLERY]
        return Reading(
            picture=field.picture,
            cells=cells,
            gallery=tuple(GalleryCell(int(at), field.crops[at], heat[at]) for at in first),
            differential=differential(CLASSES, cells.counts(), WHITE),
            thumbnail=field.thumbnail,
        )

    def _verdict(self, readings: list[Reading], warnings: list[str]) -> Verdict:
        """Over all fields of the specimen."""
        probability = np.concatenate([reading.cells.probability for reading in readings])
        counts = np.sum([reading.cells.counts() for reading in readings], axis=0)
        chance = chance_of_precursors(probability, PRECURSOR, WHITE)
        certainty = POINT.certainty(chance)
        shares = differential(CLASSES, [int(n) for n in counts], WHITE)
        attention = np.concatenate(
            [
                reading.cells.attention_in_cell
                for reading in readings
                if reading.cells.attention_in_cell is not None
            ]
        )
        low = int((attention < self.attention_from).sum())
        if low:
            warnings.append(
                f"In {low} of {len(attention)} cells the network looked mostly outside the cell; "
                "check these calls"
            )
        white = shares[0].total if shares else 0
        if white < 100:
            warnings.append(f"Only {white} white cells were counted; 100 to 400 are usual")
        return Verdict(
            finding=PRECURSORS,
            site=BLOOD,
            diagnosis={Certainty.POSITIVE: PRECURSORS, Certainty.NEGATIVE: NO_PRECURSORS}.get(
                certainty, INDETERMINATE
            ),
            certainty=certainty,
            probability=chance,
            positive_class=PRECURSORS,
            negative_class=NO_PRECURSORS,
            operating_point=POINT,
            scores=_scores(shares, int(counts[2]), white),
            statement=_statement(shares, int(counts[2]), white),
            warnings=tuple(warnings),
        )


_NOTHING = NotPerformed("no white cell was found on the smear", "no-cells")


def _worth_a_look(probability: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(n,): precursors first, then what the network was least sure of."""
    precursor = probability[:, np.array(PRECURSOR)].sum(axis=1)
    return np.asarray(precursor + 0.5 * (1 - probability.max(axis=1)), np.float32)


def _scores(shares: tuple[Share, ...], erythroblasts: int, white: int) -> tuple[Score, ...]:
    found = [
        Score(
            share.cell_class.count_code, round(100 * share.count / share.total, 1), PERCENT,
            f"{share.count} of {share.total}, 95 % interval {100 * share.low:.1f} to "
            f"{100 * share.high:.1f} %",
        )
        for share in shares if share.cell_class.count_code is not None and share.total
    ]  # fmt: skip
    if white:
        said = f"{erythroblasts} erythroblasts beside {white} white cells"
        found.append(Score(ERYTHROBLASTS, round(100 * erythroblasts / white, 1), PERCENT, said))
    return tuple(found)


def _statement(shares: tuple[Share, ...], erythroblasts: int, white: int) -> str:
    parts = [
        f"{share.cell_class.label} {100 * share.count / share.total:.0f} %" for share in shares if share.count
    ]
    beside = f"; {erythroblasts} erythroblasts" if erythroblasts else ""
    return f"{white} white cells: {', '.join(parts) or 'none'}{beside}."
