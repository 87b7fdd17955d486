"""README's pictures: a generated study and its results, photographed in OHIF.

    $ make pictures

Nobody was scanned for them: the study is the demo's phantom, by the same commands.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom import dcmread

from dicom_node.demo.demo import PHANTOM
from dicom_node.domain.identity import UID
from dicom_node.domain.job import ResultKind, ResultObject
from support.viewers.archive import archive
from support.viewers.browser import Browser, Photograph, chromium
from support.viewers.ohif import Ohif, served

NAMES = {
    ResultKind.SC: "ohif-page", ResultKind.SR: "ohif-report", ResultKind.ROI: "ohif-outline",
    ResultKind.PM: "ohif-heatmap",
}  # fmt: skip
_WIDTH, _COLOURS = 920, 256


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, archive(Path(scratch) / "orthanc") as pacs:
        sources, results = _made(Path(scratch))
        pacs.store([*sources, *results])
        study = str(dcmread(sources[0], specific_tags=["StudyInstanceUID"]).StudyInstanceUID)
        with served(pacs.prefixes) as site, chromium() as browser:
            for path in results:
                result = _read(path)
                if result.kind in NAMES:
                    _written(_photographed(browser, site.url, study, result), folder / NAMES[result.kind])


def _made(scratch: Path) -> tuple[list[Path], list[Path]]:
    """(images, results) by `dicom-node phantom` and `dicom-node run`."""
    program = [sys.executable, "-m", "dicom_node.cli"]
    made, out = scratch / "phantom", scratch / "results"
    subprocess.run([*program, "phantom", "--out", str(made), *PHANTOM], check=True, stdout=subprocess.DEVNULL)
    (study,) = (path for path in made.iterdir() if path.is_dir())
    subprocess.run(
        [*program, "run", "uterine_mri", str(study), "--out", str(out)], check=True, stdout=subprocess.DEVNULL
    )
    return sorted(study.rglob("*.dcm")), sorted(out.rglob("*.dcm"))


def _read(path: Path) -> ResultObject:
    """A result's file, `01-sr.dcm`: its name ends in its kind."""
    header = dcmread(path, stop_before_pixels=True)
    return ResultObject(
        kind=ResultKind(path.stem.partition("-")[2]), sop_class_uid=UID(header.SOPClassUID),
        sop_instance_uid=UID(header.SOPInstanceUID), series_uid=UID(header.SeriesInstanceUID),
        content=path.read_bytes(),
    )  # fmt: skip


def _photographed(browser: Browser, home: str, study: str, result: ResultObject) -> Photograph:
    with browser.tab(home) as tab:
        viewer = Ohif(tab)
        viewer.open(study)
        viewer.show(result)
        return viewer.photograph(f"picture {result.kind}")


def _written(picture: Photograph, target: Path) -> None:
    """Smaller and of few colours: some 100 kB."""
    image = Image.fromarray(np.ascontiguousarray(picture))
    image = image.resize((_WIDTH, round(_WIDTH * image.height / image.width)), Image.Resampling.LANCZOS)
    few = image.quantize(_COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    few.save(target.with_suffix(".png"), optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
