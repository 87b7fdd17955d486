"""The work on a slide takes the same memory whatever its size: measured in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

from support.source import ROOT

WORK = """
    import json, sys
    from pathlib import Path
    import numpy as np
    from dicom_node.domain.identity import UID
    from dicom_node.domain.slide import Slide, SlideLevel
    from dicom_node.slide.plan import find
    from dicom_node.slide.work import bands, crops, patches

    side, planes, cells = map(int, sys.argv[1:])

    def highest_kib():  # of this program; ru_maxrss would begin at the parent's
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))

    def level(number):
        shrink = 4 ** number
        um = 0.25 * shrink
        return SlideLevel(side // shrink, side // shrink, 256, 256, (um, um), (0.0, 0.0, 0.0),
                          tuple(float(k) for k in range(planes)), ("1",), "YBR_FULL_422", 3, 8, ())

    class Sheet:
        '''A slide without files: a third of its frames were scanned, each with something dark on glass.'''
        uid = UID("1.2.3")
        slide = Slide(uid, uid, None, 1, "c", (0.0, 1.0, 0.0), (1.0, 0.0, 0.0), tuple(map(level, range(3))))

        def lengths(self, level, plane=0, path=0):
            rows, columns = self.slide.levels[level].tile_grid
            there = (np.add.outer(np.arange(rows), np.arange(columns)) % 3 == 0)
            return np.where(there, 3000 + plane, 0).astype(np.uint32)

        def tiles(self, level, rows, columns, plane=0, path=0, *, scale=1, out=None):
            if out is None:
                out = np.empty((len(rows), 256 // scale, 256 // scale, 3), np.uint8)
            out[:] = 235
            out[:, : 128 // scale, : 128 // scale] = 90
            return out

    reader = Sheet()
    before = highest_kib()
    mask = find(reader)
    pixels = sum(int(band.image.shape[0]) for band in bands(reader, 1.0, mask=mask))
    centres = np.random.default_rng(0).uniform(0, side, (cells, 2))
    seen = sum(len(at) for at, _ in crops(reader, 0, centres, range(planes), 96, 96))
    laid = 0
    for places, _ in patches(reader, 0.25, 256, 256, mask):
        laid += len(places)
        if laid > 20000:
            break
    after = highest_kib()
    print(json.dumps({"seen": seen, "bands": pixels, "laid": laid, "grown_mb": (after - before) / 1024}))
"""


def grown(side: int, planes: int, cells: int) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(WORK), str(side), str(planes), str(cells)],
        capture_output=True, text=True, cwd=ROOT, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, float] = json.loads(done.stdout)
    return found


def test_memory_does_not_grow_with_the_slide() -> None:
    """3.6 gigapixel on 11 planes, and a fourteenth of it: under 200 MB, and at most 60 MB apart.

    What grows is a band, which is as wide as the slide, and the look for the mask, which has a limit.
    """
    small, large = grown(16384, 11, 200), grown(60416, 11, 2000)

    assert (small["seen"], large["seen"]) == (200, 2000)
    assert large["bands"] > 3 * small["bands"] and large["laid"] > 5000
    assert large["grown_mb"] < 200
    assert large["grown_mb"] - small["grown_mb"] < 60


def test_many_cells_at_a_time_take_no_more() -> None:
    """As many cells as frames have room for: a slide is then swept in strips."""
    assert grown(16384, 11, 8000)["grown_mb"] < 200
