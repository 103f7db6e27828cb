"""`lpe-eval show`: a run told back, and BibTeX that BibTeX can read, of what was used and nothing else."""

import json
import re
import textwrap
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import yaml
from typer.testing import CliRunner

from lpe_eval import table
from lpe_eval.cli import app
from lpe_eval.data.corpus import Corpus
from lpe_eval.model.checkpoints.native import Native
from lpe_eval.model.encoding import Encoding
from lpe_eval.model.rope_scalings import AnyScaling
from lpe_eval.model.transformer import Transformer
from lpe_eval.registry import CORPORA, ENCODINGS, PROBLEMS
from lpe_eval.report import sources
from lpe_eval.report.citations import Entry, entries, once_each, own_entry
from lpe_eval.report.frames import csv_bytes
from lpe_eval.report.sources import Citations
from lpe_eval.spec.che_spec import read_protocol
from lpe_eval.spec.model_spec import CheckpointSpec
from lpe_eval.spec.tasks import read_task, task_names

SHAPE = {"width": 16, "layers": 1, "heads": 2, "mlp_width": 32, "train_length": 32}
SIZES = ("--width", "16", "--layers", "1", "--heads", "2")
TRAIN = ("--steps", "4", "--train-length", "32", "--batch-tokens", "64", *SIZES)


def lpe_eval(*arguments: object, code: int = 0) -> str:
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(each) for each in arguments])
    assert result.exit_code == code, result.output + repr(result.exception)
    assert code == 0 or result.stdout == ""
    return result.stdout if code == 0 else result.stderr


