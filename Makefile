# Every verb does its own set-up: a machine needs Python >= 3.11 and make, nothing else.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--custom-compile-command "make lock" pyproject.toml
# what the image can do besides: serve, ask, trace, search
IMAGE := --extra server --extra client --extra otel --extra search

.DEFAULT_GOAL := help
.PHONY: help install check test demo bench quality pressure histories chaos docs sbom lock clean fuzz upgrade chart-test cluster-test browser-test

help:  ## what there is
	@sed -n 's/^\([a-z-]*\):.*##  *\(.*\)/  make \1	\2/p' $(MAKEFILE_LIST)

install: $(INSTALLED)  ## into .venv, so that .venv/bin/eddy exists

$(INSTALLED): pyproject.toml requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Eddy needs Python 3.11 or newer, but $(PYTHON) is" \
			"$$($(PYTHON) --version 2>/dev/null || echo missing)." \
			"Name another: make PYTHON=python3.12 install" >&2; exit 1; }
	@echo "Installing into .venv: a minute or two, once."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

check: install  ## form, types, walls, house rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/bandit --quiet --recursive pipeline --configfile pyproject.toml
	$(BIN)/python -m tests.audit_dependencies requirements.txt requirements-gpu.txt
	$(BIN)/pytest tests/test_house.py

# The second half waits for brokers most of its time, so it runs beside the first; its words come last.
test: install  ## what needs a CPU only, and beside it what needs a real broker (started by the tests)
	@broker=$$(mktemp); $(BIN)/pytest -m "(kafka or docker) and not pressure" >"$$broker" 2>&1 & beside=$$!; \
	trap 'kill -INT $$beside 2>/dev/null; wait $$beside; rm -f "$$broker"' EXIT; trap 'exit 130' INT TERM; \
	$(BIN)/pytest -m "not (kafka or docker or browser or cluster)"; code=$$?; \
	wait $$beside || code=1; cat "$$broker"; exit $$code

pressure: install  ## bursts, large records, a slow output: bounds in time and memory, for a quiet machine
	$(BIN)/pytest -m pressure

histories: install  ## every seed of the simulation; `make test` plays a part of them
	ALL_SEEDS=1 $(BIN)/pytest -m sim

demo: install  ## the main job on real data, on a Kafka of its own
	$(BIN)/eddy demo $(ARGS)

bench: install  ## speed beside other libraries; RUN=list lists all, RUN=latency ARGS="--help" runs one
	$(BIN)/python -m benchmarks $(or $(RUN),peers) $(ARGS)

quality: install  ## are clusters as good as promised? make quality ARGS=FOLDER, or ARGS=--demo
	$(BIN)/python -m benchmarks quality $(ARGS)

chaos: install  ## faults on a real Kafka, and the verdict; make chaos ARGS="--runs 20", or ARGS=--controls
	$(BIN)/python -m tests.chaos $(ARGS)

fuzz: install  ## decoders, configuration, snapshots against bytes nobody thought of; ARGS="--seconds 600 input"
	$(BIN)/python -m tests.fuzz $(ARGS)

upgrade: install  ## roll from an older revision to this tree and back, on a real Kafka; OLD=<git revision>
	$(BIN)/python -m tests.upgrade $(OLD) $(ARGS)

chart-test: install  ## the Helm chart and the image, held against Kubernetes' schemas, definitions and policies
	$(BIN)/pytest tests/chart -o 'python_files=test_*.py check_*.py'

cluster-test: install  ## image and chart on a real Kubernetes: K8S=1 make cluster-test (root; builds for 15 minutes, once)
	@if [ "$$K8S" = 1 ]; then $(BIN)/pytest tests/cluster -x -s $(ARGS); else \
		echo "Set K8S=1 to build a Kubernetes of one node, Eddy's image and a Kafka beside it, and to roll," \
		"kill and starve Eddy there. It needs Linux, root, Go, Debian's packages, 4 GB of memory and 8 of disk;" \
		"the first build takes 15 minutes, into .venv/k8s or K8S_DIR. See tests/cluster/README.md."; fi

browser-test: install  ## the page in the system's Chromium, which draws the README's pictures; ARGS="-k flow"
	@mkdir -p .venv/page && cp tests/page/package.json .venv/page/
	@npm install --silent --no-audit --no-fund --prefix .venv/page || echo "npm could not install: what is missing is skipped" >&2
	$(BIN)/pytest tests/page -rs $(ARGS)

docs: install  ## write the pages again that copy from the code
	$(BIN)/python -m tests.generate_docs

sbom: install  ## what an installation consists of, for a release: dist/sbom.json
	@mkdir -p dist
	$(BIN)/cyclonedx-py requirements requirements.txt --pyproject pyproject.toml --output-reproducible --of JSON -o dist/sbom.json

lock: install  ## resolve the requirements anew, with hashes
	$(LOCK) --extra dev --extra broker --extra server --extra client --extra otel --extra search --output-file requirements-dev.txt
	$(LOCK) --constraint requirements-dev.txt $(IMAGE) --output-file requirements.txt
	$(LOCK) --constraint requirements-dev.txt $(IMAGE) --extra gpu --output-file requirements-gpu.txt

clean:  ## caches and builds; .venv stays
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
