"""Quantum tensor hybrid adapters for large language models, inside Hugging Face PEFT."""
