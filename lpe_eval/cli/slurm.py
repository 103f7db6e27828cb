"""`lpe-eval slurm`: a run as a job array."""

from typing import Annotated

import typer

from lpe_eval.cli.app import MEASURE, app
from lpe_eval.cli.sentences import sentence_for_errors


@app.command(rich_help_panel=MEASURE, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def slurm(
    command: Annotated[
        list[str] | None, typer.Argument(metavar="COMMAND ...", help="ppl, che, recall or run, with its flags.")
    ] = None,
    array: Annotated[int, typer.Option(help="Tasks of the array; each does one share of the work.")] = 8,
    at_once: Annotated[
        int | None, typer.Option(help="Tasks that may run at a time. Default: as the queue gives.")
    ] = None,
    gpus: Annotated[int | None, typer.Option(help="GPUs of a task.")] = None,
    cpus: Annotated[int | None, typer.Option(help="Processors of a task.")] = None,
    mem: Annotated[str | None, typer.Option(help="Memory of a task, as sbatch takes it: 64G.")] = None,
    time: Annotated[str | None, typer.Option(help="Longest time of a task: 04:00:00.")] = None,
    partition: Annotated[str | None, typer.Option(help="Partition of the array.")] = None,
    sbatch: Annotated[
        list[str] | None, typer.Option(help="Any other option of sbatch, for both jobs: --account=mine. Repeat it.")
    ] = None,
    setup: Annotated[str, typer.Option(help="A line of shell before the command: 'source .venv/bin/activate'.")] = "",
    submit: Annotated[bool, typer.Option("--submit", help="Submit it with sbatch, instead of printing it.")] = False,
) -> None:
    """Print or submit a job array that does a run, and a job that merges it.

    Behind slurm stands the command as it is typed alone, with an --out that all nodes see. Each task does its share; a
    job behind them makes the tables. A task that failed is submitted again, and goes on from what is finished.
    """
    with sentence_for_errors():
        from lpe_eval import console
        from lpe_eval.commands.slurm import Job, script_of

        asked = {
            "gres": None if gpus is None else f"gpu:{gpus}", "cpus-per-task": cpus, "mem": mem, "time": time,
            "partition": partition,
        }  # fmt: skip
        given = {name: str(value) for name, value in asked.items() if value is not None}
        script = script_of(command or (), Job(array, at_once, given, sbatch or (), setup))
        if not submit:
            console.lines(script, as_it_is=True)
            return
        console.lines(_submitted(script))


def _submitted(script: str) -> str:
    """What sbatch says.

    Raises:
        OutputError: it is not there, or refuses.
    """
    import shutil
    import subprocess

    from lpe_eval.errors import OutputError

    if shutil.which("sbatch") is None:
        raise OutputError("there is no sbatch here; print the script without --submit, and run it where jobs are given")
    done = subprocess.run(["bash", "-s"], input=script, capture_output=True, text=True, check=False)
    if done.returncode:
        why = " ".join(done.stderr.split()) or f"it ended with {done.returncode}"
        raise OutputError(f"sbatch refused the jobs: {why[:300]}")
    return done.stdout
