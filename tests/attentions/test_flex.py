"""The functions that FlexAttention compiles on a GPU, run uncompiled: they equal the dense oracle."""

from typing import Any

import pytest
import torch

from lpe_eval.model import flex_kernels
from lpe_eval.model.attentions.checkpointed import Checkpointed
from lpe_eval.model.attentions.dense import Dense
from lpe_eval.model.attentions.flex import Flex
from lpe_eval.model.build import build_encodings, initialise
from lpe_eval.model.encoding import Encoding, Geometry
from lpe_eval.model.flex_kernels import by_offset, by_ratio, mask_blocks
from lpe_eval.model.mask import Mask
from lpe_eval.model.positions import run_on
from lpe_eval.spec.encoding_spec import EncodingSpec

CPU = torch.device("cpu")
DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
SIZES = ((33, 33), (7, 33), (1, 1), (150, 300), (257, 257))

pytestmark = [
    pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile"),
    # Tracing looks for the gradient of every tensor that a function has caught.
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
]


def built(spec: EncodingSpec, causal: bool, heads: int = 3, train_length: int = 16) -> Encoding:
    encodings = build_encodings(spec, Geometry(heads, 16, heads * 16, train_length, causal), 1)
    initialise(encodings, torch.Generator().manual_seed(3))
    return encodings[0]


def inputs(rows: int, length: int, heads: int = 3, batch: int = 2) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(rows + length)
    return [torch.randn(batch, heads, size, 16, generator=draw) for size in (rows, length, length)]


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flex_kernels, "compiled", lambda function: function)


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])
@pytest.mark.parametrize("name", ["alibi", "kerple_log", "kerple_power", "t5", "sandwich", "mep"])
def test_a_bias_by_offset_is_that_of_the_oracle(name: str, causal: bool, uncompiled: None):
    encoding = built(EncodingSpec(name=name), causal)
    for rows, length in SIZES:
        q, k, v = inputs(rows, length)
        at = torch.arange(length)
        context = flex_kernels.attend(q, k, v, encoding, at, causal)
        torch.testing.assert_close(context, Dense.attend(q, k, v, encoding, at, Mask(causal)), rtol=2e-5, atol=2e-5)


FIRES = [
    {"hidden": 32},
    {"hidden": 1, "normaliser": "query"},
    {"hidden": 7, "future": "zero"},
    {"hidden": 31, "activation": "leaky_relu"},
]


@pytest.mark.slow
@pytest.mark.parametrize("options", FIRES)
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])
def test_fire_in_linear_pieces_is_that_of_the_oracle(options: dict, causal: bool, uncompiled: None):
    encoding = built(EncodingSpec(name="fire", options=options), causal)
    ratio = encoding.ratio_bias()
    assert ratio is not None
    for rows, length in SIZES:
        q, k, v = inputs(rows, length)
        at = torch.arange(length)
        context = flex_kernels.attend(q, k, v, ratio, at, causal)
        torch.testing.assert_close(context, Dense.attend(q, k, v, encoding, at, Mask(causal)), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])
def test_a_learned_row_of_values_of_t5_gets_the_gradient_of_the_oracle(causal: bool, uncompiled: None):
    # On the CPU FlexAttention differentiates what a function reads, but not queries, keys and values.
    encoding, at = built(EncodingSpec(name="t5"), causal), torch.arange(61)
    q, k, v = inputs(40, 61)
    weights = torch.randn(q.shape, generator=torch.Generator().manual_seed(1))
    (learned,) = encoding.parameters()
    context = flex_kernels.attend(q, k, v, encoding, at, causal)
    (gradient,) = torch.autograd.grad((context * weights).sum(), [learned])
    (wanted,) = torch.autograd.grad((Dense.attend(q, k, v, encoding, at, Mask(causal)) * weights).sum(), [learned])
    torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])
