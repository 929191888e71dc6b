"""It finds a number that hangs on the last digit, and leaves sound notebooks and whole numbers alone."""

import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from nbformat.v4 import new_code_cell, new_notebook
from rounding_noise import NOISY, PIECE, RoundingNoise, startup
from torch.utils._python_dispatch import TorchDispatchMode

HERE = Path(__file__).parent
SET_UP = "import torch\n_ = torch.manual_seed(0)\na, b = torch.randn(50), torch.randn(50)"
SOUND = [SET_UP, "print(f'{a @ b:.2f}')", "print(int((a.exp() > b).sum()), torch.ones(7).sum())"]
KNIFE_EDGE = [SET_UP, "print([f'{x:.7f}' for x in a.exp()[:9]])", "print(f'{a @ b:.2f}')"]


def notebook(path, sources):
    """Cells whose stored outputs are those of this very machine, without noise."""
    nb = new_notebook(cells=[new_code_cell(source) for source in sources])
    nbformat.write(nb, path)
    refresh = HERE.parent / "book" / "_ext" / "refresh.py"
    subprocess.run([sys.executable, str(refresh), str(path)], check=True, capture_output=True, timeout=300)


def test_a_planted_knife_edge_is_caught_and_a_sound_notebook_passes(tmp_path):
    notebook(tmp_path / "sound.ipynb", SOUND)
    notebook(tmp_path / "edge.ipynb", KNIFE_EDGE)
    lines = "import os, pathlib, rounding_noise\n"
    lines += f"os.environ.update(rounding_noise.startup(pathlib.Path({str(tmp_path / 'profile')!r})))\n"
    (tmp_path / "conftest.py").write_text(lines)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--nbval",
        "--nbval-current-env",
        "-p",
        "no:cacheprovider",
    ]
    command += ["--rootdir", str(tmp_path), "-c", "/dev/null", "--color=no", "-rA"]
    env = os.environ | {"PYTHONPATH": str(HERE), "ROUNDING_NOISE": "16:0"}
    ran = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    told = {line.split(" - ")[0] for line in ran.stdout.splitlines() if line.startswith(("PASSED", "FAILED"))}
    wanted = {f"PASSED sound.ipynb::Cell {i}" for i in range(3)}
    wanted |= {"PASSED edge.ipynb::Cell 0", "FAILED edge.ipynb::Cell 1", "PASSED edge.ipynb::Cell 2"}
    assert told == wanted, ran.stdout


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("ulps", [1, 16])
def test_a_result_moves_within_its_bound_and_nearly_always(dtype, ulps):
    torch.manual_seed(0)
    x = torch.rand(1000, dtype=dtype) + 0.5
    plain = x.exp()
    with RoundingNoise(ulps, seed=0):
        noisy = x.exp()
    eps = torch.finfo(dtype).eps
    off = ((noisy.double() - plain.double()) / plain.double()).abs() / eps
    assert off.max() <= ulps + 1  # rounded once more
    assert off.max() > ulps / 2 and (off > 0).double().mean() > (0.3 if ulps == 1 else 0.9)


def test_whole_numbers_integers_and_plain_arithmetic_stay():
    x = torch.tensor([0.1, 0.7, 3.3])
    with RoundingNoise(16, seed=0):
        assert torch.equal(torch.ones(5, 3).sum(0), torch.full((3,), 5.0))
        assert torch.equal(torch.eye(3) @ torch.eye(3), torch.eye(3))
        assert torch.arange(4).sum() == 6
        assert torch.equal(x + x, 2 * x) and torch.equal(x * x / x, x * x / x)


