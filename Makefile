# mq9: one definition in spec/, everything else follows from it. `make help` lists the commands.
SHELL := /bin/bash
.DEFAULT_GOAL := help
# The system's Python if it will do, with its headers: distributions build it for speed, version managers mostly not.
PYTHON ?= $(shell for python in /usr/bin/python3 python3; do $$python tools/will_do.py 2>/dev/null && echo $$python && break; done || echo python3)
UV_VERSION := 0.13.9
export UV_PYTHON_DOWNLOADS := never
# Programs start faster from compiled files; they stay beside the sources, ignored by git.
unexport PYTHONDONTWRITEBYTECODE
export MQ9_DEMO_INPUT := $(INPUT)
# Whoever builds a wheel of the broker again finds its compiled engine there.
export MQ9_ENGINE_CACHE := $(CURDIR)/build/engine
DOTNET := if ! command -v dotnet >/dev/null && [ -f ../shared/toolchains/dotnet.sh ]; then . ../shared/toolchains/dotnet.sh; fi;
BIN := .venv/bin
READY := .venv/.ready

SDKS = $(sort $(patsubst sdks/%/Makefile,%,$(wildcard sdks/*/Makefile)))
# Runs a target of every SDK's Makefile; one whose tools are missing is named and left out.
EACH_SDK = $(DOTNET) for sdk in $(SDKS); do \
	lacks=$$($(BIN)/python tools/missing.py $$sdk); \
	if [ -n "$$lacks" ]; then echo "NOT RUN $$sdk: $$lacks"; else $(MAKE) --no-print-directory -C sdks/$$sdk $(1) || exit 1; fi; done

.PHONY: help setup generate check test conformance bench crash package docs api demo lock clean
help:  ## Lists these commands.
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## +(.*)/  make \1|\2/' | column -t -s '|'

setup: $(READY)  ## Makes .venv from uv.lock; nothing global is touched.
$(READY): uv.lock pyproject.toml $(wildcard */pyproject.toml sdks/python/pyproject.toml broker/native/*)
	@test -x $(BIN)/uv || { $(PYTHON) -m venv .venv && $(BIN)/python -m pip --disable-pip-version-check -q install uv==$(UV_VERSION); }
	$(BIN)/uv -q sync --frozen --all-packages --all-groups --compile-bytecode
	@$(BIN)/python broker/native/build.py && touch $(READY)

generate: $(READY)  ## Renders everything that comes from spec/.
	@$(BIN)/mq9-codegen generate

check: $(READY)  ## Fails when generated files differ from spec/, or the spec breaks its rules.
	@$(BIN)/mq9-codegen lint && $(BIN)/mq9-codegen check && $(BIN)/mq9-codegen diff --against released

test: $(READY)  ## Everything: drift, linters, all tests, conformance, mutants, the demo. STRICT=1: NOT RUN is a failure.
	@$(DOTNET) $(BIN)/python tools/suite.py $(if $(STRICT),--strict) $(if $(ONLY),--only "$(ONLY)")

conformance: $(READY)  ## Replays every scenario against every SDK and prints the matrix.
	@$(DOTNET) $(BIN)/mq9-conformance run $(if $(STRICT),--strict)

bench: $(READY)  ## Measures the broker beside a real NATS server with JetStream, in one run.
	@$(BIN)/python bench/compare.py

crash: $(READY)  ## Kills the broker KILLS=1000 times under load, and checks that it kept its promises.
	@$(BIN)/python -m broker.tests.crash.storm --kills $(or $(KILLS),1000)

package: $(READY)  ## Builds the packages of every language, and the broker as one executable file, into dist/.
	@$(BIN)/uv -q build --all-packages --out-dir dist && $(BIN)/python packaging/build_executable.py
	@$(call EACH_SDK,package) && ls dist

api: $(READY)  ## Writes the list of every SDK's public API; review the difference before you commit it.
	@$(call EACH_SDK,api)

docs: $(READY)  ## Renders the reference pages, JSON Schemas, AsyncAPI, and every SDK's own reference into build/docs/.
	@for t in json-schema docs asyncapi; do $(BIN)/mq9-codegen generate --target $$t || exit 1; done
	@$(call EACH_SDK,docs) && ls build/docs

demo: $(READY) generate  ## Agents at work: six processes, one conversation. INPUT=file-or-folder gives them your own text.
	@$(DOTNET) $(BIN)/python demo/run.py

lock: $(READY)  ## Moves every dependency to its newest version and writes uv.lock.
	$(BIN)/uv lock --upgrade && $(MAKE) setup

clean:  ## Removes the environment, caches and reports.
	rm -rf .venv .cache build dist reports .tox .pytest_cache .mypy_cache .ruff_cache .hypothesis
