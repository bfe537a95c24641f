"""Any published chat template as a Formatter of text, for models that FORMATS does not have.

It renders as `transformers` does, or answers a Failure: a text that the template drops or changes, and a text that holds
markup. Nothing reads a rendering back, so it is no Format. A template is a program of its author; jinja2's sandbox
keeps it from your files and objects, but nothing stops one that does not end. Needs jinja2.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import date
from functools import lru_cache, partial
from itertools import count
from pathlib import Path
from typing import Final, TypeGuard, final

from returns.result import Failure, Result, Success

from distgen.errors import FormatError, Raised, Unsupported
from distgen.formats.formatter import split_completion
from distgen.formats.injection import find_markup, find_token, is_markup
from distgen.prompt import Exchange, Prompt

try:
    from jinja2 import Template, TemplateError, TemplateSyntaxError, nodes
    from jinja2.ext import Extension
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment
except ImportError as _missing:
    raise ImportError("chat templates need jinja2: pip install jinja2") from _missing

# Private characters of Unicode, which no template treats in a way of its own.
_PLACEHOLDER: Final = re.compile("\ue000\\d+\ue001")
_NO_VARIABLES: Final[Mapping[str, object]] = {}


@final
@dataclass(frozen=True, slots=True)
class JinjaTemplate:
    """A chat template as data; `jinja` and `from_tokenizer_config` make one. Equal, hashable, picklable by value.

    >>> from dataclasses import replace
    >>> template = jinja("{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}</s>{% endfor %}", bos="<s>")
    >>> template(Prompt("Hi")), replace(template, bos="")(Prompt("Hi"))
    (<Success: <s>[user] Hi</s>>, <Success: [user] Hi</s>>)
    >>> template(Prompt("Hi</s>"))
    <Failure: InjectedToken(format='jinja', token='</s>', where='user', offset=2)>
    """

    name: str
    source: str
    bos: str = ""
    """The template's `bos_token`; "" for a server that adds it itself."""
    eos: str = ""
    """The template's `eos_token`."""
    special_tokens: tuple[str, ...] = ()
    """The strings that are refused in a text, longest first."""
    variables: tuple[tuple[str, object], ...] = field(default=(), hash=False)
    """The template's other variables, as JSON values."""
    today: date | None = None
    """The date that `strftime_now` prints."""

    @property
    def stop(self) -> tuple[str, ...]:
        """The strings that end an answer, for the backend."""
        return (self.eos,) if self.eos else ()

    def __call__(self, prompt: Prompt, /) -> Result[str, FormatError]:
        """Render the prompt, or return why not.

        - `InjectedToken`: a text holds a special token.
        - `Unsupported`: the template drops the system text or the history.
        - `Raised` of kind "TextChanged": the template drops or changes a text, which the message names.
        - `Raised` of another kind: the template does not compile, or raises; the message has the line and the reason.
        """
        injected = find_token(self.name, prompt, self.special_tokens)
        if injected is not None:
            return Failure(injected)
        rendered = _render(self, prompt)
        return _check_texts(self, prompt, rendered.unwrap()) if isinstance(rendered, Success) else rendered

    def split(self, text: str, /) -> tuple[str | None, str]:
        """Split a completion into (reasoning, answer); all is answer unless the template or the model opens `<think>`."""
        return split_completion(_render(self, Prompt("x")).value_or(""), text)


def jinja(
    source: str,
    *,
    bos: str = "",
    eos: str = "",
    name: str = "jinja",
    special_tokens: tuple[str, ...] = (),
    variables: Mapping[str, object] = _NO_VARIABLES,
    today: date | None = None,
) -> JinjaTemplate:
    """Return a chat template as a Formatter. A template that does not compile is a Failure of each call, not raised here.

    `variables` are what `apply_chat_template` takes by name (enable_thinking=False, tools=[...]). The markup among `bos`,
    `eos` and the literals that the template writes is refused in texts, and so are `special_tokens`.

    >>> jinja("{{ raise_exception('no') }}")(Prompt("Hi"))
    <Failure: Raised(kind='jinja2.exceptions.TemplateError', message='line 1: no', stage='format', completions=())>
    """
    given = tuple(sorted(deepcopy(dict(variables)).items()))
    template = JinjaTemplate(name, source, bos, eos, (), given, today)
    tokens = {*special_tokens, *filter(_is_special, (bos, eos)), *_find_markup(template)} - {""}
    return replace(template, special_tokens=tuple(sorted(tokens, key=lambda token: (-len(token), token))))


# Rendering. Source of the environment and of the variables: transformers 5.23.0, utils/chat_template_utils.py
# (_compile_jinja_template, render_jinja_template) and tokenization_utils_base.py (apply_chat_template).


