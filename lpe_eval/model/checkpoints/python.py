"""Your own model: `py:path/to/file.py:factory` or `py:package.module:factory`, perhaps with `?key=value&key=value`.

The factory is called with the keys and values (read as YAML) and returns one of two things:

    * anything callable, usually a `torch.nn.Module`: `model(tokens)` takes integers [b, t] and returns
      logits [b, t, v], alone, as `.logits` or in a tuple such as `(logits, loss)`;
    * an object whose class has a method `hidden`, and a `head`: `hidden(tokens)` returns [b, t, e] and
      `head(states)` takes [n, e] to logits [n, v]. Then logits are made of scored tokens only.

What it returns may have these attributes, all optional: `train_length` (int), `tokenizer` (str, as
`--tokenizer` takes it; "bytes" if there are 256 to 258 symbols), `encode` (takes a text to its ids, and serves
where no tokenizer is named; a pair `(model, encode)` will do too), `vocab_size` (int, checked against the
logits), `encoding` (str, for tables), `name` (str, for tables), `n_parameters` (int). To refuse a length,
raise `lpe_eval.errors.LengthError`.

Choices:
    * Naming code on the command line is the permission to run it. A bare `file.py` runs nothing.
    * A module is moved to the device and put in evaluation mode, and its parameters take the dtype of the
      run; `model/foreign/own_placing.py` says what becomes of buffers. Other objects have to place
      themselves, and get their tokens on the device of the run.
    * A module that gives only the last token's logits, as nanoGPT does without targets, is given targets.
    * A failure on a text longer than the training length is `n/a` at that length; any other is the
      `failed` of the cells it happens in, whatever was raised.
    * A module that does not run on five tokens is tried on the lengths that will be measured, and then on
      powers of two: some run on multiples of a chunk only.
    * The file is read anew each time the model is opened. Its folder (for `package.module`, the current
      one) can be imported from while the factory runs.
    * A run opens the model twice: for its name, tokenizer and digest, and to measure it; and once more for
      a function `encode`. The digest is over the source file, the settings and the module's weights, so a
      factory that draws weights without a seed is another model each time, and is not measured.
    * An object of a running program, which `lpe_eval.ppl` lends under the address `<NAME>`, is never moved: whoever
      lends it gives one that suits the device and the type of the run.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from lpe_eval.model.checkpoint import CheckpointFormat, LoadOptions, Peek
from lpe_eval.model.foreign.own_model import OwnModel
from lpe_eval.model.language_model import LanguageModel
from lpe_eval.own_code import calling, is_lent


class Python(CheckpointFormat):
    """Calls a function of yours that returns a model."""

    @classmethod
    def attentions(cls) -> Sequence[str]:
        return ["own"]

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return path.suffix == ".py" and path.is_file()

    @classmethod
    def peek(cls, path: str | Path, options: LoadOptions) -> Peek:
        there = options if is_lent(str(path)) else options._replace(device=torch.device("cpu"))
        facts = cls.load(path, there).facts
        return Peek(facts.name, facts.tokenizer, facts.digest)

    @classmethod
    def load(cls, path: str | Path, options: LoadOptions) -> LanguageModel:
        with calling(str(path)) as made:
            return OwnModel(made, options)
