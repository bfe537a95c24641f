"""Any published chat template as a Formatter of text, for models that FORMATS does not have.

It renders as `transformers` does, or returns a Failure if the template drops or changes a text, or if a text holds markup.
It has no `parse`, so it is no Format. A template is a program of its author: jinja2's sandbox keeps it from your files and
objects, but does not stop one that never ends. Needs jinja2.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import date
from functools import lru_cache, partial
from pathlib import Path
from typing import Final, TypeAlias, final

from returns.result import Failure, Result, Success

from distgen.errors import Feature, FormatError, Raised, Unsupported
from distgen.formats.formatter import split_completion
from distgen.formats.injection import find_markup, find_token, is_markup
from distgen.formats.training import Train, TrainingText, end_of_answer, mark_parts
from distgen.prompt import Exchange, Prompt, is_array, is_object

try:
    from jinja2 import Template, TemplateError, nodes
    from jinja2.ext import Extension
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment
except ImportError as _missing:
    raise ImportError("distgen.formats.jinja needs jinja2: pip install jinja2") from _missing

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
        return _render_texts(self, texts).map(lambda found: "".join(found[1]))

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
        lines = re.findall(r"<(?:template|unknown)>:(\d+)", raised.trace)
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
    left = {str(i): each for i, each in enumerate(texts) if each[1].strip()}
    places, parts, end = list[str](), list[str](), 0
    pieces = re.split("\ue000(\\d+)\ue001", shown.unwrap())
    for literal, index in zip(pieces[::2], pieces[1::2], strict=False):
        if index not in left:  # written before
            continue
        where, text = left.pop(index)
        start = rendered.find(text.strip(), end + len(literal))
        if start < 0:
            return Failure(Raised("TextChanged", f"the template changes the text of {where}", "format"))
        places.append(where)
        parts += (rendered[end:start], text.strip())
        end = start + len(text.strip())
    refusal = _find_drop(template, [where for where, _ in left.values()])
    return Failure(refusal) if refusal is not None else Success((places, [*parts, rendered[end:]]))


def _find_drop(template: JinjaTemplate, dropped: Sequence[str]) -> Unsupported | Raised | None:
    """Return the error for texts that the template drops; None for past reasoning, which many templates drop."""
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
_NAMED: Final = ("extra_special_tokens", "model_specific_special_tokens")
_OTHERS: Final = (*_NAMED, "additional_special_tokens", "added_tokens_decoder", "added_tokens")


def from_tokenizer_config(
    config: Mapping[str, object] | str | os.PathLike[str],
    *,
    name: str = "jinja",
    variables: Mapping[str, object] = _NO_VARIABLES,
    today: date | None = None,
) -> Result[JinjaTemplate, FormatError]:
    """Read a tokenizer config: a dict, or the folder of a model, or its tokenizer_config.json or chat_template.jinja.

    In a folder, chat_template.jinja comes before the template of the config, and special tokens are also read from
    tokenizer.json and special_tokens_map.json. Of several named templates, the default one is read. The named tokens are
    variables of the template; special tokens that are markup are refused in texts. A file or value that is missing or
    unreadable is a `Raised` that names it.

    >>> from_tokenizer_config({"chat_template": "{{ messages[0].content }}{{ eos_token }}", "eos_token": "</s>"})
    <Success: JinjaTemplate(name='jinja', source='{{ messages[0].content }}{{ eos_token }}', bos='', eos='</s>', special_tokens=('</s>',), variables=(), today=None)>
    >>> from_tokenizer_config({"eos_token": "</s>"}).failure().message
    "the tokenizer config has no 'chat_template': pass the template's source to jinja()"
    """
    try:
        read = config if isinstance(config, Mapping) else _read_folder(Path(config))
        source, named, others = _read_source(read), _read_named(read), list(_read_others(read))
    except Exception as error:
        return Failure(Raised.of(error, "format"))
    special = tuple(filter(_is_special, (*named.values(), *others)))
    bos, eos, given = named.pop("bos_token", ""), named.pop("eos_token", ""), {**named, **variables}
    return Success(jinja(source, bos=bos, eos=eos, name=name, special_tokens=special, variables=given, today=today))


def _read_folder(path: Path) -> dict[str, object]:
    """Return the files of a model's folder, or of the folder of one of them, as one config."""
    folder = path.parent if path.name in ("tokenizer_config.json", "chat_template.jinja") else path
    config = {**_read_json(folder / "special_tokens_map.json"), **_read_json(folder / "tokenizer_config.json")}
    source = folder / "chat_template.jinja"
    if source.is_file():
        config["chat_template"] = source.read_text("utf-8-sig")
    if not config:
        raise FileNotFoundError(f"{folder} has no tokenizer_config.json: pass a model's folder")
    return {**config, "added_tokens": _read_json(folder / "tokenizer.json").get("added_tokens")}


def _read_json(file: Path) -> Mapping[str, object]:
    """Return the JSON object in a file, or an empty one if there is no such file."""
    value: Mapping[str, object] = json.loads(file.read_text("utf-8-sig")) if file.is_file() else {}
    return value


def _read_source(config: Mapping[str, object]) -> str:
    found = config.get("chat_template")
    if is_array(found):  # several, each {"name": ..., "template": ...}
        found = {each.get("name"): each.get("template") for each in found if is_object(each)}.get("default")
    if found is None:
        raise ValueError("the tokenizer config has no 'chat_template': pass the template's source to jinja()")
    return _read_text(found, "chat_template")


def _read_named(config: Mapping[str, object]) -> dict[str, str]:
    """Return the special tokens that are variables of a template, by name."""
    named = {name: config[name] for name in _TOKENS if config.get(name) is not None}
    for field_name in _NAMED:
        found = config.get(field_name)
        named |= found if is_object(found) else {}
    return {name: _read_text(token, name) for name, token in named.items()}


def _read_others(config: Mapping[str, object]) -> Iterator[str]:
    """Yield the special tokens of the fields that are lists or objects."""
    for field_name in _OTHERS:
        found = config.get(field_name) or list[object]()
        if not is_array(found) and not is_object(found):
            raise TypeError(f"{field_name!r} of the tokenizer config must be a list, got {type(found).__name__}")
        for token in found.values() if is_object(found) else found:
            if not is_object(token) or token.get("special") is not False:
                yield _read_text(token, field_name)


def _read_text(value: object, name: str) -> str:
    content = value.get("content") if is_object(value) else value
    if not isinstance(content, str):
        raise TypeError(f"{name!r} of the tokenizer config must be text, got {type(content).__name__}")
    return content
