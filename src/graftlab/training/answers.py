"""`objective.on=teacher`: the teacher's own answers to the data's prompts, drawn once and kept.

    RUN/teacher-answers/train-KEY.jsonl            {"messages": [...]} a line, a data file like any
    RUN/teacher-answers/train-KEY.jsonl.partial    so many of them; a killed run goes on behind them

KEY is a hash of the prompts, the teacher and how answers are drawn. Every answer has a random
stream of its own, f(seed, place), so that going on draws what drawing all at once would have.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftlab.console import console, say
from graftlab.errors import ModelError
from graftlab.files.checksums import (
    Appended,
    DamagedError,
    is_whole,
    publish_checked,
    remove,
)
from graftlab.generation.sampling import Generation
from graftlab.objectives.distill import Distill
from graftlab.progress import Progress
from graftlab.types import Conversation, Message

if TYPE_CHECKING:
    from graftlab.text.tokenizer import Tokenizer
    from graftlab.tracking.folder import RunFolder
    from graftlab.training.process_context import ProcessContext
    from graftlab.training.spec import TrainSpec

FOLDER = "teacher-answers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """Where and how the teacher answers for a run."""

    spec: TrainSpec
    objective: Distill
    folder: Path
    tokenizer: Tokenizer
    place: ProcessContext

    def to(self, conversations: Sequence[Conversation], side: str) -> list[Conversation]:
        """The same conversations, each with the teacher's last answer; drawn if need be.

        Where several processes train, the first draws and the others wait. A prompt that leaves no
        room in the teacher's context is left out, and the log says so.
        """
        file = self.folder / f"{side}-{self._key(conversations)}.jsonl"
        if self.place.rank == 0 and not is_whole(file, tell=_tell):
            self._draw(conversations, side, file)
        while not is_whole(file):
            time.sleep(0.5)
        lines = file.read_text(encoding="utf-8").split("\n")[:-1]  # U+2028 ends no line here
        rows = [*zip(conversations, map(json.loads, lines), strict=True)]
        unasked = [(one.where, row["left_out"]) for one, row in rows if "left_out" in row]
        if unasked and self.place.rank == 0:
            where, why = unasked[0]
            say(
                f"! {side}: prompts that could not be asked and are left out: {len(unasked)}, such "
                f"as {where}: {why}"
            )
        return [_with_messages(one, row["messages"]) for one, row in rows if "messages" in row]

    def _key(self, conversations: Sequence[Conversation]) -> str:
        asked = self.objective
        said: list[Any] = [asked.key, asked.samples_temperature, asked.samples_tokens]
        digest = hashlib.sha256(json.dumps([*said, self.spec.seed]).encode())
        digest.update(self.tokenizer.fingerprint.encode())
        for conversation in conversations:
            messages = [m.as_dict() for m in conversation.without_last_answer().messages]
            digest.update(json.dumps([messages, conversation.tools], default=str).encode())
        return digest.hexdigest()[:16]

    def _draw(self, conversations: Sequence[Conversation], side: str, file: Path) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = _partial(file)
        done = partial.file.read_bytes().count(b"\n") if partial.size else 0
        total = len(conversations)
        bar = Progress(f"the teacher answers ({side})", total=total, done=done, console=console())
        with self._speaking() as answer, bar:
            for index in range(done, len(conversations)):
                seed = _seed(self.spec.seed, side, index)
                row = _row(conversations[index].without_last_answer(), seed, answer)
                partial.add(json.dumps(row, ensure_ascii=False).encode() + b"\n")
                bar.advance()
        publish_checked(partial.file, file)
        remove(partial.file)  # its checksum
        say(f"the teacher answers ({side}): {total} answers, kept in {FOLDER}/ of the run folder")

    @contextmanager
    def _speaking(self) -> Iterator[Callable[[Conversation, int], str]]:
        """A function from a question and a seed to the teacher's answer."""
        from graftlab.generation.decode import generate
        from graftlab.training.precision import resolve
        from graftlab.training.teacher import opened

        precision = resolve(self.spec.precision, self.place.device)
        generation = Generation(
            max_new_tokens=self.objective.samples_tokens,
            temperature=self.objective.samples_temperature,
        )
        with opened(self.objective, precision=precision, device=self.place.device) as teacher:
            assert teacher is not None, "distilling asks a teacher"

            def answer(question: Conversation, seed: int) -> str:
                how = replace(generation, seed=seed)
                with precision.autocast():
                    return generate(teacher.base, self.tokenizer, question, how).text

            with teacher.base.answering():
                yield answer


def answers_of(
    spec: TrainSpec, folder: RunFolder, tokenizer: Tokenizer, place: ProcessContext
) -> Answers | None:
    """How the teacher answers for this run; None where the data's own answers are trained on."""
    objective = spec.objective
    if not isinstance(objective, Distill) or not objective.uses_teacher_answers():
        return None
    return Answers(
        spec=spec,
        objective=objective,
        folder=folder.path / FOLDER,
        tokenizer=tokenizer,
        place=place,
    )


def _row(
    question: Conversation, seed: int, answer: Callable[[Conversation, int], str]
) -> dict[str, Any]:
    """One line of the file."""
    try:
        reply = Message("assistant", answer(question, seed))
    except ModelError as error:
        return {"left_out": str(error)}
    return {"messages": [m.as_dict() for m in (*question.messages, reply)]}


def _with_messages(conversation: Conversation, messages: list[dict[str, Any]]) -> Conversation:
    question = conversation.without_last_answer().messages
    if messages[:-1] != [turn.as_dict() for turn in question]:
        raise ModelError(
            f"{conversation.where}: the kept answers are of other prompts; remove {FOLDER}/ in the "
            "run folder."
        )
    return replace(
        conversation, messages=(*question, Message("assistant", messages[-1]["content"]))
    )


def _tell(problem: str) -> None:
    say(f"! {problem}: the answers are drawn anew.")


def _partial(file: Path) -> Appended:
    """The answers so far; a last line that a kill left half written is cut off."""
    partial = file.with_name(f"{file.name}.partial")
    try:
        return Appended(partial)
    except DamagedError as error:
        _tell(str(error))
        remove(partial)
        return Appended(partial)


def _seed(seed: int, side: str, index: int) -> int:
    digest = hashlib.blake2b(f"{seed} {side} {index}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big")
