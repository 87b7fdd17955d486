"""A multipart/related body as it streams in (RFC 2046 5.1, RFC 2387; PS3.18 8.6.1.2).

The parser is python-multipart's, which is a push parser and asks for no particular subtype; what
it leaves open is decided here: limits on boundary, headers and number of parts, and that a body
without its closing delimiter is no message. Nothing of a part is kept: its bytes go to the sink
as views of what was fed.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from dicom_node.errors import DicomNodeError

HEADERS_PER_PART = 8
HEADER_BYTES = 1024
"""Of one header line; Content-Type and Content-Location are all that PS3.18 knows of."""

# The characters of RFC 2046 5.1.1. It allows 70 of them; Orthanc's DICOMweb plugin sends 73.
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]{0,127}[0-9A-Za-z'()+_,\-./:=?]")

_library = logging.getLogger("python_multipart")
_library.addHandler(logging.NullHandler())  # its warnings quote bytes of the body; the reason is ours to tell
_library.propagate = False


class Malformed(DicomNodeError):
    """The request is not what its media type says it is."""

    dimse_status: ClassVar[int] = 0xC000  # Cannot understand
    http_status: ClassVar[int] = 400


class TooMany(DicomNodeError):
    """The request has more parts than are taken at once; send it in several."""

    dimse_status: ClassVar[int] = 0xA700  # Out of Resources
    http_status: ClassVar[int] = 413


@dataclass(frozen=True, slots=True)
class MediaType:
    """A Content-Type: `name` in lower case, parameters by their name in lower case."""

    name: str
    parameters: Mapping[str, str]

    @staticmethod
    def of(header: str) -> MediaType:
        name, parameters = parse_options_header(header)
        return MediaType(
            name.decode("latin-1").lower(),
            {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in parameters.items()},
        )


def boundary_of(media_type: MediaType) -> str:
    """Raises Malformed where there is none, one of other characters, or of more than 128."""
    boundary = media_type.parameters.get("boundary", "")
    if not _BOUNDARY.fullmatch(boundary):
        raise Malformed("the Content-Type has no boundary, or none that RFC 2046 allows")
    return boundary


class Sink(Protocol):
    """What becomes of the parts, in the order of the body."""

    def begin(self, headers: Mapping[str, str]) -> None: ...
    def write(self, fragment: memoryview) -> None: ...
    def end(self) -> None: ...


class Parts:
    """Feeds the parts of one body to `sink`. Mutable: the parser, and the header line being read.

    What the sink raises comes out of `feed`.
    """

    def __init__(self, boundary: str, sink: Sink, *, at_most: int) -> None:
        self._sink = sink
        self._at_most = at_most
        self._count = 0
        self._complete = False
        self._name, self._value = bytearray(), bytearray()
        self._headers: dict[str, str] = {}
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part_begin, "on_header_field": self._header_field,
                "on_header_value": self._header_value, "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished, "on_part_data": self._part_data,
                "on_part_end": sink.end, "on_end": self._end,
            },
            max_header_count=HEADERS_PER_PART, max_header_size=HEADER_BYTES,
        )  # fmt: skip

    def feed(self, chunk: bytes) -> None:
        """The next bytes of the body. Raises Malformed or TooMany; then no more may be fed."""
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise Malformed("the body is not multipart with the boundary of its Content-Type") from error

    def finish(self) -> None:
        """After the last byte. Raises Malformed when the closing delimiter has not come."""
        if not self._complete:
            raise Malformed("the body ends before its closing delimiter")
        if not self._count:
            raise Malformed("the body has no parts")

    def _part_begin(self) -> None:
        self._count += 1
        if self._count > self._at_most:
            raise TooMany(f"the request has more than {self._at_most} parts; send it in several")
        self._headers = {}

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._name.decode("latin-1").lower()] = self._value.decode("latin-1").strip()
        self._name.clear()
        self._value.clear()

    def _headers_finished(self) -> None:
        self._sink.begin(self._headers)

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        self._sink.write(memoryview(data)[start:end])

    def _end(self) -> None:
        self._complete = True
