# Everything that a developer types. Each target makes the virtual environment that it needs.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo test check lint types fmt fuzz pop3-servers fuzz-servers test-all-pythons clean
MAKEFLAGS += --no-print-directory

# The first Python that is new enough and can make virtual environments; PYTHON=… overrides.
CAN_BUILD := import sys, ensurepip; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for python in python3.11 python3 python3.12 python3.13; do \
	"$$python" -c '$(CAN_BUILD)' 2>/dev/null && { echo "$$python"; break; }; done)

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
PIP_INSTALL := pip install --quiet --disable-pip-version-check

help:
	@echo "make demo     see events in a minute (ONCE=1: end after the script)"
	@echo "make test     run the tests (ARGS=… for pytest)"
	@echo "make check    lint, types and tests: what must pass before a commit"
	@echo "make fmt      format the code"
	@echo "make fuzz     replay damaged captures and sessions, 20,000 of each (ARGS=… such as --seed 7)"
	@echo "make fuzz-servers   play 10,000 random dialogues to each real server (FUZZED=\"dovecot cyrus\" ARGS=\"--seed 7\")"
	@echo "make test-all-pythons   the unit tests on each other Python of this machine"
	@echo "make clean    remove what the targets above have made"

# Made anew when what it is made from changes; `ready` is the last step, so that a broken one is redone.
$(READY): pyproject.toml
	@test -n "$(PYTHON)" || { echo "make: needs Python 3.11 or newer with venv (Debian: python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/$(PIP_INSTALL) --editable '.[all]'
	@touch $@

# What runs it, and nothing else: what checks it takes much longer to install.
RUNS := $(VENV)/runs
$(RUNS): pyproject.toml
	@test -n "$(PYTHON)" || { echo "make: needs Python 3.11 or newer with venv (Debian: python3-venv)" >&2; exit 1; }
	@test $(READY) -nt pyproject.toml || { $(PYTHON) -m venv --clear $(VENV) && $(BIN)/$(PIP_INSTALL) --editable .; }
	@touch $@

demo: $(RUNS)
	@$(BIN)/pop3proxy demo $(if $(filter-out 0,$(ONCE)),--once)

test: $(READY)
	@$(BIN)/pytest $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

check: lint types
	@$(MAKE) test

fmt: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

fuzz: $(READY)
	$(BIN)/python -m tests.replay.fuzz $(ARGS)

# Debian's POP3 servers exclude each other: all but Dovecot are unpacked, and the tests find them there.
POP3_SERVERS := .pop3-servers
POP3_PACKAGES := courier-pop cyrus-pop3d mailutils-pop3d popa3d solid-pop3d

pop3-servers: $(POP3_SERVERS)/ready

$(POP3_SERVERS)/ready: Makefile
	rm -rf $(POP3_SERVERS)
	mkdir $(POP3_SERVERS)
	cd $(POP3_SERVERS) && apt-get -o APT::Sandbox::User=root download $(POP3_PACKAGES) \
		&& for package in *.deb; do dpkg-deb --extract "$$package" . || exit 1; done
	@touch $@

FUZZED := dovecot courier cyrus twisted mailutils popa3d solid

fuzz-servers: $(READY) $(POP3_SERVERS)/ready
	@failed=; for server in $(FUZZED); do \
		$(BIN)/python -m tests.integration.fuzzservers --server $$server --dialogues 10000 $(ARGS) \
			|| failed="$$failed $$server"; \
	done; [ -z "$$failed" ] || { echo "failed:$$failed" >&2; exit 1; }

# Prints the path of a Python of version $1: on the PATH, else one of pyenv's.
define FIND_PYTHON
find_python() { \
	local python version; \
	for python in "python$$1" $$(pyenv versions --bare 2>/dev/null | grep "^$$1\." \
		| while read -r version; do echo "$$(pyenv prefix "$$version")/bin/python"; done); do \
		"$$python" -c "import sys, ensurepip; sys.exit(sys.version_info[:2] != ($${1/./, }))" 2>/dev/null \
			&& { command -v "$$python"; return; }; \
	done; \
	return 1; \
}
endef

# Integration tests and $(VENV)'s own version belong to `make test`; so do the many examples that CI asks for.
# They run side by side, and print what they have to say one after the other.
test-all-pythons: $(READY)
	@$(FIND_PYTHON); \
	main=$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	running=; failed=; \
	for version in 3.11 3.12 3.13; do \
		[ $$version = $$main ] && continue; \
		if ! python=$$(find_python $$version); then \
			echo "Python $$version: not on this machine, skipped"; continue; \
		fi; \
		$(MAKE) .venv-$$version/ready PYTHON="$$python" || { failed="$$failed $$version"; continue; }; \
		CI= .venv-$$version/bin/pytest -q --ignore=tests/integration $(ARGS) \
			>.venv-$$version/output 2>&1 & \
		running="$$running $$version:$$!"; \
	done; \
	for each in $$running; do \
		wait $${each#*:} || failed="$$failed $${each%:*}"; \
		echo "Python $${each%:*}: unit tests"; \
		cat .venv-$${each%:*}/output; \
	done; \
	[ -z "$$failed" ] || { echo "failed on Python$$failed" >&2; exit 1; }

.venv-%/ready: pyproject.toml
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/$(PIP_INSTALL) --editable '.[redis,audit,geo,test]'
	@touch $@

clean:
	rm -rf .venv .venv-* $(POP3_SERVERS) .mypy_cache .pytest_cache .ruff_cache .hypothesis
