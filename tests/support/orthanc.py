"""Debian's Orthanc as the PACS: a real archive of another make, in a folder of its own on loopback."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.ports import end, free_port, wait_until

_PROGRAM = shutil.which("Orthanc") or "/usr/sbin/Orthanc"


class Orthanc:
    """A running Orthanc. `start()` and `stop()` may be repeated: it keeps its folder and ports."""

    def __init__(
        self, folder: Path, *, ae_title: str = "ORTHANC", overwrite: bool = False,
        modalities: Mapping[str, tuple[str, int]] | None = None, settings: Mapping[str, object] | None = None,
    ) -> None:  # fmt: skip
        self.folder, self.ae_title = folder, ae_title
        self.dicom_port, self.http_port = free_port(), free_port()
        self._config = folder / "orthanc.json"
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        known = {name: [name, host, port] for name, (host, port) in (modalities or {}).items()}
        config = {
            "Name": "pacs",
            "StorageDirectory": str(folder / "storage"), "IndexDirectory": str(folder / "storage"),
            "DicomAet": ae_title, "DicomPort": self.dicom_port, "HttpPort": self.http_port,
            "RemoteAccessAllowed": False, "AuthenticationEnabled": False, "Plugins": [],
            "UnknownSopClassAccepted": True, "OverwriteInstances": overwrite, "StableAge": 1,
            "DicomCheckCalledAet": True, "DicomAlwaysAllowStore": True, "DicomModalities": known,
            "DicomServerEnabled": True, "HttpServerEnabled": True, "MaximumStorageCacheSize": 16,
        } | dict(settings or {})  # fmt: skip
        self._config.write_text(json.dumps(config), encoding="utf-8")

    def start(self) -> Orthanc:
        with (self.folder / "orthanc.log").open("ab") as out:
            self._process = subprocess.Popen([_PROGRAM, str(self._config)], stdout=out, stderr=out)
        wait_until(self._ready, 30.0, "Orthanc answers its REST interface")
        return self

    def stop(self) -> None:
        if self._process is not None:
            end(self._process)
            self._process = None

    def get(self, path: str) -> Any:
        """The JSON of a REST resource, e.g. `/instances`."""
        answer = httpx.get(f"http://127.0.0.1:{self.http_port}{path}", timeout=30.0, trust_env=False)
        answer.raise_for_status()
        return answer.json()

    def file(self, instance: str) -> bytes:
        """The stored PS3.10 file of one instance, by Orthanc's id."""
        url = f"http://127.0.0.1:{self.http_port}/instances/{instance}/file"
        return httpx.get(url, timeout=60.0, trust_env=False).raise_for_status().content

    def studies(self) -> list[dict[str, Any]]:
        return list(self.get("/studies?expand"))

    def series(self) -> list[dict[str, Any]]:
        return list(self.get("/series?expand"))

    def instances(self) -> list[dict[str, Any]]:
        return list(self.get("/instances?expand"))

    def count(self) -> int:
        return int(self.get("/statistics")["CountInstances"])

    def sop_instances(self, modality: str | None = None) -> list[str]:
        """SOP Instance UIDs it holds, sorted; of one modality, or all."""
        wanted = {
            one["ID"] for one in self.series() if modality in (None, one["MainDicomTags"].get("Modality"))
        }
        held = [one for one in self.instances() if one["ParentSeries"] in wanted]
        return sorted(one["MainDicomTags"]["SOPInstanceUID"] for one in held)

    def by_sop_instance(self) -> dict[str, str]:
        """SOP Instance UID -> Orthanc's id."""
        return {one["MainDicomTags"]["SOPInstanceUID"]: one["ID"] for one in self.instances()}

    def _ready(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            tail = (self.folder / "orthanc.log").read_text(errors="replace")[-2000:]
            raise AssertionError(f"Orthanc ended at start:\n{tail}")
        try:
            return bool(self.get("/system"))
        except httpx.HTTPError:
            return False


def require_orthanc() -> None:
    """Skip the test, aloud, where Orthanc is not installed."""
    if not Path(_PROGRAM).exists():
        pytest.skip("Orthanc is not installed (Debian: apt install orthanc)")


@contextmanager
def orthanc(folder: Path, **settings: Any) -> Iterator[Orthanc]:
    """An Orthanc in `folder`, ended when the block ends; see `Orthanc` for the settings."""
    require_orthanc()
    pacs = Orthanc(folder, **settings)
    try:
        yield pacs.start()
    finally:
        pacs.stop()
