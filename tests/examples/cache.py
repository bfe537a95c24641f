"""Keep the answers of a synchronous backend in an SQLite file, so that a second run asks only for what is new.

A row is found by its prompt, its number of generations, the settings, and how many times this run has asked for it, so
that equal inputs keep samples of their own. Rows that failed or have a generation without text are asked again. Kept
are text, finish_reason, usage and reasoning.

Run it with: python tests/examples/cache.py BASE_URL MODEL FILE
"""

from __future__ import annotations

import json
import sqlite3
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from hashlib import sha256
from threading import Lock
from typing import TypeVar

from returns.result import Result, Success

from distgen import LLM, Batch, Completion, Generate, Prompt, Task, Threads
from distgen.backends.generate import Row
from distgen.backends.server import blocking, chat
from distgen.completion import Usage
from distgen.formats import openai

P = TypeVar("P")


def cached(backend: Generate[P, Batch], db: sqlite3.Connection, settings: str) -> Generate[P, Batch]:
    """Return a backend that looks into `db` first. `settings` names all else that an answer depends on."""
    lock, occurrences = Lock(), Counter[bytes]()
    db.execute("CREATE TABLE IF NOT EXISTS saved (key, occurrence, row, PRIMARY KEY (key, occurrence))")

    def ask(prompts: Sequence[P], num_generations: int) -> Batch:
        asked: list[tuple[bytes, int]] = []
        found: list[Sequence[Completion] | None] = []
        with lock:
            for prompt in prompts:
                key = sha256(json.dumps([settings, num_generations, prompt]).encode()).digest()
                occurrences[key] += 1
                asked.append((key, occurrences[key]))
                saved = db.execute("SELECT row FROM saved WHERE key = ? AND occurrence = ?", asked[-1]).fetchone()
                found.append(from_json(saved[0]) if saved else None)
        missing = [index for index, row in enumerate(found) if row is None]
        answers = backend([prompts[index] for index in missing], num_generations) if missing else ()
        rows = dict(zip(missing, answers, strict=True))
        new = [(*asked[index], text) for index, row in rows.items() if (text := to_json(row, num_generations))]
        with lock, db:
            db.executemany("INSERT OR REPLACE INTO saved VALUES (?, ?, ?)", new)
        return [rows[index] if row is None else row for index, row in enumerate(found)]

    return ask


def to_json(row: Row, num_generations: int) -> str | None:
    """Return the completions of a row as JSON, or None for a row that must be asked again."""
    completions = row.value_or(()) if isinstance(row, Result) else row
    whole = [completion for completion in completions if completion.text and not completion.error]
    fields = [(kept.text, kept.finish_reason, kept.usage and asdict(kept.usage), kept.reasoning) for kept in whole]
    return json.dumps(fields) if len(fields) == num_generations else None


def from_json(text: str) -> list[Completion]:
    """Return the completions that `to_json` wrote."""
    fields: list[tuple[str, str | None, dict[str, int | None] | None, str | None]] = json.loads(text)
    return [
        Completion(text, finish_reason, Usage(**usage) if usage else None, reasoning)
        for text, finish_reason, usage, reasoning in fields
    ]


def main(base_url: str, model: str, path: str, questions: Sequence[str]) -> list[list[str]]:
    """Return two answers to each question."""
    params = {"temperature": 1.0}
    with closing(sqlite3.connect(path, check_same_thread=False)) as db:
        backend = cached(blocking(chat(base_url, model=model, params=params)), db, json.dumps([model, params]))
        rows = LLM(Task(Prompt, Success), openai, backend, Threads(32)).generate(questions, num_generations=2)
    return [[generation.completion.text for generation in row.value_or(())] for row in rows]


if __name__ == "__main__":
    for texts in main(sys.argv[1], sys.argv[2], sys.argv[3], ["Name a river.", "Name a river."]):
        print(texts)
