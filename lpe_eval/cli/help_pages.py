"""How a help page is laid out: which flags stand together, and what to type.

One flag means one thing in every command, so it stands under one heading everywhere unless a command says otherwise
here. A flag that nobody placed stands under `Measurement`.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

_OUTPUT = "Output"
_EVERYWHERE: dict[str, tuple[str, ...]] = {
    "Model": (
        *("model", "models", "tokenizer", "revision", "trust_remote_code", "rope_scaling", "rope_theta", "remap"),
        *("as_published", "allow_leak"),
    ),
    "Text": ("task", "data", "split", "text_column", "subset", "streaming", "token_dtype", "max_tokens"),
    "Windows": ("lengths", "protocol", "stride", "last_k", "bos", "pack", "tail", "seed"),
    "Speed": (
        *("batch_size", "device", "device_map", "tensor_parallel", "dtype", "attention", "deterministic", "jobs"),
        *("shard", "engine", "workers", "gpus_per_worker", "cpus_per_worker"),
    ),
    _OUTPUT: ("out", "overwrite", "dry_run", "quiet", "baseline", "log_to", "json", "form"),
}
_SHAPE = ("width", "layers", "heads")
_OF_COMMAND: dict[str, dict[str, tuple[str, ...]]] = {
    "che": {
        "Encoders": ("train", "encoding", "protocol", "model"),
        "Problems": ("tasks", "lengths", "samples", "seed", "deepmind_compat"),
    },
    "compare": {
        "What it is compared with": ("baseline", "allow"),
        "When it is worse": ("tolerance", "sigmas", "detectable"),
        "Reports": ("json", "junit", "markdown"),
        "A new baseline": ("bless", "overwrite"),
    },
    "convert": {"Checkpoint": ("dtype", "tokenizer", "as_published"), _OUTPUT: ("overwrite",)},
    "diff": {"What is set beside what": ("against", "against_length")},
    "bias": {"What is looked at": ("position", "samples", "layers")},
    "ppl": {
        "Single tokens": ("keep_tokens", "key_tokens", "key_gain", "key_loss", "key_short", "key_weighting"),
    },
    "recall": {
        "What is asked": (
            *("tests", "passages", "piece", "repeat_tokens", "prompts", "needle", "depths", "candidates", "pairs"),
            *("n_pairs", "share", "least"),
        ),
    },
    "export": {_OUTPUT: ("option",)},
    "slurm": {
        "The array": ("array", "at_once", "gpus", "cpus", "mem", "time", "partition", "sbatch", "setup"),
        _OUTPUT: ("submit",),
    },
    "watch": {"What is watched": ("every", "once", "last_step"), _OUTPUT: ("out", "quiet")},
    "show": {
        "Values alone": ("over_seeds", "form", "columns", "error_digits", "transpose"),
        _OUTPUT: ("cite", "spec"),
    },
    "speed": {
        "What is timed": ("encoding", "lengths", "mode", "rounds", "batch_tokens"),
        "Model": _SHAPE,
    },
    "train": {
        "Model": ("encoding", "option", "name", *_SHAPE, "train_length"),
        "Text": ("data", "tokenizer"),
        "Training": ("steps", "batch_tokens", "learning_rate", "warmup_steps", "seed", "seeds"),
    },
}
_ELSE = "Measurement"

_EXAMPLES: dict[str, tuple[tuple[str, str], ...]] = {
    "init": (
        ("a spec and a workflow, to be filled in", "lpe-eval init"),
        ("for a checkpoint and text of your repository", "lpe-eval init -m mine=checkpoints/mine --data texts"),
    ),
    "doctor": (
        ("what runs here, and how fast", "lpe-eval doctor"),
        ("the same for a program", "lpe-eval doctor --json"),
    ),
    "ppl": (
        ("what ships, one of each kind", "lpe-eval ppl --lengths 512,8192"),
        ("two models on your own text", "lpe-eval ppl -m alibi -m rope --data books --max-tokens 200000"),
        ("a model of the Hub, at lengths that double", "lpe-eval ppl -m hf:org/name --lengths 512:8192:x2"),
        ("your own torch module: how long would it take?",
         "lpe-eval ppl -m py:mine.py:make --tokenizer bytes --dry-run"),
    ),
    "merge": (
        ("four shards that shared a folder", "lpe-eval merge results/sweep"),
        ("shards of several machines", "lpe-eval merge node-1 node-2 --out results/sweep"),
    ),
    "watch": (
        ("checkpoints of a training as they appear", "lpe-eval watch runs/mine --lengths 512,8192 --out steps"),
        ("those that are there, on your own text", "lpe-eval watch runs/mine --once --data books --max-tokens 50000"),
    ),
    "slurm": (
        ("print a job array of 16 shards, and its merging job",
         "lpe-eval slurm ppl -m hf:org/name --out /shared/sweep --array 16"),
        ("submit it, with a GPU for each task",
         "lpe-eval slurm ppl -m alibi --out /shared/sweep --gpus 1 --submit"),
    ),
    "che": (
        ("an encoder that ships, on two problems", "lpe-eval che -m rope --tasks parity_check,reverse_string"),
        ("train two encoders, then score them",
         "lpe-eval che --train --encoding 'alibi,dape(kerple_log)' --out encoders"),
        ("how long would the whole protocol take?", "lpe-eval che --train --encoding fire --protocol dape --dry-run"),
    ),
    "recall": (
        ("how far two models recall", "lpe-eval recall -m alibi -m rope"),
        ("needles alone, at eleven depths", "lpe-eval recall -m alibi --tests needle --depths 0:100:+10"),
        ("in your own text, as one dry look", "lpe-eval recall -m alibi --data books --dry-run"),
    ),
    "compare": (
        ("make a run a baseline, once", "lpe-eval compare first --bless good"),
        ("is the next one worse?", "lpe-eval compare next --baseline good"),
        ("two outputs of lm-evaluation-harness --log_samples", "lpe-eval compare out/next --baseline ./out/last"),
        ("in CI, with reports for people and machines",
         "lpe-eval compare next --baseline good --junit gate.xml --markdown gate.md"),
    ),
    "speed": (
        ("what the encodings cost on this machine", "lpe-eval speed"),
        ("two of them at long windows, scoring alone",
         "lpe-eval speed --encoding alibi,fire --lengths 8192 --mode forward"),
    ),
    "run": (
        ("a run of yours once more, from what it left", "lpe-eval run first/spec.yaml --out again"),
        ("a study: many trainings, two at once", "lpe-eval run study.yaml --jobs 2"),
        ("what would it do?", "lpe-eval run study.yaml --dry-run"),
    ),
    "train": (
        ("a small model in a minute or two", "lpe-eval train --encoding alibi --steps 200 --out mine"),
        ("on your own text, with windows in three of four layers",
         "lpe-eval train --encoding 'rope[window=128]*3,none' --data books --out mine"),
        ("three seeds of one recipe: how long would it take?",
         "lpe-eval train --encoding alibi --seeds 1,2,3 --out seeds --dry-run"),
    ),
    "convert": (
        ("a GPT-NeoX checkpoint, with its tokenizer",
         "lpe-eval convert neox:checkpoint native --tokenizer hf:tokenizer.json"),
        ("half the bytes", "lpe-eval convert alibi native --dtype bfloat16"),
    ),
    "plot": (
        ("the figures of a run again", "lpe-eval plot first"),
        ("two runs in one figure, two of their models", "lpe-eval plot first next --models alibi,rope --out together"),
    ),
    "report": (
        ("a page of a run, to open or to send", "lpe-eval report first --out first.html"),
        ("two runs in one page, with verdicts", "lpe-eval report first next --baseline good"),
    ),
    "inspect": (
        ("a checkpoint that ships", "lpe-eval inspect alibi"),
        ("a model of the Hub, taken four times further", "lpe-eval inspect hf:org/name --rope-scaling yarn:4"),
        ("every checkpoint of a folder", "lpe-eval inspect 'steps/*'"),
    ),
    "bias": (
        ("what the heads of a checkpoint add, far back", "lpe-eval bias dape-kerple-log --position 2048"),
        ("two layers of a model of the Hub", "lpe-eval bias hf:org/name --position 4096 --layers 0,5"),
    ),
    "list": (
        ("what can be listed", "lpe-eval list"),
        ("an encoding's options", "lpe-eval list encodings fire"),
        ("what a spec file may say", "lpe-eval list fields ppl"),
        ("what the columns of the tables mean", "lpe-eval list columns"),
    ),
    "show": (
        ("a run's values, and what made them", "lpe-eval show first"),
        ("what to cite for it, as BibTeX", "lpe-eval show first --cite"),
        ("for a paper, errors as in 1.234(5)", "lpe-eval show first --format latex --error-digits 1"),
        ("stored numbers, with every digit", "lpe-eval show first --format csv --columns model,length,metric,value"),
    ),
    "export": (
        ("records for the collection of Every Eval Ever",
         "lpe-eval export first --format every-eval-ever --option organization='My lab'"),
        ("results for a model on the Hub",
         "lpe-eval export first --format eval-results --option dataset=org/benchmark"),
    ),
    "diff": (
        ("my model beside another one", "lpe-eval diff first --against alibi"),
        ("what longer windows change", "lpe-eval diff first --against-length 512 --as markdown"),
    ),
}  # fmt: skip


def examples_of(name: str, flags: frozenset[str] = frozenset()) -> tuple[tuple[str, str], ...]:
    """What to type, each with what it does.

    Args:
        name: of a command.
        flags: that it has; for a kind of run from another package, whose own are not known here.
    """
    if name in _EXAMPLES:
        return _EXAMPLES[name]
    if not flags >= {"--model", "--out"}:
        return ()
    return (
        ("two models that ship", f"lpe-eval {name} -m alibi -m rope --out first"),
        ("every model that ships", f"lpe-eval {name} -m all --out all"),
        ("what came out", "lpe-eval show first"),
    )


def laid_out(command: Any, name: str, ctx: Any) -> Any:
    """A command of click whose flags stand under headings and whose page ends with examples.

    Args:
        command: changed in place; once more changes nothing.
        name: of the command.
        ctx: of the group around it.
    """
    # typer keeps the line ends of a docstring, which belong to the width of a source file.
    told = (command.help or "").partition("\nAttributes:")[0]
    command.help = _as_written("\n\n".join(" ".join(each.split()) for each in told.split("\n\n")).strip())
    places = {
        flag: heading
        for headings in (_EVERYWHERE, _OF_COMMAND.get(name, {}))
        for heading, flags in headings.items()
        for flag in flags
    }
    order = list(dict.fromkeys([*_OF_COMMAND.get(name, {}), *_EVERYWHERE, _ELSE]))
    order = [*(heading for heading in order if heading != _OUTPUT), _OUTPUT]
    for each in command.params:
        if getattr(each, "help", None):
            each.help = _as_written(each.help)
        if each.param_type_name == "option":
            each.rich_help_panel = places.get(each.name, _ELSE)
    # Headings are shown in the order in which flags come. Arguments stay in front.
    command.params.sort(key=lambda each: order.index(each.rich_help_panel) if each.param_type_name == "option" else -1)
    of_help = command.get_help_option(ctx)
    if of_help is not None:
        of_help.rich_help_panel = _OUTPUT
    flags = frozenset(flag for each in command.params for flag in each.opts)
    examples = examples_of(name, flags)
    if examples and "_without_examples" not in vars(command):
        # Below the page that typer makes, whose versions differ in what they do to the line ends of an epilog.
        command._without_examples = command.format_help
        command.format_help = partial(_page, command.format_help, examples)
    return command


def _page(page: Callable[[Any, Any], None], examples: tuple[tuple[str, str], ...], ctx: Any, formatter: Any) -> None:
    from lpe_eval.console import lines

    page(ctx, formatter)
    lines("\n".join([" Examples", *(f"\n {typed}\n     # {told}" for told, typed in examples)]))


def _as_written(text: str) -> str:
    """A text in which rich takes no bracket for its own markup: `rope[window=512]`."""
    return re.sub(r"(?<!\\)\[(?=[a-z#/@])", r"\\[", text)
