"""The command line: what it prints and writes, how it ends, and which argument an error names."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.export import Dim, export, load, save

from lowrank_utils import accuracy, count_macs, count_params, from_exported
from lowrank_utils.command import compress
from lowrank_utils.command.run import main


class Two(nn.Module):
    """A layer of each input: not the same the other way round."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(12, 4), nn.Linear(12, 8)

    def forward(self, one, other):
        return self.a(one).sum() + self.b(other).sum()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A net whose first layer has rank 2, its program, and data that it labels itself."""
    path = tmp_path_factory.mktemp("command")
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 3)).eval()
    net[0].weight.data = torch.randn(16, 2) @ torch.randn(2, 12)
    X = torch.randn(303, 12)
    y = net(X).argmax(1)
    save(export(net, (X[:2],), dynamic_shapes=({0: Dim.AUTO},)), path / "net.pt2")
    parts = {"val": slice(0, 101), "train": slice(101, 202), "test": slice(202, 303)}
    arrays = {}
    for part, rows in parts.items():
        arrays |= {f"X_{part}": X[rows].numpy(), f"y_{part}": y[rows].numpy()}
    np.savez(path / "data.npz", **arrays)
    np.savez(path / "val.npz", X_val=arrays["X_val"], y_val=arrays["y_val"])
    np.savez(path / "int32.npz", X_val=arrays["X_val"], y_val=arrays["y_val"].astype("int32"))
    np.savez(path / "texts.npz", **arrays, names=np.array(["a", "b"]), rows=np.array([{}], dtype=object))
    np.savez(path / "floats.npz", X_val=arrays["X_val"], y_val=arrays["y_val"].astype("float32"))
    np.savez(path / "two.npz", a=arrays["X_val"], b=arrays["X_val"])
    save(export(Two(), (X[:2], X[:2])), path / "two.pt2")
    np.savez(path / "other.npz", X=arrays["X_val"])
    np.savez(path / "short.npz", X_val=arrays["X_val"], y_val=arrays["y_val"][:5])
    np.savez(path / "wide.npz", X_val=np.zeros((4, 13), "float32"), y_val=np.zeros(4, "int64"))
    np.savez(path / "pickled.npz", X_val=np.array([{}], dtype=object), y_val=np.zeros(1))
    doubles = {name: array.astype("float64") for name, array in arrays.items() if name.startswith("X")}
    np.savez(path / "double.npz", **(arrays | doubles))
    np.savez(path / "wide_test.npz", **(arrays | {"X_test": np.zeros((101, 13), "float32")}))
    np.savez(path / "one_class.npz", **(arrays | {"y_test": np.zeros(101, "int64")}))
    np.savez(path / "none_left.npz", X_val=arrays["X_val"][:0], y_val=arrays["y_val"][:0])
    np.save(path / "rows.npy", arrays["X_val"][:5])
    (path / "array.npz").write_bytes((path / "rows.npy").read_bytes())
    spoilt = nn.Sequential(nn.Linear(12, 3))
    spoilt[0].weight.data[1, 2] = float("nan")
    save(export(spoilt, (X[:2],)), path / "nan.pt2")
    np.save(path / "double.npy", doubles["X_val"][:5])
    for name in ("empty.npy", "empty.npz"):
        (path / name).write_bytes(b"")
    header = (path / "rows.npy").read_bytes()
    (path / "broken.npy").write_bytes(header.replace(b"(5, 12)", b"((5, 12"))
    (path / "dir.pt2").mkdir()
    save(export(nn.Sequential(nn.ReLU()), (X[:2],)), path / "relu.pt2")
    (path / "text.npz").write_text("no arrays")
    (path / "text.pt2").write_text("no program")
    torch.save(net.state_dict(), path / "net.pt")
    return path, net, arrays


def run(folder, capsys, *words, output=None):
    """Exit code, stdout and stderr of a command, whose words ending in a suffix are files of the folder."""
    files = {word: str(folder / word) for word in words if word.endswith((".pt2", ".npz", ".npy", ".pt"))}
    told = [files.get(word, word) for word in words]
    try:
        code = main(told if output is None else [*told, "--output", str(output)])
    except SystemExit as end:  # argparse's
        code = end.code
    out, err = capsys.readouterr()
    return code, out, err


def test_report(folder, capsys):
    path, net, _ = folder
    code, out, err = run(path, capsys, "report", "net.pt2", "--input", "8x12", "--no-timing", "--json")
    card = json.loads(out)
    assert code == 0 and "counting" in err
    assert card["params"] == count_params(net) and card["macs"] == count_macs(net, torch.zeros(8, 12))
    first, second = card["layers"]
    assert (first["layer"], first["shape"], first["energy_rank"] <= 2) == ("0", [16, 12], True)
    assert (second["layer"], second["macs"]) == ("2", 8 * 16 * 3)


@pytest.mark.parametrize(
    ("told", "rows"), [([], 2), (["--input", "rows.npy"], 5), (["--input", "double.npy"], 5)]
)
def test_report_on_its_own_example_and_on_a_file(folder, capsys, told, rows):
    path, net, _ = folder
    code, out, err = run(path, capsys, "report", "net.pt2", "--no-timing", "--quiet", *told)
    assert (code, err) == (0, "")
    assert f"{count_macs(net, torch.zeros(rows, 12)):,} MACs" in out


def test_report_with_times(folder, capsys):
    code, out, _ = run(folder[0], capsys, "report", "net.pt2", "--json")
    assert code == 0 and json.loads(out)["at_half"]["dense_ms"] > 0


def test_compress_writes_a_smaller_program_that_keeps_the_metric(folder, capsys, tmp_path):
    path, net, arrays = folder
    small = tmp_path / "small.pt2"
    words = ["compress", "net.pt2", "--data", "data.npz", "--max-drop", "0.02", "--json"]
    code, out, err = run(path, capsys, *words, output=small)
    card = json.loads(out)
    assert code == 0 and card["feasible"] and "choosing ranks" in err
    assert card["ranks"]["0"] <= 2 and card["params"][1] < card["params"][0] == count_params(net)
    program = load(small)
    model = from_exported(program)
    test = [torch.from_numpy(arrays[name]) for name in ("X_test", "y_test")]
    assert card["test"] == pytest.approx([1.0, accuracy(model, *test)])
    assert card["validation"][0] - card["validation"][1] <= 0.02
    assert count_params(model) == card["params"][1]
    assert program.module()(test[0][:77]).shape == (77, 3)  # any batch, as before


def test_compress_says_what_it_did(folder, capsys, tmp_path):
    words = ["compress", "net.pt2", "--data", "val.npz", "--max-drop", "0.02", "--quiet"]
    code, out, err = run(
        folder[0], capsys, *words, "--skip", "2", "--metric", "auc", output=tmp_path / "s.pt2"
    )
    assert (code, err) == (0, "") and "MACs a sample" in out and "test data" not in out
    assert out.splitlines()[1].split()[0] == "0" and "written: " in out


def test_what_is_skipped_stays_dense_and_macs_are_of_one_sample(folder, capsys, tmp_path):
    path, net, _ = folder
    words = ["compress", "net.pt2", "--data", "val.npz", "--max-drop", "0.9", "--quiet", "--json"]
    free = json.loads(run(path, capsys, *words, output=tmp_path / "s.pt2")[1])
    assert set(free["ranks"]) == {"0", "2"}
    card = json.loads(run(path, capsys, *words, "--skip", "0", output=tmp_path / "s.pt2")[1])
    assert set(card["ranks"]) == {"2"}
    small = from_exported(load(tmp_path / "s.pt2"))
    assert torch.equal(small.get_submodule("0").weight, net[0].weight)
    assert card["macs_a_sample"] == [count_macs(model, torch.zeros(1, 12)) for model in (net, small)]


@pytest.mark.parametrize("data", ["double.npz", "int32.npz", "texts.npz"])
def test_other_dtypes_and_arrays_that_nobody_asks_for_change_nothing(folder, capsys, tmp_path, data):
    cards = []
    for file in ("val.npz" if data == "int32.npz" else "data.npz", data):
        words = ["compress", "net.pt2", "--data", file, "--max-drop", "0.02", "--quiet", "--json"]
        cards.append(json.loads(run(folder[0], capsys, *words, output=tmp_path / "small.pt2")[1]))
    assert cards[0] == cards[1] and cards[0]["feasible"]


class Decomposed(nn.Module):
    """A linear layer beside an operator that has no formula."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a = nn.Linear(8, 8)
        self.a.weight.data = torch.randn(8, 1) @ torch.randn(1, 8)

    def forward(self, x):
        return self.a(x) + torch.linalg.svd(x.detach(), full_matrices=False)[0].mean()


