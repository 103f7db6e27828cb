"""Readers of specs, of references to models and text, and of single options."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from lpe_eval.data.corpus import open_corpus
from lpe_eval.data.tokenizer import open_tokenizer
from lpe_eval.data.windows import plan, resolve
from lpe_eval.measure.plan import split_alias
from lpe_eval.model.checkpoint import locate
from lpe_eval.model.checkpoints.fairseq import Fairseq
from lpe_eval.model.checkpoints.gpt_neox import GptNeox
from lpe_eval.model.checkpoints.native import Native
from lpe_eval.model.foreign.rope_override import parse_override
from lpe_eval.model.remap_options import parse_remap
from lpe_eval.model.transformer import Transformer
from lpe_eval.plain import json_of, printable, read_plain, yaml_of
from lpe_eval.reference import split_settings
from lpe_eval.registry import ENCODINGS
from lpe_eval.spec.che_task import ProblemTask
from lpe_eval.spec.corpus_spec import CorpusSpec
from lpe_eval.spec.device_map import parse_device_map
from lpe_eval.spec.encoding_spec import EncodingSpec
from lpe_eval.spec.fingerprint import spec_text
from lpe_eval.spec.model_spec import ModelSpec
from lpe_eval.spec.ppl_spec import PerplexitySpec, parse_lengths, parse_protocols
from lpe_eval.spec.speed_spec import SpeedSpec, parse_encodings, parse_modes
from lpe_eval.spec.tasks import PerplexityTask, load_yaml, parse_spec, read_task
from lpe_eval.spec.train_spec import TrainSpec
from tests.support.fuzz.inputs import ODD, VALUES, Reader, altered, anything, each, in_json, in_yaml, put
from tests.support.fuzz.valid import CONFIG, MODEL, OPTIONS, RUN, SPEED, TASK, TRAIN


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

    def places(content: bytes) -> None:
        found = parse_device_map(str(put(home / "map.json", content)))
        spec_text(parse_spec({**RUN, "device_map": found}, PerplexitySpec, "here"))

    def build(parts: tuple) -> None:
        name, options, base = parts
        fields = {"name": name, **options, **({"base": {"name": base}} if base else {})}
        encoding = parse_spec(fields, EncodingSpec, "here")
        Transformer(ModelSpec(encoding=encoding, width=16, layers=2, heads=2, mlp_width=16, train_length=8))

    def build_layers(text: str) -> None:
        encoding = EncodingSpec.parse(text)
        assert EncodingSpec.parse(str(encoding)) == encoding
        Transformer(ModelSpec(encoding=encoding, width=16, layers=4, heads=2, mlp_width=16, train_length=8))

    short = st.text("abdelopinr_- (),{}0", max_size=30) | ODD
    signs = ["[window=", "[chunk=", "[p=", "512", "0", "-1", "]", "*", "3", ",", "(", ")"]
    schedule = st.lists(st.sampled_from(["rope", "none", "alibi", "dape", *signs]) | ODD, max_size=9).map("".join)
    values = [":", "group=", "window=", "local=", "8", "0", ",", "{", "}", "nan"]
    remap = st.lists(st.sampled_from(["self_extend", "rerope", "dca", "log_n", *values]) | ODD, max_size=7).map("".join)
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
        Reader("schedule of layers", schedule, lambda text: build_layers(text)),
        Reader("remap", remap, lambda text: parse_remap(text).model_dump_json()),
        Reader("device map", anything(in_json({"": "cpu", "lm_head": 0})), places),
        Reader("device map by a flag", short | VALUES.map(json.dumps), lambda text: parse_device_map(text)),
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
