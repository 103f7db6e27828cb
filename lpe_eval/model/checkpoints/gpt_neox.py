"""GPT-NeoX / DeepSpeed checkpoints: KERPLE's, DAPE's and MEP's, and those of GPT-NeoX itself.

Source: chijames/KERPLE at 25be3d7, chuanyang-Zheng/DAPE at bde344a, vangogh0318/MEP at 0407d35,
EleutherAI/gpt-neox at ea7aefd8. An address is the folder with `latest`, or one of its `global_step<n>`; it
may end in settings:

    ?kernels=[exp,exp_half,gaussian]    which kernels a MEP model averages; a list inside is a mean
    ?configs=[local_setup.yml,a.yml]    which configs the run named, in order; the later wins
    ?vocab=50277                        how many rows of the embedding are symbols
    ?remap=rerope:window=512            other distances for RoPE; rope_scaling and rope_theta as for Hugging Face

Deviations and choices:
    * Rows that pad the vocabulary are dropped from the embedding and the head, which masks them: nothing
      can be predicted that no text holds. Published numbers have them in the softmax; `as_published`
      keeps them.
    * Everything is computed in the dtype that is asked for, and distances, angles and softmax in float32;
      published runs computed all of it in bfloat16 (KERPLE, MEP) or float16 (DAPE). Options of the encodings
      reproduce that.
    * Scores of the future are masked to minus infinity; KERPLE and MEP fill in -10000.
    * The width of the MLP comes from the weights, because versions of the code differ in rounding it.
    * Biases that a configuration switches off are zero here.
    * In a block, the rows of the query-key-value matrix are grouped by head ([H, 3, d]); here they are
      grouped by kind ([3, H, d]).
"""

import hashlib
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from lpe_eval.errors import CheckpointError, LpeEvalError, UnknownName
from lpe_eval.model.checkpoint import CheckpointFormat, LoadOptions, Peek
from lpe_eval.model.foreign.neox_config import NeoxConfig, config_files, read_config, refuse_unsupported
from lpe_eval.model.foreign.neox_files import Step, embedding_rows, find_step, read_weights, weight_files
from lpe_eval.model.foreign.neox_mapping import NeoxMapping
from lpe_eval.model.foreign.neox_vocabulary import Vocabulary, real_symbols, vocabulary_of
from lpe_eval.model.language_model import LanguageModel
from lpe_eval.model.needed_memory import refuse_what_does_not_fit
from lpe_eval.model.rope_changes import SETTINGS, changed, digest_of_changed, taken
from lpe_eval.model.transformer import Transformer
from lpe_eval.model.transformer_model import TransformerModel
from lpe_eval.model.weight_files import stored_types
from lpe_eval.reference import split_settings
from lpe_eval.spec.model_spec import CheckpointSpec


class GptNeox(CheckpointFormat):
    """See the module's docstring."""

    heeds: ClassVar[frozenset[str]] = frozenset({"as_published", *SETTINGS})
    settings: ClassVar[tuple[str, ...]] = ("configs", "kernels", "vocab", *SETTINGS)

    @classmethod
    def recognises(cls, path: Path) -> bool:
        try:
            step = find_step(path)
        except CheckpointError:
            return bool(config_files([path, *sorted(path.glob("global_step*"))]))
        return step is not None and bool(config_files([step.folder, step.run]))

    @classmethod
    def peek(cls, path: str | Path, options: LoadOptions) -> Peek:
        opened = _open(path)
        options = taken(options, opened.settings, opened.address)
        name = _name(opened)
        if any(getattr(options, each) is not None for each in SETTINGS):
            # What is changed is known once the layers are, as the model's shape is.
            name = _mapped(opened, options)[0].name
        return Peek(name, opened.vocabulary.tokenizer, digest_of_changed(_digest(opened, options), options))

    @classmethod
    def stored_types(cls, path: str | Path) -> list[str]:
        step = find_step(Path(split_settings(str(path)).address))
        return [] if step is None else stored_types(weight_files(step))

    @classmethod
    def load(cls, path: str | Path, options: LoadOptions) -> LanguageModel:
        opened = _open(path)
        options = taken(options, opened.settings, opened.address)
        spec, mapping = _mapped(opened, options)
        refuse_what_does_not_fit(spec.model, opened.config.where)
        try:
            model = Transformer(spec.model, options.attention)
        except LpeEvalError as error:
            raise CheckpointError(f"{opened.config.where}: {error}") from error
        mapping.fill(model)
        model.put(options.device, options.dtype)
        digest = digest_of_changed(_digest(opened, options), options)
        return TransformerModel(model.eval(), spec, digest, options, "gpt_neox", mapping.mapped)


class _Opened(NamedTuple):
    """A checkpoint found and its configuration read."""

    address: str
    step: Step
    config: NeoxConfig
    vocabulary: Vocabulary
    kernels: list[Any] | None
    vocab: int | None
    settings: dict[str, Any]


def _mapped(opened: _Opened, options: LoadOptions) -> tuple[CheckpointSpec, NeoxMapping]:
    """What a native checkpoint of it would say, RoPE changed as the options ask, and what fills it."""
    refuse_unsupported(opened.config)
    args, where = opened.config.args, opened.address
    weights = read_weights(opened.step, args.model_parallel_size, args.gpt_j_residual)
    rows = embedding_rows(weights, where)
    symbols = rows if options.as_published else real_symbols(opened.vocabulary, args, rows, opened.vocab, where)
    mapping = NeoxMapping(opened.config, weights, symbols, opened.kernels, opened.step.folder)
    tokenizer = options.tokenizer or opened.vocabulary.tokenizer
    spec = CheckpointSpec(name=_name(opened), tokenizer=tokenizer, model=mapping.spec())
    return changed(spec, options, where), mapping


def _open(path: str | Path) -> _Opened:
    address, settings = split_settings(str(path))
    unknown = [key for key in settings if key not in GptNeox.settings]
    if unknown:
        raise UnknownName("setting of a GPT-NeoX checkpoint", unknown[0], GptNeox.settings)
    if not Path(address).is_dir():
        raise CheckpointError(f"there is no folder {address}")
    step = find_step(Path(address))
    if step is None:
        raise CheckpointError(
            f"{address} is no GPT-NeoX checkpoint: it holds no `latest`, global_step folder or layers"
        )
    files = config_files([step.folder, step.run])
    if not files:
        raise CheckpointError(
            f"{step.folder} and {step.run} hold no yml, alone or in `configs`, so the model is unknown"
        )
    order, kernels, vocab = (settings.get(key) for key in ("configs", "kernels", "vocab"))
    if not (order is None or isinstance(order, list)) or not (kernels is None or isinstance(kernels, list)):
        raise CheckpointError(f"{path}: configs and kernels are lists, such as [a,b]")
    if not (vocab is None or isinstance(vocab, int)):
        raise CheckpointError(f"{path}: vocab is a number, not {vocab!r}")
    config = read_config(files, None if order is None else [str(name) for name in order], address)
    places = list(dict.fromkeys([step.folder, step.folder / "configs", step.run, step.run / "configs"]))
    return _Opened(address, step, config, vocabulary_of(config.args, places), kernels, vocab, settings)


def _name(opened: _Opened) -> str:
    return opened.step.run.resolve().name


def _digest(opened: _Opened, options: LoadOptions) -> str:
    summed = hashlib.sha256(repr((opened.kernels, opened.vocab, options.as_published)).encode())
    for file in (*opened.config.files, *weight_files(opened.step)):
        with file.open("rb") as content:
            summed.update(hashlib.file_digest(content, "sha256").digest())
    return summed.hexdigest()
