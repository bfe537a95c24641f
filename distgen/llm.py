"""An `LLM` composes a task, a format, a backend and an executor, and answers each input with a typed Result.

It holds no state, opens nothing until it is asked, and raises nothing for a row: what went wrong is the row's Failure.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from types import UnionType
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar, final

from returns.result import Failure, Result, Success

from distgen.backends.generate import Generate
from distgen.completion import Completion
from distgen.errors import Raised, GenerateError, InvalidArgument, ParseFailed, explain
from distgen.executors import (
    Call,
    Executor,
    Inbox,
    RowAnswer,
    Steps,
    Stream,
    opened,
    warn,
    windowed,
)
from distgen.formats import Formatter
from distgen.prompt import Prompt
from distgen.task import In, Out, Shown, Task, shown_fields

if TYPE_CHECKING:
    from concurrent.futures import Future

P = TypeVar("P")
R = TypeVar("R")


@final
@dataclass(frozen=True, slots=True)
class Generation(Generic[Out]):
    """One answer to one input: the model's name, what was asked, what was said, and what was read from it.

    An answer that does not parse is still here: `parsed` is then a Failure, and `completion.text` is what was said.
    """

    model: str
    prompt: Prompt
    completion: Completion
    parsed: Result[Out, ParseFailed]


RowResult: TypeAlias = Result[tuple[Generation[Out], ...], GenerateError]
"""What became of one input: its `num_generations` generations, or the reason why there are none."""

_Prepared: TypeAlias = Prompt | GenerateError
"""What is asked about one input, or why nothing is."""


@final
@dataclass(frozen=True, slots=True, repr=False)
class LLM(Generic[In, Out, P, R]):
    """Asks `backend` what `task` wants to know, in the words of `format`, as many at once as `executor` runs.

    That the format renders what the backend takes (P) and that the backend gives what the executor runs (R) is checked
    by type checkers. A call asks for `batch_size` inputs at once. Every method pulls its inputs lazily, gives exactly
    one Result an input, and raises no Exception but one of the inputs' own iterator, after answering what came before.

    >>> from distgen.backends.echo import echo
    >>> from distgen.executors import Sequential
    >>> from distgen.formats import chatml
    >>> llm = LLM(Task(prompt=Prompt, parse=lambda text: Success(len(text))), chatml, echo, Sequential())
    >>> [row.map(lambda generations: generations[0].parsed) for row in llm.generate(["Hi", "Hello"])]
    [<Success: <Success: 52>>, <Success: <Success: 55>>]
    >>> llm
    LLM(task=Task(prompt=Prompt, parse=<lambda>), format=chatml, backend=echo, executor=Sequential(), model='', batch_size=1)
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
        """All the answers, in the order of the inputs.

        `on_progress(k)` is called as rows finish, failed or not, with the number of generations just finished, so that
        `tqdm(total=len(inputs) * num_generations).update` fits. Where it raises, it is warned of and called no more.
        """
        with closing(self.as_completed(inputs, num_generations, on_progress)) as answered:
            rows = dict(answered)
        return [rows[index] for index in range(len(rows))]

    def stream(
        self, inputs: Iterable[In], num_generations: int = 1, on_progress: Callable[[int], object] | None = None
    ) -> Stream[RowResult[Out]]:
        """The answers one by one, in the order of the inputs, in bounded memory, for `for` and for `async for`.

        `close` cancels what is pending.
        """
        inbox = Inbox()
        return Stream(inbox, self._steps(inputs, num_generations, on_progress, inbox, in_order=True, given=_alone))

    def as_completed(
        self, inputs: Iterable[In], num_generations: int = 1, on_progress: Callable[[int], object] | None = None
    ) -> Stream[tuple[int, RowResult[Out]]]:
        """The answers as they come, each with the index of its input."""
        inbox = Inbox()
        return Stream(inbox, self._steps(inputs, num_generations, on_progress, inbox, in_order=False, given=_numbered))

    @contextmanager
    def submitter(self, num_generations: int = 1) -> Generator[Callable[[In], Future[RowResult[Out]]], None, None]:
        """Opens a function that takes one input and gives a Future of its Result.

        Leaving the block waits for all that was submitted; leaving it by an exception cancels what is pending.
        """
        from distgen.executors.desk import Desk

        desk: Desk[RowResult[Out]] = Desk()
        refused = self._refused(num_generations)

        def submit(value: In) -> Future[RowResult[Out]]:
            prompts: list[P] = []
            prepared = refused or self._prepared(value, prompts)
            index, future = desk.open(lambda answer: self._row(prepared, iter(answer)))
            desk.hand_over(index, Call(self.backend, prompts, num_generations), submit_call)
            return future

        try:
            with opened(self.executor, desk.deliver, _always) as submit_call:
                try:
                    yield submit
                    desk.wait()
                finally:
                    desk.is_closed = True
        finally:
            desk.drop()

    def _steps(
        self,
        inputs: Iterable[In],
        num_generations: int,
        on_progress: Callable[[int], object] | None,
        inbox: Inbox,
        in_order: bool,
        given: Callable[[int, RowResult[Out]], _T],
    ) -> Steps[_T]:
        asked: dict[int, list[_Prepared]] = {}
        size = self.batch_size if _is_count(self.batch_size) else 1
        report = None if on_progress is None else _reporter(on_progress, num_generations)
        calls = self._calls(inputs, size, num_generations, asked)
        with closing(windowed(self.executor, calls, in_order, inbox)) as steps:
            for step in steps:
                if step is None:
                    yield None
                    continue
                index, answer = step
                answers = iter(answer)
                for position, prepared in enumerate(asked.pop(index), index * size):
                    row = self._row(prepared, answers)
                    if report is not None:
                        report()
                    yield given(position, row)

    def _calls(
        self, inputs: Iterable[In], size: int, num_generations: int, asked: dict[int, list[_Prepared]]
    ) -> Iterator[Call[P, R]]:
        """A call for each `size` inputs, made as it is pulled; what each row asked is left in `asked`."""
        refused = self._refused(num_generations)
        for index, chunk in enumerate(_chunks(inputs, size)):
            prompts: list[P] = []
            rows: list[_Prepared] = []
            asked[index] = rows
            for value in chunk:
                rows.append(refused or self._prepared(value, prompts))
            yield Call(self.backend, prompts, num_generations)

    def _refused(self, num_generations: int) -> InvalidArgument | None:
        for name, number in (("num_generations", num_generations), ("batch_size", self.batch_size)):
            if not _is_count(number):
                return InvalidArgument(name, number, "it must be a whole number, 1 or more")
        return None

    def _prepared(self, value: In, prompts: list[P]) -> _Prepared:
        """What is asked about an input, added to `prompts` as it is to be sent. Never raises."""
        try:
            asked = self.task.prompt(value)
            prompt = asked if isinstance(asked, Prompt) else _unwrapped(asked)
            if not isinstance(prompt, Prompt):
                return prompt
        except Exception as error:
            return Raised.of(error, "prompt")
        try:
            rendered = self.format(prompt)
            if isinstance(rendered, Success):
                prompts.append(rendered.unwrap())
                return prompt
            _check(rendered, Result, "the formatter", "Result")
        except Exception as error:
            return Raised.of(error, "format")
        return rendered.failure()

    def _row(self, prepared: _Prepared, answers: Iterator[RowAnswer]) -> RowResult[Out]:
        """Joins what was asked with the next of the answers: a row that was never asked has none, and keeps the reason why."""
        if not isinstance(prepared, Prompt):
            return Failure(prepared)
        answer = next(answers)
        if not isinstance(answer, tuple):
            return Failure(answer)
        generations: list[Generation[Out]] = []
        for completion in answer:
            generations.append(Generation(self.model, prepared, completion, self._parsed(completion.text)))
        return Success(tuple(generations))

    def _parsed(self, text: str) -> Result[Out, ParseFailed]:
        try:
            parsed = self.task.parse(text)
            if isinstance(parsed, Success):
                return parsed
            _check(parsed, Result, "the parser", "Result")
        except Exception as error:
            return Failure(_parse_failed(error))
        return parsed.alt(_parse_failed)

    def __rich_repr__(self) -> Iterator[tuple[str, object]]:
        """The fields, functions and formats by their names; Rich reads this, and so does `repr`."""
        yield "task", self.task
        yield "format", Shown(self.format)
        yield "backend", Shown(self.backend)
        yield "executor", self.executor
        yield "model", self.model
        yield "batch_size", self.batch_size

    def __repr__(self) -> str:
        return shown_fields("LLM", self.__rich_repr__())


