"""What `speed` measures: time and memory of each encoding, beside plain causal attention."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

import lpe_eval
from lpe_eval.errors import SpecError
from lpe_eval.measure.device import dtype_name, pick_device
from lpe_eval.measure.peak import Peak, peak_of, without_value
from lpe_eval.measure.plan import work_per_token
from lpe_eval.measure.progress import Advance, Tell, takes_left
from lpe_eval.measure.provenance import Account, run_facts
from lpe_eval.measure.speed import UNIT, Case, Passes, seconds_in_turn, timing, unit_of
from lpe_eval.model.falling_back import Taken, taken
from lpe_eval.model.needed_memory import WEIGHT, WEIGHT_AND_GRADIENT, model_shortfall
from lpe_eval.out_of_memory import out_of_memory
from lpe_eval.report.figures.speed import draw_speed
from lpe_eval.report.folders.speed import SpeedFolder
from lpe_eval.run import Estimate, Outcome, Settings
from lpe_eval.screen import duration, listing
from lpe_eval.spec.fingerprint import run_id, spec_text
from lpe_eval.spec.speed_spec import Mode, SpeedSpec
from lpe_eval.table import SCHEMA

_SHORT = 1024
"""Tokens of a window by which an estimate is made."""


def run_spec(spec: SpeedSpec, settings: Settings) -> Outcome:
    """Measures every encoding of `spec` in every mode at every length.

    At each length, memory comes first: a case whose own process did not survive its pass is not
    tried in this one. Then those that did are timed in turn, and the length is written to disk.

    Args:
        spec: what to measure.
        settings: how.

    Raises:
        SpecError: an encoding does not exist or does not fit, or the attention path cannot compute it.
        OutputError: the folder cannot be used.
    """
    spec, device = _resolved(spec)
    groups: list[tuple[Mode, int]] = [(mode, length) for mode in spec.modes for length in spec.lengths]
    run = run_id({"spec": spec.model_dump(mode="json"), "version": lpe_eval.__version__})
    with SpeedFolder(settings.folder(f"speed-{run}"), run, spec_text(spec), settings.overwrite) as folder:
        return _timed(spec, folder, device, groups, settings)


def estimate(spec: SpeedSpec, tell: Tell) -> Estimate:
    """What `run_spec` would do, and how long it would take, from one short pass of each encoding in each mode.

    Args:
        spec: what would be measured.
        tell: told of each encoding as soon as it is known.

    Raises:
        SpecError: an encoding does not exist or does not fit, or the attention path cannot compute it.
    """
    # What this process took to start, each of those takes in which the memory of a pass is measured.
    starting = time.process_time()
    spec, device = _resolved(spec)
    passes, many, rows, total = spec.rounds + 2, len(spec.lengths), [], 0.0
    for mode in spec.modes:
        for name, case in _cases(spec, mode, min(*spec.lengths, _SHORT)).items():
            each = _seconds_each(case, device)
            work = sum(_work(_cases(spec, mode, length)[name]) for length in spec.lengths)
            seconds = 0.0 if each is None else passes * each * work
            took = "n/a" if each is None else duration(seconds)
            total += seconds + (0.0 if device.type == "cuda" else starting * many)
            tell(f"{name}, {mode}: {took}")
            rows.append((name, mode, ", ".join(map(str, spec.lengths)), str(passes * many), took))
    columns = ("encoding", "mode", "lengths", "passes", "estimate")
    sentence = f"about {duration(total)} in all, with the processes in which memory is measured"
    return Estimate(listing("planned", columns, rows), sentence)


def _timed(
    spec: SpeedSpec, folder: SpeedFolder, device: torch.device, groups: Sequence[tuple[Mode, int]], settings: Settings
) -> Outcome:
    done = _finished(folder.rows(), groups, len(spec.encodings) + 1)
    if done:
        settings.tell(
            f"{folder.directory} already holds {len(done)} of {len(groups)} lengths; they are not measured again"
        )
    account, todo = Account(device, folder.earlier_provenance()), [group for group in groups if group not in done]

    def write_provenance() -> None:
        paths = {row["encoding"]: row["attention"] for row in _in_order(done, groups) if row["attention"]}
        facts = run_facts(
            spec.kind,
            folder.run,
            models={name: {"opened": {"encoding": name, "attention": path}} for name, path in paths.items()},
            seeds={"weights": 1, "tokens": "the length"},
            dtype=spec.dtype,
            attention=list(paths.values()),
        )
        resumed = len(groups) - len(todo)
        folder.write_provenance(account.provenance(facts, lengths_from_an_earlier_start=resumed))

    write_provenance()
    cases = [case for group in todo for case in _cases(spec, *group).values()]
    with settings.progress((spec.rounds + 2) * len(cases), "steps") as advance:
        doing = _Doing((spec.rounds + 2) * sum(map(_work, cases)), advance)
        for group in todo:
            done[group] = _measured(spec, _cases(spec, *group), device, folder.run, doing)
            folder.write_rows(_in_order(done, groups))
            write_provenance()
    rows = _in_order(done, groups)
    figure = draw_speed(rows, folder.directory / "figures")[0]
    failed = sum(row["status"] == "failed" for row in rows)
    sentence = f"{failed} of the cases have no value; their notes stand below the table" if failed else ""
    return Outcome(folder.directory, [f"rows: {folder.directory / 'speed.csv'}   figure: {figure}"], sentence)


def _resolved(spec: SpeedSpec) -> tuple[SpeedSpec, torch.device]:
    """The spec with its device and precision, where everything in it exists and fits."""
    device = pick_device(spec.device)
    spec = spec.model_copy(update={"device": device.type, "dtype": dtype_name(spec.dtype, device)})
    each = WEIGHT_AND_GRADIENT if "train" in spec.modes and device.type == "cpu" else WEIGHT
    if shortfall := model_shortfall(spec.model_with(spec.encodings[0]), each):
        raise SpecError(f"one model {shortfall}; lower --width or --layers")
    for case in _cases(spec, spec.modes[0], spec.lengths[0]).values():
        # Chooses the attention path, so that what does not fit is said before anything is measured.
        with _passing_over_all_but(SpecError):
            assert Passes(case, device).attention
    return spec, device


def _seconds_each(case: Case, device: torch.device) -> float | None:
    """Seconds of a unit of work, from the second of two passes; None where the case cannot be run."""
    with _passing_over_all_but(SpecError):
        passes = Passes(case, device)
        passes.once(case.length, case.windows)
        began = time.perf_counter()
        passes.once(case.length, case.windows)
        return max(0.0, time.perf_counter() - began) / _work(case)
    return None


def _cases(spec: SpeedSpec, mode: Mode, length: int) -> dict[str, Case]:
    """The unit first, then every encoding."""
    windows, dtype = max(1, spec.batch_tokens // length), spec.dtype
    named = {
        str(encoding): Case(
            model=spec.model_with(encoding),
            attention=spec.attention,
            mode=mode,
            length=length,
            windows=windows,
            dtype=dtype,
        )
        for encoding in spec.encodings
    }
    return {UNIT: unit_of(next(iter(named.values()))), **named}


def _work(case: Case) -> int:
    return round(case.windows * case.length * work_per_token(case.length))


class _Doing:
    """Tells a progress bar of passes, and how long the rest will take: later passes are longer."""

    def __init__(self, work: int, advance: Advance) -> None:
        self._left, self._done, self._advance, self._began = work, 0, advance, time.monotonic()

    def begin(self, what: str) -> None:
        """What is done from now on."""
        self._advance(0, what)

    def passed(self, case: Case, passes: int = 1, what: str | None = None) -> None:
        """So many passes of a case are over."""
        self._done += passes * _work(case)
        self._left = max(0, self._left - passes * _work(case))
        left = max(0.0, time.monotonic() - self._began) * self._left / max(1, self._done)
        self._advance(passes, what, **({"left": left} if takes_left(self._advance) else {}))


def _measured(
    spec: SpeedSpec, cases: Mapping[str, Case], device: torch.device, run: str, doing: _Doing
) -> list[dict[str, Any]]:
    """The rows of one mode and length."""
    peaks: dict[str, Peak] = {}
    for name, case in cases.items():
        doing.begin(f"memory of {name}, {case.mode} at {case.length}")
        peaks[name] = peak_of(case, device)
        doing.passed(case)
    able: dict[str, Passes] = {}
    for name, case in cases.items():
        if peaks[name].status == "ok":
            try:
                able[name] = Passes(case, device)
            except Exception as error:
                peaks[name] = without_value(error, case)
    failed: dict[str, Peak] = {}
    paths = {name: Taken() for name in able}

    def guarded(name: str) -> Callable[[], None]:
        """The pass of a case; where it raises something, the case is done with and the others go on."""

        def once() -> None:
            case = cases[name]
            try:
                if name not in failed:
                    with taken(paths[name]):
                        able[name].once(case.length, case.windows)
            except Exception as error:
                if out_of_memory(error):
                    raise
                failed[name] = without_value(error, case)._replace(mib=peaks[name].mib)

        return once

    def sentence(name: str) -> None:
        doing.passed(cases[name], 1, f"{name}, {cases[name].mode} at {cases[name].length}")

    try:
        seconds = seconds_in_turn({name: guarded(name) for name in able}, spec.rounds, sentence)
    except Exception as error:
        if not out_of_memory(error):
            raise
        # Each fitted alone; only the models of all encodings side by side did not.
        note = "out of memory with the models of all encodings at once; name fewer with --encoding"
        seconds, peaks = {}, {name: Peak(each.mib, "failed", each.note or note) for name, each in peaks.items()}
    peaks.update(failed)
    seconds = {name: found for name, found in seconds.items() if name not in failed}
    for name, case in cases.items():
        if name not in able:
            doing.passed(case, spec.rounds + 1)
    plain = peaks[UNIT].mib
    rows: list[dict[str, Any]] = []
    for name, case in cases.items():
        peak = peaks[name]
        found = timing(seconds[name], seconds.get(UNIT)) if name in seconds else None
        rows.append(
            {
                "run": run,
                "encoding": name,
                "mode": case.mode,
                "length": case.length,
                "batch_windows": case.windows,
                "rounds": spec.rounds,
                "median_seconds": found and found.median,
                "fastest_seconds": found and found.fastest,
                "slowest_seconds": found and found.slowest,
                "median_tokens_per_second": found and case.windows * case.length / found.median,
                "times_plain": found and found.ratio,
                "pass_memory_mib": peak.mib,
                "memory_times_plain": peak.mib / plain if peak.mib is not None and plain else None,
                "width": spec.width,
                "layers": spec.layers,
                "heads": spec.heads,
                "dtype": spec.dtype,
                "device": device.type,
                "attention": paths[name].paths(able[name].attention) if name in able else "",
                "status": peak.status,
                "note": peak.note or (paths[name].note if name in able else ""),
                "schema": SCHEMA,
            }
        )
    return rows


@contextmanager
def _passing_over_all_but(kept: type[Exception]) -> Iterator[None]:
    """Lets errors pass that the rows of a case will tell of."""
    try:
        yield
    except kept:
        raise
    except Exception:
        return


def _finished(
    rows: Sequence[dict[str, Any]], groups: Sequence[tuple[Mode, int]], cases: int
) -> dict[tuple[Mode, int], list[dict[str, Any]]]:
    """The modes and lengths whose every case has an answer; a failed one is measured again."""
    held = {group: [row for row in rows if (row["mode"], row["length"]) == group] for group in groups}
    return {
        group: own for group, own in held.items() if len(own) == cases and all(row["status"] != "failed" for row in own)
    }


def _in_order(
    done: Mapping[tuple[Mode, int], list[dict[str, Any]]], groups: Sequence[tuple[Mode, int]]
) -> list[dict[str, Any]]:
    return [row for group in groups for row in done.get(group, [])]
