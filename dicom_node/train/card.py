"""A bundle's model card, docs/README.md. No figure in it is typed by hand."""

from __future__ import annotations

from typing import Any

from dicom_node.train.names import EVALUATOR, FILTER
from dicom_node.train.table import table_rows

ABOUT = {
    FILTER: {
        "name": "Tumor Image Filter",
        "description": "MobileNetV2: does this MR slice of the female pelvis show a uterine tumour?",
        "output": "log-odds that the slice shows a tumour",
    },
    EVALUATOR: {
        "name": "Sarcoma Evaluator",
        "description": "MobileNetV2: sarcoma or leiomyoma on an MR slice of a uterine tumour; fused by case.",
        "output": "log-odds that the tumour on the slice is a sarcoma",
    },
}
CARD = """\
# {name} ({bundle} {version})

{description}

**Research use only. Trained on generated phantoms only: no image of any patient went into it. The
figures below are not evidence of clinical performance; on patients it may be no better than chance.**

## What it is for

The {stage} stage of the pipeline `uterine_mri`, modelled on AutoDiag-AI. It shows that the whole path
works, and it is the place for weights that a site has trained on its own cases.

- Input: one slice, 112 x 112 pixels of 2.25 mm around the centre of the image, the same in three
  channels. Percentiles 1 to 99.5 of the stack become -1 to 1; an ADC map is scaled from 0 to
  3000e-6 mm2/s instead.
- Output: {output}.
- Network: torchvision's MobileNetV2 with one output, weights in 16 bits{extra}.

## Data

{data}

- Development: {development}.
- Untouched: {untouched}.
- Split: {split}.
- Difficulty of the phantoms: {difficulty} (0: told apart by eye, 1: hardly at all). It decides how
  often the networks err; it says nothing about patients.
- Start: {pretrained}.
- Steps: {steps_filter} (filter) and {steps_evaluator} (evaluator) in batches of {batch}; {minutes} minutes
  for all {networks} networks one after the other, on one busy core.

## Results, on phantoms

| | this model | n, 95 % interval | AutoDiag-AI, on patients |
|---|---|---|---|
{table}

Intervals of cases: Wilson. Of slices: bootstrap over patients. Mean over models: the hits are a mean
and n is the number of cases. A case in which the filter kept no slice has no verdict and counts as
wrong. The last column is not comparable: other data.{note}

## Limits

- Phantoms have a simple anatomy and two kinds of tumour. Real pelves have adenomyosis, ovarian
  masses, pregnancies, implants, artefacts and sequences that it never saw.
- It never saw a study without a tumour; one case in four of its data is a sarcoma, as in AutoDiag-AI's,
  and the probabilities are calibrated to that.
- A heatmap says which parts of an image spoke for sarcoma to the network, 36 mm at a time, and not where
  a tumour is or ends: in these phantoms its hottest place often lies beside the tumour. Maps are
  scaled by case, so every case has a hottest place, also one without a sarcoma.

## Licence

Apache-2.0, see LICENSE.
"""


def card(bundle: str, document: dict[str, Any], version: str) -> str:  # Any: JSON-able
    """The card as Markdown."""
    about, facts = ABOUT[bundle], document["trained"]
    is_filter = bundle == FILTER
    return CARD.format(
        bundle=bundle, version=version, name=about["name"], description=about["description"],
        output=about["output"], stage="first" if is_filter else "second",
        extra="" if is_filter else ".\n  Its last stages keep their resolution, for a finer Grad-CAM",
        data=document["data"], split=document["split"],
        development=_cohort(document["cohorts"]["development"]),
        untouched=_cohort(document["cohorts"]["untouched"]),
        difficulty=f"{facts['difficulty']:g}", pretrained=facts["pretrained"], batch=facts["batch"],
        steps_filter=facts["steps"]["filter"], steps_evaluator=facts["steps"]["evaluator"],
        minutes=f"{facts['minutes']:g}", networks=facts["networks"],
        note="\n\n" + facts["note"] if facts["note"] else "",
        table="\n".join("| " + " | ".join(line) + " |" for line in table_rows(document)),
    )  # fmt: skip


def _cohort(counts: dict[str, int]) -> str:
    return (
        f"{counts['sarcoma']} sarcoma and {counts['leiomyoma']} leiomyoma cases, {counts['slices']} slices, "
        f"{counts['slices_with_tumour']} of them with tumour"
    )