@final
class _Generation(Extension):
    """`{% generation %}` marks the text to train on; it renders its body."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_write"), [], [], body).set_lineno(line)

    def _write(self, caller: Callable[[], str]) -> str:
        return caller()


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _format_date(today: date | None, format: str) -> str:
    if today is None:
        raise TemplateError("the template prints a date: pass today=")
    return today.strftime(format)


def _make_environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    return environment


_ENVIRONMENT: Final = _make_environment()


@lru_cache(maxsize=256)
def _compile(source: str) -> Template:
    return _ENVIRONMENT.from_string(source)


def _render(template: JinjaTemplate, prompt: Prompt) -> Result[str, FormatError]:
    variables: dict[str, object] = {
        "tools": None,
        "documents": None,
        "add_generation_prompt": True,
        "bos_token": template.bos,
        "eos_token": template.eos,
        "raise_exception": _raise_exception,
        "strftime_now": partial(_format_date, template.today),
        **dict(template.variables),
        "messages": [{"role": where.rpartition(".")[2], "content": text} for where, text in prompt.texts()],
    }
    try:
        return Success(_compile(template.source).render(variables))
    except Exception as error:
        raised, line = Raised.of(error, "format"), _line_of(error)
        reason = raised.message.partition("\n  line ")[0]  # jinja2 appends the source line to a syntax error
        return Failure(replace(raised, message=reason if line is None else f"line {line}: {reason}"))


def _line_of(error: Exception) -> int | None:
    """Return the line of the template that raised, counted from 1."""
    if isinstance(error, TemplateSyntaxError):
        return error.lineno
    line, step = None, error.__traceback__
    while step is not None:
        line = step.tb_lineno if step.tb_frame.f_code.co_filename == "<template>" else line
        step = step.tb_next
    return line


# Texts that the template drops or changes.


def _check_texts(template: JinjaTemplate, prompt: Prompt, rendered: str) -> Result[str, FormatError]:
    """Return the rendering if each text is in it, its ends aside, in a place of its own."""
    texts, order = list(prompt.texts()), _find_order(template, _replace_texts(prompt))
    written = range(len(texts)) if order is None else order
    for index in sorted({*range(len(texts))}.difference(written)):
        where, text = texts[index]
        if text.strip():
            return Failure(_dropped(template.name, where))
    end = 0
    # Not compared with the placeholders' rendering: some templates rightly write more for a text with a switch of theirs.
    for index in written:
        where, text = texts[index]
        start = rendered.find(text.strip(), end)
        if start < 0:
            return Failure(Raised("TextChanged", f"the template changes the text of {where}", "format"))
        end = 0 if order is None else start + len(text.strip())
    return Success(rendered)


def _dropped(name: str, where: str) -> FormatError:
    if where == "system":
        return Unsupported(name, "system")
    if where.startswith("history"):
        return Unsupported(name, "history")
    return Raised("TextChanged", f"the template drops the text of {where}", "format")


def _replace_texts(prompt: Prompt) -> Prompt:
    """Return the prompt with a placeholder for each text that is not blank: one prompt for all of the same shape."""
    numbers = count()

    def placeholder(text: str) -> str:
        number = next(numbers)
        return f"\ue000{number}\ue001" if text.strip() else ""

    system = None if prompt.system is None else placeholder(prompt.system)
    history = tuple(Exchange(placeholder(each.user), placeholder(each.assistant)) for each in prompt.history)
    return Prompt(placeholder(prompt.user), system, history)


@lru_cache(maxsize=256)
def _find_order(template: JinjaTemplate, placeholders: Prompt) -> tuple[int, ...] | None:
    """Return the indexes of the texts that the template writes, in its order; None if it raises on placeholders."""
    rendered = _render(template, placeholders).value_or(None)
    if rendered is None:
        return None
    indexes = {text: index for index, (_, text) in enumerate(placeholders.texts()) if text}
    found = (indexes[each[0]] for each in _PLACEHOLDER.finditer(rendered) if each[0] in indexes)
    return tuple(dict.fromkeys(found))


# Markup.


def _is_special(token: str) -> bool:
    """Tell whether a token is refused in texts; one like "!", the padding of some models, is prose."""
    return len(token) > 2 and (is_markup(token) or "｜" in token)


def _find_markup(template: JinjaTemplate) -> Iterator[str]:
    """Yield the markup around the texts in renderings of each shape of conversation."""
    past = (Exchange("x", "x"), Exchange("x", "x"))
    for shape in (Prompt("x"), Prompt("x", "x"), Prompt("x", None, past), Prompt("x", "x", past)):
        for literal in _PLACEHOLDER.split(_render(template, _replace_texts(shape)).value_or("")):
            yield from find_markup(literal)


# Tokenizer configs. Source of the files and fields: transformers 5.23.0, tokenization_utils_base.py (_from_pretrained,
# save_pretrained), and 4.57 for extra_special_tokens and added_tokens_decoder.

_TOKENS: Final = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def from_tokenizer_config(
    config: Mapping[str, object] | str | os.PathLike[str],
    *,
    chat_template: str = "default",
    name: str = "jinja",
    variables: Mapping[str, object] = _NO_VARIABLES,
    today: date | None = None,
) -> Result[JinjaTemplate, FormatError]:
    """Read a tokenizer config: a dict, a tokenizer_config.json, a chat_template.jinja, or the folder of a model.

    In a folder, chat_template.jinja comes before the template of the config, and special tokens are also read from
    tokenizer.json and special_tokens_map.json. `chat_template` picks one of several named templates. The named tokens are
    variables of the template; special tokens that are markup are refused in texts. A missing or unreadable file or value
    is a `Raised` that names it.

    >>> from_tokenizer_config({"chat_template": "{{ messages[0].content }}{{ eos_token }}", "eos_token": "</s>"})
    <Success: JinjaTemplate(name='jinja', source='{{ messages[0].content }}{{ eos_token }}', bos='', eos='</s>', special_tokens=('</s>',), variables=(), today=None)>
    >>> from_tokenizer_config({"eos_token": "</s>"}).failure().message
    "the tokenizer config has no 'chat_template': pass the template's source to jinja()"
    """
    try:
        read = config if isinstance(config, Mapping) else _read_files(Path(config), chat_template)
        source, tokens = _read_source(read, chat_template), _read_named_tokens(read)
        special = tuple(filter(_is_special, (*tokens.values(), *_read_special_tokens(read))))
    except Exception as error:
        return Failure(Raised.of(error, "format"))
    bos, eos, given = tokens.pop("bos_token", ""), tokens.pop("eos_token", ""), {**tokens, **variables}
    return Success(jinja(source, bos=bos, eos=eos, name=name, special_tokens=special, variables=given, today=today))


def _read_files(path: Path, chat_template: str) -> dict[str, object]:
    """Return the config of a folder, or of the file and those beside it, as one object."""
    folder = path if path.is_dir() else path.parent
    file = folder / "tokenizer_config.json" if path.is_dir() or path.suffix == ".jinja" else path
    named = "chat_template" if chat_template == "default" else f"additional_chat_templates/{chat_template}"
    source = path if path.suffix == ".jinja" else folder / f"{named}.jinja"
    if not file.is_file() and not source.is_file():
        raise FileNotFoundError(f"{file} is no file: pass a model's folder, or its tokenizer_config.json")
    config = {**_read_json(folder / "special_tokens_map.json"), **_read_json(file)}
    if (tokenizer := _read_json(folder / "tokenizer.json")).get("added_tokens"):
        config["added_tokens"] = tokenizer["added_tokens"]
    return {**config, "chat_template": source.read_text("utf-8-sig")} if source.is_file() else config


def _read_json(file: Path) -> dict[str, object]:
    """Return the object in a file; an empty one if there is no such file."""
    if not file.is_file():
        return {}
    value: object = json.loads(file.read_text("utf-8-sig"))
    if not _is_object(value):
        raise TypeError(f"{file} holds no JSON object")
    return {str(key): each for key, each in value.items()}


def _read_source(config: Mapping[str, object], chat_template: str) -> str:
    found = config.get("chat_template")
    if _is_list(found):  # several, each {"name": ..., "template": ...}
        named = {str(each.get("name")): each.get("template") for each in found if _is_object(each)}
        if chat_template not in named:
            raise ValueError(f"the tokenizer config has the templates {', '.join(named)}: pass one as chat_template=")
        found = named[chat_template]
    if found is None:
        raise ValueError("the tokenizer config has no 'chat_template': pass the template's source to jinja()")
    return _read_text(found, "chat_template")


def _read_named_tokens(config: Mapping[str, object]) -> dict[str, str]:
    """Return the tokens that a template knows by name."""
    named = {name: config.get(name) for name in _TOKENS}
    for field_name in ("extra_special_tokens", "model_specific_special_tokens"):
        found = config.get(field_name)
        named |= {str(name): token for name, token in found.items()} if _is_object(found) else {}
    return {name: _read_text(token, name) for name, token in named.items() if token is not None}


def _read_special_tokens(config: Mapping[str, object]) -> Iterator[str]:
    for name in ("additional_special_tokens", "extra_special_tokens", "model_specific_special_tokens"):
        for token in _read_values(config, name):
            yield _read_text(token, name)
    for name in ("added_tokens_decoder", "added_tokens"):
        for token in _read_values(config, name):
            if _is_object(token) and token.get("special") is True:
                yield _read_text(token, name)


def _read_values(config: Mapping[str, object], name: str) -> Iterable[object]:
    found = config.get(name)
    if found is None:
        return ()
    if _is_object(found):
        return found.values()
    if not _is_list(found):
        raise TypeError(f"{name!r} of the tokenizer config must be a list, got {type(found).__name__}")
    return found


def _read_text(value: object, name: str) -> str:
    content = value.get("content") if _is_object(value) else value
    if not isinstance(content, str):
        raise TypeError(f"{name!r} of the tokenizer config must be text, got {type(content).__name__}")
    return content


def _is_object(value: object) -> TypeGuard[Mapping[object, object]]:
    return isinstance(value, Mapping)


def _is_list(value: object) -> TypeGuard[list[object] | tuple[object, ...]]:
    return isinstance(value, list | tuple)
