"""Which of several methods is better, with what certainty: studies, their statistics and their reports."""

from qpeft.comparison.compare import compare, load_results, run_study
from qpeft.comparison.results import Results
from qpeft.comparison.study import Study, load_study

__all__ = ["Results", "Study", "compare", "load_results", "load_study", "run_study"]
