# make demo        trains a sparse network on real data and shows what came of it (minutes, no GPU)
# make plasticity  prunes networks in the middle of training, shows how they recover (minutes)
# make test        runs the tests
# make test-all    runs those that take long as well: real models and all file formats (half an hour)
# make docs        builds the documentation with the API reference in site/
# All make a virtual environment of their own in $(VENV) and install what they need there.

PYTHON ?= python3
VENV ?= .venv
PIP = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo plasticity test test-all docs lint clean

demo: $(VENV)/training.installed
	$(VENV)/bin/granet-train --flagfile=configs/digits_granet.flags --overwrite

plasticity: $(VENV)/training.installed
	$(VENV)/bin/granet-plasticity --flagfile=configs/plasticity/digits.flags

test: $(VENV)/test.installed
	$(VENV)/bin/python -m pytest -n 2 -q

test-all: $(VENV)/test-all.installed
	$(VENV)/bin/python -m pytest -n 2 -q -m "slow or not slow"

docs: $(VENV)/docs.installed
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build
	@echo "Open site/index.html."

lint: $(VENV)/test.installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

clean:
	rm -rf .venv work site build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

training = training
test = training,test
test-all = training,test,test_all,docs
docs = docs

# The marks say what is installed, so that a second `make` starts at once.
$(VENV)/%.installed: setup.py pyproject.toml | $(VENV)/bin/python
	@echo "Installing into $(VENV): TensorFlow is large, this takes some minutes the first time."
	$(PIP) --editable '.[$($*)]'
	@touch $@

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# A mistyped target.
.DEFAULT:
	@echo "There is no target $@. There are: demo, plasticity, test, test-all, docs, lint, clean." >&2; exit 2
