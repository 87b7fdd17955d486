"""What each bundle learns: which labels of the source mean which classes, and how large a field it sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dicom_node.train.cells.crops import Crops, read_crops

Bools = npt.NDArray[np.bool_]

BLOOD, CERVICAL, FIELDS = "blood_cells", "cervical_cells", "cervical_fields"
PIPELINES = {"blood_smear": BLOOD, "cervical_cytology": CERVICAL, "cervical_fields": FIELDS}
"""Bundle of each pipeline that is trained here."""


@dataclass(frozen=True, slots=True)
class Task:
    """One data set of single cells, and how its labels are to be taken."""

    bundle: str
    folder: str
    """Of the data set, below the folder of all data."""
    column: str
    source_px: int
    """Middle part of a picture that is looked at."""
    kept_px: int
    """Side of the pictures in memory."""
    um_per_px: float
    """Of the source."""
    classes: tuple[str, ...]
    """Of the network, in the order of its outputs."""
    meaning: Mapping[str, tuple[str, ...]]
    """Label of the source -> the classes it may be; of a label without any nothing is learned."""
    licence: str

    def read(self, data: Path) -> Crops:
        return read_crops(
            data / self.folder, tuple(self.meaning), column=self.column, source_px=self.source_px,
            size=self.kept_px, um_per_px=self.um_per_px,
        )  # fmt: skip

    def allowed(self, crops: Crops) -> Bools:
        """(n, classes): which classes each picture may be."""
        table = np.array([[one in self.meaning[name] for one in self.classes] for name in crops.names])
        return np.asarray(table[crops.label])


_BLOOD = ("basophil", "eosinophil", "erythroblast", "lymphocyte", "monocyte", "platelet", "promyelocyte",
          "myelocyte", "metamyelocyte", "band", "segmented")  # fmt: skip
BLOOD_CELLS = Task(
    bundle=BLOOD, folder="blood_smear_pbc", column="subtype", source_px=144, kept_px=112, um_per_px=0.196,
    classes=_BLOOD,
    meaning={
        **dict(
            zip(
                ("BA", "EO", "ERB", "LY", "MO", "PLATELET", "PMY", "MY", "MMY", "BNE", "SNE"),
                ((one,) for one in _BLOOD), strict=True,
            )
        ),
        "IG": ("promyelocyte", "myelocyte", "metamyelocyte"),
        "NEUTROPHIL": ("band", "segmented"),
    },
    licence="CC BY 4.0 (Acevedo et al., Mendeley Data snkd93bnjr v1; the publisher's word)",
)  # fmt: skip
"""Immature granulocytes and neutrophils of unknown stage may be any of theirs."""
GROUPS = {
    "immature granulocyte": ("promyelocyte", "myelocyte", "metamyelocyte"),
    "neutrophil": ("band", "segmented"),
}
"""The eight classes of the source: these, and the six others of BLOOD_CELLS."""

BETHESDA = ("NILM", "LSIL", "HSIL", "SCC")
CERVICAL_CELLS = Task(
    bundle=CERVICAL, folder="cervical_cric", column="class", source_px=100, kept_px=100, um_per_px=0.228,
    classes=BETHESDA,
    meaning={
        "NILM": ("NILM",), "ASC-US": (), "LSIL": ("LSIL",), "ASC-H": ("HSIL",), "HSIL": ("HSIL",),
        "SCC": ("SCC",),
    },
    licence="CC BY 4.0 (CRIC Cervix; Rezende et al., Sci Data 2021; the publisher's word)",
)  # fmt: skip
"""ASC-H, in which a high grade cannot be excluded, is learned as HSIL. ASC-US, which raters themselves
could not decide, is not learned from; how it is called is reported."""
