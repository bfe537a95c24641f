"""Keep the answers of a synchronous backend in an SQLite file, so that a second run asks only for what is new.

A row is found by its prompt, its number of generations, the settings, and how many times this run has asked for it, so
that equal inputs keep samples of their own. Rows that failed or have a generation without text are asked again. Kept
are text, finish_reason, usage and reasoning.

    python tests/examples/cache.py http://127.0.0.1:8000/v1 my-model answers.sqlite
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

from distgen import LLM, Batch, Completion, Generate, Prompt, Task, Threads, single
from distgen.backends.generate import Row
from distgen.backends.server import blocking, chat
from distgen.completion import Usage
from distgen.formats import openai

P = TypeVar("P")


def cached(backend: Generate[P, Batch], db: sqlite3.Connection, settings: str) -> Generate[P, Batch]:
    """Return a backend that looks into `db` first. `settings` names all else that an answer depends on."""
    lock, asked = Lock(), Counter[bytes]()
    db.execute(
        "CREATE TABLE IF NOT EXISTS saved (key BLOB, occurrence INTEGER, row TEXT, PRIMARY KEY (key, occurrence))"
    )

    def claim(prompt: P, num_generations: int) -> tuple[bytes, int]:
        key = sha256(json.dumps([settings, num_generations, prompt]).encode()).digest()
        asked[key] += 1
        return key, asked[key]

    def find(key: bytes, occurrence: int) -> Sequence[Completion] | None:
        found = db.execute("SELECT row FROM saved WHERE key = ? AND occurrence = ?", (key, occurrence)).fetchone()
        return from_json(found[0]) if found else None

    def ask(prompts: Sequence[P], num_generations: int) -> Batch:
        with lock:
            keys = [claim(prompt, num_generations) for prompt in prompts]
            rows = [find(*key) for key in keys]
        missing = [index for index, row in enumerate(rows) if row is None]
        answers = backend([prompts[index] for index in missing], num_generations) if missing else ()
        new = dict(zip(missing, answers, strict=True))
        saved = [(*keys[index], to_json(row)) for index, row in new.items() if is_whole(row, num_generations)]
        with lock, db:
            db.executemany("INSERT INTO saved VALUES (?, ?, ?)", saved)
        return [new[index] if row is None else row for index, row in enumerate(rows)]

    return ask


def completions_of(row: Row) -> Sequence[Completion]:
    """Return the completions of a row, none of a failed one."""
    return row.value_or(()) if isinstance(row, Result) else row


def is_whole(row: Row, num_generations: int) -> bool:
    """Return whether every generation of a row came, with text and without an error."""
    texts = [completion.text for completion in completions_of(row) if not completion.error]
    return len(texts) == num_generations and all(texts)


def to_json(row: Row) -> str:
    """Write the completions of a row."""
    return json.dumps(
        [
            (each.text, each.finish_reason, asdict(each.usage) if each.usage else None, each.reasoning)
            for each in completions_of(row)
        ]
    )


def from_json(text: str) -> list[Completion]:
    """Read the completions of a row."""
    saved: list[tuple[str, str | None, dict[str, int | None] | None, str | None]] = json.loads(text)
    return [
        Completion(text, reason, Usage(**usage) if usage else None, thoughts) for text, reason, usage, thoughts in saved
    ]


def main(base_url: str, model: str, path: str, questions: Sequence[str]) -> list[list[str]]:
    """Return two answers to each question."""
    params = {"temperature": 1.0}
    with closing(sqlite3.connect(path, check_same_thread=False)) as db:
        backend = cached(
            blocking(chat(base_url, model=model, params=params)), db, json.dumps([base_url, model, params])
        )
        llm = LLM(Task(Prompt, Success), openai, backend, Threads(32))
        rows = llm.generate(questions, num_generations=2)
    return [[generation.completion.text for generation in row.value_or(())] for row in rows]


if __name__ == "__main__":
    for texts in main(sys.argv[1], sys.argv[2], sys.argv[3], ["Name a river.", "Name a river."]):
        print(texts)
