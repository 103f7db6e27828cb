"""Runs of what lies at addresses, and runs that lie there, have the bytes of those on this machine."""

import json
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

import lpe_eval
from lpe_eval import fetched as fetching
from lpe_eval.cli.models import language_models
from lpe_eval.data.tokenizer import open_tokenizer
from lpe_eval.errors import DataError
from lpe_eval.model.at_address import copy_of_checkpoint
from lpe_eval.spec.released import released_encoders
from tests.support.native_checkpoints import checkpoint
from tests.support.runs_to_end import furnished
from tests.support.small_ppl import TEXT
from tests.support.stored_runs import SAME, put, server_of_s3, small, told
from tests.support.stored_texts import chosen, write_texts


def test_a_run_of_models_and_text_at_addresses_has_the_bytes_of_a_local_one(place: Path, memory: MemoryFileSystem):
    furnished(place)
    told(small("whole", "alibi", "text", "--split", "test"))
    put(place / "alibi", "memory://bucket/models/alibi")
    put(place / "text", "memory://bucket/text")
    told(small("stored", "memory://bucket/models/alibi", "memory://bucket/text", "--split", "test"))
    for name in SAME:
        assert (place / "stored" / name).read_bytes() == (place / "whole" / name).read_bytes(), name
    known = [json.loads((place / each / "provenance.json").read_bytes()) for each in ("whole", "stored")]
    assert known[0]["run"] == known[1]["run"]
    of_model = [each["models"]["alibi"] for each in known]
    assert {**of_model[1], "reference": "alibi"} == of_model[0]
    assert of_model[1]["reference"] == "memory://bucket/models/alibi"
    assert known[1]["corpus"]["path"] == "memory://bucket/text"
    held = b"".join(path.read_bytes() for path in (place / "stored").rglob("*") if path.is_file())
    assert str(place / "cache").encode() not in held, "where copies lie is nobody's business"
    told(small(f"file://{place}/named", f"file://{place}/alibi", f"file://{place}/text", "--split", "test"))
    told(small("path", f"{place}/alibi", f"{place}/text", "--split", "test"))
    for name in SAME:
        assert (place / "named" / name).read_bytes() == (place / "path" / name).read_bytes(), name


def test_runs_at_addresses_are_read_like_folders(place: Path, memory: MemoryFileSystem):
    checkpoint(place / "a")
    (place / "text.txt").write_text(TEXT)
    told(small("run", "a", "text.txt", "--lengths", "16,32"))
    put(place / "run", "memory://bucket/run")
    for flags in (["--format", "csv"], ["--format", "markdown"], ["--spec"], ["--cite"]):
        assert told(["show", "memory://bucket/run", *flags]) == told(["show", "run", *flags])
    assert "memory://bucket/run" in told(["show", "memory://bucket/run"])
    against = ["--against-length", "16", "--format", "markdown"]
    assert told(["diff", "memory://bucket/run", *against]) == told(["diff", "run", *against])
    compared = told(["compare", "memory://bucket/run", "--baseline", "./run"])
    assert compared.replace("memory://bucket/run", "run") == told(["compare", "run", "--baseline", "./run"])
    told(["compare", "run", "--baseline", "memory://bucket/run", "--json", "memory://bucket/verdicts.json"])
    assert json.loads(memory.cat_file("/bucket/verdicts.json"))
    told(small("judged", "a", "text.txt", "--lengths", "16,32", "--baseline", "memory://bucket/run"))
    files = told(["plot", "memory://bucket/run"]).split()
    assert "memory://bucket/run/figures/perplexity.png" in files
    assert memory.cat_file("/bucket/run/figures/perplexity.png") == (place / "run/figures/perplexity.png").read_bytes()
    made = told(["export", "memory://bucket/run", "--format", "eval-results", "--option", "dataset=org/x", "--option",
                 "task-id=t", "--out", "memory://bucket/out"])  # fmt: skip
    assert all(memory.exists(each.removeprefix("memory:/")) for each in made.split())
    assert lpe_eval.read("memory://bucket/run").rows.equals(lpe_eval.read("run").rows)
    # What is at the address now is what is read.
    told(small("other", "a", "text.txt", "--lengths", "16"))
    put(place / "other", "memory://bucket/run")
    assert told(["show", "memory://bucket/run", "--format", "csv"]) == told(["show", "other", "--format", "csv"])
    assert "there is nothing at memory://bucket/none" in told(["show", "memory://bucket/none"], code=2)


