# The project's tasks. Each sets up what it needs in $(VENV); python3 >= 3.11, a C compiler and make must be there.
# Stamp files in $(VENV) remember what is installed and built, so that a second run starts at once.

VENV   ?= .venv
PYTHON ?= python3
ARGS   ?=
PEERS  ?= 1
ifeq ($(origin CC),default)
CC := cc
endif
export CC

BIN      := $(VENV)/bin
PIP      := $(BIN)/python -m pip --disable-pip-version-check --quiet
NATIVE   := setup.py pyproject.toml $(wildcard fastnorm/*.pyx fastnorm/door/*.pxi fastnorm/kernels/*.[ch])
SETTINGS := CC=$(CC) CFLAGS=$(CFLAGS) LDFLAGS=$(LDFLAGS) OPENMP=$(FASTNORM_OPENMP) SANITIZE=$(FASTNORM_SANITIZE)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo demo-mlp demo-lstm demo-pipeline demo-photos test test-peers bench bench-quick bench-report lint lint-c format dist clean FORCE

help:  ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' Makefile
	@echo "Variables: ARGS (more options for pytest or the demos), CC, PYTHON (the interpreter to start from), VENV,"
	@echo "PEERS=0 (bench against NumPy and scikit-learn only), FASTNORM_OPENMP and FASTNORM_SANITIZE (see setup.py)."

demo: $(VENV)/built $(VENV)/group-demo  ## normalize real data side by side with NumPy: a table and a picture
	@$(BIN)/python examples/compare_with_numpy.py $(ARGS)

demo-mlp: $(VENV)/built $(VENV)/group-demo  ## train a network with and without batch norm: accuracy and loss curves
	@$(BIN)/python examples/digits_mlp.py $(ARGS)

demo-lstm: $(VENV)/built $(VENV)/group-demo  ## train an LSTM with a layer norm: accuracy and loss curve
	@$(BIN)/python examples/lstm_layernorm.py $(ARGS)

demo-pipeline: $(VENV)/built $(VENV)/group-demo  ## a scikit-learn pipeline with either's scalers: equal scores, times
	@$(BIN)/python examples/sklearn_pipeline.py $(ARGS)

demo-photos: $(VENV)/built $(VENV)/group-demo  ## photos normalized for a network and restored: a picture, times
	@$(BIN)/python examples/photos.py $(ARGS)

test: $(VENV)/built $(VENV)/group-test  ## run the tests
	$(BIN)/python -m pytest tests -m "not peers" $(ARGS)

test-peers: $(VENV)/built $(VENV)/group-test $(VENV)/group-peers  ## run the tests against PyTorch, OpenCV and albumentations (installs them)
	$(BIN)/python -m pytest tests -m peers $(ARGS)

# Benchmarks are quiet: their table would have thousands of rows, and the report tells what they found.
RIVALS := $(VENV)/built $(VENV)/group-test $(if $(filter 1,$(PEERS)),$(VENV)/extra-bench)
BENCH  := $(BIN)/python -m pytest benchmarks -q --timeout=600 -o faulthandler_timeout=0 --benchmark-quiet

# PyTorch once more, both sides with AVX2.
bench: $(RIVALS)  ## run the benchmark suite, about 25 minutes: results in .benchmarks
	@mkdir -p .benchmarks
	$(BENCH) --benchmark-json=.benchmarks/suite.json $(ARGS)
	$(if $(filter 1,$(PEERS)),FASTNORM_ISA=avx2 ATEN_CPU_CAPABILITY=avx2 \
	  $(BENCH) --benchmark-json=.benchmarks/avx2.json -m torch $(ARGS))

bench-quick: $(RIVALS)  ## run few of the benchmarks, less than 3 minutes
	@mkdir -p .benchmarks
	$(BENCH) --benchmark-json=.benchmarks/quick.json -m quick $(ARGS)

bench-report: $(RIVALS)  ## write docs/benchmarks.md and its pictures, after the suite if it has not run
	@test -e .benchmarks/suite.json || $(MAKE) --no-print-directory bench ARGS=
	$(BIN)/python benchmarks/report.py $(ARGS)

lint: $(VENV)/built $(VENV)/group-dev  ## check style, types, stubs, spelling and the kernels' C
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	PATH="$(abspath $(BIN)):$$PATH" cython-lint fastnorm
	$(BIN)/codespell
	$(BIN)/zizmor --offline --quiet .github
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest fastnorm._ops
	$(MAKE) --no-print-directory lint-c

# Templates are stamped for every type; not every type uses all of them.
lint-c:  ## check the kernels with the C compiler's warnings alone
	$(CC) -std=gnu11 -Wall -Wextra -Werror -Wno-unused-function -fsyntax-only -Ifastnorm/kernels fastnorm/kernels/*.c

format: $(VENV)/group-dev  ## rewrite the Python files in the project's style
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

dist: $(VENV)/group-dev  ## build the sdist, and the wheel from it, into dist/
	$(BIN)/python -m build

clean:  ## remove what the other targets made, $(VENV) included
	rm -rf $(VENV) build dist *.egg-info fastnorm/_ops.c fastnorm/*.so
	rm -f compare_with_numpy.png digits_mlp.png lstm_layernorm.png sklearn_pipeline.png photos.png
	rm -rf .benchmarks .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# What is missing is said before anything is downloaded. pip 25.1 is the first that knows dependency groups.
$(VENV)/created:
	@refuse() { echo "fastnorm: $$1" >&2; exit 1; }; \
	command -v $(PYTHON) >/dev/null || \
	  refuse "$(PYTHON) not found; install Python >= 3.11 (Debian: apt-get install python3-dev python3-venv)"; \
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  refuse "$(PYTHON) is older than Python 3.11; name a newer one with PYTHON="; \
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  refuse "$(PYTHON) has no venv; install it (Debian: apt-get install python3-venv)"; \
	echo 'int main(void) { return 0; }' | $(CC) -x c -o /dev/null - 2>/dev/null || \
	  refuse "no working C compiler '$(CC)'; install gcc or clang (Debian: apt-get install gcc libc6-dev) or set CC"; \
	include=$$($(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("include"))'); \
	echo '#include <Python.h>' | $(CC) -x c -fsyntax-only "-I$$include" - 2>/dev/null || \
	  refuse "Python.h not found; install Python's headers (Debian: apt-get install python3-dev)"
	@echo "Setting up $(VENV) (once; it needs the network)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --upgrade "pip>=25.1"
	@touch $@

$(VENV)/group-%: pyproject.toml $(VENV)/created
	@echo "Installing the dependency group '$*'"
	@$(PIP) install --group $*
	@touch $@

$(VENV)/extra-%: pyproject.toml $(VENV)/created
	@echo "Installing the extra '$*'"
	@$(PIP) install $$($(PYTHON) -c 'import tomllib; \
	  print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["$*"])')
	@touch $@

# An editable install, so that edited Python files need no step; a changed native source or setting builds anew.
# No isolation: that would install Cython and NumPy again for every build. If setup.py refuses, only its line is shown.
$(VENV)/built: $(NATIVE) $(VENV)/settings $(VENV)/group-build $(if $(wildcard fastnorm/_ops.*.so),,FORCE)
	@echo "Building the native extension"
	@$(PIP) install --verbose --no-build-isolation -e . >$(VENV)/build.log 2>&1 || \
	  { sed -n 's/^ *error: fastnorm/fastnorm/p' $(VENV)/build.log | grep . || cat $(VENV)/build.log; exit 1; }
	@touch $@

$(VENV)/settings: $(VENV)/created FORCE
	@echo '$(SETTINGS)' | cmp -s - $@ || echo '$(SETTINGS)' >$@
