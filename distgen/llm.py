"""An `LLM` composes a task, a format, a backend and an executor, and answers each input with a typed Result.

It holds no state, opens nothing until it is asked, and raises nothing for a row: every error is the row's Failure.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from types import UnionType
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeAlias, TypeVar, final, runtime_checkable

from returns.result import Failure, Result, Success

from distgen.backends.generate import Generate
from distgen.completion import Completion
from distgen.errors import GenerateError, InvalidArgument, NoText, NoTextReason, ParseFailed, Raised, explain
from distgen.executors.call import Call, CallResult, RowAnswer, warn
from distgen.executors.engine import Executor, Inbox, Steps, Stream, open_session, run_bounded
from distgen.formats import Formatter
from distgen.prompt import Prompt
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
        raise ValueError(
            f"single takes a row of one generation, got {len(generations)}; call it with num_generations=1"
        )
    parsed: Result[Out, GenerateError | ParseFailed | NoText] = generations[0].parsed.alt(lambda error: error)
    return parsed


class Asked(NamedTuple, Generic[P]):
    """An input's prompt, as it is and as it is sent."""

    prompt: Prompt
    rendered: P


@runtime_checkable
class _SplitsReasoning(Protocol):
    """A format that splits a text into reasoning, if there is any, and answer."""

    def split(self, text: str, /) -> tuple[str | None, str]: ...


_Split: TypeAlias = Callable[[str], tuple[str | None, str]]


