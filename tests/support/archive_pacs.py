"""An Orthanc that holds studies and answers queries, and a node that may ask it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import httpx
from pydicom.dataset import Dataset

from dicom_node.config import Config
from support import mr
from support.orthanc import Orthanc

QUERY_RETRIEVE = {
    "DicomAlwaysAllowFind": True, "DicomAlwaysAllowGet": True, "DicomAlwaysAllowMove": True,
}  # fmt: skip


def fill(pacs: Orthanc, instances: Iterable[Dataset]) -> None:
    """Put instances into Orthanc by its REST interface."""
    for ds in instances:
        url = f"http://127.0.0.1:{pacs.http_port}/instances"
        httpx.post(url, content=mr.file_bytes(ds), timeout=30.0, trust_env=False).raise_for_status()


def asking(
    folder: Path, port: int, *, retrieve: str = "get", route: Mapping[str, object] | None = None,
    pipelines: Path | None = None, **receive: object,
) -> Config:  # fmt: skip
    """The configuration of a node with one peer `pacs` at `port`."""
    pacs = {
        "name": "pacs", "ae_title": "ORTHANC", "host": "127.0.0.1", "port": port, "retrieve": retrieve,
    }  # fmt: skip
    node = {"data_dir": str(folder)} | ({"pipelines_dir": str(pipelines)} if pipelines else {})
    return Config.model_validate(
        {
            "node": node,
            "receive": {"reserve_mb": 0, **receive},
            "deliver": {"timeout_s": 10.0},
            "peer": [pacs],
            "route": [{"from": ["pacs"], "to": ["pacs"], **route}] if route else [],
        }
    )
