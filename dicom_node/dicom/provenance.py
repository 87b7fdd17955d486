"""Who made a result: the equipment facts that every object of this node carries.

A result must tell, years later, which program and which weights made it. General Equipment
(PS3.3 C.7.5.1) names the node, Contributing Equipment (PS3.3 C.12.1) each model: once as
Processing Equipment for every reader, once as IHE AI Results 6.5.3.1 asks. A model that was
trained again is another device, so its Device UID comes from the digest of its weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata

from pydicom.dataset import Dataset

from dicom_node.dicom.uids import derived_uid
from dicom_node.domain.codebook import code
from dicom_node.domain.codes import Code
from dicom_node.domain.findings import Algorithm
from dicom_node.domain.identity import UID

MANUFACTURER = "dicom-node project"
MODEL = "dicom-node"
try:
    SOFTWARE_VERSION = metadata.version("dicom-node")
except metadata.PackageNotFoundError:  # run from a source tree that was never installed
    SOFTWARE_VERSION = "0"

ACQUISITION_EQUIPMENT = code("acquisition-equipment")
PROCESSING_EQUIPMENT = code("processing-equipment")
PROCESSING_ALGORITHM = code("processing-algorithm")
"""IHE RAD AI Results, 6.5.3.1: its placeholder code, as published."""


@dataclass(frozen=True, slots=True)
class Equipment:
    """General Equipment of a result: the node as it was built and configured for one pipeline."""

    manufacturer: str
    model: str
    software_versions: tuple[str, ...]
    serial_number: str
    device_uid: UID
    """Changes with the node's version, the pipeline's version and the weights of every model."""


def equipment(pipeline: str, pipeline_version: str, algorithms: Sequence[Algorithm]) -> Equipment:
    digests = sorted(algorithm.digest for algorithm in algorithms)
    device = derived_uid("device", SOFTWARE_VERSION, pipeline, pipeline_version, *digests)
    return Equipment(
        manufacturer=MANUFACTURER,
        model=MODEL,
        software_versions=(_long(f"{MODEL} {SOFTWARE_VERSION}"), _long(f"{pipeline} {pipeline_version}")),
        serial_number=device.removeprefix("2.25."),
        device_uid=device,
    )


def acquisition(scanner: Dataset) -> Dataset:
    """The scanner's own item, as the result's first contributor."""
    item = Dataset()
    item.update(scanner)
    item.PurposeOfReferenceCodeSequence = [code_item(ACQUISITION_EQUIPMENT)]
    return item


def contributing(algorithms: Sequence[Algorithm]) -> tuple[Dataset, ...]:
    """Items of Contributing Equipment Sequence (0018,A001): two for each model."""
    purposes = (PROCESSING_EQUIPMENT, PROCESSING_ALGORITHM)
    return tuple(_item(algorithm, purpose) for algorithm in algorithms for purpose in purposes)


def _item(algorithm: Algorithm, purpose: Code) -> Dataset:
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [code_item(purpose)]
    item.Manufacturer = MANUFACTURER
    item.ManufacturerModelName = _long(algorithm.name)
    item.SoftwareVersions = _long(algorithm.version)
    item.DeviceSerialNumber = algorithm.digest
    item.DeviceUID = derived_uid("model", algorithm.name, algorithm.version, algorithm.digest)
    # ST holds 1024 characters; the rest of a long card is in the card.
    item.ContributionDescription = f"{algorithm.description} Research use only."[:1024]
    return item


def code_item(of: Code) -> Dataset:
    """Item of a code sequence, PS3.3 8.8."""
    item = Dataset()
    item.CodeValue = of.value
    item.CodingSchemeDesignator = of.scheme
    item.CodeMeaning = of.meaning
    return item


def _long(text: str) -> str:
    """LO: 64 characters, no backslash."""
    return text.replace("\\", "/")[:64]
