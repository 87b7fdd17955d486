"""testssl.sh (Debian: testssl.sh) looks at the node's TLS ports and finds nothing, not even of severity LOW.

Asked for: protocols, suites, forward secrecy, preferences, certificate, and all vulnerabilities. The
client certificate goes in by way of the `openssl` it calls: this version has no option for one.
"""

from __future__ import annotations

import json
import shlex
import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from dicom_node.config import Config
from dicom_node.web.door import open_door
from support.certificates import Hospital, Issued, hospital
from support.ledger import Books
from support.ports import free_port
from support.secured import node
from support.tls_port import tls_port

BAD = {"LOW", "MEDIUM", "HIGH", "CRITICAL", "FATAL"}
"""This version calls TLS 1.0 and CBC suites LOW."""
CHECKS = ("--protocols", "--std", "--pfs", "--server-preference", "--server-defaults", "--vulnerable")
Opened = Callable[[Path, Hospital], AbstractContextManager[int]]
LEAST_FINDINGS = 60
"""What a scan of a port that answers reports at least, good and bad."""


@pytest.fixture
def made(tmp_path: Path) -> Hospital:
    return hospital(tmp_path / "certificates")


def scanned(
    folder: Path, made: Hospital, port: int, shown: Issued, *checks: str
) -> dict[str, tuple[str, str]]:
    """Finding -> (severity, text) of a scan of loopback `port`."""
    program = shutil.which("testssl") or shutil.which("testssl.sh")
    if program is None:
        pytest.skip("testssl.sh is not installed (Debian: apt install testssl.sh)")
    report = folder / "report.json"
    command = [
        program, "--quiet", "--color", "0", "--warnings", "batch", "--nodns", "none", "--ip", "127.0.0.1",
        "--fast", "--openssl", str(_openssl(folder, shown)), "--add-ca", str(made.authority.file), *checks,
        "--jsonfile", str(report), f"localhost:{port}",
    ]  # fmt: skip
    subprocess.run(
        command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=280, check=False
    )
    return {item["id"]: (item["severity"], item["finding"]) for item in json.loads(report.read_text())}


def _openssl(folder: Path, shown: Issued) -> Path:
    """An `openssl` whose s_client shows a certificate."""
    real = shutil.which("openssl")
    if real is None:
        pytest.skip("openssl is not installed")
    own = shlex.join(["-cert", str(shown.certificate), "-key", str(shown.private_key)])
    script = folder / "openssl"
    case = f'case "$1" in s_client) shift; exec {real} s_client {own} "$@";; esac'
    script.write_text(f'#!/bin/sh\n{case}\nexec {real} "$@"\n')
    script.chmod(0o700)
    return script


def bad(findings: dict[str, tuple[str, str]]) -> dict[str, tuple[str, str]]:
    return {name: finding for name, finding in findings.items() if finding[0] in BAD}


@contextmanager
def dicom_port(folder: Path, made: Hospital) -> Iterator[int]:
    """The TLS port of a running receiver."""
    with node(folder, made) as opened:
        yield opened.receiver.tls_port


@contextmanager
def https_port(folder: Path, made: Hospital) -> Iterator[int]:
    """STOW-RS and the pages, by TLS."""
    folder.mkdir()
    http = {"tls": True, "port": free_port()}
    config = Config.model_validate({"node": {"data_dir": str(folder)}, "tls": made.tls(), "http": http})
    books = Books(f"sqlite:///{folder / 'node.sqlite3'}", folder)
    door = open_door(config, lambda: True)
    try:
        yield door.server.port
    finally:
        door.close()
        books.engine.dispose()


@pytest.mark.slow
@pytest.mark.parametrize("opened", [dicom_port, https_port])
def test_testssl_finds_nothing(tmp_path: Path, made: Hospital, opened: Opened) -> None:
    """On the DICOM port, which requires a certificate, and on the HTTPS port, which asks for one."""
    with opened(tmp_path / "node", made) as port:
        findings = scanned(tmp_path, made, port, made.peer, *CHECKS)

    assert {} == bad(findings)
    assert LEAST_FINDINGS <= len(findings)
    assert ("OK", "offered") == findings["TLS1_2"]
    assert "offered" in findings["TLS1_3"][1]
    assert "OK" == findings["cert_chain_of_trust"][0]


def test_testssl_would_find_it(tmp_path: Path, made: Hospital) -> None:
    """The scan sees what it is for: a port that takes old versions, and lets the client choose the suite."""
    careless = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    careless.set_ciphers("ALL:@SECLEVEL=0")
    careless.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    careless.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    careless.load_cert_chain(made.node.certificate, made.node.private_key)

    with tls_port(careless) as port:
        findings = scanned(tmp_path, made, port, made.peer, "--protocols", "--server-preference")

    assert {"TLS1", "TLS1_1", "cipher_order"} <= set(bad(findings))
