"""Three formats in one run: a Hugging Face folder, a GPT-NeoX folder and a function of one's own."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest
import tokenizers
import torch
import transformers
from typer.testing import CliRunner

from lpe_eval.cli import app
from lpe_eval.report.folders.ppl import read_run
from tests.support.neox_files import SYMBOLS, layers_of, write
from tests.support.neox_reference import logits

pytestmark = pytest.mark.slow

OWN = '''
import torch
from torch import nn


class Averager(nn.Module):
    """A causal model: the running mean of embeddings, and a head."""

    train_length = 64
    encoding = "running mean"

    def __init__(self, symbols, tokenizer):
        super().__init__()
        self.tokenizer = tokenizer
        draw = torch.Generator().manual_seed(3)
        self.table = nn.Parameter(torch.randn(symbols, 16, generator=draw))

    def forward(self, tokens):
        count = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)[:, None]
        return self.table[tokens].cumsum(1) / count @ self.table.T


def make(symbols, tokenizer):
    return Averager(symbols, tokenizer)
'''


def vocabulary(folder: Path) -> tuple[Path, Path]:
    """A byte-level BPE of 101 symbols, in the two files that GPT-NeoX names: ASCII and five merges."""
    letters = [chr(number) for number in range(33, 127)] + ["Ġ", "Ċ"]
    merges = [("w", "o"), ("r", "d"), ("wo", "rd"), ("Ġ", "word"), ("1", "7")]
    symbols = [*letters, *("".join(pair) for pair in merges)]
    assert len(symbols) == SYMBOLS
    folder.mkdir(exist_ok=True)
    vocab, rules = folder / "gpt2-vocab.json", folder / "gpt2-merges.txt"
    vocab.write_text(json.dumps({symbol: number for number, symbol in enumerate(symbols)}))
    rules.write_text("#version: 0.2\n" + "".join(f"{left} {right}\n" for left, right in merges))
    return vocab, rules


def bpe(vocab: Path, rules: Path) -> tokenizers.Tokenizer:
    pairs = [tuple(line.split(" ")) for line in rules.read_text().splitlines()[1:]]
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=json.loads(vocab.read_text()), merges=pairs))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    return made


def llama() -> transformers.LlamaForCausalLM:
    config = transformers.LlamaConfig(
        vocab_size=SYMBOLS, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=64,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).eval()
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.2, generator=draw)
    return model


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `hf`, `neox`, `own.py` and `text`; one vocabulary for all."""
    root = tmp_path_factory.mktemp("world")
    write(root / "neox", "kerple_log", layers_of("kerple_log"), with_vocabulary=False)
    vocab, rules = vocabulary(root / "neox")
    llama().save_pretrained(root / "hf")
    transformers.PreTrainedTokenizerFast(tokenizer_object=bpe(vocab, rules)).save_pretrained(root / "hf")
    (root / "own.py").write_text(OWN)
    (root / "text").mkdir()
    for number in range(9):
        words = " ".join(f"word{(number * 7 + each * each) % 91}" for each in range(1400))
        (root / "text" / f"{number}.txt").write_text(words)
    return root


def ppl(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["ppl", *map(str, arguments)])
    assert result.exit_code == code, result.output + repr(result.exception)
    return " ".join(result.output.split())


def three(world: Path, own: str) -> list[str]:
    models = (f"hf:{world / 'hf'}", f"neox:{world / 'neox'}", f"own=py:{world / 'own.py'}:make?{own}")
    return [part for model in models for part in ("-m", model)]


def run(world: Path, out: Path, own: str, *more: object) -> str:
    return ppl(
        *three(world, own), "--lengths", "64,128,256", "--protocol", "nonoverlap", "--data", world / "text",
        "--max-tokens", 1200, "--out", out, *more,
    )  # fmt: skip


def shared(world: Path) -> str:
    return f"symbols={SYMBOLS}&tokenizer=bpe:{world / 'neox/gpt2-vocab.json'},{world / 'neox/gpt2-merges.txt'}"


def frame(out: Path, metric: str) -> pd.Series:
    rows = read_run(out).rows
    return rows[rows.metric == metric].set_index(["model", "length"]).value


def test_three_formats_stand_in_one_table_and_one_plot(world: Path, tmp_path: Path) -> None:
    told = run(world, tmp_path / "run", shared(world), "--lengths", "128,512,2048", "--max-tokens", 5000)
    rows = read_run(tmp_path / "run").rows
    assert set(rows.model) == {"hf", "neox", "own"} and set(rows.length) == {128, 512, 2048}
    assert set(rows.status) == {"ok"} and rows.n_tokens.nunique() == 1
    for name in ("hf", "neox", "own", "rope", "kerple_log", "running mean"):
        assert name in told
    assert "perplexity" in told and "bits_per_byte" not in told
    figures = {path.name for path in (tmp_path / "run" / "figures").glob("*.png")}
    assert "perplexity.png" in figures and "bits_per_byte.png" not in figures
    drawn = (tmp_path / "run" / "figures" / "perplexity.svg").stat().st_size
    assert drawn > 10_000