_T = TypeVar("_T")


def _check(value: object, expected: type | UnionType, giver: str, due: str) -> None:
    """A function from untyped code may give anything; the fault is then named where it is made."""
    if not isinstance(value, expected):
        raise TypeError(f"{giver} gave {type(value).__name__}, not {due}")


def _always() -> bool:
    return True


def _alone(_: int, row: _T) -> _T:
    return row


def _numbered(index: int, row: _T) -> tuple[int, _T]:
    return index, row


def _unwrapped(asked: Result[Prompt, GenerateError]) -> Prompt | GenerateError:
    """The prompt of a prompt function that answers a Result, or the failure that it passes on."""
    _check(asked, Result, "the prompt function", "Prompt")
    if isinstance(asked, Success):
        prompt: Prompt = asked.unwrap()
        _check(prompt, Prompt, "the prompt function", "Prompt")
        return prompt
    error = asked.failure()
    _check(error, GenerateError, "a Failure of the prompt function", "an error of distgen")
    return error


def _is_count(value: object) -> bool:
    return isinstance(value, int) and value >= 1


def _parse_failed(error: object) -> ParseFailed:
    return ParseFailed(Raised.of(error, "parser") if isinstance(error, BaseException) else error)


def _chunks(inputs: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """The inputs, `size` at a time; those before an exception of their iterator come before it."""
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


def _reporter(on_progress: Callable[[int], object], num_generations: int) -> Callable[[], None]:
    """Tells `on_progress` of one more row, until it raises."""
    is_told = True

    def report() -> None:
        nonlocal is_told
        if not is_told:
            return
        try:
            on_progress(num_generations)
        except Exception as error:
            is_told = False
            warn(f"{explain(Raised.of(error, 'progress'))} on_progress is called no more; the run goes on.")

    return report
