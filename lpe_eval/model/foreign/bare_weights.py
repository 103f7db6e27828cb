"""A file of weights without a config: which three lines of Python make it a model that can be measured.

Who wrote a file is told by the text constants in it, or by the seven numbers at its head; nothing is built or run.
"""

import struct
from pathlib import Path

from lpe_eval.model.foreign.pickles import texts_in

_PICKLES = (".pt", ".pth", ".ckpt", ".bin", ".tar")
_NANO_GPT = {"model", "model_args", "iter_num"}
_LIGHTNING = {"state_dict", "pytorch-lightning_version"}


def how_to_open(path: Path) -> str:
    """A sentence for a file of weights, or for a folder that holds one and nothing that says what it is.

    Empty where it is neither.
    """
    file = path
    if path.is_dir():
        found = sorted(each for each in path.iterdir() if each.is_file() and _is_weights(each))
        if not found:
            return ""
        file = found[-1]
    elif not path.is_file() or not _is_weights(path):
        return ""
    what, lines = _lines(file)
    shown = ", ".join(f"line {number}: `{line}`" for number, line in enumerate(lines, 1))
    beside = ""
    if (file.parent / "config.json").is_file() and file == path:
        beside = f"; beside it lies a config.json, so perhaps you mean -m hf:{file.parent}"
    return (
        f"{what}, and no file beside it says which code runs them; write that code's name into a file mine.py "
        f"({shown}) and measure -m py:mine.py:make{beside}"
    )


def _is_weights(path: Path) -> bool:
    return path.suffix in (*_PICKLES, ".safetensors")


def _lines(file: Path) -> tuple[str, list[str]]:
    """What a file is, and the lines: imports, the head of the function, and its body."""
    name, head = repr(str(file)), "def make():"
    if file.suffix == ".safetensors":
        body = f"model = Model(); model.load_state_dict(load_file({name})); return model"
        imports = "from safetensors.torch import load_file; from your_code import Model"
        return "it holds weights alone", [imports, head, f"    {body}"]
    if _is_llama2_c(file):
        body = f"return load_checkpoint({str(file.with_suffix('.pt'))!r})"
        what = "it holds weights for the C program of llama2.c, whose training wrote the same to a .pt file"
        return what, ["from export import load_checkpoint", head, f"    {body}"]
    texts = texts_in(file)
    if texts >= _NANO_GPT:
        of_args = "GPT(GPTConfig(**held['model_args']))"
        imports = "import torch; from model import GPT, GPTConfig"
        if "n_kv_heads" in texts:
            imports, of_args = (
                "import torch; from model import ModelArgs, Transformer",
                ("Transformer(ModelArgs(**held['model_args']))"),
            )
        plain = "{key.removeprefix('_orig_mod.'): each for key, each in held['model'].items()}"
        body = f"held = torch.load({name}, 'cpu'); model = {of_args}; model.load_state_dict({plain}); return model"
        what = f"it is a checkpoint as {'llama2.c' if 'n_kv_heads' in texts else 'nanoGPT'} writes them"
        return what, [imports, head, f"    {body}"]
    held = f"torch.load({name}, 'cpu')" + ("['state_dict']" if texts >= _LIGHTNING else "")
    body = f"model = Model(); model.load_state_dict({held}); return model"
    return "it holds weights alone", ["import torch; from your_code import Model", head, f"    {body}"]


def _is_llama2_c(file: Path) -> bool:
    """Whether a file begins with the sizes that llama2.c writes: seven numbers, or its magic number and a version."""
    with file.open("rb") as stream:
        head = stream.read(28)
    if len(head) < 28:
        return False
    if head[:4] == b"24ka":
        return True
    width, hidden, layers, heads, kv_heads, symbols, length = struct.unpack("<7i", head)
    sizes = (width, hidden, layers, heads, kv_heads, abs(symbols), length)
    return all(0 < each < 1 << 24 for each in sizes) and width % heads == 0 and heads % kv_heads == 0
