"""How good a model is: held-out loss, and answers that are right or wrong."""

from qpeft.evaluation.generation import generate
from qpeft.evaluation.loss import HeldOutLoss, held_out_loss
from qpeft.evaluation.scores import Answer, Scores, score
from qpeft.evaluation.tasks import TASKS, AbstractTask, find_task, load_plugins
from qpeft.evaluation.tasks.word_problems import final_number, is_right

__all__ = [
    "TASKS",
    "AbstractTask",
    "Answer",
    "HeldOutLoss",
    "Scores",
    "final_number",
    "find_task",
    "generate",
    "held_out_loss",
    "is_right",
    "score",
]

# Last: modules of other packages import the names above.
load_plugins()
