"""What `dicom-node audit` shows and says."""

from __future__ import annotations

import os
import pwd

from dicom_node.audit import report
from dicom_node.audit.chain import Anchor, Verdict, verify
from dicom_node.audit.events import Used
from dicom_node.audit.report import Row
from dicom_node.audit.trail import Trail
from dicom_node.config import Config
from dicom_node.errors import AuditError


def shown(config: Config, since: str | None) -> list[Row]:
    """The records since then, oldest first; that they were read is a record, too (A.5.3.2).

    Raises AuditError, InvalidValue.
    """
    folder, after = config.audit_folder, report.since(since)
    rows = report.rows(folder, after)
    if folder.is_dir() and folder.stat().st_uid == os.geteuid():  # else the node could not write its own file
        Trail(folder, config.node.ae_title).record(Used(_account(), folder.as_uri()))
    return rows


def verdict(config: Config, anchor: str | None) -> Verdict:
    """Raises AuditError where there is no trail, or the anchor is none."""
    if not config.audit_folder.is_dir():
        raise AuditError(f"there is no audit trail in {config.audit_folder}")
    return verify(config.audit_folder, Anchor.of(anchor) if anchor else None)


def sentences(verdict: Verdict) -> list[str]:
    """For people: what was found, and the head to keep elsewhere."""
    if verdict.broken:
        return [*verdict.notes, f"BROKEN  {verdict.broken}"]
    held = f"{verdict.records} records, {verdict.first} to {verdict.head.seq}"
    return [*verdict.notes, f"whole: {held}", f"head: {verdict.head.seq}:{verdict.head.hash}"]


def checked(config: Config) -> str:
    """For `check`: whether records can be written, and the chain holds. Raises AuditError."""
    folder = config.audit_folder
    if not folder.is_dir():
        return f"no record yet; they will be in {folder}"
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise AuditError(f"{folder} cannot be written: no event would be recorded")
    found = verify(folder)
    if found.broken:
        raise AuditError(f"the chain is broken at {found.broken}; `dicom-node audit --verify`")
    return f"{found.records} records, whole"


def _account() -> str:
    """Who asks, as the system knows: the one who logged in, where `sudo` says so."""
    known = os.environ.get("SUDO_USER", "")
    try:
        return known or pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
