"""What an object says of itself, read from untrusted bytes: `identify` and `read_header`."""

from __future__ import annotations

from dicom_node.dicom.identity import Identity, identify

__all__ = ["Identity", "identify"]
