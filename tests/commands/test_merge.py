"""Shards of a run, merged, are the run of one process to the byte; what is missing or does not belong is told."""

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

import lpe_eval.measure.parts as cutting
from lpe_eval.cli import app
from lpe_eval.measure import model_cells
from tests.support.native_checkpoints import checkpoint
from tests.support.runs_to_end import che, furnished, recall

PPL = ("rows.csv", "by_document.parquet", "by_position.parquet", "changes.csv", "position_fit.csv")
SAME = ("spec.yaml", "run.json")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Models, text and protocols, in the current folder, where a length of a few windows has several parts."""
    folder = furnished(tmp_path_factory.mktemp("shards"))
    checkpoint(folder / "learned", "learned")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        patched.setattr(cutting, "PART_WORK", 600)
        told(ppl("whole"))
        yield folder


def ppl(out: str, *more: str, lengths: str = "32,64") -> list[str]:
    # A model without positions beyond 32 has a length without a value.
    models = ["-m", "alibi", "-m", "learned"]
    text = ["--data", "text", "--split", "test", "--max-tokens", "700"]
    return ["ppl", *models, *text, "--lengths", lengths, "-q", "--out", out, *more]


def told(arguments: Sequence[str], code: int = 0) -> str:
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "400"})
    assert result.exit_code == code, result.output + repr(result.exception)
    assert "Traceback" not in result.output
    return result.output


def alike(one: Path, other: Path, names: Sequence[str]) -> None:
    for name in names:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def test_shards_in_one_folder_become_the_run_of_one_process(place: Path):
    out, count = "shared by three", 3
    for number in (3, 1):
        told(ppl(out, "--shard", f"{number}/{count}"))
    assert not (place / out / "rows.csv").exists()
    said = told(["merge", out], code=4)
    assert "1/3, 3/3 have begun" in said and "missing" in said and "part 1 of" in said
    some = set((place / out / "rows.csv").read_text().splitlines())
    assert some < set((place / "whole" / "rows.csv").read_text().splitlines())
    said = told([each for each in ppl(out, "--shard", "2/3") if each != "-q"])
    assert f"lpe-eval merge '{out}'" in said
    told(["merge", out, "-q"])
    alike(place / out, place / "whole", PPL + SAME)
    assert sorted(path.name for path in (place / out).iterdir()) == sorted(
        path.name for path in (place / "whole").iterdir()
    )
    starts = json.loads((place / out / "provenance.json").read_text())["starts"]
    assert {start["shard"] for start in starts} == {f"{number}/{count}" for number in range(1, count + 1)}
    assert "no shards that wait" in told(["merge", out])
    alike(place / out, place / "whole", PPL)


def test_folders_that_lived_apart_are_merged_into_one(place: Path):
    for number in (1, 2, 3):
        told(ppl(f"apart {number}", "--shard", f"{number}/3"))
    folders = [f"apart {number}" for number in (3, 1, 2)]
    assert "--out" in told(["merge", *folders], code=2)
    assert "missing" in told(["merge", *folders[:2], "--out", "some"], code=4)
    told(["merge", *folders, "--out", "joined", "-q"])
    alike(place / "joined", place / "whole", PPL + SAME)
    assert (place / "apart 1" / "parts" / "plan.json").exists(), "what is merged elsewhere stays as it was"
    told(ppl("otherwise", "--shard", "1/2", lengths="32"))
    assert "different plans" in told(["merge", "apart 1", "otherwise", "--out", "mixed"], code=2)
    assert "holds no run" in told(["merge", "apart 1", "text", "--out", "mixed"], code=2)
    assert "holds no shards" in told(["merge", "apart 1", "whole", "--out", "mixed"], code=2)


def test_two_values_of_one_cell_are_refused(place: Path):
    for number in (1, 2):
        told(ppl(f"twice {number}", "--shard", f"{number}/2"))
    shutil.copytree(place / "twice 1", place / "twice 3")
    part = next((place / "twice 3" / "parts").glob("alibi-32-1-of-*.json"))
    content = json.loads(part.read_text())
    cell = next(each for each in content["cells"] if each[1]["block"])
    cell[3] += 1.0  # The seconds, which no two processes share.
    part.write_text(json.dumps(content))
    told(["merge", "twice 1", "twice 3", "twice 2", "--out", "costlier", "-q"])
    alike(place / "costlier", place / "whole", PPL)
    cell[1]["nll_nats"][0] += 1e-9
    part.write_text(json.dumps(content))
    assert "different values" in told(["merge", "twice 1", "twice 3", "--out", "contradicted"], code=2)
    cell[1]["n_tokens"][0] -= 1
    part.write_text(json.dumps(content))
    assert "were planned" in told(["merge", "twice 3", "twice 2", "--out", "counted"], code=1)


def test_shards_that_plan_differently_are_refused(place: Path):
    told(ppl("agreed", "--shard", "1/2"))
    for changed in (ppl("agreed", "--shard", "2/2", lengths="32"), ppl("agreed", "--shard", "2/2", "--seed", "1")):
        assert "holds another run" in told(changed, code=2)
    # The batch size changes no value that is looked at, and the last bits of some: shards are cut by it.
    assert "cut otherwise" in told(ppl("agreed", "--shard", "2/2", "-b", "3"), code=2)
    assert "--overwrite" in told(ppl("agreed", "--shard", "2/2", "--overwrite"), code=2)
    assert "--baseline" in told(ppl("agreed", "--shard", "2/2", "--baseline", "./whole"), code=2)
    assert "--shard 3/2" in told(ppl("agreed", "--shard", "3/2"), code=2)
    assert "another run" in told(ppl("whole", "--shard", "1/2", lengths="32"), code=2)
    shutil.rmtree(place / "agreed" / "cells")
    (place / "agreed" / "run.json").unlink()
    assert "do another run" in told(ppl("agreed", "--shard", "2/2", lengths="32"), code=2), "the plan alone says it"


def test_a_long_length_goes_on_at_its_next_part(place: Path, monkeypatch: pytest.MonkeyPatch):
    measured: list[str] = []

    def counting(*arguments, **named):
        measured.append(str(arguments[3].name))
        if len(measured) == stop:
            raise KeyboardInterrupt
        return measure_part(*arguments, **named)

    measure_part, stop = model_cells.measure_part, 3
    monkeypatch.setattr(model_cells, "measure_part", counting)
    told(ppl("cut off"), code=130)
    assert len(list((place / "cut off" / "parts").glob("*.json"))) >= 1
    stop = -1
    told(ppl("cut off"))
    assert len(measured) == len(set(measured)) + 1, "only the part that was cut off is measured twice"
    alike(place / "cut off", place / "whole", PPL + SAME)
    assert not (place / "cut off" / "parts").exists()
    # Whoever begins as a shard may end as one process, too.
    measured.clear()
    told(ppl("alone", "--shard", "1/2"))
    told(ppl("alone"))
    alike(place / "alone", place / "whole", PPL + SAME)
    assert len(measured) == len(set(measured))


def test_merging_opens_each_part_once_and_never_a_table_of_all_sums(place: Path, monkeypatch: pytest.MonkeyPatch):
    for number in (1, 2):
        told(ppl(f"lone {number}", "--shard", f"{number}/2"))
    read: Counter[Path] = Counter()
    joined: list[int] = []
    read_bytes, concat = Path.read_bytes, pd.concat

    def counting(path: Path) -> bytes:
        read[path.resolve()] += 1
        return read_bytes(path)

    def concatenating(frames: Sequence[pd.DataFrame], *arguments: Any, **named: Any) -> Any:
        joined.append(sum("digest" in frame for frame in frames))
        return concat(frames, *arguments, **named)

    monkeypatch.setattr(Path, "read_bytes", counting)
    monkeypatch.setattr(pd, "concat", concatenating)
    told(["merge", "lone 1", "lone 2", "--out", "lone 1", "-q"])
    monkeypatch.undo()
    alike(place / "lone 1", place / "whole", PPL)
    inside = {path: count for path, count in read.items() if path.parent.parent == (place / "lone 1").resolve()}
    parts = {path: count for path, count in inside.items() if "-of-" in path.name and "shard" not in path.name}
    assert len(parts) > 4 and set(parts.values()) == {1}, "a part is read once, whichever folder it comes from"
    cells = {path: count for path, count in inside.items() if path.parent.name == "cells"}
    # For the table of all sums, and for what is derived of a model at a time; those that were there also on opening.
    assert cells and max(cells.values()) <= 3
    assert not any("by_document" in path.name for path in read) and not any(joined)


def test_losses_of_single_tokens_are_those_of_one_process(place: Path):
    told(ppl("kept", "--keep-tokens", lengths="32"))
    for number in (1, 2):
        told(ppl("kept by shards", "--keep-tokens", "--shard", f"{number}/2", lengths="32"))
    told(["merge", "kept by shards", "-q"])
    names = [f"by_token/{path.name}" for path in (place / "kept" / "by_token").iterdir()]
    assert len(names) == 4
    alike(place / "kept by shards", place / "kept", [*PPL[:3], *SAME, *names])


@pytest.mark.slow
def test_encoders_that_shards_train_are_those_of_one_process(place: Path):
    told(che("problems"))
    for number in (2, 1):
        told([*che("problems by shards"), "--shard", f"{number}/3"])
    assert "missing" in told(["merge", "problems by shards"], code=4)
    told([*che("problems by shards"), "--shard", "3/3"])
    told(["merge", "problems by shards", "-q"])
    names = [str(path.relative_to(place / "problems")) for path in (place / "problems").glob("checkpoints/*/*")]
    assert len(names) == 2 * (3 + 1)
    names += ["che.csv", "summary.csv", "training.csv", "by_string.parquet", *SAME]
    alike(place / "problems by shards", place / "problems", names)


@pytest.mark.slow
def test_recall_by_shards_is_that_of_one_process(place: Path):
    told(recall("recalled"))
    for number in (1, 2):
        told([*recall(f"recalled {number}"), "--shard", f"{number}/2"])
    assert "missing" in told(["merge", "recalled 1", "--out", "recalled in part"], code=4)
    told(["merge", "recalled 1", "recalled 2", "--out", "recalled by shards", "-q"])
    names = ["recall.csv", "effective_length.csv", "by_item.parquet", *SAME]
    alike(place / "recalled by shards", place / "recalled", names)


def test_what_cannot_be_shared_out_is_refused(place: Path):
    assert "is not shared out" in told(["run", "train.yaml", "--shard", "1/2", "--out", "trained", "-q"], code=2)
