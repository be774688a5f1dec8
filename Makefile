# `make train` and `make test` do all the set-up on a fresh machine: Python 3.10 or later, a C++ compiler, nothing else.
PYTHON ?= python3
VENV ?= .venv
# Another place to look for PyTorch, e.g. TORCH_INDEX=https://download.pytorch.org/whl/cpu for a build without CUDA.
TORCH_INDEX ?=
# Another version of PyTorch than that of constraints.txt, e.g. TORCH=2.10.0, in an environment of its own (VENV=...).
TORCH ?=
# What `make test-matrix` goes over.
PYTHONS ?= 3.10 3.11 3.12 3.13
TORCHES ?= 2.10.0 2.11.0 2.13.0
ARGS ?=
# Tests and benchmarks start many processes: without Python's bytecode each would compile all sources anew.
export PYTHONDONTWRITEBYTECODE =

BIN := $(VENV)/bin
CONSTRAINTS := $(if $(TORCH),build/constraints-torch-$(TORCH).txt,constraints.txt)
PIP_INSTALL := $(BIN)/pip install --disable-pip-version-check --quiet --constraint $(CONSTRAINTS) \
	$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
READY := $(VENV)/.ready
INTEGRATIONS := $(VENV)/.integrations
BROWSER := $(VENV)/.browser
DOCS := $(VENV)/.docs
SANITIZERS := -fsanitize=address,undefined -fno-sanitize-recover=all

.PHONY: help setup setup-all train test test-slow test-ranks test-matrix test-integrations test-browser test-gpu gpu sanitize sanitize-threads sanitize-python lint format docs docs-links wheel bench bench-gpu clean

help:
	@echo "make setup   make .venv; make setup-all: with what the site and all tests need"
	@echo "make train   train a TreeLSTM on ListOps (a few minutes; ARGS='--help' shows what else it can do)"
	@echo "make test    run the tests, but for the slow ones"
	@echo "make test-slow   run those that take long: many cases, all dtypes, compilers for GPUs"
	@echo "make test-ranks   run those of plans and checkpoints, in up to eight processes"
	@echo "make test-matrix   the tests with each of several Pythons and PyTorches that can be had here; hours, and gigabytes in build/matrix"
	@echo "make test-integrations   run those with accelerate, Lightning, peft, datasets and safetensors, which it installs"
	@echo "make test-browser   run those of the page of vf.view, in Chromium, which must be there"
	@echo "make test-gpu   run the tests that need a GPU (NVIDIA, compute capability 8.0 or later)"
	@echo "make gpu     on a machine with a GPU, without a network: build in place, test, measure, one table (ARGS=tests, bench:treelstm)"
	@echo "make sanitize   random and malformed input through the native core, under ASan and UBSan (g++)"
	@echo "make sanitize-threads   the native core in several threads at once, under ThreadSanitizer (g++)"
	@echo "make sanitize-python   tests of packing and scheduling with ASan and UBSan in the extension (about two minutes)"
	@echo "make lint    ruff and mypy (make format: let ruff correct what it can)"
	@echo "make docs    the site, in build/site/index.html (make docs-links: are all links to others alive?)"
	@echo "make wheel   a wheel for this Python, in dist"
	@echo "make bench   time training steps against their peers (ARGS='treelstm --hidden 128')"
	@echo "make bench-gpu   the same on a GPU, with peers under torch.compile and as CUDA graphs"
	@echo "make clean   remove the virtual environment and caches"
	@echo "Variables: PYTHON=python3.12, VENV=.venv, TORCH_INDEX=https://download.pytorch.org/whl/cpu (no CUDA)"

setup: $(READY)

# With what the site, the tests with others' packages and those in a browser need: one after the other, as they go to one place.
setup-all: $(READY)
	$(MAKE) --jobs=1 --no-print-directory $(INTEGRATIONS) $(DOCS) $(BROWSER)

# What another PyTorch fixes by itself is left to it.
build/constraints-torch-%.txt: constraints.txt
	@mkdir -p build
	@{ grep -vE '^(torch|triton|setuptools|cuda-[a-z]*|nvidia-[a-z]*)==' $<; echo 'torch==$*'; } > $@

