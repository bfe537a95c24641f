"""Any other model: its published Jinja chat template as a Formatter of text.

What `transformers` renders for a conversation is rendered here, byte for byte, or refused with a typed Failure; the
template is somebody else's program, so it runs on a budget (`distgen.formats.jinja.sandbox`). It is no Format: nothing reads a
rendering back. Markup in a text is refused; plain words that some templates delimit turns with ("USER: ") are not, as
they are prose. Nothing is downloaded. Needs the extra `jinja`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import date
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Final, final

from returns.result import Failure, Result, Success

from distgen.errors import FormatError, InjectedToken, Raised, Unsupported
from distgen.prompt import Exchange, Prompt

try:
    from jinja2.exceptions import TemplateSyntaxError
except ImportError as _missing:
    raise ImportError("Jinja templates need jinja2 3.1.6 or newer: pip install 'distgen[jinja]'") from _missing

from distgen.formats.jinja.costs import STEPS, STEPS_A_CHARACTER, STEPS_A_MESSAGE, is_dict, is_items
from distgen.formats.jinja.sandbox import line_of, render

LONGEST_FILE: Final = 16 * 2**20
"""Of a tokenizer_config.json or a chat_template.jinja that is read, in bytes."""
LONGEST_TOKENS: Final = 200_000
"""Of all the special tokens of a tokenizer config together, in characters; some models reserve a thousand of them."""

# Markup as tokenizers have it: <|im_end|>, </s>, <<SYS>>, <｜User｜>, [INST]. An address or a comparison is none.
_MARKUP: Final = re.compile(r"<{1,2}[^\s<>]{1,80}>{1,2}|\[/?[A-Z][A-Z0-9_]+\]|\[\|[^\s\[\]|]{1,80}\|\]")
_MARKS: Final = frozenset("<>[]|｜")
# Private characters of Unicode, which a template has no reason to treat in a way of its own.
_PLACE: Final = re.compile("\ue000\\d+\ue001")
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
    """The template's `bos_token`; "" for a server that adds the token itself."""
    eos: str = ""
    """The template's `eos_token`."""
    control_tokens: tuple[str, ...] = ()
    """What is refused in a text: all of it, longest first; markup that the template was seen to write is among it."""
    variables: tuple[tuple[str, object], ...] = field(default=(), hash=False)
    """What else the template is given, by name: plain data, as JSON has it."""
    today: date | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        """The text that ends an answer, for the backend, if it is known."""
        return (self.eos,) if self.eos else ()

    def __call__(self, prompt: Prompt, /) -> Result[str, FormatError]:
        """What the template renders; total and pure.

        - `InjectedToken`: a text holds markup; the first one in it, in reading order.
        - `Unsupported`: the template leaves out the system text, or the history.
        - `Raised`, its kind TextChanged: the template leaves out or changes a text, which the message names.
        - `Raised`, its kind the name of an exception: the template does not compile, or raises (`raise_exception` of a
          conversation that the model does not take is jinja2.exceptions.TemplateError), or does more than it may
          (jinja2.exceptions.SecurityError); the message says the line and the reason.
        """
        refusal = _forgery(self, prompt)
        if refusal is not None:
            return Failure(refusal)
        rendered = _rendered(self, prompt)
        return _complete(self, prompt, rendered.unwrap()) if isinstance(rendered, Success) else rendered


def jinja(
    source: str,
    *,
    bos: str = "",
    eos: str = "",
    name: str = "jinja",
    control_tokens: tuple[str, ...] = (),
    variables: Mapping[str, object] = _NO_VARIABLES,
    today: date | None = None,
) -> JinjaTemplate:
    """A chat template as a Formatter; one that does not work is a Failure of each call, and no exception here.

    `variables` are what `apply_chat_template` takes by name (enable_thinking=False, tools=[...]); `today` is what the
    template's `strftime_now` writes. `bos`, `eos` where they are markup, and markup that the template writes around the
    texts are refused in texts beside `control_tokens`.

    >>> jinja("{{ raise_exception('no') }}")(Prompt("Hi"))
    <Failure: Raised(kind='jinja2.exceptions.TemplateError', message='line 1: no', stage='format', completions=())>
    """
    given = tuple(sorted(deepcopy(dict(variables)).items()))
    template = JinjaTemplate(name, source, bos, eos, (), given, today)
    tokens = {*control_tokens, *filter(_is_markup, (bos, eos)), *_written(template)} - {""}
    return replace(template, control_tokens=tuple(sorted(tokens, key=lambda token: (-len(token), token))))


