"""Backends answer prompts. A backend is any function of the type `Generate`."""

from distgen.backends.generate import Batch, Generate, Row, each

__all__ = ["Batch", "Generate", "Row", "each"]
