# The README's commands. Each sets up what it needs.
.DEFAULT_GOAL := help
SHELL := /bin/sh
export PATH := $(CURDIR)/.venv/bin:$(PATH)
VENV := .venv/.made-from
PROMPT ?= What is a bedplate?

.PHONY: help setup demo test check lint types unit reference sanity build molecule bench clean

help: ## Show the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 18

$(VENV): requirements/dev.txt tools/setup
	@tools/setup

setup: $(VENV) ## The environment .venv, with the bedplate command in .venv/bin

demo: $(VENV) ## Bare machine to first token: a lab host, provisioned, verified, asked
	@tools/demo "$(PROMPT)"

test: check sanity build reference molecule ## Everything that CI runs (root, Debian or Ubuntu)

check: $(VENV) ## Lint, types and unit tests (under two minutes)
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target unit lint types

lint: $(VENV) ## ruff, yamllint, ansible-lint
	ruff check .
	ruff format --check .
	yamllint --strict .
	ansible-lint --offline --strict

types: $(VENV) ## mypy, strict
	mypy src/bedplate tools
	mypy --explicit-package-bases plugins/module_utils

unit: $(VENV) ## Unit tests
	pytest tests/unit

reference: $(VENV) ## The planner's figures against vLLM's own code (the lab bundle's engine)
	@tools/reference

sanity: $(VENV) ## ansible-test sanity on the built collection
	@tools/sanity

build: $(VENV) ## Wheel and collection tarball, looked into, installed and run
	@tools/build-check

molecule: $(VENV) ## The whole rollout on lab machines, seen from a second one (root)
	@tools/molecule

bench: $(VENV) ## What a rollout costs that has nothing to do (root); numbers, not a test
	@python tests/bench/converge/measure.py

clean: ## Remove what the targets made here (not the caches of the machine)
	rm -rf .venv .dev .ansible .bedplate dist build
