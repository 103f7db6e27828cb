"""Rooms: names without imports, one class a file, and help for a name that is nearly right."""

import subprocess
import sys

import pytest

from lpe_eval.errors import SpecError, UnknownName
from lpe_eval.registry import ATTENTIONS, CHECKPOINTS, CORPORA, ENCODINGS, PROBLEMS, TOKENIZERS, Room

ROOMS = [ENCODINGS, ATTENTIONS, CHECKPOINTS, CORPORA, TOKENIZERS, PROBLEMS]


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.noun)
def test_every_file_of_a_room_is_a_member_with_one_public_class(room: Room):
    for name in room.names():
        member = room.load(name)
        assert member.__module__ == f"{room.package}.{name}"
        assert member.__doc__


def test_names_are_listed_without_importing_a_member():
    code = (
        "import sys; from lpe_eval.registry import ENCODINGS; assert 'alibi' in ENCODINGS.names();"
        "print('torch' in sys.modules, 'lpe_eval.model.encodings.alibi' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_dashes_and_underscores_are_the_same():
    assert ENCODINGS.load("kerple-log") is ENCODINGS.load("kerple_log")


def test_a_name_that_is_nearly_right_is_answered_with_the_right_one():
    with pytest.raises(UnknownName, match="no encoding named 'kerpel_log'; did you mean kerple_log"):
        ENCODINGS.load("kerpel_log")
    with pytest.raises(UnknownName, match="known: alibi"):
        ENCODINGS.load("zzzzzz")


def test_a_file_with_two_public_classes_is_refused(tmp_path, monkeypatch):
    import lpe_eval.model.encodings as room

    (tmp_path / "two_of_them.py").write_text("class One: ...\nclass Two: ...\n")
    monkeypatch.setattr(room, "__path__", [*room.__path__, str(tmp_path)])
    monkeypatch.setattr(Room, "_own", lambda self: ("two_of_them",))
    with pytest.raises(SpecError, match="must hold exactly one public class, not 2"):
        ENCODINGS.load("two_of_them")
