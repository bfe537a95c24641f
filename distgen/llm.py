"""An `LLM` composes a task, a format, a backend and an executor, and answers each input with a typed Result.

It holds no state, opens nothing until it is asked, and raises nothing for a row: what went wrong is the row's Failure.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar, final

from returns.result import Failure, Result, Success

from distgen.completion import Completion, Generate
from distgen.errors import Fault, GenerateError, InvalidArgument, ParseFailed, explain
from distgen.executors import Answer, Call, Executor, settled
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


Answered: TypeAlias = Result[tuple[Generation[Out], ...], GenerateError]
"""What became of one input: its `num_generations` generations, or the reason why there are none."""

_Prepared: TypeAlias = Result[tuple[Prompt, P], GenerateError]


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
    ) -> list[Answered[Out]]:
        """All the answers, in the order of the inputs.

        `on_progress(k)` is called as rows finish, failed or not, with the number of generations just finished, so that
        `tqdm(total=len(inputs) * num_generations).update` fits. Where it raises, it is warned of and called no more.
        """
        rows = dict(self.as_completed(inputs, num_generations, on_progress))
        return [rows[index] for index in range(len(rows))]

    def stream(
        self, inputs: Iterable[In], num_generations: int = 1, on_progress: Callable[[int], object] | None = None
    ) -> Generator[Answered[Out], None, None]:
        """The answers one by one, in the order of the inputs, in bounded memory; `close` cancels what is pending."""
        asked: dict[int, list[_Prepared[P]]] = {}
        report = _reporter(on_progress, num_generations)
        with closing(self.executor.run(self._calls(inputs, num_generations, asked))) as answers:
            for index, answer in enumerate(answers):
                for row in self._rows(asked.pop(index), answer):
                    report()
                    yield row

    def as_completed(
        self, inputs: Iterable[In], num_generations: int = 1, on_progress: Callable[[int], object] | None = None
    ) -> Generator[tuple[int, Answered[Out]], None, None]:
        """The answers as they come, each with the index of its input."""
        asked: dict[int, list[_Prepared[P]]] = {}
        report = _reporter(on_progress, num_generations)
        with closing(self.executor.as_completed(self._calls(inputs, num_generations, asked))) as answers:
            for index, answer in answers:
                for position, row in enumerate(self._rows(asked.pop(index), answer), index * self._chunk()):
                    report()
                    yield position, row

    @contextmanager
    def submitter(self, num_generations: int = 1) -> Generator[Callable[[In], Future[Answered[Out]]], None, None]:
        """Opens a function that takes one input and gives a Future of its Result.

        Leaving the block waits for all that was submitted; leaving it by an exception cancels what is pending.
        """
        with self.executor.submitter() as submit_call:

            def submit(value: In) -> Future[Answered[Out]]:
                prepared = [self._prepared(value, num_generations)]
                call = self._call(prepared, num_generations)
                return _then(submit_call(call), lambda done: self._rows(prepared, settled(done, call))[0])

            yield submit

    def _calls(
        self, inputs: Iterable[In], num_generations: int, asked: dict[int, list[_Prepared[P]]]
    ) -> Iterator[Call[R]]:
        """A call for each `batch_size` inputs, made as it is pulled; what each row asked is left in `asked`."""
        for index, chunk in enumerate(_chunks(inputs, self._chunk())):
            asked[index] = [self._prepared(value, num_generations) for value in chunk]
            yield self._call(asked[index], num_generations)

    def _call(self, prepared: list[_Prepared[P]], num_generations: int) -> Call[R]:
        rendered = [row.unwrap()[1] for row in prepared if isinstance(row, Success)]
        if len(rendered) == 1:
            ask = partial(self.backend, rendered, num_generations)
            return Call(ask, (ask,), num_generations)
        rows = tuple(partial(self.backend, [one], num_generations) for one in rendered)
        return Call(partial(self.backend, rendered, num_generations), rows, num_generations)

    def _prepared(self, value: In, num_generations: int) -> _Prepared[P]:
        """What to send for an input. Never raises."""
        for name, number in (("num_generations", num_generations), ("batch_size", self.batch_size)):
            if not _is_count(number):
                return Failure(InvalidArgument(name, number, "it must be a whole number, 1 or more"))
        try:
            prompt = _checked(self.task.prompt(value), Prompt, "the prompt function")
        except Exception as error:
            return Failure(Fault.of(error, "prompt"))
        try:
            rendered = _checked(self.format(prompt), Result, "the formatter")
        except Exception as error:
            return Failure(Fault.of(error, "format"))
        return rendered.map(lambda ready: (prompt, ready))

    def _rows(self, prepared: list[_Prepared[P]], answer: Answer) -> list[Answered[Out]]:
        """Joins what was asked with what was answered: rows that were never asked keep the reason why."""
        answers = iter(answer)
        return [
            next(answers).map(partial(self._generations, row.unwrap()[0]))
            if isinstance(row, Success)
            else Failure(row.failure())
            for row in prepared
        ]

    def _generations(self, prompt: Prompt, completions: tuple[Completion, ...]) -> tuple[Generation[Out], ...]:
        return tuple(Generation(self.model, prompt, each, self._parsed(each.text)) for each in completions)

    def _parsed(self, text: str) -> Result[Out, ParseFailed]:
        try:
            return _checked(self.task.parse(text), Result, "the parser").alt(_parse_failed)
        except Exception as error:
            return Failure(_parse_failed(error))

    def _chunk(self) -> int:
        return self.batch_size if _is_count(self.batch_size) else 1

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
_U = TypeVar("_U")


def _checked(value: _T, expected: type, giver: str) -> _T:
    """A function from untyped code may give anything; the fault is then named where it is made."""
    if not isinstance(value, expected):
        raise TypeError(f"{giver} gave {type(value).__name__}, not {expected.__name__}")
    return value


def _is_count(value: object) -> bool:
    return isinstance(value, int) and value >= 1


def _parse_failed(error: object) -> ParseFailed:
    return ParseFailed(Fault.of(error, "parser") if isinstance(error, BaseException) else error)


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


def _reporter(on_progress: Callable[[int], object] | None, num_generations: int) -> Callable[[], None]:
    """Tells `on_progress` of one more row, until it raises."""

    def report() -> None:
        nonlocal on_progress
        if on_progress is None:
            return
        try:
            on_progress(num_generations)
        except Exception as error:
            on_progress = None
            _warn(f"{explain(Fault.of(error, 'progress'))} on_progress is called no more; the run goes on.")

    return report


def _warn(message: str) -> None:
    import warnings

    try:
        warnings.warn(message, RuntimeWarning, stacklevel=2)
    except RuntimeWarning:  # warnings are errors here; but rows that were paid for are worth more
        return


def _then(future: Future[_T], fn: Callable[[Future[_T]], _U]) -> Future[_U]:
    """A future of what `fn` makes of a done one; cancelling it cancels that one."""
    from concurrent.futures import Future

    after: Future[_U] = Future()

    def finish(done: Future[_T]) -> None:
        if not after.set_running_or_notify_cancel():
            return
        try:
            after.set_result(fn(done))
        except BaseException as error:  # KeyboardInterrupt; a future that is never done would hang its reader
            after.set_exception(error)

    after.add_done_callback(lambda _: future.cancel() if after.cancelled() else None)
    future.add_done_callback(finish)
    return after
