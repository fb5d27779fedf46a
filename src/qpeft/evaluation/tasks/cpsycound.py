"""Counselling dialogues (CPsyCounD): every turn of the counsellor, answered from the true dialogue before it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar

from qpeft.data import Example, choose_answers
from qpeft.evaluation.tasks.chinese import characters, words
from qpeft.evaluation.tasks.task import AbstractTask

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics.bleu import BLEUScore

ROUGES = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeL"}


class CPsyCounD(AbstractTask):
    """Likeness of each turn to the counsellor's own: BLEU-4, ROUGE (F1) and F1 of characters.

    The model's earlier answers are never in the history. ROUGE tokens are characters.
    """

    name: ClassVar = "cpsycound"
    metrics: ClassVar = {
        "sentence_bleu_4": "BLEU-4 by turn",
        "rouge_1": "ROUGE-1",
        "rouge_2": "ROUGE-2",
        "rouge_l": "ROUGE-L",
        "character_f1": "character F1",
    }
    overall_metrics: ClassVar = {"bleu_4": "BLEU-4"}
    tells_right: ClassVar = False
    max_new_tokens: ClassVar = 256
    packages: ClassVar[tuple[str, ...]] = ("sacrebleu", "rouge-score")

    def asked(self, example: Example) -> Iterator[Example]:
        """Each answer of the dialogue in an example that ends with it."""
        return choose_answers(example, "each")

    def grade(self, text: str, expected: str) -> dict[str, float]:
        """Figures of one turn; BLEU-4 of a short one counts the n-grams that it has (sacrebleu's effective order)."""
        from sacrebleu import BLEU  # noqa: PLC0415

        bleu = BLEU(tokenize="zh", effective_order=True).sentence_score(text, [expected])
        rouge = self._scorer().score(expected, text)
        found = {name: float(rouge[their_name].fmeasure) for name, their_name in ROUGES.items()}
        return {"sentence_bleu_4": _share(bleu)} | found | {"character_f1": character_f1(text, expected)}

    def overall(self, texts: Sequence[str], expected: Sequence[str]) -> dict[str, float]:
        """BLEU-4 of the corpus: n-grams of all turns are counted together."""
        from sacrebleu import BLEU  # noqa: PLC0415

        return {"bleu_4": _share(BLEU(tokenize="zh").corpus_score(list(texts), [list(expected)]))}

    def _scorer(self) -> RougeScorer:
        from rouge_score.rouge_scorer import RougeScorer  # noqa: PLC0415

        return RougeScorer(list(ROUGES.values()), tokenizer=self)

    def tokenize(self, text: str) -> list[str]:
        """Tokens of ROUGE."""
        return characters(text)


class CPsyCounDWords(CPsyCounD):
    """The same with ROUGE over words, as far as jieba finds them."""

    name: ClassVar = "cpsycound_words"
    packages: ClassVar = (*CPsyCounD.packages, "jieba")

    def tokenize(self, text: str) -> list[str]:
        """Tokens of ROUGE."""
        return words(text)


def _share(bleu: BLEUScore) -> float:
    """In [0, 1]; sacrebleu counts to 100, and rounding takes it a little further."""
    return min(1.0, float(bleu.score) / 100)


def character_f1(text: str, expected: str) -> float:
    """F1 of the characters that both have, each as often as both have it; letters of any script, and digits."""
    mine, theirs = (Counter("".join(characters(one))) for one in (text, expected))
    shared = (mine & theirs).total()
    return 2 * shared / (mine.total() + theirs.total()) if shared else 0.0
