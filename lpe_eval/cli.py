"""The commands: flags become a spec, the spec is run, the outcome becomes an exit code.

Nothing heavy is imported before a command needs it, so that `lpe-eval --help` answers at once.
Exit codes: 0 fine, 1 failure, 2 usage or config, 3 regression, 4 some cells failed, 130 interrupted.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lpe_eval.errors import INTERRUPTED, LpeEvalError, SomeCellsFailed, SpecError

if TYPE_CHECKING:
    from lpe_eval.spec.run_spec import PerplexitySpec
    from lpe_eval.spec.speed_spec import SpeedSpec
    from lpe_eval.spec.train_spec import TrainSpec

_MEASURE, _MAKE, _LOOK = "Measure", "Train", "Look"

_COSTLY = ["sinusoidal", "rope", "alibi", "t5", "kerple_log", "fire", "dape(kerple_log)"]
"""Encodings whose papers say something of their cost."""

app = typer.Typer(
    help="What happens to a language model when the text gets longer than it was trained on?",
    epilog="Exit codes: 0 fine, 1 failure, 2 usage or config, 3 regression, 4 some cells failed, 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Every flag may be typed with underscores as well.
    context_settings={
        "token_normalize_func": lambda token: token.replace("_", "-"),
        "help_option_names": ["-h", "--help"],
    },
)

Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...; auto takes CUDA where there is one.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Discard another run that the folder holds.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar and no notes.")]
TokenizerName = Annotated[
    str | None, typer.Option(help="For every model, instead of its own: bytes, hf:PATH, bpe:vocab.json,merges.txt.")
]
Revision = Annotated[str | None, typer.Option(help="Commit, tag or branch of a model on the Hub.")]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run Python code that comes with a Hugging Face checkpoint.")
]
RopeScaling = Annotated[
    str | None, typer.Option(help="RoPE of a Hugging Face model: linear:4, dynamic:4, yarn:4, or JSON.")
]
RopeTheta = Annotated[float | None, typer.Option(help="RoPE's base, of a Hugging Face model.")]
AsPublished = Annotated[
    bool, typer.Option("--as-published", help="Keep the rows that pad a GPT-NeoX vocabulary in the softmax.")
]


@app.command(rich_help_panel=_MEASURE)
def ppl(
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            help="A released checkpoint (alibi), a folder, or an address behind a format's prefix (hf:org/name, "
            "neox:DIR, fairseq:FILE, py:FILE.py:make). Repeat it for several; NAME=... renames. "
            "Default: every released checkpoint.",
        ),
    ] = None,
    lengths: Annotated[
        str | None, typer.Option(help="Tokens per window: 512,8192 or 128:16384:x2 or 1024:4096:+1024.")
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(help="nonoverlap, sliding, last, anchored; several with commas. Default: nonoverlap,sliding."),
    ] = None,
    stride: Annotated[
        str | None, typer.Option(help="sliding: tokens from one window to the next. Default: L/2, half of each length.")
    ] = None,
    last_k: Annotated[int | None, typer.Option(help="last, anchored: targets scored at the end of a window.")] = None,
    task: Annotated[
        str, typer.Option(help="What is measured: a name from `list tasks`, or a YAML file.")
    ] = "python-stdlib",
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            "-d",
            help="Other text than the task's: a .txt, .jsonl, .parquet or .bin file, a folder, "
            "hub:org/name[@revision], or python-stdlib.",
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Split of the text. Default: the corpus's own, mostly test.")
    ] = None,
    text_column: Annotated[str | None, typer.Option(help="Column that holds the text, in .jsonl and .parquet.")] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            help="Tokens of text measured at every length. Default: the task's, and at least 4.5 longest windows."
        ),
    ] = None,
    bos: Annotated[str | None, typer.Option(help="auto, always, first-window or never.")] = None,
    pack: Annotated[bool, typer.Option("--pack", help="Join documents into one stream, as some papers do.")] = False,
    tail: Annotated[str | None, typer.Option(help="A document's last, shorter window: score or drop.")] = None,
    batch_size: Annotated[
        str, typer.Option("--batch-size", "-b", help="Windows per batch, or auto. Changes speed, not values.")
    ] = "auto",
    device: Device = "auto",
    dtype: Annotated[
        str, typer.Option(help="float32, bfloat16, float16; auto is float32 on a CPU, bfloat16 on CUDA.")
    ] = "auto",
    attention: Annotated[str, typer.Option(help="An attention path from `list attentions`, or auto.")] = "auto",
    tokenizer: TokenizerName = None,
    revision: Revision = None,
    trust_remote_code: TrustRemoteCode = False,
    rope_scaling: RopeScaling = None,
    rope_theta: RopeTheta = None,
    as_published: AsPublished = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder of the results, used exactly. Default: results/runs/<id>."),
    ] = None,
    overwrite: Overwrite = False,
    seed: Annotated[int | None, typer.Option(help="Of the choice of documents and of sampled positions.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print windows, tokens and an estimate; measure nothing.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Measure perplexity at several lengths, as a table and a plot.

    Every length scores the same text. Protocols: nonoverlap cuts the text into windows; sliding lets windows overlap
    and scores only new targets; last scores the end of each window; anchored scores the same targets with ever more
    context.
    """
    with _told():
        from lpe_eval.spec.run_spec import PerplexitySpec, parse_lengths, parse_protocols
        from lpe_eval.spec.tasks import parse_spec, read_task

        chosen = read_task(task)
        spelled: dict[str, Any] = {
            "lengths": parse_lengths(lengths) if lengths is not None else None,
            "corpus": _corpus(data, split, text_column, chosen.corpus.model_dump(mode="json")),
            "bos": bos,
            "pack": pack or None,
            "tail": tail,
            "seed": seed,
        }
        if protocol is not None or stride is not None or last_k is not None:
            names = protocol or ",".join(each.name for each in chosen.protocols)
            spelled["protocols"] = [each.model_dump() for each in parse_protocols(names, stride, last_k)]
        changes = {key: value for key, value in spelled.items() if value is not None}
        longest = max(changes.get("lengths", chosen.lengths))
        changes |= {
            "models": model or _released(),
            "max_tokens": max_tokens
            if max_tokens is not None
            else max(chosen.max_tokens, 9 * max(longest, 0) // 2 + 3),
            "batch_size": batch_size if batch_size == "auto" else _whole("--batch-size", batch_size),
            "device": device,
            "dtype": dtype,
            "attention": attention,
            "tokenizer": tokenizer,
            "revision": revision,
            "trust_remote_code": trust_remote_code,
            "rope_scaling": rope_scaling,
            "rope_theta": rope_theta,
            "as_published": as_published,
        }
        spec = parse_spec(PerplexitySpec.of_task(chosen, changes), PerplexitySpec, "ppl")
        _perplexity(spec, out, overwrite, quiet, dry_run)


@app.command(rich_help_panel=_MEASURE)
def speed(
    encoding: Annotated[
        list[str] | None,
        typer.Option(
            help="From `list encodings`, several with commas, or repeat it. Default: "
            "sinusoidal,rope,alibi,t5,kerple_log,fire,dape(kerple_log)."
        ),
    ] = None,
    lengths: Annotated[str, typer.Option(help="Tokens per window: 512,8192 or 1024:16384:x2.")] = "512,1024,2048",
    mode: Annotated[
        str, typer.Option(help="forward: scoring without gradients; train: a loss and its gradient.")
    ] = "forward,train",
    width: Annotated[int, typer.Option(help="Model width.")] = 128,
    layers: Annotated[int, typer.Option(help="Number of layers.")] = 4,
    heads: Annotated[int, typer.Option(help="Attention heads per layer.")] = 4,
    batch_tokens: Annotated[int, typer.Option(help="Tokens per pass; a longer window goes alone.")] = 2048,
    rounds: Annotated[int, typer.Option(help="Rounds that the medians are over, at least 5.")] = 5,
    device: Device = "auto",
    dtype: Annotated[
        str, typer.Option(help="float32, bfloat16, float16; auto is float32 on a CPU, bfloat16 on CUDA.")
    ] = "auto",
    attention: Annotated[str, typer.Option(help="An attention path from `list attentions`, or auto.")] = "auto",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder of the results, used exactly. Default: results/runs/speed-<id>."),
    ] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Measure tokens per second and memory of encodings, with plain causal attention as the unit.

    The encodings take turns in one process; the unit is the same model without an encoding. Memory is
    that of one pass beyond holding the model, each number from a process of its own.
    """
    with _told():
        from lpe_eval.spec.run_spec import parse_lengths
        from lpe_eval.spec.speed_spec import SpeedSpec, parse_encodings, parse_modes
        from lpe_eval.spec.tasks import parse_spec

        fields = {
            "encodings": parse_encodings(_COSTLY if encoding is None else encoding),
            "lengths": parse_lengths(lengths),
            "modes": parse_modes(mode),
            "width": width,
            "layers": layers,
            "heads": heads,
            "batch_tokens": batch_tokens,
            "rounds": rounds,
            "device": device,
            "dtype": dtype,
            "attention": attention,
        }
        _speed(parse_spec(fields, SpeedSpec, "speed"), out, overwrite, quiet)


@app.command(rich_help_panel=_MEASURE)
def run(
    spec: Annotated[Path, typer.Argument(help="A spec.yaml: of an earlier run, or your own.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the results, used exactly.")] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Run what a spec file says: perplexity, a training, or speed."""
    with _told():
        from lpe_eval.spec.run_spec import PerplexitySpec
        from lpe_eval.spec.speed_spec import SpeedSpec
        from lpe_eval.spec.tasks import load_yaml, parse_spec
        from lpe_eval.spec.train_spec import TrainSpec

        raw = load_yaml(spec)
        match raw.get("kind"):
            case "ppl":
                _perplexity(parse_spec(raw, PerplexitySpec, str(spec)), out, overwrite, quiet, dry_run=False)
            case "train":
                _train(parse_spec(raw, TrainSpec, str(spec)), out, "auto", overwrite, quiet)
            case "speed":
                _speed(parse_spec(raw, SpeedSpec, str(spec)), out, overwrite, quiet)
            case other:
                raise SpecError(f"{spec}: kind must be ppl, train or speed, not {other!r}")


@app.command(rich_help_panel=_MAKE)
def train(
    encoding: Annotated[str, typer.Option(help="From `list encodings`: alibi, or dape(kerple_log).")],
    name: Annotated[str | None, typer.Option(help="Name in tables. Default: the encoding.")] = None,
    train_length: Annotated[int, typer.Option(help="Tokens per training window.")] = 512,
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 2000,
    batch_tokens: Annotated[int, typer.Option(help="Tokens per step.")] = 4096,
    learning_rate: Annotated[float, typer.Option(help="Peak of the schedule.")] = 2e-3,
    corpus: Annotated[str, typer.Option(help="Text with a train and a valid split.")] = "python-stdlib",
    width: Annotated[int, typer.Option(help="Model width.")] = 128,
    layers: Annotated[int, typer.Option(help="Number of layers.")] = 4,
    heads: Annotated[int, typer.Option(help="Attention heads per layer.")] = 4,
    option: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE option of the (outer) encoding, such as hidden=8. Repeat it.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of weights and of the order of the text.")] = 1,
    device: Device = "auto",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the checkpoint and its log.")] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Train a small language model; the same command goes on where it was stopped."""
    with _told():
        from lpe_eval.spec.encoding_spec import EncodingSpec
        from lpe_eval.spec.tasks import parse_spec
        from lpe_eval.spec.train_spec import TrainSpec

        what = EncodingSpec.parse(encoding).model_dump() | dict(_key_value(each) for each in option or [])
        fields = {
            "name": name or encoding,
            "model": {
                "encoding": what,
                "width": width,
                "layers": layers,
                "heads": heads,
                "mlp_width": 4 * width,
                "train_length": train_length,
            },
            "corpus": corpus,
            "steps": steps,
            "batch_tokens": batch_tokens,
            "learning_rate": learning_rate,
            "warmup_steps": min(100, steps // 10),
            "validate_every": max(50, steps // 20),
            "seed": seed,
        }
        _train(parse_spec(fields, TrainSpec, "train"), out, device, overwrite, quiet)


@app.command(rich_help_panel=_LOOK)
def plot(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs; several are drawn together.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the figures. Default: figures/ of the first run.")
    ] = None,
) -> None:
    """Draw the figures of one or several runs again."""
    with _told():
        from lpe_eval.run import draw_runs

        for path in draw_runs(runs, out or runs[0] / "figures"):
            typer.echo(path)


@app.command(rich_help_panel=_LOOK)
def inspect(
    checkpoint: Annotated[str, typer.Argument(help="As `ppl -m` takes it.")],
    task: Annotated[str, typer.Option(help="The task whose windows are counted.")] = "python-stdlib",
    tokenizer: TokenizerName = None,
    revision: Revision = None,
    trust_remote_code: TrustRemoteCode = False,
    rope_scaling: RopeScaling = None,
    rope_theta: RopeTheta = None,
    as_published: AsPublished = False,
) -> None:
    """Say what a checkpoint is: format, shape, encoding and its parameters, tokenizer, and what `ppl` would measure."""
    with _told():
        from lpe_eval.console import listing, note
        from lpe_eval.inspection import inspect_checkpoint
        from lpe_eval.spec.run_spec import PerplexitySpec
        from lpe_eval.spec.tasks import parse_spec, read_task

        changes = {
            "models": [checkpoint],
            "tokenizer": tokenizer,
            "revision": revision,
            "trust_remote_code": trust_remote_code,
            "rope_scaling": rope_scaling,
            "rope_theta": rope_theta,
            "as_published": as_published,
        }
        spec = parse_spec(PerplexitySpec.of_task(read_task(task), changes), PerplexitySpec, "inspect")
        found = inspect_checkpoint(checkpoint, spec)
        for title, columns, rows in found.tables:
            listing(title, columns, rows)
        for sentence in found.notes:
            note(sentence)


@app.command(rich_help_panel=_MAKE)
def convert(
    source: Annotated[str, typer.Argument(metavar="SRC", help="A checkpoint, as `ppl -m` takes it.")],
    destination: Annotated[Path, typer.Argument(metavar="DST", help="Folder of the native form; new or empty.")],
    dtype: Annotated[str, typer.Option(help="Of the stored weights: float32 or bfloat16.")] = "float32",
    tokenizer: TokenizerName = None,
    as_published: AsPublished = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a native checkpoint in DST.")] = False,
) -> None:
    """Write the native form of a checkpoint: config.yaml and model.safetensors."""
    with _told():
        from lpe_eval.console import note
        from lpe_eval.conversion import convert_checkpoint

        for sentence in convert_checkpoint(source, destination, dtype, tokenizer, as_published, overwrite):
            note(sentence)


@app.command("list", rich_help_panel=_LOOK)
def list_(
    what: Annotated[str, typer.Argument(help="encodings, tasks, checkpoints, corpora, formats or attentions.")],
) -> None:
    """List what can be named: encodings, tasks, released checkpoints, corpora, checkpoint formats, attention paths."""
    with _told():
        from lpe_eval.catalogue import catalogue
        from lpe_eval.console import listing

        columns, rows = catalogue(what)
        listing(what, columns, rows)


def main() -> None:
    """Entry point of `lpe-eval`."""
    app()


@contextmanager
def _told() -> Iterator[None]:
    """Turns the family of errors, and Ctrl-C, into a sentence and an exit code."""
    try:
        yield
    except LpeEvalError as error:
        from lpe_eval.console import error as show

        show(str(error))
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        from lpe_eval.console import error as show

        show("interrupted; what was finished is kept, and the same command goes on from there")
        raise typer.Exit(INTERRUPTED) from None


def _perplexity(spec: "PerplexitySpec", out: Path | None, overwrite: bool, quiet: bool, dry_run: bool) -> None:
    from functools import partial

    from lpe_eval import console
    from lpe_eval.run import estimate, perplexity

    if dry_run:
        columns, rows, total = estimate(spec)
        console.listing("planned", columns, rows)
        console.note(total)
        return
    tell = (lambda sentence: None) if quiet else console.note
    outcome = perplexity(spec, out, overwrite, partial(console.progress, quiet=quiet), tell)
    if outcome.tokenizers > 1:
        # A token of one model is not one of another, so losses per token have no common unit.
        console.result_table(outcome.rows, "bits_per_byte")
        console.note(
            f"the models have {outcome.tokenizers} different tokenizers, so perplexity per token does not compare "
            "between them; the table shows bits per byte of text, and rows.csv has both"
        )
    else:
        console.result_table(outcome.rows)
    console.note(f"rows: {outcome.folder / 'rows.csv'}   figure: {outcome.folder / 'figures' / 'perplexity.png'}")
    if outcome.failed:
        raise SomeCellsFailed(f"{outcome.failed} of the cells have no value; their notes stand below the table")


def _train(spec: "TrainSpec", out: Path | None, device: str, overwrite: bool, quiet: bool) -> None:
    from functools import partial

    from lpe_eval import console
    from lpe_eval.training import train as train_model

    folder = train_model(spec, out, device, overwrite, partial(console.progress, quiet=quiet))
    console.note(f"checkpoint: {folder}   measure it: lpe-eval ppl -m {folder}")


def _speed(spec: "SpeedSpec", out: Path | None, overwrite: bool, quiet: bool) -> None:
    from functools import partial

    from lpe_eval import console
    from lpe_eval.timing import COLUMNS, notes, shown
    from lpe_eval.timing import speed as measure_speed

    tell = (lambda sentence: None) if quiet else console.note
    outcome = measure_speed(spec, out, overwrite, partial(console.progress, quiet=quiet), tell)
    for mode in spec.modes:
        console.listing(mode, COLUMNS, shown(outcome.rows, mode))
    for sentence in notes(outcome.rows):
        console.note(sentence)
    console.note(f"rows: {outcome.folder / 'speed.csv'}   figure: {outcome.figure}")
    if outcome.failed:
        raise SomeCellsFailed(f"{outcome.failed} of the cases have no value; their notes stand below the table")


def _released() -> list[str]:
    from lpe_eval.spec.released import released_names

    names = released_names()
    if not names:
        raise SpecError("no checkpoint ships with this installation; name one with -m")
    return names


def _corpus(
    data: str | None, split: str | None, text_column: str | None, of_task: dict[str, Any]
) -> dict[str, Any] | None:
    from lpe_eval.spec.corpus_spec import CorpusSpec

    if data is None and split is None and text_column is None:
        return None
    base = of_task if data is None else CorpusSpec.parse(data).model_dump(mode="json")
    changes = {"split": split, "text_column": text_column}
    return base | {key: value for key, value in changes.items() if value is not None}


def _whole(flag: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise SpecError(f"{flag}: {text!r} is neither a whole number nor auto") from None


def _key_value(text: str) -> tuple[str, Any]:
    import yaml

    key, equals, value = text.partition("=")
    if not equals:
        raise SpecError(f"--option: {text!r} is not KEY=VALUE")
    return key.strip().replace("-", "_"), yaml.safe_load(value)
