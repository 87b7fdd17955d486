"""`python -m crash`: the whole walk, or a part of it; see `plan`. Needs the shim by LD_PRELOAD."""

from __future__ import annotations

from crash.plan import main

main()
