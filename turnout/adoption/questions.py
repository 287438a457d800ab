"""Asks what a foreign model does not say, or says how to answer without a terminal."""

from collections.abc import Callable, Mapping
from typing import Any

import typer

from training.adopted.proposals import AnswerProposal, Question, with_answer
from turnout.errors import OperatorError, UsageError

Propose = Callable[[Mapping[str, Any]], AnswerProposal]
"""Returns the proposal for the answers so far."""


def ask_open_questions(propose: Propose, given: Mapping[str, Any]) -> AnswerProposal:
    """Ask one question after the other on the terminal; return the answers.

    Raises OperatorError when the sources of the columns are not accepted.
    """
    while (proposal := propose(given)).questions:
        question = proposal.questions[0]
        if question.yes_or_no:
            if not typer.confirm(f"{question.text} Accept?", default=True, err=True):
                raise OperatorError(
                    "no source was accepted; give each column its own with "
                    "--answer inputs.COLUMN=view:feature, or =request for what callers send"
                )
            given = {**given, "inputs": proposal.answers.definition()["inputs"]}
            continue
        value = _prompt(question)
        if question.key == "words" and value == question.proposal:
            words = proposal.answers
            given = {**given, "unknown": dict(words.unknown), "missing": dict(words.missing)}
        else:
            given = with_answer(given, question, value)
    return proposal


def open_questions_error(proposal: AnswerProposal, shown: str) -> UsageError:
    """Return the error that names each open question and how it is answered.

    shown  the answers file.
    """
    lines = [
        f"  {question.text} Proposed: {question.proposal}. Option: {_option(question)}"
        for question in proposal.questions
    ]
    count = len(lines)
    return UsageError(
        f"{count} question{'s are' if count > 1 else ' is'} open, and there is no terminal to ask:"
        + "".join(f"\n{line}" for line in lines)
        + f"\nAnswer by these options or as lines of {shown}; --yes takes every proposal"
    )


def _option(question: Question) -> str:
    if question.key == "words":
        return "--answer unknown=WORD --answer missing=WORD"
    if question.key == "inputs":
        return "--answer inputs.COLUMN=view:feature (or =request), or --yes"
    return f"--answer {question.key}={question.choices[0] if question.choices else 'VALUE'}"


def _prompt(question: Question) -> str:
    choices = f" ({', '.join(question.choices)})" if question.choices else ""
    while True:
        value: str = typer.prompt(f"{question.text}{choices}", default=question.proposal, err=True)
        if not question.choices or value in question.choices:
            return value
        typer.echo(f"{value!r} is none of {', '.join(question.choices)}", err=True)
