"""IBM's Granite models."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Final

from distgen.formats.models._months import MONTHS
from distgen.formats.template import ChatTemplate

# granite-3.0-instruct.
#     <|start_of_role|>system<|end_of_role|>{system}<|end_of_text|>\n<|start_of_role|>user<|end_of_role|>{user}
#     <|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>{answer}<|end_of_text|>\n<|start_of_role|>user
#     <|end_of_role|>{user}<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>
# Source: ggml-org llama.cpp, tests/test-chat-template.cpp (verbatim tokenizer_config chat_template of
# ibm-granite/granite-3.0-8b-instruct; its expected output also agrees).
granite3: Final = ChatTemplate(
    "granite3",
    models=("granite-3.0-*-instruct",),
    user_prefix="<|start_of_role|>user<|end_of_role|>",
    before_system="<|start_of_role|>system<|end_of_role|>",
    after_system="<|end_of_text|>\n<|start_of_role|>user<|end_of_role|>",
    before_assistant="<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>",
    after_assistant="<|end_of_text|>\n<|start_of_role|>user<|end_of_role|>",
    generation_prompt="<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>",
    stop=("<|end_of_text|>",),
    special_tokens=("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>"),
)


# granite-3.1, granite-3.2: the default system text, which has the date, has it on a line of its own.
# In the registry on April 16, 2025.
# Source: huggingface.js, packages/ollama-utils/src/chat-template-automap.ts (the GGUF chat template of granite3.1-moe:1b).
def _granite3_1(today: str) -> ChatTemplate:
    given = f"Knowledge Cutoff Date: April 2024.\nToday's Date: {today}.\n"
    return replace(
        granite3,
        name="granite3.1",
        models=("granite-3.1-*-instruct", "granite-3.2-*-instruct"),
        user_prefix=f"{granite3.before_system}{given}You are Granite, developed by IBM. You are a helpful AI assistant."
        f"{granite3.after_system}",
    )


granite3_1: Final = _granite3_1("April 16, 2025")


def granite3_1_with(*, today: date) -> ChatTemplate:
    """Granite 3.1's and 3.2's format with the date that its default system text has; the registry's is April 16, 2025.

    >>> from datetime import date
    >>> "Today's Date: January 05, 2026." in granite3_1_with(today=date(2026, 1, 5)).user_prefix
    True
    """
    return _granite3_1(f"{MONTHS[today.month - 1]} {today.day:02}, {today.year}")


# granite-3.3: the same on one line. In the registry on April 16, 2025.
# Source: ggml-org llama.cpp, models/templates/ibm-granite-granite-3.3-2B-Instruct.jinja (verbatim Hub template).
granite3_3: Final = replace(
    granite3_1,
    name="granite3.3",
    models=("granite-3.3-*-instruct",),
    user_prefix=granite3_1.user_prefix.replace(".\n", ". "),
)


def granite3_3_with(*, today: date) -> ChatTemplate:
    """Granite 3.3's format with the date that its default system text has; the registry's is April 16, 2025.

    >>> from datetime import date
    >>> "Today's Date: January 05, 2026." in granite3_3_with(today=date(2026, 1, 5)).user_prefix
    True
    """
    return replace(granite3_3, user_prefix=granite3_1_with(today=today).user_prefix.replace(".\n", ". "))


# granite-4.0 (default system when none).
# Source: ggml-org llama.cpp, models/templates/ibm-granite-granite-4.0.jinja (verbatim Hub template).
granite4: Final = replace(
    granite3,
    name="granite4",
    models=(
        "granite-4.0",
        "granite-4.0-micro",
        "granite-4.0-h-micro",
        "granite-4.0-h-tiny",
        "granite-4.0-h-small",
        "granite-4.0-350m",
        "granite-4.0-1b",
        "granite-4.0-h-350m",
        "granite-4.0-h-1b",
    ),
    user_prefix="<|start_of_role|>system<|end_of_role|>You are a helpful assistant. Please ensure responses are professional, accurate, and safe.<|end_of_text|>\n<|start_of_role|>user<|end_of_role|>",
    drops_empty_system=True,
)

# granite-4.1.
# Source: ggml-org llama.cpp, models/templates/ibm-granite-granite-4.1.jinja (verbatim Hub template); huggingface.js,
# packages/ollama-utils/src/chat-template-automap.ts (the GGUF chat template of granite4:latest) renders the same.
granite4_1: Final = replace(
    granite3,
    name="granite4.1",
    models=(
        *("granite-4.1-*", "granite-4.1-*-instruct"),
        *(
            "granite4",
            "granite-4.0",
            "granite-4.0-micro",
            "granite-4.0-h-micro",
            "granite-4.0-h-tiny",
            "granite-4.0-h-small",
        ),
    ),
    drops_empty_system=True,
)


FORMATS: Final = (granite3, granite3_1, granite3_3, granite4, granite4_1)
