# kling-relay. `make help` lists what there is to do; nothing here needs more than Python 3.11+ and make.
.DEFAULT_GOAL := help
SHELL := /bin/sh
export PYTHONUNBUFFERED := 1
unexport PYTHONDONTWRITEBYTECODE # each process of the tests would compile all modules anew
export PYTHONPATH := $(CURDIR)

PYTHON ?= python3
VENV := .venv
STAGE ?= dev
TENANT ?= demo
CASES ?= 1000

.PHONY: $(shell sed -nE 's/^([a-z-]+):.*## .*/\1/p' $(MAKEFILE_LIST))

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# ---------------------------------------------------------------------------------------------------------- on this machine
run: $(VENV)/run.done ## the whole stack here, and an image that becomes a video (ONCE=1, IMAGE=photo.jpg, PROMPT="...")
	@IMAGE="$(IMAGE)" PROMPT="$(PROMPT)" ONCE="$(ONCE)" exec $(VENV)/bin/python -m local.stack.run

serve: $(VENV)/run.done ## the whole stack here without the sample (PORT, AWS_PORT, KLING_BASE_URL, KLING_API_KEY, PROVIDER, WAIT_SCALE, ALLOWED_ORIGINS)
	@exec $(VENV)/bin/python -m local.stack.run --serve

test: $(VENV)/test.done ## every test; where there is a Python 3.13, those that open sockets on that one, too (ARGS="-k ..." for some)
	@$(VENV)/bin/python -m pytest -n 3 --dist loadfile $(ARGS) # three, because many wait for a stack: tests/support/run_order.py
	@$(if $(ARGS),,$(MAKE) --no-print-directory test-runtime SUITES="$(SOCKETS)")

# What Python's version changes most, sockets, TLS and threads: a minute of CPU, not nine. Left out: sabotages, which test the
# campaigns, and reconciliation, which opens no socket of its own.
SOCKETS := -m enable_socket --ignore-glob=*sabotage* --ignore-glob=*reconcile* tests/unit tests/reliability
SUITES ?= tests/unit tests/contract tests/reliability

test-runtime: $(VENV)/test.done ## the suites on Python 3.13, the functions' own, where this machine has it (SUITES=tests/unit)
	$(eval RUNTIME := $(shell $(VENV)/bin/python -m local.emulator.runtime))
	@$(if $(RUNTIME),$(MAKE) --no-print-directory $(VENV)/runtime.done RUNTIME="$(RUNTIME)")
	@$(if $(RUNTIME),$(VENV)/runtime/bin/python -m pytest -n 2 --dist loadfile -p no:cacheprovider $(SUITES) $(ARGS))

quick: $(VENV)/test.done ## before each commit, in under a minute: format, lint, types, the unit tests that are neither slow nor open sockets
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile -m "not slow and not enable_socket" tests/unit $(ARGS)

campaign: $(VENV)/test.done ## the long form of the reliability campaigns (SEED=7, NAME=crash, LIVES=10000)
	@CAMPAIGN=long CAMPAIGN_SEED="$(SEED)" CAMPAIGN_LIVES="$(LIVES)" $(VENV)/bin/python -m pytest tests/reliability \
	  -n 2 --timeout=0 --capture=sys $(if $(NAME),-k "$(NAME)")

bench: $(VENV)/bench.done $(VENV)/run.done ## what this costs against the floor and against the usual way, as ratios (NAME=cold; twenty minutes)
	@PYTHONPATH="$(CURDIR):$(CURDIR)/layers/relay" $(VENV)/bin/python -m bench $(NAME)

costs: $(VENV)/run.done ## what a stack costs, into docs/costs.md (MEASURE=1 counts anew on the local stack)
	@$(VENV)/bin/python -m bench.costs $(if $(MEASURE),--measure)

inbox: $(VENV)/test.done ## a dropped list of a thousand requests against three slots, on the stack here (LINES=1000; half an hour)
	@INBOX_LINES=$(or $(LINES),1000) $(VENV)/bin/python -m pytest -s -n 0 --timeout=0 tests/workflow/test_inbox.py -k list

faults: $(VENV)/test.done ## every way in which the simulator misbehaves against the alarms that it has to ring (`make test` tries half of them)
	@FAULTS=all $(VENV)/bin/python -m pytest -n 0 tests/workflow/test_fault_profiles.py

browser: $(VENV)/test.done ## a delivered video in a real player, and the widgets; needs a Chromium (`make test` leaves it out without one)
	@$(VENV)/bin/python -m pytest -rs tests/browser

fuzz: $(VENV)/test.done ## far more drawn requests and odd events than `make test` has (CASES=1000 an operation, SEED= to repeat a run)
	@seed=$${SEED:-$$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}; \
	  echo "the same again: make fuzz CASES=$(CASES) SEED=$$seed"; \
	  FUZZ_CASES=$(CASES) $(VENV)/bin/python -m pytest -n 2 --dist loadfile --timeout 0 --hypothesis-seed $$seed \
	    tests/contract/test_schemathesis.py tests/unit/test_odd_events.py $(ARGS)

