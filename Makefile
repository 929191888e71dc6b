# make book   build the site to _build/html        make test    lint, types, every test, every chapter's outputs
# make serve  show the site on localhost:8000      make refresh run the chapters again, in place
# make lab    open the notebooks in JupyterLab, in my_notebooks; what you write there stays yours
# make notebooks  write the notebooks that a reader runs to _build/notebooks (OUTPUTS=kept for their outputs too)
# make pdf, make epub   the book as one file, beside the site's pages and linked from the first. `make book` makes both
# where there is a chromium (about 25 s more). The links are written with the files, so none is ever dead.
# make quick  lint, types and the package tests of what changed: before each commit
# make noise  every chapter under rounding noise, NOISE="ulps:seed ..."; CHAPTERS=book/NN_name.ipynb for one
# make long   every chapter with its long runs whole, each number compared with the stored one
# make headless  the reader's notebooks from top to bottom, each against its chapter
# make processors  the package's tests with the instructions of older processors, on one and two threads
# make properties  what must hold for every matrix and model, on 10 000 drawn examples each
# make mutants  small changes of a room's code that a test must notice: ROOM=factors; MUTANTS=--all for more than a sample
# make links  ask every address on the pages whether it answers
# On Linux, `make book TORCH_INDEX=https://download.pytorch.org/whl/cpu` takes the small CPU build of torch.
PYTHON ?= python3
BIN := .venv/bin
CHAPTERS ?= $(wildcard book/*.ipynb)
TORCH_INDEX ?=
OUTPUTS ?= cleared
NOISE ?= 1:0 1:1 1:2 1:3 1:4 16:0 16:1 16:2
ROOM ?= tonight
MUTANTS ?=
PROCESSORS ?= default:COMPATIBLE:1 default:COMPATIBLE:2 avx2:AVX2:1 avx2:AVX2:2
# what reads the book, or runs a whole notebook, is no test of the package
PACKAGE_TESTS := $(filter-out $(patsubst %,tests/test_%.py,book readme setup budgets figures rounding_noise), \
  $(wildcard tests/test_*.py)) $(wildcard $(patsubst %,tests/%,factors layers cost model search network lab explorers exercises command))
NBVAL := -n 2 --dist loadscope --no-loadscope-reorder --nbval --nbval-current-env
export TQDM_DISABLE = 1
# installed without compiled files: where a setting forbids to write them, each process would compile torch anew, 2.6 s
export PYTHONDONTWRITEBYTECODE =
SITE := _build/html/index.html
CHROMIUM := $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)
.PHONY: book notebooks lab pdf epub test quick noise long processors properties mutants headless lint links serve refresh bench clean
.NOTPARALLEL:

.venv/.installed: requirements.txt pyproject.toml
	test -x $(BIN)/python || { $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	"$(PYTHON) is older than 3.11: make book PYTHON=python3.11")' && $(PYTHON) -m venv .venv; }
	$(if $(TORCH_INDEX),$(BIN)/pip install -q --index-url $(TORCH_INDEX) $$(sed -n 's/^\(torch[a-z]*==[^ ]*\).*/\1/p' requirements.txt))
	$(BIN)/pip install -q --no-compile -r requirements.txt  # python compiles what it imports, and no more
	$(BIN)/pip install -q --no-deps $$(sed -n 's/^# \([a-z0-9-]*==[^ ]*\) goes in by.*/\1/p' requirements.txt)  # for their files alone
	$(BIN)/pip install -q --no-deps --no-build-isolation -e .
	touch $@

.venv/.teaching: .venv/.installed assignments/requirements.txt
	$(BIN)/pip install -q -r assignments/requirements.txt
	touch $@

$(SITE): .venv/.installed _config.yml _toc.yml $(wildcard book/*.* book/_ext/*.py book/assets/*.*)
	rm -rf _build && $(BIN)/jupyter-book build -q -n -W --keep-going . || { rm -rf _build; exit 1; }

book: $(SITE) notebooks $(if $(CHROMIUM),pdf epub)
	@$(if $(CHROMIUM),,echo "no chromium: the site is there, its PDF and EPUB are not (apt-get install chromium)")

# after the site: its rule empties _build
notebooks: $(SITE)
	$(BIN)/python book/_ext/reader_notebooks.py _build/notebooks --outputs $(OUTPUTS)

# its question whether it may send news stands in the way
.venv/etc/jupyter/labconfig/page_config.json: | .venv/.installed
	$(BIN)/jupyter labextension disable --level=sys_prefix @jupyterlab/apputils-extension:announcements

lab: .venv/.installed .venv/etc/jupyter/labconfig/page_config.json
	$(BIN)/python book/_ext/reader_folders.py lab my_notebooks
	env -u TQDM_DISABLE $(BIN)/jupyter lab --ip 127.0.0.1 my_notebooks

pdf epub: %: _build/html/low-rank-book.%

_build/html/low-rank-book.%: $(SITE)
	$(BIN)/python book/_ext/takeaway.py $*

lint: .venv/.teaching
	$(BIN)/ruff check . && $(BIN)/mypy

test: lint
	$(BIN)/pytest -rs $(NBVAL) lowrank_utils tests book

quick: lint
	$(BIN)/python tests/changed.py

# the test beside the chapters brings the plugins that measure and compare
noise: .venv/.installed
	@for n in $(NOISE); do echo "rounding noise $$n (ulps:seed)"; \
	ROUNDING_NOISE=$$n $(BIN)/pytest -q $(NBVAL) tests/test_figures.py $(CHAPTERS) || exit 1; done

long: .venv/.installed
	LONG_RUNS=check $(BIN)/pytest -q $(NBVAL) $(CHAPTERS)

headless: .venv/.installed
	$(BIN)/python tests/reader/headless.py

# ATEN_CPU_CAPABILITY:MKL_CBWR:threads
processors: .venv/.installed
	@for p in $(PROCESSORS); do echo "processor $$p"; set -- $$(echo $$p | tr : ' '); \
	ATEN_CPU_CAPABILITY=$$1 MKL_CBWR=$$2 OMP_NUM_THREADS=$$3 $(BIN)/pytest -q -n 2 lowrank_utils $(PACKAGE_TESTS) || exit 1; done

properties: .venv/.installed
	EXAMPLES=10000 $(BIN)/pytest -q -n 2 tests/test_properties.py

mutants: .venv/.installed
	$(BIN)/pip install -q -e '.[mutants]'
	OMP_NUM_THREADS=1 $(BIN)/python tests/mutants $(ROOM) $(MUTANTS)

links: .venv/.installed
	$(BIN)/jupyter-book build -q --builder linkcheck --path-output _build/links .

serve: book
	$(BIN)/python -m http.server --directory _build/html --bind 127.0.0.1 8000

refresh: .venv/.installed
	$(BIN)/python book/_ext/refresh.py --long $(CHAPTERS)

bench: .venv/.teaching
	$(BIN)/pip install -q -e '.[bench]'
	$(BIN)/python tests/benchmarks $(BENCH)

clean:
	rm -rf _build .mypy_cache .pytest_cache .ruff_cache
