"""How good a model is: held-out loss, and answers that are right or wrong."""

from qpeft.evaluation.answers import final_number, is_right
from qpeft.evaluation.generation import generate
from qpeft.evaluation.held_out import HeldOutLoss, held_out_loss
from qpeft.evaluation.scores import Scores, score

__all__ = ["HeldOutLoss", "Scores", "final_number", "generate", "held_out_loss", "is_right", "score"]
