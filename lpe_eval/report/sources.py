"""Whose work a run used: BibTeX of methods, texts and protocols, each told by the member that it is about.

Encodings, corpora and problems have `bibtex`, tasks have `protocol_bibtex` and `text_bibtex`. So a member of a third
party is cited like one of ours, and an entry is printed only where the run used its member.

Choices:
    * `nonoverlap` and `sliding` are told, by these names, in ALiBi's paper, and `last` is DAPE's. `anchored` is
      this program's own. A task whose protocol comes from another paper adds it, unless the run was asked for
      protocols that are none of the task's.
    * A corpus of the Hub is known by its id: where a task of ours has the same one, its text's entry serves.
    * A released checkpoint has no entry of its own: it comes with the program.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from lpe_eval.errors import LpeEvalError
from lpe_eval.registry import CORPORA, ENCODINGS, PROBLEMS, Room
from lpe_eval.report.citations import Entry, entries, once_each, own_entry, texts_in
from lpe_eval.spec.encoding_spec import EncodingSpec
from lpe_eval.spec.protocol_spec import ProtocolSpec
from lpe_eval.spec.task_files import task_names
from lpe_eval.spec.tasks import PerplexityTask, read_task
from lpe_eval.table import OPTIMUM

_TOLD_WITH = {"nonoverlap": "alibi", "sliding": "alibi", "last": "dape"}
"""The encoding whose paper a protocol comes from."""

_TRAINED_WITH = {"dape": "dape"}
"""The same for how encoders of problems are trained; `deepmind` is of the paper that every problem cites."""

_KEY_TOKENS = """
    @misc{fang2024longppl,
      title = {{What is Wrong with Perplexity for Long-context Language Modeling?}},
      author = {Fang, Lizhe and Wang, Yifei and Liu, Zhaoyang and Zhang, Chenheng and Jegelka, Stefanie and Gao, Jinyang
        and Ding, Bolin and Wang, Yisen},
      year = {2024},
      eprint = {2410.23771},
      archivePrefix = {arXiv},
    }
"""

_WORD = re.compile(r"[A-Za-z][\w-]*")


class Citations(NamedTuple):
    """BibTeX, and what it does not cover."""

    entries: list[Entry]
    missing: list[str]
    """One sentence for each thing used that nobody has given an entry."""


class Source(NamedTuple):
    """Something that a run used.

    Attributes:
        what: told where it has no entry.
        bibtex: entries; "" where nobody has given one.
    """

    what: str
    bibtex: str


def citations(sources: Iterable[Source], provenance: Mapping[str, Any]) -> Citations:
    """Each entry once, that of this program first.

    Args:
        sources: what the run used.
        provenance: of the run, possibly empty.
    """
    found: list[Entry] = [_program(provenance)]
    missing: list[str] = []
    for what, bibtex in sources:
        try:
            own = entries(bibtex)
        except ValueError as error:
            missing.append(f"the entry of {what} is left out: {error}")
            continue
        if not own:
            missing.append(f"there is no entry for {what}; see where it comes from")
        found += own
    return Citations(once_each(found), list(dict.fromkeys(missing)))


def _program(provenance: Mapping[str, Any]) -> Entry:
    here, starts = provenance.get("environment") or {}, provenance.get("starts") or [{}]
    commit = (here.get("source") or {}).get("commit")
    return own_entry(str(here.get("lpe_eval", "unknown")), commit, starts[0].get("began"))


def sources_of_methods(
    spec: Mapping[str, Any], provenance: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> Iterator[Source]:
    """The encodings of all models, with their options where these are known and by their label where not."""
    opened = [facts.get("opened") or {} for facts in (provenance.get("models") or {}).values()]
    known = [facts["encoding_options"] for facts in opened if facts.get("encoding_options")]
    model = spec.get("model")
    known += [*spec.get("encodings", []), *([model["encoding"]] if isinstance(model, Mapping) else [])]
    labelled_by_options = {facts.get("encoding") for facts in opened if facts.get("encoding_options")}
    # The unit of a speed measurement is the absence of an encoding and no method, and the best guess is no model.
    labels = {str(row["encoding"]) for row in rows if row.get("encoding")} - {"plain", OPTIMUM}
    for encoding in known:
        for each in EncodingSpec.model_validate(encoding).methods():
            yield from _encoding(each)
    labelled = {str(EncodingSpec.model_validate(encoding)) for encoding in known}
    for label in sorted(labels - labelled_by_options - labelled):
        yield from _label(label)


def _encoding(spec: EncodingSpec) -> Iterator[Source]:
    try:
        member = ENCODINGS.load(spec.name)
        words = texts_in(member.Options(**spec.options).model_dump())
    except (LpeEvalError, ValueError, TypeError):
        yield Source(f"the encoding {spec.name}, which is not installed as it was,", "")
    else:
        yield from _cited(member, spec.name, words)
    if spec.base is not None:
        yield from _encoding(spec.base)


def _label(label: str) -> Iterator[Source]:
    """By the label of a model whose options are another program's: `rope(yarn)`, `rope+none`."""
    words = _WORD.findall(label)
    members = {word: _member(ENCODINGS, word) for word in words}
    with_words = {key for member in members.values() if member is not None for key in member.bibtex_with}
    for word, member in members.items():
        if member is not None:
            yield from _cited(member, word, words)
        elif word not in with_words:
            yield Source(f"{word!r} (of {label})", "")


