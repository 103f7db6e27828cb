"""`lpe-eval bias`: what each head adds to its logits by position."""

from pathlib import Path
from typing import Annotated, Any

import typer

from lpe_eval.cli import completion
from lpe_eval.cli.app import (
    READ,
    AsPublished,
    Device,
    DeviceMapping,
    Overwrite,
    Quiet,
    Remap,
    Revision,
    RopeScaling,
    RopeTheta,
    TokenizerName,
    TrustRemoteCode,
    app,
)
from lpe_eval.cli.sentences import sentence_for_errors


@app.command(rich_help_panel=READ)
def bias(
    checkpoint: Annotated[str, typer.Argument(help="As `ppl -m` takes it.", autocompletion=completion.models)],
    position: Annotated[int, typer.Option(help="Where the query stands, from 0; texts have one token more.")] = 8192,
    samples: Annotated[int, typer.Option(help="Texts that the means are over.")] = 4,
    layers: Annotated[
        str | None, typer.Option(help="Layers of table and figure: 0,5,11 or 0-3. Default: at most twelve.")
    ] = None,
    task: Annotated[str, typer.Option(help="The task whose text is read.")] = "python-stdlib",
    data: Annotated[str | None, typer.Option("--data", "-d", help="Other text than the task's, as for `ppl`.")] = None,
    split: Annotated[
        str | None, typer.Option(help="Split of the text. Default: the corpus's own, mostly test.")
    ] = None,
    text_column: Annotated[str | None, typer.Option(help="Column that holds the text, in .jsonl and .parquet.")] = None,
    seed: Annotated[int, typer.Option(help="Of the choice of documents and of sampled positions.")] = 0,
    device: Device = "auto",
    device_map: DeviceMapping = None,
    tokenizer: TokenizerName = None,
    revision: Revision = None,
    trust_remote_code: TrustRemoteCode = False,
    rope_scaling: RopeScaling = None,
    rope_theta: RopeTheta = None,
    remap: Remap = None,
    as_published: AsPublished = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the files. Default: results/bias/<id>.")
    ] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Show what each head adds to its logits for every key, seen from one query.

    The learned static bias beside what the text makes of it, the turning of RoPE, the forgetting of FoX; which heads
    are local, anti-local or flat; as a table, a figure and files of every distance.
    """
    with sentence_for_errors():
        from functools import partial

        from lpe_eval import console
        from lpe_eval.commands.bias import Asked, parse_layers, refuse_impossible, show_bias
        from lpe_eval.measure.denormals import denormals_as_zero
        from lpe_eval.model.foreign.library_log import repeats_left_out
        from lpe_eval.spec.corpus_spec import CorpusSpec
        from lpe_eval.spec.device_map import parse_device_map
        from lpe_eval.spec.ppl_spec import PerplexitySpec
        from lpe_eval.spec.tasks import parse_spec, read_task

        refuse_impossible(position, samples)
        asked = Asked(position, samples, parse_layers(layers), out, overwrite)
        chosen = read_task(task)
        flags = {"split": split, "text_column": text_column}
        of_text = {name: value for name, value in flags.items() if value is not None}
        changes: dict[str, Any] = {
            "models": [checkpoint],
            "lengths": [position + 1],
            "seed": seed,
            "device": device,
            "tokenizer": tokenizer,
            "revision": revision,
            "trust_remote_code": trust_remote_code,
            "rope_scaling": rope_scaling,
            "rope_theta": rope_theta,
            "remap": remap,
            "as_published": as_published,
            "device_map": device_map if device_map is None else parse_device_map(device_map),
        }
        if data is not None or of_text:
            base = chosen.corpus if data is None else CorpusSpec.parse(data)
            changes["corpus"] = base.model_dump(mode="json") | of_text
        spec = parse_spec(PerplexitySpec.of_task(chosen, changes), PerplexitySpec, "bias")
        tell = (lambda sentence: None) if quiet else console.note
        with denormals_as_zero(), repeats_left_out():
            found = show_bias(spec, asked, partial(console.progress, quiet=quiet), tell)
        for table in found.tables:
            console.show(table)
        for sentence in found.notes:
            tell(sentence)
