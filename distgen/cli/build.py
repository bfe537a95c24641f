"""The LLM that the options describe: a server, a model in this process, or a rehearsal."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from threading import Event
from typing import Final, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from returns.result import Failure, Success

from distgen.backends.echo import echo
from distgen.backends.generate import Batch, Generate
from distgen.backends.retry import Retry
from distgen.cli.options import Options
from distgen.cli.records import Record, UsageError, to_prompt
from distgen.errors import explain
from distgen.executors import Asyncio, Sequential
from distgen.formats import ChatTemplate, lookup, segment_if_needed
from distgen.formats.messages import ChatMessages
from distgen.formats.registry import AnyFormat
from distgen.llm import LLM, SupportsGenerate
from distgen.task import Task

_P = TypeVar("_P")

_TASK: Final = Task(to_prompt, Success)
_HF_PARAMS: Final = ("temperature", "top_p", "max_tokens", "max_completion_tokens", "stop", "seed")  # see LocalModel

_FLAGS: Final = {
    "base_url=": "--base-url ",
    "base_url": "--base-url",
    "timeout=": "--timeout ",
    "raise timeout": "raise --timeout",
    "raise max_tokens": "raise --param max_tokens=N",
    "FORMATS lists": "`distgen formats` lists",
    "resume it, overwrite it": "add --resume to go on with it, --overwrite to replace it",
    "ask with less concurrency": "lower --concurrency",
    "pass api_key, or set": "set the environment variable",
}


def find_format(options: Options) -> AnyFormat:
    """Return the format that the options name."""
    found = lookup(options.format)
    if isinstance(found, Failure):
        raise UsageError(to_flags(explain(found.failure())))
    format = found.unwrap()
    return replace(format, bos="") if options.no_bos and isinstance(format, ChatTemplate) else format


def build_llm(options: Options, stop: Event, add_latency: Callable[[float], object]) -> SupportsGenerate[Record, str]:
    """Return the LLM of the options; raise UsageError for options that a backend refuses."""
    format = find_format(options)
    try:
        if options.hf:
            return _local(options, format)
        if options.base_url:
            return _server(options, options.base_url, format, stop, add_latency)
    except ImportError as error:
        option, extra = ("--hf", "hf") if options.hf else ("--base-url", "server")
        raise UsageError(f"{option} needs more libraries: pip install 'distgen-llm[{extra}]'.") from error
    except (OSError, ValueError) as error:
        raise UsageError(to_flags(str(error))) from error
    print("distgen: no --base-url, so this is a rehearsal: each prompt is its own answer", file=sys.stderr)
    if isinstance(format, ChatMessages):
        return LLM(_TASK, format, echo, Sequential(), options.model)
    return LLM(_TASK, format, echo, Sequential(), options.model)


def _server(
    options: Options, url: str, format: AnyFormat, stop: Event, add_latency: Callable[[float], object]
) -> SupportsGenerate[Record, str]:
    from distgen.backends.server import chat, completions

    def connect(make: Callable[..., Generate[_P, Awaitable[Batch]]], **stops: object) -> Generate[_P, Awaitable[Batch]]:
        backend = make(
            url,
            model=options.model,
            params={**stops, **options.params},
            extra_body=options.extra,
            timeout=options.timeout,
            retry=Retry(attempts=options.retries + 1),
            max_connections=options.concurrency,
            proxy=_find_proxy(url),
            stop=stop,
        )
        return _time(backend, stop, add_latency)

    executor = Asyncio(options.concurrency)
    if isinstance(format, ChatMessages):
        return LLM(_TASK, format, connect(chat), executor, options.model)
    stops = {"stop": format.stop} if format.stop else {}
    return LLM(_TASK, format, connect(completions, **stops), executor, options.model)


def _time(
    backend: Generate[_P, Awaitable[Batch]], stop: Event, add_latency: Callable[[float], object]
) -> Generate[_P, Awaitable[Batch]]:
    async def ask(prompts: Sequence[_P], num_generations: int) -> Batch:
        started = time.monotonic()
        answer = await backend(prompts, num_generations)
        if not stop.is_set():  # rows that are given up have no latency
            add_latency(time.monotonic() - started)
        return answer

    return ask


def _find_proxy(url: str) -> str | None:
    """Return the proxy that the environment names for this URL, as https_proxy, unless no_proxy excepts its host."""
    parts = urlsplit(url)
    proxy = None if proxy_bypass(parts.netloc) else getproxies().get(parts.scheme)
    return proxy if proxy is None or "://" in proxy else f"http://{proxy}"


def _local(options: Options, format: AnyFormat) -> SupportsGenerate[Record, str]:
    from distgen.backends.hf import LocalModel, load

    if isinstance(format, ChatMessages):
        raise UsageError("--format openai is for servers; with --hf, name the model's own format, see distgen formats.")
    given: Mapping[str, object] = {"stop": format.stop, **options.params}
    params = {name: value for name, value in given.items() if name in _HF_PARAMS}
    others = {name: value for name, value in given.items() if name not in _HF_PARAMS}
    make: Callable[..., LocalModel] = load
    model = make(options.hf, params=params, options={**others, **options.extra})
    print(f"distgen: running on {model.device} ({model.dtype})", file=sys.stderr)
    formatter = segment_if_needed(format, model.is_special_token, model.has_special_token)
    return LLM(_TASK, formatter, model, Sequential(), options.model, options.batch_size)


def to_flags(message: str) -> str:
    """Return an error of a backend on one line, with options in place of arguments.

    >>> to_flags("params['temperature'] is 'x'; base_url='ftp:' is no base URL")
    "--param temperature is 'x'; --base-url 'ftp:' is no base URL"
    """
    text = re.sub(r"(?:params|options)\['(\w+)'\]", r"--param \1", " ".join(message.split()))
    for argument, flag in _FLAGS.items():
        text = text.replace(argument, flag)
    return text
