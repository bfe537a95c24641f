"""Formats: a prompt rendered for a model as text or messages, and read back. Every format is in FORMATS, by its name."""

from distgen.formats.formatter import Format, TextFormat, allow_markup, formatter_of, segment_if_needed
from distgen.formats.messages import ChatMessages, openai
from distgen.formats.models.chatml import chatml
from distgen.formats.models.huggingface import zephyr
from distgen.formats.models.meta import llama2, llama3
from distgen.formats.models.plain import default
from distgen.formats.registry import FORMATS, format_as, lookup
from distgen.formats.template import ChatTemplate, Thinking
from distgen.formats.training import Span, TrainingText, label_tokens
from distgen.prompt import Formatter

__all__ = [
    "FORMATS",
    "ChatMessages",
    "ChatTemplate",
    "Format",
    "Formatter",
    "Span",
    "TextFormat",
    "Thinking",
    "TrainingText",
    "allow_markup",
    "chatml",
    "default",
    "format_as",
    "formatter_of",
    "label_tokens",
    "llama2",
    "llama3",
    "lookup",
    "openai",
    "segment_if_needed",
    "zephyr",
]
