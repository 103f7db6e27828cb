"""A study: many trainings by one recipe."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from lpe_eval.errors import SpecError
from lpe_eval.report.folders.folder import Layout
from lpe_eval.report.folders.study import LAYOUT
from lpe_eval.report.kind import Found, Kind
from lpe_eval.report.page.parts import Chart, HeatMap
from lpe_eval.report.sources import Source, sources_of_methods
from lpe_eval.report.stored_rows import Stored
from lpe_eval.report.tables.provenance import listed, several
from lpe_eval.screen import Table, listing
from lpe_eval.spec.study_spec import StudySpec
from lpe_eval.table import Column

_TRAININGS = (
    Column("name", "string", "", "name of the training", key=True),
    Column("state", "string", "", "how far it is"),
)


class Study(Kind):
    """See the module's docstring."""

    name = "study"
    title = "a study of many trainings"
    spec = StudySpec
    columns = ()

    @classmethod
    def layout(cls) -> Layout:
        return LAYOUT

    @classmethod
    def about(cls, found: Found) -> list[tuple[str, str]]:
        spec = found.spec
        recipe = {name: value for name, value in spec.get("recipe", {}).items() if not isinstance(value, dict | list)}
        return [
            ("study", str(spec.get("name"))),
            ("encodings", several(spec.get("encodings", {}))),
            ("recipe", listed(recipe)),
            ("further seeds", listed(spec.get("further_seeds", {}))),
        ]

    @classmethod
    def stored(cls, found: Found) -> Stored:
        trained = found.provenance.get("trainings") or {}
        return Stored("the study", _TRAININGS, [{"name": name, "state": state} for name, state in trained.items()])

    @classmethod
    def values(cls, found: Found) -> list[Table]:
        trained = found.provenance.get("trainings") or {}
        return [listing("trainings", ("name", "state"), list(trained.items()))] if trained else []

    @classmethod
    def charts(cls, folders: Sequence[Found]) -> list[Chart | HeatMap]:
        return []

    @classmethod
    def draw(cls, folders: Sequence[Found], out: Path) -> list[Path]:
        raise SpecError(f"{folders[0].path} holds trainings, of which there is no figure; measure their checkpoints")

    @classmethod
    def sources(cls, found: Found) -> Iterator[Source]:
        encodings = {"encodings": list(found.spec.get("encodings", {}).values())}
        yield from sources_of_methods(encodings, found.provenance, found.rows)
