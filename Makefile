# The README's commands. Each sets up what it needs.
.DEFAULT_GOAL := help
SHELL := /bin/sh
export PATH := $(CURDIR)/.venv/bin:$(PATH)
VENV := .venv/.made-from
PROMPT ?= What is a bedplate?

.PHONY: help demo test check lint types unit sanity build molecule bench clean

help: ## Show the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 18

$(VENV): requirements/dev.txt tools/setup
	@tools/setup

demo: $(VENV) ## Bare machine to first token: a lab host, provisioned, verified, asked
	@tools/demo "$(PROMPT)"

check: lint types unit ## Lint, types and unit tests (under two minutes)

test: check ## What CI runs (lab machines: make molecule; collection rules: make sanity; packages: make build)

lint: $(VENV)
	ruff check .
	ruff format --check .
	yamllint --strict .
	ansible-lint --offline --strict

types: $(VENV)
	mypy src/bedplate
	mypy --explicit-package-bases plugins/module_utils

unit: $(VENV)
	pytest tests/unit

sanity: $(VENV)
	@tools/sanity

build: $(VENV)
	@tools/build-check

molecule: $(VENV)
	@tools/molecule

clean: ## Remove what the targets made here (not the caches of the machine)
	rm -rf .venv .dev .ansible .bedplate dist build
