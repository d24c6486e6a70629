# One command each.  `make install` once (every other target does it); `make demo` is the shortest way to see it run.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
export CITYBRAIN_DATA ?= ../shared/data

.DEFAULT_GOAL := help
.PHONY: help install demo test lint bench packs lock

help:
	@echo "make install   the virtual environment $(VENV), about 1.4 GB"
	@echo "make demo      a sample city day through broker, worker and database; KEEP=1 stays up"
	@echo "make test      all tests, in two processes; those on a real Kafka need java and mvn"
	@echo "make lint      ruff, mypy, import-linter"
	@echo "make bench     benchmarks"
	@echo "make packs     city packs made from CITYBRAIN_DATA (now $(CITYBRAIN_DATA)) into build/packs"
	@echo "make lock      requirements.lock anew, from pyproject.toml's ranges"

install: $(STAMP)

# Again whenever what is to be installed has changed; a half-finished install leaves no stamp and is taken up again.
$(STAMP): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not installed (Debian package python3.11; or name a Python 3.11 or 3.12: make PYTHON=…)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' || { echo "$(PYTHON) is not a Python 3.11 or 3.12 (Debian package python3.11)" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "$(PYTHON) has no venv module (Debian package python3.11-venv)" >&2; exit 1; }
	@echo "Installing $$(grep -c '==' requirements.lock) packages into $(VENV): about 450 MB to fetch, 1.4 GB on disk (mostly the embedded ClickHouse)."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar on -r requirements.lock
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps -e .
	@touch $@

demo: install
	$(BIN)/citybrain demo $(if $(filter-out 0 no,$(KEEP)),--keep)

# A file's tests stay in one process, so that what they share is made once; in the files' order, since the two that take
# longest have few tests and would come last.  A process that dies ends the run: xdist would try its test again and again.
# (xdist_group, to give one process all that need Kafka, does nothing with pytest 9.2: pytest-xdist issue 1386.  As it is,
# each process starts a Kafka of its own.)
test: install
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0 $(ARGS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: packs
	$(BIN)/python -m benchmarks.plain_rule "$(CITYBRAIN_DATA)/boston"
	$(BIN)/python -m benchmarks.replay_throughput
	$(BIN)/python -m benchmarks.clickhouse_sink
	$(BIN)/python -m benchmarks.geo_fence
	$(BIN)/python -m benchmarks.places
	$(BIN)/python -m benchmarks.datum_guard
	$(BIN)/python -m benchmarks.places_boston "$(CITYBRAIN_DATA)/boston" build/packs/boston
	$(BIN)/python -m benchmarks.readings "$(CITYBRAIN_DATA)/traffic"
	$(BIN)/python -m benchmarks.quality "$(CITYBRAIN_DATA)/boston" build/packs/boston

packs: install
	@test -f "$(CITYBRAIN_DATA)/boston/neighborhoods.geojson.gz" || { echo "no recorded data in $(CITYBRAIN_DATA); set CITYBRAIN_DATA" >&2; exit 1; }
	$(BIN)/citybrain build-pack --boundaries "$(CITYBRAIN_DATA)/boston/neighborhoods.geojson.gz" --cell-m 150 \
		--name Boston --code boston --timezone America/New_York --out build/packs/boston
	cp packs/boston/*.toml build/packs/boston/
	$(BIN)/citybrain check-city build/packs/boston
	$(BIN)/python -m packs.loops.make_recording "$(CITYBRAIN_DATA)/traffic/la_loop_speed_mph_wide.csv.gz" \
		"$(CITYBRAIN_DATA)/traffic/la_loop_sensors.csv" build/loops
	$(BIN)/citybrain build-pack --boundaries build/loops/boundary.geojson --cell-m 1000 --out build/loops/pack
	$(BIN)/citybrain check-city build/loops/pack

# The versions that an unpinned install brings today, in an environment of their own.
lock: install
	rm -rf build/lock-venv
	$(PYTHON) -m venv build/lock-venv
	build/lock-venv/bin/python -m pip install --disable-pip-version-check '.[dev,bench]'
	{ sed -n '/^#/p' requirements.lock; \
	  build/lock-venv/bin/python -m pip freeze --disable-pip-version-check --exclude city-brain-streams; } > build/requirements.lock
	mv build/requirements.lock requirements.lock
	rm -rf build/lock-venv
