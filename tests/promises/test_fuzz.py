"""Readers on inputs that nobody wrote on purpose: whatever comes in, only the family of `lpe_eval.errors` comes out.

By default each reader gets few inputs, the same in every run. `LPE_EVAL_FUZZ=100000` shares out that many, new
ones each time, and says at the end how many ran:

    LPE_EVAL_FUZZ=100000 pytest tests/promises/test_fuzz.py
"""

import contextlib
import copy
import io
import json
import os
import time
import warnings
from argparse import Namespace
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from lpe_eval import table
from lpe_eval.commands.compare import bless
from lpe_eval.data.corpus import open_corpus
from lpe_eval.data.tokenizer import open_tokenizer
from lpe_eval.data.windows import plan, resolve
from lpe_eval.errors import LpeEvalError
from lpe_eval.measure.plan import split_alias
from lpe_eval.model.checkpoint import LoadOptions, Located, locate
from lpe_eval.model.checkpoints.fairseq import Fairseq
from lpe_eval.model.checkpoints.gpt_neox import GptNeox
from lpe_eval.model.checkpoints.huggingface import HuggingFace
from lpe_eval.model.checkpoints.native import Native
from lpe_eval.model.encoder_folder import load_encoder, read_encoder_config
from lpe_eval.model.foreign.fairseq_args import read_args
from lpe_eval.model.foreign.neox_config import read_config, refuse_unsupported
from lpe_eval.model.foreign.neox_vocabulary import real_symbols, vocabulary_of
from lpe_eval.model.foreign.pickles import load_plain, numbers, texts_in
from lpe_eval.model.foreign.rope_override import original_length, overridden, parse_override, rope_fields
from lpe_eval.model.foreign.transformers_config import depends_on_length, encoding_label, train_length
from lpe_eval.model.transformer import Transformer
from lpe_eval.plain import Unreadable, json_of, printable, read_plain, yaml_of
from lpe_eval.records import LogRow
from lpe_eval.reference import split_settings
from lpe_eval.registry import ENCODINGS
from lpe_eval.report.folders.che import CheFolder
from lpe_eval.report.folders.ppl import open_run, read_run
from lpe_eval.report.folders.train import TrainingFolder
from lpe_eval.report.frames import read_csv
from lpe_eval.report.gate.che_entries import che_entries
from lpe_eval.report.numbers.statistics import summarise
from lpe_eval.spec.che_spec import CheSpec, read_protocol
from lpe_eval.spec.che_task import ProblemTask
from lpe_eval.spec.corpus_spec import CorpusSpec
from lpe_eval.spec.encoding_spec import EncodingSpec
from lpe_eval.spec.fingerprint import spec_text
from lpe_eval.spec.model_spec import ModelSpec
from lpe_eval.spec.ppl_spec import PerplexitySpec, parse_lengths, parse_protocols
from lpe_eval.spec.speed_spec import SpeedSpec, parse_encodings, parse_modes
from lpe_eval.spec.tasks import PerplexityTask, load_yaml, parse_spec, read_task
from lpe_eval.spec.train_spec import TrainSpec
from lpe_eval.table import BlockSum, CellKey, Cost, Facts, Measurement, PositionSum
from tests.support.che_runs import tiny, trained
from tests.support.native_checkpoints import checkpoint

TOTAL = int(os.environ.get("LPE_EVAL_FUZZ", "0"))
RAN: Counter[str] = Counter()
OPTIONS = LoadOptions()

MODEL = {"encoding": {"name": "dape", "hidden": 4, "base": {"name": "kerple_log"}}, "width": 16, "layers": 2,
         "heads": 2, "mlp_width": 32, "train_length": 32}  # fmt: skip
RUN = {"kind": "ppl", "models": ["alibi", "a=b"], "corpus": {"name": "local", "path": "a.txt", "split": "all"},
       "protocols": [{"name": "sliding", "stride": 4}, {"name": "anchored", "last_k": 2}], "lengths": [8, 16],
       "max_tokens": 99, "bos": "auto", "seed": 3, "batch_size": 4, "dtype": "float32", "rope_theta": 1e4}  # fmt: skip
