"""How many white cells the finder finds on fields with boxes (BCCD: Pascal VOC files beside the pictures)."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from dicom_node.errors import InvalidValue
from dicom_node.infer.cells import WHITE_CELLS, find_nuclei, red_cell_scale
from dicom_node.train.cells.judge import Line, as_share, share_line

EDGE_PX = 2
TUNED_EVERY = 6
"""Every so many fields the finder's thresholds were chosen on; they are not judged."""
Boxes = npt.NDArray[np.float32]


def judge_finder(folder: Path) -> dict[str, Any]:  # Any: JSON-able
    """Recall and precision of WHITE_CELLS. A box is hit by a place inside it; each place hits one box.

    All fields have one scale: the median of what their red cells say.
    """
    from PIL import Image

    pictures, boxes = [], []
    for place in sorted((folder / "BCCD" / "Annotations").glob("*.xml")):
        with Image.open(folder / "BCCD" / "JPEGImages" / f"{place.stem}.jpg") as opened:
            pictures.append(np.asarray(opened.convert("RGB")))
        boxes.append(_white_cells(place))
    scales = [scale for picture in pictures if (scale := red_cell_scale(picture)) is not None]
    if not scales:
        raise InvalidValue(f"{folder} holds no fields with red cells")
    scale = float(np.median(scales))
    hits = missed = beside = 0
    for at, (picture, wanted) in enumerate(zip(pictures, boxes, strict=True)):
        if at % TUNED_EVERY == 0:
            continue
        found = find_nuclei(picture, scale, WHITE_CELLS).centre_px
        got = matched(found, wanted)
        hits, missed, beside = hits + got, missed + len(wanted) - got, beside + len(found) - got
    return {
        "um_per_px": round(scale, 4), "fields": len(pictures) - -(-len(pictures) // TUNED_EVERY),
        "recall": as_share(hits, hits + missed).to_json(),
        "precision": as_share(hits, hits + beside).to_json(),
    }  # fmt: skip


def _white_cells(place: Path) -> Boxes:
    """(n, 4) left, top, right, bottom."""
    tree = ElementTree.parse(place).getroot()  # noqa: S314 (a local data set of the user's own)
    found = [
        [float(box.findtext(side) or 0) for side in ("xmin", "ymin", "xmax", "ymax")]
        for one in tree.iter("object")
        if one.findtext("name") == "WBC"
        for box in one.iter("bndbox")
    ]
    return np.array(found, np.float32).reshape(-1, 4)


def matched(places: npt.NDArray[np.float32], boxes: Boxes) -> int:
    """How many boxes have a place of their own."""
    used = np.zeros(len(places), bool)
    for left, top, right, bottom in boxes:
        x, y = places[:, 0], places[:, 1]
        inside = (
            (x >= left - EDGE_PX) & (x <= right + EDGE_PX) & (y >= top - EDGE_PX) & (y <= bottom + EDGE_PX)
        )
        free = np.flatnonzero(inside & ~used)
        if len(free):
            used[free[0]] = True
    return int(used.sum())


def finder_line(found: dict[str, Any]) -> list[Line]:  # Any: JSON-able
    where = f"{found['fields']} fields of BCCD"
    return [
        share_line(f"White cells found, {where}", found["recall"]),
        share_line(f"What was found is a white cell, {where}", found["precision"]),
    ]
