"""Slides and photographs are chosen like stacks: by declared needs, with reasons, refused in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dicom_node.domain.identity import UID, Digest
from dicom_node.domain.pipeline import AnyNeed, IntendedUse, PhotographNeed, Plan, SlideNeed
from dicom_node.domain.series import Patient, Refusal, Study
from dicom_node.domain.slide import Photograph, Slide, SlideLevel, SlidePart
from dicom_node.route.choose import choose
from dicom_node.route.guard import guard
from dicom_node.route.plan import describe, input_key

STUDY = UID("2.25.1")
DIGEST = Digest("0" * 64)
SLIDE = SlideNeed("slide", um_per_px=0.5, group="smear")
PHOTOGRAPHS = PhotographNeed("fields", group="smear")
USE = IntendedUse(modalities=frozenset({"SM", "GM"}))


def slide(number: int = 1, *, um_per_px: float = 0.25, rows: int = 4000, planes: int = 1) -> Slide:
    part = SlidePart(
        UID("1.2.840.10008.5.1.4.1.1.77.1.6"), UID(f"2.25.{number}1"), UID(f"2.25.{number}"),
        UID("1.2.840.10008.1.2.4.50"), Path("absent"), DIGEST, 1000, 64 * planes,
        tiled_full=True, planes=planes,
    )  # fmt: skip
    level = SlideLevel(
        rows, 4000, 512, 512, (um_per_px, um_per_px), (0.0, 0.0, 0.0), tuple(float(k) for k in range(planes)),
        ("1",), "YBR_FULL_422", 3, 8, (part,),
    )  # fmt: skip
    return Slide(
        STUDY, UID(f"2.25.{number}"), UID("2.25.9"), number, "container", (0.0, -1.0, 0.0),
        (-1.0, 0.0, 0.0), (level,),
    )  # fmt: skip


def photograph(series: int, instance: int, rows: int = 480) -> Photograph:
    uids = UID("1.2.840.10008.5.1.4.1.1.77.1.2"), UID(f"2.25.{series}{instance}")
    return Photograph(
        STUDY, UID(f"2.25.{series}"), *uids, 1, Path("absent"), DIGEST, rows, 640, series, instance
    )


def study(slides: Sequence[Slide] = (), photographs: Sequence[Photograph] = (), *refused: str) -> Study:
    refusals = tuple(Refusal(UID("2.25.3"), 3, why) for why in refused)
    return Study(
        STUDY, 1, Patient("F", 40.0), frozenset({"SM"}), frozenset(), (), refusals, slides=tuple(slides),
        photographs=tuple(photographs),
    )  # fmt: skip


def refused(found: Study, *needs: AnyNeed) -> tuple[str, str] | None:
    said, _ = guard(USE, found, choose(needs, found))
    return (said.code, said.because) if said else None


def test_the_largest_slide_that_is_fine_enough_is_chosen() -> None:
    """A coarser one does not fit, a smaller one is passed over, and the reasons say so."""
    small, large, coarse = slide(1, rows=2000), slide(2), slide(3, um_per_px=1.0, rows=9000)

    (choice,) = choose([SLIDE], study([coarse, small, large]))

    assert large is choice.found
    assert (
        "chosen 2: 4000 x 4000 px, 0.25 um/px, 1 level, 1 plane",
        "passed over 1: 2000 x 4000 px, 0.25 um/px, 1 level, 1 plane: smaller, or equal and later",
        "does not fit 3: 9000 x 4000 px, 1 um/px, 1 level, 1 plane: 1 um/px, coarser than 0.5",
    ) == choice.reasons


def test_a_tenth_coarser_is_let_pass() -> None:
    """Scanners that promise 0.5 um deliver 0.5037."""
    (near,), (far,) = (choose([SLIDE], study([slide(um_per_px=size)])) for size in (0.549, 0.551))

    assert near.found is not None and far.found is None


def test_a_stack_can_be_asked_for() -> None:
    (choice,) = choose([SlideNeed("stack", 0.5, min_planes=3)], study([slide(planes=2)]))

    assert choice.found is None
    assert choice.reasons[-1].endswith("2 focal planes, fewer than 3")


def test_all_photographs_are_taken_in_their_order() -> None:
    """One that is too small to show a cell is left out, aloud."""
    second, first, tiny = photograph(4, 2), photograph(4, 1), photograph(5, 1, rows=32)

    (choice,) = choose([PHOTOGRAPHS], study(photographs=[second, tiny, first]))

    assert (first, second) == choice.found
    assert "does not fit 5: photograph 1, 32 x 640 px: 32 x 640 px, smaller than 64" in choice.reasons


def test_either_of_a_group_is_enough() -> None:
    """A smear comes as a slide or as photographs."""
    assert refused(study([slide()]), SLIDE, PHOTOGRAPHS) is None
    assert refused(study(photographs=[photograph(1, 1)]), SLIDE, PHOTOGRAPHS) is None
    assert ("missing-series", "no slide at 0.5 um/px or microscope photograph is there") == refused(
        study(), SLIDE, PHOTOGRAPHS
    )


def test_a_slide_that_lacks_a_part_is_the_reason_given() -> None:
    """What is missing is named, not that nothing came."""
    lacking = "series 3, slide: part 2 of 3 of level 0 is not here"

    assert ("geometry", f"no usable slide at 0.5 um/px is there: {lacking}") == refused(
        study((), (), lacking), replace(SLIDE, group="", required=True)
    )


def test_the_key_depends_on_every_part_and_the_plan_names_the_slide() -> None:
    """Another file behind the same slide is another input."""
    one = study([slide()])
    (part,) = one.slides[0].levels[0].parts
    level = replace(one.slides[0].levels[0], parts=(replace(part, digest=Digest("1" * 64)),))
    other = study([replace(one.slides[0], levels=(level,))])

    keys, described = set(), {}
    for found in (one, other):
        plan = Plan("cells", "1", choose([SLIDE], found))
        keys.add(input_key(plan, found, "enforce", {}))
        described = describe(plan, found)

    assert 2 == len(keys)
    assert "1: 4000 x 4000 px, 0.25 um/px, 1 level, 1 plane" == described["choices"][0]["stack"]
    assert 1 == described["choices"][0]["series"]
