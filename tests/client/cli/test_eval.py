"""`losswire eval`: inputs in all their forms, results in all of theirs, mistakes as lines."""

import json
import math
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from tests.client.cli.conftest import Run

LOGITS = [[2.0, 1.0], [1.0, 2.0]]
CLASSES = [1, 0]
LOSS = math.log(1 + math.e)
"""Of both rows, each of which puts the target one below the other class."""
SHARE = 0.5 * math.e / (1 + math.e)
GRADIENT = [[SHARE, -SHARE], [-SHARE, SHARE]]

CROSS_ENTROPY = ("eval", "cross_entropy", "--json")


def _files(folder: Path) -> None:
    """Write the same batch in every file format."""
    logits, classes = np.array(LOGITS, np.float32), np.array(CLASSES)
    np.save(folder / "logits.npy", logits)
    np.save(folder / "classes.npy", classes)
    np.savez(folder / "batch.npz", input=logits, target=classes)
    np.savez(folder / "x.npz", x=logits)
    np.savez(folder / "named.npz", a=logits, b=classes)
    (folder / "logits.csv").write_text("2,1\n1,2\n")
    (folder / "classes.csv").write_text("1\n0\n")
    (folder / "windows.csv").write_text("2.0, 1.0\r\n1.0, 2.0\r\n\r\n")


FORMS: tuple[tuple[str, str], ...] = (
    ("[[2.0, 1.0], [1.0, 2.0]]", "[1, 0]"),
    ("[[2, 1], [1, 2]]", "[1,0]"),
    ("logits.npy", "classes.npy"),
    ("batch.npz", "batch.npz"),
    ("x.npz", "classes.csv"),
    ("named.npz:a", "named.npz:b"),
    ("logits.csv", "classes.csv"),
    ("windows.csv", "[1, 0]"),
    ("[[2, 1], [1, 2]]", "[[0.0, 1.0], [1.0, 0.0]]"),
)


@pytest.mark.parametrize(("logits", "classes"), FORMS)
def test_inputs_may_have_many_forms(
    losswire: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logits: str, classes: str
) -> None:
    """The same batch gives the same loss and gradient, whatever it is written in."""
    _files(tmp_path)
    monkeypatch.chdir(tmp_path)
    ran = losswire(*CROSS_ENTROPY, "--input", logits, "--target", classes, "--grad", "input")
    facts = json.loads(ran.out)
    assert (ran.status, ran.err) == (0, "")
    assert facts["loss"] == pytest.approx(LOSS, rel=1e-6)
    np.testing.assert_allclose(facts["gradients"]["input"], GRADIENT, rtol=1e-6)
    assert (facts["loss_dtype"], facts["count"]) == ("float32", 2)


SETTINGS: tuple[tuple[tuple[str, ...], float], ...] = (
    (("--option", "label_smoothing=1"), LOSS - 0.5),
    (("--option", "ignore_index=0", "--reduction", "sum"), LOSS),
    (("--reduction", "sum"), 2 * LOSS),
    (("--normalizer", "4"), LOSS / 2),
    (("--sample-weight", "[3, 0]", "--reduction", "sum"), 3 * LOSS),
    (("--weight", "[1, 3]", "--reduction", "sum"), 4 * LOSS),
    (("--tensor", "weight=[1, 3]", "--reduction", "sum"), 4 * LOSS),
    (("--engine", "autograd"), LOSS),
    (("--dtype", "float64"), LOSS),
    (("--compute-dtype", "float64"), LOSS),
)


@pytest.mark.parametrize(("words", "expected"), SETTINGS, ids=lambda each: str(each)[:60])
def test_settings_reach_the_server(losswire: Run, words: tuple[str, ...], expected: float) -> None:
    """Options, reduction, weights and types change the loss as they should."""
    batch = ("--input", json.dumps(LOGITS), "--target", json.dumps(CLASSES))
    ran = losswire(*CROSS_ENTROPY, *batch, *words)
    assert (ran.status, ran.err) == (0, "")
    facts = json.loads(ran.out)
    assert facts["loss"] == pytest.approx(expected, rel=1e-6)
    assert facts["loss_dtype"] == ("float64" if "float64" in words else "float32")
    if "autograd" in words:
        assert facts["receipt"]["engine"] == "autograd"


