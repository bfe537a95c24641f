"""Plain text, for base models: no model's own template."""

from __future__ import annotations

from typing import Final

from distgen.formats.template import ChatTemplate

# No model's template: for completions of plain text.
#     [system \n] {user \n answer \n} user
default: Final = ChatTemplate(
    "default",
    head="",
    before_system="",
    after_system="\n",
    before_answer="\n",
    after_answer="\n",
    tail="",
    folds="conversation",
)

PLAIN: Final = (default,)
