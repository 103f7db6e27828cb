"""RoPE at other distances: the authors' numbers, every pair by brute force, and what it becomes at its limits."""

from typing import Any

import pytest
import torch
from torch import Tensor

from lpe_eval.errors import SpecError, UnknownName
from lpe_eval.model.encoding import Encoding
from lpe_eval.model.encodings.remap import Remap
from lpe_eval.model.remap_options import RemapOptions, parse_remap
from lpe_eval.model.remaps import mapped_distances
from tests.support import remap_oracle
from tests.support.at_positions import dots, initialised, same, scores_at
from tests.support.golden_cases import Case, cases, check, compared, each, tensor, tolerance
from tests.support.official_parameters import build, geometry, scores_of

T = 61
FORMS: list[dict[str, Any]] = [
    {"method": "self_extend", "group": 3, "window": 6},
    {"method": "self_extend", "group": 4, "window": 7},
    {"method": "self_extend", "group": 4, "window": 6, "division": "real"},
    {"method": "self_extend", "group": 5, "window": 1},
    {"method": "rerope", "window": 5},
    {"method": "rerope", "window": 1, "log_n": False},
    {"method": "leaky_rerope", "window": 6, "factor": 4.0},
    {"method": "dca", "chunk_size": 12, "local": 4},
    {"method": "dca", "chunk_size": 12, "local": 2, "length_factor": "vllm"},
    {"method": "dca", "chunk_size": 9, "local": 8, "length_factor": "chunkllama"},
    {"method": "log_n"},
]
every_form = pytest.mark.parametrize("options", FORMS, ids=str)


def numbers_of(case: Case) -> dict[str, Any]:
    """The options of a golden case, under our names."""
    fields = case.fields
    if "group_size" in fields:
        scale = fields["scale_base"]
        return {
            "method": "self_extend", "group": fields["group_size"], "window": fields["window_size"],
            "division": fields["division"], "log_n": scale > 0, "original_length": scale if scale > 0 else None,
        }  # fmt: skip
    if "chunk_size" in fields:
        rule = {"chunkllama": "chunkllama", "chunkqwen": "none", "vllm_dca": "vllm"}[case.provenance]
        original = fields.get("pretraining_length", fields.get("original_max_position_embeddings"))
        sizes = {"chunk_size": fields["chunk_size"], "local": fields["local_window"]}
        return {"method": "dca", **sizes, "length_factor": rule, "original_length": original}
    leaky = {"factor": fields["scaling_factor"]} if "scaling_factor" in fields else {}
    method = "leaky_rerope" if leaky else "rerope"
    return {"method": method, "window": fields["window"], "original_length": int(fields["training_length"]), **leaky}


