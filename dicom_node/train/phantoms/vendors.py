"""What each vendor writes into the header: names, image types, places of the b value.

Placement of b values: Siemens (0019,100C) IS under "SIEMENS MR HEADER" beside (0018,9087); GE
(0043,1039) IS, four values, the first with 1e9 added, under "GEMS_PARM_01"; Philips
(2001,1003) FL under "Philips Imaging DD 001" beside (0018,9087); Canon (0018,9087) alone.
Taken from the vendors' conformance statements, as pydicom's private dictionary lists them.
Descriptions come in several languages; a few say nothing or the wrong thing, since readers
must not trust them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from pydicom.dataset import Dataset

from dicom_node.train.phantoms.cases import CaseSpec, Vendor

Series = tuple[tuple[str, tuple[str, ...]], ...]
_SPLIT: Series = (
    ("localiser", ("localiser",)), ("t2_sagittal", ("t2_sagittal",)), ("t2_axial", ("t2_axial",)),
    ("t1_axial", ("t1_axial",)), ("dwi_b0", ("dwi_b0",)), ("dwi_b1000", ("dwi_b1000",)), ("adc", ("adc",)),
)  # fmt: skip
_JOINED: Series = (
    ("localiser", ("localiser",)), ("t2_sagittal", ("t2_sagittal",)), ("t2_axial", ("t2_axial",)),
    ("t1_axial", ("t1_axial",)), ("dwi", ("dwi_b0", "dwi_b1000")), ("adc", ("adc",)),
)  # fmt: skip


@dataclass(frozen=True)
class Habit:
    """One vendor's header."""

    manufacturer: str
    models: tuple[str, str]
    """At 1.5 T and at 3 T."""
    software: str
    study_description: str
    series: Series
    number_step: int
    bits: int
    rescaled: bool
    fat_suppressed: str
    names: dict[str, tuple[str, ...]]
    """Series descriptions by series, the usual ones first; one is drawn per case."""
    image_type: list[str] = field(default_factory=lambda: ["ORIGINAL", "PRIMARY", "OTHER"])
    image_type_adc: list[str] = field(default_factory=lambda: ["DERIVED", "PRIMARY", "OTHER"])
    image_types: dict[str, list[str]] = field(default_factory=dict)
    sequence_names: dict[str, str] = field(default_factory=dict)