def _cited(member: Any, name: str, words: Iterable[str]) -> Iterator[Source]:
    brought_in = _brought_in(member, words)
    # Where each of its options has a paper of its own, the method itself has none.
    if member.bibtex or not brought_in:
        yield Source(f"the encoding {name}", member.bibtex)
    yield from (Source(f"{name} with {word}", found) for word, found in brought_in)


def _brought_in(member: Any, words: Iterable[str]) -> list[tuple[str, str]]:
    return [(word, member.bibtex_with[word]) for word in words if word in member.bibtex_with]


def sources_of_problems(rows: Sequence[Mapping[str, Any]]) -> Iterator[Source]:
    """The algorithmic problems of some rows."""
    for name in dict.fromkeys(str(row["task"]) for row in rows if "level" in row):
        member = _member(PROBLEMS, name)
        yield Source(f"the problem {name}", "" if member is None else member.bibtex)


def sources_of_text(spec: Mapping[str, Any]) -> Iterator[Source]:
    """The corpus."""
    corpus = spec.get("corpus")
    if not isinstance(corpus, Mapping):
        return
    name, path = str(corpus.get("name")), corpus.get("path")
    member = _member(CORPORA, name)
    own = "" if member is None else member.bibtex
    same = [task.text_bibtex for task in _tasks() if path is not None and task.corpus.path == path]
    # The interpreter's own library has no paper, nor have a user's own files, and `echo` is this program's own.
    if own or any(same) or name not in ("python_stdlib", "local", "tokenized_bin", "echo"):
        yield Source(f"the text {name if path is None else path}", own or next(filter(None, same), ""))


def sources_of_protocols(spec: Mapping[str, Any]) -> Iterator[Source]:
    """The protocols of perplexity, and those of the task."""
    used = [ProtocolSpec.model_validate(each) for each in spec.get("protocols", [])]
    for each in used:
        if each.name in _TOLD_WITH:
            yield Source(f"the protocol {each.name}", ENCODINGS.load(_TOLD_WITH[each.name]).bibtex)
    for task in _tasks():
        if task.name == spec.get("task") and task.protocol_bibtex and any(each in task.protocols for each in used):
            yield Source(f"the protocol of {task.name}", task.protocol_bibtex)


def sources_of_key_tokens(spec: Mapping[str, Any]) -> Iterator[Source]:
    """Perplexity of key tokens, where it was asked for."""
    if spec.get("key_tokens"):
        yield Source("the perplexity of key tokens", _KEY_TOKENS)


def sources_of_training(spec: Mapping[str, Any]) -> Iterator[Source]:
    """How encoders of problems are trained."""
    protocol = spec.get("protocol")
    name = protocol.get("name") if isinstance(protocol, Mapping) else None
    if name in _TRAINED_WITH:
        yield Source(f"the protocol {name}", ENCODINGS.load(_TRAINED_WITH[name]).bibtex)


def _tasks() -> list[PerplexityTask]:
    return [read_task(name) for name in task_names()]


def _member(room: Room, name: str) -> Any:
    try:
        return room.load(name)
    except LpeEvalError:
        return None