def grouped(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = (tensor(case.inputs[name]) for name in "qkv")
    copies = q.shape[1] // k.shape[1]
    return q, k.repeat_interleave(copies, dim=1), v.repeat_interleave(copies, dim=1)


@each("remap")
def test_logits_and_contexts_are_those_of_released_code(case: Case) -> None:
    q, k, v = grouped(case)
    rope = {"name": "rope", "theta": case.fields["rope_base"]}
    remap = build({"name": "remap", **numbers_of(case), "base": rope}, geometry(q.shape[1], q.shape[3]))
    q, k = remap.rotate(q, k, torch.arange(q.shape[2]))
    logits = remap.adjust(scores_of(remap, q @ k.mT * q.shape[-1] ** -0.5, q, k))
    check(case, "logits", logits)
    context = remap_oracle.attended(logits, v)
    assert (context - tensor(case.outputs["context"], torch.float64)).abs().max() <= tolerance(case, "context")


def brute_force(case: Case, slip: str = "") -> Tensor:
    q, k, _ = grouped(case)
    numbers, length = numbers_of(case), q.shape[2]
    method = numbers["method"]
    inverse = case.fields["rope_base"] ** (-torch.arange(0, q.shape[3], 2).double() / q.shape[3])
    scaled = numbers.get("log_n", method != "dca")
    original = numbers["original_length"]
    factors = torch.tensor(
        [remap_oracle.query_factor(i, original if scaled else None, slip) for i in range(length)]
    ) * remap_oracle.length_factor(numbers.get("length_factor", "none"), length, original or 1, slip)
    return remap_oracle.logits(q, k, inverse, remap_oracle.table(length, method, numbers, slip), factors)


@each("remap")
def test_the_formulas_pair_by_pair_are_those_of_released_code(case: Case) -> None:
    check(case, "logits", brute_force(case))


@pytest.mark.parametrize("slip", remap_oracle.WRONG)
def test_a_slip_in_the_formulas_is_seen_in_the_golden_numbers(slip: str) -> None:
    gaps = []
    for case in cases("remap"):
        mine, golden = compared(case, brute_force(case, slip), tensor(case.outputs["logits"], torch.float64))
        gaps.append(float((mine - golden).abs().max()) - tolerance(case, "logits"))
    assert max(gaps) > 1e-3


@every_form
@pytest.mark.parametrize("length", [1, 4, T])
def test_every_pair_has_the_distance_of_the_formula(options: dict[str, Any], length: int) -> None:
    found, at = RemapOptions(**options).resolved(16, "here"), torch.arange(length)
    mapped = mapped_distances(found.distances, at, at)
    wanted = remap_oracle.table(length, found.method, dict(found.chosen))
    past = torch.ones(length, length, dtype=torch.bool).tril()
    assert torch.equal(mapped[past], wanted[past]) or float((mapped - wanted)[past].abs().max()) < 1e-12
    assert bool(mapped[~past].isnan().all())


def member(options: dict[str, Any], **rope: Any) -> Encoding:
    return initialised("remap", **options, base={"name": "rope", **rope})


def logits(encoding: Encoding, length: int = T) -> Tensor:
    at = torch.arange(length)
    scores = scores_at(encoding, at)
    q, k = encoding.rotate(scores.queries, scores.keys, at)
    scores = scores._replace(logits=q @ k.mT / 8**0.5, queries=q, keys=k)
    return encoding.adjust(scores).masked_fill(~scores.visible, 0.0)


LIKE_ROPE = [
    ({"method": "self_extend", "window": T, "group": 3}, {}),
    ({"method": "self_extend", "window": 5, "group": 1}, {}),
    ({"method": "rerope", "window": T, "log_n": False}, {}),
    ({"method": "leaky_rerope", "window": 7, "factor": 1.0, "log_n": False}, {}),
    ({"method": "dca", "chunk_size": T + 4, "local": 4}, {}),
    ({"method": "log_n", "original_length": T}, {}),
]


@pytest.mark.parametrize("rope", [{}, {"layout": "interleaved"}, {"fraction": 0.5}], ids=str)
@pytest.mark.parametrize("options", [each[0] for each in LIKE_ROPE], ids=str)
def test_where_no_distance_changes_it_is_rope(options: dict[str, Any], rope: dict[str, Any]) -> None:
    same(logits(member(options, **rope)), logits(initialised("rope", **rope)), 2e-5)


def test_a_huge_factor_makes_leaky_rerope_rerope_and_one_that_is_not_huge_does_not() -> None:
    rerope = logits(member({"method": "rerope", "window": 5}))
    same(logits(member({"method": "leaky_rerope", "window": 5, "factor": 1e9})), rerope, 1e-5)
    leaky = logits(member({"method": "leaky_rerope", "window": 5, "factor": 10}))
    assert float((leaky - rerope).abs().max()) > 0.1


@every_form
@pytest.mark.parametrize(
    "rope",
    [
        {"layout": "interleaved"},
        {"fraction": 0.5},
        {"scaling": {"type": "yarn", "factor": 4}},
        {"scaling": {"type": "linear", "factor": 2}, "layout": "interleaved"},
        {"angle_dtype": "float64", "theta": 100.0},
    ],
    ids=str,
)
def test_rotations_carried_on_are_those_of_the_mapped_distances(options: dict[str, Any], rope: dict[str, Any]) -> None:
    """Against one rotation of each query by each of its distances, for every layout and scaling of RoPE."""
    remap = member(options, **rope)
    assert isinstance(remap, Remap)
    at, turned = torch.arange(T), remap.turned
    scores = scores_at(remap, at)
    q, k = scores.queries.double(), scores.keys.double()
    pairs = 2 * len(turned.inverse)
    order = [*range(0, pairs, 2), *range(1, pairs, 2)] if turned.layout == "interleaved" else [*range(pairs)]
    magnitude = (dots(initialised("rope", **rope), torch.zeros(T).long()) / dots(initialised("rope"), at * 0)).mean()
    found, numbers = remap.remapping, dict(remap.remapping.chosen)
    whole = remap_oracle.length_factor(found.factor, T, 16)
    factors = torch.tensor(
        [whole * remap_oracle.query_factor(i, 16 if found.scaled else None) for i in range(T)], dtype=torch.float64
    )
    distances = remap_oracle.table(T, found.method, numbers)
    wanted = (
        remap_oracle.logits(q[..., order], k[..., order], turned.inverse, distances, factors * magnitude, 8**-0.5)
        + (q[..., pairs:] @ k[..., pairs:].mT) * factors[:, None] * 8**-0.5
    )
    same(logits(remap).double(), wanted.masked_fill(~scores.visible, 0.0), 5e-5)


@every_form
def test_in_two_directions_the_future_mirrors_the_past(options: dict[str, Any]) -> None:
    remap = build({"name": "remap", **options, "log_n": None, "base": "rope"}, geometry(3, causal=False))
    assert isinstance(remap, Remap)
    at = torch.arange(T)
    scores = scores_at(remap, at)
    q, k = remap.inner.rotate(scores.queries, scores.keys, at)
    scores = scores._replace(logits=q @ k.mT / 8**0.5, queries=q, keys=k)
    swapped = scores._replace(logits=k @ q.mT / 8**0.5, queries=k, keys=q)
    same(remap.adjust(scores), remap.adjust(swapped).mT, 1e-5)


def test_only_a_length_factor_changes_a_prefix() -> None:
    for options in FORMS:
        assert member(options).prefix_stable == ("length_factor" not in options)


def test_what_is_meant_where_nothing_is_said_is_the_released_codes() -> None:
    def told(text: str) -> dict[str, Any]:
        return parse_remap(text).resolved(4096, "here").told()

    assert told("self-extend") == {
        "method": "self_extend", "window": 1024, "group": 8, "division": "floor", "log_n": False
    }  # fmt: skip
    assert told("rerope") == {"method": "rerope", "window": 512, "log_n": True, "original_length": 4096}
    assert told("leaky_rerope") == {
        "method": "leaky_rerope", "window": 512, "factor": 16.0, "log_n": True, "original_length": 4096
    }  # fmt: skip
    assert told("dca") == {
        "method": "dca", "chunk_size": 3072, "local": 512, "log_n": False, "length_factor": "none"
    }  # fmt: skip
    assert told("log_n") == {"method": "log_n", "log_n": True, "original_length": 4096}


def test_a_remap_is_read_in_both_spellings() -> None:
    short = parse_remap("self_extend:group=8, window=1024")
    assert short == parse_remap('{"method": "self-extend", "group": 8, "window": 1024}')
    assert (short.method, short.group, short.window) == ("self_extend", 8, 1024)
    assert parse_remap("rerope:log_n=false").log_n is False


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("self_extend:window=0", "window.*greater than or equal to 1"),
        ("self_extend:group=0,window=4", "group.*greater than or equal to 1"),
        ("selfextend", "did you mean self_extend"),
        ("", "no remap of distances named ''"),
        ("rerope:", "ends in a colon"),
        ("rerope:512", "'512' is not key=value"),
        ("rerope:window", "'window' is not key=value"),
        ("rerope:window=4,window=5", "twice"),
        ("rerope:group=4", "no option of the remap rerope named 'group'"),
        ("leaky_rerope:factor=0.5", "factor.*greater than or equal to 1"),
        ("leaky_rerope:factor=.inf", "factor.*finite"),
        ("dca:chunk_size=1", "chunk_size.*greater than or equal to 2"),
        ("dca:length_factor=qwen", "length_factor.*'vllm'"),
        ("self_extend:division=half", "division.*'real'"),
        ("self_extend:window=many", "window.*integer"),
        ("log_n:log_n=false", "changes nothing"),
        ("rerope:original_length=1", "original_length.*greater than or equal to 2"),
        ("{not json", "not JSON"),
        ("[1]", "no remap of distances"),
    ],
)
def test_a_remap_that_cannot_be_is_told_in_a_sentence(text: str, told: str) -> None:
    with pytest.raises(SpecError, match=told) as caught:
        parse_remap(text)
    assert "\n" not in str(caught.value)