@pytest.mark.parametrize(
    ("rows", "length"), [(1, 1), (33, 33), (128, 128), (7, 300), (129, 300), (640, 640), (555, 777), (256, 512)]
)
def test_counted_blocks_are_those_that_hold_something(rows: int, length: int, causal: bool):
    all_rows, all_keys = (max(256, -(-each // 128) * 128) for each in (rows, length))
    last = torch.arange(length - rows, length - rows + all_rows) if causal else torch.full((all_rows,), length - 1)
    sees = torch.arange(all_keys) <= last[:, None]
    counted = mask_blocks(rows, length, causal, CPU)
    found: dict[str, list[set[int]]] = {
        name: [set() for _ in range((all_rows if "kv" in name else all_keys) // 128)]
        for name in ("kv", "full_kv", "q", "full_q")
    }
    for query, start in enumerate(range(0, all_rows, 128)):
        for key, left in enumerate(range(0, all_keys, 128)):
            block = sees[start : start + 128, left : left + 128]
            kind = "full_" if block.all() else ""
            if block.any():
                found[f"{kind}kv"][query].add(key)
                found[f"{kind}q"][key].add(query)
    for name, blocks in found.items():
        numbers, indices = getattr(counted, f"{name}_num_blocks"), getattr(counted, f"{name}_indices")
        assert [set(row[:number].tolist()) for row, number in zip(indices[0, 0], numbers[0, 0], strict=True)] == blocks
        assert [len(each) for each in blocks] == numbers[0, 0].tolist()


class Counted:
    """Compiles nothing, and counts how often something would be compiled; its results have the shape of the queries."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, graph: torch.fx.GraphModule, examples: Any) -> Any:
        self.times += 1
        return lambda *given: (torch.empty_like(next(each for each in given if is_heads(each))),)


def is_heads(given: object) -> bool:
    return isinstance(given, torch.Tensor) and given.dim() == 4 and given.is_floating_point()


def a_varied_run(batch_tokens: int) -> list[tuple[int, int, int]]:
    """Texts, queries and keys of every kind: the probe, full batches and their rests, all protocols, ragged ends."""
    sizes = [(1, tokens, tokens) for tokens in (48, 2)]
    for length in (128, 256, 512, 1024, 2048, 4096, 8192, 16384):
        whole = max(1, batch_tokens // length)
        for texts in dict.fromkeys((whole, 3, 1)):
            sizes += [(texts, rows, length) for rows in (length, length // 2, min(256, length), min(100, length), 1)]
        for rest in (length - 37, length // 2 + 5, length // 3):
            sizes += [(texts, rows, rest) for texts in (1, 2) for rows in (rest, min(60, rest))]
    return sizes


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])
@pytest.mark.parametrize("name", ["alibi", "fire"])
def test_a_varied_run_compiles_at_most_four_times(name: str, causal: bool, monkeypatch: pytest.MonkeyPatch):
    torch._dynamo.reset()
    counter, meta = Counted(), torch.device("meta")
    encoding = built(EncodingSpec(name=name), causal, heads=12).to(meta)
    made = {each: torch.compile(each, dynamic=True, fullgraph=True, backend=counter) for each in (by_offset, by_ratio)}
    monkeypatch.setattr(flex_kernels, "compiled", made.__getitem__)
    monkeypatch.setattr("torch.nn.attention.flex_attention._validate_device", lambda *_: None)
    for texts, rows, length in a_varied_run(16384):
        with torch.inference_mode():
            # As in the transformer: views of one tensor.
            q, k, v = torch.empty(texts, length, 3, 12, 16, dtype=torch.bfloat16, device=meta).permute(2, 0, 3, 1, 4)
            context = Flex.attend(q[:, :, length - rows :], k, v, encoding, run_on(length, meta), Mask(causal))
        assert context.shape == (texts, 12, rows, 16)
    assert 1 <= counter.times <= 4
    with torch.no_grad():
        Flex.attend(q, k, v, encoding, run_on(length, meta), Mask(causal))
    assert counter.times <= 4


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])
@pytest.mark.parametrize("name", ["alibi", "kerple_log", "fire"])
def test_the_path_equals_the_oracle(name: str, causal: bool, device: str, monkeypatch: pytest.MonkeyPatch):
    if device == "cpu":
        monkeypatch.setattr(flex_kernels, "compiled", lambda function: function)
    encoding = built(EncodingSpec(name=name), causal).to(device)
    with torch.no_grad():
        # On a GPU each of them compiles a kernel.
        for rows, length in ((256, 256), (130, 300), *(((33, 33), (20, 45)) if device == "cpu" else ())):
            q, k, v = (each.to(device) for each in inputs(rows, length))
            at = run_on(length, torch.device(device))
            context, expected = (path.attend(q, k, v, encoding, at, Mask(causal)) for path in (Flex, Dense))
            torch.testing.assert_close(context, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])
@pytest.mark.parametrize(
    ("name", "at"),
    [("kerple_log", torch.arange(45) ** 2), ("fire", torch.arange(45)), ("fire", torch.arange(45) * 3)],
    ids=["kerple_log-squares", "fire-plain", "fire-gaps"],
)
def test_what_it_cannot_compile_is_computed_all_the_same(name: str, at: torch.Tensor, causal: bool, device: str):
    q, k, v = (each.to(device).requires_grad_() for each in inputs(20, 45))
    encoding, at = built(EncodingSpec(name=name), causal).to(device), at.to(device)
    wanted = [q, k, v, *encoding.parameters()]
    results = []
    for path in (Flex, Dense):
        context = path.attend(q, k, v, encoding, at, Mask(causal))
        results.append([context, *torch.autograd.grad(context.square().sum(), wanted)])
    for ours, theirs in zip(*results, strict=True):
        scale = max(1.0, theirs.abs().max().item())
        torch.testing.assert_close(ours / scale, theirs / scale, rtol=1e-4, atol=1e-4)


def test_a_machine_without_a_gpu_is_not_served():
    assert not Flex.serves(built(EncodingSpec(name="alibi"), True), CPU)
    if not torch.cuda.is_available():
        assert not Flex.serves(built(EncodingSpec(name="alibi"), True), torch.device("cuda"))


@pytest.mark.parametrize("name", ["kerple_log", "t5"])
def test_learned_values_are_added_in_a_fixed_order_where_that_is_asked_for(name: str):
    encoding, at = built(EncodingSpec(name=name), True), torch.arange(45)
    q, k, v = (each.requires_grad_() for each in inputs(20, 45))
    results = []
    torch.use_deterministic_algorithms(True)
    try:
        # On the CPU the compiled function has no gradients, so this would raise if it were called.
        for path in (Flex, Checkpointed):
            context = path.attend(q, k, v, encoding, at, Mask())
            results.append([context, *torch.autograd.grad(context.sum(), [q, k, v, *encoding.parameters()])])
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(*each) for each in zip(*results, strict=True))
