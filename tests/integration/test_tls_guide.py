"""The commands and settings of docs/operating.md, section TLS, work as they stand there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dicom_node.config import load
from dicom_node.node.certificates import certificates
from dicom_node.tls import server_context
from support.certificates import Issued
from support.source import ROOT
from support.tls_port import GREETING, s_client, tls_port

GUIDE = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
TLS = GUIDE.split("\n## TLS\n")[1].split("\n## ")[0]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TLS, re.M | re.S)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A folder in which the first script was run."""
    return run(tmp_path, blocks("sh")[0])


def run(folder: Path, script: str) -> Path:
    for program in ("bash", "openssl"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    done = subprocess.run(
        ["bash", "-eu", "-c", script], cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert 0 == done.returncode, done.stderr
    (folder / "said").write_text(done.stdout)
    return folder


def config_file(folder: Path, *lines: str) -> Path:
    """The page's settings, with the fingerprint that the script printed."""
    printed = (folder / "said").read_text().strip()
    text = re.sub(r'certificates = \["[0-9A-F:]+"\]', f'certificates = ["{printed}"]', blocks("toml")[0])
    (folder / "tls").mkdir()
    for name in ("node.crt", "node.key", "ca.crt"):
        shutil.copy(folder / name, folder / "tls" / name)
    path = folder / "node.toml"
    path.write_text(text.replace("[tls]\n", "\n".join(["[tls]", *lines, ""])))
    return path


def test_what_the_commands_make_is_taken(made: Path) -> None:
    """A small authority, a node and a peer by copy and paste: checked, served, and let in."""
    config = load(config_file(made), {})
    pacs = Issued(made / "pacs.crt", made / "pacs.key")

    assert certificates(config, datetime.now(UTC)).startswith("the certificate is good for 799 days")
    assert pacs.fingerprint in config.peers["pacs"].certificates
    with tls_port(server_context(config.tls)) as port:
        assert GREETING.decode() in s_client(
            port, pacs, "-CAfile", str(made / "ca.crt"), "-verify_return_error"
        )


def test_what_the_commands_revoke_is_refused(made: Path) -> None:
    """The second script makes the list; the peer it names is out, the list itself is in order."""
    config = load(config_file(made, 'revoked = "revoked.pem"'), {})
    run(made, blocks("sh")[1])

    assert certificates(config, datetime.now(UTC))
    with tls_port(server_context(config.tls)) as port:
        assert GREETING.decode() not in s_client(port, Issued(made / "pacs.crt", made / "pacs.key"))
        assert GREETING.decode() in s_client(port, Issued(made / "node.crt", made / "node.key"))


def test_orthancs_settings_are_json() -> None:
    """And name what this page names."""
    (settings,) = map(json.loads, blocks("json"))

    assert "DICOMNODE" == settings["DicomModalities"]["dicomnode"]["AET"]
    assert settings["DicomTlsRemoteCertificateRequired"] is True
