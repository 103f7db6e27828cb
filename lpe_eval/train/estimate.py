"""How long trainings and scorings will take, told before them: a few steps of the real shape on tokens that are drawn.

Choices:
    * What is read in a step does not change how long it takes, so no text is read and none is encoded.
    * A step is timed with at most `_TIMED` tokens and taken to grow with them, which leaves the optimiser's share a
      little too large. On a GPU, which wants full batches, it is timed as it is.
    * The first step is not counted: libraries load in it and kernels are compiled.
    * A forward pass is a third of a step: there is no gradient, which costs twice as much again.
    * Strings of algorithmic problems have many lengths; a step is timed at the mean one.
"""

import time
from collections.abc import Callable, Sequence

import torch

from lpe_eval.data.problem import Problem, assemble
from lpe_eval.measure.che_plan import PlannedCell
from lpe_eval.measure.score_problem import score_problem
from lpe_eval.model.encoder_folder import load_encoder, read_encoder_config
from lpe_eval.model.transformer import Transformer
from lpe_eval.spec.che_spec import TestSet
from lpe_eval.spec.train_spec import TrainSpec
from lpe_eval.train.problem import ProblemTrainer
from lpe_eval.train.text import Trainer

_TIMED, _STEPS, _STRINGS = 1024, 2, 32
_FORWARD = 1 / 3


def seconds_of_training(spec: TrainSpec, device: torch.device) -> float:
    """All steps and all validations of a training.

    Raises:
        SpecError: the encoding does not exist or does not fit.
    """
    length = spec.model.train_length
    timed = spec.batch_tokens if device.type == "cuda" else min(spec.batch_tokens, max(1, _TIMED // length) * length)
    # None of the steps that are timed is the last or a validation.
    changes = {"steps": 1 << 30, "batch_tokens": timed, "validate_every": 1 << 30}
    draw = torch.Generator().manual_seed(0)
    stream = torch.randint(0, spec.model.vocab_size, (4 * length + 1,), generator=draw, dtype=torch.int32)
    steps = Trainer(spec.model_copy(update=changes), stream, stream, device).run()
    each = _seconds(lambda: next(steps), device) / timed
    validations = -(-spec.steps // spec.validate_every)
    read = spec.steps * spec.batch_tokens + _FORWARD * validations * spec.validation_tokens
    return each * read


def seconds_to_train_on(
    cells: Sequence[PlannedCell], test: Callable[[PlannedCell], TestSet], device: torch.device
) -> float:
    """All steps of an encoding on some problems with all runs of its protocol, none stopped early, and their scoring.

    Args:
        cells: of one encoding.
        test: what the runs of a cell are asked.
        device: where.

    Raises:
        SpecError: the encoding does not fit, or has no bidirectional form.
        LengthError: it has no positions for the strings of training.
    """
    first, protocol = cells[0], cells[0].protocol
    trainer = ProblemTrainer(first.task.problem, first.encoding, protocol, device)
    draw = torch.Generator().manual_seed(0)
    sample = first.task.problem.sample(
        protocol.batch, _mean_length(first.task.problem, protocol.train_lengths), draw, device
    )
    tokens = assemble(sample, first.task.problem)
    source = torch.Generator(device).manual_seed(0)
    each = _seconds(lambda: trainer.stack.step(tokens, sample.targets, source), device) / tokens.numel()
    read = 0.0
    for cell in cells:
        problem, asked = cell.task.problem, test(cell)
        read += cell.work * protocol.batch * _assembled(problem, _mean_length(problem, protocol.train_lengths))
        read += _FORWARD * asked.samples * sum(_assembled(problem, length) for length in asked.lengths)
    return each * read


def seconds_to_score(
    cells: Sequence[PlannedCell], test: Callable[[PlannedCell], TestSet], device: torch.device
) -> float:
    """The scoring of stored encoders, timed with few strings of the middle length on the first problem.

    Args:
        cells: of one folder of encoders.
        test: what the encoder of a cell is asked.
        device: where.

    Raises:
        CheckpointError: the weights are missing or damaged.
        SpecError: the encoding does not exist or does not fit.
        LengthError: it has no positions for strings of the middle length.
    """
    first, asked = cells[0], test(cells[0])
    assert first.place is not None
    problem, middle = first.task.problem, asked.lengths[len(asked.lengths) // 2]
    model: Transformer = load_encoder(first.place, read_encoder_config(first.place), first.task.name, device)
    answers, strings = problem.output_length(middle), min(_STRINGS, asked.samples)

    def once() -> None:
        score_problem(
            lambda tokens, draws: model.logits(model(tokens, draws, answers)),
            *(problem, middle, strings, asked.sub_batch, asked.seed, device),
        )

    each = _seconds(once, device) / (strings * _assembled(problem, middle))
    return each * sum(
        test(cell).samples * _assembled(cell.task.problem, length) for cell in cells for length in test(cell).lengths
    )


def _seconds(once: Callable[[], object], device: torch.device) -> float:
    """Of one call, after one that is not counted."""
    once()
    _finish(device)
    began = time.perf_counter()
    for _ in range(_STEPS):
        once()
    _finish(device)
    return max(0.0, time.perf_counter() - began) / _STEPS


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _mean_length(problem: type[Problem], lengths: tuple[int, int]) -> int:
    return max(problem.shortest_length, (lengths[0] + lengths[1]) // 2)


def _assembled(problem: type[Problem], length: int) -> int:
    return length + problem.output_length(length)
