"""The configuration of a GPT-NeoX run, read from its yml files as GPT-NeoX reads them.

Source: `NeoXArgs.from_ymls` in chijames/KERPLE at 25be3d7, chuanyang-Zheng/DAPE at bde344a,
vangogh0318/MEP at 0407d35 and EleutherAI/gpt-neox at ea7aefd8. The files are YAML that looks like JSON,
with comments, Python's True and False and trailing commas. Dashes and underscores in keys are the same.
Several files are merged in the order of the command line, and the later one wins.

Deviations and choices:
    * A checkpoint keeps a copy of the files but not their order. Files that say different things about a
      key that matters here are refused until the order is given; the order of the others is of no
      consequence.
    * Only keys that decide what the model computes are read; defaults are GPT-NeoX's.
    * What the reference transformer cannot compute is refused by name, never ignored.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lpe_eval.errors import CheckpointError
from lpe_eval.plain import Unreadable, read_plain, yaml_of


class NeoxArgs(BaseModel):
    """The part of a GPT-NeoX configuration that a forward pass depends on."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())

    num_layers: int = Field(ge=1)
    hidden_size: int = Field(ge=1)
    num_attention_heads: int = Field(ge=1)
    seq_length: int = Field(ge=1)
    max_position_embeddings: int | None = Field(default=None, ge=1)
    model_parallel_size: int = Field(default=1, ge=1)
    pos_emb: str = "learned"
    opt_pos_emb_offset: int = Field(default=0, ge=0)
    rpe_num_buckets: int = Field(default=32, ge=1)
    rpe_max_distance: int = Field(default=128, ge=1)
    rotary_pct: float = Field(default=1.0, gt=0, le=1)
    rotary_emb_base: float = Field(default=10000.0, gt=1)
    alibi_scaling: int = 0
    mlp_width: int | None = Field(default=None, ge=1)
    dapev2_kernel: int = Field(default=3, ge=1)
    noise_seq_length: int | None = Field(default=None, ge=1)
    no_weight_tying: bool = False
    norm: str = "layernorm"
    layernorm_epsilon: float = Field(default=1e-5, gt=0)
    activation: str = "gelu"
    bias_gelu_fusion: bool = False
    gpt_j_residual: bool = False
    gpt_j_tied: bool = False
    use_bias_in_norms: bool = True
    use_bias_in_attn_linear: bool = True
    use_bias_in_mlp: bool = True
    attention_config: list[Any] | None = None
    apply_query_key_layer_scaling: bool = False
    num_kv_heads: int | None = None
    use_qk_layernorm: bool = False
    sliding_window_width: int | None = None
    use_mup: bool = False
    moe_num_experts: int = 1
    make_vocab_size_divisible_by: int = Field(default=128, ge=1)
    padded_vocab_size: int | None = Field(default=None, ge=1)
    tokenizer_type: str = "GPT2BPETokenizer"
    vocab_file: str | None = None
    merge_file: str | None = None


class NeoxConfig(BaseModel):
    """What the files say, and which they are, in the order of merging."""

    model_config = ConfigDict(frozen=True)

    args: NeoxArgs
    files: tuple[Path, ...]

    @property
    def where(self) -> str:
        """The files, for messages."""
        return f"{self.files[0].parent}/{{{','.join(file.name for file in self.files)}}}"


def config_files(folders: Sequence[Path]) -> list[Path]:
    """The yml files of the first folder, or its `configs`, that has any; in order of their names."""
    for folder in folders:
        for place in (folder / "configs", folder):
            found = sorted([*place.glob("*.yml"), *place.glob("*.yaml")])
            if found:
                return found
    return []


def read_config(files: Sequence[Path], order: Sequence[str] | None, address: str) -> NeoxConfig:
    """Merges the files.

    Args:
        files: all that there are.
        order: names of those to merge, as on the command line of the run; None merges all, which is
            refused where the order matters.
        address: the checkpoint's address, for messages.

    Raises:
        CheckpointError: a file is missing, unreadable, or disagrees; or a value is wrong.
    """
    by_name = {file.name: file for file in files}
    if order is not None:
        absent = [name for name in order if name not in by_name]
        if absent:
            raise CheckpointError(f"{address} has no config {absent[0]}, only {', '.join(by_name)}")
        files = [by_name[name] for name in order]
    merged: dict[str, Any] = {}
    said_by: dict[str, Path] = {}
    for file in files:
        for key, value in _read(file).items():
            name = key.replace("-", "_")
            if name not in NeoxArgs.model_fields:
                continue
            if order is None and name in merged and merged[name] != value:
                names = f"{said_by[name].name},{file.name}"
                raise CheckpointError(
                    f"{file.parent}: {said_by[name].name} and {file.name} disagree on {name}, and the later one wins; "
                    f"say in which order the run named them: neox:{address}?configs=[{names}]"
                )
            merged[name], said_by[name] = value, file
    try:
        return NeoxConfig(args=NeoxArgs.model_validate(merged), files=tuple(files))
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        where = said_by[key] if key in said_by else files[0].parent
        raise CheckpointError(f"{where}, {key}: {first['msg']}") from error


def refuse_unsupported(config: NeoxConfig) -> None:
    """Raises CheckpointError where the configuration asks for what the reference transformer does not compute."""
    args = config.args
    plain = {"global", "flash"}
    kinds = {kind for group in args.attention_config or [] for kind in _kinds(group)}
    reasons = {
        f"norm {args.norm}": args.norm not in ("layernorm", "te_layernorm"),
        f"activation {args.activation}": args.activation not in ("gelu", "relu"),
        f"attention {', '.join(sorted(kinds - plain))}": bool(kinds - plain),
        "apply_query_key_layer_scaling": args.apply_query_key_layer_scaling,
        "grouped key and value heads": args.num_kv_heads not in (None, args.num_attention_heads),
        "use_qk_layernorm": args.use_qk_layernorm,
        "sliding_window_width": args.sliding_window_width is not None,
        "use_mup": args.use_mup,
        "experts (moe_num_experts)": args.moe_num_experts > 1,
        f"alibi_scaling {args.alibi_scaling} with rotary": args.pos_emb == "rotary" and args.alibi_scaling != 0,
    }
    found = [reason for reason, holds in reasons.items() if holds]
    if found:
        raise CheckpointError(f"{config.where} has {found[0]}, which the reference transformer cannot compute")
    if args.hidden_size % args.num_attention_heads:
        raise CheckpointError(
            f"{config.where}: hidden_size {args.hidden_size} is no multiple of {args.num_attention_heads} heads"
        )


def activation_of(args: NeoxArgs) -> Literal["gelu", "relu", "gelu_tanh"]:
    """The reference transformer's name; the fused kernel of bias and GELU is the tanh approximation."""
    if args.activation == "relu":
        return "relu"
    return "gelu_tanh" if args.bias_gelu_fusion else "gelu"


def _read(file: Path) -> dict[str, Any]:
    try:
        raw = yaml_of(read_plain(file), keys_once=False)
    except Unreadable as error:
        raise CheckpointError(f"{file} cannot be read as YAML: it {error}") from error
    if not isinstance(raw, dict) or not all(isinstance(key, str) for key in raw):
        raise CheckpointError(f"{file} must hold keys and values, as GPT-NeoX writes them")
    return raw


def _kinds(group: Any) -> list[str]:
    # [[["global", "local"], 6], "global"]: lists of kinds repeated n times, or plain kinds.
    if isinstance(group, str):
        return [group]
    if isinstance(group, list) and group and isinstance(group[0], list):
        return [str(kind) for kind in group[0]]
    return [str(group)]
