"""Any published chat template as a Formatter of text, for models that FORMATS does not have.

It renders as `transformers` does, or returns a Failure if the template drops or changes a text, or if a text holds markup.
It has no `parse`, so it is no Format. A template is a program of its author: jinja2's sandbox keeps it from your files and
objects, but does not stop one that never ends. Needs jinja2.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import date
from functools import lru_cache, partial
from pathlib import Path
from traceback import walk_tb
from typing import Final, TypeAlias, TypeGuard, final

from returns.result import Failure, Result, Success

from distgen.errors import Feature, FormatError, Raised, Unsupported
from distgen.formats.formatter import split_completion
from distgen.formats.injection import find_markup, find_token, is_markup
from distgen.formats.training import Train, TrainingText, end_of_answer, mark_parts
from distgen.prompt import Exchange, Prompt

try:
    from jinja2 import Template, TemplateError, nodes
    from jinja2.ext import Extension
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment
except ImportError as _missing:
    raise ImportError("chat templates need jinja2: pip install jinja2") from _missing

_Texts: TypeAlias = tuple[tuple[str, str], ...]  # of a prompt, each with its place

_KNOWS_REASONING: Final = re.compile("reasoning|thinking|</think>")
_NO_VARIABLES: Final[Mapping[str, object]] = {}
_FEATURES: Final[Mapping[str, Feature]] = {"system": "system", "assistant": "training"}


@final
@dataclass(frozen=True, slots=True)
class JinjaTemplate:
    """A chat template as data; `jinja` and `from_tokenizer_config` make one. It is compared, hashed and pickled by value.

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
        """Render the prompt, or return why it cannot be rendered:

        - `InjectedToken`: a text holds a special token.
        - `Unsupported`: the template drops the system text or the history.
        - `Raised` of kind "TextChanged": the template drops or changes a text, which the message names.
        - `Raised` of another kind: the template does not compile, or raises; the message has the line and the reason.
        """
        texts = tuple(prompt.texts())
        injected = find_token(self.name, texts, self.special_tokens)
        if injected is not None:
            return Failure(injected)
        found = _render_texts(self, texts)
        return found if isinstance(found, Failure) else Success("".join(found.unwrap()[1]))

    def training_text(
        self,
        prompt: Prompt,
        answer: str,
        reasoning: str | None = None,
        finish_reason: str | None = "stop",
        train: Train = "last",
    ) -> Result[TrainingText, FormatError]:
        """Return the finished conversation; the text after each generation prompt, up to `eos`, is trained.

        It is `Unsupported` if the rendering with the answer does not begin with that of the prompt, leaves the reasoning out,
        or has no `eos` after the answer.
        """
        opened = self(prompt)
        if isinstance(opened, Failure):
            return opened
        thought = (("reasoning", reasoning),) if reasoning and reasoning.strip() else ()
        injected = find_token(self.name, (*thought, ("answer", answer)), self.special_tokens)
        if injected is not None:
            return Failure(injected)
        texts = (*prompt.texts(), *thought, ("assistant", answer))
        found = _render_texts(self, texts)
        if isinstance(found, Failure):
            return found
        places, parts = found.unwrap()
        is_cut, end = finish_reason == "length", end_of_answer(self.stop, parts[-1])
        continues = places[-1:] == ["assistant"] and "".join(parts).startswith(opened.unwrap())
        if not continues or not (end or is_cut):
            return Failure(Unsupported(self.name, "training"))
        # The generation prompt is the end of the prompt's rendering, after the literals and texts before the answer.
        generation = opened.unwrap().removeprefix("".join(parts[: -2 * len(thought) - 3]))
        return Success(mark_parts(places, [*parts[:-1], "" if is_cut else end], generation, self.stop, train))

    def split(self, text: str, /) -> tuple[str | None, str]:
        """Split a completion into (reasoning, answer) if the generation prompt opens `<think>`; else all of it is the answer."""
        return split_completion(_render(self, (("user", "x"),)).value_or(""), text)


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
    """Return a chat template as a Formatter. If it does not compile, each call returns a Failure; nothing is raised here.

    `variables` are those that `apply_chat_template` takes by name (enable_thinking=False, tools=[...]). The markup among
    `bos`, `eos` and the literals of the template is refused in texts, and so are `special_tokens`.

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
    """The tag `{% generation %}`, which marks the text to train on; it renders its body."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