def test_lengths_that_do_not_fit_each_other_are_told_in_a_sentence() -> None:
    with pytest.raises(SpecError, match="chunk_size above local, not 4 and 4"):
        parse_remap("dca:chunk_size=4,local=4").resolved(16, "here")
    with pytest.raises(SpecError, match="chunk_size above local, not 2 and 2"):
        parse_remap("dca:chunk_size=2").resolved(16, "here")
    with pytest.raises(SpecError, match="original_length=TOKENS"):
        parse_remap("self_extend").resolved(None, "here")
    assert parse_remap("self_extend:window=4").resolved(None, "here").chosen["window"] == 4
    with pytest.raises(SpecError, match="original_length=TOKENS"):
        parse_remap("rerope:window=4").resolved(None, "here")


@pytest.mark.parametrize("base", ["alibi", "none", "kerple_log", "dape(alibi)", "learned", "sinusoidal"])
def test_it_is_refused_around_what_is_not_rope(base: str) -> None:
    with pytest.raises(SpecError, match=r"has none; write remap\(rope\)"):
        build({"name": "remap", "base": base}, geometry(3))


def test_it_is_refused_around_rotations_that_it_cannot_carry_on() -> None:
    with pytest.raises(SpecError, match="more than position times frequency"):
        initialised("remap", base={"name": "xpos"})
    with pytest.raises(SpecError, match="change with the length"):
        member({}, scaling={"type": "dynamic_ntk", "factor": 2})
    with pytest.raises(SpecError, match=r"remap\(rope\)"):
        build({"name": "remap"}, geometry(3))
    with pytest.raises(UnknownName, match="did you mean window"):
        member({"windows": 3})
    with pytest.raises(SpecError, match="group is no option of rerope"):
        member({"method": "rerope", "group": 3})
    with pytest.raises(SpecError, match="more than position"):
        initialised("remap", base={"name": "remap", "base": {"name": "rope"}})