def test_text_names_everything(losswire: Run) -> None:
    """Without --json each fact has a line, and gradients follow."""
    ran = losswire(
        *("eval", "mse_loss", "--input", "[3, 1]", "--target", "[1, 1]"),
        *("--grad", "target", "--engine", "autograd"),
    )
    assert ran.out.splitlines() == [
        "loss              2.0",
        "sum               4.0",
        "mean numerator    4.0",
        "mean denominator  2.0",
        "count             2",
        "computed          in float32 by autograd on cpu",
        "gradient of target, float32 [2]",
        "[-2.  0.]",
    ]


def test_unreduced_losses_and_activations_print_their_values(losswire: Run) -> None:
    """An array is printed as one; an activation has no sums to speak of."""
    ran = losswire("eval", "softmax", "--input", "[[1, 1]]", "--option", "dim=1")
    lines = ran.out.splitlines()
    assert lines[:2] == ["loss, float32 [1, 2]", "[[0.5 0.5]]"]
    assert len(lines) == 3


def test_results_are_written_to_files(losswire: Run, tmp_path: Path) -> None:
    """Gradients and the loss go to .npy and .csv files; bfloat16 becomes float32, exactly."""
    gradient, table, loss = (str(tmp_path / name) for name in ("g.npy", "g.csv", "loss.npy"))
    ran = losswire(
        *("eval", "mse_loss", "--json", "--reduction", "none", "--grad-output", "[1, 1]"),
        *("--input", "[3, 1]", "--target", "[1, 0]", "--dtype", "bfloat16"),
        *("--grad", f"input={gradient}", "--grad", f"target={table}", "--output", loss),
    )
    facts = json.loads(ran.out)
    assert (ran.status, facts["gradients"]) == (0, {})
    assert facts["gradient_files"] == {"input": gradient, "target": table}
    assert np.load(gradient, allow_pickle=False).tolist() == [4.0, 2.0]
    assert np.load(gradient, allow_pickle=False).dtype == np.float32
    assert Path(table).read_text() == "-4.0\n-2.0\n"
    assert np.load(loss, allow_pickle=False).tolist() == [4.0, 1.0]


def test_one_input_may_be_converted(losswire: Run, tmp_path: Path) -> None:
    """NAME=TYPE gives one input a type that its file cannot have, or does not."""
    np.save(tmp_path / "classes.npy", np.array(CLASSES, np.int16))
    ran = losswire(
        *(*CROSS_ENTROPY, "--input", json.dumps(LOGITS), "--dtype", "input=bfloat16"),
        *("--target", str(tmp_path / "classes.npy"), "--dtype", "target=uint8"),
        *("--grad", "input"),
    )
    assert (ran.status, ran.err) == (0, "")
    rounded = np.array(GRADIENT).astype(ml_dtypes.bfloat16).astype(float)
    np.testing.assert_array_equal(json.loads(ran.out)["gradients"]["input"], rounded)


def test_json_stays_json_for_all_numbers(losswire: Run) -> None:
    """NaN and infinities, which JSON lacks, are texts, as protobuf's JSON has them."""
    ran = losswire(
        *("eval", "l1_loss", "--json", "--reduction", "none"),
        *("--input", "[NaN, Infinity, -Infinity, 1]", "--target", "[0, 0, Infinity, 0]"),
    )

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    facts = json.loads(ran.out, parse_constant=refuse)
    assert facts["loss"] == ["NaN", "Infinity", "Infinity", 1.0]
    assert facts["sum"] == "NaN"


def test_names_may_have_hyphens(losswire: Run) -> None:
    """An input is reachable by its own name and by that of command lines."""
    ran = losswire(
        *("eval", "ctc_loss", "--json", "--log-probs", "[[-0.5, -0.5], [-0.5, -0.5]]"),
        *("--targets", "[1]", "--input_lengths", "2", "--target-lengths", "1"),
    )
    assert (ran.status, ran.err) == (0, "")
    # Three alignments of one label with two frames, each of probability exp(-1).
    assert json.loads(ran.out)["loss"] == pytest.approx(1 - math.log(3), rel=1e-6)


