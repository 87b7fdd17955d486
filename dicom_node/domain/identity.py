"""Names that come from outside, valid when constructed.

A `UID`, an `AETitle` or a `Digest` in this program has been checked once, at the door;
nothing else may hold one. None of them is ever used as a path except a `Digest`.
"""

from __future__ import annotations

import re
from functools import lru_cache

from dicom_node.errors import InvalidValue

_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_AE_TITLE = re.compile(r"[ -\[\]-~]{1,16}")  # G0 repertoire without backslash, PS3.5 6.2
_DIGEST = re.compile(r"[0-9a-f]{64}")


class UID(str):
    """A unique identifier, PS3.5 9.1: digits and dots, at most 64 characters.

    Leading zeros in a component are tolerated: real scanners write them, and a UID never
    becomes a file name here.
    """

    __slots__ = ()

    def __new__(cls, value: str) -> UID:
        text = str(value).rstrip("\0 ")
        if len(text) > 64 or not _UID.fullmatch(text):
            raise InvalidValue(f"not a UID (PS3.5 9.1): {text[:80]!r}")
        return super().__new__(cls, text)


@lru_cache(maxsize=1024)
def known_uid(value: str) -> UID:
    """As `UID(value)`, for what comes again and again: classes, transfer syntaxes, studies, series."""
    return UID(value)


class AETitle(str):
    """An application entity title, PS3.5 6.2: 1 to 16 printable characters, no backslash."""

    __slots__ = ()

    def __new__(cls, value: str) -> AETitle:
        text = str(value).strip(" \0")
        if not _AE_TITLE.fullmatch(text):
            raise InvalidValue(f"not an AE title (PS3.5 6.2): {text[:40]!r}")
        return super().__new__(cls, text)


class Digest(str):
    """The digest of a file's bytes, 64 lower-case hexadecimal digits; names it in the archive."""

    __slots__ = ()

    def __new__(cls, value: str) -> Digest:
        if not _DIGEST.fullmatch(str(value)):
            raise InvalidValue(f"not a digest: {str(value)[:80]!r}")
        return super().__new__(cls, value)
