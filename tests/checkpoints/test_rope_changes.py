"""`rope_scaling`, `rope_theta` and `remap` on native and GPT-NeoX checkpoints: what training with them would run."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lpe_eval.errors import CheckpointError, SpecError, UnknownName
from lpe_eval.measure.facts import opened_facts
from lpe_eval.model.checkpoint import LoadOptions, locate
from lpe_eval.model.transformer import Transformer
from lpe_eval.model.transformer_model import TransformerModel, fill, state_of
from lpe_eval.spec.encoding_spec import EncodingSpec
from tests.support.native_checkpoints import checkpoint
from tests.support.neox_files import layers_of, write
from tests.support.neox_models import TOKENS as NEOX_TOKENS
from tests.support.neox_models import agree, scores
from tests.support.neox_models import opened as neox

TOKENS = torch.randint(0, 258, (1, 90), generator=torch.Generator().manual_seed(1))


def opened(reference: str, **options: Any) -> TransformerModel:
    model = locate(reference).load(LoadOptions(**options))
    assert isinstance(model, TransformerModel)
    return model


@torch.no_grad()
def answers(model: TransformerModel) -> Tensor:
    return model.logits(model.hidden(TOKENS, 90, torch.Generator())[0])


def with_encoding(model: TransformerModel, encoding: dict[str, Any] | list[Any]) -> Tensor:
    """What the same weights answer under an encoding that is written out."""
    spec = model.spec.model.model_copy(update={"encoding": EncodingSpec.model_validate(encoding)})
    other = Transformer(spec, "dense").eval()
    fill(other, state_of(model.model), Path("here"))
    with torch.no_grad():
        return other.logits(other(TOKENS, torch.Generator()))[0]


CHANGES: list[tuple[str, dict[str, Any]]] = [
    ("rope_scaling=linear:2", {"name": "rope", "scaling": {"type": "linear", "factor": 2.0}}),
    ("rope_scaling=dynamic:2", {"name": "rope", "scaling": {"type": "dynamic_ntk", "factor": 2.0}}),
    ("rope_scaling=ntk:4", {"name": "rope", "scaling": {"type": "ntk", "alpha": 4.0}}),
    (
        'rope_scaling={"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 16}',
        {"name": "rope", "scaling": {"type": "yarn", "factor": 4.0, "original_length": 16}},
    ),
    ("rope_theta=500", {"name": "rope", "theta": 500.0}),
    ("remap=self_extend:window=9,group=3", {"name": "remap", "window": 9, "group": 3, "base": {"name": "rope"}}),
    ("remap=rerope:window=20", {"name": "remap", "method": "rerope", "window": 20, "base": {"name": "rope"}}),
    ("remap=dca", {"name": "remap", "method": "dca", "chunk_size": 24, "local": 4, "base": {"name": "rope"}}),
    ("remap=log_n", {"name": "remap", "method": "log_n", "base": {"name": "rope"}}),
    (
        "remap=leaky_rerope:factor=3&rope_scaling=yarn:2&rope_theta=700",
        {
            "name": "remap", "method": "leaky_rerope", "window": 4, "factor": 3.0,
            "base": {"name": "rope", "theta": 700.0, "scaling": {"type": "yarn", "factor": 2.0}},
        },
    ),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "encoding"), CHANGES, ids=[each[0] for each in CHANGES])
def test_a_native_model_runs_as_if_its_config_said_so(settings: str, encoding: dict[str, Any], tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "mine", "rope")
    model, plain = opened(f"{folder}?{settings}"), opened(str(folder))
    got = answers(model)
    torch.testing.assert_close(got, with_encoding(plain, encoding), rtol=2e-4, atol=2e-4)
    own = answers(plain)
    assert (got - own).abs().max() > 1e-2
    located = locate(f"native:{folder}?{settings}")
    peek = located.peek(LoadOptions())
    assert (peek.name, peek.digest) == (model.facts.name, model.facts.digest)
    assert peek.digest != plain.facts.digest and peek.name.startswith("mine ")


def test_flag_and_address_are_one_and_names_differ(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "mine", "rope")
    asked = LoadOptions(rope_scaling="yarn:4", rope_theta=2e4, remap="rerope:window=4")
    by_flag = locate(str(folder)).peek(asked)
    assert by_flag == locate(f"{folder}?rope_scaling=yarn:4&rope_theta=2e4&remap=rerope:window=4").peek(LoadOptions())
    assert by_flag.name == "mine yarn:4 theta=20000 rerope:window=4"
    assert locate(str(folder)).peek(LoadOptions()).name == "mine"


def test_a_released_checkpoint_takes_settings_and_tells_of_them() -> None:
    model = opened("rope?remap=self_extend:group=4,window=128")
    assert model.facts.name == "rope self_extend:window=128,group=4"
    assert model.facts.encoding == "remap(rope, self_extend)"
    assert model.attention == "merged"
    told = opened_facts(model)["encoding_options"]
    assert told == {
        "name": "remap", "method": "self_extend", "window": 128, "group": 4, "base": {"name": "rope"}
    }  # fmt: skip
    assert dict(model.method())["method"].startswith("RoPE at other distances")


def test_rope_inside_a_wrapper_is_changed_where_it_is(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "mine", "dape(rope)")
    model = opened(f"{folder}?remap=rerope:window=5,log_n=false")
    assert str(model.spec.model.encoding) == "dape(remap(rope))"
    got = answers(model)
    own = opened(str(folder))
    encoding = {"name": "rope"}
    encoding = {"name": "remap", "method": "rerope", "window": 5, "log_n": False, "base": encoding}
    torch.testing.assert_close(got, with_encoding(own, {"name": "dape", "base": encoding}), rtol=2e-4, atol=2e-4)


REROPE = {"name": "remap", "method": "rerope", "window": 5, "log_n": False}


@pytest.mark.parametrize(
    ("schedule", "settings", "changed"),
    [
        (
            "rope[window=20],none",
            "remap=rerope:window=5,log_n=false",
            [{"encoding": {**REROPE, "base": "rope"}, "window": 20}, {"encoding": "none"}],
        ),
        (
            "tempered(p_rope)[chunk=30],fox[bias_init=2]",
            "remap=rerope:window=5,log_n=false",
            [
                {"encoding": {"name": "tempered", "base": {**REROPE, "base": "p_rope"}}, "chunk": 30},
                {"encoding": {"name": "fox", "bias_init": 2}},
            ],
        ),
        ("rope[window=20],p_rope", "rope_theta=300", [{"encoding": "rope[theta=300]", "window": 20}, "p_rope"]),
    ],
    ids=["window", "chunk", "theta"],
)
def test_every_layer_of_a_schedule_is_changed_and_sees_what_it_saw(
    schedule: str, settings: str, changed: list[Any], tmp_path: Path
) -> None:
    folder = checkpoint(tmp_path / "mine", schedule)
    model, plain = opened(f"{folder}?{settings}"), opened(str(folder))
    got = answers(model)
    torch.testing.assert_close(got, with_encoding(plain, changed), rtol=2e-4, atol=2e-4)
    assert (got - answers(plain)).abs().max() > 1e-2


@pytest.mark.parametrize("settings", ["remap=rerope:window=8", "rope_scaling=linear:2", "rope_theta=300"])
def test_a_neox_model_runs_as_if_its_config_said_so(settings: str, tmp_path: Path) -> None:
    written = write(tmp_path / "run", "rotary", layers_of("rotary"))
    model, plain = neox(written.folder, f"?{settings}"), neox(written.folder)
    assert model.facts.name == f"{plain.facts.name} {settings.partition('=')[2].replace('300', 'theta=300')}"
    rope = plain.spec.model.encoding.model_dump()
    wanted = {
        "remap": {"name": "remap", "method": "rerope", "window": 8, "base": rope},
        "rope_scaling": {**rope, "scaling": {"type": "linear", "factor": 2.0}},
        "rope_theta": {**rope, "theta": 300.0},
    }[settings.partition("=")[0]]
    spec = plain.spec.model.model_copy(update={"encoding": EncodingSpec.model_validate(wanted)})
    other = Transformer(spec, "dense").eval()
    fill(other, state_of(plain.model), Path("here"))
    with torch.no_grad():
        agree(scores(model, NEOX_TOKENS), other.logits(other(NEOX_TOKENS, torch.Generator())))
    assert (scores(model, NEOX_TOKENS) - scores(plain, NEOX_TOKENS)).abs().max() > 1e-3
    peek = locate(f"neox:{written.folder}?{settings}").peek(LoadOptions())
    assert (peek.name, peek.digest) == (model.facts.name, model.facts.digest)


@pytest.mark.parametrize(
    ("encoding", "settings", "error", "told"),
    [
        ("alibi", "remap=rerope", SpecError, "encoding alibi and no RoPE"),
        ("none", "rope_scaling=yarn:4", SpecError, "encoding none and no RoPE"),
        ("dape(kerple_log)", "rope_theta=1e6", SpecError, r"dape\(kerple_log\) and no RoPE"),
        ("xpos", "remap=rerope", SpecError, "encoding xpos and no RoPE"),
        ("rope", "remap=rerope:window=0", SpecError, "greater than or equal to 1"),
        ("rope", "remap=self_extend:group=0", SpecError, "greater than or equal to 1"),
        ("rope", "remap=self-extand", UnknownName, "did you mean self_extend"),
        ("rope", "remap=dca:chunk_size=4,local=4", SpecError, "chunk_size above local"),
        ("rope", "remaps=rerope", UnknownName, "did you mean remap"),
        ("rope", "rope_theta=10000", CheckpointError, "leave its frequencies as they were"),
        ("rope", "rope_scaling=linear:1", CheckpointError, "leave its frequencies as they were"),
        ("rope", "rope_theta=much", SpecError, "must be a number"),
        ("rope", "rope_scaling=full_attention:yarn:4", SpecError, "one RoPE for all layers"),
        ("rope", "rope_scaling=yarn", SpecError, "factor"),
        ("none,alibi", "remap=rerope", SpecError, "encoding none,alibi and no RoPE"),
        ("p_rope", "rope_scaling=yarn:4", SpecError, "--rope-scaling has no effect"),
        ("rope[theta=500],rope", "rope_theta=300", SpecError, "would make one"),
    ],
)
def test_what_cannot_be_is_told_in_a_sentence_before_weights_are_read(
    encoding: str, settings: str, error: type[Exception], told: str, tmp_path: Path
) -> None:
    folder = checkpoint(tmp_path / "mine", encoding)
    with pytest.raises(error, match=told) as caught:
        locate(f"{folder}?{settings}").peek(LoadOptions())
    assert "\n" not in str(caught.value)


def test_frequencies_that_follow_the_length_and_a_remap_do_not_go_together_here(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "mine", "rope")
    with pytest.raises(SpecError, match="change with the length"):
        locate(f"{folder}?remap=rerope&rope_scaling=dynamic:2").peek(LoadOptions())
