"""Generate data with language models: one typed `Result` for every input, in order, whatever breaks.

A `Task` makes a `Prompt` of each input and parses the answer. An `LLM` composes it with a format, a backend and an executor.
Formats are in `distgen.formats`, backends in `distgen.backends`, error classes in `distgen.errors`, the laws of formats in
`distgen.testing`, resumable runs in `distgen.journal`.
"""

from distgen.backends import Batch, Generate, each
from distgen.completion import Completion
from distgen.errors import error_kind, explain, fold
from distgen.executors import Asyncio, Pool, Processes, Sequential, Threads
from distgen.formats import FORMATS, format_as, lookup
from distgen.llm import LLM, Generation, RowResult, SupportsGenerate, single
from distgen.prompt import Exchange, Messages, Prompt
from distgen.task import Task

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