def test_operators_without_a_formula_are_named(capsys, tmp_path):
    net, X = Decomposed(), torch.randn(50, 8)
    save(export(net, (X[:1],), dynamic_shapes=None), tmp_path / "net.pt2")
    _, out, _ = run(tmp_path, capsys, "report", "net.pt2", "--no-timing", "--quiet")
    assert "64 MACs" in out and "NOT COUNTED: aten::_linalg_svd (1)" in out.splitlines()
    _, out, _ = run(tmp_path, capsys, "report", "net.pt2", "--no-timing", "--quiet", "--json")
    assert json.loads(out)["not_counted"] == {"aten::_linalg_svd": 1}
    np.savez(tmp_path / "d.npz", X_val=X, y_val=net(X).argmax(1))
    words = ["compress", "net.pt2", "--data", "d.npz", "--max-drop", "0.9", "--quiet"]
    code, _, err = run(tmp_path, capsys, *words, output=tmp_path / "s.pt2")
    assert code == 0
    assert err == "warning: count_macs has no formula for aten::_linalg_svd: counted as 0\n"


def test_a_program_that_needs_an_even_batch(folder, capsys, tmp_path):
    """It cannot be called with one sample; MACs a sample are then the mean of all: 12 x 16 + 16 x 3."""

    class Pairs(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = torch.export.load(folder[0] / "net.pt2").module()

        def forward(self, x):
            return self.net(x.reshape(-1, 2, 12).flatten(0, 1))

    X = torch.randn(60, 12)
    save(export(Pairs(), (X[:4],), dynamic_shapes=({0: 2 * Dim("pairs")},)), tmp_path / "net.pt2")
    np.savez(tmp_path / "d.npz", X_val=X, y_val=Pairs()(X).argmax(1))
    words = ["compress", "net.pt2", "--data", "d.npz", "--max-drop", "0.9", "--quiet", "--json"]
    code, out, err = run(tmp_path, capsys, *words, output=tmp_path / "s.pt2")
    assert code == 0, err
    before, after = json.loads(out)["macs_a_sample"]
    assert before == 12 * 16 + 16 * 3 > after


def test_nothing_found_is_exit_code_1_and_writes_nothing(capsys, tmp_path):
    torch.manual_seed(0)
    net = nn.Linear(2, 2)  # no rank of it saves numbers
    X = torch.randn(50, 2)
    save(export(net, (X[:2],), dynamic_shapes=({0: Dim.AUTO},)), tmp_path / "net.pt2")
    np.savez(tmp_path / "d.npz", X_val=X, y_val=net(X).argmax(1))
    words = ["compress", "net.pt2", "--data", "d.npz", "--max-drop", "0", "--quiet"]
    code, out, _ = run(tmp_path, capsys, *words, output=tmp_path / "s.pt2")
    assert code == 1 and "nothing smaller keeps the metric" in out
    assert not (tmp_path / "s.pt2").exists()


def test_inputs_of_a_file_go_by_their_names(capsys, tmp_path):
    one, other = torch.zeros(5, 12), torch.zeros(3, 12)
    save(export(Two(), (one, other)), tmp_path / "net.pt2")
    np.savez(tmp_path / "in.npz", other=other, one=one)
    words = ["report", "net.pt2", "--input", "in.npz", "--no-timing", "--quiet", "--json"]
    card = json.loads(run(tmp_path, capsys, *words)[1])
    assert {row["layer"]: row["macs"] for row in card["layers"]} == {"a": 5 * 12 * 4, "b": 3 * 12 * 8}


@pytest.mark.parametrize("error", [MemoryError("no room"), KeyError("k"), AttributeError("a")])
def test_a_fault_does_not_end_as_if_nothing_had_been_found(folder, capsys, monkeypatch, error):
    def fails(*_, **__):
        raise error

    monkeypatch.setattr("lowrank_utils.command.report.survey", fails)
    code, out, err = run(folder[0], capsys, "report", "net.pt2", "--quiet")
    assert (code, out) == (3, "") and err == f"error: {type(error).__name__}: {error}\n"


def test_an_interrupt_ends_without_a_traceback(folder, capsys, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("lowrank_utils.command.report.survey", stopped)
    assert run(folder[0], capsys, "report", "net.pt2", "--quiet") == (130, "", "")


PIPES = """
import os, sys
from lowrank_utils.command.run import main
read, write = os.pipe()
os.close(read)
os.dup2(os.open("/dev/full", os.O_WRONLY) if sys.argv[1] == "full" else write, 1)
sys.exit(main(["report", sys.argv[2], "--no-timing", "--quiet"]))
"""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full there")
@pytest.mark.parametrize(
    ("out", "code", "said"), [("closed", 141, ""), ("full", 3, "error: the result cannot be .*space.*\n")]
)
def test_where_nobody_can_read_the_result(folder, out, code, said):
    words = [sys.executable, "-c", PIPES, out, str(folder[0] / "net.pt2")]
    ran = subprocess.run(words, capture_output=True, text=True, timeout=240)
    assert ran.returncode == code and re.fullmatch(said, ran.stderr), ran.stderr


GOOD = ["--max-drop", "0.1", "--output", "out.pt2"]
REPORT = [
    ("none.pt2", "argument MODEL: .*none.pt2 must be a file NAME.pt2"),
    ("net.pt", "argument MODEL: .*net.pt must be a file NAME.pt2"),
    ("text.pt2", "argument MODEL: .*text.pt2 must be"),
    ("net.pt2 --input 8x13", r"argument --input: \[\(8, 13\)\] must be what"),
    ("net.pt2 --input 0x12", "argument --input: 0x12 must be a shape of positive"),
    ("net.pt2 --input eight", "argument --input: eight must be .* or a shape"),
    ("net.pt2 --input none.npy", "argument --input: .*none.npy must be"),
    ("net.pt2 --input empty.npy", "argument --input: .*empty.npy must be a file"),
    ("net.pt2 --input broken.npy", "argument --input: .*broken.npy must be a file"),
    ("net.pt2 --input empty.npz", "argument --input: .*empty.npz must be a file"),
    ("net.pt2 --input 1000000x1000000x100000", "argument --input: 1000000x.* must be a shape whose numbers"),
    (f"net.pt2 --input {10**20}x12", "argument --input: 10+x12 must be a shape whose numbers"),
    ("two.pt2 --input two.npz", r"argument --input: \['a', 'b'\] must be .* \['one', 'other'\], or arr_0"),
    ("net.pt2 --input array.npz", "argument --input: .*array.npz must be a file NAME.npz or NAME.npy"),
    ("nan.pt2", "argument MODEL: .*nan.pt2 must be a program without nan and inf, which layer '0' has"),
    ("relu.pt2", "argument MODEL: .*relu.pt2 must be a program with a layer"),
    ("net.pt2 --rank 3", "unrecognized arguments: --rank"),
]
COMPRESS = [
    ("--data none.npz", "argument --data: .*none.npz must be"),
    ("--data text.npz", "argument --data: .*text.npz must be"),
    ("--data pickled.npz", "argument --data: .*pickled.npz must be"),
    ("--data floats.npz", "argument --data: y_val of dtype torch.float32 must be integers"),
    ("--data other.npz", "argument --data: .*'X'.* must be arrays among which"),
    ("--data short.npz", r"argument --data: X_val \(101, 12\) and y_val \(5,\)"),
    ("--data wide.npz", "argument --data: .* the model can be called"),
    ("--data empty.npz", "argument --data: .*empty.npz must be a file"),
    ("--data none_left.npz", r"argument --data: X_val \(0, 12\) and y_val \(0,\) must be .* at least one"),
    ("--data wide_test.npz", "argument --data: X_test and y_test must be data that the model can be called"),
    ("--data one_class.npz --metric auc", r"argument --data: X_test and y_test must .* lacks \[1, 2\]"),
    ("--data val.npz --skip 0 2", r"argument --skip: \['0', '2'\] must be fewer than all layers"),
    ("--data val.npz --output dir.pt2", "argument --output: .*dir.pt2 must be a file NAME.pt2"),
    (
        "--data val.npz --output no_folder/out.pt2",
        "argument --output: .*no_folder/out.pt2 must be .* a folder",
    ),
    ("--data val.npz --output val.npz/out.pt2", "argument --output: .*val.npz/out.pt2 must be .* a folder"),
    ("--data val.npz --skip 9", "argument --skip: 9 must be"),
    ("--data val.npz --max-drop -1", "argument --max-drop: -1.0 must be"),
    ("--data val.npz --max-drop nan", "argument --max-drop: nan must be"),
    ("--data val.npz --max-drop inf", "argument --max-drop: inf must be a finite number >= 0"),
    ("--data val.npz --max-drop a", "argument --max-drop: invalid"),
    ("--data val.npz --output o.pt", "argument --output: .*o.pt"),
    ("--data val.npz --metric f1", "argument --metric: invalid"),
]
WRONG = [
    ([], "required: COMMAND"),
    (["shrink", "net.pt2"], "argument COMMAND: invalid choice: 'shrink'"),
    (["compress", "net.pt2", *GOOD], "required: --data"),
    *((["report", *words.split()], said) for words, said in REPORT),
    *((["compress", "net.pt2", *GOOD, *words.split()], said) for words, said in COMPRESS),
]


@pytest.mark.parametrize(
    ("words", "said"), WRONG, ids=lambda part: " ".join(part) if isinstance(part, list) else ""
)
def test_an_error_names_the_argument_and_ends_with_2(folder, capsys, monkeypatch, words, said):
    monkeypatch.setattr("lowrank_utils.network.within.cascade", None)  # before the long work
    code, out, err = run(folder[0], capsys, *words)
    assert (code, out) == (2, "")
    assert re.search(said, err.splitlines()[-1]), err
    assert "Traceback" not in err and not (folder[0] / "out.pt2").exists()


def test_a_program_of_two_inputs_is_no_fault_of_the_data(folder, capsys):
    code, _, err = run(folder[0], capsys, "compress", "two.pt2", "--data", "val.npz", *GOOD)
    assert code == 2 and "argument MODEL: ['one', 'other'] must be the inputs of a program that takes" in err


def test_a_program_without_layers_is_no_fault_of_the_data(folder, capsys):
    code, _, err = run(folder[0], capsys, "compress", "relu.pt2", "--data", "val.npz", *GOOD)
    assert code == 2 and re.search("argument MODEL: .*relu.pt2 must be a program with a layer", err)


def test_a_finished_network_is_written_before_it_is_scored_again(folder, capsys, monkeypatch, tmp_path):
    def once(model, X, y, calls=[]):  # noqa: B006
        calls.append(model)
        if len(calls) > 1:
            raise RuntimeError("no more")
        return 1.0

    monkeypatch.setitem(compress.METRICS, "accuracy", once)
    words = ["compress", "net.pt2", "--data", "data.npz", "--max-drop", "0.02"]
    code, _, err = run(folder[0], capsys, *words, output=tmp_path / "s.pt2")
    assert code == 2 and err.splitlines()[-1] == "error: no more"
    assert (tmp_path / "s.pt2").exists()


@pytest.mark.parametrize("error", [OSError, RuntimeError])
def test_a_program_that_cannot_be_written_is_an_error_of_the_output(
    folder, capsys, monkeypatch, tmp_path, error
):
    def full(*_):
        raise error("no space left")

    monkeypatch.setattr(torch.export, "save", full)
    words = ["compress", "net.pt2", "--data", "val.npz", "--max-drop", "0.02"]
    code, _, err = run(folder[0], capsys, *words, output=tmp_path / "s.pt2")
    assert code == 2 and re.search(r"argument --output: .*s.pt2 must be .*no space left", err)


def test_a_file_that_may_not_be_written_is_refused_before_the_work(folder, capsys, monkeypatch, tmp_path):
    old = tmp_path / "s.pt2"
    old.write_bytes(b"of someone else")
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != old and access(path, mode))
    words = ["compress", "net.pt2", "--data", "val.npz", "--max-drop", "0.02"]
    code, _, err = run(folder[0], capsys, *words, output=old)
    assert code == 2 and re.search(r"argument --output: .*s.pt2 must be a file NAME.pt2 in a folder", err)
    assert old.read_bytes() == b"of someone else"


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import torch
from lowrank_utils.command.programs import write_program
from lowrank_utils.command.said import Refused
program = torch.export.export(torch.nn.Linear(40, 40), (torch.zeros(2, 40),))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_program(program, Path(sys.argv[1]))
except Refused as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of a file's size there")
def test_a_full_disk_leaves_the_file_that_was_there(tmp_path):
    old = tmp_path / "s.pt2"
    old.write_bytes(b"the only copy")
    ran = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(old)], capture_output=True, text=True, timeout=240
    )
    assert ran.returncode == 0, ran.stderr
    assert "argument --output: " in ran.stdout and "too large" in ran.stdout
    assert [f.name for f in tmp_path.iterdir()] == ["s.pt2"] and old.read_bytes() == b"the only copy"


