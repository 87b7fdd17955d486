"""Pipelines that behave well or badly on purpose: what the sandbox must survive."""

from __future__ import annotations

import errno
import os
import time
from typing import ClassVar

from dicom_node.pipeline import (
    Case,
    Certainty,
    Code,
    Contrast,
    Findings,
    IntendedUse,
    Level,
    Need,
    OperatingPoint,
    PipelineError,
    Verdict,
)

NEOPLASM = Code("108369006", "SCT", "Neoplasm")
UTERUS = Code("35039007", "SCT", "Uterus")
SARCOMA = Code("254877001", "SCT", "Sarcoma of uterus")
LEIOMYOMA = Code("95315005", "SCT", "Uterine leiomyoma")


class _Toy:
    version: ClassVar[str] = "1.0.0"
    level: ClassVar[Level] = Level.STUDY
    needs: ClassVar[tuple[Need, ...]] = ()
    intended_use: ClassVar[IntendedUse] = IntendedUse(modalities=frozenset({"MR"}))
    models: ClassVar[tuple[str, ...]] = ()


class Answers(_Toy):
    """Says sarcoma of every study, in no time."""

    name: ClassVar[str] = "answers"
    title: ClassVar[str] = "Toy that answers"
    needs: ClassVar[tuple[Need, ...]] = (Need("t2", Contrast.T2, min_slices=2),)

    def run(self, case: Case) -> Findings:
        case.progress(0.5, "thinking")
        point = OperatingPoint(threshold=0.5, low=0.4, high=0.6, chosen_on="nothing; a toy")
        verdict = Verdict(
            finding=NEOPLASM, site=UTERUS, diagnosis=SARCOMA, certainty=Certainty.POSITIVE, probability=0.75,
            positive_class=SARCOMA, negative_class=LEIOMYOMA, operating_point=point,
            statement="Sarcoma, says a toy.",
        )  # fmt: skip
        return Findings(algorithms=(), verdict=verdict, seconds={"forward": 0.0})


class Hangs(_Toy):
    """Never comes back."""

    name: ClassVar[str] = "hangs"
    title: ClassVar[str] = "Toy that hangs"

    def run(self, case: Case) -> Findings:
        while True:
            time.sleep(0.05)


class Dies(_Toy):
    """Takes its process down, as a decoder with a memory fault would."""

    name: ClassVar[str] = "dies"
    title: ClassVar[str] = "Toy that dies"

    def run(self, case: Case) -> Findings:
        os._exit(139)


class Swells(_Toy):
    """Takes more and more memory."""

    name: ClassVar[str] = "swells"
    title: ClassVar[str] = "Toy that swells"

    def run(self, case: Case) -> Findings:
        held = []
        while True:
            held.append(os.urandom(1 << 24))
            time.sleep(0.02)


class Quotes(_Toy):
    """Fails with a text that quotes the patient, as libraries do."""

    name: ClassVar[str] = "quotes"
    title: ClassVar[str] = "Toy that quotes"

    def run(self, case: Case) -> Findings:
        raise ValueError("cannot parse CANARY^PATIENT")


class Fills(_Toy):
    """Finds the disk full."""

    name: ClassVar[str] = "fills"
    title: ClassVar[str] = "Toy that finds the disk full"

    def run(self, case: Case) -> Findings:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Declines(_Toy):
    """Fails with a sentence of the node's own family."""

    name: ClassVar[str] = "declines"
    title: ClassVar[str] = "Toy that declines"

    def run(self, case: Case) -> Findings:
        raise PipelineError("the toy declines this study")
