"""The peer of engine.py: a pipeline of distilabel over a model that echoes; prints the CPU seconds of all its processes.

A script of its own, since the pipeline's processes import the model from it. Not installed with the tests' extra.
"""
# mypy: disable-error-code="import-not-found, misc, no-any-unimported"
# pyright: reportMissingImports=false, reportUnknownVariableType=false, reportUnknownMemberType=false
# pyright: reportUntypedBaseClass=false, reportUnknownArgumentType=false, reportUnusedExpression=false

from __future__ import annotations

import resource
import sys

from distilabel.models.llms.base import LLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import TextGeneration


class Echo(LLM):  # subclassing is its way
    @property
    def model_name(self) -> str:
        return "m"

    def generate(self, inputs: list[list[dict[str, str]]], num_generations: int = 1) -> list[dict[str, object]]:
        counts = {"input_tokens": [0], "output_tokens": [0]}
        return [{"generations": [each[-1]["content"]] * num_generations, "statistics": counts} for each in inputs]


def cpu_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main(rows: int) -> None:
    with Pipeline(name=f"echo-{rows}") as pipeline:
        load = LoadDataFromDicts(data=[{"instruction": f"row {n}"} for n in range(rows)])
        load >> TextGeneration(llm=Echo(), input_batch_size=50)
    answered = pipeline.run(use_cache=False)
    assert len(answered["default"]["train"]) == rows
    print("\n", cpu_seconds())


if __name__ == "__main__":
    main(int(sys.argv[1]))