@pytest.mark.parametrize(
    "run",
    [
        lambda x: x @ x,
        lambda x: torch.nn.functional.linear(x, x, x[0]),
        lambda x: torch.randn(9, 9).addmm_(x, x),
        lambda x: torch.randn(9, 9).addr_(x[0], x[1]),
        lambda x: x.sum(0),
        lambda x: x.std(),
        lambda x: torch.linalg.vector_norm(x),
        lambda x: torch.linalg.svd(x).S,
        lambda x: torch.linalg.svdvals(x),
        lambda x: torch.linalg.eigh(x @ x.T).eigenvalues,
        lambda x: torch.linalg.qr(x).R,
        lambda x: torch.linalg.cholesky(x @ x.T + torch.eye(9)),
        lambda x: torch.linalg.lstsq(x, x[:, :2]).solution,
        lambda x: torch.linalg.solve(x, x[:, :2]),
        lambda x: x.softmax(1),
        lambda x: torch.nn.functional.cross_entropy(x, torch.arange(9)),
        lambda x: torch.nn.functional.conv2d(x[None, None], x[None, None, :3, :3]),
        lambda x: torch.tanh(x),
        lambda x: torch.func.vmap(lambda row: x @ row)(x),
        lambda x: torch.func.vmap(torch.func.grad(lambda row: (x @ row).tanh().sum()))(x),
        lambda x: torch.nn.functional.layer_norm(x, (9,)),
        lambda x: torch.ops.aten.silu_backward(x, x),
    ],
)
def test_it_reaches(run):
    def value():
        torch.manual_seed(0)
        return run(torch.randn(9, 9))

    plain, different = value(), 0
    for seed in range(3):  # a single number can happen to stay
        with RoundingNoise(16, seed=seed):
            noisy = value()
        different += not torch.equal(plain, noisy)
        assert torch.allclose(plain, noisy, atol=1e-2)
    assert different


