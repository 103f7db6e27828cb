"""Readers of checkpoints of every format."""

import io
from argparse import Namespace
from pathlib import Path

import numpy as np
import torch
import yaml
from hypothesis import strategies as st

from lpe_eval.model.checkpoint import Located, locate
from lpe_eval.model.checkpoints.fairseq import Fairseq
from lpe_eval.model.checkpoints.gpt_neox import GptNeox
from lpe_eval.model.checkpoints.huggingface import HuggingFace
from lpe_eval.model.checkpoints.native import Native
from lpe_eval.model.foreign.fairseq_args import read_args
from lpe_eval.model.foreign.neox_config import read_config, refuse_unsupported
from lpe_eval.model.foreign.neox_vocabulary import real_symbols, vocabulary_of
from lpe_eval.model.foreign.pickles import load_plain, numbers, texts_in
from lpe_eval.model.foreign.rope_override import original_length, overridden, parse_override, rope_fields
from lpe_eval.model.foreign.transformers_config import depends_on_length, encoding_label, train_length
from tests.support.fuzz.inputs import VALUES, Reader, altered, anything, damaged, each, in_json, in_yaml, put
from tests.support.fuzz.valid import CONFIG, FLAGS, NEOX, OPTIONS
from tests.support.native_checkpoints import checkpoint


def checkpoint_readers(home: Path) -> list[Reader]:
    folder = checkpoint(home / "tiny", width=8, mlp_width=8, layers=1, vocab_size=12)
    weights, config = ((folder / name).read_bytes() for name in ("model.safetensors", "config.yaml"))
    header = 8 + int.from_bytes(weights[:8], "little")
    plain = yaml.safe_load(config)

    def native(content: bytes, name: str, other: bytes, other_name: str) -> None:
        put(folder / other_name, other)
        put(folder / name, content)
        found = Located(Native, folder)
        each(lambda: found.peek(OPTIONS), lambda: found.load(OPTIONS), lambda: locate(str(folder)))

    def by_config(content: bytes) -> None:
        native(content, "config.yaml", weights, "model.safetensors")

    def by_weights(content: bytes) -> None:
        native(content, "model.safetensors", config, "config.yaml")

    def neox(content: bytes) -> None:
        found = read_config([put(home / "a.yml", content)], None, "here")
        each(lambda: refuse_unsupported(found),
             lambda: real_symbols(vocabulary_of(found.args, [home]), found.args, 64, None, "here"))  # fmt: skip

    def neox_folder(content: bytes) -> None:
        step = home / "neox" / "global_step1"
        (step / "configs").mkdir(parents=True, exist_ok=True)
        put(step / "configs" / "a.yml", in_yaml(NEOX))
        put(step / "layer_00-model_00-model_states.pt", content)
        found = Located(GptNeox, home / "neox")
        each(lambda: found.peek(OPTIONS), lambda: found.load(OPTIONS._replace(as_published=True)))

    def vocabulary(content: bytes) -> None:
        args = read_config([put(home / "a.yml", in_yaml(NEOX))], None, "here").args
        put(home / "vocab.json", content)
        kinds = (args, args.model_copy(update={"tokenizer_type": "HFTokenizer"}))
        each(*(lambda kind=kind: vocabulary_of(kind, [home]) for kind in kinds))

    def fairseq(state: dict) -> None:
        whole = {"args": Namespace(**{str(key): value for key, value in state.items()}), "model": {}}
        each(lambda: read_args(whole, home), lambda: read_args({"cfg": {"model": state, "task": state}}, home))

    def pickled(content: bytes) -> None:
        path = put(home / "a.pt", content)
        each(lambda: texts_in(path), lambda: load_plain(path, [Namespace, *numbers()]), lambda: locate(str(path)),
             lambda: Located(Fairseq, path).load(OPTIONS))  # fmt: skip

    def hugging_face(content: bytes) -> None:
        (home / "hf").mkdir(exist_ok=True)
        put(home / "hf" / "config.json", content)
        HuggingFace.recognises(home / "hf")

    def positions(state: dict) -> None:
        override = parse_override("yarn:4", 1e6)
        assert override is not None
        each(lambda: rope_fields(state), lambda: original_length(state), lambda: overridden(state, override))
        each(lambda: encoding_label(state), lambda: train_length(state), lambda: depends_on_length(state))

    files = []
    tensors = {"decoder.layers.0.fc1.weight": torch.zeros(2, 3), "b": torch.zeros(4, dtype=torch.float16)}
    state = {"args": Namespace(**FLAGS), "model": tensors, "numbers": np.arange(3), "step": 3}
    for zipped in (True, False):
        for content in (state, tensors):
            buffer = io.BytesIO()
            torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
            files.append(buffer.getvalue())
    return [
        Reader("native config", anything(config) | altered(plain).map(in_yaml) | VALUES.map(in_yaml), by_config),
        Reader("safetensors", anything(weights), by_weights),
        Reader("safetensors header", damaged(weights[8:header]).map(
            lambda text: len(text).to_bytes(8, "little") + text + weights[header:]), by_weights),
        Reader("GPT-NeoX config", anything(in_yaml(NEOX)) | altered(NEOX).map(in_yaml), neox, 2),
        Reader("GPT-NeoX vocabulary", anything(in_json({"model": {"vocab": {"a": 0}}, "added_tokens": [
            {"content": "b"}]})) | VALUES.map(in_json), vocabulary),
        Reader("GPT-NeoX layer", st.one_of(*map(anything, files[1::2])), neox_folder),
        Reader("fairseq flags", altered(FLAGS), fairseq, 2),
        Reader("pickles", st.one_of(*map(anything, files)), pickled, 2),
        Reader("Hugging Face config", anything(in_json(CONFIG)) | VALUES.map(in_json), hugging_face),
        Reader("positions of a Hugging Face config", altered(CONFIG), positions, 2),
    ]  # fmt: skip
