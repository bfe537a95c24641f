"""Whom the command line asks: its options as a format, a backend and an executor, composed to a stream over lines."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeGuard, TypeVar, final
from urllib.parse import urlsplit

from returns.result import Failure, Success

from distgen.backends import llama_cpp, transformers
from distgen.backends.echo import echo
from distgen.backends.params import Params
from distgen.backends.generate import Batch, Generate
from distgen.errors import explain
from distgen.executors import Executor, Sequential, Threads
from distgen.formats import ChatMessages, ChatTemplate, Formatter, lookup, quoting
from distgen.journal import Answers
from distgen.llm import LLM, RowResult
from distgen.prompt import Messages
from distgen.report import Meter, metered
from distgen.rows import Line, ask
from distgen.task import Task

P = TypeVar("P")


@final
class Unusable(Exception):
    """A reason to end before anything is asked: one sentence."""


def answering(options: argparse.Namespace, meter: Meter) -> Answers[Line, RowResult[str]]:
    """The LLM that the options and the environment describe, as a stream over lines; `options.model` is then its name.

    What speaks against it is said, or is Unusable.

    >>> answering(argparse.Namespace(hf=None, gguf=None, base_url="http://127.0.0.1:8000/v1", model=""), Meter())
    Traceback (most recent call last):
        ...
    distgen.asking.Unusable: --base-url needs --model, the name under which the server knows its model
    """
    if options.hf or options.gguf:
        return _in_process(options, meter)
    is_told = options.base_url is not None
    options.base_url = options.base_url if is_told else os.environ.get("OPENAI_BASE_URL")
    if options.base_url:
        options.model = options.model or os.environ.get("OPENAI_MODEL")
    else:
        say("no --base-url, so this is a rehearsal: each prompt is answered with itself, offline")
        options.model = options.model or "echo"
    if not options.model:
        raise Unusable("--base-url needs --model, the name under which the server knows its model")
    stream = _stream(options, meter)
    if options.base_url and not is_told:
        say(f"asking {options.base_url}, as OPENAI_BASE_URL says")
    return stream


def _stream(options: argparse.Namespace, meter: Meter) -> Answers[Line, RowResult[str]]:
    template, threads = format_of(options), Threads(options.threads)
    if isinstance(template, ChatTemplate):
        return _asking(options, meter, threads, _completions(options, template), template)
    return _asking(options, meter, threads, _chat(options), template)


def _asking(
    options: argparse.Namespace,
    meter: Meter,
    executor: Executor[Batch],
    backend: Generate[P, Batch],
    formatter: Formatter[P],
    batch_size: int = 1,
) -> Answers[Line, RowResult[str]]:
    llm = LLM(Task(ask, Success), formatter, metered(backend, meter), executor, options.model, batch_size)
    return partial(llm.stream, num_generations=options.num_generations)


def _chat(options: argparse.Namespace) -> Generate[Messages, Batch]:
    if not options.base_url:
        return echo
    with _usable():
        from distgen.backends import http

        return _served(options, http.chat, dict(options.param))


def _completions(options: argparse.Namespace, template: ChatTemplate) -> Generate[str, Batch]:
    if not options.base_url:
        return echo
    if template.bos:
        say(f"prompts begin with {template.bos}; if the server adds that itself, as vLLM and llama.cpp do: --no-bos")
    with _usable():
        from distgen.backends import http

        extra = {"stop": template.stops, **dict(options.param)} if template.stops else dict(options.param)
        return _served(options, http.completions, extra)


def _served(
    options: argparse.Namespace, make: Callable[..., Generate[P, Batch]], extra_body: Mapping[str, object]
) -> Generate[P, Batch]:
    url = options.base_url
    return make(url, model=options.model, connections=options.threads, proxy=_proxy(url), extra_body=extra_body)


def _proxy(url: str) -> str | None:
    """The proxy that the environment names for this URL, as https_proxy, unless no_proxy excepts its host."""
    from urllib.request import getproxies, proxy_bypass

    asked = urlsplit(url)
    proxy = None if proxy_bypass(asked.netloc) else getproxies().get(asked.scheme)
    return proxy if proxy is None or "://" in proxy else f"http://{proxy}"


def _in_process(options: argparse.Namespace, meter: Meter) -> Answers[Line, RowResult[str]]:
    """As `_stream`, over a model that is loaded here."""
    template = format_of(options)
    if not isinstance(template, ChatTemplate):
        raise Unusable(
            "--format openai leaves the format to a server; with --hf or --gguf, name the model's own format"
        )
    options.model = options.model or Path(options.hf or options.gguf).name
    extra = "transformers" if options.hf else "llama-cpp"
    load = transformers.load if options.hf else llama_cpp.load
    given: dict[str, object] = {"stop": template.stops, **dict(options.param)}
    params = {name: value for name, value in given.items() if name in Params.__annotations__}
    more = {name: value for name, value in given.items() if name not in params}
    with _usable(f"--{'hf' if options.hf else 'gguf'} needs the {extra} extra: pip install 'distgen[{extra}]'"):
        model = load(options.hf or options.gguf, params=params if _are_params(params) else None, options=more)
        formatter = quoting(template, model.is_token, model.holds_token)
    return _asking(options, meter, Sequential(), model, formatter, options.batch_size if options.hf else 1)


def _are_params(params: Mapping[str, object]) -> TypeGuard[Params]:
    """By their names; the backend looks at their values."""
    return params.keys() <= Params.__annotations__.keys()


@contextmanager
def _usable(needs: str = "--base-url needs the http extra: pip install 'distgen[http]'") -> Generator[None, None, None]:
    try:
        yield
    except ImportError as error:
        raise Unusable(f"{needs} ({error})") from error
    except (OSError, ValueError) as error:  # transformers' span lines
        raise Unusable(" ".join(str(error).split())) from error


def say(note: str) -> None:
    """A line on stderr, for people; `say("no --base-url")` writes "distgen: no --base-url".

    >>> say("a rehearsal")
    """
    print(f"distgen: {note}", file=sys.stderr)


def format_of(options: argparse.Namespace) -> ChatTemplate | ChatMessages:
    """The format that the options name, without its BOS text where they say so.

    >>> format_of(argparse.Namespace(format="llama2", no_bos=True)).name
    'llama2'
    """
    template = lookup(str(options.format))
    if isinstance(template, Failure):
        raise Unusable(f"{explain(template.failure())} On the command line: python -m distgen formats.")
    found = template.unwrap()
    return replace(found, bos="") if options.no_bos and isinstance(found, ChatTemplate) else found