@pytest.mark.parametrize("block", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_it_reaches_what_needs_a_gradient_and_what_does_not(block):
    x = torch.linspace(0.1, 0.9, 50).requires_grad_()
    with block(), RoundingNoise(16, seed=0):
        noisy = x.exp()
    assert noisy.requires_grad is (block is torch.enable_grad)
    assert not torch.equal(noisy, x.exp()) and torch.allclose(noisy, x.exp(), rtol=1e-5)


def test_a_backward_pass_sees_what_the_forward_pass_was_moved_to():
    """exp keeps its result for its own slope."""
    x = torch.linspace(0.1, 0.9, 50).requires_grad_()
    with RoundingNoise(16, seed=0):
        y = x.exp()
    [slope] = torch.autograd.grad(y.sum(), x)
    assert torch.equal(slope, y) and not torch.equal(slope, x.exp())


def test_an_operator_that_others_are_made_of_is_moved_once():
    """Each entry is one product, so that nothing but the noise can move it."""
    x = torch.rand(64, 1, dtype=torch.float64) + 0.5
    runs = {
        "linear": lambda: torch.nn.functional.linear(x, x[:1]),
        "convolution": lambda: torch.nn.functional.conv2d(x[:, :, None, None], x[:1, :, None, None]),
        "stacked products": lambda: x[:, :, None] @ x[:1, :, None],
    }
    for name, run in runs.items():
        plain = run()
        with RoundingNoise(16, seed=0):
            off = ((run() - plain) / plain).abs().max() / torch.finfo(x.dtype).eps
        assert 8 < off <= 17, name


def test_who_counts_operators_counts_those_of_the_notebook():
    class Names(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(func.overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    x, runs = torch.rand(5, 5), []
    for ulps in (None, 16):
        seen = []
        with Names(), RoundingNoise(ulps, seed=0) if ulps else nullcontext():
            (x @ x).exp().sum()
        runs.append(seen)
    assert runs[0] == runs[1] == ["mm", "exp", "sum"]


def test_it_ends_and_the_outer_one_goes_on():
    x = torch.linspace(0.1, 0.9, 50)
    plain = x.exp()
    with RoundingNoise(16, seed=0):
        with RoundingNoise(0, seed=0):
            assert torch.equal(x.exp(), plain)
        assert not torch.equal(x.exp(), plain)
    assert torch.equal(x.exp(), plain)


def test_it_reaches_the_backward_pass():
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(6, 5), torch.randn(4, 6)
    grads = []
    for ulps in (0, 16):
        with RoundingNoise(ulps, seed=0):
            loss = layer(x).tanh().square().mean()
            grads.append(torch.autograd.grad(loss, layer.weight)[0])
    # five operations moved by 16 eps each; an entry is a sum over 4 samples, whose terms may cancel
    room = 5 * 16 * 4 * torch.finfo(torch.float32).eps * grads[0].abs().max()
    assert not torch.equal(*grads) and (grads[1] - grads[0]).abs().max() <= room


@pytest.mark.parametrize("numbers", [3, PIECE, 2 * PIECE + 5])
def test_every_number_of_a_large_or_scattered_result_moves(numbers):
    torch.manual_seed(0)
    x = torch.rand(numbers, 2) + 0.25
    for seen in (x, x.T):
        with RoundingNoise(16, seed=0):
            noisy = seen.exp()
        moved = noisy != seen.exp()
        assert noisy.shape == seen.shape and moved.double().mean() > 0.9 * (numbers > 3)
        assert torch.allclose(noisy, seen.exp(), rtol=17 * torch.finfo(x.dtype).eps)


def test_the_notebooks_own_seed_holds():
    torch.manual_seed(0)
    plain = torch.rand(5)
    torch.manual_seed(0)
    with RoundingNoise(16, seed=0):
        torch.exp(torch.rand(3) * 0 + 0.5)
        torch.manual_seed(0)
        assert torch.equal(torch.rand(5), plain)


def test_the_same_seed_is_the_same_noise_and_another_is_another():
    x = torch.linspace(0.1, 0.9, 50)
    out = []
    for seed in (0, 0, 1):
        with RoundingNoise(16, seed=seed):
            out.append(x.exp())
    assert torch.equal(out[0], out[1]) and not torch.equal(out[0], out[2])


def test_scipy_and_sklearn_are_wrapped_where_chapters_use_them():
    code = (
        "import rounding_noise, numpy as np\n"
        "from sklearn.preprocessing import StandardScaler\n"
        "x = np.random.default_rng(0).standard_normal((9, 4)); g = x.T @ x\n"
        "import scipy.linalg\n"
        "plain = StandardScaler().fit(x).mean_, scipy.linalg.eigh(g)[0]\n"
        "noise = rounding_noise.enter('16:0')\n"
        "noisy = StandardScaler().fit(x).mean_, scipy.linalg.eigh(g)[0]\n"
        "print([bool((a != b).all() and np.allclose(a, b, rtol=1e-12)) for a, b in zip(plain, noisy)])\n"
    )
    env = os.environ | {"PYTHONPATH": str(HERE)}
    ran = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=300)
    assert ran.stdout == "[True, True]\n", ran.stderr


def test_every_name_is_an_operator_of_torch():
    """A misspelt name would be passed over in silence."""
    known = {name for name in NOISY if hasattr(torch.ops.aten, name)}
    base = {name for name in NOISY if not name.endswith("_")}
    assert base - known == set()


def test_the_profile_holds_one_startup_file(tmp_path, monkeypatch):
    monkeypatch.setenv("ROUNDING_NOISE", "1:3")
    env = startup(tmp_path)
    assert env == {"IPYTHONDIR": str(tmp_path), "ROUNDING_NOISE": "1:3"}
    (only,) = (tmp_path / "profile_default" / "startup").iterdir()
    compile(only.read_text(), only.name, "exec")
    assert np.all(["enter" in only.read_text(), "ROUNDING_NOISE" in only.read_text()])


def test_shapes_without_numbers_are_left_alone():
    with RoundingNoise(16, seed=0):
        assert (torch.ones(3, 4, device="meta") @ torch.ones(4, 2, device="meta")).shape == (3, 2)


def test_a_program_is_exported_under_noise_and_its_runs_are_noisy():
    layer = torch.nn.Linear(4, 3)
    x = torch.randn(2, 4)
    with RoundingNoise(16, 0):
        program = torch.export.export(layer, (x,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
        noisy = program.module()(x)
    assert not torch.equal(noisy, layer(x)) and torch.allclose(noisy, layer(x), rtol=1e-4)