scale: $(VENV)/test.done ## what a page of a list reads among 100,000 tasks of its tenant and as many of another (minutes)
	@LIST_SIZES=100000 $(VENV)/bin/python -m pytest -n 0 tests/unit/api/test_list_scale.py $(ARGS)

mutate: $(VENV)/test.done ## break the critical modules line by line: do the tests notice? (MODULE=auth, SAMPLE=40 SEED=7)
	@AWS_ACCESS_KEY_ID=testing AWS_SECRET_ACCESS_KEY=testing $(VENV)/bin/python tests/reliability/mutate.py \
	  $(if $(MODULE),--module $(MODULE)) $(if $(SAMPLE),--sample $(SAMPLE)) $(if $(SEED),--seed $(SEED))

check: $(VENV)/test.done ## format, lint, types, imports, spelling, security (bandit), template
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	PYTHONPATH=.:layers/relay $(VENV)/bin/lint-imports
	$(VENV)/bin/codespell .
	$(VENV)/bin/bandit --quiet --configfile pyproject.toml --recursive functions layers/relay local kling_relay_cli bench
	$(VENV)/bin/cfn-lint template.yaml

scan: $(VENV)/scan.done $(VENV)/run.done ## checkov on the template after the SAM transform; what is skipped and why: checkov.yaml
	@mkdir -p .local && $(VENV)/bin/python -m local.stack.expand_template > .local/expanded.json
	$(VENV)/scan/bin/checkov --config-file checkov.yaml --file .local/expanded.json

format: $(VENV)/test.done ## write the code as `make check` wants it
	@$(VENV)/bin/ruff check --fix --quiet . ; $(VENV)/bin/ruff format --quiet .

# ------------------------------------------------------------------------------------------------------------------ on AWS
# The layer takes the pip of this Python: that of the system may have none.
build: $(VENV)/sam.done ## sam build, and sam validate --lint
	@$(MAKE) --no-print-directory -C layers/relay bytecode FOLDERS="$(wildcard $(CURDIR)/functions/*)"
	$(VENV)/sam/bin/sam validate --lint
	PYTHON=$(abspath $(VENV)/sam/bin/python) $(VENV)/sam/bin/sam build

deploy: build ## sam deploy to your AWS account (STAGE=dev PARAMETERS="Provider=kling OperatorEmail=you@example.com")
	$(VENV)/sam/bin/sam deploy --config-env $(STAGE) $(if $(PARAMETERS),--parameter-overrides $(PARAMETERS))

rehearse: build $(VENV)/run.done ## the same sam deploy, against the emulator on this machine
	$(VENV)/bin/python -m local.stack.rehearse_deploy $(VENV)/sam/bin/sam

# Commands of operators: `python -m kling_relay_cli COMMAND --help` describes them. Their rule is below. It passes STAGE and each
# variable in OPTIONS that is not empty: TENANT=demo becomes --tenant 'demo'. The variables in FLAGS become options without a value.
provider-key: OPTIONS := ## store the provider's API key, from standard input (STAGE=dev)

webhook-secret: OPTIONS := ## store the secret of the provider's callbacks, from standard input (STAGE=dev)

delivery-key: OPTIONS := ROTATE ## create the key that signs video URLs (STAGE=dev; ROTATE=1 or ROTATE=now rotates it)

key: OPTIONS := TENANT LABEL SCOPES DAYS UNTIL ## create an API key (STAGE=dev TENANT=demo LABEL="..." SCOPES=submit,read DAYS=90 or UNTIL=2027-01-31)

keys: OPTIONS := TENANT ## list a tenant's API keys (STAGE=dev TENANT=demo)

revoke: OPTIONS := KEY ## revoke an API key at once (STAGE=dev KEY=its id)

signing-secret: OPTIONS := TENANT CHANGE ## print a tenant's webhook secret (STAGE=dev TENANT=demo; CHANGE=1 creates a new one)

replay: OPTIONS := TASK SEQUENCE ## send a task's webhooks again (STAGE=dev TASK=its id SEQUENCE=only this one)

retry-archive: OPTIONS := TASK ## copy a finished video again after a failed copy (STAGE=dev TASK=its id)

redrive: OPTIONS := QUEUE ## move messages of a dead-letter queue back to their source (STAGE=dev QUEUE=IntakeDeadLetters)

export: OPTIONS := SINCE UNTIL ONLY OUT ## write the tasks of a time window as CSV (STAGE=dev SINCE=2026-11-01 UNTIL=... ONLY=tenant OUT=tasks.csv)

cap: OPTIONS := TENANT UNITS ## set or show a tenant's monthly cap (STAGE=dev TENANT=demo UNITS=500, 0 or default; without UNITS: show)

pause: OPTIONS := REASON ## stop new submissions at once; running tasks continue (STAGE=dev REASON="...")

resume: OPTIONS := ## end a pause (STAGE=dev)

doctor: OPTIONS := ## check keys, callback URL and alarm subscriptions of a deployed stack (STAGE=dev)

reconcile: OPTIONS := DAYS ## compare the task table with the provider; exits 1 if there are findings (STAGE=dev DAYS=30)

