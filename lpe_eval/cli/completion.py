"""What a shell is offered while somebody types: names, looked up without importing anything heavy.

Paths are left to the shell, which is asked only where nothing is offered here; folders are offered where they are what
is wanted: checkpoints and runs. Of a list with commas the last part is completed, and of `dape(ker` what stands
inside.

Choices:
    * bash begins a new word at `:` and `=`, so behind `hf:` it asks for the rest alone.
    * Names are offered with dashes where dashes are typed; commands take either.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import typer

from lpe_eval.registry import ATTENTIONS, CORPORA, ENCODINGS, EXPORTERS, KINDS, PROBLEMS, TRACKERS
from lpe_eval.spec.released import baseline_names, released_encoders, released_names
from lpe_eval.spec.task_files import problem_task_names, protocol_names, task_names

Completer = Callable[[str], list[str]]

_PARTS = ",("
_RUNS = Path("results/runs")
_RUN, _CHECKPOINT = ("run.json",), ("config.yaml", "config.json", "adapter_config.json")
_MOST = 200
"""Folders that are looked into."""
_PREFIXES = ("hf:", "native:", "neox:", "fairseq:", "py:")
_TOKENIZERS = ("bytes", "char:", "hf:", "bpe:", "fairseq_dict:", "py:")
_CUTTING = ("nonoverlap", "sliding", "last", "anchored")
_WHAT = (
    *("encodings", "checkpoints", "encoders", "tasks", "problems", "protocols", "corpora", "tokenizers", "formats"),
    *("attentions", "baselines", "kinds", "fields", "columns"),
)


def models(incomplete: str) -> list[str]:
    """Language models: released ones, prefixes of formats, folders that hold a checkpoint."""
    return _fitting(incomplete, ["all", *released_names(), *_PREFIXES, *_folders(incomplete, _CHECKPOINT)])


def encoders(incomplete: str) -> list[str]:
    """Encoders of algorithmic problems: released ones, and folders that hold some or a run that trained some."""
    held = _folders(incomplete, (*_CHECKPOINT, "che.csv"))
    return _fitting(incomplete, ["all", *released_encoders(), *held])


def encodings(incomplete: str) -> list[str]:
    """Encodings, the last of a list and what another one wraps."""
    return _last(incomplete, ENCODINGS.names())


def tasks(incomplete: str) -> list[str]:
    """Perplexity tasks."""
    return _fitting(incomplete, task_names())


def problems(incomplete: str) -> list[str]:
    """Algorithmic problems, the last of a list."""
    return _last(incomplete, ["all", *sorted({*problem_task_names(), *PROBLEMS.names()})])


def cutting(incomplete: str) -> list[str]:
    """Protocols of text, the last of a list."""
    return _last(incomplete, _CUTTING)


def trainings(incomplete: str) -> list[str]:
    """Protocols of algorithmic problems."""
    return _fitting(incomplete, protocol_names())


def corpora(incomplete: str) -> list[str]:
    """Kinds of text that have a name, and the prefix of the Hub; files and folders are the shell's."""
    named = [name.replace("_", "-") for name in CORPORA.names() if name not in ("local", "hub", "tokenized_bin")]
    return _fitting(incomplete, [*named, "hub:"])


def tokenizers(incomplete: str) -> list[str]:
    """Kinds of tokenizers, those with a file behind them up to the colon."""
    return _fitting(incomplete, _TOKENIZERS)


def attentions(incomplete: str) -> list[str]:
    """Attention paths."""
    return _fitting(incomplete, ["auto", *ATTENTIONS.names()])


def baselines(incomplete: str) -> list[str]:
    """Baselines by name, and folders of runs where a path is typed."""
    return _fitting(incomplete, [*baseline_names(), *(_folders(incomplete, _RUN) if "/" in incomplete else [])])


def runs(incomplete: str) -> list[str]:
    """Folders that hold a run: those where one is typing, and below `results/runs`."""
    return _fitting(incomplete, [*_folders(incomplete, _RUN), *_folders(f"{_RUNS.as_posix()}/", _RUN)])


