"""distgen: generating data with language models, correctly.

A `Prompt` is written in a format, a `Task` asks and parses, an `LLM` runs it on an executor; every answer is a
`Result`. Formats are in `distgen.formats`, backends in `distgen.backends`, the laws in `distgen.testing`. Not here:
training, datasets, prompts themselves, and any service's own features beyond the OpenAI-compatible protocol.
"""

# ruff: noqa: I001  (in floor order, from what stands on nothing to what stands on all)
from distgen.errors import InjectedToken as InjectedToken
from distgen.errors import Raised as Raised
from distgen.errors import FormatError as FormatError
from distgen.errors import GenerateError as GenerateError
from distgen.errors import InvalidArgument as InvalidArgument
from distgen.errors import Feature as Feature
from distgen.errors import NotParsed as NotParsed
from distgen.errors import Unsupported as Unsupported
from distgen.errors import ParseFailed as ParseFailed
from distgen.errors import Stage as Stage
from distgen.errors import UnknownFormat as UnknownFormat
from distgen.errors import WrongCount as WrongCount
from distgen.errors import explain as explain
from distgen.errors import fold as fold
from distgen.errors import error_kind as error_kind
from distgen.prompt import Exchange as Exchange
from distgen.prompt import Message as Message
from distgen.prompt import Messages as Messages
from distgen.prompt import Prompt as Prompt
from distgen.prompt import Segment as Segment
from distgen.backends.generate import Batch as Batch
from distgen.completion import Completion as Completion
from distgen.backends.generate import Generate as Generate
from distgen.backends.generate import Row as Row
from distgen.completion import TokenLogprob as TokenLogprob
from distgen.completion import Usage as Usage
from distgen.backends.generate import each as each
from distgen.formats import FORMATS as FORMATS
from distgen.formats import ChatMessages as ChatMessages
from distgen.formats import ChatTemplate as ChatTemplate
from distgen.formats import Format as Format
from distgen.formats import Formatter as Formatter
from distgen.formats import format_as as format_as
from distgen.formats import lookup as lookup
from distgen.formats import segment_if_needed as segment_if_needed
from distgen.formats import formatter_of as formatter_of
from distgen.formats import allow_markup as allow_markup
from distgen.task import Task as Task
from distgen.executors import Asyncio as Asyncio
from distgen.executors import Executor as Executor
from distgen.executors import Pool as Pool
from distgen.executors import Processes as Processes
from distgen.executors import Sequential as Sequential
from distgen.executors import Stream as Stream
from distgen.executors import Threads as Threads
from distgen.llm import LLM as LLM
from distgen.llm import RowResult as RowResult
from distgen.llm import Generation as Generation
