# make demo          train and evaluate a small network on rendered people, from nothing, in minutes
# make test          lint, types and all tests that need no optional package
# make distill-demo  a teacher, a student without and with it: scores, speed and heatmaps
# make docs          build the documentation in site/ and check every link
# make typecheck     mypy alone
# make test-extras   install every optional integration and test it
# make test-recipes  train every recipe for two iterations on synthetic data and evaluate it
# make test-exports  export every network in every format and compare it with PyTorch
# make test-faults   kill fifty runs at random moments; each must resume with identical results
PYTHON ?= python3
HOSTILE_SECONDS ?= 600
VENV := .venv
PY := $(VENV)/bin/python
PIP_INSTALL := $(PY) -m pip install --quiet -c constraints.txt
INSTALLED := $(VENV)/.installed
DISTILLED := $(foreach run,teacher student feature,runs/quickstart_$(run)/checkpoints/best.pt)
KERNEL := $(wildcard evaluate/eval_cylib/*.pyx evaluate/eval_cylib/*.pxi evaluate/eval_cylib/*.h)
TYPES := build/types
# Two processes of one thread each; a file runs in one of them, the longest files start first.
WORKERS ?= --numprocesses 2 --dist loadfile --no-loadscope-reorder
SOURCES := main.py config data engine evaluate layers modeling solver tools

.PHONY: install demo distill-demo docs lint typecheck clean
.PHONY: test test-extras test-exports test-faults test-hostile test-recipes

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt $(KERNEL) setup.py
	$(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) "setuptools>=77,<81" wheel Cython
	$(PIP_INSTALL) --no-build-isolation -e ".[dev]"
	touch $(INSTALLED)

demo: $(INSTALLED)
	$(PY) -m ember_reid demo

distill-demo: $(INSTALLED)
	$(PY) -m tools.quickstart_data datasets/quickstart --images --overwrite
	$(PY) main.py -c configs/quickstart/teacher.yml OVERWRITE True
	$(PY) main.py -c configs/quickstart/student.yml OVERWRITE True
	$(PY) main.py -c configs/quickstart/feature.yml OVERWRITE True
	$(PY) -m tools.benchmark latency $(DISTILLED) --device cpu
	$(PY) -m tools.heatmaps --models $(DISTILLED) --out runs/distill_demo

test: $(INSTALLED) lint typecheck
	OMP_NUM_THREADS=1 $(PY) -m pytest $(WORKERS)

lint: $(INSTALLED)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

# mypy cannot map folders to subpackages, so it sees links that have the layout of the wheel.
typecheck: $(INSTALLED)
	rm -rf $(TYPES)
	mkdir -p $(TYPES)/ember_reid
	ln -s $(addprefix $(CURDIR)/,$(SOURCES)) $(wildcard $(CURDIR)/ember_reid/*) $(TYPES)/ember_reid/
	cd $(TYPES) && $(abspath $(PY)) -m mypy --config-file $(CURDIR)/pyproject.toml \
		--cache-dir $(CURDIR)/.mypy_cache

# BoxMOT and Ultralytics are under the AGPL: never a dependency, in an environment of their own that
# finds torch in .venv. BoxMOT 25 wants this version of onnxruntime.
TRACKERS := build/trackers
$(TRACKERS)/.installed: $(INSTALLED)
	$(PYTHON) -m venv $(TRACKERS)
	$(PY) -c "import sysconfig; print(sysconfig.get_path('purelib'))" > \
		$$($(TRACKERS)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/venv.pth
	grep -E "^torch(vision)?==" constraints.txt > $(TRACKERS)/pins.txt
	$(TRACKERS)/bin/python -m pip install --quiet -c $(TRACKERS)/pins.txt \
		boxmot==25.0.0 ultralytics==8.4.190
	$(TRACKERS)/bin/python -m pip install --quiet --no-deps onnxruntime==1.24.3
	touch $@

# visdom has no wheel, and its source package needs the setuptools that is installed above.
test-extras: $(INSTALLED) $(TRACKERS)/.installed
	$(PIP_INSTALL) --no-build-isolation -e ".[extras]"
	$(PY) -m pytest -m extras

test-faults: $(INSTALLED)
	$(PY) -m pytest -m faults

# Rounds with new random seeds until the time is over.
test-hostile: $(INSTALLED)
	end=$$(( $$(date +%s) + $(HOSTILE_SECONDS) )); while [ $$(date +%s) -lt $$end ]; do \
		HOSTILE_PROFILE=long $(PY) -m pytest -s tests/hostile || exit 1; done

test-exports: $(INSTALLED)
	$(PY) -m pytest -m "exports or not exports" tests/engine/test_deploy.py

test-recipes: $(INSTALLED)
	$(PY) -m pytest -m recipes tests/test_recipes.py tests/test_readme.py \
		tests/tools/test_explain.py tests/modeling

docs: $(INSTALLED)
	$(PY) -m mkdocs build --strict --quiet
	@echo "documentation: site/index.html"

clean:
	rm -rf $(VENV) build *.egg-info runs site .mypy_cache
	rm -f evaluate/eval_cylib/*.c evaluate/eval_cylib/*.so
