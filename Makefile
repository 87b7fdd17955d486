# `make demo` and `make test` do all the set-up: Python 3.11+ and make are enough.

PYTHON ?= python3
FUZZ_SECONDS ?= 600
VENV := .venv
READY := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test check bench crash outage viewers pictures fuzz clean

help:
	@echo "make demo    set up, then a study goes in and results land in a stand-in PACS"
	@echo "make test    set up, then all tests"
	@echo "make check   set up, then ruff and mypy --strict"
	@echo "make bench   set up, then the benchmarks"
	@echo "make fuzz    set up, then every fuzzer for a share of FUZZ_SECONDS=600"
	@echo "make crash   set up, then 10,000 crashes and 10,000 power losses (needs gcc; docs/durability.md)"
	@echo "make outage  set up, then 5,000 deliveries to Orthanc over a line that cuts, delays and repeats"
	@echo "make viewers set up, then every result in OHIF, by Chromium and Orthanc (needs npm or its cache)"
	@echo "make pictures set up, then the pictures of docs/pictures anew, from a generated study"
	@echo "make clean   remove .venv, caches and demo-out (never var, where the data is)"

demo: $(READY)
	$(VENV)/bin/dicom-node demo

# A file of tests stays with one process; the long ones, first in the alphabet, start first.
test: $(READY)
	$(VENV)/bin/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

check: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy --strict

bench: $(READY)
	$(VENV)/bin/dicom-node bench latency
	$(VENV)/bin/dicom-node bench receive

fuzz: $(READY)
	@$(VENV)/bin/python -m pip install -qq --disable-pip-version-check --editable ".[fuzz]" || \
		echo "atheris does not install here: no coverage-guided fuzzing"
	$(VENV)/bin/python tests/fuzz/long.py $(FUZZ_SECONDS)

crash: $(READY)
	cd tests && ../$(VENV)/bin/python -m crash

outage: $(READY)
	cd tests && ../$(VENV)/bin/python -m support.outage 5000

viewers: $(READY)
	@echo "Photographs of all pages go to viewers-out."
	DICOM_NODE_ALL_VIEWERS=1 $(VENV)/bin/python -m pytest tests/viewers

pictures: $(READY)
	cd tests && ../$(VENV)/bin/python -m support.viewers.pictures ../docs/pictures

clean:
	rm -rf $(VENV) build dist demo-out fuzz-out viewers-out .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is written last, so that an interrupted installation is done again.
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one with: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' || \
		{ echo "python3 has no venv module; on Debian: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV): torch is large, this takes minutes the first time."
	$(VENV)/bin/python -m pip install -qq --disable-pip-version-check --editable ".[dev]"
	@touch $@
