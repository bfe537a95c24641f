"""The LLM that the options describe: a server, a model in this process, or a rehearsal."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TypeGuard, TypeVar
from urllib.parse import urlsplit

from returns.result import Failure, Success

from distgen.backends.echo import echo
from distgen.backends.generate import Batch, Generate
from distgen.backends.params import Params
from distgen.backends.retry import Retry
from distgen.cli.options import Options, UsageError
from distgen.cli.progress import RunStats, timed
from distgen.cli.rows import Record, to_prompt
from distgen.errors import explain
from distgen.executors import Asyncio, Sequential
from distgen.formats import ChatTemplate, lookup, segment_if_needed
from distgen.formats.messages import ChatMessages
from distgen.formats.registry import AnyFormat
from distgen.llm import LLM, SupportsGenerate
from distgen.task import Task

P = TypeVar("P")

_TASK = Task(to_prompt, Success)


def find_format(options: Options) -> AnyFormat:
    """Return the format that the options name."""
    found = lookup(options.format)
    if isinstance(found, Failure):
        raise UsageError(f"{explain(found.failure())} On the command line: distgen formats.")
    format = found.unwrap()
    return replace(format, bos="") if options.no_bos and isinstance(format, ChatTemplate) else format


def build_llm(options: Options, stats: RunStats, stop: threading.Event) -> SupportsGenerate[Record, str]:
    """Return the LLM of the options; raise UsageError for options that a backend refuses."""
    format = find_format(options)
    try:
        if options.hf:
            return _local(options, format)
        if options.base_url:
            return _server(options, format, stats, stop)
    except ModuleNotFoundError as error:
        extra = "hf" if options.hf else "server"
        raise UsageError(f"{error}; install it: pip install 'distgen[{extra}]'.") from error
    except (OSError, ValueError) as error:  # those of transformers span lines
        raise UsageError(" ".join(str(error).split())) from error
    if isinstance(format, ChatMessages):
        return LLM(_TASK, format, echo, Sequential(), options.model)
    return LLM(_TASK, format, echo, Sequential(), options.model)


def _server(
    options: Options, format: AnyFormat, stats: RunStats, stop: threading.Event
) -> SupportsGenerate[Record, str]:
    from distgen.backends.server import chat, completions

    executor = Asyncio(options.concurrency)
    if isinstance(format, ChatMessages):
        backend = timed(_connect(chat, options, options.params, stop), stats)
        return LLM(_TASK, format, backend, executor, options.model)
    params = {**({"stop": format.stop} if format.stop else {}), **options.params}
    return LLM(_TASK, format, timed(_connect(completions, options, params, stop), stats), executor, options.model)


def _connect(
    make: Callable[..., Generate[P, Awaitable[Batch]]],
    options: Options,
    params: Mapping[str, object],
    stop: threading.Event,
) -> Generate[P, Awaitable[Batch]]:
    return make(
        options.base_url,
        model=options.model,
        params=params,
        extra_body=options.extra,
        timeout=options.timeout,
        retry=Retry(attempts=options.retries + 1),
        max_connections=options.concurrency,
        proxy=_proxy(options.base_url),
        stop=stop,
    )


def _local(options: Options, format: AnyFormat) -> SupportsGenerate[Record, str]:
    from distgen.backends.hf import load

    if isinstance(format, ChatMessages):
        raise UsageError("--format openai is for servers; with --hf, name the model's own format, see distgen formats.")
    params = _params({"stop": format.stop, **options.params})
    model = load(options.hf, params=params, options=options.extra)
    formatter = segment_if_needed(format, model.is_special_token, model.has_special_token)
    return LLM(_TASK, formatter, model, Sequential(), options.model, options.batch_size)


def _params(given: Mapping[str, object]) -> Params | None:
    return given if _are_params(given) and given else None


def _are_params(given: Mapping[str, object]) -> TypeGuard[Params]:
    """Check the names; the backend checks the values."""
    return given.keys() <= Params.__annotations__.keys()


def _proxy(url: str) -> str | None:
    """Return the proxy that the environment names for this URL, as https_proxy, unless no_proxy excepts its host."""
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(url)
    proxy = None if proxy_bypass(parts.netloc) else getproxies().get(parts.scheme)
    return proxy if proxy is None or "://" in proxy else f"http://{proxy}"
