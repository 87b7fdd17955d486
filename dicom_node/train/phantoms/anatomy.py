"""The pelvis of one case in patient LPS mm: x to the left, y to the back, z to the head.

The origin is the middle of the pelvis, about where the uterine cervix meets the body.
An `Anatomy` is a list of shapes with tissues in painting order and a few fields; `paint.py`
evaluates it on the points of a slice stack, so one patient looks the same in every series.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from dicom_node.train.phantoms import tissues as t
from dicom_node.train.phantoms.cases import CaseSpec
from dicom_node.train.phantoms.fields import Field, smooth_field
from dicom_node.train.phantoms.shapes import Ellipsoid, Shape, Trunk, Tube, ellipsoid, tube, turned
from dicom_node.train.phantoms.tissues import Tissue
from dicom_node.train.phantoms.tumours import LEIOMYOMAS, SARCOMAS, Tumour, draw_kind, make_tumour

Frame = Literal["fixed", "soft"]
Vec = npt.NDArray[np.float64]
MENOPAUSE = 51


@dataclass(frozen=True)
class Part:
    """One painted shape. Soft parts give way to tumours, fixed ones (bones, muscles) do not."""

    name: str
    shape: Shape
    tissue: Tissue
    frame: Frame = "soft"
    confined: bool = False
    """Only inside the pelvic cavity."""
    blend_mm: float = 0.0


@dataclass(frozen=True)
class Uterus:
    """Where the uterus lies: origin at the inner os, `axes` rows are (long, transverse, thin)."""

    os_mm: Vec
    axes: Vec
    half_mm: Vec
    """Half axes of the body: along, across, front to back."""

    @property
    def centre_mm(self) -> Vec:
        out: Vec = self.os_mm + self.axes[0] * self.half_mm[0] * 0.92
        return out

    def at(self, along: float, across: float, front: float) -> Vec:
        """A point of the uterine body; 1 is the surface along each axis."""
        return self.centre_mm + np.array([along, across, front]) * self.half_mm @ self.axes


@dataclass(frozen=True)
class Anatomy:
    parts: tuple[Part, ...]
    uterus: Uterus
    tumours: tuple[Tumour, ...]
    cavity: Ellipsoid
    warp: tuple[Field, Field, Field]
    warp_mm: float
    fine: Field
    coarse: Field
    off_resonance: Field
    bowel_gas_mm: Vec
    """Centre of the rectal gas, where echo-planar images bend most."""


def build(spec: CaseSpec) -> Anatomy:
    """The anatomy of a case; `spec.seed`, label, age and difficulty decide everything."""
    rng = np.random.default_rng([spec.seed, 1])
    premenopausal = spec.age < MENOPAUSE
    uterus = _uterus(rng, premenopausal)
    tumours = tuple(_tumours(np.random.default_rng([spec.seed, 2]), spec, uterus))
    cavity = ellipsoid((0, -4, 45), (74, 66, 135), turned(0, 8))
    gas = np.array([rng.normal(0, 3), 50.0, rng.uniform(-40, 10)])
    parts = (
        *_shell(rng),
        *_bowel(rng),
        *_bladder(rng),
        *_rectum(rng, gas),
        *_adnexa(rng, premenopausal),
        *_uterine_parts(rng, uterus, premenopausal),
        *_skeleton(rng),
    )
    return Anatomy(
        parts=parts,
        uterus=uterus,
        tumours=tumours,
        cavity=cavity,
        warp=(smooth_field(rng, 55), smooth_field(rng, 55), smooth_field(rng, 55)),
        warp_mm=float(rng.uniform(2.5, 4.5)),
        fine=smooth_field(rng, 4.5),
        coarse=smooth_field(rng, 28),
        off_resonance=smooth_field(rng, 60),
        bowel_gas_mm=gas,
    )


def _shell(rng: np.random.Generator) -> Iterator[Part]:
    """Skin, subcutaneous fat, the muscular wall and the fat inside."""
    front, back = rng.uniform(14, 38), rng.uniform(20, 38)
    skin = Trunk(rng.uniform(168, 196), 78 + front, 82 + back)
    yield Part("skin", skin, t.SKIN, "fixed")
    yield Part("fat", skin.grown(-2), t.FAT, "fixed")
    wall = Trunk(skin.half_x_mm - rng.uniform(20, 34), 80, 84, power=2.3)
    yield Part("wall", wall, t.MUSCLE, "fixed")
    yield Part("inside", wall.grown(-7), t.PELVIC_FAT, "fixed")
    for side in (-1, 1):
        yield Part(
            "rectus", ellipsoid((side * 27, -76, 60), (25, 6.5, 140), turned(side * -8)), t.MUSCLE, "fixed"
        )


def _skeleton(rng: np.random.Generator) -> Iterator[Part]:
    """Bones and muscles of the pelvic ring; painted last, so nothing grows into them."""
    size = rng.uniform(0.95, 1.06)

    def bone(name: str, shape: Ellipsoid | Tube, marrow: Tissue = t.MARROW) -> Iterator[Part]:
        yield Part(name, shape, t.CORTICAL, "fixed")
        yield Part(name, shape.grown(-2.2), marrow, "fixed", blend_mm=1.0)

    for s in (-1, 1):
        side = s * size
        yield Part(
            "gluteus maximus",
            ellipsoid((side * 74, 78, -5), (62, 20, 80), turned(s * -28)),
            t.MUSCLE,
            "fixed",
        )
        yield Part(
            "gluteus medius", ellipsoid((side * 122, 12, 40), (20, 48, 62), turned(s * 14)), t.MUSCLE, "fixed"
        )
        yield Part("tensor", ellipsoid((side * 128, -42, -10), (15, 22, 60)), t.MUSCLE, "fixed")
        groin = [(side * 48, 10, 130), (side * 68, -30, 40), (side * 84, -52, -20), (side * 88, -40, -70)]
        yield Part("psoas", tube(groin, [22, 20, 18, 15]), t.MUSCLE, "fixed")
        yield Part(
            "obturator", ellipsoid((side * 63, 8, -42), (8, 34, 36), turned(s * 12)), t.MUSCLE, "fixed"
        )
        yield Part("piriformis", tube([(side * 32, 62, 15), (side * 88, 52, -5)], [13, 9]), t.MUSCLE, "fixed")
        yield Part("pectineus", ellipsoid((side * 62, -62, -72), (24, 14, 24)), t.MUSCLE, "fixed")
        yield Part("adductor", ellipsoid((side * 55, -25, -115), (32, 42, 34)), t.MUSCLE, "fixed")
        yield Part("iliacus", ellipsoid((side * 84, -8, 66), (46, 12, 54), turned(s * 60)), t.MUSCLE, "fixed")
        yield from bone("ilium", ellipsoid((side * 78, 44, 58), (36, 11, 52), turned(s * 48)), t.RED_MARROW)
        yield from bone("ilium", ellipsoid((side * 106, -8, 68), (50, 7.5, 54), turned(s * 66)), t.RED_MARROW)
        yield from bone("acetabulum", ellipsoid((side * 86, 2, -32), (17, 36, 36), turned(s * -8)))
        yield from bone("ischium", ellipsoid((side * 68, 38, -78), (15, 18, 34), turned(0, -10)))
        yield from bone(
            "pubis", tube([(side * 74, -22, -40), (side * 44, -54, -58), (side * 12, -60, -68)], [10, 8, 10])
        )
        yield from bone("symphysis", ellipsoid((side * 9, -58, -68), (9, 9, 20), turned(0, -35)))
        yield Part("joint", ellipsoid((side * 104, 2, -34), (25.3, 26.2, 26.2)), t.FLUID, "fixed")
        yield from bone("femur", ellipsoid((side * 104, 2, -34), (24.5, 25.5, 25.5)))
        yield from bone("neck", tube([(side * 108, 2, -38), (side * 142, 14, -62)], [15, 16]))
        yield from bone("shaft", tube([(side * 145, 14, -60), (side * 140, 8, -150)], [18, 15]))
        for dy, radius in ((-58, 5.0), (-64, 4.2)):
            x = side * (66 if dy == -58 else 76)
            yield Part(
                "femoral vessel",
                tube([(x * 0.75, -20, 40), (x, dy, -20), (x, dy - 8, -110)], radius),
                t.VESSEL,
                "fixed",
            )
        internal = [(side * 44, 20, 70), (side * 58, 18, 20), (side * 56, 26, -15)]
        yield Part("iliac vessel", tube(internal, [5, 4.5, 3]), t.VESSEL, "fixed")
        yield Part(
            "levator", ellipsoid((side * 24, 34, -72), (26, 34, 3), turned(0, 0, s * 50)), t.MUSCLE, "fixed"
        )
        yield Part(
            "perineum", ellipsoid((side * 12, 14, -104), (14, 24, 9), turned(0, -12)), t.MUSCLE, "fixed"
        )
        yield Part(
            "ischiocavernosus",
            tube([(side * 12, -44, -92), (side * 46, 10, -108)], [5, 7]),
            t.MUSCLE,
            "fixed",
        )
        yield Part("hamstring", ellipsoid((side * 78, 44, -125), (26, 24, 34)), t.MUSCLE, "fixed")
        yield Part("sciatic nerve", tube([(side * 70, 56, -10), (side * 80, 58, -60)], 5), t.NERVE, "fixed")
    for i, (y, z) in enumerate(((40, 105), (56, 76), (68, 50), (75, 26), (77, 4))):
        half = (54 - 8 * i, 17 - 2.2 * i, 14.6 - 0.6 * i)
        yield from bone("sacrum", ellipsoid((0, y + 4, z), half, turned(0, 28 - 14 * i)), t.RED_MARROW)
        if i < 4:
            yield Part(
                "disc",
                ellipsoid((0, y + 8, z - 13), (17 - 3 * i, 8, 1.6), turned(0, 25 - 14 * i)),
                t.DISC,
                "fixed",
            )
    yield from bone("lumbar", ellipsoid((0, 22, 138), (26, 19, 16)), t.RED_MARROW)
    yield from bone("coccyx", tube([(0, 74, -8), (0, 66, -34)], [7, 4]), t.RED_MARROW)
    yield Part("canal", tube([(0, 52, 125), (0, 72, 80), (0, 84, 40)], [8, 6, 4]), t.FLUID, "fixed")


def _bowel(rng: np.random.Generator) -> Iterator[Part]:
    """Loops of small bowel and sigmoid above and in front of the uterus."""
    for _ in range(int(rng.integers(14, 22))):
        start = np.array([rng.uniform(-58, 58), rng.uniform(-58, 30), rng.uniform(18, 115)])
        bend = [start + np.cumsum(rng.normal(0, 14, (4, 3)), axis=0)[i] for i in range(4)]
        path = [(float(p[0]), float(p[1]), float(p[2])) for p in (start, *bend)]
        radius = float(rng.uniform(8, 15))
        loop = tube(path, radius)
        content = t.GAS if rng.random() < 0.12 else t.BOWEL_CONTENT
        content = replace(content, t2=tuple(v * float(rng.uniform(0.5, 1.9)) for v in content.t2))  # type: ignore[arg-type]
        yield Part("bowel", loop, t.WALL, confined=True)
        yield Part("bowel", loop.grown(-1.8), content, confined=True)


def _bladder(rng: np.random.Generator) -> Iterator[Part]:
    fill = rng.uniform(0.75, 1.35)
    half = (38 * fill, 26 * fill**0.8, 26 * fill)
    outer = ellipsoid((float(rng.normal(0, 4)), -42, -42 + 8 * (fill - 1)), half, turned(0, 14))
    yield Part("bladder", outer, t.WALL, confined=True)
    neck = [(0.0, -38.0, -62.0), (0.0, -34.0, -82.0), (0.0, -32.0, -104.0)]
    yield Part("urethra", tube(neck, [7, 6.5, 6]), t.VAGINA)
    yield Part("bladder", outer.grown(-float(rng.uniform(2.0, 4.0))), t.URINE, confined=True)


def _rectum(rng: np.random.Generator, gas_mm: Vec) -> Iterator[Part]:
    dx = rng.normal(0, 5, 4)
    path = [
        (0.0, 40.0, -95.0),
        (dx[0], 52.0, -60.0),
        (dx[1], 58.0, -25.0),
        (dx[2], 52.0, 12.0),
        (dx[3] - 10, 36.0, 38.0),
    ]
    shape = tube([(float(a), b, c) for a, b, c in path], [9, 14, 16, 14, 13])
    yield Part("mesorectum", shape.grown(9), t.PELVIC_FAT)
    yield Part("rectum", shape, t.WALL)
    yield Part("rectum", shape.grown(-3.2), t.STOOL, blend_mm=2)
    if rng.random() < 0.6:
        size = rng.uniform(6, 10)
        yield Part(
            "gas", ellipsoid((gas_mm[0], gas_mm[1] - 2, gas_mm[2]), (size, size * 0.8, size * 1.8)), t.GAS
        )


def _adnexa(rng: np.random.Generator, premenopausal: bool) -> Iterator[Part]:
    for side in (-1, 1):
        c = np.array([side * rng.uniform(34, 50), rng.uniform(-2, 24), rng.uniform(-2, 22)])
        big = 1.0 if premenopausal else 0.6
        half = (
            float(rng.uniform(9, 12) * big),
            float(rng.uniform(8, 11) * big),
            float(rng.uniform(11, 16) * big),
        )
        yield Part("ovary", ellipsoid((c[0], c[1], c[2]), half), t.OVARY, confined=True)
        for _ in range(int(rng.integers(4, 9)) if premenopausal else 0):
            p = c + rng.uniform(-0.6, 0.6, 3) * half
            r = float(rng.uniform(2, 4.2) if rng.random() < 0.85 else rng.uniform(6, 10))
            yield Part("follicle", ellipsoid((p[0], p[1], p[2]), (r, r, r)), t.FOLLICLE, confined=True)
        for _ in range(6):
            p = c + rng.normal(0, 8, 3) - np.array([side * 10, 0, 6])
            q = p + rng.normal(0, 12, 3)
            vessel = t.VESSEL if rng.random() < 0.4 else t.FLUID
            path = [(p[0], p[1], p[2]), (q[0], q[1], q[2])]
            yield Part("parametrium", tube(path, float(rng.uniform(1.2, 2.4))), vessel, confined=True)
    if rng.random() < 0.35:
        yield Part("free fluid", ellipsoid((0, 30, -34), (24, 7, 12), turned(0, 20)), t.FLUID, confined=True)


def _uterus(rng: np.random.Generator, premenopausal: bool) -> Uterus:
    """Anteverted in four of five; lengths 65 to 95 mm with the cervix, smaller after menopause."""
    retroverted = rng.random() < 0.2
    tip = -rng.uniform(15, 60) if retroverted else rng.uniform(15, 75)
    side = np.radians(rng.normal(0, 10))
    angle = np.radians(tip)
    long = np.array([np.sin(side) * 0.8, -np.sin(angle), np.cos(angle)])
    long /= np.linalg.norm(long)
    across = np.cross(long, [0, -np.cos(angle), -np.sin(angle)])
    across /= np.linalg.norm(across)
    size = rng.uniform(0.9, 1.2) if premenopausal else rng.uniform(0.65, 0.95)
    half = np.array([33.0, 27.0, 22.0]) * size * rng.uniform(0.93, 1.07, 3)
    os_mm = np.array([rng.normal(0, 4), rng.normal(8, 3), rng.normal(-20, 4)])
    return Uterus(os_mm, np.stack([long, across, np.cross(long, across)]), half)


def _uterine_parts(rng: np.random.Generator, uterus: Uterus, premenopausal: bool) -> Iterator[Part]:
    centre, half = uterus.centre_mm, uterus.half_mm
    os_mm, outlet = uterus.os_mm, np.array([0.0, 14.0, -48.0])
    fornix = (float(outlet[0]), float(outlet[1] + 2), float(outlet[2] + 4))
    vagina = [fornix, (0.0, 8.0, -80.0), (0.0, -4.0, -115.0)]
    yield Part("vagina", tube(vagina, [11, 9, 8]), t.VAGINA)
    yield Part("vagina", tube(vagina, 1.6), t.CERVIX_MUCOSA)
    cervix = tube([tuple(os_mm + uterus.axes[0] * 6), tuple(outlet)], [13, 15])
    yield Part("cervix", cervix, t.CERVIX, confined=True)
    yield Part("cervix", cervix.grown(-9.5), t.CERVIX_MUCOSA, confined=True, blend_mm=1.5)
    body = Ellipsoid(centre, half, uterus.axes)
    yield Part("uterus", body, t.MYOMETRIUM, confined=True)
    thick = rng.uniform(2.5, 7) if premenopausal else rng.uniform(0.7, 2)
    lining = Ellipsoid(centre - uterus.axes[0] * 0.06 * half[0], half * 0.6, uterus.axes)
    lining = replace(lining, half_mm=np.array([half[0] * 0.66, half[1] * rng.uniform(0.45, 0.6), thick]))
    zone = rng.uniform(3.5, 7) if premenopausal else rng.uniform(1.0, 2.5)
    yield Part("junctional zone", lining.grown(zone), t.JUNCTIONAL_ZONE, confined=True, blend_mm=2.5)
    yield Part("endometrium", lining, t.ENDOMETRIUM, confined=True, blend_mm=1.2)


def _tumours(rng: np.random.Generator, spec: CaseSpec, uterus: Uterus) -> Iterator[Tumour]:
    """The mass that matters first, then, smaller, the leiomyomas beside it."""
    malignant = spec.label == "sarcoma"
    kind = draw_kind(rng, SARCOMAS if malignant else LEIOMYOMAS)
    # Sizes overlap: medians of 66 and 52 mm across.
    radius = float(np.clip(np.exp(rng.normal(np.log(33 if malignant else 26), 0.30)), 13, 58))
    taken: list[tuple[Vec, float]] = []
    yield _placed(rng, kind, radius, uterus, taken, spec.difficulty)
    others = int(rng.integers(0, 3)) if malignant else int(rng.integers(0, 6))
    for _ in range(others):
        small = float(np.clip(np.exp(rng.normal(np.log(9), 0.4)), 4, min(22.0, radius)))
        ordinary = {"typical": 0.7, "hyaline": 0.3} if rng.random() < 0.75 else LEIOMYOMAS
        yield _placed(rng, draw_kind(rng, ordinary), small, uterus, taken, spec.difficulty)


def _placed(
    rng: np.random.Generator,
    kind: str,
    radius: float,
    uterus: Uterus,
    taken: list[tuple[Vec, float]],
    difficulty: float,
) -> Tumour:
    """In the wall, the further out the bigger; not through another one if that can be avoided."""
    for _ in range(30):
        direction = rng.standard_normal(3)
        direction[0] = abs(direction[0]) * 0.9 + 0.1  # the fundus, rather than the isthmus
        direction /= np.linalg.norm(direction)
        depth = rng.uniform(0.55, 0.95)
        centre = uterus.at(*(direction * depth))
        outward = (direction * uterus.half_mm) @ uterus.axes
        centre = centre + outward / np.linalg.norm(outward) * radius * rng.uniform(0.15, 0.6)
        # A big mass rises out of the pelvis: there is no room beside the sacrum.
        centre[1] = np.clip(centre[1], -60 + radius * 0.85, max(48 - radius * 0.9, -5))
        centre[2] = max(centre[2], -52 + radius)
        centre[0] = np.clip(centre[0], -66 + radius * 0.8, 66 - radius * 0.8)
        if all(np.linalg.norm(centre - c) > 0.9 * (radius + r) for c, r in taken):
            break
    taken.append((centre, radius))
    return make_tumour(rng, kind, centre, radius, difficulty)