@final
@dataclass(frozen=True)  # no slots: LLM[...](...) sets an attribute
class LLM(Generic[In, Out, P, R]):
    """Asks `backend` with the prompts of `task`, rendered by `format`, on `executor`.

    Type checkers verify that the format renders what the backend takes (P) and that the backend gives what the executor
    runs (R). A call asks for `batch_size` inputs at once. Every method pulls its inputs lazily, gives exactly one Result an
    input, and raises no Exception but one of the inputs' own iterator, after answering what came before it.

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

        `on_progress(k)` is called as rows finish, failed or not, with the number of generations just finished, so that
        `tqdm(total=len(inputs) * num_generations).update` fits. If it raises, a warning says so, and it is called no more.
        """
        with closing(self.as_completed(inputs, num_generations, on_progress)) as answered:
            rows = dict(answered)
        return [rows[index] for index in range(len(rows))]

    def stream(
        self, inputs: Iterable[In], num_generations: int = 1, on_progress: Callable[[int], object] | None = None
    ) -> Stream[RowResult[Out]]:
        """Return the results one by one, in the order of the inputs, in bounded memory, for `for` and for `async for`.

        `close` cancels what is pending.
        """
        return self._run(inputs, num_generations, on_progress, in_order=True, select=lambda _, row: row)

    def as_completed(
        self, inputs: Iterable[In], num_generations: int = 1, on_progress: Callable[[int], object] | None = None
    ) -> Stream[tuple[int, RowResult[Out]]]:
        """Return the results as they come, each with the index of its input."""
        return self._run(inputs, num_generations, on_progress, in_order=False, select=lambda index, row: (index, row))

    @contextmanager
    def submitter(self, num_generations: int = 1) -> Generator[Callable[[In], Future[RowResult[Out]]], None, None]:
        """Open a function that takes one input and returns a Future of its Result.

        Leaving the block waits for all that was submitted; leaving it by an exception cancels what is pending.
        """
        from distgen.executors.futures import PendingFutures

        _check_parts(self.format, self.executor)
        pending: PendingFutures[RowResult[Out]] = PendingFutures()
        error, split = self._check_numbers(num_generations), _split_of(self.format)

        def submit(value: In) -> Future[RowResult[Out]]:
            row = error or self._ask(value)
            call = self._call([row], num_generations)
            return pending.submit(call, submit_call, lambda result: next(self._join([row], result, split)))

        try:
            with open_session(self.executor, pending.deliver, lambda: True) as submit_call:
                try:
                    yield submit
                    pending.wait()
                finally:
                    pending.is_closed = True
        finally:
            pending.drop()

    def prepare(self, inputs: Iterable[In], num_generations: int = 1) -> Iterator[Asked[P] | GenerateError]:
        """Return, lazily, the prompt of each input, or the error that `generate` answers for it without asking."""
        _check_inputs(inputs)
        _check_parts(self.format, self.executor)
        error = self._check_numbers(num_generations)
        return (error or self._ask(value) for value in inputs)

    def read_row(self, row: Asked[P] | GenerateError, answer: RowAnswer) -> RowResult[Out]:
        """Read the answer to a row of `prepare` as `generate` does; a row with an error keeps it."""
        return next(self._join([row], (answer,), _split_of(self.format)))

    def _run(
        self,
        inputs: Iterable[In],
        num_generations: int,
        on_progress: Callable[[int], object] | None,
        in_order: bool,
        select: Callable[[int, RowResult[Out]], _T],
    ) -> Stream[_T]:
        _check_inputs(inputs)
        _check_parts(self.format, self.executor)
        inbox = Inbox()
        error = self._check_numbers(num_generations)
        size = self.batch_size if _is_count(self.batch_size) else 1
        results = run_bounded(self.executor, self._requests(inputs, size, num_generations, error), in_order, inbox)
        split, report = _split_of(self.format), _reporter(on_progress, num_generations)

        def steps() -> Steps[_T]:
            with closing(results):
                for step in results:
                    if step is None:
                        yield None
                        continue
                    index, asked, result = step
                    for position, row in enumerate(self._join(asked, result, split), index * size):
                        report()
                        yield select(position, row)

        return Stream(inbox, steps())

    def _requests(
        self, inputs: Iterable[In], size: int, num_generations: int, error: InvalidArgument | None
    ) -> Iterator[tuple[list[Asked[P] | GenerateError], Call[P, R]]]:
        """Yield a call for each `size` inputs, with the rows that it asks for, and those that it does not."""
        for chunk in _chunks(inputs, size):
            rows = [error or self._ask(value) for value in chunk]
            yield rows, self._call(rows, num_generations)

    def _call(self, rows: Sequence[Asked[P] | GenerateError], num_generations: int) -> Call[P, R]:
        return Call(self.backend, [row.rendered for row in rows if isinstance(row, Asked)], num_generations)

    def _check_numbers(self, num_generations: int) -> InvalidArgument | None:
        for name, number in (("num_generations", num_generations), ("batch_size", self.batch_size)):
            if not _is_count(number):
                return InvalidArgument(name, number, "it must be a whole number, 1 or more")
        return None

    def _ask(self, value: In) -> Asked[P] | GenerateError:
        """Make the prompt for an input and render it. Never raises."""
        try:
            prompt = _to_prompt(self.task.prompt(value))
        except Exception as error:
            return Raised.of(error, "prompt")
        if not isinstance(prompt, Prompt):
            return prompt
        try:
            rendered = self.format(prompt)
            if isinstance(rendered, Success):
                return Asked(prompt, rendered.unwrap())
            _check_type(rendered, Result, "the format", "Result")
            return rendered.failure()
        except Exception as error:
            return Raised.of(error, "format")

    def _join(
        self, rows: Sequence[Asked[P] | GenerateError], result: CallResult, split: _Split | None
    ) -> Iterator[RowResult[Out]]:
        """Yield a row for each input: one that was not asked has no answer in the result, and keeps its error."""
        answers = iter(result)
        for row in rows:
            yield self._read(row.prompt, next(answers), split) if isinstance(row, Asked) else Failure(row)

    def _read(self, prompt: Prompt, answer: RowAnswer, split: _Split | None) -> RowResult[Out]:
        if not isinstance(answer, tuple):
            return Failure(answer)
        return Success(tuple([self._to_generation(prompt, completion, split) for completion in answer]))

    def _to_generation(self, prompt: Prompt, completion: Completion, split: _Split | None) -> Generation[Out]:
        """Split off the reasoning and parse the text. Never raises."""
        if split is not None and completion.reasoning is None:
            try:
                reasoning, text = split(completion.text)
            except Exception as error:
                parse_failed = ParseFailed(Raised.of(error, "format"))
                return Generation(self.model, prompt, completion, Failure(parse_failed))
            completion = replace(completion, reasoning=reasoning, text=text)
        no_text = _explain_no_text(completion)
        parsed = self._parse(completion.text) if no_text is None else Failure(no_text)
        return Generation(self.model, prompt, completion, parsed)

    def _parse(self, text: str) -> Result[Out, ParseFailed | NoText]:
        try:
            parsed = self.task.parse(text)
            if isinstance(parsed, Success):
                return Success(parsed.unwrap())
            _check_type(parsed, Result, "the parser", "Result")
            error = parsed.failure()
        except Exception as raised:
            error = raised
        return Failure(ParseFailed(Raised.of(error, "parser") if isinstance(error, BaseException) else error))


