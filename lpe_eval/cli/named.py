"""What people name on the command line: text, and numbers that may also be a word."""

from typing import Any

from lpe_eval.errors import SpecError

_OF_THE_HUB, _OF_IDS = {"hub", "wikitext"}, {"tokenized_bin"}
_OURS = _OF_THE_HUB | _OF_IDS | {"local", "python_stdlib", "urn", "echo"}
"""Corpora of which it is known what has an effect on them; others may heed any flag."""


def named_corpus(data: str | None, flags: dict[str, Any], usual: dict[str, Any]) -> dict[str, Any] | None:
    """The corpus of `--data` and the flags that belong to it; None where nothing is named.

    Args:
        data: as typed.
        flags: by the field that each sets, None where it was not typed.
        usual: the corpus where `--data` was not typed.

    Raises:
        SpecError: there is no such corpus, or a flag has no effect on it.
    """
    from lpe_eval.spec.corpus_spec import CorpusSpec

    changes = {name: value for name, value in flags.items() if value is not None}
    if data is None and not changes:
        return None
    base = usual if data is None else CorpusSpec.parse(data).model_dump(mode="json")
    if "token_dtype" in changes and base["name"] == "local":
        base["name"] = "tokenized_bin"
    for name, kinds in {"subset": _OF_THE_HUB, "streaming": _OF_THE_HUB, "token_dtype": _OF_IDS}.items():
        if name in changes and base["name"] in _OURS - kinds:
            raise SpecError(
                f"--{name.replace('_', '-')} has no effect on the corpus {base['name'].replace('_', '-')}; leave it out"
            )
    return base | changes


def whole(flag: str, text: str) -> int:
    """A whole number where `auto` might stand as well.

    Raises:
        SpecError: it is neither.
    """
    try:
        return int(text)
    except ValueError:
        raise SpecError(f"{flag}: {text!r} is neither a whole number nor auto") from None
