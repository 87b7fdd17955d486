"""The words that came with a study: the referral in an image's header, the text of a report.

Both are free text about a person: they are kept in the header extract, shown to people
behind login, compared with the verdict, and never logged.
"""

from __future__ import annotations

from collections.abc import Iterable

from pydicom.dataset import Dataset

from dicom_node.dicom import values

_CONTENT, _REQUEST = 0x0040A730, 0x00400275
_DEEPEST, _LONGEST, _MOST_NODES = 64, 65536, 20000

_REFERRAL_TEXT = (
    0x00401002,  # Reason for the Requested Procedure
    0x00321060,  # Requested Procedure Description
    0x00321030,  # Reason for Study (retired)
    0x00321066,  # Reason for Visit
    0x00081080,  # Admitting Diagnoses Description
    0x001021B0,  # Additional Patient History
    0x00324000,  # Study Comments (retired)
    0x00104000,  # Patient Comments
    0x00400007,  # Scheduled Procedure Step Description
)
_REFERRAL_CODES = (
    0x0040100A,  # Reason for Requested Procedure Code Sequence
    0x00321067,  # Reason for Visit Code Sequence
    0x00081084,  # Admitting Diagnoses Code Sequence
    0x00321064,  # Requested Procedure Code Sequence
)
WANTED = frozenset((*_REFERRAL_TEXT, *_REFERRAL_CODES, _REQUEST, _CONTENT))


def codes(data_set: Dataset, tag: int) -> list[list[str]]:
    """The coded concepts of a sequence as [value, scheme, meaning]."""
    return [
        [_code_value(item), values.text(item, 0x00080102, 16), values.text(item, 0x00080104, 64)]
        for item in values.items(data_set, tag)[:32]
    ]


def referral(data_set: Dataset) -> str:
    """Why the patient was sent, one statement per line, without repeats."""
    lines: list[str] = []
    for source in (data_set, *values.items(data_set, _REQUEST)[:16]):
        lines += [values.text(source, tag) for tag in _REFERRAL_TEXT]
        lines += [meaning for tag in _REFERRAL_CODES for _, _, meaning in codes(source, tag)]
    return "\n".join(_unique(lines))


def report_text(data_set: Dataset) -> str:
    """Plain text of an SR's content tree (PS3.3 C.17.3), one `name: value` per line.

    Persons' names are left out. At most 64 KiB from at most 64 levels.
    """
    lines: list[str] = []
    waiting = [(item, 1) for item in reversed(values.items(data_set, _CONTENT))]
    size = nodes = 0
    while waiting and size < _LONGEST and nodes < _MOST_NODES:
        node, depth = waiting.pop()
        nodes += 1
        if line := _line(node):
            lines.append(line)
            size += len(line)
        if depth < _DEEPEST:
            waiting += [(child, depth + 1) for child in reversed(values.items(node, _CONTENT))]
    return "\n".join(lines)[:_LONGEST]


def _line(node: Dataset) -> str:
    name = " ".join(meaning for _, _, meaning in codes(node, 0x0040A043))
    value = values.text(node, 0x0040A160, _LONGEST) or " ".join(m for _, _, m in codes(node, 0x0040A168))
    if not value:
        measured = [values.text(item, 0x0040A30A, 64) for item in values.items(node, 0x0040A300)[:1]]
        value = " ".join(measured)
    return f"{name}: {value}" if name and value else value or name


def _code_value(item: Dataset) -> str:
    return values.text(item, 0x00080100, 16) or values.text(item, 0x00080119, 256)


def _unique(lines: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(line for line in lines if line))
