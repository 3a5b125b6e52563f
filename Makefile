# `make demo` and `make test` set everything up by themselves; they need Python 3.11+, make and a package index.
PYTHON ?= python3
ARGS ?=
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup servers flink demo test test-pythons proofs bench bench-trainer bench-serving bench-abtest cluster tables lint format proto proto-publish constraints clean

help: ## show this help
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' Makefile

setup: $(READY) ## make the virtual environment from the pinned versions in constraints.txt

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "driftline needs Python 3.11 or newer; point PYTHON at one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt uv
	$(BIN)/uv pip install -q --compile-bytecode --python $(BIN)/python -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(READY) ## run the week-long experiment; pass options with ARGS="--days 3 --out DIR"
	$(BIN)/driftline demo $(ARGS)

servers: $(READY) ## fetch Apache Kafka (it needs Java 17), Redis, an S3 server (it needs Go) and promtool for the tests, unless they are there
	@if [ -n "$$DRIFTLINE_WITHOUT_SERVERS" ]; then echo "without Apache Kafka and Redis"; else $(BIN)/driftline kafka install && $(BIN)/driftline redis install; fi
	@if [ -z "$$DRIFTLINE_WITHOUT_SERVERS" ]; then $(BIN)/driftline s3 install || echo "without an S3 server: the tests that need it skip"; fi
	@.ci/promtool || echo "without promtool: the tests of deploy/ that need it skip"

# Tests run side by side, a process a core: threads of each one's linear algebra would only wait for each other.
ONE_THREAD := OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1

# About a minute and 1 GB, kept outside of the clone; the tests of the stream on Flink skip without it.
flink: $(READY) ## fetch Apache Flink (it needs a JDK 17) for the tests of the stream on it, unless it is there
	@if [ -n "$$DRIFTLINE_WITHOUT_SERVERS" ]; then echo "without Apache Flink"; else $(BIN)/driftline flink install; fi

test: servers ## run the tests, on all cores up to four
	$(ONE_THREAD) $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile $(ARGS)

# What differed between Pythons so far: connections that nobody closes, and the libraries that leave them open.
SHORT := tests/serving tests/feature_repo abtest contracts driftline evaluation serving stream trainer world -m 'not proof'

test-pythons: ## run a short form of the tests on every newer Python that is found
	@for python in $$(.ci/newer-pythons $(PYTHON)); do \
		version=$$($$python -c 'import sys; print("%d.%d" % sys.version_info[:2])'); echo "Python $$version"; \
		$(MAKE) --no-print-directory test PYTHON=$$python VENV=.venv-$$version ARGS="$(SHORT)" || exit 1; \
	done

proofs: servers flink ## run the long proofs, such as those by many crashes
	$(BIN)/python -m pytest -m proof --timeout 1800 $(ARGS)

bench: servers .venv-bench/.ready ## measure the stream beside its peers and its ceilings; ARGS="--soak --redis --quick"
	$(BIN)/python -m benchmarks.stream --json $(ARGS)

# The peers' pins do not go with driftline's, so they have an environment of their own.
.venv-bench/.ready: benchmarks/stream/requirements.txt $(READY)
	$(BIN)/uv venv -q --clear --python $(BIN)/python .venv-bench
	$(BIN)/uv pip install -q --compile-bytecode --python .venv-bench/bin/python -r $<
	@touch $@

bench-trainer: .bench-trainer/.ready ## measure the trainer beside its peer; ARGS="--data KUAIRAND_PURE --quick"
	$(BIN)/python -m benchmarks.trainer --json $(ARGS)

# The peer runs on driftline's own torch: what it needs beside is laid over driftline's environment.
.bench-trainer/.ready: benchmarks/trainer/requirements.txt $(READY)
	rm -rf .bench-trainer
	$(BIN)/uv pip install -q --no-deps --python $(BIN)/python --target .bench-trainer -r $<
	@touch $@

bench-serving: .bench-serving/.ready ## measure serving beside its peer; ARGS="--quick --only qps cost"
	$(BIN)/python -m benchmarks.serving --json $(ARGS)

# As for the trainer's peer.
.bench-serving/.ready: benchmarks/serving/requirements.txt $(READY)
	rm -rf .bench-serving
	$(BIN)/uv pip install -q --no-deps --python $(BIN)/python --target .bench-serving -r $<
	@touch $@

bench-abtest: $(READY) ## measure the A/B statistics beside theirs; ARGS="--quick --only golden aa --data PUBLIC_DATA"
	$(BIN)/python -m benchmarks.abtest --json $(ARGS)

cluster: servers ## a cluster on this machine whose hosts are killed with their disks; ARGS="--kills 20 --seconds 240 --seed 1", or "--engine flink"
	$(BIN)/python -W ignore -m benchmarks.cluster $(ARGS)

tables: $(READY) ## write docs/reproduction.md and its pictures from the results in docs/results
	$(BIN)/python -m evaluation.reproduction --results docs/results --out docs

lint: $(READY) ## style, types and the floor plan
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Generated code runs on its own protobuf and on newer ones, so the oldest that pyproject.toml allows makes it.
PROTOC := $(BIN)/uv run -q --isolated --no-project --python $(BIN)/python --with grpcio-tools==1.70.0 --with 'setuptools<81' \
	python -W ignore -m grpc_tools.protoc -Icontracts/wire=proto/driftline/v1 -Icontracts/wire=proto/internal

proto: $(READY) ## generate contracts/wire from proto/
	$(PROTOC) --python_out=. --pyi_out=. $(addprefix contracts/wire/,events.proto recall.proto feast_value.proto stream_state.proto)
	$(PROTOC) --grpc_python_out=. contracts/wire/recall.proto

proto-publish: $(READY) ## hold what proto/ says now against all later changes; refuses what breaks the published one
	$(BIN)/buf breaking proto --against proto/published/v1.json
	$(BIN)/buf build proto --exclude-source-info -o '-#format=json' | $(BIN)/python -m json.tool --indent 1 > proto/published/v1.next
	mv proto/published/v1.next proto/published/v1.json

constraints: $(READY) ## pin the newest versions that fit pyproject.toml
	$(BIN)/uv pip compile -q --universal --upgrade --python-version 3.11 --all-extras --no-header --no-annotate --no-emit-index-url pyproject.toml -o constraints.txt

clean: ## remove the virtual environment and caches
	rm -rf .venv .venv-3.* .venv-bench .bench-trainer .bench-serving .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
