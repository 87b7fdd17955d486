"""The receivers that are measured side by side, each set up as its makers would for speed.

Each is told where to listen, with how many associations and where to keep what it gets; each can
say afterwards how much it really holds. What is not installed is left out, and the table says so.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import ClassVar, Protocol

from dicom_node.bench.certificates import Certificates
from dicom_node.config import Config
from dicom_node.store.database import engine_for, migrate

CALLING, CALLED = "SCANNER", "DICOMNODE"
PDU_BYTES = 131072
"""The longest PDU all of them can be told to take."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One run: an empty folder on the file system to be measured, a free port, what will come."""

    folder: Path
    port: int
    spare_port: int
    """A second free one, for a receiver that listens twice."""
    associations: int
    certificates: Certificates | None = None
    """None: plain TCP."""
    is_slide: bool = False

    @property
    def store(self) -> Path:
        return self.folder / "store"


@dataclass(frozen=True, slots=True)
class Held:
    """What a receiver holds after a run."""

    instances: int
    file_bytes: int


class Receiver(Protocol):
    """A program that takes C-STORE."""

    @property
    def name(self) -> str: ...
    def absent(self, *, tls: bool) -> str:
        """Why it cannot be measured here; empty when it can."""

    def command(self, setting: Setting) -> list[str]:
        """How to start it; writes what it needs below `setting.folder`."""

    def stdin(self, setting: Setting) -> bytes:
        """What it reads first."""

    def held(self, setting: Setting) -> Held:
        """Counted once it has ended."""


class Node:
    """This node's receiver process: fsync of file and folder, synchronous commit, then the answer."""

    name: ClassVar[str] = "node"

    def absent(self, *, tls: bool) -> str:
        return ""

    def command(self, setting: Setting) -> list[str]:
        config = self._config(setting)
        engine = engine_for(config)
        migrate(engine)
        engine.dispose()
        return [sys.executable, "-m", "dicom_node.service", "receive"]

    def stdin(self, setting: Setting) -> bytes:
        return self._config(setting).model_dump_json(by_alias=True).encode() + b"\n"

    def held(self, setting: Setting) -> Held:
        with closing(sqlite3.connect(setting.store / "node.sqlite3")) as connection:
            (count,) = connection.execute("SELECT count(*) FROM instances").fetchone()
        files = _files(setting.store / "objects")
        return Held(min(int(count), files.instances), files.file_bytes)

    @staticmethod
    def _config(setting: Setting) -> Config:
        tls, peer = setting.certificates, {"name": "scanner", "ae_title": CALLING, "host": "127.0.0.1"}
        receive = {
            "port": setting.port, "reserve_mb": 0, "max_pdu_bytes": PDU_BYTES,
            "unwanted": "store" if setting.is_slide else "refuse",
        }  # fmt: skip
        tables: dict[str, object] = {
            "node": {"data_dir": str(setting.store.resolve()), "ae_title": CALLED},
            "receive": receive,
            "peer": [peer],
        }
        if tls is not None:
            tables["receive"] = {**receive, "port": setting.spare_port}
            tables["tls"] = {
                "port": setting.port, "certificate": str(tls.receiver.certificate),
                "private_key": str(tls.receiver.private_key), "trusted": str(tls.sender.certificate),
            }  # fmt: skip
            tables["peer"] = [peer | {"certificates": [tls.sender.fingerprint]}]
        return Config.model_validate(tables)


@dataclass(frozen=True, slots=True)
class StoreScp:
    """DCMTK's storescp; it syncs nothing. One process per association where there are several."""

    name: str
    options: tuple[str, ...] = ()

    def absent(self, *, tls: bool) -> str:
        return "" if dcmtk("storescp") else "DCMTK's storescp is not installed"

    def command(self, setting: Setting) -> list[str]:
        tls = setting.certificates
        secure = [
            "+tls", str(tls.receiver.private_key), str(tls.receiver.certificate),
            "+cf", str(tls.sender.certificate),
        ] if tls else []  # fmt: skip
        return [
            dcmtk("storescp") or "storescp", "-q", "-aet", CALLED, "-dhl",
            "--fork" if setting.associations > 1 else "--single-process", *self.options,
            *(["+xa"] if setting.is_slide else []), *secure, "-od", str(setting.store), str(setting.port),
        ]  # fmt: skip

    def stdin(self, setting: Setting) -> bytes:
        return b""

    def held(self, setting: Setting) -> Held:
        return _files(setting.store)