def test_each_value_is_that_of_a_plain_loop_over_the_model_itself(world: Path, tmp_path: Path) -> None:
    run(world, tmp_path / "run", shared(world), "-q")
    found = frame(tmp_path / "run", "nll_nats")
    facts = read_run(tmp_path / "run").provenance["models"]
    encode = bpe(world / "neox" / "gpt2-vocab.json", world / "neox" / "gpt2-merges.txt").encode
    language_model = llama()
    layers = layers_of("kerple_log")
    space: dict = {"__name__": "own"}
    exec(OWN, space)
    own = space["make"](SYMBOLS, "")
    scores = {
        "hf": lambda tokens: language_model(tokens).logits,
        # Rows that pad the vocabulary are no symbols.
        "neox": lambda tokens: logits(layers, "kerple_log", tokens)[..., :SYMBOLS],
        "own": own,
    }
    for name, score in scores.items():
        for length in (64, 256):
            nats, count = 0.0, 0
            for document, _, kept in facts[name]["documents"]:
                ids = torch.tensor(encode((world / "text" / Path(document).name).read_text()).ids[:kept])
                for start in range(0, kept - 1, length):
                    window = ids[start : start + length + 1]
                    with torch.no_grad():
                        logs = torch.log_softmax(score(window[None, :-1]).double(), -1)[0]
                    nats -= logs.gather(1, window[1:, None]).sum().item()
                    count += len(window) - 1
            assert found[name, length] == pytest.approx(nats / count, rel=1e-5), (name, length)


def test_models_with_different_tokenizers_are_shown_in_bits_per_byte(world: Path, tmp_path: Path) -> None:
    told = run(world, tmp_path / "run", "symbols=256&tokenizer=bytes")
    assert "bits_per_byte" in told and "different tokenizers" in told
    assert "perplexity; corpus" not in told, "the caption of a table of perplexities"
    rows = read_run(tmp_path / "run").rows
    assert set(rows.metric) == {"nll_nats", "perplexity", "bits_per_byte"}
    facts = read_run(tmp_path / "run").provenance["models"]
    assert facts["hf"]["ids_fingerprint"] == facts["neox"]["ids_fingerprint"] != facts["own"]["ids_fingerprint"]
    nats, bits = frame(tmp_path / "run", "nll_nats"), frame(tmp_path / "run", "bits_per_byte")
    assert bits["own", 64] == pytest.approx(nats["own", 64] / math.log(2), rel=1e-9), "a token is a byte"
    figures = {path.name for path in (tmp_path / "run" / "figures").glob("*.png")}
    assert {"perplexity.png", "bits_per_byte.png"} <= figures


def test_runs_with_different_tokenizers_are_drawn_together_in_bits_per_byte(world: Path, tmp_path: Path) -> None:
    for out, own in (("a", shared(world)), ("b", "symbols=256&tokenizer=bytes")):
        ppl("-m", f"{out}=py:{world / 'own.py'}:make?{own}", "--lengths", 64, "--data", world / "text",
            "--max-tokens", 700, "--out", tmp_path / out, "-q")  # fmt: skip
    result = CliRunner().invoke(app, ["plot", str(tmp_path / "a"), str(tmp_path / "b"), "-o", str(tmp_path / "both")])
    assert result.exit_code == 0 and (tmp_path / "both" / "bits_per_byte.svg").exists()


def test_one_tokenizer_can_be_given_to_all(world: Path, tmp_path: Path) -> None:
    files = f"bpe:{world / 'neox/gpt2-vocab.json'},{world / 'neox/gpt2-merges.txt'}"
    run(world, tmp_path / "own", shared(world), "-q")
    run(world, tmp_path / "given", shared(world), "-q", "--tokenizer", files)
    kept = read_run(tmp_path / "given")
    assert {model["tokenizer"] for model in kept.provenance["models"].values()} == {files}
    assert kept.spec["tokenizer"] == files and kept.provenance["opened_with"] == {"tokenizer": files}
    pd.testing.assert_series_equal(frame(tmp_path / "own", "nll_nats"), frame(tmp_path / "given", "nll_nats"))


def test_how_models_are_opened_is_part_of_the_run(world: Path, tmp_path: Path) -> None:
    plain = ("-m", f"hf:{world / 'hf'}", "--lengths", 64, "--protocol", "nonoverlap", "--data", world / "text",
             "--max-tokens", 700, "-q", "--out")  # fmt: skip
    ids = {}
    for name, flags in {"plain": (), "yarn": ("--rope-scaling", "yarn:4"), "theta": ("--rope-theta", "5e5")}.items():
        ppl(*plain, tmp_path / name, *flags)
        ids[name] = str(read_run(tmp_path / name).rows.run.iloc[0])
    assert len(set(ids.values())) == 3
    spec = read_run(tmp_path / "plain").spec
    assert not {"tokenizer", "revision", "trust_remote_code", "rope_scaling", "rope_theta", "as_published"} & set(spec)
    assert read_run(tmp_path / "yarn").provenance["opened_with"] == {"rope_scaling": "yarn:4"}
    assert read_run(tmp_path / "theta").spec["rope_theta"] == 5e5
    values = [read_run(tmp_path / name).rows.value.iloc[0] for name in ids]
    assert len(set(values)) == 3
    result = CliRunner().invoke(app, ["run", str(tmp_path / "yarn" / "spec.yaml"), "-o", str(tmp_path / "again"), "-q"])
    assert result.exit_code == 0
    assert (tmp_path / "again" / "rows.csv").read_bytes() == (tmp_path / "yarn" / "rows.csv").read_bytes()


def test_the_padding_of_a_vocabulary_is_masked_unless_asked_for(world: Path, tmp_path: Path) -> None:
    plain = ("-m", f"neox:{world / 'neox'}", "--lengths", 64, "--protocol", "nonoverlap", "--data", world / "text",
             "--max-tokens", 700, "-q", "--out")  # fmt: skip
    ppl(*plain, tmp_path / "masked")
    ppl(*plain, tmp_path / "padded", "--as-published")
    masked, padded = (frame(tmp_path / name, "nll_nats")["neox", 64] for name in ("masked", "padded"))
    assert padded > masked, "rows that no text holds take probability"
