"""Two outputs of lm-evaluation-harness, compared; what its own results say, and pairing by hand, are the oracles."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from lpe_eval.cli import app
from lpe_eval.commands.compare import compare, open_baselines, parse_rules
from lpe_eval.errors import OutputError, SpecError
from lpe_eval.report.gate.rules import Rules
from lpe_eval.report.importer import importer_of
from lpe_eval.report.importers.lm_eval import LmEval

GOLDEN = Path(__file__).parents[1] / "golden" / "lm_eval"
ONE, TWO = GOLDEN / "one", GOLDEN / "two"


def samples(folder: Path, task: str) -> list[dict[str, Any]]:
    (path,) = folder.rglob(f"samples_{task}_*.jsonl")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def results(folder: Path) -> dict[str, Any]:
    (path,) = folder.rglob("results_*.json")
    return json.loads(path.read_text(encoding="utf-8"))["results"]


@pytest.mark.parametrize("folder", [ONE, TWO], ids=["one", "two"])
def test_the_values_are_those_that_the_tool_reports(folder: Path):
    rows = {(row.row["metric"], row.row["protocol"]): row for row in LmEval.judged_rows(folder, "it")}
    told = results(folder)
    assert rows["nats of bytes", "pages"].row["value"] / math.log(2) == pytest.approx(
        told["pages"]["bits_per_byte,none"]
    )
    assert math.exp(rows["nats of targets", "ends"].row["value"]) == pytest.approx(told["ends"]["perplexity,none"])
    for task, score in (("choices", "acc"), ("choices", "acc_norm"), ("ends", "acc")):
        assert rows["accuracy", f"{task} {score}"].row["value"] == pytest.approx(told[task][f"{score},none"])
    assert len(rows) == 5 and all(row.row["length"] == 128 for row in rows.values())


def by_hand(one: list[tuple[float, int]], two: list[tuple[float, int]]) -> tuple[float, float]:
    """The difference of two ratios of totals over the same documents, and its standard error by linearisation."""
    (a, n), (b, m) = (np.array(side, dtype=float).T for side in (one, two))
    difference = a.sum() / n.sum() - b.sum() / m.sum()
    residual = (a - n * a.sum() / n.sum()) / n.sum() - (b - m * b.sum() / m.sum()) / m.sum()
    units = len(a)
    return difference, math.sqrt(units / (units - 1) * (residual**2).sum())


def test_the_verdicts_are_those_of_a_paired_computation_by_hand():
    found = compare(ONE, open_baselines([str(TWO)]), Rules())
    verdicts = {(each.metric, each.protocol): each for each in found.verdicts}
    assert len(verdicts) == 5 and all(each.common == 1.0 for each in verdicts.values())
    pairs = [[(-line["bits_per_byte"][0], line["bits_per_byte"][1]) for line in samples(side, "pages")]
             for side in (ONE, TWO)]  # fmt: skip
    ends = [[(-line["perplexity"], 1) for line in samples(side, "ends")] for side in (ONE, TWO)]
    for key, (new, old) in ((("nats of bytes", "pages"), pairs), (("nats of targets", "ends"), ends)):
        verdict, (difference, stderr) = verdicts[key], by_hand(new, old)
        level = sum(total for total, _ in old) / sum(count for _, count in old)
        assert verdict.change == pytest.approx(difference / level, rel=1e-9)
        assert verdict.stderr == pytest.approx(stderr / level, rel=0.1)
        assert verdict.units > 1 and verdict.method.startswith("paired-bootstrap-documents")
        # Beyond three and a bit standard errors, and beyond the tolerance, by the rule of the gate.
        assert (verdict.verdict == "worse") == (difference / level > verdict.allowed)
        assert (verdict.verdict == "better") == (difference / level < -verdict.allowed)
    right = [[line["acc"] for line in samples(side, "choices")] for side in (ONE, TWO)]
    accuracy = verdicts["accuracy", "choices acc"]
    assert accuracy.value - accuracy.baseline == pytest.approx(np.mean(right[0]) - np.mean(right[1]), abs=1e-12)
    assert accuracy.worse_is == -1 and accuracy.units == 24


def edited(folder: Path, out: Path, change: Any, task: str = "pages") -> Path:
    shutil.copytree(folder, out)
    (path,) = out.rglob(f"samples_{task}_*.jsonl")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for line in lines:
        change(line)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return out


def typed(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(each) for each in arguments], env={"COLUMNS": "200"})
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    return result.exit_code, " ".join(result.output.split())


def test_a_worse_output_ends_in_three_and_the_same_one_passes(tmp_path: Path):
    def harm(line: dict[str, Any]) -> None:
        for name in ("word_perplexity", "byte_perplexity", "bits_per_byte"):
            line[name][0] *= 1.05 + 0.001 * line["doc_id"]

    worse = edited(ONE, tmp_path / "worse", harm)
    code, said = typed("compare", worse, "--baseline", ONE, "--allow", "missing")
    assert code == 3 and "worse: ./one, pages" in said
    alike = compare(ONE, open_baselines([f"{ONE}/"]), Rules())
    assert {each.verdict for each in alike.verdicts if "nats" in each.metric} == {"same"}


def test_other_documents_are_left_out_and_other_prompts_refused(tmp_path: Path):
    def shift(line: dict[str, Any]) -> None:
        if line["doc_id"] < 2:
            line["doc_hash"] = f"other {line['doc_id']}"

    changed = edited(ONE, tmp_path / "changed", shift)
    verdicts = compare(changed, open_baselines([str(ONE)]), Rules()).verdicts
    pages = next(each for each in verdicts if each.protocol == "pages")
    assert pages.changed == 2 and pages.common < 1
    shots = tmp_path / "shots"
    shutil.copytree(ONE, shots)
    (path,) = shots.rglob("results_*.json")
    told = json.loads(path.read_text(encoding="utf-8"))
    told["n-shot"]["choices"] = 5
    path.write_text(json.dumps(told), encoding="utf-8")
    verdicts = compare(shots, open_baselines([str(ONE)]), Rules()).verdicts
    assert {each.verdict for each in verdicts if each.protocol.startswith("choices")} == {"not comparable"}
    allowed = parse_rules(0.0025, 3.0, ["protocol,seed"])
    verdicts = compare(shots, open_baselines([str(ONE)]), allowed).verdicts
    assert "not comparable" not in {each.verdict for each in verdicts}


def test_early_versions_and_filters_are_read(tmp_path: Path):
    """Without names of metrics and hashes, as a list, and without results; and two filters of one task."""

    def old(line: dict[str, Any]) -> None:
        for name in ("doc_hash", "prompt_hash", "target_hash", "metrics", "filter"):
            line.pop(name)

    early = edited(ONE, tmp_path / "early", old, "choices")
    (path,) = early.rglob("samples_choices_*.jsonl")
    path.write_text(f"[{','.join(path.read_text(encoding='utf-8').splitlines())}]", encoding="utf-8")
    for each in early.rglob("results_*"):
        each.unlink()
    rows = {row.row["protocol"]: row.row["value"] for row in LmEval.judged_rows(early, "it")}
    whole = {row.row["protocol"]: row.row["value"] for row in LmEval.judged_rows(ONE, "it")}
    assert rows == whole
    (path,) = (tmp_path / "early").rglob("samples_ends_*.jsonl")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    both = [{**line, "filter": kind, "acc": value} for line in lines for kind, value in (("strict", 0), ("lax", 1))]
    path.write_text("".join(json.dumps(line) + "\n" for line in both), encoding="utf-8")
    rows = {row.row["protocol"]: row.row["value"] for row in LmEval.judged_rows(early, "it")}
    assert rows["ends acc (strict)"] == 0 and rows["ends acc (lax)"] == 1


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "is not JSON"),
        ("[1]", "does not write"),
        ('{"doc_id": 0, "metrics": 3}', "does not write"),
        ("", "no score"),
    ],
)
def test_damage_is_one_sentence(content: str, told: str, tmp_path: Path):
    path = tmp_path / "it" / "samples_pages_2026-01-01T00-00-00.000001.jsonl"
    path.parent.mkdir()
    path.write_text(content)
    assert importer_of(path.parent) is LmEval and importer_of(tmp_path / "nothing") is None
    with pytest.raises((OutputError, SpecError), match=told):
        LmEval.judged_rows(path.parent, "it")


def test_two_models_in_one_folder_are_refused_and_a_run_of_ours_is_no_counterpart(tmp_path: Path):
    both = tmp_path / "both"
    for side in (ONE, TWO):
        shutil.copytree(side, both, dirs_exist_ok=True)
    with pytest.raises(SpecError, match=r"several models: \./one, \./two"):
        LmEval.judged_rows(both, "it")
    code, _ = typed("compare", ONE, "--baseline", "released")
    assert code == 2
