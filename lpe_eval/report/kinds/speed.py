"""Time and memory of encodings, beside plain causal attention."""

from collections.abc import Sequence
from pathlib import Path

from lpe_eval import table
from lpe_eval.errors import SpecError
from lpe_eval.report.figures.speed import draw_speed
from lpe_eval.report.folders.folder import Layout
from lpe_eval.report.folders.speed import LAYOUT
from lpe_eval.report.kind import Found, Kind
from lpe_eval.report.page.of_items import speed_charts
from lpe_eval.report.page.parts import Chart, HeatMap
from lpe_eval.report.tables.provenance import several
from lpe_eval.report.tables.speed import speed_tables
from lpe_eval.screen import Table
from lpe_eval.spec.speed_spec import SpeedSpec


class Speed(Kind):
    """See the module's docstring."""

    name = "speed"
    title = "speed"
    spec = SpeedSpec
    columns = table.SPEED

    @classmethod
    def layout(cls) -> Layout:
        return LAYOUT

    @classmethod
    def about(cls, found: Found) -> list[tuple[str, str]]:
        spec = found.spec
        return [
            ("modes", several(spec.get("modes", []))),
            ("lengths", several(spec.get("lengths", []))),
            ("model", f"{spec.get('layers')} layers, width {spec.get('width')}, {spec.get('heads')} heads"),
            ("rounds", f"{spec.get('rounds')} of {spec.get('batch_tokens')} tokens"),
        ]

    @classmethod
    def values(cls, found: Found) -> list[Table]:
        return speed_tables(found.rows)

    @classmethod
    def charts(cls, folders: Sequence[Found]) -> list[Chart | HeatMap]:
        # Each measurement has a unit of its own, so several have no common figure.
        return [*speed_charts(folders[0].rows)] if len(folders) == 1 else []

    @classmethod
    def draw(cls, folders: Sequence[Found], out: Path) -> list[Path]:
        if len(folders) > 1:
            raise SpecError(
                "each speed measurement has a unit of its own, so they are drawn one by one; name one folder"
            )
        return draw_speed(folders[0].rows, out)
