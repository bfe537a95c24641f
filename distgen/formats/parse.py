"""The inverse of rendering: the canonical prompt of a prompt, and the only prompt that can have rendered to a text."""

from __future__ import annotations

from dataclasses import replace

from distgen.formats.layout import Layout
from distgen.formats.render import joined_text, system_text
from distgen.prompt import Exchange, Prompt


def normalize(layout: Layout, prompt: Prompt) -> Prompt:
    """Return the prompt with its texts stripped, a default system text left out, and a folded one folded."""
    strip_user, strip_assistant = layout.strip_user, layout.strip_assistant
    system = system_text(layout, prompt)
    users = [*(strip_user(each.user) for each in prompt.history), strip_user(prompt.user)]
    if system is not None and layout.strip_joined:
        first = prompt.history[0].user if prompt.history else prompt.user
        users[0] = joined_text(layout, first)[len(layout.after_system) :]
    if system is not None and layout.folds_system:
        place = -1 if layout.system_position == "last" else 0
        system, users[place] = _unfold(layout, system + layout.after_system + users[place])
    if system == layout.default_system:
        system = None
    answers = (strip_assistant(each.assistant) for each in prompt.history)
    return Prompt(users[-1], system, tuple(map(Exchange, users, answers)))


def read(layout: Layout, rendered: str) -> Prompt | str:
    """Return the only prompt that can have rendered to this text, if any has; else the reason why none has.

    It takes linear time.
    """
    for place, dropped in layout.restorations:
        rendered = place.sub(dropped, rendered)
    opened = _read_system(layout, rendered)
    if isinstance(opened, str):
        return opened
    system, body = opened
    if not body.endswith(layout.generation_prompt):
        return f"it does not end with {layout.generation_prompt!r}"
    history: list[Exchange] = []
    *past, user = _split(body.removesuffix(layout.generation_prompt), layout.after_assistant)
    for turn in past:
        asked, *answers = _split(turn, layout.before_assistant, 1)
        if not answers:
            return f"its exchange {len(history)} has no {layout.before_assistant!r}"
        history.append(Exchange(asked, answers[0]))
    found = Prompt(user, system, tuple(history))
    return _unfold_prompt(layout, found) if layout.folds_system else found


def _read_system(layout: Layout, rendered: str) -> tuple[str | None, str] | str:
    """Return the system text and the rest of a rendering, or the reason why there is neither opening."""
    opening, system_opening = layout.opening, layout.system_opening
    has_opening = rendered.startswith(opening) and layout.system_position != "required"
    is_block = layout.system_position in ("first", "required") and not layout.folds_system
    # Of two openings that both fit, the longer one is meant: it is the other one with a default text or a tag.
    if is_block and rendered.startswith(system_opening) and not (has_opening and len(opening) >= len(system_opening)):
        # A joined strip may have cut the end of `after_system`, so its cut form is looked for.
        end = joined_text(layout, "") if layout.strip_joined else layout.after_system
        system, *rest = _split(rendered[len(system_opening) :], end, 1)
        return (
            (system, rest[0].removeprefix(layout.after_system[len(end) :]))
            if rest
            else f"no {end!r} follows its system text"
        )
    return (None, rendered[len(opening) :]) if has_opening else f"it does not begin with {opening!r}"


def _split(text: str, delimiter: str, times: int = -1) -> list[str]:
    """Split at a delimiter; an empty one is found nowhere."""
    return text.split(delimiter, times) if delimiter else [text]


def _unfold_prompt(layout: Layout, prompt: Prompt) -> Prompt:
    if layout.system_position == "last" or not prompt.history:
        system, user = _unfold(layout, prompt.user)
        return replace(prompt, system=system, user=user)
    system, user = _unfold(layout, prompt.history[0].user)
    return replace(prompt, system=system, history=(replace(prompt.history[0], user=user), *prompt.history[1:]))


def _unfold(layout: Layout, text: str) -> tuple[str | None, str]:
    """Return the system and the user text that stand for a user turn that holds both.

    All of it is user text, unless stripping would change it: then the first cut that stripping leaves as it is counts.
    """
    strip, end = layout.strip_user, layout.after_system
    if strip(text) == text:
        return None, text
    if strip(text[-1:]) == "":  # no user text ends with this character, so the user text is empty
        return (text.removesuffix(end), "") if text.endswith(end) else (None, text)
    cut = text.find(end)
    while cut >= 0 and strip(text[cut + len(end) : cut + len(end) + 1]) == "":
        cut = text.find(end, cut + 1)
    return (text[:cut], text[cut + len(end) :]) if cut >= 0 else (None, text)
