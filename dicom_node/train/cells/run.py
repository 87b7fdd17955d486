"""Which training belongs to which pipeline of cells."""

from __future__ import annotations

from typing import Any

from dicom_node.train.cells.learn import Report
from dicom_node.train.cells.setup import Setup


def train_cells(pipeline: str, setup: Setup, report: Report) -> dict[str, Any]:  # Any: JSON-able
    """Train, judge and write the bundle of one of `tasks.PIPELINES`; the evaluation."""
    from dicom_node.train.cells.blood import train_blood
    from dicom_node.train.cells.cervical import train_cervical
    from dicom_node.train.cells.fields import train_fields
    from dicom_node.train.dataset import one_thread

    one_thread()
    trainings = {
        "blood_smear": train_blood, "cervical_cytology": train_cervical, "cervical_fields": train_fields,
    }  # fmt: skip
    return trainings[pipeline](setup, report)
