"""A coded concept, PS3.3 8.8: value, coding scheme, meaning."""

from __future__ import annotations

from dataclasses import dataclass

from dicom_node.errors import InvalidValue


@dataclass(frozen=True, slots=True)
class Code:
    """A coded concept. `meaning` is at most 64 characters (LO)."""

    value: str
    scheme: str
    meaning: str

    def __post_init__(self) -> None:
        if not self.value or not self.scheme or not 0 < len(self.meaning) <= 64:
            raise InvalidValue(f"not a coded concept: {self.value!r}, {self.scheme!r}, {self.meaning!r}")