BATCH = ("--input", "[[2, 1], [1, 2]]", "--target", "[1, 0]")
MISTAKES: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("eval",), ("the following arguments are required: LOSS (see `losswire eval --help`)",)),
    (
        ("eval", "cross_entropi"),
        (
            (
                'loss: there is no loss "cross_entropi"; did you mean cross_entropy or '
                "linear_cross_entropy or binary_cross_entropy?"
            ),
        ),
    ),
    (
        ("eval", "cross_entropy", *BATCH, "--inptu", "[1]"),
        ("unrecognized arguments: --inptu [1] (see `losswire eval cross_entropy --help`)",),
    ),
    (
        ("eval", "cross_entropy", *BATCH, "--inp", "[1]"),
        ("unrecognized arguments: --inp [1] (see `losswire eval cross_entropy --help`)",),
    ),
    (
        ("eval", "cross_entropy", "--input", "[[2, 1]]", "--target", "[1, 0]"),
        ('inputs["target"].shape: is [2]; expected [1]',),
    ),
    (
        ("eval", "cross_entropy", "--option", "label_smoothing=2", "--option", "x=1"),
        (
            'inputs["input"]: cross_entropy needs this input',
            'inputs["target"]: cross_entropy needs this input',
            (
                'options["x"]: cross_entropy has no such option; its options: ignore_index, '
                "label_smoothing"
            ),
            'options["label_smoothing"]: 2 is not in [0, 1]',
        ),
    ),
    (
        ("eval", "cross_entropy", *BATCH, "--option", "ignore_index=one"),
        ("options[\"ignore_index\"]: 'one' is not an integer",),
    ),
    (
        ("eval", "kl_div", "--option", "log_target=yes"),
        ("options[\"log_target\"]: 'yes' is not true or false",),
    ),
    (
        ("eval", "cross_entropy", *BATCH, "--option", "label_smoothing"),
        ("--option label_smoothing: expected NAME=VALUE",),
    ),
    (
        ("eval", "cross_entropy", *BATCH, "--tensor", "x=[1]"),
        ("--tensor x: cross_entropy has no such input; it has input, target, weight",),
    ),
    (
        ("eval", "cross_entropy", *BATCH, "--grad", "input="),
        ("--grad input=: expected NAME or NAME=FILE",),
    ),
    (
        ("eval", "cross_entropy", *BATCH, "--grad", "input=g.txt"),
        ("cannot write g.txt: expected a name that ends in .npy or .csv",),
    ),
    (
        ("eval", "cross_entropy", *BATCH, "--grad", "input=/no/such/g.npy"),
        ("cannot write /no/such/g.npy: No such file or directory",),
    ),
    (
        ("eval", "cross_entropy", *BATCH, "--dtype", "float99"),
        (
            (
                "there is no dtype 'float99'; there are bool, uint8, int8, int16, int32, int64, "
                "float16, bfloat16, float32, float64"
            ),
        ),
    ),
    (
        ("eval", "cross_entropy", *BATCH, "--dtype", "int64"),
        ("--dtype int64: expected a floating type, or NAME=TYPE for one input",),
    ),
    (
        ("eval", "cross_entropy", *BATCH, "--dtype", "x=int64"),
        ("--dtype x=...: there is no such input; there are input, target, weight",),
    ),
    (
        ("eval", "cross_entropy", *BATCH, "--normalizer", "x"),
        ("argument --normalizer: invalid float value: 'x' (see `losswire eval --help`)",),
    ),
    (
        ("eval", "cross_entropy", *BATCH, "--reduction", "max"),
        ("reduction: expected one of None, 'none', 'mean', 'sum', 'batchmean', got 'max'",),
    ),
    (
        ("eval", "cross_entropy", *BATCH, "--server", "here"),
        ("target: expected host:port or [v6]:port, got 'here'",),
    ),
    (
        ("eval", "cross_entropy", *BATCH, "--token", "\n"),
        ("--token: expected printable ASCII text",),
    ),
)


@pytest.mark.parametrize(("words", "lines"), MISTAKES, ids=lambda each: " ".join(each)[:70])
def test_mistakes_are_lines(losswire: Run, words: tuple[str, ...], lines: tuple[str, ...]) -> None:
    """A wrong command prints nothing but a line for each thing that is wrong, and exits with 2."""
    ran = losswire(*words)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.splitlines() == [f"losswire: {line}" for line in lines]


FILES: tuple[tuple[str, bytes, str], ...] = (
    ("missing.npy", b"", "No such file or directory"),
    ("text.npy", b"hello", "it is damaged, or holds something else than numbers"),
    ("text.npz", b"hello", "it is damaged, or holds something else than numbers"),
    ("half.npz", b"PK\x03\x04", "it is damaged, or holds something else than numbers"),
    ("nothing.npy", b"", "it is damaged, or holds something else than numbers"),
    ("nothing.csv", b"\n", "it is empty"),
    ("words.csv", b"a,b\n", "could not convert string 'a' to float64 at row 0, column 1."),
    ("ragged.csv", b"1,2\n3\n", "the number of columns changed from 2 to 1 at row 2"),
    ("binary.csv", b"\xff\n", "'utf-8' codec can't decode byte 0xff in position 0"),
)


