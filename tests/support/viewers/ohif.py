"""OHIF as its makers publish it, with one DICOMweb archive: what it shows, and where in the patient.

A study is opened by its address, as a PACS would call it up, and an object by a double click on its
series, as a person would. Geometry is asked of the viewer's own camera, so that what is expected
on the screen is computed from the patient's millimetres alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom import dcmread

from dicom_node.domain.job import ResultKind, ResultObject
from dicom_node.domain.series import Stack
from support.viewers.browser import Photograph, Tab
from support.viewers.package import Package, published
from support.viewers.site import Site

DIST = Package(
    "@ohif/app", "3.13.2",
    "sha512-WZdxmpmG7rqFgW9ZJLcbgr3XCtLi1KDNPoMaeY5PPe6j4G4fjEjjkycZM6C6Zk2F87BKxFfpq+jd5xXZB9E8EA==",
)  # fmt: skip
CONFIGURATION = b"""window.config = {
  name: 'viewers', routerBasename: null, extensions: [], modes: [], customizationService: {},
  showStudyList: true, maxNumberOfWebWorkers: 2, showWarningMessageForCrossOrigin: false,
  showCPUFallbackMessage: false, showLoadingIndicator: true, strictZSpacingForVolumeViewport: true,
  investigationalUseDialog: { option: 'never' }, showErrorDetails: 'always',
  maxNumRequests: { interaction: 20, thumbnail: 5, prefetch: 10 }, defaultDataSourceName: 'archive',
  dataSources: [{
    namespace: '@ohif/extension-default.dataSourcesModule.dicomweb', sourceName: 'archive',
    configuration: {
      friendlyName: 'archive', name: 'archive', wadoUriRoot: location.origin + '/wado',
      qidoRoot: location.origin + '/dicom-web', wadoRoot: location.origin + '/dicom-web',
      qidoSupportsIncludeField: false, supportsReject: false, imageRendering: 'wadors',
      thumbnailRendering: 'wadors', enableStudyLazyLoad: true, supportsFuzzyMatching: false,
      supportsWildcard: true, dicomUploadEnabled: false, omitQuotationForMultipartRequest: true,
      bulkDataURI: { enabled: true, relativeResolution: 'studies' },
    },
  }],
};"""

_FIRST = """const v = window.cornerstone && cornerstone.getRenderingEngines()[0]?.getViewports()[0];
  if (!v) return null;"""
_DRAWN = f"() => {{ {_FIRST} return v.getActors?.().length > 0 && v.getCurrentImageId?.(); }}"
_SHOWN = {
    ResultKind.SR: "() => document.body.innerText.includes('Qualitative Evaluations')",
    ResultKind.ROI: "() => document.querySelector('svg.svg-layer polyline')",
    ResultKind.SEG: f"() => {{ {_FIRST} return v.getActors().length > 1; }}",
    ResultKind.PM: f"() => {{ {_FIRST} return v.getActors().length > 1; }}",
}
"""When a double click on a series of this kind has had its effect."""
_IMAGE_OF = f"series => {{ {_FIRST} return (v.getCurrentImageId() || '').includes(series); }}"
_TOAST = "() => !document.querySelector('[data-sonner-toast]')"
_CAMERA = f"""() => {{ {_FIRST}
  const r = v.canvas.getBoundingClientRect();
  return {{ left: r.left, top: r.top, width: r.width, height: r.height,
    at: v.canvasToWorld([0.5, 0.5]), right: v.canvasToWorld([1.5, 0.5]), down: v.canvasToWorld([0.5, 1.5]) }};
}}"""
_TURN = f"""async point => {{ {_FIRST}
  const away = (a, b) => Math.hypot(...a.map((value, axis) => value - b[axis]));
  if (v.type === 'stack') {{
    const plane = id => cornerstone.metaData.get('imagePlaneModule', id);
    const from = v.getImageIds().map(id => plane(id).imagePositionPatient);
    const best = from.map((position, place) => [away(position, point), place]).sort((a, b) => a[0] - b[0])[0];
    await v.setImageIdIndex(best[1]);
  }} else {{
    const {{ focalPoint, position, viewPlaneNormal: n }} = v.getCamera();
    const by = focalPoint.reduce((sum, value, axis) => sum + (point[axis] - value) * n[axis], 0);
    const moved = from => from.map((value, axis) => value + by * n[axis]);
    v.setCamera({{ focalPoint: moved(focalPoint), position: moved(position) }});
  }}
  v.render();
}}"""


@dataclass(frozen=True)
class View:
    """Where the first viewport is on the page, in page pixels, and in the patient, LPS mm."""

    left: int
    top: int
    width: int
    height: int
    origin_mm: npt.NDArray[np.float64]
    """Of the upper left pixel's centre."""
    right_mm: npt.NDArray[np.float64]
    """One page pixel to the right."""
    down_mm: npt.NDArray[np.float64]

    def cut(self, photograph: Photograph) -> Photograph:
        """The viewport out of a photograph of the page."""
        return photograph[self.top : self.top + self.height, self.left : self.left + self.width]