$(READY): pyproject.toml setup.py $(CONSTRAINTS) vertexflow/_version.py $(wildcard csrc/*)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "vertexflow needs Python 3.10 or later; choose one with: make PYTHON=python3.11 ..."; exit 1; }
	@echo "setting up $(VENV), once; PyTorch is a large download ..."
	@$(PYTHON) -m venv $(VENV) || \
		{ echo "could not make a virtual environment; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	$(PIP_INSTALL) 'setuptools>=77' 'pybind11>=2.13' # as pyproject.toml asks; no other PyTorch brings them
	$(PIP_INSTALL) --no-build-isolation --editable '.[examples,test,lint,parallel]'
	@touch $@

train: $(READY)
	$(BIN)/python -m examples.treelstm.train $(ARGS)

test: $(READY)
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 $(ARGS)

test-slow: $(READY)
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 -m slow $(ARGS)

test-ranks: $(READY)
	$(BIN)/python -m pytest --numprocesses 0 -m ranks $(ARGS)

# Each pair has an environment of its own, which is kept. A Python that is not here is named, and passed over.
test-matrix:
	@mkdir -p build/matrix; : > build/matrix/results; for python in $(PYTHONS); do \
		if ! python$$python -c '' 2> /dev/null; then \
			echo "Python $$python: not tested, there is no python$$python here" | tee -a build/matrix/results; continue; \
		fi; \
		for torch in $(TORCHES); do \
			if $(MAKE) --no-print-directory test PYTHON=python$$python TORCH=$$torch VENV=build/matrix/$$python-$$torch; \
			then word=passed; else word=FAILED; fi; \
			echo "Python $$python, PyTorch $$torch: $$word" | tee -a build/matrix/results; \
		done; \
	done
	@echo; cat build/matrix/results; grep -q passed build/matrix/results && ! grep -q FAILED build/matrix/results

test-integrations: $(INTEGRATIONS)
	$(BIN)/python -m pytest tests/integrations $(ARGS)

$(INTEGRATIONS): $(READY)
	@echo "installing accelerate, Lightning, peft, datasets and safetensors into $(VENV), once ..."
	$(PIP_INSTALL) --no-compile 'vertexflow[integrations]' # which is installed: only what the extra asks for
	@touch $@

# Chromium: a system's own (Debian: apt install chromium), or `playwright install chromium`.
test-browser: $(BROWSER)
	$(BIN)/python -m pytest tests/browser $(ARGS)

$(BROWSER): $(READY)
	@echo "installing playwright into $(VENV), once ..."
	$(PIP_INSTALL) --no-compile 'vertexflow[browser]'
	@touch $@

test-gpu: $(READY)
	TRITON_INTERPRET=0 $(BIN)/python -m pytest -m gpu $(ARGS)

# With what that machine has: nothing is installed, so that no network is needed.
gpu:
	$(PYTHON) -m benchmarks.gpu $(ARGS)

sanitize: build/fuzz
	build/fuzz --runs 100000

build/fuzz: csrc/fuzz.cpp $(wildcard csrc/*.hpp)
	@mkdir -p build
	$(CXX) -std=c++17 -g -O1 -Wall -Wextra -Werror -D_GLIBCXX_ASSERTIONS $(SANITIZERS) $< -o $@

# ThreadSanitizer of older compilers does not start where addresses are very random, as on some new systems.
sanitize-threads: build/fuzz-threads
	@fixed="setarch -R"; $$fixed true 2>/dev/null || fixed=; TSAN_OPTIONS=halt_on_error=1 $$fixed build/fuzz-threads 20000

build/fuzz-threads: csrc/fuzz_threads.cpp csrc/fuzz.cpp $(wildcard csrc/*.hpp)
	@mkdir -p build
	$(CXX) -std=c++17 -g -O1 -Wall -Wextra -Werror -fsanitize=thread $< -o $@ -pthread

# A copy of the package whose core has the sanitizers in it. Python itself has not, so that they must be loaded first.
sanitize-python: $(READY)
	@rm -rf build/sanitized && mkdir -p build/sanitized
	@cp -r pyproject.toml vertexflow tests benchmarks build/sanitized && rm -f build/sanitized/vertexflow/_core*.so
	CC="$(CXX)" CFLAGS="-g -D_GLIBCXX_ASSERTIONS $(SANITIZERS)" LDFLAGS="$(SANITIZERS)" $(abspath $(BIN))/python setup.py \
		--quiet build_ext --build-lib build/sanitized --build-temp build/sanitized/temp
	cd build/sanitized && LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libstdc++.so)" \
		ASAN_OPTIONS=detect_leaks=0 PYTHONMALLOC=malloc OMP_NUM_THREADS=1 \
		$(abspath $(BIN))/python -m pytest -q -p no:cacheprovider --hypothesis-profile=ci \
		tests/scheduler tests/graph/inputs/test_pack.py tests/test_malformed.py tests/kernels/triton/test_launch.py \
		-k "not ctrl_c and not within_a_second"

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Without what an earlier one left in build: setuptools packs it again, modules that are gone among it.
wheel: $(READY)
	@rm -rf build/lib* build/bdist*
	$(BIN)/pip wheel --disable-pip-version-check --quiet --no-deps --no-build-isolation --wheel-dir dist .

# Pages are executed in the kernel of this environment.
docs: $(DOCS)
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m sphinx -b html -W --keep-going -d build/doctrees docs build/site $(ARGS)

docs-links: $(DOCS)
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m sphinx -b linkcheck -d build/doctrees docs build/links $(ARGS)

$(DOCS): $(READY)
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "the site is built with Python 3.11 or later: make PYTHON=python3.11 VENV=.venv311 docs"; exit 1; }
	@echo "installing Sphinx and what it needs into $(VENV), once ..."
	$(PIP_INSTALL) --no-compile 'vertexflow[docs]'
	@touch $@

bench: $(READY)
	$(BIN)/python -m benchmarks run $(ARGS)

bench-gpu: $(READY)
	$(BIN)/python -m benchmarks run --device cuda --compile --rounds 30 $(ARGS)

clean:
	rm -rf $(VENV) build dist vertexflow/_core*.so *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
