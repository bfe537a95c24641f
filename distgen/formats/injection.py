"""Refusal: the first token in a prompt's texts that would forge a turn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from distgen.errors import InjectedToken
from distgen.formats.layout import Layout, is_markup
from distgen.formats.parse import normalize, read
from distgen.formats.render import text_places
from distgen.prompt import Prompt


def find_injection(layout: Layout, prompt: Prompt, parts: Sequence[str]) -> InjectedToken | None:
    """Return the first token that would forge a turn; None if the rendering reads back as the prompt.

    Markup is refused in any text, and so is an opening of plain words. Other words are refused only if they make the
    rendering read back as another prompt. `parts` are those of `render_parts`.
    """
    if not layout.is_ambiguous:
        texts = "".join(parts[1::2])
        for guard in layout.guards:
            if guard in texts:
                break
        else:
            return None
    name, markup = layout.name, layout.markup
    found = find_token(name, prompt, markup) or find_token(name, prompt, layout.openings)
    if found is not None or not layout.is_ambiguous:
        return found
    found = _find_straddling(layout, prompt, parts, markup)
    if found is not None or read(layout, "".join(parts)) == normalize(layout, prompt):
        return found
    words = tuple(token for token in layout.tokens if token and not is_markup(token))
    return (
        find_token(name, prompt, words)
        or find_token(name, prompt, layout.delimiters)
        or _find_straddling(layout, prompt, parts, words + layout.delimiters)
        or InjectedToken(name, layout.generation_prompt, "user", 0)
    )


def find_token(format: str, prompt: Prompt, tokens: Iterable[str]) -> InjectedToken | None:
    """Return the first of the tokens in the prompt's texts, in reading order; of two at one place, the first given."""
    for where, text in prompt.texts():
        held = [token for token in tokens if token in text]
        if held:
            token = min(held, key=text.find)
            return InjectedToken(format, token, where, text.find(token))
    return None


def _find_straddling(
    layout: Layout, prompt: Prompt, parts: Sequence[str], tokens: tuple[str, ...]
) -> InjectedToken | None:
    """Return a token that a text forms with the literals beside it; its offset is 0 if it begins before the text."""
    texts = zip(text_places(layout, prompt), parts[::2], parts[1::2], parts[2::2], strict=False)
    for where, before, text, after in texts:
        for token in tokens:
            ahead = before[max(0, len(before) - len(token) + 1) :]
            start = f"{ahead}{text}{after[: len(token) - 1]}".find(token)
            if start >= 0:
                return InjectedToken(layout.name, token, where, max(0, start - len(ahead)))
    return None
