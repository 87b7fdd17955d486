"""Orthanc as the archive that viewers read by DICOMweb, filled by C-STORE as a PACS is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from pydicom import dcmread
from pynetdicom import AE

from support.orthanc import Orthanc, orthanc

_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
_DICOMWEB = {
    "Enable": True, "Root": "/dicom-web/", "EnableWado": True, "WadoRoot": "/wado",
    "StudiesMetadata": "Full", "SeriesMetadata": "Full",
}  # fmt: skip


class Archive:
    """A running Orthanc; `prefixes` is what a site passes on to it."""

    def __init__(self, pacs: Orthanc) -> None:
        self.pacs = pacs

    @property
    def prefixes(self) -> dict[str, str]:
        behind = f"http://127.0.0.1:{self.pacs.http_port}"
        return {"/dicom-web": behind, "/wado": behind}

    def empty(self) -> None:
        """Forget every study."""
        for study in self.pacs.get("/studies"):
            url = f"http://127.0.0.1:{self.pacs.http_port}/studies/{study}"
            httpx.delete(url, timeout=30.0, trust_env=False).raise_for_status()

    def store(self, paths: Sequence[Path]) -> None:
        """Send files over one association for each kind; every one must be taken."""
        kinds: dict[tuple[str, str], list[Path]] = {}
        for path in paths:
            meta = dcmread(path, specific_tags=["SOPClassUID"]).file_meta
            kinds.setdefault((meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID), []).append(path)
        for (sop_class, syntax), of_kind in kinds.items():
            ae = AE(ae_title="VIEWERS")
            ae.add_requested_context(sop_class, syntax)
            association = ae.associate("127.0.0.1", self.pacs.dicom_port, ae_title=self.pacs.ae_title)
            assert association.is_established, f"the archive takes no {sop_class}"
            try:
                for path in of_kind:
                    assert association.send_c_store(path).Status == 0x0000, path.name
            finally:
                association.release()


@contextmanager
def archive(folder: Path) -> Iterator[Archive]:
    """An empty archive in `folder`, ended when the block ends; skipped aloud where it is not installed."""
    if not _PLUGIN.is_file():
        pytest.skip("no DICOMweb for Orthanc (Debian: apt install orthanc-dicomweb)")
    settings = {"Plugins": [str(_PLUGIN)], "DicomWeb": _DICOMWEB}
    with orthanc(folder, overwrite=True, settings=settings) as pacs:
        yield Archive(pacs)
