"""Data sets as tokens with a loss mask: rows -> messages -> tokens, of which only the assistant's are trained on."""

from qpeft.data.encode import Encoded, encode, encode_all, to_dataset
from qpeft.data.example import Example, Message
from qpeft.data.load import load_examples
from qpeft.data.sample import render_sample
from qpeft.data.split import hold_out
from qpeft.data.summary import EncodingSummary, summarize

__all__ = [
    "Encoded",
    "EncodingSummary",
    "Example",
    "Message",
    "encode",
    "encode_all",
    "hold_out",
    "load_examples",
    "render_sample",
    "summarize",
    "to_dataset",
]
