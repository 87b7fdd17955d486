"""Values that must be found nowhere they do not belong: one of its own in every text attribute.

`Canaries` hands them out: letters where the value representation allows them (`ZQX00017Q`), else numbers,
dates and times that nothing else has. Age (AS) has too few characters for one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

from pydicom.datadict import DicomDictionary
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

LETTERED = ("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT")
NUMBERED = ("DA", "DS", "DT", "IS", "TM", "UI")
HOSTILE = ("LT", "ST", "UT", "UC")
"""These take line ends and escapes; a canary in them comes with both."""
KEPT = {
    "SpecificCharacterSet", "NumberOfFrames", "RescaleSlope", "RescaleIntercept", "PixelPaddingValue",
    "LossyImageCompression", "NumberOfTemporalPositions", "TemporalPositionIdentifier",
    "TimezoneOffsetFromUTC", "PixelDataProviderURL",
}  # fmt: skip
"""They say how to read or sort the images; another value would make others of them."""


class Canaries:
    """Mutable: how many were handed out."""

    def __init__(self) -> None:
        self._given: list[str] = []

    def word(self) -> str:
        """Nine characters that CS and AE allow, too."""
        return self._give(f"ZQX{len(self._given):05d}Q")

    def of(self, vr: str) -> str:
        """A value of this representation with a canary in it."""
        if vr in HOSTILE:
            return f"{self.word()}\r\n\x1b[31m{self.word()} ü"
        if vr == "PN":
            return f"{self.word()}^{self.word()}^Ä=山田^太郎"
        if vr in LETTERED:
            return self.word()
        n = len(self._given)
        if vr == "DA":
            return self._give(f"{7000 + n // 336}{n // 28 % 12 + 1:02d}{n % 28 + 1:02d}")
        number = self._give(f"77{n:05d}33" if vr in ("UI", "DS", "IS") else f"040506.7{n:05d}")
        return {"UI": f"2.25.{number}", "DT": f"19010203{number}"}.get(vr, number)

    def spoilt(self, content: bytes) -> bytes:
        """An encoded data set with words where numbers, dates, times and UIDs had their canaries."""
        for number in [canary for canary in self._given if not canary.startswith("Z")]:
            if number.encode() in content:
                word = self._give(f"ZQ{len(self._given):05d}Q").ljust(len(number))
                content = content.replace(number.encode(), word.encode())
        return content

    def hits(self, text: bytes) -> set[str]:
        """Those that `text` holds."""
        return {canary for canary in self._given if canary.encode() in text}

    @property
    def given(self) -> set[str]:
        return set(self._given)

    def _give(self, canary: str) -> str:
        self._given.append(canary)
        return canary


def planted_series(series: list[Dataset], canaries: Canaries) -> list[Dataset]:
    """All of them like the first, with the same canaries, but for what makes each image another one."""
    whole = planted(deepcopy(series[0]), canaries)
    made = []
    for image in series:
        other = deepcopy(whole)
        for keyword in ("SOPInstanceUID", "InstanceNumber", "ImagePositionPatient", "PixelData"):
            setattr(other, keyword, getattr(image, keyword))
        made.append(other)
    return made


def planted(ds: Dataset, canaries: Canaries) -> Dataset:
    """`ds` with a canary in every text attribute it does not need itself; sequences, private tags too."""
    for tag, (vr, _, _, _, keyword) in DicomDictionary.items():
        wanted = vr in (*LETTERED, *NUMBERED) and 0x0008 <= tag >> 16 < 0x7FE0 and keyword not in KEPT
        if wanted and keyword and tag not in ds:
            ds.add_new(tag, vr, canaries.of(vr))
    for vr in (*LETTERED, *NUMBERED):
        ds.private_block(0x0099, "CANARIES", create=True).add_new(
            (*LETTERED, *NUMBERED).index(vr) + 1, vr, canaries.of(vr)
        )
    ds.private_block(0x009B, canaries.word(), create=True).add_new(0x01, "LO", canaries.word())
    ds.PatientName, ds.PatientID = canaries.of("PN"), canaries.word()
    ds.AccessionNumber, ds.PatientBirthDate = canaries.word(), "19010203"
    ds.SeriesDescription, ds.Manufacturer = f"t2 {canaries.word()}", canaries.word()
    ds.RequestAttributesSequence = Sequence([_item(canaries)])
    ds.OtherPatientIDsSequence = Sequence([_item(canaries)])
    return ds


def _item(canaries: Canaries) -> Dataset:
    inner, item = Dataset(), Dataset()
    inner.CodeMeaning, inner.CodeValue = canaries.word(), canaries.word()
    item.PatientID, item.RequestedProcedureDescription = canaries.word(), canaries.word()
    item.ReasonForTheRequestedProcedure = canaries.word()
    item.RequestedProcedureCodeSequence = Sequence([inner])
    return item


def every_file(folder: Path) -> Iterator[Path]:
    yield from (path for path in sorted(folder.rglob("*")) if path.is_file())


def decoded(lines: bytes) -> bytes:
    """A log of JSON lines as it stands, and again with JSON's escapes undone."""
    values = [json.loads(line) for line in lines.splitlines() if line.startswith(b"{")]
    return lines + "\n".join(repr(value) for value in values).encode()
