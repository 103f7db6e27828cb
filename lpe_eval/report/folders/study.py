"""The folder of a study: one folder of a training for each model, and beside it what that training was asked and said.

<name>/         a training, as `folders/train.py` has it, with a card
<name>.yaml     its spec
<name>.log      what its process said; removed when it has ended well
"""

from pathlib import Path

from lpe_eval.report.folders.folder import Layout, RunFolder

LAYOUT = Layout()


class StudyFolder(RunFolder):
    """One folder, held by this process until `close` or the end of `with`.

    A study may grow by more encodings and seeds, so what it holds is known by the study's name. Nothing in it is ever
    discarded: a training says itself whether it is of another recipe.

    Args:
        directory: made if it is not there.
        run: id of the run.
        spec_text: the resolved spec.
        trainings: names of the trainings, which earlier versions left without a marker of the study.

    Raises:
        OutputError: as `RunFolder`.
    """

    def __init__(self, directory: Path, run: str, spec_text: str, trainings: tuple[str, ...]) -> None:
        early = tuple(name for each in trainings for name in (each, f"{each}.yaml", f"{each}.log"))
        super().__init__(directory, LAYOUT, "study", run, spec_text, begun=early)