@dataclass(frozen=True, slots=True)
class Orthanc:
    """Orthanc without its web server. By default it syncs each file, neither folder nor index."""

    name: str = "Orthanc"
    settings: dict[str, object] = field(default_factory=dict)

    def absent(self, *, tls: bool) -> str:
        return "" if shutil.which("Orthanc") else "Orthanc is not installed"

    def command(self, setting: Setting) -> list[str]:
        tls, store = setting.certificates, str(setting.store)
        secure = {
            "DicomTlsEnabled": True, "DicomTlsCertificate": str(tls.receiver.certificate),
            "DicomTlsPrivateKey": str(tls.receiver.private_key),
            "DicomTlsTrustedCertificates": str(tls.sender.certificate),
        } if tls else {}  # fmt: skip
        config = {
            "StorageDirectory": store, "IndexDirectory": store, "StorageCompression": False,
            "DicomAet": CALLED, "DicomPort": setting.port, "MaximumPduLength": PDU_BYTES,
            "DicomThreadsCount": max(4, setting.associations), "DicomAlwaysAllowStore": True,
            "UnknownSopClassAccepted": True, "OverwriteInstances": False, "HttpServerEnabled": False,
            "MaximumStorageCacheSize": 0, "SaveJobs": False, "Plugins": [],
        }  # fmt: skip
        file = setting.folder / "orthanc.json"
        file.write_text(json.dumps(config | secure | self.settings), encoding="utf-8")
        return [shutil.which("Orthanc") or "Orthanc", str(file)]

    def stdin(self, setting: Setting) -> bytes:
        return b""

    def held(self, setting: Setting) -> Held:
        with closing(sqlite3.connect(setting.store / "index")) as connection:
            count, size = connection.execute(
                "SELECT count(*), sum(uncompressedSize) FROM AttachedFiles WHERE fileType = 1"
            ).fetchone()
        return Held(int(count), int(size or 0))


class Pynetdicom:
    """The `storescp` application of pynetdicom, which this node stands on; it syncs nothing."""

    name: ClassVar[str] = "pynetdicom"

    def absent(self, *, tls: bool) -> str:
        return "pynetdicom's storescp has no TLS" if tls else ""

    def command(self, setting: Setting) -> list[str]:
        return [
            sys.executable, "-m", "pynetdicom", "storescp", "-q", "-aet", CALLED, "-ba", "127.0.0.1",
            "-pdu", str(PDU_BYTES), "-od", str(setting.store), str(setting.port),
        ]  # fmt: skip

    def stdin(self, setting: Setting) -> bytes:
        return b""

    def held(self, setting: Setting) -> Held:
        return _files(setting.store)


_LONG_PDUS = ("--max-pdu", str(PDU_BYTES))
PEERS: dict[str, tuple[Receiver, ...]] = {
    "storescp": (StoreScp("storescp +B", ("+B", *_LONG_PDUS)), StoreScp("storescp", _LONG_PDUS)),
    "storescp-defaults": (StoreScp("storescp, defaults"),),
    "orthanc": (Orthanc(),),
    "orthanc-unsynced": (Orthanc("Orthanc, unsynced", {"SyncStorageArea": False}),),
    "pynetdicom": (Pynetdicom(),),
}
"""What `--peers` names. Of two ways to run one program both run, and the faster is shown."""


@cache
def dcmtk(program: str) -> str | None:
    """The path of a program of DCMTK; pynetdicom installs others of the same names."""
    for folder in (None, "/usr/bin:/usr/local/bin:/opt/homebrew/bin"):
        if (path := shutil.which(program, path=folder)) and is_dcmtk(path):
            return path
    return None


def is_dcmtk(path: str) -> bool:
    """Whether the program says so itself."""
    said = subprocess.run(  # noqa: S603 - a program on the path, asked what it is
        [path, "--version"], capture_output=True, text=True, check=False
    )
    return "dcmtk" in said.stdout.lower()


def _files(folder: Path) -> Held:
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return Held(len(sizes), sum(sizes))
