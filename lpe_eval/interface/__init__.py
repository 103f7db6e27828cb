from lpe_eval.interface.measuring import che, open, ppl, recall
from lpe_eval.interface.model import Model
from lpe_eval.interface.result import Compared, Figures, Run, read

__all__ = ["Compared", "Figures", "Model", "Run", "che", "open", "ppl", "read", "recall"]
