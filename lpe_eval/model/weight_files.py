"""What weight files hold, read from their heads: loading converts, so a loaded model does not tell."""

from collections.abc import Iterable
from pathlib import Path

from safetensors import SafetensorError, safe_open

from lpe_eval.errors import CheckpointError
from lpe_eval.model.foreign.pickles import texts_in

_STORED_AS = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "torch DoubleStorage": "float64", "torch FloatStorage": "float32",
    "torch HalfStorage": "float16", "torch BFloat16Storage": "bfloat16",
}  # fmt: skip


def stored_types(files: Iterable[Path]) -> list[str]:
    """The floating types in safetensors files and pickles, sorted.

    Of a safetensors file the header is read, of a pickle the names of storages.

    Raises:
        CheckpointError: a safetensors file is damaged.
    """
    named = {name for file in files for name in (_header(file) if file.suffix == ".safetensors" else texts_in(file))}
    return sorted({_STORED_AS[name] for name in named if name in _STORED_AS})


def _header(file: Path) -> set[str]:
    try:
        with safe_open(file, framework="pt") as weights:
            names = list(weights.keys())
            return {weights.get_slice(name).get_dtype() for name in names}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} is not a readable safetensors file: {error}") from error