_ENVIRONMENT: Final = ImmutableSandboxedEnvironment(
    trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
)
_ENVIRONMENT.filters["tojson"] = partial(json.dumps, ensure_ascii=False)
_compile: Final[Callable[[str], Template]] = lru_cache(_ENVIRONMENT.from_string)


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _format_date(today: date | None, format: str) -> str:
    if today is None:
        raise TemplateError("the template prints a date: pass today=")
    return today.strftime(format)


def _make_messages(texts: _Texts) -> list[dict[str, str]]:
    """Return the texts as messages, with the reasoning of an answer under the three names that templates use."""
    messages: list[dict[str, str]] = []
    thought: dict[str, str] = {}
    for where, text in texts:
        role = where.rpartition(".")[2]
        if role == "reasoning":
            thought = dict.fromkeys(("reasoning_content", "reasoning", "thinking"), text)
        else:
            messages.append({"role": role, "content": text, **thought})
            thought = {}
    return messages


def _render(template: JinjaTemplate, texts: _Texts) -> Result[str, FormatError]:
    """Render the texts: a prompt with the generation prompt, or a finished conversation."""
    variables: dict[str, object] = {
        "tools": None,
        "documents": None,
        "add_generation_prompt": not texts[-1][0].endswith("assistant"),
        "bos_token": template.bos,
        "eos_token": template.eos,
        "raise_exception": _raise_exception,
        "strftime_now": partial(_format_date, template.today),
        **dict(template.variables),
        "messages": _make_messages(texts),
    }
    try:
        return Success(_compile(template.source).render(variables))
    except Exception as error:
        raised = Raised.of(error, "format")
        reason = raised.message.partition("\n  line ")[0]  # jinja2 appends the source line to a syntax error
        # jinja2 adds the template's lines to the traceback; a template that does not compile has the file "<unknown>".
        steps = [(frame.f_code.co_filename, line) for frame, line in walk_tb(error.__traceback__)]
        lines = [line for file, line in steps if file in ("<template>", "<unknown>")]
        return Failure(replace(raised, message=f"line {lines[-1]}: {reason}" if lines else reason))


_render_once: Final[Callable[[JinjaTemplate, _Texts], Result[str, FormatError]]] = lru_cache(_render)


def _render_texts(template: JinjaTemplate, texts: _Texts) -> Result[tuple[list[str], list[str]], FormatError]:
    """Render the texts; return their places, in the rendering's order, and its literals and texts in turn.

    A text that the template drops or changes, its ends aside, is a Failure.
    """
    whole = _render(template, texts)
    if isinstance(whole, Failure):
        return whole
    rendered = whole.unwrap()
    # Placeholders of private Unicode characters, which no template treats specially; the same for all prompts of one shape.
    shape = tuple((where, f"\ue000{i}\ue001" if text.strip() else text) for i, (where, text) in enumerate(texts))
    shown = _render_once(template, shape)
    if isinstance(shown, Failure):
        return shown
    known = {f"\ue000{i}\ue001": each for i, each in enumerate(texts) if each[1].strip()}
    places, parts, end = list[str](), list[str](), 0
    pieces = re.split("(\ue000\\d+\ue001)", shown.unwrap())
    for literal, placeholder in zip(pieces[::2], pieces[1::2], strict=False):
        if placeholder not in known:  # written before
            continue
        where, text = known.pop(placeholder)
        start = rendered.find(text.strip(), end + len(literal))
        if start < 0:  # some templates write other literals beside a text that holds a command of theirs
            start = rendered.find(text.strip(), end)
        if start < 0:
            return Failure(Raised("TextChanged", f"the template changes the text of {where}", "format"))
        places.append(where)
        parts += (rendered[end:start], text.strip())
        end = start + len(text.strip())
    refusal = _find_drop(template, [where for where, _ in known.values()])
    return Failure(refusal) if refusal is not None else Success((places, [*parts, rendered[end:]]))


def _find_drop(template: JinjaTemplate, dropped: Sequence[str]) -> Unsupported | Raised | None:
    """Return the error for texts that the template drops; None if they are past reasoning that it drops on purpose."""
    for where in dropped:
        if where == "user":
            return Raised("TextChanged", "the template drops the text of user", "format")
        if not where.endswith("reasoning"):
            return Unsupported(template.name, _FEATURES.get(where, "history"))
        if where == "reasoning" or not _KNOWS_REASONING.search(template.source):
            return Unsupported(template.name, "thinking")
    return None


# Markup.


def _is_special(token: str) -> bool:
    """Return True if a token must be refused in texts; "!", the padding of some models, is prose."""
    return len(token) > 2 and (is_markup(token) or "｜" in token)


