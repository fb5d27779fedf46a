"""Data sets as tokens with a loss mask: rows -> messages -> tokens, of which only the assistant's are trained on."""

from qpeft.data.answers import Answers, choose_answers
from qpeft.data.batch import pad_batch
from qpeft.data.encode import Encoded, encode, encode_all, encode_each
from qpeft.data.ends import AnswerEnds, answer_ends, ends_note, save_ends, settle_ends
from qpeft.data.example import Example, Message
from qpeft.data.load import Reader, Source, load_examples
from qpeft.data.mix import mix
from qpeft.data.packing import PackedExamples
from qpeft.data.sample import render_sample
from qpeft.data.split import hold_out, hold_out_line, split_by_opening, split_digest
from qpeft.data.store import StoredExamples, lengths, store_examples, to_dataset
from qpeft.data.summary import EncodingSummary, summarize

__all__ = [
    "AnswerEnds",
    "Answers",
    "Encoded",
    "EncodingSummary",
    "Example",
    "Message",
    "PackedExamples",
    "Reader",
    "Source",
    "StoredExamples",
    "answer_ends",
    "choose_answers",
    "encode",
    "encode_all",
    "encode_each",
    "ends_note",
    "hold_out",
    "hold_out_line",
    "lengths",
    "load_examples",
    "mix",
    "pad_batch",
    "render_sample",
    "save_ends",
    "settle_ends",
    "split_by_opening",
    "split_digest",
    "store_examples",
    "summarize",
    "to_dataset",
]
