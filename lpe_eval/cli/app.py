"""The application, and the flags that several commands have."""

from typing import Annotated

import typer

from lpe_eval.cli import completion
from lpe_eval.cli.derived import Commands

BEGIN, MEASURE, MAKE, READ = "Begin", "Measure", "Train", "Read"


app = typer.Typer(
    cls=Commands,
    help="What happens to a language model when the text gets longer than it was trained on?",
    epilog="Begin with lpe-eval ppl, which needs nothing else; lpe-eval COMMAND --help has examples.\n\n"
    "Exit codes: 0 fine, 1 failure, 2 usage or config, 3 regression, 4 some cells failed, "
    "5 inconclusive comparison, 130 interrupted.",
    rich_markup_mode="rich",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Every flag may be typed with underscores as well.
    context_settings={
        "token_normalize_func": lambda token: token.replace("_", "-"),
        "help_option_names": ["-h", "--help"],
    },
)


def _tell_version(wanted: bool) -> bool:
    if wanted:
        import lpe_eval
        from lpe_eval.console import lines

        lines(f"lpe-eval {lpe_eval.__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def _before_every_command(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Say the version and end.")
    ] = False,
) -> None:
    """Flags that stand before a command."""


Device = Annotated[
    str,
    typer.Option(
        help="cpu, cuda, cuda:1, mps, ...; auto takes CUDA where there is one, else the CPU.",
        autocompletion=completion.devices,
    ),
]
DeviceMapping = Annotated[
    str | None,
    typer.Option(
        "--device-map",
        help="Where the parts of an hf: model lie that no card holds: auto, balanced, sequential, or JSON or its file: "
        "cards, cpu or disk by names of parts.",
    ),
]
TensorParallel = Annotated[
    bool, typer.Option("--tensor-parallel", help="Under torchrun: all ranks hold one hf: model together.")
]
Dtype = Annotated[
    str,
    typer.Option(
        help="float32, bfloat16, float16; auto is float32 on a CPU, bfloat16 on CUDA.",
        autocompletion=completion.precisions,
    ),
]
Attention = Annotated[
    str,
    typer.Option(help="An attention path from `list attentions`, or auto.", autocompletion=completion.attentions),
]
Baseline = Annotated[
    list[str] | None,
    typer.Option(
        help="Then compare with this baseline, or with the run at ./PATH, and end as `compare` does.",
        autocompletion=completion.baselines,
    ),
]
Deterministic = Annotated[
    bool, typer.Option("--deterministic", help="The same command, the same bits on CUDA too; some models get slower.")
]
As = Annotated[
    str | None,
    typer.Option(
        "--format",
        "--as",
        help="Print tables alone, for a page or a paper: markdown or latex; table is for the screen.",
        autocompletion=completion.forms,
    ),
]
LogTo = Annotated[
    list[str] | None,
    typer.Option(
        "--log-to",
        help="Hand the finished run to a tracker too: wandb, trackio, tensorboard, mlflow. Repeat it.",
        autocompletion=completion.trackers,
    ),
]
ShardOf = Annotated[
    str | None,
    typer.Option(
        "--shard",
        help="Do one share of the work, 2/8, beside other processes in one --out; slurm: of a job array. Then: merge.",
    ),
]
EngineName = Annotated[
    str | None, typer.Option("--engine", help="Share the work out on Ray: ray, or ray://HOST:PORT of a cluster.")
]
Workers = Annotated[
    int | None, typer.Option("--workers", help="--engine: shards at a time. Default: what there is room for.")
]
WorkerGpus = Annotated[float, typer.Option("--gpus-per-worker", help="--engine: GPUs of each worker; 0.5 shares one.")]
WorkerCpus = Annotated[float, typer.Option("--cpus-per-worker", help="--engine: processors of each worker.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be done and about how long it would take; write nothing.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Discard another run that the folder holds.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar and no notes.")]
TokenizerName = Annotated[
    str | None,
    typer.Option(
        help="For every model, instead of its own: bytes, char:FILE, hf:PATH, bpe:FILES.",
        autocompletion=completion.tokenizers,
    ),
]
Revision = Annotated[str | None, typer.Option(help="Commit, tag or branch of a model on the Hub.")]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run Python code that comes with a Hugging Face checkpoint.")
]
RopeScaling = Annotated[
    str | None, typer.Option(help="Frequencies of RoPE: linear:4, dynamic:4, yarn:4, ntk:4, or JSON.")
]
RopeTheta = Annotated[float | None, typer.Option(help="RoPE's base.")]
Remap = Annotated[
    str | None,
    typer.Option(help="Distances of RoPE: self_extend:group=8,window=1024, rerope, leaky_rerope, dca, or log_n alone."),
]
AsPublished = Annotated[
    bool, typer.Option("--as-published", help="Keep the rows that pad a GPT-NeoX vocabulary in the softmax.")
]