def _find_markup(template: JinjaTemplate) -> Iterator[str]:
    """Yield the markup around the texts in renderings of each shape of conversation."""
    text = "a b"  # not a part of any markup: markup has no spaces
    past = (Exchange(text, text), Exchange(text, text))
    for shape in (Prompt(text), Prompt(text, text), Prompt(text, None, past), Prompt(text, text, past)):
        yield from find_markup(_render(template, tuple(shape.texts())).value_or(""))


# Tokenizer configs. Source of the files and fields: transformers 5.23.0, tokenization_utils_base.py (_from_pretrained,
# save_pretrained), and 4.57 for extra_special_tokens and added_tokens_decoder.

_TOKENS: Final = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_OTHERS: Final = (
    *("additional_special_tokens", "extra_special_tokens", "model_specific_special_tokens"),
    *("added_tokens_decoder", "added_tokens"),
)


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
    variables of the template; special tokens that are markup are refused in texts. A file or value that is missing or
    unreadable is a `Raised` that names it.

    >>> from_tokenizer_config({"chat_template": "{{ messages[0].content }}{{ eos_token }}", "eos_token": "</s>"})
    <Success: JinjaTemplate(name='jinja', source='{{ messages[0].content }}{{ eos_token }}', bos='', eos='</s>', special_tokens=('</s>',), variables=(), today=None)>
    >>> from_tokenizer_config({"eos_token": "</s>"}).failure().message
    "the tokenizer config has no 'chat_template': pass the template's source to jinja()"
    """
    try:
        read = config if isinstance(config, Mapping) else _read_files(Path(config), chat_template)
        source, (named, others) = _read_source(read, chat_template), _read_tokens(read)
    except Exception as error:
        return Failure(Raised.of(error, "format"))
    special = tuple(filter(_is_special, (*named.values(), *others)))
    bos, eos, given = named.pop("bos_token", ""), named.pop("eos_token", ""), {**named, **variables}
    return Success(jinja(source, bos=bos, eos=eos, name=name, special_tokens=special, variables=given, today=today))


def _read_files(path: Path, chat_template: str) -> dict[str, object]:
    """Return the config of a folder, or of the file and those beside it, as one object."""
    folder = path if path.is_dir() else path.parent
    file = folder / "tokenizer_config.json" if path.is_dir() or path.suffix == ".jinja" else path
    named = "chat_template" if chat_template == "default" else f"additional_chat_templates/{chat_template}"
    source = path if path.suffix == ".jinja" else folder / f"{named}.jinja"
    if not file.is_file() and not source.is_file():
        raise FileNotFoundError(f"{file} is no file: pass a model's folder, or its tokenizer_config.json")
    added = _read_json(folder / "tokenizer.json").get("added_tokens")
    config = {**_read_json(folder / "special_tokens_map.json"), **_read_json(file), "added_tokens": added}
    return {**config, "chat_template": source.read_text("utf-8-sig")} if source.is_file() else config


def _read_json(file: Path) -> Mapping[str, object]:
    """Return the JSON object in a file, or an empty one if there is no such file."""
    value: Mapping[str, object] = json.loads(file.read_text("utf-8-sig")) if file.is_file() else {}
    return value


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


def _read_tokens(config: Mapping[str, object]) -> tuple[dict[str, str], list[str]]:
    """Return the special tokens that are variables of a template, by name, and the other special tokens."""
    named = {name: _read_text(config[name], name) for name in _TOKENS if config.get(name) is not None}
    others: list[str] = []
    for field_name in _OTHERS:
        for key, token in _read_items(config, field_name):
            if _is_object(token) and token.get("special") is False:
                continue
            others.append(_read_text(token, field_name))
            if isinstance(key, str) and key.isidentifier():
                named[key] = others[-1]
    return named, others


def _read_items(config: Mapping[str, object], name: str) -> Iterable[tuple[object, object]]:
    """Return the items of a field that is a list or an object; none if there is no such field."""
    found = config.get(name)
    if _is_list(found):
        return enumerate(found)
    if found is not None and not _is_object(found):
        raise TypeError(f"{name!r} of the tokenizer config must be a list, got {type(found).__name__}")
    return found.items() if found is not None else ()


def _read_text(value: object, name: str) -> str:
    content = value.get("content") if _is_object(value) else value
    if not isinstance(content, str):
        raise TypeError(f"{name!r} of the tokenizer config must be text, got {type(content).__name__}")
    return content


def _is_object(value: object) -> TypeGuard[Mapping[object, object]]:
    return isinstance(value, Mapping)


def _is_list(value: object) -> TypeGuard[list[object] | tuple[object, ...]]:
    return isinstance(value, list | tuple)