TRAIN = {"kind": "train", "name": "a", "model": MODEL, "corpus": "python-stdlib", "steps": 9, "batch_tokens": 64,
         "learning_rate": 0.01, "seed": 1}  # fmt: skip
SPEED = {"kind": "speed", "encodings": ["alibi", MODEL["encoding"]], "lengths": [8], "modes": ["train"], "width": 16}
TASK = {"name": "task", "version": 1, "title": "t", "corpus": "python-stdlib", "protocols": [{"name": "last"}],
        "lengths": [8], "max_tokens": 99, "source": ""}  # fmt: skip
NEOX = {"num-layers": 2, "hidden-size": 16, "num-attention-heads": 2, "seq-length": 32, "pos-emb": "rotary",
        "attention-config": [[["global"], 2]], "vocab-file": "vocab.json", "norm": "layernorm"}  # fmt: skip
FLAGS = {"decoder_embed_dim": 16, "decoder_layers": 2, "decoder_attention_heads": 2, "tokens_per_sample": 32,
         "adaptive_input": True, "adaptive_input_cutoff": "9,21", "adaptive_softmax_cutoff": [9, 21],
         "tie_adaptive_weights": True, "activation_fn": "relu"}  # fmt: skip
CONFIG = {"model_type": "llama", "max_position_embeddings": 64, "rope_theta": 1e4, "rope_scaling": {"type": "yarn",
          "factor": 4.0}, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}, "alibi": False,
          "attn_config": {"alibi": True}, "no_rope_layers": [0, 1]}  # fmt: skip

ODD = st.sampled_from(
    ["", " ", "\0", "\n", "０", "1e3", "nan", "-1", "~", "=", ":", "?", "&", "/", ".", "..", "*a", "&a", "!!int ''",
     "<<", "\ud800", "\udcff", "😀", "x" * 3000, "9" * 5000, "(" * 50, "[" * 300, "{", "}", "%", "None", "null",
     "true", "2020-99-99", "!!python/name:os.system", "alibi", "dape(alibi)", "last", "L/2", "512", "1:8:x2", "bytes"]
)  # fmt: skip
NUMBERS = st.one_of(
    st.integers(), st.integers(-9, 99), st.floats(), st.sampled_from([2**31, 2**63, 2**64, -(2**63), 10**30, 0, 1])
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, ODD, st.text(max_size=12)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(ODD | st.text(max_size=6), inner, max_size=4)),
    max_leaves=8,
)


@st.composite
def altered(draw: st.DrawFn, valid: Any, values: st.SearchStrategy[Any] = VALUES) -> Any:
    """A valid structure of which up to three parts are replaced, left out or added."""
    held = copy.deepcopy(valid)
    for _ in range(draw(st.integers(1, 3))):
        inside, place = [held], held
        while True:
            children = list(place.values()) if isinstance(place, dict) else list(place)
            children = [each for each in children if isinstance(each, dict | list) and each]
            if not children or draw(st.booleans()):
                break
            place = draw(st.sampled_from(children))
            inside.append(place)
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        how = draw(st.sampled_from(["replace", "replace", "drop", "add"]))
        if how == "add" or not keys:
            if isinstance(place, dict):
                place[draw(ODD | st.text(max_size=6))] = draw(values)
            else:
                place.append(draw(values))
        elif how == "replace":
            place[draw(st.sampled_from(keys))] = draw(values)
        else:
            del place[draw(st.sampled_from(keys))]
    return held


