"""How much of the far context a model uses: repeated text, hidden needles, and keys with values."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from lpe_eval.errors import SpecError
from lpe_eval.records import ItemKey
from lpe_eval.report.figures.recall import draw_recall
from lpe_eval.report.folders.recall import EFFECTIVE, EFFECTIVE_LENGTH, RECALL, RECALL_KEYS
from lpe_eval.report.folders.recall_scores import effective_records, recalled
from lpe_eval.report.frames import csv_bytes
from lpe_eval.report.gate.joining import Judged
from lpe_eval.report.gate.recall_rows import judged_recall_rows
from lpe_eval.report.kind import Found, Kind
from lpe_eval.report.page.of_recall import recall_charts
from lpe_eval.report.page.parts import Chart, HeatMap
from lpe_eval.report.sources import Source, sources_of_methods, sources_of_text
from lpe_eval.report.tables.provenance import several
from lpe_eval.report.tables.recall import recall_tables
from lpe_eval.screen import Table
from lpe_eval.spec.recall_spec import RecallSpec

_ANSWERED = ("value_nats", "gain_nats", "accuracy", "rank", "choice_nats")
_MORE_IS_BETTER = ("gain_nats", "accuracy", "exact_match")
_METRICS = {
    "repeat": ("copy_nats", "control_nats", "gain_nats", "accuracy", "control_accuracy"),
    "niah_single_1": (*_ANSWERED, "exact_match"),
}
"""Of a test whose values are not told from candidates, or not from them alone."""

_BIBTEX = {
    "repeat": r"""
    @misc{jelassi2024repeat,
      title = {{Repeat After Me: Transformers are Better than State Space Models at Copying}},
      author = {Jelassi, Samy and Brandfonbrener, David and Kakade, Sham M. and Malach, Eran},
      year = {2024},
      eprint = {2402.01032},
      archivePrefix = {arXiv},
    }
""",
    "needle": r"""
    @misc{hsieh2024ruler,
      title = {{RULER: What's the Real Context Size of Your Long-Context Language Models?}},
      author = {Hsieh, Cheng-Ping and Sun, Simeng and Kriman, Samuel and Acharya, Shantanu and Rekesh, Dima
        and Jia, Fei and Zhang, Yang and Ginsburg, Boris},
      year = {2024},
      eprint = {2404.06654},
      archivePrefix = {arXiv},
    }
""",
    "pairs": r"""
    @misc{arora2023zoology,
      title = {{Zoology: Measuring and Improving Recall in Efficient Language Models}},
      author = {Arora, Simran and Eyuboglu, Sabri and Timalsina, Aman and Johnson, Isys and Poli, Michael
        and Zou, James and Rudra, Atri and R{\'e}, Christopher},
      year = {2023},
      eprint = {2312.04927},
      archivePrefix = {arXiv},
    }
""",
    "share": r"""
    @misc{modarressi2025nolima,
      title = {{NoLiMa: Long-Context Evaluation Beyond Literal Matching}},
      author = {Modarressi, Ali and Deilamsalehy, Hanieh and Dernoncourt, Franck and Bui, Trung and
        Rossi, Ryan A. and Yoon, Seunghyun and Sch{\"u}tze, Hinrich},
      year = {2025},
      eprint = {2502.05167},
      archivePrefix = {arXiv},
    }
""",
}


class Recall(Kind):
    """See the module's docstring."""

    name = "recall"
    title = "recall of the far context"
    spec = RecallSpec
    columns = RECALL
    further = RECALL_KEYS
    worse_is = {"gain_nats": -1, "recalled_length": -1}
    made = (EFFECTIVE_LENGTH,)

    @classmethod
    def metrics(cls, key: ItemKey) -> Sequence[str]:
        task = str(key.further[0])
        return _METRICS.get(task.partition("-")[0], _ANSWERED)

    @classmethod
    def direction(cls, metric: str) -> int | None:
        return -1 if metric in _MORE_IS_BETTER else None

    @classmethod
    def judged_metrics(cls, key: ItemKey) -> Sequence[str]:
        _, _, depth = key.further
        return ("gain_nats",) if depth is None else ()

    @classmethod
    def further_files(cls, found: Found) -> dict[str, bytes]:
        lines = effective_records(recalled(found.path, found.rows, found.spec))
        return {EFFECTIVE_LENGTH: csv_bytes(EFFECTIVE, lines)}

    @classmethod
    def cells(cls, found: Found) -> tuple[Sequence[str], int]:
        many = [len(found.spec[name]) for name in ("models", "tests", "lengths")]
        return ("model", "task", "length"), many[0] * many[1] * many[2]

    @classmethod
    def about(cls, found: Found) -> list[tuple[str, str]]:
        spec = found.spec
        named = [("models", several(spec["models"])), ("lengths", several(spec["lengths"]))]
        tests = {
            "repeat": f"passages of {spec['passages']}, {spec['repeat_tokens']} tokens in pieces of {spec['piece']}",
            "needle": f"{spec['needle']}, at {several(spec['depths'])} % of the text, {spec['prompts']} prompts",
            "pairs": f"{spec['n_pairs']} pairs of {spec['pairs']}, {spec['prompts']} prompts",
        }
        return [*named, *((test, tests[test]) for test in spec["tests"])]

    @classmethod
    def values(cls, found: Found) -> list[Table]:
        return recall_tables(found.rows, recalled(found.path, found.rows, found.spec)) if found.rows else []

    @classmethod
    def draw(cls, folders: Sequence[Found], out: Path) -> list[Path]:
        if any(each.spec.get("depths") != folders[0].spec.get("depths") for each in folders):
            raise SpecError("these runs hid needles at other depths; draw them one by one")
        return draw_recall([row for each in folders for row in each.rows], out)

    @classmethod
    def charts(cls, folders: Sequence[Found]) -> list[Chart | HeatMap]:
        return recall_charts([row for each in folders for row in each.rows])

    @classmethod
    def judged_rows(cls, found: Found, source: str) -> list[Judged]:
        return judged_recall_rows(found.path, found.rows, found.provenance, found.spec, source)

    @classmethod
    def sources(cls, found: Found) -> Iterator[Source]:
        yield from sources_of_methods(found.spec, found.provenance, found.rows)
        yield from sources_of_text(found.spec)
        for test in found.spec["tests"]:
            yield Source(f"the test {test}", _BIBTEX[test])
        if found.spec.get("least") is None:
            yield Source("the rule of effective length", _BIBTEX["share"])
        elif "needle" not in found.spec["tests"]:
            yield Source("the rule of effective length", _BIBTEX["needle"])