@pytest.mark.parametrize(("name", "content", "reason"), FILES, ids=[each[0] for each in FILES])
def test_unreadable_files_are_named(
    losswire: Run, tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    """What is wrong with a file is said with its name and that of the input."""
    path = tmp_path / name
    if name != "missing.npy":
        path.write_bytes(content)
    ran = losswire("eval", "sigmoid", "--input", str(path))
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith(f"losswire: input: cannot read {path}: {reason}")
    assert ran.err.count("\n") == 1


JSON_MISTAKES = ("[1, [2]]", "[1, null]", "[1, 2", '["a"]', "[1e5, 99999999999999999999999]", "5x")


@pytest.mark.parametrize("text", JSON_MISTAKES)
def test_what_is_no_array_is_refused(losswire: Run, text: str) -> None:
    """JSON that is ragged, broken or holds no numbers is one line."""
    ran = losswire("eval", "sigmoid", "--input", text)
    assert ran.err.startswith(f"losswire: input: cannot read {text}: ")
    assert (ran.status, ran.out, ran.err.count("\n")) == (2, "", 1)


def test_pickles_are_refused(losswire: Run, tmp_path: Path) -> None:
    """A file that would have to be unpickled is not."""
    np.save(tmp_path / "objects.npy", np.array([None, 1], object), allow_pickle=True)
    ran = losswire("eval", "sigmoid", "--input", str(tmp_path / "objects.npy"))
    assert (ran.status, ran.out) == (2, "")
    assert "something else than numbers" in ran.err


def test_files_of_any_size_are_evaluated(losswire: Run, tmp_path: Path) -> None:
    """Inputs over the server's message limit are evaluated, too."""
    np.save(tmp_path / "large.npy", np.full(3 << 20, 2, np.float32))
    np.save(tmp_path / "zeros.npy", np.zeros(3 << 20, np.float32))
    files = ("--input", str(tmp_path / "large.npy"), "--target", str(tmp_path / "zeros.npy"))
    ran = losswire("eval", "mse_loss", *files, "--json")
    assert (ran.status, ran.err) == (0, "")
    found = json.loads(ran.out)
    assert (found["loss"], found["count"]) == (4.0, 3 << 20)


def test_what_is_too_large_is_said(
    losswire: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A function that needs one message, and does not fit into it, fails with a line."""
    # On this machine it would go through shared memory, of which there is enough.
    monkeypatch.setattr("losswire.client._memory.mapping.HAVE_REGIONS", False)
    np.save(tmp_path / "large.npy", np.zeros(3 << 20, np.float32))
    ran = losswire("eval", "sigmoid", "--input", str(tmp_path / "large.npy"))
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith("losswire: streamed_inputs: sigmoid ")


@pytest.mark.parametrize("mask", ["[true, false]", "[1, 0]", "bools.npy", "integers.npy"])
@pytest.mark.parametrize("weight", ["[1, 2]", "[0.1, 0.25]", "weight.npy", "weight.csv"])
@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_masks_and_class_weights_may_be_integers(
    losswire: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    mask: str,
    weight: str,
    dtype: str,
) -> None:
    """A mask removes rows, and numbers of a weight have the type of the input beside them."""
    monkeypatch.chdir(tmp_path)
    np.save("bools.npy", np.array([True, False]))
    np.save("integers.npy", np.array([1, 0]))
    np.save("weight.npy", np.array([1, 2]))
    Path("weight.csv").write_text("1\n2\n")
    np.save("logits.npy", np.array([[0.0, 1.0], [np.nan, 0.0]], dtype))
    batch = ("--input", "logits.npy", "--target", "[1, 0]", "--weight", weight)
    ran = losswire(*CROSS_ENTROPY, *batch, "--sample-weight", mask, "--grad", "input")
    assert (ran.status, ran.err) == (0, "")
    facts = json.loads(ran.out)
    assert facts["count"] == 1
    assert facts["loss"] == pytest.approx(math.log(1 + math.e) - 1, rel=1e-6)
    assert facts["gradients"]["input"][1] == [0.0, 0.0]
    np.save("logits.npy", np.array([[0.0, 1.0], [2.0, 0.0]], dtype))
    ran = losswire("check-gradient", "cross_entropy", *batch, "--sample-weight", mask)
    assert (ran.status, ran.err) == (0, "")
