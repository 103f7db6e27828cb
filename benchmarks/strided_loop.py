"""`lpe-eval ppl` against the loop that most people write, on the same transformers model and the same text.

The usual loop slides a window over the text with batch size 1, lets the model compute logits for every
token, masks labels outside the last stride with -100, and weighs the returned means. Both score the
same targets with the same context, so both perplexities must be equal.

    python benchmarks/strided_loop.py --length 2048 --stride 256
"""

import argparse
import math
import statistics
import tempfile
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

from lpe_eval.data.corpus import Corpus, open_corpus
from lpe_eval.data.selection import Selection, choose_documents
from lpe_eval.data.tokenizer import open_tokenizer
from lpe_eval.data.windows import plan
from lpe_eval.measure.by_length import Plan, measure
from lpe_eval.model.checkpoint import LoadOptions, locate
from lpe_eval.spec.corpus_spec import CorpusSpec
from lpe_eval.spec.protocol_spec import ProtocolSpec
from lpe_eval.table import CellKey, Facts


def main() -> None:
    """Prints one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--stride", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=6145)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--vocabulary", type=int, default=50304)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        corpus = open_corpus(CorpusSpec.parse("python-stdlib"))
        _save_model(Path(folder), corpus, asked)
        tokenizer = open_tokenizer(f"hf:{folder}")
        text = choose_documents(
            corpus, "test", tokenizer, longest=asked.length, max_tokens=asked.tokens, seed=0, cap=asked.tokens
        )
        located = locate(f"hf:{folder}")
        ours = located.load(LoadOptions(torch.device("cpu")))
        theirs = GPTNeoXForCausalLM.from_pretrained(folder).eval()
        taken: dict[str, list[float]] = {"usual loop": [], "lpe-eval": []}
        values: dict[str, float] = {}
        for _ in range(asked.rounds):
            for name, run in (
                ("usual loop", lambda: _usual_loop(theirs, text, asked.length, asked.stride)),
                ("lpe-eval", lambda: _ours(ours, text, asked.length, asked.stride)),
            ):
                began = time.perf_counter()
                values[name] = run()
                taken[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(times) for name, times in taken.items()}
    print(f"length {asked.length}, stride {asked.stride}, {sum(len(d.tokens) for d in text.documents)} tokens, "
          f"{torch.get_num_threads()} threads, median of {asked.rounds}\n")  # fmt: skip
    print("| | perplexity | seconds | times |\n|---|---|---|---|")
    for name, seconds in medians.items():
        print(f"| {name} | {math.exp(values[name]):.6f} | {seconds:.2f} | {medians['usual loop'] / seconds:.2f} |")


def _save_model(folder: Path, corpus: Corpus, asked: argparse.Namespace) -> None:
    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=4096, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    words.train_from_iterator((document.text for document in corpus.documents("valid")), trainer)
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(folder)
    shape = {"hidden_size": asked.width, "intermediate_size": 4 * asked.width, "num_hidden_layers": asked.layers}
    config = GPTNeoXConfig(vocab_size=asked.vocabulary, num_attention_heads=8, max_position_embeddings=2048, **shape)
    GPTNeoXForCausalLM(config).save_pretrained(folder)


@torch.no_grad()
def _usual_loop(model: GPTNeoXForCausalLM, text: Selection, length: int, stride: int) -> float:
    nats, count = 0.0, 0
    for document in text.documents:
        tokens = torch.from_numpy(document.tokens)
        scored = 1
        for start in range(0, len(tokens), stride):
            stop = min(start + length + 1, len(tokens))
            inputs = tokens[start:stop][None]
            labels = inputs.clone()
            labels[:, : scored - start] = -100
            targets = int((labels[:, 1:] != -100).sum())
            nats += model(inputs, labels=labels).loss.item() * targets
            count += targets
            scored = stop
            if stop == len(tokens):
                break
    return nats / count


def _ours(model, text: Selection, length: int, stride: int) -> float:
    key = CellKey("m", "sliding", length, stride)
    sizes = [len(document.tokens) for document in text.documents]
    windows = plan(ProtocolSpec(name="sliding", stride=stride), length, sizes, "never", "score", length)
    facts = Facts("rope", None, "custom", 0, "python-stdlib", "test", 0, "float32", "cpu")
    plans = [Plan(length, {key: windows})]
    (cell,) = measure(
        model, text.documents, plans, facts, bos_id=None, batch_tokens=16384, seed=0, advance=lambda done: None
    )
    return sum(block.nll_nats for block in cell.blocks) / sum(block.n_tokens for block in cell.blocks)


if __name__ == "__main__":
    main()
