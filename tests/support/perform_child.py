"""A process that performs work items and does nothing else: `python -m support.perform_child CONFIG`.

For tests that kill it. It says `turning` on stdout and turns until it is killed.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from dicom_node.config import Config
from dicom_node.node.build import build
from dicom_node.node.performer import Performer, manager_of


def main() -> None:
    config = Config.model_validate_json(Path(sys.argv[1]).read_text(encoding="utf-8"))
    node = build(config)
    peer = config.peers["ris"]
    performer = Performer(node, peer, manager_of(config, peer))
    sys.stdout.write("turning\n")
    sys.stdout.flush()
    while True:
        performer.turn()
        time.sleep(0.02)


if __name__ == "__main__":
    main()
