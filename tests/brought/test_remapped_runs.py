"""A run over one model at several distances: its rows, what it says of them, whom it cites, and what ends it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lpe_eval.cli import app
from lpe_eval.measure.plan import split_alias
from lpe_eval.model.checkpoint import LoadOptions, locate
from lpe_eval.report.folders.ppl import read_run
from lpe_eval.spec.ppl_spec import PerplexitySpec
from lpe_eval.spec.tasks import read_yaml
from tests.support.native_checkpoints import checkpoint
from tests.support.transformers_models import STREAM, config_of, llama, save


def ran(*words: str):
    return CliRunner().invoke(app, list(words))


def told(result) -> str:
    return " ".join(result.output.split())


def words(path: Path) -> Path:
    path.write_text(" ".join(f"w{token % 60 + 1}" for token in STREAM[0].tolist()), encoding="utf-8")
    return path


def test_one_model_at_several_distances_is_several_models_of_a_run(tmp_path: Path) -> None:
    folder, out = save(llama(), tmp_path / "tiny"), tmp_path / "out"
    models = [f"hf:{folder}", f"hf:{folder}?remap=self_extend:group=4,window=32", f"far=hf:{folder}?remap=dca"]
    flags = [part for each in models for part in ("-m", each)]
    done = ran(
        *("ppl", *flags, "--data", str(words(tmp_path / "words.txt")), "--lengths", "16,128", "--max-tokens", "256"),
        *("--protocol", "nonoverlap", "-o", str(out), "-q"),
    )
    assert done.exit_code == 0, done.output
    rows = read_run(out).rows
    perplexities = rows[rows.metric == "perplexity"].set_index(["model", "length"])
    names = ["tiny", "tiny self_extend:window=32,group=4", "far"]
    assert list(dict.fromkeys(rows.model)) == names
    encodings = ["rope", "remap(rope, self_extend)", "remap(rope, dca)"]
    for name, encoding, path in zip(names, encodings, ["hf-sdpa", "hf-remapped", "hf-remapped"], strict=True):
        assert set(rows[rows.model == name].encoding) == {encoding}
        assert set(rows[rows.model == name].attention) == {path}
    values = {length: [perplexities.loc[(name, length), "value"] for name in names] for length in (16, 128)}
    assert values[16] == pytest.approx([values[16][0]] * 3, rel=1e-5)
    assert len({round(each, 4) for each in values[128]}) == 3
    opened = json.loads((out / "provenance.json").read_text(encoding="utf-8"))["models"]["far"]["opened"]
    assert opened["remap"] == {
        "method": "dca", "chunk_size": 48, "local": 8, "log_n": False, "length_factor": "none", "layers": 2
    }  # fmt: skip
    cited = ran("show", str(out), "--cite").output
    assert all(key in cited for key in ("su2021roformer", "jin2024selfextend", "an2024dca"))
    assert "rerope" not in cited
    told_of = told(ran("inspect", f"hf:{folder}?remap=dca"))
    assert "remap(rope, dca)" in told_of and "chunk_size 48" in told_of


def test_a_native_run_cites_what_it_used_and_nothing_else(tmp_path: Path) -> None:
    folder, out = checkpoint(tmp_path / "mine", "rope"), tmp_path / "out"
    text = tmp_path / "text.txt"
    text.write_text("some text of so many letters. " * 40, encoding="utf-8")
    done = ran(
        *("ppl", "-m", f"{folder}?remap=rerope:window=8", "--data", str(text), "--lengths", "64", "-o", str(out), "-q")
    )
    assert done.exit_code == 0, done.output
    cited = ran("show", str(out), "--cite").output
    assert all(key in cited for key in ("su2021roformer", "su2023rerope")) and "jin2024" not in cited
    assert "no entry" not in cited


@pytest.mark.parametrize(
    ("model", "flags", "sentence"),
    [
        ("alibi?remap=rerope", (), "encoding alibi and no RoPE"),
        ("alibi", ("--remap", "rerope"), "encoding alibi and no RoPE"),
        ("rope?remap=rerope:window=0", (), "window: Input should be greater than or equal to 1"),
        ("rope?remap=self_extend:group=0", (), "group: Input should be greater than or equal to 1"),
        ("rope?remap=selfextend", (), "did you mean self_extend"),
        ("rope?remap=dca:chunk_size=16,local=16", (), "dca needs a chunk_size above local, not 16 and 16"),
        ("rope?remap=rerope&rope_scaling=dynamic:2", (), "change with the length of the text"),
        ("rope?remap=", (), "no remap of distances"),
        ("rop?remap=rerope", (), "did you mean rope"),
        ("{hf}?remap=dca:chunk_size=4,local=8", (), "dca needs a chunk_size above local"),
        ("{hf}", ("--remap", "rerope:windw=4"), "did you mean window"),
        ("{gpt2}?remap=rerope", (), "type gpt2 has no RoPE"),
        ("{gpt2}", ("--remap", "log_n"), "type gpt2 has no RoPE"),
    ],
)
def test_what_cannot_be_is_one_sentence_and_exit_code_2(
    model: str, flags: tuple[str, ...], sentence: str, tmp_path: Path
) -> None:
    hf = f"hf:{save(llama() if '{hf}' in model else config_of('gpt2'), tmp_path / 'model')}" if "{" in model else ""
    done = ran("ppl", "-m", model.format(hf=hf, gpt2=hf), *flags, "--lengths", "64", "-o", str(tmp_path / "out"))
    assert done.exit_code == 2, done.output
    assert sentence in told(done)
    assert not (tmp_path / "out").exists()


def test_the_spec_of_every_extension_names_models_that_differ() -> None:
    spec = read_yaml(Path(__file__).parents[2] / "results/studies/rope-longer/spec.yaml", PerplexitySpec)
    peeks = {alias: locate(rest).peek(LoadOptions()) for alias, rest in map(split_alias, spec.models)}
    assert set(peeks) == {
        "plain", "linear", "ntk", "dynamic-ntk", "yarn", "log-n", "rerope", "leaky-rerope", "self-extend", "dca"
    }  # fmt: skip
    assert len({each.digest for each in peeks.values()}) == len({each.name for each in peeks.values()}) == len(peeks)
