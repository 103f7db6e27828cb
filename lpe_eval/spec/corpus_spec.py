"""Which text is measured: `python-stdlib`, `urn?alpha=0.5`, `hub:org/name`, a path, or `s3://bucket/place`."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from lpe_eval.addresses import typed_address, without_protocol
from lpe_eval.errors import SpecError, UnknownName
from lpe_eval.plain import has_utf8_form, printable
from lpe_eval.reference import split_settings
from lpe_eval.registry import CORPORA

TokenDtype = Literal["uint8", "uint16", "uint32", "int32", "int64"]
"""How ids are stored in a file of token ids."""


class CorpusSpec(BaseModel):
    """One corpus, by the name of its kind and where it is.

    Attributes:
        name: the kind of source: `python_stdlib`, `local`, `hub`, `tokenized_bin`, or a third party's.
        path: a file or folder, the address of one (`s3://bucket/books`), or the id of a dataset on the Hub.
        split: which part; the kind's own default where it is left out.
        text_column: the field of a JSON line or a table that holds the text.
        revision: a commit, tag or branch of a Hub dataset.
        subset: the configuration of a Hub dataset.
        streaming: whether a Hub dataset is read as it comes, without a full download.
        token_dtype: `tokenized_bin` only: how ids are stored.
        document_end: `tokenized_bin` only: the id after which a new document begins.
        options: what only this kind of corpus wants to know.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    path: str | None = None
    split: str | None = None
    text_column: str = "text"
    revision: str | None = None
    subset: str | None = None
    streaming: bool = False
    token_dtype: TokenDtype | None = None
    document_end: int | None = None
    options: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return cls._fields(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _plain_name(self) -> "CorpusSpec":
        if not has_utf8_form(self.options):
            raise ValueError("an option holds half a surrogate pair, which is no character")
        object.__setattr__(self, "name", self.name.replace("-", "_"))
        return self

    @classmethod
    def parse(cls, text: str) -> "CorpusSpec":
        """Reads the short form: a corpus's name, `urn?alpha=0.5&length=65536`, `hub:org/name[@revision]`, a path,
        or an address.

        Raises:
            SpecError: the text is empty, `hub:` has no id, or an option is not key=value.
            UnknownName: the text is neither the name of a corpus nor a path.
        """
        return cls(**cls._fields(text))

    @staticmethod
    def _fields(text: str) -> dict[str, Any]:
        text = text.strip()
        if not text:
            raise SpecError("the corpus is empty; write python-stdlib, hub:org/name, or a path")
        if text.startswith("hub:"):
            where, _, revision = text.removeprefix("hub:").partition("@")
            if not where:
                raise SpecError(f"{text!r} names no dataset; write hub:org/name")
            return {"name": "hub", "path": where, "revision": revision or None}
        if (address := typed_address(text)) is not None:
            return {"name": "tokenized_bin" if address.endswith(".bin") else "local", "path": address}
        text = without_protocol(text)
        try:
            path = Path(text).expanduser()
            there = path.exists()
        except (OSError, RuntimeError, ValueError) as error:
            # A name that is too long or no text, or ~someone whom the machine does not know.
            detail = error.strerror if isinstance(error, OSError) else error
            raise SpecError(f"the corpus {text[:200]!r} is no path: {printable(str(detail))}") from error
        name, asked, _ = text.partition("?")
        named = name.replace("-", "_") in {each.replace("-", "_") for each in CORPORA.names()}
        if named and not there:
            return {"name": name, **({"options": split_settings(text).settings} if asked else {})}
        if path.name == text and not path.suffix and not there:
            raise UnknownName("corpus", text, CORPORA.names())
        return {"name": "tokenized_bin" if path.suffix == ".bin" else "local", "path": str(path)}

    def __str__(self) -> str:
        if self.path is None:
            return self.name.replace("_", "-")
        where = f"hub:{self.path}" if self.name == "hub" else self.path
        return where if self.revision is None else f"{where}@{self.revision}"