HABITS: dict[Vendor, Habit] = {
    "siemens": Habit(
        "SIEMENS", ("Avanto_fit", "Skyra"), "syngo MR E11", "Becken^Uterus", _JOINED, 1, 12, False, "FS",
        {
            "localiser": ("localizer", "loc 3 Ebenen"),
            "t2_sagittal": ("t2_tse_sag", "T2 sag"),
            "t2_axial": ("t2_tse_tra", "T2 TSE tra uterus", "Becken tra"),
            "t1_axial": ("t1_tse_tra", "t1 tra"),
            "dwi": ("ep2d_diff_b0_1000", "DWI tra"), "adc": ("ep2d_diff_b0_1000_ADC", "DWI tra_ADC"),
        },
        ["ORIGINAL", "PRIMARY", "M", "NORM", "DIS2D"], ["DERIVED", "PRIMARY", "DIFFUSION", "ADC", "NORM"],
        {"dwi_b0": ["ORIGINAL", "PRIMARY", "DIFFUSION", "NONE", "NORM"],
         "dwi_b1000": ["ORIGINAL", "PRIMARY", "DIFFUSION", "TRACEW", "NORM"]},
        {"t2_axial": "*tse2d1_18", "t2_sagittal": "*tse2d1_18", "t1_axial": "*tse2d1_1", "dwi_b0": "*ep_b0",
         "dwi_b1000": "*ep_b1000t", "adc": "*ep_b0_1000", "localiser": "*fl2d1"},
    ),
    "ge": Habit(
        "GE MEDICAL SYSTEMS", ("SIGNA Artist", "SIGNA Architect"), "DV26", "MRI PELVIS W/O", _SPLIT, 1, 15,
        False, "FS", {
            "localiser": ("3-Plane Loc", "LOC"), "t2_sagittal": ("Sag T2 FRFSE", "SAG T2"),
            "t2_axial": ("Ax T2 FRFSE", "AX T2 UTERUS", "Ax PELVIS"), "t1_axial": ("Ax T1 FSE", "AX T1"),
            "dwi_b0": ("Ax DWI b0", "AX DWI"), "dwi_b1000": ("Ax DWI b1000", "AX DWI"),
            "adc": ("ADC (10^-6 mm2/s)", "Apparent Diffusion Coefficient (mm2/s)"),
        },
    ),
    "philips": Habit(
        "Philips Medical Systems", ("Ingenia 1.5T", "Ingenia Elition X"), "5.6.1", "IRM pelvienne", _SPLIT,
        100, 12, True, "FS", {
            "localiser": ("Survey", "SURVEY_3PL"), "t2_sagittal": ("T2W_TSE_SAG", "SAG T2 TSE"),
            "t2_axial": ("T2W_TSE_AX", "AX T2 TSE", "sT2 ax pelvis"), "t1_axial": ("T1W_TSE_AX", "T1 ax"),
            "dwi_b0": ("DWI_b0", "DWI b0-1000"), "dwi_b1000": ("sDWI_b1000", "DWI b0-1000"),
            "adc": ("dADC", "dADC_map"),
        },
        ["ORIGINAL", "PRIMARY", "M_SE", "M", "SE"], ["DERIVED", "PRIMARY", "ADC", "ADC", "UNSPECIFIED"],
        {"localiser": ["ORIGINAL", "PRIMARY", "M_FFE", "M", "FFE"]},
    ),
    "canon": Habit(
        "CANON_MEC", ("Vantage Orian", "Vantage Galan 3T"), "V6.0", "MR PELVIS", _JOINED, 1000, 15, False,
        "FS",
        {
            "localiser": ("Locator", "Locator 3plane"), "t2_sagittal": ("FSE2D T2 SAG", "T2 Sag"),
            "t2_axial": ("FSE2D T2 Ax", "T2 Ax"), "t1_axial": ("SE T1 Ax", "T1 FSE Ax"),
            "dwi": ("DWI b=1000", "SE_EPI DWI"), "adc": ("ADC", "SE_EPI DWI ADC"),
        },
    ),
}  # fmt: skip
_MISLED = {"t1_axial": "T2 Ax", "t2_axial": "T1 tra"}
"""Descriptions left over from a copied protocol, in one of thirty series of these."""


def series_names(spec: CaseSpec, series: str) -> tuple[str, str]:
    """Series description and protocol name of one series of a case."""
    chance = np.random.default_rng([spec.seed, 7, sum(series.encode())])
    names = HABITS[spec.vendor].names[series]
    name = names[int(chance.integers(len(names)))]
    if series in _MISLED and chance.random() < 1 / 30:
        return _MISLED[series], names[0]
    return name, names[0]


def diffusion_elements(ds: Dataset, vendor: Vendor, b: int) -> None:
    """The b value where this vendor keeps it."""
    if vendor != "ge":
        ds.DiffusionBValue = float(b)
        ds.DiffusionDirectionality = "NONE" if b == 0 else "ISOTROPIC"
    if vendor == "siemens":
        block = ds.private_block(0x0019, "SIEMENS MR HEADER", create=True)
        block.add_new(0x0C, "IS", str(b))
        block.add_new(0x0D, "CS", "NONE")
    if vendor == "ge":
        block = ds.private_block(0x0043, "GEMS_PARM_01", create=True)
        block.add_new(0x39, "IS", [str(b + (1000000000 if b else 0)), "8", "0", "0"])
    if vendor == "philips":
        block = ds.private_block(0x2001, "Philips Imaging DD 001", create=True)
        block.add_new(0x03, "FL", float(b))