def test_a_report_at_an_address_tells_the_address(place: Path, memory: MemoryFileSystem):
    pytest.importorskip("vl_convert")
    checkpoint(place / "a")
    (place / "text.txt").write_text(TEXT)
    told(small("run", "a", "text.txt"))
    put(place / "run", "memory://bucket/run")
    assert "memory://bucket/page.html" in told(["report", "memory://bucket/run", "--out", "memory://bucket/page.html"])
    page = memory.cat_file("/bucket/page.html")
    assert b"memory://bucket/run" in page and str(place).encode() not in page


def test_checkpoints_that_appear_at_an_address_are_measured(place: Path, memory: MemoryFileSystem):
    (place / "text.txt").write_text(TEXT)
    flags = ["--data", "text.txt", "--lengths", "16", "--max-tokens", "100", "--protocol", "nonoverlap", "-q"]
    for step, seed in ((20, 0), (3, 1)):
        put(checkpoint(place / "runs" / f"step-{step}", seed=seed), f"memory://bucket/runs/step-{step}")
    memory.pipe_file("/bucket/runs/step-30/model.safetensors.tmp", b"half")
    memory.pipe_file("/bucket/runs/logs/a.txt", b"x")
    told(["watch", "runs", *flags, "--out", "here", "--once", "--every", "0.05"])
    told(["watch", "memory://bucket/runs", *flags, "--out", "there", "--once", "--every", "0.05"])
    assert (place / "there" / "steps.csv").read_bytes() == (place / "here" / "steps.csv").read_bytes()
    assert sorted(path.name for path in (place / "there").iterdir()) == ["figures", "step-20", "step-3", "steps.csv"]


@pytest.mark.slow
def test_a_server_of_s3_gives_the_bytes_of_local_files(place: Path, monkeypatch: pytest.MonkeyPatch):
    furnished(place)
    write_texts(place / "books")
    with server_of_s3(monkeypatch) as (server, files):
        put(place / "alibi", "s3://bucket/models/alibi")
        put(place / "text", "s3://bucket/text")
        put(place / "books", "s3://bucket/books")
        told(small("whole", "alibi", "text", "--split", "test"))
        told(small("stored", "s3://bucket/models/alibi", "s3://bucket/text", "--split", "test"))
        for name in SAME:
            assert (place / "stored" / name).read_bytes() == (place / "whole" / name).read_bytes(), name
        assert chosen("s3://bucket/books") == chosen("books")
        assert chosen("s3://bucket/books/test/e.parquet") == chosen("books/test/e.parquet")
        put(place / "whole", "s3://bucket/run")
        assert told(["show", "s3://bucket/run", "--format", "csv"]) == told(["show", "whole", "--format", "csv"])
        copies = [copy_of_checkpoint("s3://bucket/models/alibi") for _ in range(2)]
        assert copies[0] == copies[1]
        assert language_models(["s3://bucket/models/al*"]) == ["s3://bucket/models/alibi"]
        told(["plot", "s3://bucket/run"])
        assert files.cat_file("bucket/run/figures/perplexity.png")
        for command, code in (
            (["inspect", "s3://bucket/none"], 2), (["inspect", "s3://no-such-bucket/x"], 2),
            (["show", "s3://bucket/none"], 2), (small("out", "alibi", "s3://bucket/none"), 2),
        ):  # fmt: skip
            assert "there is n" in told(command, code=code)
        server.kill()
        server.wait()
        monkeypatch.setattr(fetching, "_TRIES", (0.01,))
        for command, code in (
            (["inspect", "s3://bucket/models/alibi"], 2), (["show", "s3://bucket/run"], 1),
            (small("out", "alibi", "s3://bucket/text"), 2),
        ):  # fmt: skip
            assert "cannot be read" in told(command, code=code)


def test_encoders_and_tokenizers_at_addresses_are_those_of_folders(place: Path, memory: MemoryFileSystem):
    (place / "rope").mkdir()
    for name in ("config.yaml", "even_pairs.safetensors"):
        (place / "rope" / name).write_bytes((released_encoders()["rope"] / name).read_bytes())
    put(place / "rope", "memory://bucket/encoders/rope")
    runs = [
        lpe_eval.che(each, [6], tasks="even_pairs", samples=8) for each in ("./rope", "memory://bucket/encoders/rope")
    ]
    assert runs[0].rows.drop(columns="run").equals(runs[1].rows.drop(columns="run"))
    Path("symbols.txt").write_text("abc")
    memory.pipe_file("/bucket/symbols.txt", b"abc")
    here, there = (open_tokenizer(f"char:{each}") for each in ("symbols.txt", "memory://bucket/symbols.txt"))
    assert here.fingerprint == there.fingerprint
    with pytest.raises(DataError, match="no tokenizer at memory://bucket/none"):
        open_tokenizer("char:memory://bucket/none")
