"""Rendering: a prompt as alternating literals and texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from distgen.errors import Unsupported
from distgen.formats.layout import Layout
from distgen.prompt import Prompt


def find_unsupported(layout: Layout, prompt: Prompt) -> Unsupported | None:
    """Return the first feature of the prompt that the template has no place for."""
    if layout.system_position == "refused" and system_text(layout, prompt) is not None:
        return Unsupported(layout.name, "system")
    if layout.system_position == "required" and system_text(layout, prompt) is None:
        return Unsupported(layout.name, "no system")
    return Unsupported(layout.name, "history") if prompt.history and not layout.takes_history else None


def system_text(layout: Layout, prompt: Prompt) -> str | None:
    """Return the stripped system text; None if the template renders it as absent."""
    if prompt.system is None:
        return None
    system = layout.strip_system(prompt.system)
    return None if system == "" and layout.empty_is_absent else system


def joined_text(layout: Layout, user: str) -> str:
    """Return the literal after the system text and the first user text, stripped as one text.

    The literal before them begins with markup, so that only the end and the inside of them can be stripped.
    """
    return layout.strip_user("|" + layout.after_system + user)[1:]


def render_parts(layout: Layout, prompt: Prompt) -> list[str]:
    """Return the rendering in parts: literals at even places, texts at odd places."""
    system = system_text(layout, prompt)
    is_first = system is not None and layout.system_position != "last"
    parts = [layout.system_opening, system or "", layout.after_system] if is_first else [layout.opening]
    for exchange in prompt.history:
        parts += (layout.strip_user(exchange.user), layout.before_assistant)
        parts += (layout.strip_assistant(exchange.assistant), layout.after_assistant)
    if system is not None and not is_first:
        parts += (system, layout.after_system)
    parts += (layout.strip_user(prompt.user), layout.generation_prompt)
    if layout.strip_joined and is_first:
        joined = joined_text(layout, prompt.history[0].user if prompt.history else prompt.user)
        parts[2:4] = joined[: len(layout.after_system)], joined[len(layout.after_system) :]
    return _drop_around_empty(parts, text_places(layout, prompt), layout.drop) if layout.junctions else parts


def text_places(layout: Layout, prompt: Prompt) -> list[str]:
    """Return the place in the prompt of each text of the rendering, in the rendering's order."""
    places = [where for where, _ in prompt.texts() if where != "system"]
    if system_text(layout, prompt) is not None:
        places.insert(len(places) - 1 if layout.system_position == "last" else 0, "system")
    return places


def _drop_around_empty(parts: Sequence[str], places: Sequence[str], drop: Mapping[str, tuple[str, str]]) -> list[str]:
    """Return the parts without what empty texts drop of the literals beside them."""
    left = list(parts)
    for index, place in zip(range(1, len(left), 2), places, strict=True):
        if left[index] == "":
            before, after = drop[place.rpartition(".")[2]]
            left[index - 1] = left[index - 1].removesuffix(before)
            left[index + 1] = left[index + 1].removeprefix(after)
    return left
