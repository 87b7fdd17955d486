"""Time from the last image of a study to the SR accepted by the PACS, split by step; with peak memory.

Run: .venv/bin/python benchmarks/latency.py [SLICES]        (the same as `dicom-node bench latency`)
Machine, data size and date stand in what it prints.
"""

from __future__ import annotations

import json
import sys

from dicom_node.bench.latency import measure

if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 200), indent=2))
