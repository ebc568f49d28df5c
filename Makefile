# make           install, run the whole book headless, say where it lies
# make test      lint, types, unit tests, a browser if there is one, every notebook, two with another parameter
# make fast      unit tests alone, without browser and notebooks
# make lint      ruff; `make typecheck` is mypy, `make format` lets ruff mend what it can
# make faults    kill it, fill its disk, feed it broken and hostile files: what survived, in a table
# make lab       JupyterLab on your own copy of the notebooks, in runs/lab; `make lab EDIT=1` opens the book's own
# make notebooks run the notebooks with their defaults and keep the outputs in them
# make figures   what README and notebooks show, under figures/ (PROFILE=smoke: from the small runs)
# make gpu-check does a GPU compute what the processor computes, and how fast? Two tables
# make site      the book as a site of the committed notebooks, in site/; runs none of them (LIVE=page.html: with
#                the explorer's page, as `fer-lab export page page.html` writes it)
# make weights   the small weights that ship
# make clean     remove what the above made, but not .venv and your notebooks in runs/lab

PYTHON ?= python3
JOBS ?= 2
NOTEBOOKS ?=
PROFILE ?= full
LAB := $(if $(EDIT),notebooks,runs/lab)
BIN := .venv/bin
STAMP := .venv/.installed
# Two processes with two threads each on two cores run at a tenth of their speed.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE
# Weights that ship: people whom no notebook meets.
SHIP = $(BIN)/fer-lab train $(1) --faces 6000 --faces-seed 2026 --set epochs=$(2) $(3) --fresh \
    --out runs/ship-$(1) --ship fer_lab/weights/synthetic/$(1).safetensors

.PHONY: book test fast faults lint typecheck format lab notebooks figures gpu-check site weights clean
.DELETE_ON_ERROR:

book: $(STAMP)
	$(BIN)/fer-lab reproduce --out book --jobs $(JOBS) $(if $(NOTEBOOKS),--notebooks $(NOTEBOOKS))

# Some systems split venv's own pip off; then the system's pip brings one in.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed: make PYTHON=…")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv > /dev/null 2>&1 || \
	    { $(PYTHON) -m venv --clear --without-pip .venv && $(PYTHON) -m pip --python $(BIN)/python install -q pip; }
	@echo "installing into .venv (a few minutes the first time)"
	@$(BIN)/python -m pip install -q -c constraints.txt -e '.[book,dev]' > .venv/pip.log 2>&1 || { tail -n 40 .venv/pip.log; exit 1; }
	@touch $@

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

typecheck: $(STAMP)
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

fast: $(STAMP)
	$(ONE_THREAD) $(BIN)/python -m pytest -n $(JOBS) --ignore tests/browser

test: lint typecheck
	$(ONE_THREAD) $(BIN)/python -m pytest -n $(JOBS) --ignore tests/browser
	$(ONE_THREAD) $(BIN)/python -m pytest -rs tests/browser
	$(ONE_THREAD) TQDM_DISABLE=1 FER_LAB_QUIET=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadscope \
	    --nbval-lax --nbval-current-env --nbval-cell-timeout 600 notebooks
	$(BIN)/fer-lab reproduce --notebooks 00,02 -p seed=1 --out runs/rerun -j $(JOBS)

faults: $(STAMP)
	$(ONE_THREAD) $(BIN)/python -m pytest -n $(JOBS) -m '' tests/faults

# A notebook that is there already is the reader's. The link keeps their links to ../docs whole.
lab: $(STAMP)
	@mkdir -p runs/lab && ln -sfn ../docs runs/docs
	@for file in notebooks/*.ipynb notebooks/*.md; do mine=runs/lab/$${file##*/}; \
	    test -e $$mine || cp -p $$file $$mine; \
	    test ! $$file -nt $$mine || echo "$$mine is older than the book's; delete it to get the new one"; done
	$(BIN)/jupyter lab $(LAB)/00_start_here.ipynb

notebooks: $(STAMP)
	$(BIN)/fer-lab notebooks --execute $(if $(NOTEBOOKS),--only $(NOTEBOOKS))

gpu-check: $(STAMP)
	$(BIN)/fer-lab bench device --csv runs/gpu-equality.csv
	$(BIN)/fer-lab bench models --paths default --csv runs/gpu-speed.csv

figures: $(STAMP)
	$(BIN)/fer-lab reproduce --profile $(PROFILE) --out runs/figures $(if $(NOTEBOOKS),--notebooks $(NOTEBOOKS))
	cp runs/figures/runs/*/figures/*.png figures/

site: $(STAMP)
	$(BIN)/python docs/site/build.py site $(if $(LIVE),--live $(LIVE))

weights: $(STAMP)
	$(BIN)/fer-lab landmarks --out fer_lab/weights/synthetic/landmarks.safetensors
	$(BIN)/fer-lab landmarks --out fer_lab/weights/synthetic/landmarks_study.safetensors --faces 5000 --epochs 24 \
	    --knob inter_class_similarity=0.6 --knob intra_class_variance=0.8 --knob imbalance=0
	$(call SHIP,baseline,10,)
	$(call SHIP,dan,8,--trunk synthetic/baseline)
	$(call SHIP,triplet_center,8,--trunk synthetic/baseline)
	$(call SHIP,poster,6,--set precision=bf16)
	$(call SHIP,qcs,3,--set batch_size=8 --set precision=bf16)

clean:
	rm -rf book site build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis *.egg-info
	test ! -d runs || find runs/ -mindepth 1 -maxdepth 1 ! -name lab -exec rm -rf {} +
	find fer_lab tests -name __pycache__ -type d -prune -exec rm -rf {} +
