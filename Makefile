# One command each; see README.md.  PYTHON chooses another interpreter (3.11 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install check test test-differential hello bench test-unit test-kernel test-engine test-conformance test-vm lock clean

install: $(STAMP)

$(STAMP): requirements.lock pyproject.toml tools/install bin/sampan
	tools/install $(PYTHON) $(VENV)
	touch $@

check: install
	tools/check

test: install
	tools/test

test-unit test-kernel test-engine test-conformance test-differential: install
	tools/test $(@:test-%=%)

hello: install
	tools/hello

bench: install
	tools/bench

lock:
	tools/lock $(PYTHON)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache
