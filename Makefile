# `make` lists the targets. Everything is made below .venv/ and .freeal/, nothing outside the project.

SUITABLE := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))
PYTHON ?= $(shell for python in python3.11 python3.12 python3; do \
  $$python -c '$(SUITABLE)' 2>/dev/null && { command -v $$python; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
BACKEND := $(BIN)/python -m backend
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
TOOLS := .freeal/envs/tools
HASHED := yes
NEEDS_CUDA := import importlib.metadata as m, sys; sys.exit("nvidia" not in str(m.requires("torch")))

.DEFAULT_GOAL := help
.PHONY: help install install-dev test e2e pictures demo serve llm doctor status format lock sbom audit clean

help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED) ## Install the backend in .venv, with every file's hash checked (HASHED=no: not)

install-dev: $(INSTALLED_DEV) ## Add what the tests need

test: install-dev ## Check style and types, run the tests (no network, no GPU)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n auto --dist loadfile

e2e: install-dev debian-packages ## Run the slow tests, and those with a real Label Studio, vLLM, PostgreSQL, browser
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow -n auto --dist loadfile
	$(BIN)/python -m pytest -m e2e

pictures: install-dev debian-packages ## Take the pictures of the documentation anew, by the tests that show what is on them
	UPDATE_IMAGES=1 $(BIN)/python -m pytest -m e2e -n 0 tests/end_to_end/test_pictures.py tests/end_to_end/test_browser.py tests/end_to_end/test_label_configs.py \
		tests/end_to_end/test_shipped_templates.py::test_the_documentation_says_of_every_template_what_is_predicted

demo: install ## Start everything with sample texts; DATA=texts.jsonl CONFIG=labels.xml LLM_MODEL=name for your own
	$(BACKEND) demo $(if $(DATA),--data "$(DATA)") $(if $(CONFIG),--config "$(CONFIG)")

serve: install ## Start the backend beside your Label Studio and your LLM server
	$(BACKEND) serve

llm: install ## Start a vLLM server with the best embedded model that fits, or LLM_MODEL=name
	$(BACKEND) llm

doctor: install ## Check the set-up and say what to do
	$(BACKEND) doctor

status: install ## Show how far each project is
	$(BACKEND) status

format: install-dev ## Put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(TOOLS)/.installed ## Pin requirements.txt with hashes; TORCH_WHEELS="files" allows other builds of torch
	$(TOOLS)/bin/python .ci/lock.py $(TOOLS)/bin/uv $(TORCH_WHEELS)

sbom: install $(TOOLS)/.installed ## List what is installed in .venv as CycloneDX, in .freeal/sbom.json
	$(TOOLS)/bin/cyclonedx-py environment $(BIN)/python --output-format JSON --output-file .freeal/sbom.json

audit: $(TOOLS)/.installed ## Look for known holes in what is locked (AUDIT_REQUIRED=1: fail if that cannot be asked)
	$(TOOLS)/bin/python .ci/audit.py $(TOOLS)/bin/pip-audit

clean: ## Remove .venv and caches; .freeal, which holds your data, stays
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.freeal/*' -prune -exec rm -rf {} +

# A stamp is written last, so an interrupted installation is taken up again by the next `make`.
$(INSTALLED): requirements.txt requirements-label-studio-ml.txt requirements.lock requirements-cuda.lock
	@test -n "$(PYTHON)" && "$(PYTHON)" -c '$(SUITABLE)' || \
	  { echo "Python 3.11 or 3.12 is needed; if it has an unusual name: make install PYTHON=/path/to/it"; exit 1; }
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
ifeq ($(HASHED),yes)
	$(BIN)/python .ci/torch_build.py
	$(PIP_INSTALL) --require-hashes --no-deps -r requirements.lock
	! $(BIN)/python -c '$(NEEDS_CUDA)' || $(PIP_INSTALL) --require-hashes --no-deps -r requirements-cuda.lock
else
	$(PIP_INSTALL) -r requirements.txt
	$(PIP_INSTALL) --no-deps -r requirements-label-studio-ml.txt
endif
	@touch $@

$(INSTALLED_DEV): $(INSTALLED) requirements-dev.txt
	$(PIP_INSTALL) -r requirements-dev.txt
	@touch $@

$(TOOLS)/.installed: requirements-tools.txt
	$(PYTHON) -m venv --clear $(TOOLS)
	$(TOOLS)/bin/pip install --disable-pip-version-check -r requirements-tools.txt
	@touch $@

.PHONY: debian-packages
debian-packages:
	@command -v chromium >/dev/null && ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 && exit 0; \
	if [ "$$(id -u)" = 0 ]; then \
	  apt-get update && apt-get install -y --no-install-recommends chromium postgresql; \
	else \
	  echo "These tests need Debian's chromium and postgresql: sudo apt-get install chromium postgresql"; \
	  exit 1; \
	fi