@st.composite
def damaged(draw: st.DrawFn, valid: bytes) -> bytes:
    """Valid bytes of which up to four pieces are overwritten, cut out, doubled or followed by others."""
    held = bytearray(valid)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(held) - 1)))
        size = draw(st.integers(1, 9))
        match draw(st.sampled_from(["flip", "write", "cut", "double", "insert", "end"])):
            case "flip" if held:
                held[at] ^= 1 << draw(st.integers(0, 7))
            case "write":
                piece = draw(st.binary(min_size=1, max_size=9))
                held[at : at + len(piece)] = piece
            case "cut":
                del held[at : at + size]
            case "double":
                held[at:at] = held[at : at + 8 * size]
            case "insert":
                held[at:at] = draw(st.binary(max_size=9) | ODD.map(lambda text: text.encode("utf-8", "replace")))
            case _:
                del held[at:]
    return bytes(held)


def anything(valid: bytes) -> st.SearchStrategy[bytes]:
    return st.one_of(damaged(valid), damaged(valid), st.binary(max_size=60), st.just(b""))


class Reader(NamedTuple):
    """A reader, what it is given, and a weight: how large a share of the inputs it gets."""

    name: str
    inputs: st.SearchStrategy[Any]
    read: Callable[[Any], object]
    weight: float = 1.0


def in_yaml(value: Any) -> bytes:
    return yaml.safe_dump(value, allow_unicode=True).encode("utf-8", "surrogatepass")


