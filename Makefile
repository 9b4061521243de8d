# The door to the study. `make` alone prints the targets; nothing but Python 3.11 and make has to be there before.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help env reproduce figures record drift readme smoke bench bench-store soak families notebooks-on-families train base site site-check test slow lint lab lock clean

IS_311 := -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null
PYTHON ?= $(shell for p in python3.11 python3 python; do $$p $(IS_311) && echo $$p && break; done)
VENV ?= .venv
PY = $(VENV)/bin/python
# An environment of your own (conda, a container): `make reproduce PY=python`. Nothing is then installed.
READY := $(if $(filter command,$(origin PY)),,$(VENV)/.ready)
SITE_READY := $(if $(READY),$(VENV)/.site)
PIP = $(PY) -m pip --disable-pip-version-check install -qq --no-input --progress-bar off

# Settings count only when typed after `make`: a MODEL or OUT left over in the shell must not change a study. They arrive
# as typed: `value` does not expand them, an apostrophe leaves the quotes and comes back, and make exports none of them,
# for which it would expand them.
typed = $(if $(filter command,$(origin $(1))),$(value $(1)))
given = $(if $(call typed,$(1)),--$(2) '$(subst ','\'',$(call typed,$(1)))')
DEVICE_OPTION = $(call given,DEVICE,device)
SETTINGS = $(call given,MODEL,model) $(call given,IMAGE_MODEL,image-model) $(call given,BENCHMARK,benchmark) \
	$(call given,TASKS,tasks) $(call given,SAMPLES,samples) \
	$(call given,MAP_SAMPLES,map-samples) $(call given,WINDOW,window) $(call given,SEED,seed) \
	$(call given,OUT,out) $(call given,WORKERS,workers) $(DEVICE_OPTION)
unexport MODEL IMAGE_MODEL BENCHMARK TASKS SAMPLES MAP_SAMPLES WINDOW SEED OUT DEVICE WORKERS

# What MODEL=smol stands on is fetched when it is first asked for.
BASE = $(if $(filter smol%,$(call typed,MODEL)),base)

help: ## print this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-21s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo "  settings   MODEL IMAGE_MODEL BENCHMARK TASKS SAMPLES MAP_SAMPLES WINDOW SEED OUT DEVICE WORKERS"
	@echo "             make reproduce MODEL=byminji/LLaVA-NeXT-7B-Video-FT BENCHMARK=tvbench:/data/TVBench"

env: $(READY) ## create .venv with the pinned packages (the other targets do it when needed)
	@echo "ready: $(PY)"