def from_tokenizer_config(
    config: Mapping[str, object] | str | os.PathLike[str],
    *,
    name: str = "jinja",
    variables: Mapping[str, object] = _NO_VARIABLES,
    today: date | None = None,
) -> Result[JinjaTemplate, FormatError]:
    """Reads what stands in a tokenizer_config.json, the file, or the folder of a model, where it is beside others.

    Of several templates the one named "default" is taken; a chat_template.jinja beside the file comes before them. The
    tokens of the config are given to the template, and the special ones that are markup are refused in texts. A file that
    is missing, too long or no JSON, no template, a value of a wrong type: a `Raised` that says so, its kind the exception's.

    >>> from_tokenizer_config({"chat_template": "{{ messages[0].content }}{{ eos_token }}", "eos_token": "</s>"})
    <Success: JinjaTemplate(name='jinja', source='{{ messages[0].content }}{{ eos_token }}', bos='', eos='</s>', control_tokens=('</s>',), variables=(), today=None)>
    >>> from_tokenizer_config({"eos_token": "</s>"}).failure().message
    "the tokenizer config has no 'chat_template': give the template's source to jinja()"
    """
    try:
        read = config if isinstance(config, Mapping) else _read(Path(config))
        source, tokens = _source(read), _tokens(read)
        special = (*filter(_is_markup, (*tokens.values(), *_special(read))),)
        if sum(map(len, special)) > LONGEST_TOKENS:
            raise ValueError(f"the special tokens of the tokenizer config have more than {LONGEST_TOKENS} characters")
    except Exception as error:
        return Failure(Raised.of(error, "format"))
    bos, eos, given = tokens.pop("bos_token", ""), tokens.pop("eos_token", ""), {**tokens, **variables}
    return Success(jinja(source, bos=bos, eos=eos, name=name, control_tokens=special, variables=given, today=today))


# A call.


def _forgery(template: JinjaTemplate, prompt: Prompt) -> InjectedToken | None:
    tokens = _any_of(template.control_tokens)
    for where, text in prompt.texts():
        found = tokens.search(text)
        if found:
            return InjectedToken(template.name, found[0], where, found.start())
    return None


@lru_cache(maxsize=256)
def _any_of(tokens: tuple[str, ...]) -> re.Pattern[str]:
    """What finds the first of the tokens, of two at one place the longer; of none, what finds nothing."""
    return re.compile("|".join(map(re.escape, tokens)) or "(?!)")


def _rendered(template: JinjaTemplate, prompt: Prompt, steps: int = STEPS) -> Result[str, FormatError]:
    # The variables' names, and that they are given so. Source: transformers, tokenization_utils_base.py, 5.23.0.
    messages = [{"role": where.rpartition(".")[2], "content": text} for where, text in prompt.texts()]
    variables: dict[str, object] = {"tools": None, "documents": None, "add_generation_prompt": True}
    variables |= {
        "bos_token": template.bos,
        "eos_token": template.eos,
        **dict(template.variables),
        "messages": messages,
    }
    characters = sum(len(message["content"]) for message in messages)
    allowance = steps + STEPS_A_CHARACTER * characters + STEPS_A_MESSAGE * len(messages)
    try:
        return Success(render(template.source, variables, template.today, allowance))
    except Exception as error:
        fault, line = Raised.of(error, "format"), line_of(template.source, error)
        reason = fault.message.partition("\n  line ")[0] if isinstance(error, TemplateSyntaxError) else fault.message
        return Failure(replace(fault, message=reason if line is None else f"line {line}: {reason}"))


def _complete(template: JinjaTemplate, prompt: Prompt, rendered: str) -> Result[str, FormatError]:
    """The rendering, if each text stands in it whole, its ends aside, in a place of its own."""
    texts, order = list(prompt.texts()), _order(template, _marked(prompt))
    written = range(len(texts)) if order is None else order
    for index in sorted({*range(len(texts))}.difference(written)):
        where, text = texts[index]
        if text.strip():
            return Failure(_left_out(template.name, where))
    end = 0
    # Not byte for byte as the marked rendering: some templates rightly write more for a text that holds a switch of theirs.
    for index in written:
        where, text = texts[index]
        start = rendered.find(text.strip(), end)
        if start < 0:
            return Failure(Raised("TextChanged", f"the template changes the text of {where}", "format"))
        end = 0 if order is None else start + len(text.strip())
    return Success(rendered)


