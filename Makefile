# make demo   train and score a small network on rendered people, from nothing, in minutes on two CPU cores
# make test   lint and the whole test suite
# make distill-demo  a teacher, a small student alone and with the teacher, their scores, speed and heatmaps
# make test-recipes  every recipe trains two iterations on made-up data and is scored
# make docs   the documents as a site in site/, every link checked
# make test-exports  every network is exported in every format and compared with PyTorch
# make test-faults   fifty runs killed at random moments, each of which must end with the bits of an undisturbed one
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
DISTILLED := $(foreach run,teacher student feature,runs/quickstart_$(run)/checkpoints/best.pt)
KERNEL := $(wildcard evaluate/eval_cylib/*.pyx evaluate/eval_cylib/*.pxi evaluate/eval_cylib/*.h)

.PHONY: demo distill-demo test test-faults test-recipes docs install clean

install: $(INSTALLED)

# setuptools stays below 81 because visdom's source package needs pkg_resources to build.
$(INSTALLED): pyproject.toml constraints.txt $(KERNEL) setup.py
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet -c constraints.txt "setuptools>=77,<81" wheel Cython
	$(PY) -m pip install --quiet -c constraints.txt --no-build-isolation -e ".[dev]"
	$(PY) -m pip install --quiet -c constraints.txt --no-build-isolation visdom "tornado<6.6" \
		|| echo "visdom could not be installed: everything works but LOG.VISDOM True"
	touch $(INSTALLED)

demo: $(INSTALLED)
	$(PY) -m tools.quickstart_data datasets/quickstart --images --overwrite
	$(PY) main.py -c configs/quickstart.yml OVERWRITE True
	$(PY) -m tools.visualize TEST.WEIGHT runs/quickstart/checkpoints/best.pt --queries random --count 12 --out runs/quickstart/ranked
	@echo "scores: runs/quickstart/results.json   log: runs/quickstart/log.txt"
	@echo "pictures of ranked results: runs/quickstart/ranked/index.html"

distill-demo: $(INSTALLED)
	$(PY) -m tools.quickstart_data datasets/quickstart --images --overwrite
	$(PY) main.py -c configs/quickstart_teacher.yml OVERWRITE True
	$(PY) main.py -c configs/quickstart_student.yml OVERWRITE True
	$(PY) main.py -c configs/quickstart_feature.yml OVERWRITE True
	$(PY) -m tools.benchmark latency $(DISTILLED) --device cpu
	$(PY) -m tools.heatmaps --models $(DISTILLED) --out runs/distill_demo

test: $(INSTALLED)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m pytest

test-faults: $(INSTALLED)
	$(PY) -m pytest -m faults

test-exports: $(INSTALLED)
	$(PY) -m pytest -m "exports or not exports" tests/engine/test_deploy.py

test-recipes: $(INSTALLED)
	$(PY) -m pytest -m recipes tests/test_recipes.py

docs: $(INSTALLED)
	$(PY) -m mkdocs build --strict --quiet
	@echo "the documents: site/index.html"

clean:
	rm -rf $(VENV) build *.egg-info runs site evaluate/eval_cylib/*.c evaluate/eval_cylib/*.so
