"""The tokenizer of a Hugging Face model: a local folder, a `tokenizer.json`, a `.gguf`, or `org/name[@revision]`.

What is here is opened before any Hub is asked, and what can only be a path is not looked for there.

Choices:
    * Control tokens are never added here. A text that spells one out ("</s>") is read as `transformers`
      reads it, usually as that control token.
    * Ids are those of `tokenizer.json`, where there is one: it is compared with what `transformers` made of it, and
      where the two differ in normaliser, pre-tokenizer or model, the file decides.
    * `adds_bos` is found by trial: what stands before "a" when control tokens are added. One token there is BOS for us,
      whatever it is called; more than one cannot be fed, and `prefix` names them.
    * A file by itself does not name its end of text: it is <|endoftext|> or </s>, if it has one.
    * Tokenizers in Python say which characters a token stands for only by what it decodes to. Where the pieces do not
      make up the text, tokens have no bytes, hence a run no bits per byte.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lpe_eval.data import rust_tokenizers as rust
from lpe_eval.data.beginnings import first_tokens
from lpe_eval.data.spans import shown, with_bytes
from lpe_eval.data.texts import Text
from lpe_eval.data.tokenizer import EncodedText, Tokenizer, is_missing, told_by
from lpe_eval.errors import DataError, MissingExtra, SpecError
from lpe_eval.spec.model_spec import FOLDER

_FILE, _CONFIG = "tokenizer.json", "tokenizer_config.json"
_BEGINNINGS = ("tokenizer", "vocab", "merges", "special_tokens_map", "added_tokens", "spiece", "dict")
_ENDS = ("<|endoftext|>", "</s>")


class HuggingFace(Tokenizer):
    """See the module's docstring.

    Args:
        name: how it is opened again.
        tokenizer: a tokenizer of `transformers`.
        backend: the one of `tokenizers` that makes ids; None where there is none.
    """

    def __init__(self, name: str, tokenizer: Any, backend: Any) -> None:
        self.name = name
        self._tokenizer, self._backend = tokenizer, backend
        bos, self.eos_id = tokenizer.bos_token_id, tokenizer.eos_token_id
        before = self._before()
        self.adds_bos = len(before) == 1 or (bos is not None and before[:1] == [bos])
        self.bos_id = before[0] if self.adds_bos else bos
        if len(before) > 1:
            self.prefix = tuple(map(str, tokenizer.convert_ids_to_tokens(before)))
        vocabulary = backend.get_vocab() if backend is not None else tokenizer.get_vocab()
        numbers = [number for number in vocabulary.values() if isinstance(number, int)]
        self.vocab_size = max(len(tokenizer), max(numbers, default=-1) + 1)
        if backend is None:
            rules = json.dumps(
                [type(tokenizer).__qualname__, sorted(vocabulary.items()), bos, self.eos_id], default=str
            )
            self.unknown_id = tokenizer.unk_token_id
        else:
            # A stored limit would cut long texts in silence.
            backend.no_truncation()
            backend.no_padding()
            rules = f"{backend.to_str()}\0{bos}\0{self.eos_id}"
            self.unknown_id = rust.unknown_id(backend)
        self.fingerprint = hashlib.sha256(rules.encode("utf-8", "surrogatepass")).hexdigest()

    @classmethod
    def open(cls, argument: str) -> "HuggingFace":
        return cls._opened(argument, False)

    @classmethod
    def open_with_code(cls, argument: str) -> "HuggingFace":
        return cls._opened(argument, True)

    @classmethod
    def _opened(cls, argument: str, trust_remote_code: bool) -> "HuggingFace":
        try:
            import transformers
            from tokenizers import Tokenizer as Backend
        except ImportError as error:
            raise MissingExtra("a Hugging Face tokenizer", "hf") from error
        if not argument:
            raise SpecError("hf: names no tokenizer; write hf:PATH with a local folder or a model id of the Hub")
        name = f"hf:{argument}"
        where = f"the tokenizer {name}"
        here = _local(argument)
        if here is not None and here.suffix == ".gguf" and here.is_file():
            with told_by(where), _quiet(transformers):
                made = transformers.AutoTokenizer.from_pretrained(str(here.parent), gguf_file=here.name)
                return cls(name, made, made.backend_tokenizer)
        if here is not None and here.is_file():
            with told_by(where):
                backend = Backend.from_file(str(here))
            if here.name != _FILE or not here.with_name(_CONFIG).is_file():
                end = next((each for each in _ENDS if backend.token_to_id(each) is not None), None)
                with told_by(where):
                    made = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=end)
                return cls(name, made, made.backend_tokenizer)
            here = here.parent
        place, revision = (str(here), "main") if here is not None else _on_the_hub(argument)
        file = _tokenizer_file(transformers, here, place, revision)
        held = None
        if file is not None:
            with told_by(where):
                held = Backend.from_file(str(file))
        elif here is not None:
            if not any(
                name.startswith(_BEGINNINGS) or name.endswith(".model")
                for name in (file.name for file in here.iterdir())
            ):
                raise DataError(f"{where} cannot be loaded: the folder {here} has no tokenizer.json and no vocabulary")
            _refuse_without_packages(here, where)
        hint = "" if here is not None else "; check the id, and whether the network or a cached copy is there"
        arguments = {"revision": revision, "trust_remote_code": trust_remote_code}
        with _quiet(transformers):
            try:
                with told_by(where, hint):
                    made = transformers.AutoTokenizer.from_pretrained(place, **arguments)
            except DataError as error:
                if "trust_remote_code" in str(error.__cause__) and not trust_remote_code:
                    raise DataError(
                        f"{where} is Python code that comes with the model; read it, then use --trust-remote-code"
                    ) from error
                if held is None:
                    raise
                made = None
            if made is not None and not getattr(made, "is_fast", False):
                with told_by(where):
                    return cls(name, made, None)
            if held is not None and not (made is not None and (_is_code(made) or _same(made, held))):
                # The class was built anew and lost something; the plain one takes the file as it is.
                with told_by(where):
                    made = transformers.PreTrainedTokenizerFast.from_pretrained(place, revision=revision)
                if not _same(made, held):
                    raise DataError(
                        f"{where}: transformers {transformers.__version__} makes other ids of {_FILE} than the "
                        f"file says; name the file itself: --tokenizer bpe:{file}"
                    )
            with told_by(where):
                return cls(name, made, made.backend_tokenizer)  # pyright: ignore[reportOptionalMemberAccess]

    def encode(self, text: str) -> EncodedText:
        if self._backend is not None:
            return rust.encode(self._backend, text, self.name)
        with told_by(f"a text with the tokenizer {self.name}", what="cannot be encoded"):
            seen = shown(text)
            ids = self._tokenizer.encode(seen, add_special_tokens=False, verbose=False)
            ends = self._ends(ids, seen)
        if ends is None:
            return EncodedText(np.array(ids, dtype=np.int64), np.zeros(len(ids), dtype=np.int64))
        return with_bytes(text, ids, ends)

    def first_tokens(self, text: Text, most: int) -> EncodedText:
        return first_tokens(self.encode, text, most)

    def stored(self) -> tuple[str, Mapping[str, bytes]]:
        if self._backend is None:
            return self.name, {}
        known = {"tokenizer_class": "PreTrainedTokenizerFast"}
        for key, number in (("bos_token", self.bos_id), ("eos_token", self.eos_id)):
            if number is not None:
                known[key] = self._backend.id_to_token(number)
        files = {f"tokenizer/{_FILE}": self._backend.to_str(), f"tokenizer/{_CONFIG}": json.dumps(known)}
        return f"hf:{FOLDER}/tokenizer", {path: text.encode() for path, text in files.items()}

    def _before(self) -> list[int]:
        full, plain = (list(self._tokenizer("a", add_special_tokens=added)["input_ids"]) for added in (True, False))
        return rust.before(plain, full)

    def _ends(self, ids: list[int], text: str) -> list[int] | None:
        """Where each token ends in the text, if what the tokens decode to makes it up."""
        try:
            tokens = self._tokenizer.convert_ids_to_tokens(ids)
            pieces = [self._tokenizer.convert_tokens_to_string([str(token)]) for token in tokens]
        except Exception:
            # Somebody's code may know the way from text to ids alone, which is all that perplexity needs.
            return None
        return np.cumsum([len(piece) for piece in pieces]).tolist() if "".join(pieces) == text else None


def _local(argument: str) -> Path | None:
    """The file or folder that an argument names; None where only a Hub may have it.

    Raises:
        DataError: it can only be a path, and nothing is there.
    """
    try:
        path = Path(argument).expanduser()
        if path.exists():
            return path
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"the tokenizer hf:{argument[:200]} cannot be read: {error}") from error
    if argument[:1] in "./~\\" or argument.count("/") > 1 or argument.endswith(".json"):
        raise DataError(f"the tokenizer hf:{argument[:200]} cannot be loaded: there is no file or folder {path}")
    return None


def _on_the_hub(argument: str) -> tuple[str, str]:
    place, _, revision = argument.partition("@")
    return place, revision or "main"


def _tokenizer_file(transformers: Any, here: Path | None, place: str, revision: str) -> Path | None:
    if here is not None:
        return here / _FILE if (here / _FILE).is_file() else None
    try:
        found = transformers.utils.cached_file(place, _FILE, revision=revision)
    except Exception:
        # Whatever the Hub's library raises: opening the tokenizer says it again, in a sentence.
        return None
    return None if found is None else Path(found)


def _refuse_without_packages(folder: Path, where: str) -> None:
    for name in ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model"):
        file = folder / name
        if file.is_file():
            with file.open("rb") as opened:
                packages = ("sentencepiece", "protobuf") if opened.read(1) == b"\n" else ("tiktoken",)
            missing = [package for package in packages if is_missing(package)]
            if missing:
                raise DataError(f"{where} is {name} alone, which needs packages: pip install {' '.join(missing)}")


def _is_code(tokenizer: Any) -> bool:
    return type(tokenizer).__module__.startswith("transformers_modules")


def _same(made: Any, held: Any) -> bool:
    return rust.same_ids(made.backend_tokenizer, held)


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """No chatter of the library about classes on the terminal."""
    logging = transformers.utils.logging
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
