# make demo   train and score a small network on rendered people, from nothing, in minutes on two CPU cores
# make test   lint and the whole test suite
# make test-recipes  every recipe trains two iterations on made-up data and is scored
# make test-faults   fifty runs killed at random moments, each of which must end with the bits of an undisturbed one
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
KERNEL := $(wildcard evaluate/eval_cylib/*.pyx)

.PHONY: demo test test-faults test-recipes install clean

install: $(INSTALLED)

# setuptools stays below 81 because visdom's source package needs pkg_resources to build.
$(INSTALLED): pyproject.toml constraints.txt $(KERNEL) evaluate/eval_cylib/build.py
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

test: $(INSTALLED)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m pytest

test-faults: $(INSTALLED)
	$(PY) -m pytest -m faults

test-recipes: $(INSTALLED)
	$(PY) -m pytest -m recipes tests/test_recipes.py

clean:
	rm -rf $(VENV) build *.egg-info runs evaluate/eval_cylib/*.c evaluate/eval_cylib/*.so