# torch goes first and alone: pip then takes a CPU build where the machine offers one, else the registry's CUDA build.
$(VENV)/.ready: pyproject.toml requirements.lock
	@'$(PYTHON)' $(IS_311) || \
		{ echo "Python 3.11 is needed: make env PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "environment 1/3: creating $(VENV)"
	@'$(PYTHON)' -m venv $(VENV)
	@echo "environment 2/3: installing torch (a few minutes the first time)"
	@$(PIP) "$$(grep '^torch==' requirements.lock)"
	@echo "environment 3/3: installing the other pinned packages"
	@$(PIP) -e '.[dev]' -c requirements.lock
	@touch $@

reproduce: $(READY) $(BASE) ## measure the whole study into build/reproduce, and say whether it agrees with the record
	@$(PY) -m analysis_lib reproduce $(SETTINGS)

figures: $(READY) ## redraw every figure of the record into build/figures, without a model; is it the same?
	@$(PY) -m analysis_lib reproduce --figures-only $(SETTINGS)

record: $(READY) $(BASE) ## write the record (data/results, figures, notebooks/executed): measure what it lacks, redraw
	$(if $(call given,OUT,out),$(error the record has its own places: leave OUT out))
	@$(PY) -m analysis_lib record $(SETTINGS)

drift: $(READY) ## measure how far numbers drift with threads, number format and seed, into data/drift.csv
	@$(PY) -m analysis_lib.reports.drift_sweeps

readme: $(READY) ## write the stored findings, costs and drift into README.md, CITATION.cff and docs/scale.md
	@$(PY) -m analysis_lib.reports.readme

smoke: $(READY) $(BASE) ## try MODEL and BENCHMARK: every notebook on a few questions, into build/smoke; says how long all take
	$(if $(call given,OUT,out),$(error a smoke run writes to build/smoke, never elsewhere: leave OUT out))
	@rm -rf build/smoke
	@$(PY) -m analysis_lib reproduce --forecast --samples 4 --map-samples 0 $(SETTINGS) --out build/smoke

bench: $(READY) ## time and count what a knockout sweep costs, exact against full, into data/bench
	@$(PY) -m analysis_lib.reports.bench
	@$(PY) -m analysis_lib.reports.gpu_hours

bench-store: $(READY) ## fill a results store with up to 100,000 made-up samples and see how it grows, into data/bench
	@$(PY) -m analysis_lib.reports.bench_store

soak: $(READY) ## kill workers and drivers of a sweep, twenty each, and see that its results stay the same bytes
	@$(PY) -m analysis_lib.reports.soak

families: $(READY) ## try every video architecture of transformers on a tiny checkpoint, into docs/families.md
	@$(PY) tests/support/census_table.py

notebooks-on-families: $(READY) ## send the families of the table through every notebook, into docs/families.md
	@$(PY) tests/support/family_table.py

train: $(READY) $(BASE) ## re-create the embedded models, or those of MODEL=smol (DEVICE=cuda where there is one)
	@$(PY) -m analysis_lib train $(call given,MODEL,model) $(call given,SEED,seed) $(call given,OUT,out) $(DEVICE_OPTION)

base: $(READY) ## fetch the language model under MODEL=smol, check it, and lay it into data/base
	@$(PY) -m analysis_lib.embedded.smol.base

$(VENV)/.site: $(VENV)/.ready
	@echo "installing what the site is made with"
	@$(PIP) -e '.[site]' -c requirements.lock
	@touch $@

site: $(SITE_READY) ## make a site of pages and an explorer from what is stored, into build/site/html
	@$(PY) -m analysis_lib.reports.site.build

site-check: $(SITE_READY) ## look at every page of the site in a real browser; pictures in build/site/seen
	@$(PY) -m analysis_lib.reports.site.check

# One process a core, and one thread a process: the models of the tests are too small to share work.
TEST = OMP_NUM_THREADS=1 $(PY) -m pytest -n auto --dist loadfile

test: $(READY) ## run the tests, but for the slow ones
	@$(TEST) -m 'not slow'

slow: $(READY) ## run the slow tests: every family, training, whole notebooks
	@$(TEST) -m slow

lint: $(READY) ## check code and notebooks with ruff, and that imports go one way through the rooms
	@$(PY) -m ruff check .
	@$(PY) -c 'from importlinter.cli import lint_imports_command as check; check(["--no-cache", "--no-logo"])'

lab: $(READY) ## open the notebooks in JupyterLab
	@$(PY) -m jupyter lab notebooks

lock: ## pin the newest packages that pyproject.toml allows (needs uv)
	@{ printf '%s\n' \
		'# The packages that the committed numbers were measured with; made by `make lock`, used as pip constraints.' \
		'# CUDA packages are left out: the build of torch that pip picks brings its own.'; \
	uv pip compile -q --python-version 3.11 --python-platform linux --extra dev --extra cluster --extra site --no-header \
		--no-annotate \
		--no-emit-index-url --no-emit-find-links pyproject.toml | grep -v -E '^(nvidia|cuda|triton)'; } > requirements.lock.new
	@mv requirements.lock.new requirements.lock

clean: ## remove what can be made again: clips, smoke runs, caches (stored results, reproductions and .venv stay)
	@find build -mindepth 1 -maxdepth 1 ! -name reproduce -exec rm -rf {} + 2>/dev/null || true
	@rm -rf data/benchmark .pytest_cache .ruff_cache *.egg-info requirements.lock.new
	@find analysis_lib tests notebooks \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +
