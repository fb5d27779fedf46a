"""Adapters for where qpeft is not: as plain LoRA, or merged into full weights, with a report of what was lost."""

from qpeft.exporting.lora import export_lora
from qpeft.exporting.merged import merge_adapter
from qpeft.exporting.plan import first_tokens
from qpeft.exporting.report import ExportReport, LayerReport

__all__ = ["ExportReport", "LayerReport", "export_lora", "first_tokens", "merge_adapter"]
