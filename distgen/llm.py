"""An `LLM` composes a task, a format, a backend and an executor, and answers each input with a typed Result.

It holds no state and opens nothing until a method is called. The error of a row is that row's Failure and is not raised.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeAlias, TypeVar, final

from returns.result import Failure, Result, Success

from distgen.backends.generate import Generate
from distgen.completion import Completion
from distgen.errors import GenerateError, InvalidArgument, NoText, NoTextReason, ParseFailed, Raised, Stage, explain
from distgen.executors.call import Call, CallResult, RowAnswer, warn
from distgen.executors.engine import Executor, Inbox, Stream, Window, run_bounded
from distgen.prompt import Formatter, Prompt
from distgen.task import In, Out, Task

if TYPE_CHECKING:
    from concurrent.futures import Future

P = TypeVar("P")
R = TypeVar("R")
_T = TypeVar("_T")


@final
@dataclass(frozen=True)
class Generation(Generic[Out]):
    """One answer to one input: the model's name, the prompt, the completion, and the value parsed from its text.

    An answer that does not parse is still here: `parsed` is then a Failure, and `completion.text` is the text. A completion
    without text, or with an error, is not parsed: `parsed` is a `NoText`.
    """

    model: str
    prompt: Prompt
    completion: Completion
    parsed: Result[Out, ParseFailed | NoText]


RowResult: TypeAlias = Result[tuple[Generation[Out], ...], GenerateError]
"""The answer to one input: its `num_generations` generations, or the reason why there are none."""


class SupportsGenerate(Protocol[In, Out]):
    """Anything that answers inputs as an `LLM` does, without its types of prompt and of backend."""

    def generate(
        self, inputs: Iterable[In], num_generations: int = 1, on_progress: Callable[[int], object] | None = None
    ) -> Sequence[RowResult[Out]]:
        """Return all results, in the order of the inputs."""
        ...

    def stream(
        self, inputs: Iterable[In], num_generations: int = 1, on_progress: Callable[[int], object] | None = None
    ) -> Iterator[RowResult[Out]]:
        """Yield the results in the order of the inputs."""
        ...

    def as_completed(
        self, inputs: Iterable[In], num_generations: int = 1, on_progress: Callable[[int], object] | None = None
    ) -> Iterator[tuple[int, RowResult[Out]]]:
        """Yield the results as they come, each with the index of its input."""
        ...


def single(row: RowResult[Out]) -> Result[Out, GenerateError | ParseFailed | NoText]:
    """Return the parsed value of a row of one generation, or its error; raise ValueError for a row of several.

    >>> single(Success((Generation("m", Prompt("2+2?"), Completion("4"), Success(4)),)))
    <Success: 4>
    """
    if isinstance(row, Failure):
        return Failure(row.failure())
    generations = row.unwrap()
    if len(generations) != 1:
        raise ValueError(f"single takes a row of one generation, got {len(generations)}; pass num_generations=1")
    parsed: Result[Out, GenerateError | ParseFailed | NoText] = generations[0].parsed.alt(lambda error: error)
    return parsed


class Request(NamedTuple, Generic[P]):
    """The prompt of an input, and its rendering, which the backend gets."""

    prompt: Prompt
    rendered: P


@final
@dataclass(frozen=True)  # no slots: LLM[...](...) sets an attribute
class LLM(Generic[In, Out, P, R]):
    """Sends the prompts of `task`, rendered by `format`, to `backend`; the calls run on `executor`.

    Type checkers verify that the format renders what the backend takes (P) and that the backend gives what the executor
    runs (R). A call of the backend has `batch_size` prompts. Every method pulls its inputs lazily and gives exactly one
    Result an input. An exception of the inputs' own iterator is raised after the results of the inputs before it. Arguments
    of a wrong type raise TypeError at once. No other Exception is raised.

    >>> from distgen.backends.echo import echo
    >>> from distgen.executors import Sequential
    >>> from distgen.formats import chatml
    >>> llm = LLM(Task(prompt=Prompt, parse=lambda text: Success(len(text))), chatml, echo, Sequential())
    >>> [single(row) for row in llm.generate(["Hi", "Hello"])]
    [<Success: 52>, <Success: 55>]
    """

    task: Task[In, Out]
    format: Formatter[P]
    backend: Generate[P, R]
    executor: Executor[R]
    model: str = ""
    batch_size: int = 1

    def generate(
        self, inputs: Iterable[In], num_generations: int = 1, on_progress: Callable[[int], object] | None = None
    ) -> list[RowResult[Out]]:
        """Return all results, in the order of the inputs.

        `on_progress(k)` is called as rows finish, failed or not, with the number of generations just finished: pass
        `tqdm(total=len(inputs) * num_generations).update`. If it raises, a warning says so, and it is not called again.
        """
        with closing(self.as_completed(inputs, num_generations, on_progress)) as answered:
            rows = dict(answered)
        return [rows[index] for index in range(len(rows))]

    def stream(
        self, inputs: Iterable[In], num_generations: int = 1, on_progress: Callable[[int], object] | None = None
    ) -> Stream[RowResult[Out]]:
        """Return the results one by one, in the order of the inputs, in bounded memory, for `for` and for `async for`.

        `close` ends the run: no more is asked.
        """
        rows = self.prepare(inputs, num_generations)
        return self._run(rows, num_generations, on_progress, True, lambda _, row: row, Inbox())

    def as_completed(
        self, inputs: Iterable[In], num_generations: int = 1, on_progress: Callable[[int], object] | None = None
    ) -> Stream[tuple[int, RowResult[Out]]]:
        """Return the results in the order in which they come, each with the index of its input."""
        rows = self.prepare(inputs, num_generations)
        return self._run(rows, num_generations, on_progress, False, lambda index, row: (index, row), Inbox())

    @contextmanager
    def submitter(self, num_generations: int = 1) -> Generator[Callable[[In], Future[RowResult[Out]]], None, None]:
        """Open a function that takes one input and returns a Future of its Result, which can be cancelled until it is asked.

        Leaving the block waits for all futures. Leaving it by an exception ends the run, as closing a `Stream` does.
        """
        from distgen.executors.futures import FutureQueue

        _check_types(self.format, self.executor, ())
        inbox = Inbox()
        queue: FutureQueue[In, Request[P] | GenerateError, tuple[Generation[Out], ...]] = FutureQueue(
            self._row_maker(num_generations), inbox
        )
        rows = self._run(queue.rows(), num_generations, None, False, lambda index, row: (index, row), inbox)
        with queue.resolve(rows):
            yield queue.submit

    def prepare(self, inputs: Iterable[In], num_generations: int = 1) -> Iterator[Request[P] | GenerateError]:
        """Return, lazily, the rendered prompt of each input, or the error with which it fails before any call."""
        _check_types(self.format, self.executor, inputs)
        return map(self._row_maker(num_generations), inputs)

    def read_row(self, row: Request[P] | GenerateError, answer: RowAnswer) -> RowResult[Out]:
        """Return the result of a row of `prepare`, as `generate` does; a row that is an error is that Failure."""
        if not isinstance(row, Request):
            return Failure(row)
        if not isinstance(answer, tuple):
            return Failure(answer)
        return Success(tuple([self._read_completion(row.prompt, completion) for completion in answer]))

    def _run(
        self,
        rows: Iterable[Request[P] | GenerateError | None],
        num_generations: int,
        on_progress: Callable[[int], object] | None,
        in_order: bool,
        select: Callable[[int, RowResult[Out]], _T],
        inbox: Inbox,
    ) -> Stream[_T]:
        def make_call(rows: Sequence[Request[P] | GenerateError]) -> Call[P, R]:
            return Call(self.backend, [row.rendered for row in rows if isinstance(row, Request)], num_generations)

        def read(index: int, rows: Sequence[Request[P] | GenerateError], result: CallResult) -> Iterator[_T]:
            nonlocal on_progress
            answers = iter(result)
            for position, row in enumerate(rows, index):
                answer = next(answers) if isinstance(row, Request) else ()
                if on_progress is not None and not _report(on_progress, num_generations):
                    on_progress = None
                yield select(position, self.read_row(row, answer))

        size = self.batch_size if _is_count(self.batch_size) else 1
        window = Window[Request[P] | GenerateError](self.executor, rows, size, in_order)
        return Stream(inbox, run_bounded(self.executor, window, make_call, read, inbox))

    def _row_maker(self, num_generations: int) -> Callable[[In], Request[P] | GenerateError]:
        """Return `_prepare_row`, or a function that gives each input the error of an invalid argument."""
        for name, number in (("num_generations", num_generations), ("batch_size", self.batch_size)):
            if not _is_count(number):
                invalid = InvalidArgument(name, number, "it must be a whole number, 1 or more")
                return lambda _: invalid
        return self._prepare_row

    def _prepare_row(self, value: In) -> Request[P] | GenerateError:
        """Make the prompt for an input and render it. Never raises."""
        stage: Stage = "prompt"
        try:
            match self.task.prompt(value):
                case (Prompt() as prompt) | Success(Prompt() as prompt):
                    pass
                case Failure(error):
                    return _to_error(error, stage)
                case Success(other) | other:  # of untyped code
                    raise TypeError(f"the prompt function returned {type(other).__name__}, not Prompt")
            stage = "format"
            match self.format(prompt):
                case Success(rendered):
                    return Request(prompt, rendered)
                case Failure(error):
                    return _to_error(error, stage)
                case other:
                    raise TypeError(f"the format returned {type(other).__name__}, not Result")
        except Exception as error:
            return Raised.of(error, stage)

    def _read_completion(self, prompt: Prompt, completion: Completion) -> Generation[Out]:
        """Split off the reasoning and parse the text. Never raises."""
        parsed: Result[Out, ParseFailed | NoText]
        stage: Stage = "format"
        try:
            split: Callable[[str], tuple[str | None, str]] | None = getattr(self.format, "split", None)
            if split is not None and completion.reasoning is None:
                reasoning, text = split(completion.text)
                if text != completion.text:
                    completion = replace(completion, reasoning=reasoning, text=text)
            stage = "parser"
            parsed = self._parse(completion)
        except Exception as error:
            parsed = Failure(ParseFailed(Raised.of(error, stage)))
        return Generation(self.model, prompt, completion, parsed)

    def _parse(self, completion: Completion) -> Result[Out, ParseFailed | NoText]:
        if completion.error is not None or not completion.text:
            return Failure(_explain_no_text(completion))
        match self.task.parse(completion.text):
            case Success() as parsed:
                return parsed
            case Failure(error):
                return Failure(ParseFailed(Raised.of(error, "parser") if isinstance(error, BaseException) else error))
            case other:
                raise TypeError(f"the parser returned {type(other).__name__}, not Result")


def _explain_no_text(completion: Completion) -> NoText:
    """Return why there is nothing to parse."""
    reason: NoTextReason
    match completion:
        case Completion(error=str(error)):
            reason, message = "error", f"the service broke the answer off: {error}"
        case Completion(tool_calls=(call, *_)):
            reason, message = "tool_call", f"the model asked for the tool {call.name!r} and wrote no text"
        case Completion(refusal=str(refusal)):
            reason, message = "refusal", f"the model refused: {refusal}"
        case Completion(finish_reason="content_filter"):
            reason, message = "filter", "the content filter of the service took the text"
        case Completion(finish_reason="length", reasoning=reasoning):
            cause = "reasoning used up max_tokens" if reasoning else "max_tokens was reached"
            reason, message = "max_tokens", f"{cause} before there was any text; raise max_tokens"
        case _:
            reason, message = "empty", f"the model wrote nothing (finish_reason {completion.finish_reason!r})"
    return NoText(reason, message)


def _check_types(format: object, executor: object, inputs: object) -> None:
    kind = type(inputs).__name__
    if isinstance(inputs, str | bytes | Mapping):
        raise TypeError(f"inputs must be an iterable of inputs, got a single {kind}; pass a list of them")
    if isinstance(executor, type):
        raise TypeError(f"executor is the class {executor.__name__}; pass a value, such as Threads(8) or Sequential()")
    if not hasattr(executor, "session"):
        raise TypeError(
            f"executor is of type {type(executor).__name__}; pass Threads(8), Asyncio(64) or another executor"
        )
    if isinstance(format, str):
        raise TypeError(f"format is the name {format!r}; pass the format itself, FORMATS[{format!r}]")
    if not callable(format):
        raise TypeError(f"format is of type {type(format).__name__}; pass a format, such as FORMATS['chatml']")


def _to_error(error: object, stage: Stage) -> GenerateError:
    """Return the error of a Failure; anything else, which untyped code may put into one, becomes a Raised."""
    return error if isinstance(error, GenerateError) else Raised.of(error, stage)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and value >= 1


def _report(on_progress: Callable[[int], object], num_generations: int) -> bool:
    """Call a progress callback for one more row. Return False if it raised: it must not be called again."""
    try:
        on_progress(num_generations)
    except Exception as error:
        warn(f"{explain(Raised.of(error, 'progress'))} on_progress is not called again; the run goes on.")
        return False
    return True
