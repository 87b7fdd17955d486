"""The log says that something spoke and where, never what it said."""

from __future__ import annotations

import json
import subprocess
import sys

_SPEAKS = """
import gc, logging, threading, warnings
from dicom_node import log
log.start()
log.withhold()
warnings.warn("CANARY")
for _ in range(50):
    logging.getLogger("pydicom").warning("CANARY %s", "CANARY")
logging.getLogger("anything.else").error("CANARY")
logging.getLogger("asyncio").error("%d CANARY", "CANARY")
try:
    raise ValueError("CANARY")
except ValueError:
    logging.getLogger().exception("CANARY")

def fails():
    raise ValueError("CANARY")

class Careless:
    def __del__(self):
        raise ValueError("CANARY")

thread = threading.Thread(target=fails, name="receive-1")
thread.start()
thread.join()
Careless()
gc.collect()
raise ValueError("CANARY") from KeyError("CANARY")
"""


def spoken() -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", _SPEAKS],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_no_text_of_libraries_and_exceptions_gets_through() -> None:
    """Warnings, loggers nobody named, records that cannot be formatted, exceptions nobody caught."""
    code, said = spoken()
    events = [json.loads(line) for line in said.splitlines()]

    assert 1 == code
    assert "CANARY" not in said
    assert [("ValueError", "receive-1"), ("ValueError", None), ("ValueError", None)] == [
        (event["error"], event.get("thread")) for event in events if event["event"] == "process.exception"
    ]
    assert all(event["where"].startswith("<string>:") for event in events if "error" in event)


def test_a_library_that_repeats_itself_is_heard_once_a_minute() -> None:
    """Fifty times the same of fifty images is one line."""
    events = [json.loads(line) for line in spoken()[1].splitlines()]

    assert ["pydicom", "anything.else", "asyncio", "root"] == [
        event["library"] for event in events if event["event"] == "library.warning"
    ]
