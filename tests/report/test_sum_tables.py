"""The sums of cells: tables written piece by piece, cell files of both forms, and what is reckoned from columns."""

import io
import math
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from lpe_eval import table
from lpe_eval.records import columns_of
from lpe_eval.report.folders import sums as writing
from lpe_eval.report.folders.blocks import blocks_of
from lpe_eval.report.folders.cell_files import CellSums, sums_in
from lpe_eval.report.folders.sums import write_sums
from lpe_eval.report.frames import typed_frame
from lpe_eval.report.numbers.resampling import by_text, shared, units_of
from lpe_eval.table import BlockSum, CellKey, PositionSum

KEYS = [
    CellKey("a", "nonoverlap", 128, 128),
    CellKey("a", "anchored-64", 256, None),
    CellKey("b: é", "nonoverlap", 128, 128),
]


def _blocks(draw: random.Random, count: int) -> list[BlockSum]:
    rows = []
    for _ in range(count):
        document, nats = draw.randrange(12), draw.choice([draw.uniform(0, 9), 1 / 3, math.inf])
        wrong = int(draw.random() < 0.1)
        rows.append(
            BlockSum(f"d{document}", f"{document % 9:04x}", draw.randrange(5), nats, draw.randrange(4), 7, wrong)
        )
    return rows


def _cells(sizes: Sequence[int]) -> list[tuple[CellKey, list[BlockSum], list[PositionSum]]]:
    draw = random.Random(0)
    return [
        (key, _blocks(draw, size), [PositionSum(at, at + 1, draw.uniform(0, 9), at) for at in range(size % 7)])
        for key, size in zip(KEYS, sizes, strict=True)
    ]


def _written(folder: Path, cells: Sequence[tuple[CellKey, list[BlockSum], list[PositionSum]]]) -> list[bytes]:
    sums = (
        (key, CellSums(columns_of(blocks), np.array(positions, np.float64).reshape(-1, 4)))
        for key, blocks, positions in cells
    )
    write_sums(folder, "run", sums, private=False)
    return [(folder / name).read_bytes() for name in ("by_document.parquet", "by_position.parquet")]


@pytest.mark.parametrize("sizes", [(0, 0, 0), (5, 0, 9), (3000, 1, 700)])
def test_the_tables_have_the_bytes_of_the_frames_of_all_cells(tmp_path: Path, sizes: tuple[int, ...]):
    cells = _cells(sizes)
    frames = [
        pd.concat([typed_frame(columns, [["run", *key, *row] for key, *sums in cells for row in sums[place]])])
        for place, columns in enumerate((table.BY_DOCUMENT, table.BY_POSITION))
    ]
    assert _written(tmp_path, cells) == [frame.to_parquet(index=False) for frame in frames]


def test_a_large_table_is_written_in_pieces_and_no_piece_knows_where_cells_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = _written(tmp_path, _cells((70, 5, 36)))
    monkeypatch.setattr(writing, "_ROWS", 25)
    pieces = _written(tmp_path, _cells((70, 5, 36)))
    assert [pq.ParquetFile(io.BytesIO(pieces[0])).metadata.row_group(at).num_rows for at in range(5)] == [25] * 4 + [11]
    for one, other in zip(whole, pieces, strict=True):
        pd.testing.assert_frame_equal(pd.read_parquet(io.BytesIO(one)), pd.read_parquet(io.BytesIO(other)))


def test_sums_of_a_table_are_found_by_cell_in_their_order(tmp_path: Path):
    cells = _cells((40, 3, 20))
    frame = pd.read_parquet(io.BytesIO(_written(tmp_path, cells)[0]))
    assert blocks_of(frame) == {tuple(key): blocks for key, blocks, _ in cells}
    assert blocks_of(frame.iloc[:0]) == {}


def test_a_cell_file_of_an_earlier_version_is_read():
    ((_, blocks, positions), *_) = _cells((9, 0, 0))
    found = sums_in({"blocks": [list(each) for each in blocks], "positions": [list(each) for each in positions]}, {})
    assert list(found.blocks) == blocks and found.blocks[2] == blocks[2] and found.blocks[1:3] == blocks[1:3]
    assert found.positions.tolist() == [list(each) for each in positions]


@pytest.mark.parametrize(
    "change",
    [{"block": [0.5, 1]}, {"n_tokens": [1]}, {"text": [0, 1]}, {"nll_nats": ["1", 2.0]}, {"texts": [["d", 3]]},
     {"n_bytes": [1, None]}, {"text": [-1, 0]}],
)  # fmt: skip
def test_damaged_sums_are_refused(change: dict):
    sound = {"texts": [["d", "0"]], "text": [0, 0], "block": [0, 1], "nll_nats": [1.0, math.nan], "n_tokens": [2, 2],
             "n_bytes": [3, 3], "n_nonfinite": [0, 1]}  # fmt: skip
    assert len(sums_in({"blocks": sound, "positions": []}, {}).blocks) == 2
    with pytest.raises(ValueError):
        sums_in({"blocks": {**sound, **change}, "positions": []}, {})


def test_sums_by_text_and_what_several_share_are_those_of_a_loop():
    draw = random.Random(1)
    several = [_blocks(draw, size) for size in (300, 250, 350)]
    loops = []
    for blocks in several:
        found: dict[tuple[str, int], list[float]] = {}
        for each in blocks:
            if each.n_tokens > 0:
                sums = found.setdefault((each.digest, each.block), [0.0, 0.0])
                sums[0] = math.nan if each.n_nonfinite and math.isfinite(each.nll_nats) else sums[0] + each.nll_nats
                sums[1] += each.n_tokens
        loops.append(found)
    sides = [by_text(blocks) for blocks in several]
    for side, loop in zip(sides, loops, strict=True):
        places = [(side.texts[text][0], int(block)) for text, block in zip(side.text, side.block, strict=True)]
        assert places == sorted(loop)
        np.testing.assert_array_equal(side.sums, [loop[place] for place in places])
    common = shared(sides)
    places = [(common.texts[text][0], int(block)) for text, block in zip(common.text, common.block, strict=True)]
    assert places == sorted(set(loops[0]) & set(loops[1]) & set(loops[2])) and places
    np.testing.assert_array_equal(common.sums, [[*(n for loop in loops for n in loop[place])] for place in places])
    units, noun = units_of(common)
    documents = sorted({digest for digest, _ in places})
    assert noun == "documents" and len(units) == len(documents) >= 8
    expected = np.zeros((len(documents), 6))
    for sums, (document, _) in zip(common.sums, places, strict=True):
        expected[documents.index(document)] += sums
    np.testing.assert_array_equal(units, expected)
