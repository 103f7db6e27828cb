"""Tokenizers of the library `tokenizers`, as `tokenizer.json` holds them: ids, bytes, and what is unknown.

`Tokenizer.from_file` is what decides ids. The classes of `transformers` 5 put some parts together anew, from the name
of a class instead of the file, and so lose a pre-tokenizer or a normaliser that the file has.
"""

import json
from collections.abc import Mapping
from typing import Any

from lpe_eval.data.spans import shown, with_bytes
from lpe_eval.data.tokenizer import EncodedText, told_by

_PARTS = ("normalizer", "pre_tokenizer", "model")


def encode(tokenizer: Any, text: str, name: str) -> EncodedText:
    """The tokens of a text without control tokens, and their bytes.

    Raises:
        DataError: the library cannot encode it.
    """
    with told_by(f"a text with the tokenizer {name}", what="cannot be encoded"):
        found = tokenizer.encode(shown(text), add_special_tokens=False)
    return with_bytes(text, found.ids, [stop for _, stop in found.offsets])


def same_ids(one: Any, other: Any) -> bool:
    """Whether two tokenizers make ids by the same parts; what they put around a text is not looked at."""
    parts = [json.loads(each.to_str()) for each in (one, other)]
    return all(_plain(parts[0][part]) == _plain(parts[1][part]) for part in _PARTS)


def unknown_id(tokenizer: Any) -> int | None:
    """The id of what no symbol stands for; None where there is none, as with bytes."""
    model: Mapping[str, Any] = json.loads(tokenizer.to_str())["model"]
    if isinstance(model.get("unk_id"), int):
        return model["unk_id"]
    symbol = model.get("unk_token")
    return tokenizer.token_to_id(symbol) if symbol else None


def before(plain: list[int], full: list[int]) -> list[int]:
    """What stands before a sequence of ids in another one that holds it."""
    for start in range(len(full) - len(plain) + 1):
        if plain and full[start : start + len(plain)] == plain:
            return full[:start]
    return []


def _plain(part: Any) -> Any:
    """A part without what says nothing: an empty sequence, and settings that are empty."""
    if not isinstance(part, dict):
        return part
    for listed in ("normalizers", "pretokenizers"):
        if part.get("type") == "Sequence" and isinstance(part.get(listed), list):
            inner = [_plain(each) for each in part[listed]]
            return inner[0] if len(inner) == 1 else {"type": "Sequence", listed: inner} if inner else None
    return {key: value for key, value in part.items() if key == "type" or value not in (None, "", False)}
