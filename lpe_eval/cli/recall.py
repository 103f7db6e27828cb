"""`lpe-eval recall`: how much of the far context a model uses."""

from pathlib import Path
from typing import Annotated, Any

import typer

from lpe_eval.cli import completion
from lpe_eval.cli.app import (
    MEASURE,
    AsPublished,
    Deterministic,
    Device,
    DeviceMapping,
    EngineName,
    LogTo,
    Overwrite,
    Quiet,
    Remap,
    Revision,
    RopeScaling,
    RopeTheta,
    ShardOf,
    TensorParallel,
    TokenizerName,
    TrustRemoteCode,
    WorkerCpus,
    WorkerGpus,
    Workers,
    app,
)
from lpe_eval.cli.models import default_models, language_models
from lpe_eval.cli.named import named_corpus, whole
from lpe_eval.cli.running import asked_engine, foresee, run_spec
from lpe_eval.cli.sentences import sentence_for_errors


@app.command(rich_help_panel=MEASURE)
def recall(
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            help="As `ppl -m`: a released checkpoint, a folder, hf:..., NAME=..., all. Repeat it.",
            autocompletion=completion.models,
        ),
    ] = None,
    tests: Annotated[str, typer.Option(help="repeat, needle, pairs; several with commas.")] = "repeat,needle,pairs",
    lengths: Annotated[
        str, typer.Option(help="Tokens per window: 512,8192 or 128:16384:x2. repeat's distances are half of them.")
    ] = "128:2048:x2",
    data: Annotated[
        str | None, typer.Option("--data", "-d", help="Text, as `ppl --data` takes it. Default: python-stdlib.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split of the text. Default: the corpus's own.")] = None,
    text_column: Annotated[str | None, typer.Option(help="Column that holds the text, in .jsonl and .parquet.")] = None,
    subset: Annotated[str | None, typer.Option(help="hub: the subset (configuration) of a dataset.")] = None,
    streaming: Annotated[bool, typer.Option("--streaming", help="hub: read rows as they come.")] = False,
    token_dtype: Annotated[str | None, typer.Option(help="Type of the ids in a .bin file.")] = None,
    pack: Annotated[bool, typer.Option("--pack", help="Join documents into one stream: for short ones.")] = False,
    passages: Annotated[
        str, typer.Option(help="repeat: what is repeated: pieces of text, or random tokens that occur in it.")
    ] = "text",
    piece: Annotated[int, typer.Option(help="repeat: tokens of a piece, the unit of errors.")] = 64,
    repeat_tokens: Annotated[
        int, typer.Option(help="repeat: tokens scored at every distance; two longest passages at least.")
    ] = 8192,
    prompts: Annotated[int, typer.Option(help="needle, pairs: prompts at every length.")] = 8,
    needle: Annotated[
        str,
        typer.Option(
            help='needle: assignment (KEY = "q"), sentence, or niah_single_1, the prompts of lm-evaluation-harness.'
        ),
    ] = "assignment",
    depths: Annotated[str, typer.Option(help="needle: per cent of the text, 0,50,100 or 0:90:+10.")] = "0,50,100",
    candidates: Annotated[
        int | None, typer.Option(help="needle: values that it is told from. Default: 26 letters, 10 numbers.")
    ] = None,
    pairs: Annotated[
        str, typer.Option(help="pairs: identifiers (word_q = 0), or tokens: two side by side, random ones between.")
    ] = "identifiers",
    n_pairs: Annotated[int, typer.Option(help="pairs: how many in a prompt.")] = 4,
    share: Annotated[
        float, typer.Option(help="Effective length: part of the gain at the shortest length that must be there.")
    ] = 0.85,
    least: Annotated[
        float | None, typer.Option(help="Effective length: an accuracy that is the bar instead, as RULER's 0.856.")
    ] = None,
    bos: Annotated[str, typer.Option(help="auto, always or never.")] = "auto",
    batch_size: Annotated[
        str, typer.Option("--batch-size", "-b", help="Windows per batch, or auto. Changes speed, not values.")
    ] = "auto",
    device: Device = "auto",
    device_map: DeviceMapping = None,
    tensor_parallel: TensorParallel = False,
    dtype: Annotated[
        str, typer.Option(help="float32, bfloat16, float16; auto is float32 on a CPU, bfloat16 on CUDA.")
    ] = "auto",
    attention: Annotated[str, typer.Option(help="An attention path from `list attentions`, or auto.")] = "auto",
    deterministic: Deterministic = False,
    tokenizer: TokenizerName = None,
    revision: Revision = None,
    trust_remote_code: TrustRemoteCode = False,
    rope_scaling: RopeScaling = None,
    rope_theta: RopeTheta = None,
    remap: Remap = None,
    as_published: AsPublished = False,
    allow_leak: Annotated[
        bool, typer.Option("--allow-leak", help="Measure a model although it sees the future, as `ppl` does.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder of the results, used exactly. Default: results/runs/recall-<id>."),
    ] = None,
    overwrite: Overwrite = False,
    shard: ShardOf = None,
    engine: EngineName = None,
    workers: Workers = None,
    gpus_per_worker: WorkerGpus = 0.0,
    cpus_per_worker: WorkerCpus = 1.0,
    seed: Annotated[int, typer.Option(help="Of the choice of text, keys, values and sampled positions.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print windows and tokens; measure nothing.")] = False,
    quiet: Quiet = False,
    log_to: LogTo = None,
    baseline: Annotated[
        list[str] | None,
        typer.Option(help="Then compare with this baseline, or with the run at ./PATH, and end as `compare` does."),
    ] = None,
) -> None:
    """Measure how much of the far context a model uses.

    repeat feeds a passage twice and scores the second copy; needle hides a key with a value in text and asks for it at
    the end; pairs gives several keys with values and asks for each. All are told as nats gained over the same text
    without what is to be recalled, and as accuracy. Works for small models without instruction tuning.
    """
    with sentence_for_errors():
        from lpe_eval.spec.device_map import parse_device_map
        from lpe_eval.spec.ppl_spec import parse_lengths
        from lpe_eval.spec.recall_spec import RecallSpec, parse_depths, parse_tests
        from lpe_eval.spec.tasks import parse_spec

        usual = RecallSpec.model_fields["corpus"].default.model_dump(mode="json")
        flags = {"split": split, "text_column": text_column, "subset": subset, "streaming": streaming or None,
                 "token_dtype": token_dtype}  # fmt: skip
        fields: dict[str, Any] = {
            "models": language_models(model) if model else default_models(),
            "tests": parse_tests(tests),
            "lengths": parse_lengths(lengths),
            "corpus": named_corpus(data, flags, usual) or usual,
            "pack": pack,
            "seed": seed,
            "bos": bos,
            "passages": passages,
            "piece": piece,
            "repeat_tokens": repeat_tokens,
            "prompts": prompts,
            "needle": needle,
            "depths": parse_depths(depths),
            "candidates": candidates,
            "pairs": pairs,
            "n_pairs": n_pairs,
            "share": share,
            "least": least,
            "batch_size": batch_size if batch_size == "auto" else whole("--batch-size", batch_size),
            "device": device,
            "dtype": dtype,
            "attention": attention,
            "deterministic": deterministic,
            "tokenizer": tokenizer,
            "revision": revision,
            "trust_remote_code": trust_remote_code,
            "rope_scaling": rope_scaling,
            "rope_theta": rope_theta,
            "remap": remap,
            "as_published": as_published,
            "device_map": device_map if device_map is None else parse_device_map(device_map),
            "tensor_parallel": tensor_parallel,
            "allow_leak": allow_leak,
        }
        spec = parse_spec(fields, RecallSpec, "recall")
        if dry_run:
            foresee(spec, quiet)
        else:
            run_spec(
                spec,
                out,
                overwrite,
                quiet,
                baseline or (),
                log_to=log_to or (),
                shard=shard,
                engine=asked_engine(engine, workers, gpus_per_worker, cpus_per_worker),
            )
