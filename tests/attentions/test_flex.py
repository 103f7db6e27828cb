"""The functions that FlexAttention compiles on a GPU, run uncompiled: they equal the dense oracle."""

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from lpe_eval.model import flex_kernels
from lpe_eval.model.attentions.dense import Dense
from lpe_eval.model.attentions.flex import Flex
from lpe_eval.model.build import build_encodings, initialise
from lpe_eval.model.encoding import Encoding, Geometry
from lpe_eval.model.flex_kernels import by_offset, by_ratio, causal_blocks, offset_inputs, ratio_inputs
from lpe_eval.model.mask import Mask
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


def blocks_for(rows: int, length: int, causal: bool):
    return causal_blocks(rows, length, CPU) if causal else None


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])
@pytest.mark.parametrize("name", ["alibi", "kerple_log", "kerple_power", "t5", "sandwich", "mep"])
def test_a_bias_by_offset_is_that_of_the_oracle(name: str, causal: bool):
    encoding = built(EncodingSpec(name=name), causal)
    for rows, length in SIZES:
        q, k, v = inputs(rows, length)
        at = torch.arange(length)
        given = offset_inputs(encoding, at, rows)
        context = by_offset(q, k, v, given, blocks_for(rows, length, causal), False)
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
def test_fire_in_linear_pieces_is_that_of_the_oracle(options: dict, causal: bool):
    encoding = built(EncodingSpec(name="fire", options=options), causal)
    ratio = encoding.ratio_bias()
    assert ratio is not None
    for rows, length in SIZES:
        q, k, v = inputs(rows, length)
        at = torch.arange(length)
        given = ratio_inputs(ratio, at, rows)
        context = by_ratio(q, k, v, given, blocks_for(rows, length, causal), False)
        torch.testing.assert_close(context, Dense.attend(q, k, v, encoding, at, Mask(causal)), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])
def test_a_learned_row_of_values_of_t5_gets_the_gradient_of_the_oracle(causal: bool):
    # On the CPU FlexAttention differentiates what a function reads, but not queries, keys and values.
    encoding, at = built(EncodingSpec(name="t5"), causal), torch.arange(61)
    q, k, v = inputs(40, 61)
    weights = torch.randn(q.shape, generator=torch.Generator().manual_seed(1))
    (learned,) = encoding.parameters()
    context = by_offset(q, k, v, offset_inputs(encoding, at, 40), blocks_for(40, 61, causal), False)
    (gradient,) = torch.autograd.grad((context * weights).sum(), [learned])
    (wanted,) = torch.autograd.grad((Dense.attend(q, k, v, encoding, at, Mask(causal)) * weights).sum(), [learned])
    torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("rows", "length"), [(1, 1), (33, 33), (128, 128), (7, 300), (129, 300), (640, 640), (555, 777)]
)
def test_counted_blocks_are_those_that_hold_something(rows: int, length: int):
    sees = torch.arange(length) <= torch.arange(length - rows, length)[:, None]
    counted = causal_blocks(rows, length, CPU)
    found: dict[str, list[set[int]]] = {
        name: [set() for _ in range(-(-(rows if "kv" in name else length) // 128))]
        for name in ("kv", "full_kv", "q", "full_q")
    }
    for query, start in enumerate(range(0, rows, 128)):
        for key, left in enumerate(range(0, length, 128)):
            block = sees[start : start + 128, left : left + 128]
            # A block of keys that reaches beyond the text is never whole.
            kind = "full_" if block.all() and left + 128 <= length else ""
            if block.any():
                found[f"{kind}kv"][query].add(key)
                found[f"{kind}q"][key].add(query)
    for name, blocks in found.items():
        numbers, indices = getattr(counted, f"{name}_num_blocks"), getattr(counted, f"{name}_indices")
        assert [set(row[:number].tolist()) for row, number in zip(indices[0, 0], numbers[0, 0], strict=True)] == blocks
        assert [len(each) for each in blocks] == numbers[0, 0].tolist()


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])
@pytest.mark.parametrize("name", ["alibi", "fire"])
def test_another_length_compiles_nothing(name: str, causal: bool):
    torch._dynamo.reset()
    counter = CompileCounter()
    encoding, function = built(EncodingSpec(name=name), causal), by_ratio if name == "fire" else by_offset
    compiled = torch.compile(function, dynamic=True, fullgraph=True, backend=counter)
    ratio = encoding.ratio_bias()
    with torch.no_grad():
        for length in (513, 777, 1100, 650):
            q, k, v = inputs(length, length)
            at = torch.arange(length)
            given = offset_inputs(encoding, at, length) if ratio is None else ratio_inputs(ratio, at, length)
            compiled(q, k, v, given, blocks_for(length, length, causal), False)
    assert counter.frame_count == 1


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
            at = torch.arange(length, device=device)
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
