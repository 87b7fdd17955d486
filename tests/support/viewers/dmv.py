"""dicom-microscopy-viewer as its makers publish it (the engine of Slim), on a bare page of its own.

The page shows one slide and, over it, what one series of results holds, by the viewer's own
interface. The place of a pixel of the slide on the page is asked of the viewer's own map.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO

import numpy as np
import numpy.typing as npt
from pydicom import dcmread

from dicom_node.domain.job import ResultObject
from support.viewers.browser import Photograph, Tab
from support.viewers.package import Package, published
from support.viewers.site import Site

VIEWER = Package(
    "dicom-microscopy-viewer", "0.48.24",
    "sha512-016o/23eNqXMxgX5EjnDmFz1ROSMQmU7vmRlTVPUgshl6NaBrZzEyWkzq4BNaFFPfrE274AWdR5crW51cWh+9g==",
)  # fmt: skip
CLIENT = Package(
    "dicomweb-client", "0.11.3",
    "sha512-7t1Rc/01fyFnKlQeNPW9Pvxvmsx8R/BgB2n7BxTuWirRFwlTC5upEeLeS3vO72P+n6/SQZ3+5ij0bgaWDHQG/A==",
)  # fmt: skip
PAGE = b"""<!doctype html><html><head><meta charset="utf-8"><title>slide</title></head>
<body style="margin:0"><div id="view" style="width:1000px;height:760px;background:#ccc"></div>
<script src="/dicomweb-client.js"></script><script src="/dicomMicroscopyViewer.min.js"></script>
<script>
window.state = { failed: [] };
const dmv = window.dicomMicroscopyViewer || window['dicom-microscopy-viewer'];
const api = (window.DICOMwebClient || window.dicomwebClient).api;
const client = new api.DICOMwebClient({ url: location.origin + '/dicom-web' });
const fail = error => { state.failed.push(String(error.message || error)); return error; };
const wanted = new URLSearchParams(location.search);
async function instances(series) {
  return client.retrieveSeriesMetadata({ studyInstanceUID: wanted.get('study'), seriesInstanceUID: series });
}
(async () => {
  const slides = [];
  for (const series of wanted.getAll('slide')) slides.push(...await instances(series));
  const metadata = slides.map(one => new dmv.metadata.VLWholeSlideMicroscopyImage({ metadata: one }));
  const viewer = new dmv.viewer.VolumeImageViewer({ client, metadata, controls: [], errorInterceptor: fail });
  viewer.render({ container: document.getElementById('view') });
  window.viewer = viewer;
  window.map = viewer[Symbol.for('map')];
  state.shown = true;
})().catch(fail);
async function over(series, modality) {
  if (modality === 'SEG') {
    const all = await instances(series);
    viewer.addSegments(all.map(one => new dmv.metadata.Segmentation({ metadata: one })));
    viewer.getAllSegments().forEach(one => viewer.showSegment(one.uid));
    return viewer.getAllSegments().map(one => one.label);
  }
  if (modality === 'OT') {
    const all = await instances(series);
    viewer.addParameterMappings(all.map(one => new dmv.metadata.ParametricMap({ metadata: one })));
    viewer.getAllParameterMappings().forEach(one => viewer.showParameterMapping(one.uid));
    return viewer.getAllParameterMappings().map(one => one.label);
  }
  if (modality === 'ANN') {
    const one = await (await fetch('/result.json')).json();
    viewer.addAnnotationGroups(new dmv.metadata.MicroscopyBulkSimpleAnnotations({ metadata: one }));
    viewer.getAllAnnotationGroups().forEach(one => viewer.showAnnotationGroup(one.uid));
    return viewer.getAllAnnotationGroups().map(one => one.label);
  }
  const one = await (await fetch('/result.json')).json(), found = [];
  const value = (item, tag) => item[tag] && item[tag].Value && item[tag].Value[0];
  (function search(items) {
    for (const item of items || []) {
      if (value(item, '0040A040') === 'SCOORD3D') found.push(item);
      search((item['0040A730'] || {}).Value);
    }
  })(one['0040A730'].Value);
  for (const item of found) {
    const flat = item['00700022'].Value, coordinates = [];
    for (let n = 0; n < flat.length; n += 3) coordinates.push(flat.slice(n, n + 3));
    const scoord3d = new dmv.scoord3d.Polygon({ coordinates, frameOfReferenceUID: value(item, '30060024') });
    viewer.addROI(new dmv.roi.ROI({ scoord3d }), { stroke: { color: [0, 90, 255, 1], width: 3 } });
  }
  return viewer.getAllROIs().map(one => one.scoord3d.graphicType);
}
</script></body></html>"""


class Dmv:
    """A page with one slide."""

    def __init__(self, tab: Tab) -> None:
        self.tab = tab

    def open(self, study: str, slides: Sequence[str]) -> None:
        self.tab.open(f"/index.html?study={study}" + "".join(f"&slide={series}" for series in slides))
        self.tab.until("() => window.state.shown && window.map.isRendered && window.map.isRendered()")

    def over(self, result: ResultObject) -> list[str]:
        """Lay a result over the slide; answers what the viewer says it is."""
        data_set = dcmread(BytesIO(result.content), stop_before_pixels=True)
        labels = self.tab.evaluate(
            "([series, modality]) => over(series, modality)", [result.series_uid, data_set.Modality]
        )
        return [str(label) for label in labels]

    def failed(self) -> list[str]:
        return [*self.tab.errors, *self.tab.evaluate("() => window.state.failed")]

    def placed(self, places_px: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """(n, 2) columns and rows of the slide's finest level -> the same on the page."""
        script = "places => places.map(([column, row]) => map.getPixelFromCoordinate([column, -row - 1]))"
        return np.array(self.tab.evaluate(script, np.asarray(places_px, float).tolist()), dtype=np.float64)

    def photograph(self, name: str) -> Photograph:
        """When three in a row are alike: tiles arrive one after the other."""
        alike, before = 0, self.tab.photograph(name)
        for _ in range(60):
            self.tab.page.wait_for_timeout(500)
            after = self.tab.photograph(name)
            alike = alike + 1 if np.array_equal(before, after) else 0
            if alike == 3:
                return after
            before = after
        raise AssertionError(f"the page does not come to rest: {name}")


@contextmanager
def served(prefixes: dict[str, str], result: ResultObject | None) -> Iterator[Site]:
    """The viewer before an archive, and one result as DICOM JSON (PS3.18 F.2) with its bulk data within:
    Debian's Orthanc cuts OF and OD to one value."""
    root = published(VIEWER, "dist/dynamic-import")
    made = {"/index.html": PAGE}
    made["/dicomweb-client.js"] = (published(CLIENT, "build") / "dicomweb-client.js").read_bytes()
    for file in root.iterdir():
        if file.suffix != ".map":
            made[f"/static/js/{file.name}"] = file.read_bytes()
    if result is not None and result.kind in ("ann", "roi"):
        data_set = dcmread(BytesIO(result.content))
        made["/result.json"] = json.dumps(data_set.to_json_dict()).encode()
    with Site(root, made=made, proxied=prefixes) as site:
        yield site
