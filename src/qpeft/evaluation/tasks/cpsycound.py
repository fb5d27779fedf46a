"""Counselling dialogues (CPsyCounD): every turn of the counsellor, answered from the true dialogue before it."""

from __future__ import annotations

import logging
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import ClassVar

from qpeft.data import Example, choose_answers
from qpeft.evaluation.tasks.task import AbstractTask

ROUGES = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeL"}
_SYMBOLS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_TOKEN = re.compile(rf"[{_SYMBOLS}]|[^\W_{_SYMBOLS}]+")


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
        """Yield each answer of the dialogue in an example that ends with it."""
        return choose_answers(example, "each")

    def grade(self, text: str, expected: str) -> dict[str, float]:
        """Figures of one turn; BLEU-4 of a short one counts the n-grams that it has (sacrebleu's effective order)."""
        from rouge_score.rouge_scorer import RougeScorer  # noqa: PLC0415
        from sacrebleu import BLEU  # noqa: PLC0415

        bleu = BLEU(tokenize="zh", effective_order=True).sentence_score(text, [expected]).score
        rouge = RougeScorer(list(ROUGES.values()), tokenizer=self).score(expected, text)
        found = {name: float(rouge[their_name].fmeasure) for name, their_name in ROUGES.items()}
        # sacrebleu counts to 100, and rounding takes it a little further.
        return {"sentence_bleu_4": min(1.0, bleu / 100)} | found | {"character_f1": character_f1(text, expected)}

    def overall(self, texts: Sequence[str], expected: Sequence[str]) -> dict[str, float]:
        """BLEU-4 of the corpus: n-grams of all turns are counted together."""
        from sacrebleu import BLEU  # noqa: PLC0415

        return {"bleu_4": min(1.0, BLEU(tokenize="zh").corpus_score(list(texts), [list(expected)]).score / 100)}

    def tokenize(self, text: str) -> list[str]:
        """Return the tokens of ROUGE, which asks for them by this name."""
        return characters(text)


class CPsyCounDWords(CPsyCounD):
    """The same with ROUGE over words, as far as jieba finds them."""

    name: ClassVar = "cpsycound_words"
    packages: ClassVar = (*CPsyCounD.packages, "jieba")

    def tokenize(self, text: str) -> list[str]:
        """Return the words that jieba finds, without punctuation and spaces; in lower case."""
        with warnings.catch_warnings():
            # It looks for pkg_resources, which tells everybody that it is going away.
            warnings.simplefilter("ignore")
            import jieba  # noqa: PLC0415
        jieba.setLogLevel(logging.WARNING)  # it tells how long its dictionary takes to load
        return [word for word in jieba.lcut(text.lower()) if _TOKEN.search(word)]


def characters(text: str) -> list[str]:
    """Return every Chinese character and Japanese kana, and every run of other letters or digits, in lower case.

    Punctuation and spaces are left out. The default tokenizers of BLEU and ROUGE find nothing in Chinese, and score
    it 0.
    """
    return _TOKEN.findall(text.lower())


def character_f1(text: str, expected: str) -> float:
    """Return the F1 of the characters that both have, each as often as both have it."""
    mine, theirs = (Counter("".join(characters(one))) for one in (text, expected))
    shared = (mine & theirs).total()
    return 2 * shared / (mine.total() + theirs.total()) if shared else 0.0