def test_as_a_program():
    told = subprocess.run(
        [sys.executable, "-m", "lowrank_utils", "--help"], capture_output=True, text=True, timeout=240
    )
    assert told.returncode == 0 and "exit codes: 0 done" in told.stdout
    for command in ("report", "compress"):
        assert command in told.stdout


class Mixed(nn.Module):
    """Two layers, and what is another function in training; one norm has no statistics of its own."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(12, 8), nn.Linear(8, 3)
        self.norm, self.bare, self.drop = (
            nn.BatchNorm1d(8),
            nn.BatchNorm1d(8, track_running_stats=False),
            nn.Dropout(0.1),
        )

    def forward(self, x):
        return self.last(self.drop(self.bare(self.norm(self.first(x)))))


def test_a_program_in_training_mode_is_told(folder, capsys):
    path, _, _ = folder
    x = torch.randn(2, 12)
    for name, net in (("training", Mixed().train()), ("eval", Mixed().eval())):
        save(export(net, (x,), dynamic_shapes=({0: Dim.AUTO},)), path / f"{name}.pt2")
    words = ["--data", "data.npz", "--max-drop", "1", "--quiet"]
    code, _, err = run(path, capsys, "compress", "training.pt2", *words, output=path / "small.pt2")
    assert code == 0
    assert err == (
        "warning: exported in training mode: batch_norm, dropout, which make scores hang on the batch or on "
        "chance; call model.eval() before torch.export.export\n"
    )
    code, _, err = run(path, capsys, "compress", "eval.pt2", *words, output=path / "small.pt2")
    assert (code, err) == (0, "")
