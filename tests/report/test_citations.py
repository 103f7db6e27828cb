"""What a run cites: BibTeX that BibTeX can read, of what was used and nothing else."""

import re
import textwrap
from typing import Any, ClassVar

import pytest

from lpe_eval.data.corpus import Corpus
from lpe_eval.model.encoding import Encoding
from lpe_eval.model.rope_scalings import AnyScaling
from lpe_eval.registry import CORPORA, ENCODINGS, PROBLEMS
from lpe_eval.report import sources
from lpe_eval.report.citations import Entry, entries, once_each, own_entry
from lpe_eval.report.sources import Citations
from lpe_eval.spec.che_spec import read_protocol
from lpe_eval.spec.tasks import read_task, task_names
from tests.support.bibtex import parsed


def citations(spec: dict[str, Any], provenance: dict[str, Any], rows: list[dict[str, Any]]) -> Citations:
    """Of everything that any kind of run cites."""
    found = [
        *sources.sources_of_methods(spec, provenance, rows),
        *sources.sources_of_problems(rows),
        *sources.sources_of_text(spec),
        *sources.sources_of_protocols(spec),
        *sources.sources_of_training(spec),
        *sources.sources_of_key_tokens(spec),
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
    assert cited({"kind": "ppl"}) == set() and cited({"kind": "ppl", "key_tokens": {"by": "self"}}) == {
        "fang2024longppl"
    }
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
            # The name of an organisation stands in braces of its own, so that BibTeX does not take it apart.
            names = fields["author"].split(" and ")
            assert all(", " in author or re.fullmatch(r"\{[\w ]+\}", author) for author in names), name
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
            assert fields["author"].lstrip("{").startswith(member.paper.split()[0]), name
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