def _left_out(name: str, where: str) -> FormatError:
    if where == "system":
        return Unsupported(name, "system")
    if where.startswith("history"):
        return Unsupported(name, "history")
    return Raised("TextChanged", f"the template leaves out the text of {where}", "format")


def _marked(prompt: Prompt) -> Prompt:
    """The prompt with a mark of its own for each text that says something: all prompts of one shape have one such."""
    numbers = count()

    def mark(text: str) -> str:
        number = next(numbers)
        return f"\ue000{number}\ue001" if text.strip() else ""

    system = None if prompt.system is None else mark(prompt.system)
    history = tuple(Exchange(mark(each.user), mark(each.assistant)) for each in prompt.history)
    return Prompt(mark(prompt.user), system, history)


@lru_cache(maxsize=256)
def _order(template: JinjaTemplate, marked: Prompt) -> tuple[int, ...] | None:
    """Which texts the template writes, in the order in which it does; None where it raises on marks."""
    rendered = _rendered(template, marked).value_or(None)
    if rendered is None:
        return None
    indexes = {mark: index for index, (_, mark) in enumerate(marked.texts()) if mark}
    found = (indexes[each[0]] for each in _PLACE.finditer(rendered) if each[0] in indexes)
    return tuple(dict.fromkeys(found))


# Markup.


def _is_markup(token: str) -> bool:
    """Whether a token is refused in texts: one such as "!", the padding of some models, is prose."""
    return len(token) > 2 and not _MARKS.isdisjoint(token)


def _written(template: JinjaTemplate) -> Iterator[str]:
    """The markup that the template writes around texts, seen by rendering conversations of each shape."""
    said = (Exchange("x", "x"), Exchange("x", "x"))
    for shape in (Prompt("x"), Prompt("x", "x"), Prompt("x", None, said), Prompt("x", "x", said)):
        for literal in _PLACE.split(_rendered(template, _marked(shape), STEPS // 20).value_or("")):
            yield from _MARKUP.findall(literal)


# A tokenizer's configuration. Source of its fields: transformers, tokenization_utils_base.py, 5.23.0.

_TOKENS: Final = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def _read(path: Path) -> Mapping[str, object]:
    """The config of a file, or of a folder's, with the template beside it in the place of its own."""
    file = path / "tokenizer_config.json" if path.is_dir() else path
    config: object = json.loads(_content(file))
    if not is_dict(config):
        raise TypeError(f"{file} holds no JSON object: give a model's tokenizer_config.json")
    beside = file.with_name("chat_template.jinja")
    given = {str(name): value for name, value in config.items()}
    return {**given, "chat_template": _content(beside)} if beside.is_file() else given


def _content(file: Path) -> str:
    if not file.is_file():
        raise FileNotFoundError(f"{file} is no file: give a model's folder, or its tokenizer_config.json")
    with file.open("rb") as opened:
        content = opened.read(LONGEST_FILE + 1)
    if len(content) > LONGEST_FILE:
        raise ValueError(f"{file} has more than {LONGEST_FILE} bytes: give a model's tokenizer_config.json")
    return content.decode("utf-8")


def _source(config: Mapping[str, object]) -> str:
    found = config.get("chat_template")
    if is_items(found):
        found = next((each["template"] for each in found if is_dict(each) and each.get("name") == "default"), None)
    if found is None:
        raise ValueError("the tokenizer config has no 'chat_template': give the template's source to jinja()")
    return _text(found, "chat_template")


def _tokens(config: Mapping[str, object]) -> dict[str, str]:
    """The tokens by the names that a template knows them by."""
    return {name: _text(config[name], name) for name in _TOKENS if config.get(name) is not None}


def _special(config: Mapping[str, object]) -> Iterator[str]:
    for name in ("additional_special_tokens", "extra_special_tokens"):
        for each in _values(config, name):
            yield _text(each, name)
    for each in _values(config, "added_tokens_decoder"):
        if is_dict(each) and each.get("special") is True:
            yield _text(each, "added_tokens_decoder")


def _values(config: Mapping[str, object], name: str) -> Iterable[object]:
    found = config.get(name)
    if found is None:
        return ()
    if is_dict(found):
        return found.values()
    if not is_items(found):
        raise TypeError(f"{name!r} of the tokenizer config is {type(found).__name__}, where a list is due")
    return found


def _text(value: object, name: str) -> str:
    content = value.get("content") if is_dict(value) else value
    if not isinstance(content, str):
        raise TypeError(f"{name!r} of the tokenizer config is {type(content).__name__}, where a text is due")
    return content
