"""What a pass through somebody else's module shows, and the state that is put back before the next one."""

import sys

import torch
from torch import nn

from lpe_eval.model.foreign.module_state import FreshState
from lpe_eval.model.foreign.module_trace import some_tokens, trace
from lpe_eval.model.foreign.transformers_config import observed_label, text_config, text_part, train_length


def apply_rotary_pos_emb(states):
    return states


class Attention(nn.Module):
    def __init__(self, rotates: bool) -> None:
        super().__init__()
        self.rotates = rotates

    def forward(self, states):
        return apply_rotary_pos_emb(states) if self.rotates else states


class LinearAttention(Attention):
    pass


class Layer(nn.Module):
    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, states):
        return self.attention(states)


class Decoder(nn.Module):
    """A table of positions with an offset, one of kinds, one of distances, and layers of three sorts."""

    def __init__(self, *attentions: nn.Module, sinusoidal: bool = False) -> None:
        super().__init__()
        self.words, self.positions = nn.Embedding(20, 6), nn.Embedding(32, 6)
        self.kinds, self.distances = nn.Embedding(2, 6), nn.Embedding(40, 6)
        self.tower = nn.Embedding(3, 6)
        self.layers = nn.ModuleList(Layer(each) for each in attentions)
        if sinusoidal:
            angles = torch.rand(32, 3)
            self.positions.weight.data = torch.cat([angles.sin(), angles.cos()], 1)

    def forward(self, tokens):
        place = torch.arange(tokens.shape[1])
        states = self.words(tokens) + nn.functional.embedding(place + 2, self.positions.weight)
        states = states + self.kinds(torch.zeros_like(tokens)) + self.distances(place[:, None] - place + 20).mean(0)
        for layer in self.layers:
            states = layer(states)
        return states


def seen(model: nn.Module):
    tokens = torch.tensor([some_tokens(20, 8, 3)])
    with torch.inference_mode():
        return trace(model, lambda: model(tokens), 8)


def test_only_the_table_that_is_looked_up_by_position_is_one():
    model = Decoder(Attention(True))
    found = seen(model)
    assert [(each.end, each.sinusoidal, each.learned) for each in found.tables] == [(30, False, True)]
    assert model.tower not in found.called and model.words in found.called
    assert seen(Decoder(Attention(True), sinusoidal=True)).tables[0].sinusoidal


def test_rotations_are_counted_in_layers_with_softmax_attention():
    found = seen(Decoder(Attention(True), LinearAttention(False), Attention(False), Attention(True)))
    assert (found.rotations, found.attending, found.rotated) == (2, {0, 2, 3}, {0, 3})
    assert sys.getprofile() is None


def test_a_label_follows_what_a_pass_did():
    every, some, none = (seen(Decoder(*map(Attention, each))) for each in ((True, True), (True, False), (False, False)))
    assert observed_label("rope", every, True) == "rope"
    assert observed_label("rope(yarn)", some, True) == "rope(yarn)+none"
    assert observed_label("unknown", every, True) == "rope"
    assert observed_label("alibi", every, True) == "alibi"
    bare = none._replace(tables=())
    assert observed_label("rope", bare, True) == "none"
    assert observed_label("rope", bare, False) == "rope"
    assert observed_label("unknown", bare, True) == "unknown"
    assert observed_label("unknown", none, True) == "learned"
    assert observed_label("learned", seen(Decoder(sinusoidal=True)), True) == "sinusoidal"


def test_tokens_of_a_probe_are_not_consecutive_and_avoid_padding():
    for symbols in (2, 9, 50):
        found = some_tokens(symbols, 8, 1)
        assert len(found) == 8 and 1 not in found and max(found) < symbols
        assert found != list(range(found[0], found[0] + 8))


def test_the_text_part_of_a_config_is_found_where_it_lies():
    inner = {"model_type": "llama", "context_length": 77}
    assert text_part(inner) == () and train_length(inner) == 77
    for keys in (("text_config",), ("llm_config",), ("thinker_config", "text_config")):
        config = inner
        for key in reversed(keys):
            config = {"model_type": "outer", key: config, "vision_config": {"model_type": "clip"}}
        assert text_part(config) == keys and text_config(config) == inner


class Remembering(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", torch.tensor([1.0, 2.0]), persistent=False)
        self.register_buffer("stored", torch.tensor([3.0]))
        self.longest, self.by_kind, self.seen, self.cache = 0, {"full": 1}, [], None

    def forward(self, length: int) -> None:
        self.longest = max(self.longest, length)
        self.by_kind["full"] = length
        self.seen.append(length)
        self.cache = torch.zeros(length)
        self.steps.mul_(2)
        self.register_buffer("late", torch.ones(1), persistent=False)
        self.stored = torch.tensor([4.0])
        self.new = "something"


def test_every_trace_of_a_pass_is_put_back():
    model = Remembering()
    state = FreshState(model)
    for length in (5, 3):
        with torch.inference_mode():
            state.restore()
            model(length)
        assert (model.longest, model.by_kind, model.seen) == (length, {"full": length}, [length])
        assert model.steps.tolist() == [2.0, 4.0]
    state.restore()
    assert (model.longest, model.by_kind, model.seen, model.cache) == (0, {"full": 1}, [], None)
    assert model.steps.tolist() == [1.0, 2.0] and model.stored.tolist() == [3.0]
    assert "late" not in dict(model.named_buffers()) and "new" not in vars(model)