class Ohif:
    """A page of OHIF with one study open."""

    def __init__(self, tab: Tab) -> None:
        self.tab = tab

    def open(self, study_uid: str) -> None:
        """Until the first image is drawn; the tour for new users is skipped."""
        self.tab.open(f"/viewer?StudyInstanceUIDs={study_uid}")
        self.tab.until(_DRAWN)
        skip = self.tab.page.get_by_text("Skip all").first
        skip.wait_for(timeout=30_000)
        skip.click()

    def listed(self) -> list[str]:
        """The Series Descriptions in the list of the study, from the top."""
        labels = "e => e.map(label => label.innerText)"
        answer = self.tab.page.eval_on_selector_all("[data-cy=series-description-label]", labels)
        return [str(label) for label in answer]

    def show(self, result: ResultObject) -> None:
        """A result's series, until it is drawn; a Segmentation is opened when OHIF asks whether to."""
        data_set = dcmread(BytesIO(result.content), stop_before_pixels=True)
        label = self.tab.page.get_by_text(str(data_set.SeriesDescription), exact=True).first
        label.scroll_into_view_if_needed()
        label.dblclick()
        if (shown := _SHOWN.get(result.kind)) is not None:
            self.tab.until(shown)
        else:
            self.tab.until(_IMAGE_OF, result.series_uid)
        if result.kind is ResultKind.SEG:
            self.tab.page.get_by_text("Yes", exact=True).first.click()
        self.tab.until(_TOAST)

    def turn_to(self, stack: Stack, place: int) -> View:
        """Show the slice of a stack in the first viewport; answers where it then is."""
        self.tab.evaluate(_TURN, [float(value) for value in stack.frames[place].position_mm])
        return self.view()

    def view(self) -> View:
        seen = self.tab.evaluate(_CAMERA)
        at, right, down = (np.array(seen[name], dtype=np.float64) for name in ("at", "right", "down"))
        left, top, width, height = (round(seen[name]) for name in ("left", "top", "width", "height"))
        return View(left, top, width, height, origin_mm=at, right_mm=right - at, down_mm=down - at)

    def photograph(self, name: str) -> Photograph:
        """When two in a row are alike: images and overlays arrive one after the other."""
        before = self.tab.photograph(name)
        for _ in range(40):
            self.tab.page.wait_for_timeout(400)
            after = self.tab.photograph(name)
            if np.array_equal(before, after):
                return after
            before = after
        raise AssertionError(f"the page does not come to rest: {name}")

    def labels(self) -> list[str]:
        """What is written beside annotations in the image."""
        answer = self.tab.page.eval_on_selector_all("svg.svg-layer text", "e => e.map(t => t.textContent)")
        return [str(label) for label in answer]

    def outlines(self) -> list[npt.NDArray[np.float64]]:
        """The annotations drawn: (points, 2) columns and rows in pixels of the viewport."""
        script = "e => e.map(line => [...line.points].map(point => [point.x, point.y]))"
        answer = self.tab.page.eval_on_selector_all("svg.svg-layer polyline", script)
        return [np.array(points, dtype=np.float64) for points in answer]


def dist() -> Path:
    """OHIF's files; the test is skipped aloud where they cannot be had."""
    return published(DIST, "dist")


@contextmanager
def served(prefixes: dict[str, str]) -> Iterator[Site]:
    """OHIF before an archive."""
    with Site(dist(), made={"/app-config.js": CONFIGURATION}, proxied=prefixes) as site:
        yield site
