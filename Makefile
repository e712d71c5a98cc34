# Thin names over the real tools. `make` alone lists them.
# MILLRACE_ENV=name chooses the environment, MILLRACE_TOPOLOGY=compact|single the topology of a new one, HOSTS=terraform who
# makes its hosts (Vagrant otherwise), and then MILLRACE_TERRAFORM=local|aws where.

SHELL := /bin/bash
# Without the functions and startup files of the shell that make was called from (scripts/lib.sh does away with the rest).
.SHELLFLAGS := -p -c
export LC_ALL := C.UTF-8
.DEFAULT_GOAL := help
.NOTPARALLEL:
override RUN := scripts/run
# With these of its options, make would call a success what has failed (-i), what was not done (-t), or whatever a shell's
# variables have made of this file (-e).
OPTIONS := $(firstword -$(MAKEFLAGS))
ifneq ($(findstring i,$(OPTIONS))$(findstring t,$(OPTIONS))$(findstring e,$(OPTIONS)),)
$(error make has the options $(OPTIONS). fix: leave -i, -t and -e out, and `unset MAKEFLAGS`)
endif
# A shell may have variables of these names for reasons of its own.
ifneq ($(origin HOSTS),command line)
HOSTS := $(filter vagrant terraform,$(HOSTS))
else ifneq ($(HOSTS),$(filter vagrant terraform,$(HOSTS)))
$(error HOSTS=$(HOSTS) is neither vagrant nor terraform. fix: name one of them, or none)
endif
ifneq ($(origin NAME),command line)
NAME :=
endif
# HOSTS=terraform: Terraform makes the hosts, or has made them, and says where they are.
ifneq ($(HOSTS),)
export MILLRACE_HOSTS := $(HOSTS)
endif

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## install the locked tools into .venv
	@scripts/setup

.PHONY: up
up: ## make the hosts, install the platform, and wait for the first rows
	@scripts/up

.PHONY: status
status: setup ## state of every unit on every host, and the flow's counts
	@$(RUN) ansible-playbook ansible/status.yml

.PHONY: verify
verify: setup ## send a batch through and compare every station, row by row
	@$(RUN) ansible-playbook ansible/verify.yml

.PHONY: secrets
secrets: setup ## say where the secrets are; NAME=airflow_admin prints one
	@$(RUN) python -m millrace.environment secret $(NAME)

.PHONY: down
down: ## remove the environment: its hosts, its data, its state
	@scripts/down

.PHONY: locks
locks: setup ## write all locks anew: Python environments here, artifacts on the depot's host
	scripts/lock-python
	$(RUN) ansible-playbook ansible/lock.yml

.PHONY: depot-rebuild
depot-rebuild: setup ## build every artifact anew on the depot's host and hold it to the locks
	$(RUN) ansible-playbook site.yml --tags depot -e depot_rebuild=true

.PHONY: test
test: lint test-code test-terraform test-platform test-spark ## all of the tests below but those that take long: test-roles, test-depot, test-apart, test-operations, test-vm

.PHONY: lint
lint: setup ## linters, types, and the repository's own rules
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy
	$(RUN) yamllint --strict .
	$(RUN) shellcheck -x -P SCRIPTDIR $$(grep -lE '^#!.*bash' scripts/*) .ci/run
	$(RUN) env MILLRACE_READS_ONLY=1 ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED=false ansible-lint --offline -q
	$(RUN) pytest -q tests/repo

.PHONY: test-code
test-code: setup ## the package, the DAGs with a real PostgreSQL, and what a person types, on this machine
	@scripts/test-needs
	$(RUN) pytest -q tests/unit tests/entry_points
	scripts/test-dags -q

PLATFORM_FAILED := .pytest_cache/failed
.PHONY: test-platform
test-platform: setup ## the platform on hosts of its own: fresh, a second time, and checked (molecule test)
	@rm -f $(PLATFORM_FAILED)
	$(RUN) molecule test --destroy always || { cat $(PLATFORM_FAILED) 2>/dev/null; false; }

.PHONY: test-spark
test-spark: setup ## the Spark job on a local session, with the release that the platform's depot built
	scripts/test-spark -q

.PHONY: test-roles
test-roles: setup ## each role alone, on small hosts of its own (molecule test in each role's folder; an hour)
	$(RUN) sh -ec 'for role in roles/*/; do (cd "$$role" && molecule test --destroy always); done'

.PHONY: test-depot
test-depot: export MILLRACE_ENV := m-depot
test-depot: export MILLRACE_TOPOLOGY := tests/molecule/base.yml
test-depot: setup ## all locks and artifacts made anew on a depot of its own, and none of them another (a quarter of an hour)
	scripts/down
	scripts/lxc-hosts make
	$(RUN) ansible-playbook site.yml --tags host,depot
	$(MAKE) depot-rebuild
	$(MAKE) locks
	git diff --exit-code -- artifacts requirements
	scripts/down

.PHONY: test-apart
test-apart: export MILLRACE_ENV := apart
test-apart: export MILLRACE_TOPOLOGY := tests/apart/apart.yml
test-apart: setup ## each service on a host of its own, through the firewalls of all: installed, the flow, who reaches what
	scripts/down
	scripts/lxc-hosts make
	$(RUN) ansible-playbook site.yml
	$(RUN) pytest -v tests/apart
	scripts/down

.PHONY: test-operations
test-operations: export MILLRACE_ENV := operations
test-operations: setup ## runs that are killed, settings that change, restarts, reboots, on hosts of their own, while users flow
	scripts/down
	scripts/hosts
	$(RUN) pytest -sv tests/operations
	scripts/down

.PHONY: faults
faults: setup ## inject faults while rows flow, on hosts of its own that are kept; ONLY=name, ROUNDS=3, FRESH=1, PATIENCE=2
	@scripts/faults

.PHONY: faults-down
faults-down: ## remove the hosts that faults were injected into, and the results
	@MILLRACE_ENV=faults scripts/down

.PHONY: test-terraform
test-terraform: setup ## Terraform's modules, hosts of this machine, and the aws environment against a stand-in on loopback
	$(RUN) uv tool run -q --with-requirements requirements/checkov.txt checkov -d terraform --framework terraform --skip-download --compact --quiet
	$(RUN) pytest -q tests/terraform

.PHONY: test-vm
test-vm: setup ## the user data of aws on a virtual machine: first boot, platform, reboot, new instance (an hour)
	$(RUN) pytest -q -x -s tests/vm

.PHONY: bench
bench: export MILLRACE_ENV := bench
bench: setup ## how fast rows go, and what that costs, on hosts of its own that are kept: docs/bench.md; MILLRACE_TOPOLOGY=single
	scripts/up
	$(RUN) python -m tests.bench
	$(RUN) uv run -q --no-project --with-requirements requirements/bench.txt python tests/bench/report.py
