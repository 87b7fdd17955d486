"""The model cards of the bundles for cells. No figure in them is typed by hand."""

from __future__ import annotations

from typing import Any

from dicom_node.infer.image import ImageInput
from dicom_node.train.cells.tasks import BLOOD, CERVICAL, FIELDS
from dicom_node.train.table import headings, table_rows

ABOUT = {
    BLOOD: {
        "name": "Blood Cells",
        "description": "MobileNetV2: which white cell is this, with the stages of granulocytes?",
        "pipeline": "blood_smear",
        "unit": "one white cell in the middle",
    },
    CERVICAL: {
        "name": "Cervical Cells",
        "description": "MobileNetV2: is this cervical cell NILM, LSIL, HSIL or SCC?",
        "pipeline": "cervical_cytology",
        "unit": "one cell, its nucleus in the middle, on one focal plane",
    },
    FIELDS: {
        "name": "Cervical Fields",
        "description": "MobileNetV2: is this field of cervical cells normal, CIN1 or CIN2 and worse?",
        "pipeline": "cervical_fields",
        "unit": "a whole photograph, both sides brought to this size",
    },
}
CARD = """\
# {name} ({bundle} {version})

{description}

**Research use only. First weights: they show that the whole path works, and the place for weights that a
site has trained on its own cells. {warning}**

## What it is for

The network of the pipeline `{pipeline}`.

- Input: {unit}; {size} x {size} pixels{field}, sRGB.
- Output: logits of {classes}.
- Network: torchvision's MobileNetV2, weights in 16 bits.

## Data

{data}

{facts}

## Results

{heading}
{rule}
{table}

{how}

## Limits

{limits}

## Licence

Apache-2.0, see LICENSE. The pictures it learned from: {licence}.
"""


def card(bundle: str, document: dict[str, Any], version: str, seen: ImageInput) -> str:  # Any: JSON-able
    """The card as Markdown."""
    about, columns = ABOUT[bundle], headings(document)
    side = f" of {seen.um_per_px:g} um, {seen.size_px * seen.um_per_px:.1f} um"
    return CARD.format(
        bundle=bundle, version=version, **about, warning=document["warning"], size=seen.size_px,
        field="" if bundle == FIELDS else side,
        classes=", ".join(seen.classes), data=document["data"],
        facts="\n".join(f"- {line}" for line in document["facts"]),
        heading=f"| {' | '.join(columns)} |", rule="|" + "---|" * len(columns),
        table="\n".join("| " + " | ".join(line) + " |" for line in table_rows(document)),
        how=document["how"], limits="\n".join(f"- {line}" for line in document["limits_list"]),
        licence=document["licence"],
    )  # fmt: skip
