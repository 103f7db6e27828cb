"""How often the first guess is right."""

from lpe_eval.report.kind import Kind
from lpe_eval_example.accuracy_spec import AccuracySpec


class Accuracy(Kind):
    """See the module's docstring."""

    name = "accuracy"
    title = "accuracy of the first guess"
    spec = AccuracySpec
    worse_is = {"first_guess": -1}
