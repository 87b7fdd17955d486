"""Two key pairs for measuring TLS: the receiver's and the sender's, each trusted by the other.

RSA of 2048 bits, since every profile of DCMTK takes it (PS3.15 B.12).
"""

from __future__ import annotations

import shutil
import ssl
import subprocess
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from dicom_node.errors import DicomNodeError


@dataclass(frozen=True, slots=True)
class Pair:
    """PEM files."""

    private_key: Path
    certificate: Path

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate, hexadecimal."""
        return sha256(ssl.PEM_cert_to_DER_cert(self.certificate.read_text(encoding="ascii"))).hexdigest()


@dataclass(frozen=True, slots=True)
class Certificates:
    receiver: Pair
    sender: Pair


def made(folder: Path) -> Certificates | None:
    """Fresh pairs in `folder`; None where there is no openssl program."""
    program = shutil.which("openssl")
    if program is None:
        return None
    return Certificates(_pair(program, folder, "receiver"), _pair(program, folder, "sender"))


def _pair(program: str, folder: Path, name: str) -> Pair:
    pair = Pair(folder / f"{name}.key", folder / f"{name}.crt")
    done = subprocess.run(  # noqa: S603 - openssl as it is installed
        [
            program, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-sha256", "-days", "2",
            "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost",
            "-keyout", str(pair.private_key), "-out", str(pair.certificate),
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise DicomNodeError(f"openssl made no certificate: {done.stderr.strip()[-200:]}")
    return pair
