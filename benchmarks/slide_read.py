"""Decoding every frame of a slide and indexing very many, per core, beside wsidicom, OpenSlide and pydicom.

Run: .venv/bin/python benchmarks/slide_read.py [FRAMES TO DECODE [FRAMES TO INDEX [ROUNDS]]]
Machine, data size and date stand in what it prints.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings

from dicom_node.bench.slide_read import measure

if __name__ == "__main__":
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")  # peers' own
    print(json.dumps(measure(*map(int, sys.argv[1:4])), indent=2))
