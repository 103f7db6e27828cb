"""Protocols and specs of the algorithmic problems: versions, spellings, and what cannot be."""

import pytest

from lpe_eval.data.problem import open_problem
from lpe_eval.errors import SpecError, UnknownName
from lpe_eval.spec.che_spec import CheProtocol, CheSpec, parse_encoding_list, read_protocol
from lpe_eval.spec.encoding_spec import EncodingSpec
from lpe_eval.spec.fingerprint import spec_text
from lpe_eval.spec.task_files import problem_task_names, protocol_names
from lpe_eval.spec.tasks import load_yaml, parse_spec

FINGERPRINTS = {
    ("dape", 1): "9b9768507d908d18",
    ("deepmind", 1): "ff656b3c5f4fcad9",
    ("quick", 1): "058c4ef5b9facfd0",
    ("smoke", 1): "0dcb9266d940ad60",
}
"""Content of every version of every protocol. A change of a protocol is a new version and a new line here."""


def test_no_protocol_changes_without_a_new_version():
    assert protocol_names() == sorted(name for name, _ in FINGERPRINTS)
    for name in protocol_names():
        protocol = read_protocol(name)
        assert FINGERPRINTS[protocol.name, protocol.version] == protocol.fingerprint[:16], name
        assert protocol.source, "a protocol says where it comes from"


def test_the_protocols_have_the_tasks_that_their_sources_have():
    everything = problem_task_names()
    assert sorted(read_protocol("deepmind").tasks) == everything
    assert sorted(read_protocol("quick").tasks) == everything
    assert sorted({*read_protocol("dape").tasks, "binary_multiplication"}) == everything
    assert "binary_multiplication" not in read_protocol("dape").tasks


def test_the_protocol_of_the_papers_is_the_one_they_state():
    protocol = read_protocol("deepmind")
    assert len(protocol.runs) == 30
    assert protocol.test_lengths == tuple(range(41, 501))
    assert (protocol.batch, protocol.samples, protocol.train_lengths) == (128, 512, (1, 40))
    encoder = protocol.encoder(EncodingSpec(name="none"), input_size=2, classes=2, longest_input=41)
    assert (encoder.norm, encoder.activation, encoder.causal, encoder.embedding_scale) == ("post", "relu", False, 8.0)
    assert (encoder.vocab_size, encoder.outputs, encoder.dropout) == (3, 2, 0.1)


def test_every_run_is_a_pair_of_seed_and_rate():
    changes = {"seeds": (3, 4, 3), "learning_rates": (0.1, 0.2)}
    protocol = CheProtocol.model_validate({**read_protocol("smoke").model_dump(), **changes})
    assert protocol.runs == ((3, 0.1), (4, 0.1), (3, 0.2), (4, 0.2))


def test_encodings_are_split_at_commas_outside_parentheses():
    found = parse_encoding_list(["rope, dape(kerple_log)", "randomized(alibi)"])
    assert [str(each) for each in found] == ["rope", "dape(kerple_log)", "randomized(alibi)"]
    with pytest.raises(SpecError, match="names none"):
        parse_encoding_list([" , "])
    with pytest.raises(SpecError, match="does not name an encoding"):
        parse_encoding_list(["rope)("])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_lengths": (5, 3)}, "a shortest and a longest"),
        ({"in_range_lengths": (9,)}, "must not exceed"),
        ({"learning_rates": (-1.0,)}, "above zero"),
        ({"heads": 5}, "not a multiple"),
        ({"test_lengths": "9:4"}, "is no length"),
        ({"test_lengths": (0,)}, "a length must be between"),
        ({"solved_at": 2.0}, "less than or equal"),
    ],
)
def test_a_protocol_that_cannot_be_is_refused(changes, message):
    with pytest.raises(SpecError, match=message):
        parse_spec({**read_protocol("smoke").model_dump(), **changes}, CheProtocol, "mine.yaml")


def test_a_protocol_in_a_file_is_named_like_it(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(spec_text(read_protocol("smoke")))
    with pytest.raises(SpecError, match="named like its file"):
        read_protocol(str(path))
    path.write_text(spec_text(read_protocol("smoke").model_copy(update={"name": "mine"})))
    assert read_protocol(str(path)).steps == read_protocol("smoke").steps
    with pytest.raises(UnknownName, match="did you mean quick"):
        read_protocol("quik")


def test_a_spec_trains_or_scores_and_not_both():
    protocol = read_protocol("smoke").model_dump()
    for fields in (
        {},
        {"encodings": ["rope"], "models": ["x"], "protocol": protocol},
        {"encodings": ["rope"]},
        {"models": ["x"], "protocol": protocol},
    ):
        with pytest.raises(SpecError, match=r"one of the two|belongs to encodings"):
            parse_spec(fields, CheSpec, "che")


def test_a_spec_of_dape_fire_written_down_is_the_same_spec(tmp_path):
    fields = {"encodings": ["dape(fire)"], "protocol": read_protocol("quick").model_dump(), "tasks": ["even-pairs"]}
    spec = parse_spec(fields, CheSpec, "che")
    assert spec.tasks == ("even_pairs",)
    path = tmp_path / "spec.yaml"
    path.write_text(spec_text(spec))
    assert parse_spec(load_yaml(path), CheSpec, "spec.yaml") == spec


def test_the_test_set_follows_flags_protocol_and_quirks():
    protocol = read_protocol("deepmind")
    plain, other = (
        parse_spec({"models": ["x"], **fields}, CheSpec, "che")
        for fields in ({}, {"lengths": [90, 3, 41], "samples": 7, "seed": 5, "deepmind_compat": True})
    )
    assert plain.test_set(protocol, 1).lengths == (40, *range(41, 501))
    found = other.test_set(protocol, open_problem("even_pairs").shortest_length)
    assert found == ((3, 90), 7, 64, 5, True)
    assert other.test_set(protocol, 4).lengths == (90,)