def devices(incomplete: str) -> list[str]:
    """Devices that PyTorch may have."""
    return _fitting(incomplete, ("auto", "cpu", "cuda", "mps"))


def precisions(incomplete: str) -> list[str]:
    """Types of numbers."""
    return _fitting(incomplete, ("auto", "float32", "bfloat16", "float16"))


def bos(incomplete: str) -> list[str]:
    """Which windows begin with BOS."""
    return _fitting(incomplete, ("auto", "always", "first-window", "never"))


def tails(incomplete: str) -> list[str]:
    """What becomes of the last window."""
    return _fitting(incomplete, ("score", "drop"))


def modes(incomplete: str) -> list[str]:
    """What is timed, the last of a list."""
    return _last(incomplete, ("forward", "train"))


def forms(incomplete: str) -> list[str]:
    """Forms of a table."""
    return _fitting(incomplete, ("table", "markdown", "latex"))


def all_forms(incomplete: str) -> list[str]:
    """Forms of a table, and of the stored rows behind it."""
    return _fitting(incomplete, ("table", "markdown", "latex", "csv", "json"))


def columns(incomplete: str) -> list[str]:
    """Columns of the usual tables, the last of a list."""
    from lpe_eval import table

    return _last(incomplete, [*dict.fromkeys(each.name for each in (*table.ROWS, *table.CHE, *table.SPEED))])


def exports(incomplete: str) -> list[str]:
    """Formats of `export`."""
    return _fitting(incomplete, [name.replace("_", "-") for name in EXPORTERS.names()])


def trackers(incomplete: str) -> list[str]:
    """Trackers of experiments."""
    return _fitting(incomplete, TRACKERS.names())


def listings(incomplete: str) -> list[str]:
    """What `list` knows."""
    return _fitting(incomplete, _WHAT)


def members(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names in the list that was asked for."""
    match ctx.params.get("what"):
        case "encodings":
            return encodings(incomplete)
        case "checkpoints":
            return _fitting(incomplete, released_names())
        case "encoders":
            return _fitting(incomplete, released_encoders())
        case "tasks":
            return tasks(incomplete)
        case "problems":
            return _fitting(incomplete, problem_task_names())
        case "protocols":
            return _fitting(incomplete, [*_CUTTING, *protocol_names()])
        case "baselines":
            return _fitting(incomplete, baseline_names())
        case "fields" | "kinds":
            return _fitting(incomplete, KINDS.names())
        case _:
            return []


def allowed(incomplete: str) -> list[str]:
    """What may differ from a baseline, the last of a list."""
    return _last(incomplete, ("task", "protocol", "tokenizer", "dtype", "seed", "missing"))


def _fitting(incomplete: str, names: Iterable[str]) -> list[str]:
    """The names that go on as what is typed, each once, in their order."""
    spelled = (name.replace("_", "-") if "-" in incomplete and "/" not in name else name for name in names)
    return [name for name in dict.fromkeys(spelled) if name.startswith(incomplete)]


def _last(incomplete: str, names: Iterable[str]) -> list[str]:
    """The same for the last part of a list; names that stand in the list before it are not offered again."""
    cut = 1 + max(incomplete.rfind(mark) for mark in _PARTS)
    head, last = incomplete[:cut], incomplete[cut:]
    taken = set(head.split(",")) if "(" not in head else set()
    return [head + name for name in _fitting(last, names) if name not in taken]


def _folders(incomplete: str, holding: tuple[str, ...]) -> Iterator[str]:
    """Folders beside what is typed that hold one of these files."""
    place = incomplete.rpartition("/")[0]
    try:
        inside = sorted(Path(place or ("/" if incomplete.startswith("/") else ".")).expanduser().iterdir())
    except (OSError, RuntimeError, ValueError):
        return
    seen = 0
    for each in inside:
        typed = f"{place}/{each.name}" if place or incomplete.startswith("/") else each.name
        if seen >= _MOST or not typed.startswith(incomplete) or each.name.startswith("."):
            continue
        seen += 1
        if any((each / name).is_file() for name in holding):
            yield typed
