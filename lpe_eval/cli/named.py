"""What people name on the command line: models, text, and numbers that may also be a word."""

from pathlib import Path
from typing import Any, Literal

from lpe_eval.errors import SpecError

_OF_THE_HUB, _OF_IDS = {"hub", "wikitext"}, {"tokenized_bin"}
_OURS = _OF_THE_HUB | _OF_IDS | {"local", "python_stdlib", "urn", "echo"}
"""Corpora of which it is known what has an effect on them; others may heed any flag."""


def named_models(models: list[str] | None) -> list[str]:
    """The models of `-m`, or those that are measured where nobody names one.

    `all`, and every pattern such as `steps/*`, which a shell leaves alone in quotes, are spelled out.

    Raises:
        SpecError: a pattern matches nothing, or no checkpoint ships with this installation.
    """
    from glob import glob

    if not models:
        return _released("measured")
    found: list[str] = []
    for each in models:
        if each == "all":
            found += _released("all")
            continue
        if not set(each) & set("*[") or ":" in each or "=" in each or Path(each).exists():
            found.append(each)
            continue
        matches = sorted(glob(str(Path(each).expanduser())))  # noqa: PTH207, since the pattern may begin at the root
        if not matches:
            raise SpecError(f"-m {each}: no file or folder here matches this pattern")
        found += matches
    return found


def _released(which: Literal["measured", "all"]) -> list[str]:
    from lpe_eval.spec.released import measured_names, released_names

    names = measured_names() if which == "measured" else released_names()
    if not names:
        raise SpecError("no checkpoint ships with this installation; name one with -m")
    return names


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
