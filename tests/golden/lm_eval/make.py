"""Two tiny models of bytes and three tiny tasks, for lm-evaluation-harness; see README.md."""

import json
import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEXT = "the cat sat on a mat and saw far away two small birds sing of rain"
TASK = """task: {name}
output_type: {kind}
dataset_path: json
dataset_kwargs:
  data_files:
    test: data/{name}.jsonl
test_split: test
metadata:
  version: 1.0
"""


def tokenizer() -> PreTrainedTokenizerFast:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({letter: number for number, letter in enumerate(letters)} | {"<|end|>": 256}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|end|>", bos_token="<|end|>")


def make_models() -> None:
    for name, seed, spread in (("one", 0, 0.25), ("two", 1, 0.3)):
        torch.default_generator.manual_seed(seed)
        shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
        ends = {"bos_token_id": 256, "eos_token_id": 256}
        config = LlamaConfig(vocab_size=257, max_position_embeddings=128, initializer_range=spread, **shape, **ends)
        LlamaForCausalLM(config).save_pretrained(name)
        tokenizer().save_pretrained(name)


def make_tasks() -> None:
    draw = random.Random(3)

    def words(many: int) -> str:
        return " ".join(draw.choice(TEXT.split()) for _ in range(many))

    documents = {
        "pages": [{"page": words(draw.randint(20, 60))} for _ in range(12)],
        "choices": [
            {"question": words(5), "answers": [words(1) + str(each) for each in range(4)], "right": draw.randrange(4)}
            for _ in range(24)
        ],
        "ends": [{"text": words(8), "end": " " + words(1)} for _ in range(16)],
    }
    said = {
        "pages": ("loglikelihood_rolling", "doc_to_text: ''\ndoc_to_target: '{{page}}'\nmetric_list:\n"
                  "  - metric: word_perplexity\n  - metric: byte_perplexity\n  - metric: bits_per_byte\n"),
        "choices": ("multiple_choice", "doc_to_text: '{{question}}'\ndoc_to_choice: '{{answers}}'\n"
                    "doc_to_target: '{{right}}'\nmetric_list:\n"
                    "  - {metric: acc, aggregation: mean, higher_is_better: true}\n"
                    "  - {metric: acc_norm, aggregation: mean, higher_is_better: true}\n"),
        "ends": ("loglikelihood", "doc_to_text: '{{text}}'\ndoc_to_target: '{{end}}'\nmetric_list:\n"
                 "  - {metric: perplexity, aggregation: perplexity, higher_is_better: false}\n"
                 "  - {metric: acc, aggregation: mean, higher_is_better: true}\n"),
    }  # fmt: skip
    for folder in ("data", "tasks"):
        Path(folder).mkdir(exist_ok=True)
    for name, drawn in documents.items():
        Path("data", f"{name}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in drawn))
        kind, form = said[name]
        Path("tasks", f"{name}.yaml").write_text(TASK.format(name=name, kind=kind) + form)


if __name__ == "__main__":
    make_models()
    make_tasks()
