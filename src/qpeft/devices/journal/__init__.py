"""What was sent to quantum devices and what came back, on disk, so that an interrupted run pays for nothing twice."""

from qpeft.devices.journal.database import default_path
from qpeft.devices.journal.journal import Journal
from qpeft.devices.journal.records import Batch, BatchState, Request

__all__ = ["Batch", "BatchState", "Journal", "Request", "default_path"]
