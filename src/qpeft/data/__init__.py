"""Data sets as tokens with a loss mask: rows -> messages -> tokens, of which only the assistant's are trained on."""

from qpeft.data.encode import Encoded, EncodingSummary, encode, encode_all, encode_each, summarize
from qpeft.data.ends import AnswerEnds, answer_ends, ends_note, save_ends, settle_ends
from qpeft.data.example import Answers, Example, Message, choose_answers
from qpeft.data.inspection import render_sample
from qpeft.data.load import Reader, Source, load_examples, mix
from qpeft.data.packing import PackedExamples, pad_batch
from qpeft.data.split import hold_out, hold_out_line, split_by_opening, split_digest
from qpeft.data.store import StoredExamples, lengths, store_examples, to_dataset

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