def in_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def put(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def each(*reads: Callable[[], object]) -> None:
    """Calls all of them, whatever the ones before came to."""
    for read in reads:
        with contextlib.suppress(LpeEvalError):
            read()


def spec_readers(home: Path) -> list[Reader]:
    kinds = {"run": (PerplexitySpec, RUN), "train": (TrainSpec, TRAIN), "speed": (SpeedSpec, SPEED),
             "task": (PerplexityTask, TASK), "problem": (ProblemTask, TASK), "model": (ModelSpec, MODEL)}  # fmt: skip

    def spec(kind: type, fields: dict) -> Callable[[Any], object]:
        return lambda value: spec_text(parse_spec(value, kind, "here"))

    def file(content: bytes) -> None:
        raw = load_yaml(put(home / "spec.yaml", content))
        each(*(lambda kind=kind: parse_spec(raw, kind, "here") for kind, _ in kinds.values()))

    def protocols(parts: tuple) -> None:
        text, stride, last_k, lengths, documents = parts
        for protocol in parse_protocols(text, stride, last_k):
            done = resolve(protocol, lengths)
            for length in lengths:
                plan(done, length, documents, "always", "score", max(lengths))

    def build(parts: tuple) -> None:
        name, options, base = parts
        fields = {"name": name, **options, **({"base": {"name": base}} if base else {})}
        encoding = parse_spec(fields, EncodingSpec, "here")
        Transformer(ModelSpec(encoding=encoding, width=16, layers=2, heads=2, mlp_width=16, train_length=8))

    short = st.text("abdelopinr_- (),{}0", max_size=30) | ODD
    names = st.sampled_from(ENCODINGS.names())
    options = sorted({key for name in ENCODINGS.names() for key in ENCODINGS.load(name).Options.model_fields})
    few = st.one_of(st.integers(-2, 40), st.floats(), st.booleans(), st.none(), ODD, st.lists(ODD, max_size=2))
    numbers_text = st.text("0123456789:x+,- LK/2", max_size=16) | ODD
    words = st.lists(st.sampled_from(["last", "sliding", "anchored", "nonoverlap", "x", ""]), max_size=3).map(",".join)
    sizes = st.lists(st.integers(-1, 40), min_size=1, max_size=3)
    return [
        *(Reader(f"spec of a {name}", altered(fields) | VALUES, spec(kind, fields))
          for name, (kind, fields) in kinds.items()),
        Reader("spec file", st.one_of(*(anything(in_yaml(fields)) for _, fields in kinds.values()),
                                      VALUES.map(in_yaml)), file),
        Reader("task file", anything(in_yaml(TASK)), lambda content: read_task(str(put(home / "task.yaml", content)))),
        Reader("encoding", short, lambda text: str(EncodingSpec.parse(text))),
        Reader("encodings", short, lambda text: each(lambda: parse_encodings([text]), lambda: parse_modes(text))),
        Reader("options of an encoding", st.tuples(names, st.dictionaries(st.sampled_from(options), few, max_size=3),
                                                   st.none() | names), build),
        Reader("lengths", numbers_text, lambda text: parse_lengths(text), 2),
        Reader("protocols", st.tuples(words | ODD, st.none() | numbers_text, st.none() | st.integers(-1, 50), sizes,
                                      st.lists(st.integers(0, 90), max_size=3)), protocols),
        Reader("YAML", anything(in_yaml(RUN)).map(lambda content: content.decode("utf-8", "replace")), yaml_of, 2),
        Reader("JSON", anything(in_json(RUN)), json_of),
        Reader("a plain file", st.binary(max_size=40), lambda content: read_plain(put(home / "plain", content))),
        Reader("a name", st.text() | ODD, lambda text: printable(text).encode()),
    ]  # fmt: skip


def reference_readers(home: Path) -> list[Reader]:
    parts = st.sampled_from(
        ["hf:", "neox:", "fairseq:", "native:", "py:", "a/b", "alibi", "?", "=", "&", "@", "a=b", "vocab=[1",
         "configs=[a]", "kernels=2020-99-99", "dict=x", ".py:", "make", "\\", "~"]
    )  # fmt: skip
    address = st.lists(parts | ODD | st.text(max_size=4), max_size=6).map("".join)

    def reference(text: str) -> None:
        name, rest = split_alias(text)
        found = locate(rest)
        if found.format in (Native, GptNeox, Fairseq) and name != found:
            found.peek(OPTIONS)

    def source(text: str) -> None:
        spec = CorpusSpec.parse(text)
        str(spec)
        if spec.name in ("local", "tokenized_bin"):
            open_corpus(spec)

    return [
        Reader("address", address, reference),
        Reader("settings of an address", address.map(lambda text: f"a?{text}"), split_settings, 2),
        Reader("text by its name", address, source),
        Reader("tokenizer by its name", address.filter(lambda text: "hf" not in text and "hugg" not in text.lower()),
               open_tokenizer),
        Reader("RoPE by a flag", st.tuples(st.none() | ODD | altered(CONFIG["rope_scaling"]).map(json.dumps),
                                           st.none() | st.floats()), lambda given: parse_override(*given)),
    ]  # fmt: skip


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


def text_readers(home: Path) -> list[Reader]:
    vocab = {symbol: number for number, symbol in enumerate(["a", "b", "c", "ab", "Ġ", "<|endoftext|>"])}
    merges = b"#version: 0.2\na b\n"
    whole = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
             "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
             "post_processor": None, "decoder": None,
             "model": {"type": "BPE", "vocab": vocab, "merges": ["a b"]}}  # fmt: skip
    files = home / "tokenizer"
    files.mkdir()

    def encoded(name: str) -> None:
        found = open_tokenizer(name)
        made = found.encode("ab c é\n\udcff")
        assert len(made.tokens) == len(made.n_bytes)

    def pair(parts: tuple[bytes, bytes]) -> None:
        first, second = put(files / "v.json", parts[0]), put(files / "m.txt", parts[1])
        encoded(f"bpe:{first},{second}")

    def read(path: Path, column: str = "text", **fields: Any) -> None:
        name = "tokenized_bin" if path.suffix == ".bin" else "local"
        spec = CorpusSpec(name=name, path=str(path), text_column=column, **fields)
        for document in open_corpus(spec).documents("all"):
            document.name.encode()

    def ids(parts: tuple[bytes, bytes]) -> None:
        put(home / "ids.bin.json", parts[1])
        read(put(home / "ids.bin", parts[0]))

    buffer = io.BytesIO()
    pd.DataFrame({"text": ["a", "é" * 9, ""], "n": [1, 2, 3]}).to_parquet(buffer)
    lines = b'{"text": "a"}\n\n{"text": "\xc3\xa9", "n": 1}\n'
    dictionary = b"the 100\nof 50\n<unk> 3 #fairseq:overwrite\n"
    return [
        Reader("BPE in two files", st.tuples(anything(in_json(vocab)) | altered(vocab).map(in_json),
                                             st.just(merges) | anything(merges)), pair),
        Reader("BPE in one file", anything(in_json(whole)) | altered(whole).map(in_json),
               lambda content: encoded(f"bpe:{put(files / 't.json', content)}"), 2),
        Reader("fairseq dictionary", anything(dictionary),
               lambda content: encoded(f"fairseq_dict:{put(files / 'd', content)}")),
        Reader("text", anything("a é\r\n".encode()), lambda content: read(put(home / "a.txt", content))),
        Reader("JSON lines", anything(lines) | VALUES.map(in_json),
               lambda content: read(put(home / "a.jsonl", content)), 2),
        Reader("Parquet", anything(buffer.getvalue()), lambda content: read(put(home / "a.parquet", content)), 2),
        Reader("token ids", st.tuples(st.binary(max_size=9), anything(b'{"dtype": "uint16", "document_end": 1}') |
               altered({"dtype": "uint16", "document_end": 1}).map(in_json)), ids),
    ]  # fmt: skip


