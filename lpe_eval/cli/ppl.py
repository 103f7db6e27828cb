"""`lpe-eval ppl`: perplexity at several lengths."""

from pathlib import Path
from typing import Annotated, Any

import typer

from lpe_eval.cli import completion
from lpe_eval.cli.app import (
    MEASURE,
    AsPublished,
    Attention,
    Baseline,
    Deterministic,
    Device,
    DeviceMapping,
    DryRun,
    Dtype,
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
from lpe_eval.cli.token_flags import KeepTokens, KeyGain, KeyLoss, KeyShort, KeyTokens, KeyWeighting


@app.command(rich_help_panel=MEASURE)
def ppl(
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            help="A released checkpoint (alibi), a folder, s3://bucket/folder, or what a format's prefix stands before "
            "(hf:org/name, neox:DIR, fairseq:FILE, py:FILE.py:make). Repeat it for several; NAME=... renames. "
            "all: every released checkpoint of Python code. Default: one of each kind.",
            autocompletion=completion.models,
        ),
    ] = None,
    lengths: Annotated[
        str | None, typer.Option(help="Tokens per window: 512,8192 or 128:16384:x2 or 1024:4096:+1024.")
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="nonoverlap, sliding, last, anchored; several with commas. Default: nonoverlap,sliding.",
            autocompletion=completion.cutting,
        ),
    ] = None,
    stride: Annotated[
        str | None, typer.Option(help="sliding: tokens from one window to the next. Default: L/2, half of each length.")
    ] = None,
    last_k: Annotated[int | None, typer.Option(help="last, anchored: targets scored at the end of a window.")] = None,
    task: Annotated[
        str,
        typer.Option(
            help="What is measured: a name from `list tasks`, or a YAML file.", autocompletion=completion.tasks
        ),
    ] = "python-stdlib",
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            "-d",
            help="Other text than the task's: a .txt, .jsonl, .parquet, .arrow or .bin file, a folder, one of these at "
            "s3://bucket/place, hub:org/name[@revision], python-stdlib, or urn or echo, whose optimum is known "
            "(urn?alpha=0.5).",
            autocompletion=completion.corpora,
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Split of the text. Default: the corpus's own, mostly test.")
    ] = None,
    text_column: Annotated[str | None, typer.Option(help="Column that holds the text, in .jsonl and .parquet.")] = None,
    subset: Annotated[str | None, typer.Option(help="hub: the subset (configuration) of a dataset.")] = None,
    streaming: Annotated[
        bool, typer.Option("--streaming", help="hub: read rows as they come, without downloading all of them.")
    ] = False,
    token_dtype: Annotated[
        str | None, typer.Option(help="Type of the ids in a .bin file: uint8, uint16, uint32, int32 or int64.")
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            help="Tokens of text measured at every length. Default: the task's, and at least 4.5 longest windows."
        ),
    ] = None,
    bos: Annotated[
        str | None, typer.Option(help="auto, always, first-window or never.", autocompletion=completion.bos)
    ] = None,
    pack: Annotated[bool, typer.Option("--pack", help="Join documents into one stream, as some papers do.")] = False,
    tail: Annotated[
        str | None,
        typer.Option(help="A document's last, shorter window: score or drop.", autocompletion=completion.tails),
    ] = None,
    batch_size: Annotated[
        str, typer.Option("--batch-size", "-b", help="Windows per batch, or auto. Changes speed, not values.")
    ] = "auto",
    device: Device = "auto",
    device_map: DeviceMapping = None,
    tensor_parallel: TensorParallel = False,
    dtype: Dtype = "auto",
    attention: Attention = "auto",
    deterministic: Deterministic = False,
    tokenizer: TokenizerName = None,
    revision: Revision = None,
    trust_remote_code: TrustRemoteCode = False,
    rope_scaling: RopeScaling = None,
    rope_theta: RopeTheta = None,
    remap: Remap = None,
    as_published: AsPublished = False,
    allow_leak: Annotated[
        bool,
        typer.Option(
            "--allow-leak",
            help="Measure a model although it sees the future, such as one whose activations are quantised over the "
            "whole tensor. Recorded in the rows.",
        ),
    ] = False,
    keep_tokens: KeepTokens = False,
    key_tokens: KeyTokens = None,
    key_gain: KeyGain = None,
    key_loss: KeyLoss = None,
    key_short: KeyShort = None,
    key_weighting: KeyWeighting = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder of the results, used exactly. Default: results/runs/<id>."),
    ] = None,
    overwrite: Overwrite = False,
    shard: ShardOf = None,
    engine: EngineName = None,
    workers: Workers = None,
    gpus_per_worker: WorkerGpus = 0.0,
    cpus_per_worker: WorkerCpus = 1.0,
    seed: Annotated[int | None, typer.Option(help="Of the choice of documents and of sampled positions.")] = None,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    log_to: LogTo = None,
    baseline: Baseline = None,
) -> None:
    """Measure perplexity at several lengths, as a table and a plot.

    Every length scores the same text. Protocols: nonoverlap cuts the text into windows; sliding lets windows overlap
    and scores only new targets; last scores the end of each window; anchored scores the same targets with ever more
    context.
    """
    with sentence_for_errors():
        from lpe_eval.spec.device_map import parse_device_map
        from lpe_eval.spec.key_tokens_spec import parse_key_tokens
        from lpe_eval.spec.ppl_spec import PerplexitySpec, parse_lengths, parse_protocols, text_for
        from lpe_eval.spec.tasks import parse_spec, read_task

        chosen = read_task(task)
        spelled: dict[str, Any] = {
            "lengths": parse_lengths(lengths) if lengths is not None else None,
            "corpus": named_corpus(
                data,
                {
                    "split": split,
                    "text_column": text_column,
                    "subset": subset,
                    "streaming": streaming or None,
                    "token_dtype": token_dtype,
                },
                chosen.corpus.model_dump(mode="json"),
            ),
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
            "models": language_models(model) if model else default_models(),
            "max_tokens": max_tokens if max_tokens is not None else text_for(longest, chosen),
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
            "keep_tokens": keep_tokens,
            "key_tokens": parse_key_tokens(key_tokens, key_gain, key_loss, key_short, key_weighting),
        }
        spec = parse_spec(PerplexitySpec.of_task(chosen, changes), PerplexitySpec, "ppl")
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
