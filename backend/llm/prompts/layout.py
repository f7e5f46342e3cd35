"""The parts of a prompt, filled into a text to complete or into a conversation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from backend.domain.ports import Conversation, Prompt


@dataclass(frozen=True, slots=True)
class Shot:
    """A demonstration in a prompt: its texts as the query's are shown, and the answer."""

    query: str
    answer: str


@dataclass(frozen=True, slots=True)
class Layout:
    """A prompt without its texts: an opening, the shots, then the query.

    The opening and the shots come first, so that prompts that share them share a cached prefix.
    In a conversation the opening is the system's text, each shot a turn of the user and one of the
    assistant, and the query the user's last turn.

    Args:
        opening: lines, each with its line end.
        fields: each field's name and what it is called in the prompt.
        asked: the line that the answer completes, or what else stands below the texts.
        before: what stands above them.
        lead: text between the line to complete and the answer.
    """

    opening: str
    fields: tuple[tuple[str, str], ...]
    asked: str
    before: str = ""
    lead: str = ""
    shots: tuple[Shot, ...] = ()
    is_chat: bool = False

    def query(self, texts: Mapping[str, str]) -> str:
        """Return the texts (from `slot_text`), quoted and named, and what is asked about them."""
        quoted = [f'{shown}: "{texts[name]}"' for name, shown in self.fields if name in texts]
        return "\n".join(line for line in (self.before, *quoted, self.asked) if line)

    def fill(self, texts: Mapping[str, str]) -> Prompt:
        """Return the prompt for one example's texts (from `slot_text`)."""
        query = self.query(texts)
        if self.is_chat:
            turns = [part for shot in self.shots for part in (shot.query, shot.answer)]
            return Conversation(self.opening.rstrip("\n"), (*turns, query))
        shots = "".join(f"\n{shot.query} {shot.answer}\n" for shot in self.shots)
        return f"{self.opening}{shots}\n{query}{self.lead}"