smoke: OPTIONS := ## send one real task, which costs money, through a deployed stack (STAGE=dev)

FLAGS := CHANGE
quoted = '$(subst ','\'',$(1))'
as_option = --$(shell echo $(1) | tr A-Z a-z)$(if $(filter $(1),$(FLAGS)),, $(call quoted,$($(1))))
OPERATOR_COMMANDS := $(shell sed -nE 's/^([a-z-]+): OPTIONS :=.*## .*/\1/p' $(MAKEFILE_LIST))

$(OPERATOR_COMMANDS): $(VENV)/run.done
	@exec $(VENV)/bin/python -m kling_relay_cli $@ --stage $(call quoted,$(STAGE)) $(foreach one,$(OPTIONS),$(if $($(one)),$(call as_option,$(one))))

# ------------------------------------------------------------------------------------------------------------------- tools
lock: $(VENV)/made ## pin the newest dependencies anew, with hashes
	@$(VENV)/bin/python -m pip install --quiet uv
	@for list in layers/dependencies/requirements requirements/run requirements/test requirements/sam requirements/scan requirements/bench; do \
	  $(VENV)/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --no-emit-find-links --no-header $$list.in --output-file $$list.txt || exit 1; done

openapi: $(VENV)/run.done ## docs/openapi.yaml as the JSON that /docs serves
	@$(VENV)/bin/python -m scripts.build_openapi

viewer: ## fetch another version of the viewer that /docs serves (VERSION=5.35.0; needs npm)
	@test -n "$(VERSION)" || { echo "which one? make viewer VERSION=5.35.0" >&2; exit 1; }
	@set -e; got=$$(mktemp -d); to=functions/api_docs/viewer; npm pack --silent --pack-destination $$got swagger-ui-dist@$(VERSION) >/dev/null; \
	  tar xzf $$got/*.tgz -C $$got; cd $$got/package; \
	  for file in swagger-ui-bundle.js swagger-ui.css; do \
	    sed -E 's@/[/*]# sourceMappingURL=[^ *]*( ?\*/)?@@' $$file > "$(CURDIR)/$$to/$$file"; done; \
	  cp swagger-ui-bundle.js.LICENSE.txt "$(CURDIR)/$$to/"; \
	  for file in LICENSE NOTICE; do cp $$file "$(CURDIR)/$$to/$$file.txt"; done; rm -rf $$got

charts: ## fetch another version of what draws the graphs of the operations page (VERSION=4.6.1; needs npm)
	@test -n "$(VERSION)" || { echo "which one? make charts VERSION=4.6.1" >&2; exit 1; }
	@set -e; got=$$(mktemp -d); npm pack --silent --pack-destination $$got chart.js@$(VERSION) >/dev/null; tar xzf $$got/*.tgz -C $$got; \
	  sed -E 's@//# sourceMappingURL=[^ ]*@@' $$got/package/dist/chart.umd.min.js > local/cloudwatch/static/chart.js; \
	  cp $$got/package/LICENSE.md local/cloudwatch/static/chart.LICENSE.txt; rm -rf $$got

clean: ## remove everything that was installed or built here
	@rm -rf $(VENV) .local .aws-sam .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info

# Installed once per lock file; every target above asks for what it needs.
$(VENV)/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or later is needed: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/run.done: requirements/run.txt layers/dependencies/requirements.txt | $(VENV)/made
	@echo "installing what the local stack needs (once; about a minute)"
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/run.txt
	@touch $@

$(VENV)/test.done: requirements/test.txt | $(VENV)/run.done
	@echo "installing what the tests need (once; about a minute)"
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/test.txt
	@touch $@

# RUNTIME is the Python that `test-runtime` has found. It may have no pip of its own.
$(VENV)/runtime.done: requirements/run.txt requirements/test.txt layers/dependencies/requirements.txt | $(VENV)/test.done
	@echo "installing what the tests need on Lambda's Python, too (once; about a minute)"
	@$(RUNTIME) -m venv --clear --without-pip $(VENV)/runtime
	@for list in run test; do $(VENV)/bin/python -m pip --python $(VENV)/runtime/bin/python install --quiet --disable-pip-version-check \
	  --no-deps --require-hashes -r requirements/$$list.txt || exit 1; done
	@touch $@

# The SAM CLI, checkov and the AWS CLI pin what the rest of us use in other versions: an environment of their own each.
$(VENV)/sam.done: requirements/sam.txt | $(VENV)/made
	@echo "installing the SAM CLI (once; about a minute)"
	@$(PYTHON) -m venv $(VENV)/sam
	@$(VENV)/sam/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/sam.txt
	@touch $@

$(VENV)/bench.done: requirements/bench.txt | $(VENV)/made
	@echo "installing what we are compared with: the AWS CLI, the usual packages (once; about a minute)"
	@$(PYTHON) -m venv $(VENV)/bench
	@$(VENV)/bench/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/bench.txt
	@touch $@

$(VENV)/scan.done: requirements/scan.txt | $(VENV)/made
	@echo "installing checkov (once; about a minute)"
	@$(PYTHON) -m venv $(VENV)/scan
	@$(VENV)/scan/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/scan.txt
	@touch $@
