"""Shared by the coursework's tests: a key of their own, and each assignment assigned once in each process."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from coursework.kit import Course

from assignments import isolation


@pytest.fixture(scope="session", autouse=True)
def own_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of the tests are sealed with a key of the tests."""
    path = tmp_path_factory.mktemp("key") / "key"
    os.environ["COURSEWORK_KEY"] = str(path)
    return path


@pytest.fixture(scope="session")
def course_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Course]:
    """The course of an assignment and a seed; nbgrader takes seconds to make one."""
    made: dict[tuple[str, int], Course] = {}

    def course(name: str, seed: int = 0) -> Course:
        if (name, seed) not in made:
            made[name, seed] = Course(name, tmp_path_factory.mktemp(name), seed)
        return made[name, seed]

    return course


@pytest.fixture(scope="session")
def bubblewrap() -> None:
    """Attacks are let loose in bubblewrap's box only."""
    if reason := isolation.missing():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"{reason}: attacks are not tried")
