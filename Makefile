# make lab         set up .venv, open JupyterLab on the first notebook
# make test        set up, then run everything that continuous integration runs; on x86 what computes
#                  numbers runs once more, with the kernels of a laptop without AVX-512 and VNNI
# make bench       set up, then measure what is measured and not asserted
# make notebooks   execute all notebooks and store their outputs in them
# make clean       remove .venv and what runs leave behind
#
# Variables, such as  make lab PYTHON=python3.12
#   PYTHON      the Python to build .venv with: 3.11, 3.12 or 3.13
#   PIP_EXTRA   words for pip, in place of those that labkit/cli/installing.py chooses: on Linux
#               without an NVIDIA GPU it takes PyTorch's build for CPUs, if CPU_INDEX answers
#   CPU_INDEX   where that build lies: an index of PyTorch's, or your own copy of it
#   PROCESSES   how many tests run at the same time

PYTHON    ?=
CPU_INDEX ?= https://download.pytorch.org/whl/cpu
PROCESSES ?= 2
VENV      := .venv
RUN       := $(VENV)/bin/python
LAPTOP    := ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2
NUMBERS   := $(addprefix tests/,training measure models compare data ground \
	$(addprefix compression/,quantize/test_static.py quantize/test_dynamic.py quantize/test_graphs.py \
	quantize/test_rounding.py prune/test_channel_pruning.py prune/test_masks.py prune/test_prune.py))
ASK       := -I labkit/cli/installing.py

.PHONY: lab test bench notebooks clean
.DELETE_ON_ERROR:

lab: $(VENV)/lab.stamp
	@exec $(RUN) -m labkit.cli lab

test: $(VENV)/test.stamp
	$(RUN) tests/support/find_browser.py --install
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check
	LABKIT_PROFILE=smoke LABKIT_RESULTS="$(CURDIR)/results/test" $(RUN) -m pytest -n $(PROCESSES) \
		--nbval-lax --nbval-current-env --nbval-cell-timeout=120 tests notebooks/00_start_here.ipynb notebooks/01_the_training_loop.ipynb
	test "$$(uname -m)" != x86_64 || \
		$(LAPTOP) $(RUN) -m pytest -n $(PROCESSES) $(NUMBERS)

bench: $(VENV)/bench.stamp
	$(RUN) tests/support/find_browser.py --install
	$(RUN) -m benchmarks

notebooks: $(VENV)/lab.stamp
	$(RUN) -m labkit.cli run all --store

clean:
	rm -rf $(VENV) results build *.egg-info .pytest_cache .mypy_cache .ruff_cache
	rm -f data/FashionMNIST/raw/*-ubyte

# What somebody has said themselves, even if it is nothing, wins.
ifeq ($(origin PIP_EXTRA),undefined)
PIP_WORDS = $$($(RUN) $(ASK) words "$(CPU_INDEX)")
else
PIP_WORDS = $(PIP_EXTRA)
endif

# One stamp for each set of extras, written when pip has ended well. If pip was interrupted there is
# no stamp and the next make goes on: a package that lacks its RECORD was cut short, so it is
# forgotten and installed again. A .venv whose Python is gone or that was moved here from another
# folder is built anew.
WHOLE = $(RUN) -c "" 2>/dev/null && head -n 2 $(VENV)/bin/pip | grep -qF "$(CURDIR)/$(VENV)/bin/"

ifneq ($(shell { $(WHOLE); } 2>/dev/null && echo whole),whole)
$(shell rm -f $(VENV)/*.stamp)
endif

$(VENV)/%.stamp: pyproject.toml
	@{ $(WHOLE) && $(RUN) -m pip --version; } >/dev/null 2>&1 || { $(find_python) && \
		"$$python" $(ASK) check && echo "building $(VENV) with $$python" && "$$python" -m venv --clear $(VENV); }
	@for package in $(VENV)/lib/python*/site-packages/*.dist-info; do \
		test -f "$$package/RECORD" || rm -rf "$$package"; done
	@echo "installing labkit[$*]; the first time this takes some minutes"
	@$(RUN) -m pip install --quiet --disable-pip-version-check $(PIP_WORDS) --editable ".[$*]"
	@touch $@

# Sets the shell variable "python", or says what is missing.
define find_python
for python in $(or $(PYTHON),python3.13 python3.12 python3.11 python3); do \
	"$$python" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
		>/dev/null 2>&1 && break; python=; done; \
	test -n "$$python" || { echo "labkit needs Python 3.11, 3.12 or 3.13 with its venv module." \
		"Install one (Debian, Ubuntu: apt install python3-venv; macOS: brew install python@3.13)," \
		"or name it: make lab PYTHON=/path/to/python3" >&2; false; }
endef
