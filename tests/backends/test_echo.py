from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from distgen.backends.echo import echo
from distgen.backends.generate import Batch, Generate
from distgen.completion import Completion
from distgen.prompt import Messages

# Echo is a Generate of both kinds: these two lines are assertions of the type checkers.
ECHO_TEXT: Generate[str, Batch] = echo
ECHO_MESSAGES: Generate[Messages, Batch] = echo


@given(st.lists(st.text()), st.integers(0, 3))
@settings(deadline=None)
def test_a_text_is_answered_with_itself(prompts: list[str], n: int) -> None:
    assert ECHO_TEXT(prompts, n) == [[Completion(prompt, "stop")] * n for prompt in prompts]


@given(st.text(), st.text(), st.integers(0, 3))
@settings(deadline=None)
def test_messages_are_answered_with_the_last_content(system: str, user: str, n: int) -> None:
    messages: Messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    assert ECHO_MESSAGES([messages], n) == [[Completion(user, "stop")] * n]


def test_no_prompts_and_no_messages() -> None:
    assert ECHO_TEXT([], 2) == []
    assert ECHO_MESSAGES([[]], 1) == [[Completion("", "stop")]]
