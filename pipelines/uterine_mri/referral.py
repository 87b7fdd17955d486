"""What the referral or an earlier report called the tumour, where the AI says otherwise."""

from __future__ import annotations

import re
from collections.abc import Iterable

_NEGATED = r"(?<!\bno )(?<!\bnot )(?<!\bwithout )(?<!\bkein )(?<!\bkeine )(?<!\bohne )"
NAMES = {
    "leiomyoma": re.compile(
        rf"{_NEGATED}\b(leiomyomas?|leiomyomata|fibroids?|myomas?|myomata|myome?n?|myomatosus)\b|筋腫", re.I
    ),
    "sarcoma": re.compile(rf"{_NEGATED}\b(leiomyo)?sarcom(a|as|ata|e)?\b|肉腫", re.I),
}
"""Words for either kind; "leiomyosarcoma" is a sarcoma and never a leiomyoma."""


def named(texts: Iterable[str]) -> frozenset[str]:
    """Which of `leiomyoma` and `sarcoma` the texts name, other than to deny it right before the word."""
    joined = "\n".join(texts)
    return frozenset(kind for kind, words in NAMES.items() if words.search(joined))


def disagreement(referral: str, reports: Iterable[str], ai_says: str) -> str | None:
    """A sentence where earlier text names only the other kind than `ai_says`; None where it does not.

    The text itself is not quoted: it is the patient's.
    """
    other = "leiomyoma" if ai_says == "sarcoma" else "sarcoma"
    sources = (("the referral", [referral]), ("an earlier report", list(reports)))
    where = [name for name, texts in sources if named(texts) == {other}]
    if not where:
        return None
    return f"Disagreement: {' and '.join(where)} named {other}, the AI says {ai_says}"
