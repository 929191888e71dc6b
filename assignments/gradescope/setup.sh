#!/usr/bin/env bash
# Gradescope runs this once, when its image is built: Python 3.11 or newer, the CPU build of torch, the grader.
set -euo pipefail
cd /autograder/source
apt-get -q update && apt-get -qy install python3.11 python3.11-venv || apt-get -qy install python3 python3-venv
apt-get -qy install bubblewrap || true  # where the container forbids it, student code runs as nobody
"$(command -v python3.11 || command -v python3)" -m venv /autograder/venv
/autograder/venv/bin/pip install -q --extra-index-url https://download.pytorch.org/whl/cpu -r requirements.txt
/autograder/venv/bin/pip install -q --no-deps --no-build-isolation .
rm -rf lowrank_utils build  # the installed copy is the one to use
chmod -R go-rwx /autograder/source  # the student's code runs as nobody, and cannot read the hidden tests
