"""Results on a slide go out as the richest set that a destination takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node.domain.job import BY_NAME_ONLY
from dicom_node.encode.results import encode
from support.deliveries import Bench
from support.readings import judged, smear
from support.scripted_scp import ScriptedScp

SC, SR, SR_3D = "1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.88.33", "1.2.840.10008.5.1.4.1.1.88.34"
SEG, PM, ANN = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.30", "1.2.840.10008.5.1.4.1.1.91.1"
WSI = "1.2.840.10008.5.1.4.1.1.77.1.6"


@pytest.mark.parametrize(
    ("classes", "gets"),
    [
        ([SC], ["sc"]),
        ([WSI, SR], ["sr", "wsi"]),
        ([SC, SR, SR_3D, SEG, PM, ANN, WSI], ["sr", "sc", "roi", "ann", "pm", "pm", "seg", "wsi"]),
    ],
)
def test_a_destination_gets_what_it_takes(tmp_path: Path, classes: list[str], gets: list[str]) -> None:
    """A PACS of pages, one of slides, and one that takes everything; the rest is withheld, not failed."""
    study = smear(tmp_path / "study")
    made = encode(
        judged(study), study, input_key="k", pipeline="p", pipeline_version="1", title="Cytology"
    )  # fmt: skip
    sent = [result for result in made if result.kind not in BY_NAME_ONLY]
    with ScriptedScp(classes=classes) as scp:
        bench = Bench(tmp_path, {"pacs": scp.port})
        try:
            bench.schedule([result.content for result in sent], "pacs", auto=True)
            bench.deliverer.deliver_due()
            states = bench.states()
        finally:
            bench.close()

    arrived = {uid for uid, _ in scp.arrived}
    assert gets == [result.kind for result in sent if result.sop_instance_uid in arrived]
    assert {"COMPLETED": len(gets), "CANCELED": len(sent) - len(gets)} == {
        state: states.count(state) for state in ("COMPLETED", "CANCELED")
    }