def _explain_no_text(completion: Completion) -> NoText | None:
    """Return why there is nothing to parse; None if there is a text."""
    reason: NoTextReason
    match completion:
        case Completion(error=str(error)):
            reason, message = "error", f"the service broke the answer off: {error}"
        case Completion(text=text) if text:
            return None
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


def _split_of(format: object) -> _Split | None:
    return format.split if isinstance(format, _SplitsReasoning) else None


def _check_inputs(inputs: object) -> None:
    kind = type(inputs).__name__
    if isinstance(inputs, str | bytes | Mapping):
        raise TypeError(f"inputs must be an iterable of inputs, got a single {kind}; pass a list of them")


def _check_parts(format: object, executor: object) -> None:
    if isinstance(executor, type):
        raise TypeError(f"executor is the class {executor.__name__}; pass a value, such as Threads(8) or Sequential()")
    if isinstance(format, str):
        raise TypeError(f"format is the name {format!r}; pass the format itself, FORMATS[{format!r}]")


def _check_type(value: object, expected: type | UnionType, giver: str, due: str) -> None:
    """A function of untyped code may return anything; the error then names that function."""
    if not isinstance(value, expected):
        raise TypeError(f"{giver} returned {type(value).__name__}, not {due}")


def _to_prompt(asked: Prompt | Result[Prompt, GenerateError]) -> Prompt | GenerateError:
    """Return the prompt that a prompt function answers, or the failure that it passes on."""
    if isinstance(asked, Prompt):
        return asked
    _check_type(asked, Result, "the prompt function", "Prompt")
    if isinstance(asked, Success):
        prompt: Prompt = asked.unwrap()
        _check_type(prompt, Prompt, "the prompt function", "Prompt")
        return prompt
    error = asked.failure()
    _check_type(error, GenerateError, "a Failure of the prompt function", "an error of distgen")
    return error


def _is_count(value: object) -> bool:
    return isinstance(value, int) and value >= 1


def _chunks(inputs: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """Yield the inputs, `size` at a time; those before an exception of their iterator come before it."""
    chunk: list[_T] = []
    try:
        for value in inputs:
            chunk.append(value)
            if len(chunk) == size:
                yield chunk
                chunk = []
    except Exception:
        if chunk:
            yield chunk
        raise
    if chunk:
        yield chunk


def _reporter(on_progress: Callable[[int], object] | None, num_generations: int) -> Callable[[], None]:
    """Return a function that tells `on_progress` of one more row, until it raises."""
    callback = on_progress

    def report() -> None:
        nonlocal callback
        if callback is None:
            return
        try:
            callback(num_generations)
        except Exception as error:
            callback = None
            warn(f"{explain(Raised.of(error, 'progress'))} on_progress is called no more; the run goes on.")

    return report
