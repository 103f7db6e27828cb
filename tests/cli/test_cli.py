"""The command line: instant help, flags in both spellings, one sentence and an exit code for what is wrong."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lpe_eval.cli import app


def told(*arguments: str, code: int) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return " ".join(result.output.replace("│", " ").split())


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from typer.testing import CliRunner; from lpe_eval.cli import app;"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0;"
        "print([m for m in ('torch', 'pandas', 'matplotlib', 'pydantic', 'numpy', 'datasets') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_groups_commands_and_names_every_exit_code():
    help_text = told("--help", code=0)
    for word in (
        "Measure",
        "Train",
        "Read",
        "ppl",
        "speed",
        "train",
        "list",
        "plot",
        "run",
        "inspect",
        "convert",
        "3 regression",
        "130 interrupted",
    ):
        assert word in help_text


@pytest.mark.parametrize(
    "command",
    [
        *("ppl", "recall", "compare", "speed", "train", "run", "plot", "report", "show", "list", "inspect"),
        *("bias", "convert", "diff", "init", "merge", "slurm", "watch"),
    ],
)
def test_every_command_and_every_flag_has_help(command: str):
    import typer.main

    found = typer.main.get_command(app).commands[command]  # pyright: ignore[reportAttributeAccessIssue]
    assert found.help
    assert [each.name for each in found.params if not getattr(each, "help", None) and each.name != "help"] == []


def test_the_flags_of_ppl_are_these():
    import typer.main

    found = typer.main.get_command(app).commands["ppl"]  # pyright: ignore[reportAttributeAccessIssue]
    flags = {flag for each in found.params for flag in each.opts}
    wanted = {
        "--model", "-m", "--lengths", "--protocol", "--stride", "--last-k", "--task", "--data", "-d", "--split",
        "--text-column", "--max-tokens", "--bos", "--pack", "--tail", "--batch-size", "-b", "--device", "--dtype",
        "--attention", "--tokenizer", "--revision", "--trust-remote-code", "--rope-scaling", "--rope-theta",
        "--as-published", "--out", "-o", "--overwrite", "--seed", "--dry-run", "--quiet", "-q", "--baseline",
        "--deterministic", "--subset", "--streaming", "--token-dtype", "--allow-leak", "--remap",
        "--keep-tokens", "--key-tokens", "--key-gain", "--key-loss", "--key-short", "--key-weighting", "--log-to",
        "--shard", "--engine", "--workers", "--gpus-per-worker", "--cpus-per-worker", "--device-map",
        "--tensor-parallel",
    }  # fmt: skip
    assert wanted == flags - {"--help", "-h"}


def test_the_flags_of_speed_are_these():
    import typer.main

    found = typer.main.get_command(app).commands["speed"]  # pyright: ignore[reportAttributeAccessIssue]
    flags = {flag for each in found.params for flag in each.opts}
    wanted = {
        "--encoding", "--lengths", "--mode", "--width", "--layers", "--heads", "--batch-tokens", "--rounds",
        "--device", "--dtype", "--attention", "--out", "-o", "--overwrite", "--quiet", "-q", "--dry-run",
    }  # fmt: skip
    assert wanted == flags - {"--help", "-h"}


def test_underscores_in_flags_are_accepted(tmp_path: Path):
    assert "--max-tokens" in told("ppl", "--max_tokens", "many", code=2)
    assert "no corpus" in told("ppl", "--batch_size", "2", "--data", "nothing-here", code=2)


NO_SUCH = "there is no"

HOSTILE = [
    (["ppl", "-m", "alibbi"], "no released checkpoint (and no folder) named 'alibbi'"),
    (["ppl", "-m", "no/such/folder"], "there is no checkpoint at no/such/folder"),
    (["ppl", "--lengths", "0"], "length must be between 1 and"),
    (["ppl", "--lengths", "-5"], "length must be between 1 and"),
    (["ppl", "--lengths", "many"], "'many' is no length"),
    (["ppl", "--lengths", ""], "names no length"),
    (["ppl", "--lengths", "1:2:x1"], "does not go anywhere"),
    (["ppl", "--lengths", "5:2:x2"], "does not go anywhere"),
    (["ppl", "--lengths", "1:4000000:+1"], "more than 10000 lengths"),
    (["ppl", "--lengths", "99999999999"], "length must be between 1 and"),
    (["ppl", "--protocol", "strided"], "there is no 'strided'; known: nonoverlap, sliding, last, anchored"),
    (["ppl", "--protocol", ","], "names none"),
    (["ppl", "--stride", "9999"], "would skip tokens"),
    (["ppl", "--stride", "0"], "stride must be at least 1"),
    (["ppl", "--stride", "wide"], "'wide' is no number of tokens"),
    (["ppl", "--protocol", "nonoverlap", "--stride", "8"], "--stride belongs to the protocols sliding and anchored"),
    (["ppl", "--protocol", "sliding", "--last-k", "8"], "--last-k belongs to"),
    (["ppl", "--protocol", "last", "--last-k", "9999"], "has no 9999 targets"),
    (["ppl", "--task", "wikitex"], "there is no task named 'wikitex'"),
    (["ppl", "--task", "nothing.yaml"], "nothing.yaml cannot be read"),
    (["ppl", "--data", "nothing.txt"], "nothing.txt"),
    (["ppl", "--split", "dev"], "has no split 'dev'"),
    (["ppl", "--bos", "sometimes"], "bos"),
    (["ppl", "--tail", "keep"], "tail"),
    (["ppl", "--max-tokens", "0"], "max_tokens"),
    (["ppl", "-b", "0"], "batch size must be at least 1"),
    (["ppl", "-b", "big"], "neither a whole number nor auto"),
    (["ppl", "--device", "tpu9"], "no such device"),
    (["ppl", "--dtype", "float8"], "dtype"),
    (["ppl", "--lengths", "4000000"], "lower --lengths"),
    (["ppl", "--rope-scaling", "yarn:4", "-m", "alibi"], "--rope-scaling has no effect on"),
    (["ppl", "--rope-theta", "0", "-m", "alibi"], "rope_theta"),
    (["ppl", "--revision", "main", "-m", "alibi"], "--revision has no effect on"),
    (["ppl", "--as-published", "-m", "alibi"], "--as-published has no effect on"),
    (["ppl", "--tokenizer", "byte", "-m", "alibi"], "no tokenizer named 'byte'; did you mean bytes"),
    (["inspect", "alibbi"], "no released checkpoint (and no folder) named 'alibbi'"),
    (["inspect", "alibi", "--task", "wikitex"], "there is no task named 'wikitex'"),
    (["inspect", "alibi", "--rope-theta", "1e6"], "--rope-theta has no effect on"),
    (["convert", "alibbi", "out"], "no released checkpoint (and no folder) named 'alibbi'"),
    (["convert", "alibi", "out", "--dtype", "int8"], "float32 or bfloat16"),
    (["train", "--encoding", "alibbi"], "no encoding named 'alibbi'; did you mean alibi"),
    (["train", "--encoding", "dape"], "wraps another one"),
    (["train", "--encoding", "alibi(rope)"], "wraps nothing"),
    (["train", "--encoding", "((("], "does not name an encoding"),
    (
        ["train", "--encoding", "dape(alibi)", "--option", "hiden=8"],
        "no option of dape named 'hiden'; did you mean hidden",
    ),
    (["train", "--encoding", "dape(alibi)", "--option", "hidden=-1"], "hidden"),
    (["train", "--encoding", "alibi", "--option", "hidden"], "is not KEY=VALUE"),
    (["train", "--encoding", "alibi", "--heads", "3"], "is not a multiple of 3 heads"),
    (["train", "--encoding", "alibi", "--batch-tokens", "100"], "not a multiple of train_length"),
    (["train", "--encoding", "alibi", "--steps", "0"], "steps"),
    (["train", "--encoding", "alibi", "--corpus", "nothing"], "no corpus named"),
    (["speed", "--encoding", "alibbi"], "no encoding named 'alibbi'; did you mean alibi"),
    (["speed", "--encoding", ","], "--encoding names none"),
    (["speed", "--encoding", "dape"], "wraps another one"),
    (["speed", "--lengths", "0"], "length must be between 1 and"),
    (["speed", "--lengths", "long"], "'long' is no length"),
    (["speed", "--mode", "backward"], "there is no 'backward'; known: forward, train"),
    (["speed", "--mode", ","], "--mode names none"),
    (["speed", "--rounds", "1"], "rounds"),
    (["speed", "--heads", "3"], "is not a multiple of 3 heads"),
    (["speed", "--batch-tokens", "0"], "batch_tokens"),
    (["speed", "--device", "tpu9"], "no such device"),
    (["speed", "--dtype", "float8"], "dtype"),
    (["speed", "--attention", "sdpa", "--encoding", "alibi"], "cannot compute alibi on cpu"),
    (["speed", "--attention", "flash"], "no attention path named 'flash'"),
    (["list", "encoding"], "did you mean encodings"),
    (["run", "nothing.yaml"], "nothing.yaml cannot be read"),
    (["plot", "nothing"], "nothing"),
]


@pytest.mark.parametrize(("arguments", "sentence"), HOSTILE, ids=[" ".join(each) for each, _ in HOSTILE])
def test_what_is_wrong_is_one_sentence(arguments: list[str], sentence: str, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code in (1, 2), result.output
    assert result.exit_code == 2 or arguments[0] == "plot"
    assert sentence in " ".join(result.output.split())
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("kind: [", "is not YAML"),
        ("- 1", "must hold a mapping"),
        ("kind: measure", "kind must be one of che, ppl, recall, speed, study, train, not 'measure'"),
        ("kind: ppl\nmodels: [a]\nlenghts: [512]\ncorpus: a.txt\nprotocols: [{name: last}]", "did you mean lengths"),
        ("a: &a [x]\nb: [*a, *a]", "uses a YAML alias"),
        ("kind: ppl\nmodels: []\nlengths: [512]\ncorpus: python-stdlib\nprotocols: []\nmax_tokens: 5", "models"),
        ("!!python/object/apply:os.system ['touch executed']", "is not YAML"),
    ],
)  # fmt: skip
def test_a_spec_file_that_is_wrong_is_one_sentence(tmp_path: Path, content: str, sentence: str):
    path = tmp_path / "spec with spaces ☃.yaml"
    path.write_text(content)
    assert sentence in told("run", str(path), code=2)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("what", ["encodings", "tasks", "checkpoints", "corpora", "formats", "attentions"])
def test_everything_that_can_be_named_is_listed(what: str):
    from lpe_eval.registry import ENCODINGS

    text = told("list", what, code=0)
    if what == "encodings":
        assert all(name in text for name in ENCODINGS.names())
    if what == "tasks":
        assert "python-stdlib" in text


def test_an_output_folder_that_cannot_be_written_is_said_before_a_model_is_loaded(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    began = time.monotonic()
    text = told("ppl", "-m", "alibi", "--out", str(tmp_path / "file" / "run"), code=1)
    assert "cannot write to" in text and time.monotonic() - began < 30