def run_readers(home: Path) -> list[Reader]:
    key, text = CellKey("a model", "sliding", 8, 4), "kind: ppl\nlengths: [8]\n"
    measurement = Measurement(
        key, Facts("alibi", 8, "custom", 0, "a.txt", "all", 0, "float32", "cpu"), "dense",
        (BlockSum("a.txt", "0f", 0, 9.5, 4, 4, 0), BlockSum("b.txt", "1e", 0, 8.5, 4, 4, 0)),
        (PositionSum(1, 4, 9.5, 4),), Cost(0.1, 8, 1, 0, 10.0, 64),
    )  # fmt: skip
    folder = home / "run"
    with open_run(folder, text, "r1") as store:
        store.save(measurement, summarise(measurement, "r1", 0, replicates=20))
        store.collect([key])
        store.write_provenance({"models": {"a model": {"tokenizer_fingerprint": "f"}}})
    whole = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    (cell,) = (name for name in whole if name.parts[0] == "cells")

    def changed(name: Path) -> Callable[[bytes], object]:
        def read(content: bytes) -> None:
            for other, kept in whole.items():
                put(folder / other, kept)
            put(folder / name, content)
            read_run(folder)

        return read

    def resumed(content: bytes) -> None:
        for other, kept in whole.items():
            put(folder / other, kept)
        put(folder / cell, content)
        with open_run(folder, text, "r1") as store:
            assert store.finished() <= {key} or store.finished()
            store.collect([key])
        read_run(folder)

    training = home / "training"
    with TrainingFolder(training, "r1", text) as made:
        made.write_log([LogRow(20, 2.5, 0.1, 0.01, None, 0.3), LogRow(40, 2.1, 0.1, 0.01, 2.2, 0.6)])
    log = (training / "training.csv").read_bytes()

    def resumed_training(content: bytes) -> None:
        put(training / "training.csv", content)
        with TrainingFolder(training, "r1", text) as again:
            again.read_log(up_to_step=30)

    speed = ",".join(column.name for column in table.SPEED).encode() + b"\n"
    structure = json.loads(whole[cell])
    return [
        *(Reader(f"run: {name}", anything(whole[name]), changed(name), 0.5) for name in sorted(whole)
          if name != cell and name.name != ".lock"),
        Reader("a cell", anything(whole[cell]) | altered(structure).map(in_json), resumed),
        Reader("log of a training", anything(log), resumed_training),
        Reader("table of speeds", anything(speed + speed), lambda content: read_csv(put(home / "s.csv", content),
                                                                                    table.SPEED)),
    ]  # fmt: skip


