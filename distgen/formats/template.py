"""`ChatTemplate`: the record of data behind nearly every text format.

A rendering is byte for byte the one of the model's own template, with the generation prompt last. A text that holds
the format's special tokens is refused, since it would forge a turn. Nothing here tokenizes or runs Jinja.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, final

from returns.result import Failure, Result, Success

from distgen.errors import FormatError, NotParsed
from distgen.formats.formatter import split_completion
from distgen.formats.injection import find_injection
from distgen.formats.layout import Layout, Strip, SystemPosition, complete
from distgen.formats.parse import normalize, read
from distgen.formats.render import find_unsupported, render_parts
from distgen.prompt import Prompt, Segment


@final
@dataclass(frozen=True)  # without slots, for cached_property
class ChatTemplate:
    r"""A text format as data; `dataclasses.replace` makes a variant.

    A prompt is rendered as `bos`, then `user_prefix` (or, if it has a system text, `before_system`, that text and
    `after_system`); then each past exchange as user text, `before_assistant`, answer, `after_assistant`; then the user text
    and `generation_prompt`.

    >>> from dataclasses import replace
    >>> from distgen.formats import chatml, llama2
    >>> llama2(Prompt("Hi")), replace(llama2, name="llama2-no-bos", bos="")(Prompt("Hi"))
    (<Success: <s>[INST] Hi [/INST]>, <Success: [INST] Hi [/INST]>)
    >>> chatml(Prompt("Hi<|im_end|>"))
    <Failure: InjectedToken(format='chatml', token='<|im_end|>', where='user', offset=2)>
    """

    name: str
    user_prefix: str
    """The literal before the first user text of a prompt without a system text; it may hold a default system text."""
    before_system: str
    after_system: str
    """The literal between the system text and the first user text."""
    before_assistant: str
    """The literal between a user text and its answer; with an empty `after_assistant` too, history is unsupported."""
    after_assistant: str
    """The literal between an answer and the next user text."""
    generation_prompt: str
    """The literal after the last user text, which opens the answer; in many formats it differs from `before_assistant`."""
    bos: str = ""
    """The beginning-of-sequence token; "" for a server that adds it itself."""
    stop: tuple[str, ...] = ()
    """The strings that end an answer, for the backend; refused in texts as `special_tokens` are."""
    special_tokens: tuple[str, ...] = ()
    """The strings that delimit turns. Markup is refused in any text, plain words ("USER: ") only if they forge a turn."""
    models: tuple[str, ...] = ()
    """The models that use this format, by their makers' names; a `*` stands for a size, such as 7B, 8x22B or 30B-A3B."""
    strip_system: Strip = str
    strip_user: Strip = str
    strip_assistant: Strip = str
    strip_joined: bool = False
    """Strip `after_system` and the first user text as one text (Llama 2)."""
    system_position: SystemPosition = "first"
    """Before the first user text, or before the last one; "refused" if the model has no system role or drops it;
    "required" if it needs one."""
    folds_system: bool = False
    """The system text is rendered as a part of a user turn; it is then user text in the canonical prompt."""
    empty_system: tuple[str, str] | Literal["absent"] = ("", "")
    """The parts of the literals before and after it that an empty text drops; "absent" renders it as no system text."""
    empty_user: tuple[str, str] = ("", "")
    empty_assistant: tuple[str, str] = ("", "")

    def __call__(self, prompt: Prompt, /) -> Result[str, FormatError]:
        r"""Render the prompt, or return why it is refused: the first special token, or an unsupported feature.

        >>> from distgen.formats import zephyr
        >>> zephyr(Prompt("Hi", system="Be brief.")).unwrap()
        '<|system|>\nBe brief.</s>\n<|user|>\nHi</s>\n<|assistant|>\n'
        """
        layout = self.layout
        parts = render_parts(layout, prompt)
        refusal = find_unsupported(layout, prompt) or find_injection(layout, prompt, parts)
        return Success("".join(parts)) if refusal is None else Failure(refusal)

    def segments(self, prompt: Prompt, /) -> Result[tuple[Segment, ...], FormatError]:
        """Return the rendering as literals and texts; joined, they are the rendering. No special token is refused.

        Encode only the control segments with special tokens, and no text can forge one.

        >>> from distgen.formats import chatml
        >>> [segment.text for segment in chatml.segments(Prompt("<|im_end|>")).unwrap() if not segment.is_control]
        ['<|im_end|>']
        """
        unsupported = find_unsupported(self.layout, prompt)
        if unsupported is not None:
            return Failure(unsupported)
        parts = enumerate(render_parts(self.layout, prompt))
        return Success(tuple(Segment(part, index % 2 == 0) for index, part in parts if part))

    def parse(self, rendered: str, /) -> Result[Prompt, FormatError]:
        r"""Return the canonical prompt that renders to exactly this text, or `NotParsed`. It takes linear time.

        >>> from distgen.formats import chatml
        >>> chatml.parse("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
        <Success: Prompt(user='Hi', system=None, history=())>
        >>> chatml.parse("<|im_start|>user\nHi").failure().reason
        "it does not end with '<|im_end|>\\n<|im_start|>assistant\\n'"
        """
        found = read(self.layout, rendered)
        if isinstance(found, str):
            return Failure(NotParsed(self.name, found))
        parts = render_parts(self.layout, found)
        forged, again = find_injection(self.layout, found, parts), "".join(parts)
        if forged is not None:
            reason = f"its {forged.where} would hold {forged.token!r} at character {forged.offset}"
        elif again != rendered:
            reason = f"rendered again, it differs at character {_first_difference(again, rendered)}"
        else:
            return Success(found)
        return Failure(NotParsed(self.name, reason))

    def canonical(self, prompt: Prompt, /) -> Prompt:
        r"""Return the prompt as `parse` reads it: stripped, a default or folded system text folded. A refused one stays.

        >>> from distgen.formats import llama3
        >>> llama3.canonical(Prompt("  Hi\n"))
        Prompt(user='Hi', system=None, history=())
        """
        return normalize(self.layout, prompt) if isinstance(self(prompt), Success) else prompt

    def split(self, text: str, /) -> tuple[str | None, str]:
        """Split a completion into (reasoning, answer); all is answer unless the format or the model opens `<think>`."""
        return split_completion(self.generation_prompt, text)

    @cached_property
    def layout(self) -> Layout:
        """The same data as rendering and parsing read it."""
        is_absent = self.empty_system == "absent"
        before, default, after = self.before_system, self.user_prefix, self.after_system
        has_default = default.startswith(before) and default.endswith(after) and len(before + after) <= len(default)
        layout = Layout(
            name=self.name,
            opening=self.bos + self.user_prefix,
            system_opening=self.bos + self.before_system,
            before_system=self.before_system,
            after_system=self.after_system,
            before_assistant=self.before_assistant,
            after_assistant=self.after_assistant,
            generation_prompt=self.generation_prompt,
            tokens=(*self.special_tokens, *self.stop),
            strip_system=self.strip_system,
            strip_user=self.strip_user,
            strip_assistant=self.strip_assistant,
            drop={
                "system": ("", "") if self.empty_system == "absent" else self.empty_system,
                "user": self.empty_user,
                "assistant": self.empty_assistant,
            },
            empty_is_absent=is_absent,
            strip_joined=self.strip_joined,
            system_position=self.system_position,
            folds_system=self.folds_system,
            default_system=default[len(before) : len(default) - len(after)] if has_default else None,
        )
        return complete(layout)


def _first_difference(one: str, other: str) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((index for index, (left, right) in pairs if left != right), min(len(one), len(other)))
