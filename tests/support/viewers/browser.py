"""A headless Chromium, its pages, and photographs of them.

It draws by software (SwiftShader), so it needs no display and no GPU, and it reaches nothing
but the site under test: every other address is refused, so that no test depends on one.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

Photograph = npt.NDArray[np.uint8]
"""(rows, columns, 3) RGB, a pixel of the page each."""

_FLAGS = (
    "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist", "--disable-quic", "--disable-background-networking", "--disable-sync",
    "--disable-component-update", "--no-first-run", "--disable-dev-shm-usage", "--force-color-profile=srgb",
)  # fmt: skip
_WIDTH, _HEIGHT = 1400, 860
FOLDER = Path(os.environ.get("DICOM_NODE_VIEWERS_OUT", Path(__file__).parents[3] / "viewers-out"))
"""Where photographs go, also those of tests that failed."""


class Tab:
    """One page. `errors` holds what broke on it; `said` everything its console printed."""

    def __init__(self, page: Any, home: str) -> None:  # Any: playwright's Page, imported where it is there
        self.page, self.home = page, home
        self.errors: list[str] = []
        self.said: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)[:400]))
        page.on("crash", lambda _: self.errors.append("the page crashed"))
        page.on("console", lambda line: self.said.append(f"{line.type}: {line.text[:300]}"))

    def open(self, path: str) -> None:
        self.page.goto(self.home + path, wait_until="load", timeout=90_000)

    def evaluate(self, script: str, argument: object = None) -> Any:  # Any: what the script answers
        return self.page.evaluate(script, argument)

    def until(self, script: str, argument: object = None, *, within_s: float = 90.0) -> None:
        """Wait until a JavaScript function answers what is true; fails with what the page says by then."""
        from playwright.sync_api import TimeoutError as TooLate

        try:
            self.page.wait_for_function(script, arg=argument, timeout=within_s * 1000, polling=200)
        except TooLate as error:
            self.photograph("too late")
            raise AssertionError(
                f"not within {within_s:g} s: {script}\nerrors: {self.errors}\npage: {self.text()[:1500]}"
            ) from error

    def text(self) -> str:
        """What a person can read on the page."""
        return str(self.page.evaluate("document.body.innerText"))

    def photograph(self, name: str) -> Photograph:
        """The page as pixels, kept in `viewers-out` under the name."""
        FOLDER.mkdir(parents=True, exist_ok=True)
        path = FOLDER / f"{re.sub(r'[^A-Za-z0-9]+', '_', name).strip('_')}.png"
        self.page.screenshot(path=path)
        return np.asarray(Image.open(path).convert("RGB"))


class Browser:
    def __init__(self, driven: Any) -> None:  # Any: playwright's Browser
        self._driven = driven

    @contextmanager
    def tab(self, home: str, *, width: int = _WIDTH, height: int = _HEIGHT) -> Iterator[Tab]:
        """A page without history or cookies that may ask `home` only."""
        context = self._driven.new_context(viewport={"width": width, "height": height})
        context.route(lambda url: not url.startswith((home, "blob:", "data:")), lambda route: route.abort())
        try:
            yield Tab(context.new_page(), home)
        finally:
            context.close()


@contextmanager
def chromium() -> Iterator[Browser]:
    """A Chromium that ends with the block; the test is skipped aloud where there is none."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium (Debian: apt install chromium)")
    api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install '.[dev]'")
    with api.sync_playwright() as playwright:
        driven = playwright.chromium.launch(executable_path=program, headless=True, args=list(_FLAGS))
        try:
            yield Browser(driven)
        finally:
            driven.close()
