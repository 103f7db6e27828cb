"""Time and memory of planning a run on much text: one file of a gigabyte, and a folder of a hundred thousand files.

    python benchmarks/planning.py FOLDER [--tokens 73728] [--bytes 1000000000] [--files 100000]

FOLDER gets the texts (generated, the same every time) and a small tokenizer; what is there already is used again. Each
measurement is a process of its own, so that the peak of its memory is its own. Planning is everything that `ppl` does
with a text before a weight is read: listing, ordering, reading, digests, encoding and windows.
"""

import argparse
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

LENGTHS = (512, 8192)
WORDS = 5000


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokens", type=int, default=73728)
    parser.add_argument("--bytes", type=int, default=10**9)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--plan", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.plan:
        plan(*given.plan, given.tokens)
        return
    given.folder.mkdir(parents=True, exist_ok=True)
    tokenizer = f"hf:{write_tokenizer(given.folder)}"
    texts = write_texts(given.folder, given.bytes, given.files)
    print(
        "| text | tokenizer | seconds | of a processor | MiB more | tokens | documents |\n|---|---|--:|--:|--:|--:|--:|"
    )
    for name, text in texts.items():
        for kind in ("bytes", tokenizer):
            own = [
                sys.executable,
                __file__,
                str(given.folder),
                "--tokens",
                str(given.tokens),
                "--plan",
                str(text),
                kind,
            ]
            found = subprocess.run(own, capture_output=True, text=True, check=True).stdout.strip()
            print(f"| {name} | {kind.partition(':')[0]} | {found} |", flush=True)


def plan(text: str, tokenizer_name: str, tokens: int) -> None:
    """Plans a run on one text with one tokenizer, and prints its figures."""
    from lpe_eval.data.corpus import open_corpus
    from lpe_eval.data.selection import choose_documents
    from lpe_eval.data.tokenizer import open_tokenizer
    from lpe_eval.data.windows import plan as windows
    from lpe_eval.spec.corpus_spec import CorpusSpec
    from lpe_eval.spec.protocol_spec import ProtocolSpec

    tokenizer = open_tokenizer(tokenizer_name)
    tokenizer.encode("once, so that libraries are there")
    before, began, worked = peak_mib(), time.perf_counter(), time.process_time()
    corpus = open_corpus(CorpusSpec.parse(text))
    chosen = choose_documents(corpus, corpus.split, tokenizer, longest=max(LENGTHS), max_tokens=tokens, seed=0)
    sizes = [len(each.tokens) for each in chosen.documents]
    for length in LENGTHS:
        windows(ProtocolSpec(name="sliding"), length, sizes, "never", "score", max(LENGTHS))
    seconds, worked = time.perf_counter() - began, time.process_time() - worked
    print(
        f"{seconds:.1f} | {worked:.1f} | {peak_mib() - before:.0f} | {sum(sizes):,} | {len(sizes)} of {chosen.n_seen:,}"
    )


def peak_mib() -> float:
    """The most memory of this process until now."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def sentences(seed: int, n_bytes: int) -> str:
    """Words of a made-up language by Zipf's law, with full stops, line breaks and numbers."""
    draw = random.Random(seed)
    letters = "etaoinshrdlucmfwypvbgk"
    known = ["".join(draw.choices(letters, k=draw.randint(1, 9))) for _ in range(WORDS)]
    weights = [1 / (rank + 2) for rank in range(WORDS)]
    parts: list[str] = []
    size = 0
    while size < n_bytes:
        line = " ".join(draw.choices(known, weights, k=draw.randint(4, 20))).capitalize()
        parts.append(line + draw.choice([". ", ".\n", ", 1984\n", "!\n\n"]))
        size += len(parts[-1])
    return "".join(parts)[:n_bytes]


def write_tokenizer(folder: Path) -> Path:
    """A byte-level BPE of 4000 symbols."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    file = folder / "tokenizer.json"
    if not file.exists():
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=4000, initial_alphabet=alphabet, show_progress=False)
        made.train_from_iterator([sentences(0, 1 << 20)], trainer)
        made.save(str(file))
    return file


def write_texts(folder: Path, n_bytes: int, n_files: int) -> dict[str, Path]:
    """The texts, by their names."""
    import json

    pieces = [sentences(seed, 1 << 20) for seed in range(1, 9)]
    one, lines, many = folder / "one.txt", folder / "rows.jsonl", folder / "many"
    if not one.exists():
        draw = random.Random(1)
        with one.open("w") as file:
            for _ in range(-(-n_bytes // (1 << 20))):
                file.write(draw.choice(pieces))
    if not lines.exists():
        draw = random.Random(2)
        with lines.open("w") as file:
            left = n_bytes
            while left > 0:
                start = draw.randrange(1 << 19)
                row = json.dumps({"text": draw.choice(pieces)[start : start + draw.randint(200, 80_000)]}) + "\n"
                file.write(row)
                left -= len(row)
    if not many.exists():
        draw = random.Random(3)
        for number in range(n_files):
            place = many / f"{number % 100:02d}"
            place.mkdir(parents=True, exist_ok=True)
            start = draw.randrange(1 << 19)
            (place / f"{number}.txt").write_text(draw.choice(pieces)[start : start + draw.randint(200, 20_000)])
    return {"one file": one, "JSON lines": lines, "folder of files": many}


if __name__ == "__main__":
    main()
