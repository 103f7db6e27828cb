"""Tasks: an edited task without a new version is noticed, and lengths are read as people write them."""

import pytest

from lpe_eval.errors import SpecError, UnknownName
from lpe_eval.spec.ppl_spec import PerplexitySpec, parse_lengths, parse_protocols
from lpe_eval.spec.task_files import task_names
from lpe_eval.spec.tasks import parse_spec, read_task

FINGERPRINTS = {
    ("arxiv-dape", 1): "ea63c3c96ad11821",
    ("arxiv-kerple", 1): "a7b7d46cdecc6bb0",
    ("arxiv-yarn", 1): "eac8ed1474434548",
    ("c4", 1): "24dabca790bc67b7",
    ("github-code", 1): "6ae4ed6e92cc0696",
    ("openwebtext", 1): "f002fb2d5efbeb3d",
    ("pg19", 1): "bca7cfb5813eec5e",
    ("python-stdlib", 1): "6727767b87524e1c",
    ("wikitext-103", 1): "ac00f7673a67462d",
    ("wikitext-103-alibi", 1): "c1a8358d28c3700a",
    ("wikitext-2", 1): "fb70533626cb3358",
}
"""Content of every version of every task. A change of a task is a new version and a new line here."""


GOOD = """
name: {name}
version: 1
title: a task
corpus: python-stdlib
protocols: [{{name: last}}]
lengths: [8]
max_tokens: 9
"""


def test_no_task_changes_without_a_new_version():
    for name in task_names():
        task = read_task(name)
        assert FINGERPRINTS[task.name, task.version] == task.fingerprint[:16], name


def test_a_task_file_with_a_wrong_key_is_answered_with_the_right_one(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "name: mine\nversion: 1\ntitle: t\ncorpus: python-stdlib\nprotocls: []\nlengths: [8]\nmax_tokens: 9\n"
    )
    with pytest.raises(UnknownName, match="did you mean protocols"):
        read_task(str(path))


def test_a_task_is_named_like_its_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD.format(name="yours"))
    with pytest.raises(SpecError, match="named like its file"):
        read_task(str(path))


@pytest.mark.parametrize(
    ("text", "lengths"),
    [
        ("512,8192", [512, 8192]),
        (" 512 , 128 ", [512, 128]),
        ("128:16384:x2", [128, 256, 512, 1024, 2048, 4096, 8192, 16384]),
        ("128:1000:x3", [128, 384]),
        ("1024:4096:+1024", [1024, 2048, 3072, 4096]),
        ("7,8:16:x2", [7, 8, 16]),
    ],
)
def test_lengths_are_read_as_people_write_them(text: str, lengths: list[int]):
    assert parse_lengths(text) == lengths


def test_lengths_of_a_run_are_sorted_and_each_once():
    fields = {"models": ["m"], "corpus": "python-stdlib", "protocols": [{"name": "last"}], "max_tokens": 9}
    spec = parse_spec({**fields, "lengths": [64, 16, 64]}, PerplexitySpec, "here")
    assert spec.lengths == (16, 64)


def test_flags_belong_to_the_protocols_that_know_them():
    sliding, last, plain = parse_protocols("sliding,last,nonoverlap,sliding", "64", 8)
    assert (sliding.stride, sliding.last_k) == (64, None)
    assert (last.stride, last.last_k) == (None, 8)
    assert (plain.stride, plain.last_k) == (None, None)
    assert parse_protocols("sliding", "L/2", None)[0].stride is None


def test_a_run_on_other_text_is_no_longer_the_task():
    task = read_task("python-stdlib")
    assert PerplexitySpec.of_task(task, {"seed": 1})["task"] == "python-stdlib"
    assert "task" not in PerplexitySpec.of_task(task, {"corpus": {"name": "local", "path": "x.txt"}})
