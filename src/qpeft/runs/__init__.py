"""What a run stores about itself, and files that are either whole or absent."""

from qpeft.runs.files import hash_file, make_folder, require_empty_folder, write_atomically
from qpeft.runs.record import environment, read_record, write_record

__all__ = [
    "environment",
    "hash_file",
    "make_folder",
    "read_record",
    "require_empty_folder",
    "write_atomically",
    "write_record",
]
