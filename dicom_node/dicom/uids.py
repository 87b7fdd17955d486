"""UIDs of what the node makes: derived, so that a repeat is the same object.

`2.25.` and a name-based UUID (PS3.5 B.2): the same parts give the same UID on any machine,
so a result made twice is one object in the PACS.
"""

from __future__ import annotations

import uuid

from dicom_node.domain.identity import UID

_NAMESPACE = uuid.UUID("7b5f4c3e-3f0c-5d0a-9a54-6f0d1c0de001")


def derived_uid(*parts: object) -> UID:
    """A UID from parts, in order; at most 44 characters."""
    name = "\x1f".join(str(part) for part in parts)
    return UID(f"2.25.{uuid.uuid5(_NAMESPACE, name).int}")


IMPLEMENTATION_CLASS_UID = derived_uid("dicom-node", "implementation class")
IMPLEMENTATION_VERSION = "DICOM_NODE_0.1"
"""Implementation Version Name, PS3.7 D.3.3.2: at most 16 characters."""
