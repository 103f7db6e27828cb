"""A spec and a workflow for somebody's own repository: what they hold, and how they are written without harm.

Choices:
    * The workflow is the file that lies beside the baselines that ship, with a few values filled in, so what is tested
      there is what is written here.
    * What pip should install is known only where pip itself has noted a repository and a commit (PEP 610); a bare name
      may belong to anybody, so it is left empty otherwise, and the workflow says so before it does anything.
    * A file that is there stays, whatever it holds.
"""

import contextlib
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import yaml

from lpe_eval.errors import OutputError, SpecError
from lpe_eval.spec.ppl_spec import PerplexitySpec
from lpe_eval.spec.released import shipped_baselines
from lpe_eval.spec.tasks import parse_spec

SPEC, WORKFLOW = Path("ppl.yaml"), Path(".github/workflows/length-gate.yml")
_TEMPLATE = "gate-your-checkpoint.yml"
_BUDGET = 36
"""Tokens of text over the longest length with which the gate sees a change of half a per cent (docs/gate.md)."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

_TEXT = """\
# What is measured by: lpe-eval run ppl.yaml
# How long it takes:   lpe-eval run ppl.yaml --dry-run
# Every field:         lpe-eval list fields ppl
kind: ppl

# Each as `ppl -m` takes it; a name and = in front are what tables call it.
#   mine=checkpoints/mine        a folder, whose content tells its format
#   mine=hf:org/name@revision    the Hugging Face Hub; needs pip install 'lpe-eval[hf]'
#   mine=py:model.py:make        a torch module of your own: make() returns it
models:{models}

# A file or a folder of text (of a folder with training text the test split), or hub:org/name@revision.
# python-stdlib is the library of the Python that runs this: with another Python it is other text.
corpus: {corpus}

# How text is cut into windows, and which tokens count.
protocols:
  - {{name: nonoverlap}}              # windows side by side: every token once
  # - {{name: sliding, stride: 256}}  # windows that overlap: more context for each token, more work
  # - {{name: anchored, last_k: 256}} # the same tokens at every length: two lengths differ by context alone

# Tokens of a window. Begin with the length that the models were trained at; what lies beyond it is the question.
lengths: {lengths}

# Tokens of text at every length. So much lets a comparison see a change of half a per cent.
max_tokens: {max_tokens}

# As in CI. A GPU measures in bfloat16, which is not compared with float32.
device: cpu
dtype: float32
"""


class Begun(NamedTuple):
    """What was written, and sentences about the rest."""

    written: list[Path]
    notes: list[str]


def begin(folder: Path, models: Sequence[str], data: str, lengths: Sequence[int], baseline: str) -> Begun:
    """Writes a spec and a workflow into a repository; a file that is there is left as it is.

    Args:
        folder: top of the repository.
        models: what is measured.
        data: the text.
        lengths: of the windows.
        baseline: what the workflow compares with.

    Raises:
        SpecError: a model, the text or a length cannot be, or a baseline cannot be called so.
        OutputError: a file cannot be written.
    """
    if not _NAME.fullmatch(baseline):
        raise SpecError(f"a baseline cannot be called {baseline!r}; use letters, digits, dots, dashes and underscores")
    # Paths in the spec are told from the top of the repository, where it will be run.
    with contextlib.chdir(folder if folder.is_dir() else Path()):
        spec = _spec(models, data, lengths)
    contents = {SPEC: spec, WORKFLOW: _workflow(baseline)}
    written, notes = [], []
    for name, content in contents.items():
        path = folder / name
        if _put(path, content):
            written.append(path)
        else:
            notes.append(f"{path} is there already and was left as it is")
    if folder / WORKFLOW in written and not _installed_from():
        notes.append(f"say at the top of {folder / WORKFLOW} what pip installs, as LPE_EVAL")
    notes.append(
        f"next: {'' if folder == Path() else f'cd {shlex.quote(str(folder))} && '}lpe-eval run {SPEC} --dry-run"
    )
    return Begun(written, notes)


def requirement_of(noted: Mapping[str, Any]) -> str:
    """What pip has to be told to install the same again; empty where that is not a public address with a commit.

    Args:
        noted: `direct_url.json` of an installed package (PEP 610).
    """
    url, source = str(noted.get("url", "")), noted.get("vcs_info") or {}
    address = urlsplit(url)
    if source.get("vcs") != "git" or address.scheme != "https" or "@" in address.netloc:
        # What stands before an @ may be a password.
        return ""
    commit = str(source.get("commit_id", ""))
    return f"lpe-eval[hf] @ git+{url}@{commit}" if re.fullmatch("[0-9a-f]{40}", commit) else ""


def _installed_from() -> str:
    try:
        return requirement_of(json.loads(metadata.distribution("lpe-eval").read_text("direct_url.json") or "{}"))
    except (metadata.PackageNotFoundError, ValueError):
        return ""


def _spec(models: Sequence[str], data: str, lengths: Sequence[int]) -> str:
    lengths = sorted(set(lengths))
    text = _TEXT.format(
        models="".join(f"\n  - {_scalar(each)}" for each in models),
        corpus=_scalar(data),
        lengths=list(lengths),
        max_tokens=_BUDGET * max(lengths),
    )
    # What cannot be is better told now than by the first run.
    parse_spec(yaml.safe_load(text), PerplexitySpec, "init")
    return text


def _scalar(text: str) -> str:
    """A text as YAML reads it back, on one line."""
    return yaml.safe_dump(text, default_flow_style=True, width=10**6, allow_unicode=True).removesuffix("...\n").strip()


def _workflow(baseline: str) -> str:
    found = [place / _TEMPLATE for place in shipped_baselines() if (place / _TEMPLATE).is_file()]
    if not found:
        raise OutputError(f"this installation lacks the file {_TEMPLATE}; install it again")
    text = found[0].read_text(encoding="utf-8")
    for name, value in {"LPE_EVAL": _installed_from(), "SPEC": SPEC.as_posix(), "BASELINE": baseline}.items():
        text, count = re.subn(
            rf"^  {name}: .*$", lambda _, n=name, v=value: f"  {n}: {json.dumps(v)}", text, flags=re.M
        )
        assert count == 1, f"{_TEMPLATE} has no line for {name}"
    return text


def _put(path: Path, content: str) -> bool:
    """Writes a file that is not there; False if it is."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8", newline="\n") as file:
            file.write(content)
    except FileExistsError:
        if path.exists() or path.is_symlink():
            return False
        raise OutputError(f"cannot write {path}: {path.parent} is no folder") from None
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}; choose another folder") from error
    return True