def parsed(text: str) -> dict[str, dict[str, str]]:
    """A strict reading: `@misc{key, name = {balanced}, ...}` and blank lines, nothing else."""
    found: dict[str, dict[str, str]] = {}
    rest = text.strip()
    while rest:
        head = re.match(r"@misc\{([a-z0-9_\-]+),\s*", rest)
        assert head, rest[:60]
        assert head[1] not in found, "a key stands twice"
        fields, rest = {}, rest[head.end() :]
        while not rest.startswith("}"):
            name = re.match(r"([a-zA-Z]+) = \{", rest)
            assert name and name[1] not in fields, rest[:60]
            depth, at = 1, name.end()
            while depth:
                depth += {"{": 1, "}": -1}.get(rest[at], 0)
                at += 1
            fields[name[1]] = " ".join(rest[name.end() : at - 1].split())
            after = re.match(r",\s*", rest[at:])
            assert after, rest[at : at + 20]
            rest = rest[at + after.end() :]
        found[head[1]], rest = fields, rest[1:].strip()
    return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run of each kind, and the text and model they were made of."""
    root = tmp_path_factory.mktemp("runs")
    (root / "text").mkdir()
    for split in ("train", "valid"):
        (root / "text" / f"{split}.txt").write_text(" ".join(f"word{(each * each) % 91}" for each in range(200)))
    for encoding in ("dape(kerple_log)", "learned"):
        spec = CheckpointSpec.model_validate({"schema": 1, "name": encoding, "model": {"encoding": encoding, **SHAPE}})
        model = Transformer(spec.model)
        model.initialise(torch.Generator().manual_seed(0))
        Native.save(model, spec, root / encoding[:4], torch.float32)
    text = ("--data", root / "text" / "train.txt", "--lengths", "32,64", "--max-tokens", 400)
    models = ("-m", f"first={root / 'dape'}", "-m", root / "lear")
    lpe_eval("ppl", *models, *text, "--protocol", "nonoverlap,last", "--last-k", 8, "--out", root / "ppl", "-q")
    lpe_eval("train", "--encoding", "alibi", "--corpus", root / "text", *TRAIN, "--out", root / "train", "-q")
    speed = ("--encoding", "rope,fire", "--lengths", 16, "--mode", "forward", *SIZES)
    lpe_eval("speed", *speed, "--out", root / "speed", "-q")
    return root


def test_a_perplexity_run_is_told_with_its_models_and_its_values(runs: Path):
    told = lpe_eval("show", runs / "ppl")
    known = json.loads((runs / "ppl" / "provenance.json").read_text())
    for part in (
        *("perplexity", known["run"], "custom", "nonoverlap, last (last_k 8)", "32, 64", "400 tokens", "1 documents"),
        *("18 ok", "6 n/a", "tokens a second", "MiB", "float32", "documents and positions 0", "not asked for"),
        *("dape(kerple_log)", "learned", "first", known["models"]["first"]["digest"][:12], *known["attention"]),
        (known["environment"]["source"]["commit"] or "no commit")[:12],
    ):
        assert part in told, part
    assert "n/a: learned at" in told


def test_a_training_and_a_speed_measurement_are_told_too(runs: Path):
    training = lpe_eval("show", runs / "train")
    known = json.loads((runs / "train" / "provenance.json").read_text())
    for part in ("a training", "alibi: 1 layers, width 16", "4 of 64 tokens", known["checkpoint_digest"], "finished"):
        assert part in training, part
    assert known["corpus"]["train"] in training and "valid_nll_nats" in training
    speed = lpe_eval("show", runs / "speed")
    for part in ("speed", "forward", "rounds", "sdpa", "times plain", "3 ok"):
        assert part in speed, part


def test_the_spec_is_printed_as_it_is(runs: Path):
    for kind in ("ppl", "train", "speed"):
        assert lpe_eval("show", runs / kind, "--spec") == (runs / kind / "spec.yaml").read_text()
    assert "choose one" in lpe_eval("show", runs / "ppl", "--spec", "--cite", code=2)


def test_a_folder_that_is_no_run_is_answered_with_one_sentence(tmp_path: Path):
    assert "there is no folder" in lpe_eval("show", tmp_path / "absent", code=2)
    (tmp_path / "file").write_text("")
    assert "there is no folder" in lpe_eval("show", tmp_path / "file", code=2)
    assert "holds no run" in lpe_eval("show", tmp_path, code=2)
    (tmp_path / "spec.yaml").write_text("kind: breakfast\n")
    assert "holds no run" in lpe_eval("show", tmp_path, code=2)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("provenance.json", "{", "provenance.json is not JSON"),
        ("provenance.json", "[]", "provenance.json holds no mapping"),
        ("provenance.json", '{"models": 3}', "this program did not write"),
        ("provenance.json", '{"starts": [{"seconds": "soon"}]}', "this program did not write"),
        ("spec.yaml", "kind: [", "spec.yaml is not YAML"),
        ("spec.yaml", "kind: ppl\nprotocols: 3\n", "this program did not write"),
        ("run.json", '{"run": "x", "schema": 99}', "newer lpe-eval"),
        ("rows.csv", "a,b\n", "does not have the columns"),
    ],
)
def test_a_damaged_run_is_answered_with_one_sentence(runs, tmp_path, name, content, sentence):
    for each in ("spec.yaml", "provenance.json", "run.json", "rows.csv"):
        (tmp_path / each).write_bytes((runs / "ppl" / each).read_bytes())
    (tmp_path / name).write_text(content)
    told = lpe_eval("show", tmp_path, code=1)
    assert sentence in " ".join(told.split()) and told.count("\n") == 1


def test_a_run_of_an_earlier_version_and_one_that_has_hardly_begun_are_told(runs: Path, tmp_path: Path):
    (tmp_path / "spec.yaml").write_bytes((runs / "ppl" / "spec.yaml").read_bytes())
    result = CliRunner().invoke(app, ["show", str(tmp_path)])
    assert result.exit_code == 0 and "nothing has been finished" in result.stderr
    (tmp_path / "rows.csv").write_bytes((runs / "ppl" / "rows.csv").read_bytes())
    old = {"environment": {"lpe_eval": "0.1.0", "source": None, "device": "a lathe"}, "seconds": 75.0, "models": {}}
    (tmp_path / "provenance.json").write_text(json.dumps(old))
    told = lpe_eval("show", tmp_path)
    assert "0.1.0, no commit" in told and "a lathe" in told and "1:15" in told
    keys = parsed(lpe_eval("show", tmp_path, "--cite")).keys()
    assert {"zheng2024dape", "chi2022kerple", "gehring2017convs2s"} < keys


def test_only_what_was_used_is_cited_and_each_once(runs: Path):
    always = {"lpe_eval"}
    perplexity = parsed(lpe_eval("show", runs / "ppl", "--cite"))
    # dape and the protocol `last` come from one paper; nonoverlap from alibi's.
    assert perplexity.keys() == always | {"zheng2024dape", "chi2022kerple", "gehring2017convs2s", "press2021alibi"}
    assert parsed(lpe_eval("show", runs / "train", "--cite")).keys() == always | {"press2021alibi"}
    assert parsed(lpe_eval("show", runs / "speed", "--cite")).keys() == always | {"su2021roformer", "li2023fire"}
    known = json.loads((runs / "ppl" / "provenance.json").read_text())
    own = perplexity["lpe_eval"]
    assert known["environment"]["lpe_eval"] in own["note"] and own["year"] == known["starts"][0]["began"][:4]


def citations(spec: dict[str, Any], provenance: dict[str, Any], rows: list[dict[str, Any]]) -> Citations:
    """Of everything that any kind of run cites."""
    found = [
        *sources.sources_of_methods(spec, provenance, rows),
        *sources.sources_of_problems(rows),
        *sources.sources_of_text(spec),
        *sources.sources_of_protocols(spec),
        *sources.sources_of_training(spec),
    ]
    return sources.citations(found, provenance)


def cited(spec: dict[str, Any] | None = None, rows: list[dict[str, Any]] | None = None, **opened: Any) -> set[str]:
    provenance = {"models": {"m": {"opened": opened}}} if opened else {}
    found = citations(spec or {}, provenance, rows or [])
    return {entry.key for entry in found.entries if entry.key != "lpe_eval"}


def test_options_bring_in_the_papers_they_come_from():
    yarn = {"name": "rope", "scaling": {"type": "yarn", "factor": 4}}
    assert cited(encoding="rope", encoding_options=yarn) == {"su2021roformer", "peng2023yarn"}
    assert cited(encoding="rope", encoding_options={"name": "rope"}) == {"su2021roformer"}
    kernels = {"name": "mep", "kernels": ["gaussian", ["kerple_log", "t5"]]}
    assert cited({"model": {"encoding": kernels}}) == {"gao2024mep", "chi2022kerple", "raffel2019t5"}
    assert cited({"encodings": ["mep"]}) == {"gao2024mep", "press2021alibi"}


def test_labels_of_other_programs_models_are_understood():
    assert cited(rows=[{"encoding": "rope(yarn)"}]) == {"su2021roformer", "peng2023yarn"}
    assert cited(rows=[{"encoding": "rope(linear)+none"}]) == {
        "su2021roformer", "chen2023interpolation", "kazemnejad2023nope",
    }  # fmt: skip
    found = citations({}, {}, [{"encoding": "abacus"}])
    assert [entry.key for entry in found.entries] == ["lpe_eval"] and "abacus" in found.missing[0]


def test_every_scaling_is_cited_under_its_name_or_known_to_have_no_paper():
    known = ENCODINGS.load("rope").bibtex_with.keys()
    names = {each.model_fields["type"].default for each in AnyScaling.__origin__.__args__}
    assert names - known == {"llama3"}


def task_spec(name: str, **changes: Any) -> dict[str, Any]:
    return {"task": name, **read_task(name).model_dump(mode="json"), **changes}


def test_text_and_protocol_of_a_task_are_cited_where_they_were_used():
    assert cited(task_spec("pg19")) == {"rae2019pg19", "peng2023yarn", "press2021alibi"}
    assert cited(task_spec("pg19", protocols=[{"name": "anchored", "last_k": 8}])) == {"rae2019pg19"}
    assert cited(task_spec("wikitext-2", protocols=[])) == {"merity2016wikitext"}
    own_data = {"task": "custom", "corpus": {"name": "hub", "path": "allenai/c4"}, "protocols": []}
    assert cited(own_data) == {"raffel2019t5"}
    unknown = citations({"corpus": {"name": "hub", "path": "someone/something"}}, {}, [])
    assert "someone/something" in unknown.missing[0]
    assert not citations({"corpus": {"name": "local", "path": "notes.txt"}}, {}, []).missing


def test_problems_are_cited_by_their_class():
    assert cited(rows=[{"task": "parity_check", "level": "regular", "encoding": "none"}]) == {
        "deletang2022chomsky", "ruoss2023randomized", "kazemnejad2023nope",
    }  # fmt: skip


def test_a_protocol_of_problems_is_cited_where_its_paper_is_another_than_the_problems():
    rows = [{"task": "parity_check", "level": "regular", "encoding": "none"}]
    plain = {"deletang2022chomsky", "ruoss2023randomized", "kazemnejad2023nope"}
    for name, more in {"deepmind": set(), "quick": set(), "dape": {"zheng2024dape"}}.items():
        assert cited({"protocol": read_protocol(name).model_dump(mode="json")}, rows=rows) == plain | more


MEMBERS: list[tuple[str, type[Any]]] = [
    (name, room.load(name)) for room in (ENCODINGS, CORPORA, PROBLEMS) for name in room.names()
]


def every_bibtex() -> list[tuple[str, str]]:
    found = [(name, member.bibtex) for name, member in MEMBERS]
    found += [
        (name, text) for name, member in MEMBERS if issubclass(member, Encoding) for text in member.bibtex_with.values()
    ]
    tasks = [read_task(name) for name in task_names()]
    return found + [(task.name, text) for task in tasks for text in (task.protocol_bibtex, task.text_bibtex)]


def test_every_entry_is_bibtex_with_the_year_of_its_eprint_and_one_text_for_one_key():
    texts: dict[str, str] = {}
    for name, bibtex in every_bibtex():
        for key, text in entries(bibtex):
            assert texts.setdefault(key, text) == text, f"{name} has another text for {key}"
            (fields,) = parsed(text).values()
            assert {"title", "author", "year"} <= fields.keys(), name
            assert all(", " in author for author in fields["author"].split(" and ")), name
            assert text.isascii(), "BibTeX's own way to write an accent is understood everywhere"
            if "eprint" in fields:
                assert fields["archivePrefix"] == "arXiv" and fields["year"] == f"20{fields['eprint'][:2]}", name
    assert len(texts) >= 24


def test_every_encoding_with_a_paper_has_that_paper_as_bibtex_and_every_problem_has_both():
    for name, member in MEMBERS:
        if issubclass(member, Encoding) and "arXiv" in member.paper:
            (fields,) = parsed(textwrap.dedent(member.bibtex)).values()
            year, number = re.fullmatch(r".* (\d{4}), arXiv ([\d.]+)", member.paper).groups()
            assert fields["eprint"] == number and 0 <= int(year) - int(fields["year"]) <= 1, name
            assert fields["author"].startswith(member.paper.split()[0]), name
        if name in PROBLEMS.names():
            assert [entry.key for entry in entries(member.bibtex)] == ["deletang2022chomsky", "ruoss2023randomized"]


class Paperless(Encoding):
    title = "Paperless"


class Careless(Encoding):
    bibtex: ClassVar[str] = "@misc{never, title = {closed"


class Namesake(Encoding):
    bibtex: ClassVar[str] = "@misc{press2021alibi, title = {Another}, author = {Press, O.}, year = {2021}}"


class Poem(Corpus):
    bibtex: ClassVar[str] = "@book{poem, title = {A {P}oem}, author = {Poet, A.}, year = {1900}}"


def test_members_of_third_parties_are_cited_like_ours(monkeypatch: pytest.MonkeyPatch):
    own, text = ENCODINGS.load, CORPORA.load
    named = {"paperless": Paperless, "careless": Careless, "namesake": Namesake}
    monkeypatch.setattr(type(ENCODINGS), "load", lambda room, name: named.get(name) or {"poem": Poem}.get(name) or (
        own if room is ENCODINGS else text)(name))  # fmt: skip
    spec = {"encodings": ["alibi", "paperless", "careless", "namesake"], "corpus": {"name": "poem"}}
    found = citations(spec, {}, [])
    assert [entry.key for entry in found.entries] == ["lpe_eval", "press2021alibi", "press2021alibi-2", "poem"]
    assert any("paperless" in each and "no entry" in each for each in found.missing)
    assert any("careless" in each and "never closed" in each for each in found.missing)


def test_an_encoding_that_is_no_longer_installed_is_said():
    (sentence,) = citations({"model": {"encoding": "gone(alibi)"}}, {}, []).missing
    assert "gone" in sentence and "not installed" in sentence
    assert cited({"model": {"encoding": "gone(alibi)"}}) == {"press2021alibi"}


def test_entries_are_taken_apart_at_their_braces():
    text = "words\n  @Misc{ a1 ,\n    title = {x {y} z},\n  }\nmore @book{b, year = 1}"
    assert [entry.key for entry in entries(text)] == ["a1", "b"]
    assert entries(text)[1].text == "@book{b, year = 1}" and entries("") == []
    for wrong in ("@misc{}", "@{a, }", "@misc{a b, }", "mail@example.org"):
        with pytest.raises(ValueError, match="no BibTeX entry"):
            entries(wrong)


def test_an_entry_is_kept_once_and_a_taken_key_is_made_new():
    one, same, other = (
        Entry("k", "@misc{k, a = {1}}"),
        Entry("k", "@misc{k,\n  a = {1}}"),
        Entry("k", "@misc{k, a = {2}}"),
    )
    assert once_each([one, same, other, other, one]) == [one, Entry("k-2", "@misc{k-2, a = {2}}")]


def test_our_own_entry_says_only_what_is_known():
    assert parsed(own_entry("1.2", None, None).text)["lpe_eval"]["note"] == "Version 1.2"
    full = parsed(own_entry("1.2", "c0ffee" * 7, "2026-11-21T00:00:00+00:00").text)["lpe_eval"]
    assert full["note"] == "Version 1.2, commit c0ffeec0ffee" and full["year"] == "2026"


def test_a_run_on_algorithmic_problems_is_told_and_cited_from_its_tables(tmp_path: Path):
    (tmp_path / "spec.yaml").write_text("kind: che\nencodings: [{name: alibi}]\n")
    values = {"task": "parity_check", "task_version": 1, "level": "regular", "encoding": "alibi", "status": "ok"}
    values |= {"metric": "accuracy", "value": 0.75, "in_range": 0}
    row = [values.get(column.name, 1 if column.kind != "string" else "x") for column in table.CHE]
    (tmp_path / "che.csv").write_bytes(csv_bytes(table.CHE, [row]))
    told = lpe_eval("show", tmp_path)
    for part in ("algorithmic problems", "parity_check v1", "alibi", "1 ok", "accuracy", "75.0"):
        assert part in told, part
    keys = parsed(lpe_eval("show", tmp_path, "--cite")).keys()
    assert keys == {"lpe_eval", "press2021alibi", "deletang2022chomsky", "ruoss2023randomized"}


def test_the_spec_of_a_run_can_be_run_again(runs: Path, tmp_path: Path):
    (tmp_path / "again.yaml").write_text(lpe_eval("show", runs / "ppl", "--spec"))
    lpe_eval("run", tmp_path / "again.yaml", "--out", tmp_path / "again", "-q")
    assert (tmp_path / "again" / "rows.csv").read_bytes() == (runs / "ppl" / "rows.csv").read_bytes()
    assert yaml.safe_load((tmp_path / "again.yaml").read_text())["kind"] == "ppl"
