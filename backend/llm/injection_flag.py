"""Flag texts that look like a prompt injection rather than something to label."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from backend.domain.questions import Question
from backend.llm.prompts.templates import SPECIAL_TOKEN, display_name
from backend.llm.prompts.verbalizer import answer_names

_HIDDEN = re.compile(
    r"[\u202a-\u202e\u2066-\u2069]"  # turn the writing direction
    r"|(?<=[A-Za-z])[\u200b\u2060\ufeff](?=[A-Za-z])"  # split Latin words unseen
    r"|(?<![\U0001f3f4\U000e0020-\U000e007f])[\U000e0020-\U000e007f]"  # tags outside a flag
)
_INVISIBLE = re.compile(r"[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
_ROLE_LINE = re.compile(
    r"(?im)^[ \t>*#\"'\]})-]*(?:system|assistant|instructions?|prompt)"
    r" ?(?:prompt|message)? ?:\s*\S"
    r"|###\s*(?:system|instruction|response|answer|input|user|assistant)"
    r"|</?(?:system|instructions?|assistant|prompt)>|\[/?(?:system|instructions?)\]"
    r"|\{\s*\"?role\"?\s*:"
)
_VERBS = (
    r"ignor\w*|disregard\w*|forget|override|overrule|bypass|skip|"  # English, and kin of "ignore"
    r"vergi(?:ss|\u00df)\w*|missachte\w*|oublie\w*|olvid\w*|dimentica\w*|esque\u00e7a\w*|negeer|vergeet"
)
_RULES = (
    r"instructions?|prompts?|rules?|guidelines?|directions?|orders|definitions?|"
    r"anweisung\w*|regeln|consignes?|r\u00e8gles|instrucciones|reglas|istruzioni|regole|"
    r"instru\u00e7\u00f5es|regras|instructies|opdracht\w*"
)
_IGNORE = re.compile(
    rf"(?i)(?<!\bI )(?<!\bwe )(?<!\bthey )\b(?:{_VERBS})\b(?:\W+\w+){{0,5}}?\W+(?:{_RULES})\b"
    r"|\b(?:ignore|disregard|forget)\s+(?:all|everything|what|anything)\b"
    r"(?:\W+\w+){0,4}?\W+(?:above|before|previous|earlier|told|said|review|text)\b"
    r"|\b(?:new|updated?|real|actual|hidden|secret)\s+(?:instructions?|prompt|task)\s*(?::|is\b|are\b)"
    r"|(?:\u5ffd\u7565|\u65e0\u89c6|\u7121\u8996|\u7121\u8996\u3057|\u7121\u8996\u3057\u3066).{0,12}(?:\u6307\u4ee4|\u6307\u793a|\u8aac\u660e|\u89c4\u5219)"
    r"|(?:\u6307\u793a|\u547d\u4ee4|\u6307\u4ee4).{0,6}(?:\u7121\u8996|\u5ffd\u7565)"
    r"|(?:\u0438\u0433\u043d\u043e\u0440\u0438\u0440\u0443\u0439|\u0437\u0430\u0431\u0443\u0434\u044c)\w*.{0,20}(?:\u0438\u043d\u0441\u0442\u0440\u0443\u043a\u0446\u0438|\u043f\u0440\u0430\u0432\u0438\u043b)"
    r"|\u062a\u062c\u0627\u0647\u0644.{0,20}(?:\u062a\u0639\u0644\u064a\u0645\u0627\u062a|\u0627\u0644\u0642\u0648\u0627\u0639\u062f)"
)
_MODEL = (
    r"(?:language\s+model|llm|a\.?i\.?\s+(?:model|assistant|system)|chatbot|chatgpt|gpt|"
    r"classifier|annotat(?:or|ion)|labell?er)"
)
_MODEL_ROLE = re.compile(
    rf"(?i)\b(?:you\s+are|you're|act\s+as|pretend|behave\s+as|role-?play|dear|attention|hey|note\s+to(?:\s+the)?)"
    rf"\b(?:\W+\w+){{0,4}}?\W+{_MODEL}\b"
    r"|\b(?:developer|admin|debug|jailbreak|god)\s+mode\b|\bsystem\s+(?:prompt|override|message)\b"
    r"|\bas\s+an\s+ai\b|\bdo\s+anything\s+now\b"
)
_LABEL_INSTRUCTION = re.compile(
    r"(?i)\b(?:classif(?:y|ied)|label(?:l?ed)?|categori[sz]ed?|annotated?|tagg?(?:ed)?)\s+"
    r"(?:(?:this|it|the|that|me|every\w*|all|my|as)\W+)(?:\w+\W+){0,4}?(?:as|with|is|to\s+be)\b"
    r"|\b(?:correct|right|true|gold|expected|required|final|only)\s+(?:label|class|category|answer|"
    r"output|classification)\s*(?:is|:|=|must|here)"
    r"|\b(?:output|respond|reply|answer|return|print)\s+(?:only|exactly|just|always)\b"
)
_LABEL_VERBS = (
    r"(?:answer|label|output|respond|reply|choose|pick|select|return|print|write|classif\w*|mark|rate|"
    r"tag|antworte\w*|r\u00e9pond\w*|responde\w*|rispondi|antwoord)"
)
_FILLERS = "it|this|with|as|is|only|the|word|always|text"
_MAX_CHARS = 20_000


def injection_flag(text: str, question: Question | None = None) -> str | None:
    """Return the first rule by which a text looks like a prompt injection; None for none.

    Rules in order: characters that hide text from people; a chat template's control tokens; a line
    in the role of the system or the assistant; an instruction to ignore instructions (in nine
    languages); words to or about the model's role; an instruction which label to give. With the
    question, also: an imitation of the prompt's own line, or an instruction that names one of its
    labels. For review by people, not for rejection: a text that quotes an injection is flagged too.
    """
    text = text[:_MAX_CHARS]
    if _HIDDEN.search(text):
        return "hidden characters"
    plain = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text))
    rules = (
        ("control tokens", SPECIAL_TOKEN),
        ("speaks as the system", _ROLE_LINE),
        ("drops instructions", _IGNORE),
        ("speaks to the model", _MODEL_ROLE),
        ("orders a label", _LABEL_INSTRUCTION),
        *(_question_rules(question) if question is not None else ()),
    )
    return next((name for name, rule in rules if rule.search(plain)), None)


@lru_cache(maxsize=64)
def _question_rules(question: Question) -> tuple[tuple[str, re.Pattern[str]], ...]:
    """Return the rules made of a question's name and labels."""
    names = "|".join(re.escape(name) for name in answer_names(question.labels) if len(name) > 1)
    asked = re.escape(display_name(question.name))
    rules = []
    if asked:
        rules.append(("imitates the prompt", re.compile(rf"(?i)\b{asked}\s*[:=]\s*[\"'*]*\w")))
    if names:
        order = rf"(?i)\b{_LABEL_VERBS}\b(?:\W+(?:{_FILLERS}))*\W+(?:{names})\b"
        rules.append(("orders a label", re.compile(order)))
    return tuple(rules)