def problem_readers(home: Path) -> list[Reader]:
    folder, kept = home / "che", ("che.csv", "by_string.parquet", "provenance.json", "spec.yaml")
    spec = {"encodings": ["rope"], "tasks": ["even_pairs"], "protocol": tiny(steps=2, layers=1).model_dump()}
    trained(folder, protocol=tiny(steps=2, layers=1))
    (encoder,) = (folder / "checkpoints").iterdir()
    whole = {name: (folder / name).read_bytes() for name in kept}
    config, weights = ((encoder / name).read_bytes() for name in ("config.yaml", "even_pairs.safetensors"))
    (cell,) = (folder / "cells").iterdir()
    held, run = cell.read_bytes(), json.loads((folder / "run.json").read_bytes())["run"]

    def opened(content: bytes, name: str) -> None:
        put(encoder / "config.yaml", config)
        put(encoder / "even_pairs.safetensors", weights)
        put(encoder / name, content)
        found = read_encoder_config(encoder)
        for task in found.tasks:
            load_encoder(encoder, found, task, torch.device("cpu"))

    def judged(content: bytes, name: str) -> None:
        for other, known in whole.items():
            put(folder / other, known)
        put(folder / name, content)
        each(lambda: che_entries(folder, "fuzz"), lambda: bless(folder, "fuzz", True))

    def resumed(content: bytes) -> None:
        put(folder / "spec.yaml", whole["spec.yaml"])
        put(cell, content)
        with CheFolder(folder, CheSpec.model_validate(spec).model_dump(mode="json"), run, False) as again:
            again.collect([("rope", "even_pairs")])
            again.collect_strings([("rope", "even_pairs")])

    return [
        Reader("config of encoders", anything(config) | altered(yaml.safe_load(config)).map(in_yaml),
               lambda content: opened(content, "config.yaml")),
        Reader("weights of an encoder", anything(weights),
               lambda content: opened(content, "even_pairs.safetensors"), 0.5),
        *(Reader(f"problems: {name}", anything(whole[name]), lambda content, name=name: judged(content, name), 0.5)
          for name in kept),
        Reader("a cell of problems", anything(held) | altered(json.loads(held)).map(in_json), resumed),
        Reader("protocol of problems", anything(in_yaml(tiny().model_dump())),
               lambda content: read_protocol(str(put(home / "p.yaml", content)))),
    ]  # fmt: skip


ROOMS = (spec_readers, reference_readers, checkpoint_readers, text_readers, run_readers, problem_readers)


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Reader]]:
    return {room.__name__: room(tmp_path_factory.mktemp("fuzz")) for room in ROOMS}


@pytest.mark.parametrize("room", [room.__name__ for room in ROOMS])
def test_whatever_comes_in_only_our_own_errors_come_out(
    room: str, readers: dict[str, list[Reader]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.chdir(tmp_path)
    shares = sum(reader.weight for found in readers.values() for reader in found)
    for reader in readers[room]:
        began = time.monotonic()
        survives(reader, round(TOTAL * reader.weight / shares) + 1 if TOTAL else round(12 * reader.weight))
        RAN[f"seconds of {reader.name}"] += round(time.monotonic() - began)


def survives(reader: Reader, inputs: int) -> None:
    @settings(
        max_examples=inputs, derandomize=not TOTAL, database=None, deadline=None,
        suppress_health_check=list(HealthCheck), phases=(Phase.generate, Phase.shrink),
    )  # fmt: skip
    @given(value=reader.inputs)
    def reads(value: Any) -> None:
        note(f"the reader is: {reader.name}")
        RAN[reader.name] += 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                reader.read(value)
            except (LpeEvalError, Unreadable):
                return

    reads()


def test_as_many_inputs_ran_as_were_asked_for(capsys: pytest.CaptureFixture[str]):
    ran = {name: count for name, count in RAN.items() if not name.startswith("seconds of ")}
    with capsys.disabled():
        for name, count in sorted(ran.items()) if TOTAL else []:
            print(f"{count:8} {RAN[f'seconds of {name}']:6} s  {name}")
        print(f"\n{sum(ran.values())} inputs to {len(ran)} readers" if TOTAL else "", end="")
    assert len(ran) > 30 or not ran, "run this file as a whole"
    assert sum(ran.values()) >= TOTAL
