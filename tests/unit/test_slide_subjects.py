"""A pipeline that takes slides is asked about each slide of a study by itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from dicom_node.assemble.study import read_study
from dicom_node.domain.job import Level
from dicom_node.domain.series import Study
from dicom_node.node.flow import of_subject, subjects
from dicom_node.pipeline import Case, Findings, IntendedUse, SlideNeed
from support import mr, slides
from support.slides import Scan
from support.stored import stored


class EachSlide:
    name: ClassVar[str] = "each_slide"
    version: ClassVar[str] = "1"
    title: ClassVar[str] = "Each slide"
    level: ClassVar[Level] = Level.SLIDE
    needs: ClassVar[tuple[SlideNeed, ...]] = (SlideNeed("slide", 0.5, required=True),)
    intended_use: ClassVar[IntendedUse] = IntendedUse(frozenset({"SM"}))
    models: ClassVar[tuple[str, ...]] = ()

    def run(self, case: Case) -> Findings:
        raise AssertionError(case)


def study_of(folder: Path, scans: Mapping[str, Scan]) -> Study:
    paths = [path for name, scan in scans.items() for path in slides.write(scan, folder / name)]
    members = slides.read(paths)
    return read_study(members[0].study_uid, 1, members)


def test_each_slide_is_asked_about_alone_with_all_its_series(tmp_path: Path) -> None:
    """Two slides of a study, one with a plane in each instance; nothing of the other is in sight."""
    one = Scan(series=3, container="A", frame_of_reference="2.25.71", levels=2)
    other = Scan(series=4, container="B", frame_of_reference="2.25.72", planes=2, layout="planes", seed=2)
    study = study_of(tmp_path, {"one": one, "other": other})

    found = subjects(EachSlide, study)

    assert [[3], [4]] == [[slide.series_number for slide in part.slides] for _, part in found]
    assert [2, 2] == [len(part.instances) for _, part in found]
    assert 2 == len({uid for uid, _ in found})
    for uid, part in found:
        assert part.slides == of_subject(study, uid).slides


def test_a_study_without_a_slide_is_asked_about_as_a_whole(tmp_path: Path) -> None:
    """So that it can be said why nothing was performed."""
    members = stored(mr.mr_series(slices=3), tmp_path)
    study = read_study(members[0].study_uid, 1, members)

    ((uid, part),) = subjects(EachSlide, study)

    assert study.uid == uid and study is part
