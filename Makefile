# make demo     a virtual environment, the package, a few clips, and `gpupipe clips` on them
# make test     the same environment with the development tools; linters, types and the whole test suite
# make lint     ruff and mypy alone
# make fuzz     the tests of damaged and hostile input, TIMES (50) times as many examples as in `make test`, at random
# make chaos    KILLS (200) kills of running jobs at random moments; a kill before each step of a run (10 to 20 minutes)
# make sanitize the tests of native code under AddressSanitizer and UBSan, in a build of their own (gcc; minutes)
# make clean    remove what was built; make distclean also removes .venv and demo/
#
# PYTHON=python3.12 chooses the interpreter of a new .venv, DIR=folder where the demo goes.

PYTHON ?= python3
DIR ?= demo
TIMES ?= 50
KILLS ?= 200

PY := .venv/bin/python
PIP := $(PY) -m pip --disable-pip-version-check -q
SOURCES := pyproject.toml setup.py $(wildcard csrc/*.h csrc/*.pyx) $(filter-out csrc/_native.cpp,$(wildcard csrc/*.cpp))

define CHECK
import os, shutil, sys, sysconfig
asked = sys.argv[1]
if sys.version_info < (3, 11):
    sys.exit("gpupipe needs Python 3.11 or newer; %s is %s. Name one: make PYTHON=python3.12 ..." % (asked, sys.version.split()[0]))
try:
    import ensurepip, venv
except ImportError:
    sys.exit("%s cannot make virtual environments. On Debian and Ubuntu: apt-get install python3-venv" % asked)
compiler = (os.environ.get("CXX") or sysconfig.get_config_var("CXX") or "c++").split()[0]
if not shutil.which(compiler):
    sys.exit("no C++ compiler: %s is not found. On Debian and Ubuntu: apt-get install g++; or set CXX." % compiler)
if not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
    sys.exit("%s has no C headers (Python.h). On Debian and Ubuntu: apt-get install python3-dev" % asked)
endef
export CHECK

# pip takes a package that it was killed in the midst of for installed: after that, begin anew. An error is no kill.
INSTALL = if [ -e .venv/.installing ]; then $(PYTHON) -m venv --clear .venv && touch .venv/.made; fi; \
	touch .venv/.installing; $(PIP) install -e $(1); code=$$?; rm .venv/.installing; exit $$code

.PHONY: help demo test lint fuzz chaos sanitize clean distclean
help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

demo: .venv/.gpupipe
	@$(PY) -m gpupipe.demo "$(DIR)"

test: lint
	$(PY) -m pytest

lint: .venv/.gpupipe-dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

fuzz: .venv/.gpupipe-dev
	GPUPIPE_FUZZ=$(TIMES) $(PY) -m pytest --timeout 3600 tests/test_fuzz.py tests/test_security.py
	GPUPIPE_FUZZ=$(TIMES) $(PY) -m pytest --timeout 3600 tests/decode/test_images.py -k random

chaos: .venv/.gpupipe-dev
	GPUPIPE_CHAOS_STEPS=0.25 $(PY) -m pytest -s tests/chaos/test_steps.py
	$(PY) tests/chaos/storm.py --kills $(KILLS)

# The whole package is built into a folder of its own, which goes before the installed one. libstdc++ is loaded early
# for the sanitizer to find its functions. Leaks are not looked for: Python and its packages keep what they have to the
# end, by the thousand. The compiler of the test for CUDA does not run with a sanitizer in it.
SANITIZED := build/sanitize
FAULTS := -fsanitize=address,undefined -fno-sanitize-recover=all
WATCHED := $(FAULTS) -g -fno-omit-frame-pointer -UNDEBUG -D_GLIBCXX_ASSERTIONS
sanitize: .venv/.gpupipe-dev
	rm -rf $(SANITIZED)
	CC=gcc CXX=g++ LDFLAGS="$(FAULTS)" CFLAGS="$(WATCHED)" CXXFLAGS="$(WATCHED)" $(PY) setup.py -q build \
		--build-base $(SANITIZED) --build-lib $(SANITIZED)/lib
	LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libstdc++.so)" \
		ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=1:allocator_may_return_null=1:max_allocation_size_mb=2048 \
		UBSAN_OPTIONS=print_stacktrace=1 \
		PYTHONMALLOC=malloc PYTHONSAFEPATH=1 PYTHONPATH=$(CURDIR)/$(SANITIZED)/lib \
		$(PY) -m pytest --capture sys -k "not cuda" tests/sanitize/corpus.py tests/test_plane.py tests/test_transform.py \
		tests/test_fuzz.py tests/decode tests/keypoints/test_native_steps.py

# A Python change needs no new installation (it is editable); a change of the sources below builds the extension anew.
.venv/.gpupipe: $(SOURCES) | .venv/.made
	@echo "Installing gpupipe into .venv and building its extension ..."
	@$(call INSTALL,.)
	@touch $@

.venv/.gpupipe-dev: $(SOURCES) | .venv/.made
	@echo "Installing gpupipe and the development tools into .venv and building the extension ..."
	@$(call INSTALL,'.[dev]')
	@touch .venv/.gpupipe $@

# A .venv that is there and works is taken as it is.
.venv/.made:
	@$(PYTHON) -c "$$CHECK" "$(PYTHON)"
	@$(PY) -m pip --version >/dev/null 2>&1 || { echo "Making .venv ..."; $(PYTHON) -m venv .venv; }
	@touch $@

clean:
	rm -rf build dist *.egg-info csrc/_native.cpp gpupipe/_native*.so .mypy_cache .ruff_cache .pytest_cache .hypothesis
	rm -f .venv/.gpupipe .venv/.gpupipe-dev

distclean: clean
	rm -rf .venv demo
