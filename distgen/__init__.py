"""Generate data with language models: one typed `Result` for every input, in order, also when something fails.

A `Task` makes a `Prompt` of each input and parses the answer. An `LLM` composes it with a format, a backend and an executor.
Formats are in `distgen.formats`, backends in `distgen.backends`, error classes in `distgen.errors`, the laws of formats in
`distgen.testing`, resumable runs in `distgen.journal`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from distgen.backends import Batch, Generate, each
from distgen.completion import Completion
from distgen.errors import error_kind, explain, fold
from distgen.executors import Asyncio, Pool, Processes, Sequential, Threads
from distgen.llm import LLM, Generation, RowResult, SupportsGenerate, single
from distgen.prompt import Exchange, Messages, Prompt
from distgen.task import Task

if TYPE_CHECKING:
    from distgen.formats import FORMATS, format_as, lookup
else:

    def __getattr__(name):
        # Import the formats only when a name of theirs is used: they would take half the import time of distgen.
        if name in __all__:
            return getattr(import_module("distgen.formats"), name)
        raise AttributeError(f"module 'distgen' has no attribute {name!r}")

    def __dir__():
        return sorted({*globals(), *__all__})


__version__ = "0.2.0"

__all__ = [
    "FORMATS",
    "LLM",
    "Asyncio",
    "Batch",
    "Completion",
    "Exchange",
    "Generate",
    "Generation",
    "Messages",
    "Pool",
    "Processes",
    "Prompt",
    "RowResult",
    "Sequential",
    "SupportsGenerate",
    "Task",
    "Threads",
    "each",
    "error_kind",
    "explain",
    "fold",
    "format_as",
    "lookup",
    "single",
]
