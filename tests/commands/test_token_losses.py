"""Losses of single tokens: what is kept, that it is what was summed, and that nothing else changes."""

import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from lpe_eval import text_tables
from lpe_eval.cli import app
from lpe_eval.errors import OutputError
from lpe_eval.records import TokenPart
from lpe_eval.report.folders.ppl import PerplexityFolder, open_run, read_run
from lpe_eval.report.folders.tokens import read_tokens, write_tokens
from lpe_eval.report.numbers.statistics import summarise
from lpe_eval.spec.fingerprint import spec_text
from lpe_eval.spec.ppl_spec import PerplexitySpec
from lpe_eval.table import CellKey
from tests.support.native_checkpoints import checkpoint
from tests.support.store_runs import KEYS, SPEC, measurement_of
from tests.support.warm import Warm, warm

pytestmark = pytest.mark.slow

PROTOCOLS = "nonoverlap,sliding,last,anchored"
FLAGS = ("--lengths", "16,32", "--max-tokens", "900", "--protocol", PROTOCOLS, "--last-k", "8", "-q")
TABLES = ("rows.csv", "by_document.parquet", "by_position.parquet", "effective_length.csv", "changes.csv")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, texts of characters of one to three bytes, and a run of them that kept its losses."""
    root = tmp_path_factory.mktemp("tokens")
    for name in ("alibi", "rope"):
        checkpoint(root / name, name)
    (root / "text").mkdir()
    for number in range(9):
        words = " ".join(f"wörd{(number * 7 + each * each) % 91} €" for each in range(40))
        (root / "text" / f"{number}.txt").write_text(words, encoding="utf-8")
    run(root, root / "kept", "--keep-tokens")
    return root


def command(place: Path, out: Path | str, *more: str) -> list[str]:
    models = [part for name in ("alibi", "rope") for part in ("-m", str(place / name))]
    return ["ppl", *models, "--data", str(place / "text"), *FLAGS, "--out", str(out), *more]


def run(place: Path, out: Path, *more: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, command(place, out, *more))
    assert result.exit_code == code, result.output + repr(result.exception)
    return result.output


def cell(frame: pd.DataFrame, protocol: str, length: int, document: str, model: str = "alibi") -> pd.DataFrame:
    chosen = (frame.model == model) & frame.protocol.str.startswith(protocol) & (frame.length == length)
    return frame.loc[chosen & (frame.document == document)]


def test_the_folder_is_one_table_with_the_declared_columns(place: Path):
    found = pd.read_parquet(place / "kept" / "by_token")
    assert list(found.columns) == [column.name for column in text_tables.TOKENS]
    assert found.loss.dtype == np.float32 and not found.isna().any().any()
    assert set(found.run) == {read_run(place / "kept").provenance["run"]}
    assert len(list((place / "kept" / "by_token").iterdir())) == 2 * 4 * 2
    told = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["list", "columns"]).output
    assert all(column.name in told for column in text_tables.TOKENS) and "by_token/*.parquet" in told


def test_they_add_up_to_the_sums_of_the_run(place: Path):
    tokens, sums = pd.read_parquet(place / "kept" / "by_token"), read_run(place / "kept").by_document
    key = ["model", "protocol", "length", "stride", "document", "digest", "block"]
    blocks = tokens.assign(block=tokens.position // 1024, loss=tokens.loss.astype(float))
    found = blocks.groupby(key).agg(nats=("loss", "sum"), n=("loss", "size"), b=("n_bytes", "sum")).reset_index()
    both = sums.merge(found, on=key)
    assert len(both) == len(sums) == len(found)
    assert (both.nats - both.nll_nats).abs().max() < 1e-9
    assert (both.n == both.n_tokens).all() and (both.b == both.n_bytes).all()


def test_a_target_is_the_byte_at_its_place_with_the_context_it_had(place: Path):
    found = pd.read_parquet(place / "kept" / "by_token")
    for document in found.document.unique():
        text = (place / "text" / document).read_bytes()
        own = found[found.document == document]
        assert (own.token == [text[at] for at in own.position]).all()
        assert (own.byte_from == own.position).all() and set(own.n_bytes) == {1}
        plain = cell(found, "nonoverlap", 16, document)
        assert plain.position.tolist() == list(range(1, len(plain) + 1))
        assert plain.context.tolist() == [1 + (at - 1) % 16 for at in plain.position]
        for length in (16, 32):
            anchored = cell(found, "anchored", length, document)
            assert set(anchored.context) == set(range(length - 7, length + 1))
        assert cell(found, "anchored", 16, document).position.tolist() == (
            cell(found, "anchored", 32, document).position.tolist()
        )


def test_off_by_default_and_then_nothing_changes(place: Path, tmp_path: Path):
    run(place, tmp_path / "plain")
    assert not (tmp_path / "plain" / "by_token").exists()
    for name in TABLES:
        plain, kept = (read(folder / name) for folder in (tmp_path / "plain", place / "kept"))
        pd.testing.assert_frame_equal(plain.drop(columns="run"), kept.drop(columns="run"))
    spec = {"models": ["alibi"], "corpus": {"name": "python_stdlib"}, "protocols": [{"name": "sliding"}]}
    made = PerplexitySpec.model_validate({**spec, "lengths": [32], "max_tokens": 99})
    assert "keep_tokens" not in spec_text(made) and "key_tokens" not in spec_text(made)
    assert "keep_tokens: true" in spec_text(made.model_copy(update={"keep_tokens": True}))


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)


def test_a_cell_without_its_losses_is_measured_again_to_the_same_bytes(place: Path, tmp_path: Path, monkeypatch):
    run(place, tmp_path / "run", "--keep-tokens")
    parts = sorted((tmp_path / "run" / "by_token").iterdir())
    whole = {path.name: path.read_bytes() for path in parts}
    assert whole == {path.name: path.read_bytes() for path in (place / "kept" / "by_token").iterdir()}
    parts[0].unlink()
    parts[3].write_bytes(b"half of it")
    measured: list[CellKey] = []
    original = PerplexityFolder.save
    monkeypatch.setattr(
        PerplexityFolder, "save", lambda self, cell, rows: (measured.append(cell.key), original(self, cell, rows))
    )
    run(place, tmp_path / "run", "--keep-tokens")
    assert len(measured) == 2
    assert {path.name: path.read_bytes() for path in (tmp_path / "run" / "by_token").iterdir()} == whole


def test_a_cell_that_has_no_value_keeps_no_losses(place: Path, tmp_path: Path):
    key = KEYS[0]
    at = np.arange(3)
    part = TokenPart("a", "b", at, at, at, at, at, np.ones(3, dtype=np.float32))
    with open_run(tmp_path / "run", SPEC, "run-1", keep_tokens=True) as store:
        store.keep_tokens(key, [part])
        assert store.tokens_of(key).is_file() and key not in store.finished()
    with open_run(tmp_path / "run", SPEC, "run-1", keep_tokens=True) as store:
        measurement = measurement_of(key, "n/a", "ends at 64")
        store.save(measurement, summarise(measurement, "run-1", 1, replicates=5))
        assert not store.tokens_of(key).exists() and key in store.finished()


def parts(documents: int, windows: int, size: int) -> Iterator[TokenPart]:
    draw = np.random.default_rng(0)
    for document in range(documents):
        for window in range(windows):
            at = np.arange(window * size, (window + 1) * size)
            loss = draw.random(size, dtype=np.float32)
            yield TokenPart(f"d{document}", f"x{document}", at, at % 256, at % 99 + 1, 2 * at, np.full(size, 2), loss)


def test_what_is_written_is_read_back_a_document_at_a_time(tmp_path: Path):
    key = CellKey("a model", "last-8", 16, None)
    path = tmp_path / "a.parquet"
    size = write_tokens(path, "r", key, parts(4, 90, 1000))
    assert size == path.stat().st_size
    assert path.read_bytes() == (write_tokens(path, "r", key, parts(4, 90, 1000)), path.read_bytes())[1]
    found = list(read_tokens(path))
    assert [(each.document, each.digest, len(each.loss)) for each in found] == [
        (f"d{number}", f"x{number}", 90000) for number in range(4)
    ]
    for number, each in enumerate(found):
        own = [part for part in parts(4, 90, 1000) if part.document == f"d{number}"]
        assert (each.loss == np.concatenate([part.loss for part in own]).astype(float)).all()
        assert (each.position == np.arange(90000)).all() and (each.byte_from == 2 * each.position).all()
    write_tokens(path, "r", key, [])
    assert not list(read_tokens(path))
    for damage in (b"", b"PAR1", path.read_bytes()[:-9]):
        path.write_bytes(damage)
        with pytest.raises(OutputError, match="missing or damaged"):
            list(read_tokens(path))
    pq.write_table(pa.table({"document": ["a"], "digest": ["b"]}), path)
    with pytest.raises(OutputError, match="does not have the columns"):
        list(read_tokens(path))


def test_memory_holds_a_piece_and_not_a_cell(tmp_path: Path):
    """Three million targets have 150 MB of numbers, and a piece of them 14 MB."""
    before = pa.total_allocated_bytes()
    pool = pa.default_memory_pool()
    key = CellKey("a model", "nonoverlap", 16, 16)
    highest = 0

    def watched() -> Iterator[TokenPart]:
        nonlocal highest
        for part in parts(30, 10, 10000):
            highest = max(highest, pool.bytes_allocated() - before)
            yield part

    write_tokens(tmp_path / "a.parquet", "r", key, watched())
    for each in read_tokens(tmp_path / "a.parquet"):
        highest = max(highest, pool.bytes_allocated() - before)
        assert len(each.loss) == 100000
    assert highest < 60e6


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    with warm(tmp_path_factory.mktemp("warm")) as helper:
        yield helper


@pytest.mark.slow
@pytest.mark.parametrize("flags", [("--keep-tokens",), ("--key-tokens", "self", "--key-gain", "0", "--key-loss", "99")])
def test_a_run_killed_at_many_moments_ends_with_the_same_bytes(processes: Warm, place: Path, tmp_path: Path, flags):
    began = time.monotonic()
    assert processes.run(command(place, tmp_path / "whole", *flags), tmp_path).code == 0
    seconds = time.monotonic() - began
    moments, kills, folders = random.Random(7), 0, 0
    seen: set[tuple[int, int]] = set()
    while kills < 12:
        folder = tmp_path / f"killed {folders}"
        folders += 1
        for _ in range(6):
            started, after = processes.start(command(place, folder, *flags), tmp_path), moments.uniform(0, seconds)
            if kills % 3:
                # Soon after a drawn number of further files is on disk, where the moments of writing are.
                wanted, end = kept_in(folder) + moments.randint(1, 4), time.monotonic() + seconds
                while kept_in(folder) < wanted and time.monotonic() < end:
                    time.sleep(0.001)
                after = moments.uniform(0, 0.02)
            ended = processes.wait(started, after)
            if ended.code == 0:
                break
            assert ended.code == -signal.SIGKILL, ended.stderr
            kills += 1
            cells, tokens = len(list(folder.glob("cells/*.json"))), kept_in(folder)
            seen.add((cells, tokens))
            assert cells <= tokens <= cells + 1, "losses are written before their cell"
        assert processes.run(command(place, folder, *flags), tmp_path).code == 0
        names = files_of(tmp_path / "whole")
        assert names == files_of(folder)
        for name in names - {"cost.csv", "provenance.json"}:
            if not name.startswith("cells"):
                assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert len(seen) > 3, "the moments are spread over the run"


def kept_in(folder: Path) -> int:
    return len(list(folder.glob("by_token/*.parquet")))


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
