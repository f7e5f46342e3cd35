"""A project for every kind of question: config, one task, an answer, and where it shows.

The configs are those of docs/label-configs.md, the texts are our own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from playwright.sync_api import Locator, Page, expect

from backend.domain.labels import Answer, Span, WeakLabel
from backend.launcher.environments import PROJECT_FOLDER

GUIDE = PROJECT_FOLDER / "docs" / "label-configs.md"
HTML = (
    "<h3>Notice</h3>\n<p>Dear <b>Ms Ada\nBerg</b>,</p>\n"
    "<p>please come to Oslo<br>on&nbsp;Monday &amp; bring   tea.</p>"
)
REVIEW = "The kettle boils fast and looks fine.\nSadly, the lid broke after a week."
ODD = "🐘🐘 The kéttle\tis 👩‍👩‍👧 fine.\r\nThe  <b>lid</b> &amp; cord: 🐘!\n\n"


@dataclass(frozen=True, slots=True)
class Sample:
    """`values` are the regions' values, none where they are only compared with what is read.

    `shows` fails unless the page shows just this answer. `height` is that of the picture; a sample
    with the config of another one has none.
    """

    name: str
    data: Mapping[str, Any]
    answers: tuple[WeakLabel, ...]
    values: tuple[dict[str, Any], ...]
    read: Mapping[str, Answer]
    shows: Callable[[Page], None]
    height: int = 170
    config_of: str = ""

    @property
    def config(self) -> str:
        """The config of this name in the documentation, or of another one's."""
        name = self.config_of or self.name
        text = GUIDE.read_text(encoding="utf-8")
        found = re.search(rf"<!-- {name} -->\n```xml\n(.*?)```", text, re.DOTALL)
        assert found is not None, f"{GUIDE} has no config {name}"
        return found[1]


def weak(question: str, *probabilities: float, **answer: Any) -> WeakLabel:
    """Return a weak label for whatever task it will be given."""
    return WeakLabel(0, question, "hand", "p1", probabilities=probabilities, **answer)


def shows_choices(*names: str) -> Callable[[Page], None]:
    """Expect exactly these choices to be selected."""

    def check(page: Page) -> None:
        chosen = page.locator(".lsf-choices input:checked")
        expect(chosen).to_have_count(len(names))
        assert sorted(box.get_attribute("name") or "" for box in chosen.all()) == sorted(names)

    return check


def shows_in_region(piece: str, choice: str) -> Callable[[Page], None]:
    """Expect this choice beside a marked piece of the text, once the piece is clicked."""

    def check(page: Page) -> None:
        page.locator(".htx-highlight").filter(has_text=piece).first.click()
        shows_choices(choice)(page)

    return check


def shows_in_order(*texts: str) -> Callable[[Page], None]:
    """Expect a ranking's items in this order."""

    def check(page: Page) -> None:
        items = page.locator(".htx-ranker-item")
        expect(items).to_have_count(len(texts))
        for item, text in zip(items.all(), texts, strict=True):
            expect(item).to_contain_text(text)

    return check


def shows_date(date: str) -> Callable[[Page], None]:
    """Expect this date in the field for it."""

    def check(page: Page) -> None:
        expect(page.locator("input[type=date]")).to_have_value(date)

    return check


def shows_marks(*texts: str, frame: bool = False) -> Callable[[Page], None]:
    """Expect exactly these pieces of the text to be marked, whatever they overlap."""

    def check(page: Page) -> None:
        root = page.frame_locator("iframe.lsf-htx-richtext") if frame else page
        marks = root.locator(".htx-highlight")
        expect(marks.first).to_be_visible()
        assert sorted(marked(marks)) == sorted(texts)

    return check


def marked(marks: Locator) -> list[str]:
    """Return the text of each mark; marks of other spans within it do not divide it."""
    return [str(mark.evaluate("mark => mark.textContent")) for mark in marks.all()]


def shows_stars(n_stars: int) -> Callable[[Page], None]:
    return lambda page: expect(page.locator(".ant-rate-star-full")).to_have_count(n_stars)


def shows_number(name: str, value: str) -> Callable[[Page], None]:
    return lambda page: expect(page.locator(f"input[name={name}]")).to_have_value(value)


def shows_text(text: str) -> Callable[[Page], None]:
    return lambda page: expect(page.get_by_text(text, exact=True).first).to_be_visible()


def shows_selected_side(text: str) -> Callable[[Page], None]:
    """Expect the text to be the one that Pairwise frames."""

    def check(page: Page) -> None:
        framed = page.locator(".cursor-pointer.border-primary-border-subtle")
        expect(framed).to_have_count(1)
        expect(framed).to_contain_text(text)

    return check


def shows_all(*checks: Callable[[Page], None]) -> Callable[[Page], None]:
    def check(page: Page) -> None:
        for one in checks:
            one(page)

    return check


def span(text: str, piece: str, label: str, probability: float = 0.9) -> Span:
    """Return the first place of a piece in a text."""
    start = text.index(piece)
    return Span(start, start + len(piece), label, probability)


def certain(*spans: Span) -> Answer:
    """Return the spans as a person's answer."""
    return Answer(spans=tuple(Span(s.start, s.end, s.label) for s in spans))


DOSE, DRUG = Span(5, 10, "Dose", 0.9), Span(14, 21, "Drug", 0.8)
FOUNDER, COMPANY = Span(0, 8, "Person", 0.9), Span(17, 29, "Company", 0.8)
KETTLE = span(REVIEW, "kettle", "product", 0.95)
LOOKS = span(REVIEW, "boils fast and looks fine", "Praise", 0.7)
BROKE = span(REVIEW, "the lid broke", "Complaint", 0.8)
LID = span(REVIEW, "lid", "product", 0.9)
VISIBLE = "Notice\nDear Ms Ada Berg,\nplease come to Oslo\non\xa0Monday & bring tea."
ADA = span(VISIBLE, "Ms Ada Berg", "Person")
OSLO = span(VISIBLE, "Oslo\non\xa0Monday", "Place", 0.6)
TURNS = [
    {"author": "Mia", "text": "My parcel to Oslo is lost."},
    {"author": "Help desk", "text": "I am sorry, Mia. I send a new one today."},
]
SPOKEN = "Mia: My parcel to Oslo is lost.\nHelp desk: I am sorry, Mia. I send a new one today."
LOST = span(SPOKEN, "to Oslo is lost", "Problem")
NEW = span(SPOKEN, "I send a new one today", "Promise", 0.8)

ODD_SPANS = (
    span(ODD, "kéttle", "product"),
    span(ODD, "👩‍👩‍👧 fine", "Praise"),
    span(ODD, "<b>lid</b> &amp; cord: 🐘", "product"),
)
ODD_HTML = (
    " <!-- 🐘 --><html><body>\n<ul><li>🐘 &amp; <i>Ådå 🐘</i></li>\n<li>&#128024;</li></ul>"
    "<script>var x = '<p>';</script><table><tr><td>Rome 🐘</td></tr></table></body></html>"
)
ODD_VISIBLE = "🐘 & Ådå 🐘\n🐘\nRome 🐘"
ODD_HTML_SPANS = (
    span(ODD_VISIBLE, "Ådå 🐘", "Person"),
    Span(10, 11, "Place"),
    span(ODD_VISIBLE, "Rome 🐘", "Place"),
)
ODD_TURNS = "🐘: 🐘🐘 Bob is 🐘 here, é.\nOh 🐘, Bob!"
ODD_TURNS_SPANS = (
    span(ODD_TURNS, "Bob is 🐘", "Problem"),
    span(ODD_TURNS, "🐘, Bob", "Promise"),
)

SAMPLES = (
    Sample(
        "choices-single",
        {"text": "The lamp is bright and was easy to set up."},
        (weak("sentiment", 0.93, 0.07),),
        ({"choices": ["pos"]},),
        {"sentiment": Answer(("pos",))},
        shows_choices("Positive"),
    ),
    Sample(
        "choices-multiple",
        {"text": "The new phone costs less, but its battery is empty by noon."},
        (weak("aspects", 0.9, 0.8, 0.1),),
        ({"choices": ["Price", "Battery"]},),
        {"aspects": Answer(("Price", "Battery"))},
        shows_choices("Price", "Battery"),
    ),
    Sample(
        "choices-nested",
        {"text": "Where is the invoice for my March order?"},
        (weak("request", 0.7, 0.1, 0.1, 0.1),),
        ({"choices": [["Billing", "inv"]]},),
        {"request": Answer(("Billing / inv",))},
        shows_choices("Invoice"),
        height=270,
    ),
    Sample(
        "taxonomy",
        {"text": "A grey cat slept on the piano while the band was tuning."},
        (weak("topics", 0.8, 0.1, 0.9),),
        ({"taxonomy": [["Animals", "Cat"], ["Music"]]},),
        {"topics": Answer(("Animals / Cat", "Music"))},
        shows_all(shows_text("Animals / Cat"), shows_text("Music")),
    ),
    Sample(
        "labels",
        {"text": REVIEW},
        (weak("parts", spans=(KETTLE, LOOKS, BROKE, LID)),),
        (
            {"start": 4, "end": 10, "text": "kettle", "labels": ["product"]},
            {"start": 11, "end": 36, "text": "boils fast and looks fine", "labels": ["Praise"]},
            {"start": 45, "end": 58, "text": "the lid broke", "labels": ["Complaint"]},
            {"start": 49, "end": 52, "text": "lid", "labels": ["product"]},
        ),
        {"parts": certain(KETTLE, LOOKS, BROKE, LID)},
        shows_marks("kettle", "boils fast and looks fine", "the lid broke", "lid"),
    ),
    Sample(
        "labels-hypertext",
        {"html": HTML},
        (weak("entities", spans=(ADA, OSLO)),),
        (),
        {"entities": certain(ADA, OSLO)},
        shows_marks("Ms Ada\nBerg", "Oslo", "on\xa0Monday", frame=True),
        height=260,
    ),
    Sample(
        "labels-paragraphs",
        {"chat": TURNS},
        (weak("moments", spans=(LOST, NEW)),),
        (
            {
                "start": "0",
                "end": "0",
                "startOffset": 10,
                "endOffset": 25,
                "text": "to Oslo is lost",
                "paragraphlabels": ["Problem"],
            },
            {
                "start": "1",
                "end": "1",
                "startOffset": 17,
                "endOffset": 39,
                "text": "I send a new one today",
                "paragraphlabels": ["Promise"],
            },
        ),
        {"moments": certain(LOST, NEW)},
        shows_marks("to Oslo is lost", "I send a new one today"),
        height=230,
    ),
    Sample(
        "rating",
        {"text": "Fine food, slow service, and we would go again."},
        (weak("stars", 0.0, 0.1, 0.1, 0.7, 0.1),),
        ({"rating": 4},),
        {"stars": Answer(("4",))},
        shows_stars(4),
    ),
    Sample(
        "number",
        {"text": "We drove for three hours and walked the last two."},
        (weak("hours", text="5", confidence=0.8), weak("clarity", 0.1, 0.1, 0.8)),
        ({"number": 5}, {"number": 1}),
        {"hours": Answer(text="5"), "clarity": Answer(("1",))},
        shows_all(shows_number("hours", "5"), shows_number("clarity", "1")),
    ),
    Sample(
        "pairwise",
        {"first": "It depends.", "second": "Water boils at 100 °C at sea level."},
        (weak("better", 0.1, 0.9),),
        ({"selected": "right"},),
        {"better": Answer(("right",))},
        shows_selected_side("Water boils"),
    ),
    Sample(
        "textarea",
        {"text": "The committee met for four hours and put the decision off until May."},
        (weak("summary", text="No decision before May.", confidence=0.6),),
        ({"text": ["No decision before May."]},),
        {"summary": Answer(text="No decision before May.")},
        shows_text("No decision before May."),
    ),
    Sample(
        "choices-of-task",
        {"question": "What is the capital of France?", "first": "Lyon", "second": "Paris"},
        (weak("answer", text="Paris", confidence=0.8),),
        ({"choices": ["Paris"]},),
        {"answer": Answer(text="Paris")},
        shows_choices("Paris"),
    ),
    Sample(
        "second-level",
        {"text": "Three weeks, and still no parcel!"},
        (weak("tone", 0.1, 0.9), weak("cause", 0.2, 0.8)),
        ({"choices": ["Angry"]}, {"choices": ["Delay"]}),
        {"tone": Answer(("Angry",)), "cause": Answer(("Delay",))},
        shows_choices("Angry", "Delay"),
        height=210,
    ),
    Sample(
        "per-region",
        {"text": "Take 20 mg of aspirin."},
        (
            weak("parts", spans=(DOSE, DRUG)),
            weak("certainty", spans=(Span(5, 10, "sure", 0.7),)),
        ),
        (
            {"start": 5, "end": 10, "text": "20 mg", "labels": ["Dose"]},
            {"start": 14, "end": 21, "text": "aspirin", "labels": ["Drug"]},
            {"start": 5, "end": 10, "text": "20 mg", "choices": ["sure"]},
        ),
        {"parts": certain(DOSE, DRUG), "certainty": Answer(spans=(Span(5, 10, "sure"),))},
        shows_all(shows_marks("20 mg", "aspirin"), shows_in_region("20 mg", "sure")),
        height=200,
    ),
    Sample(
        "relations",
        {"text": "Ada Berg started Kettle Works in Oslo."},
        (
            weak("names", spans=(FOUNDER, COMPANY)),
            weak("relations", text='[[17, 29, 0, 8, "founded by"]]', confidence=0.7),
        ),
        (),
        {
            "names": certain(FOUNDER, COMPANY),
            "relations": Answer(text='[[17, 29, 0, 8, "founded by"]]'),
        },
        shows_all(shows_marks("Ada Berg", "Kettle Works"), shows_text("founded by")),
        height=200,
    ),
    Sample(
        "ranker",
        {
            "question": "How do I descale a kettle?",
            "items": [
                {"id": "buy", "title": "Buy a new one", "body": "Kettles are cheap."},
                {"id": "vinegar", "title": "With vinegar", "body": "Boil, wait, rinse."},
            ],
        },
        (weak("rank", text='{"rank": ["vinegar", "buy"]}', confidence=0.8),),
        ({"ranker": {"rank": ["vinegar", "buy"]}},),
        {"rank": Answer(text='{"rank": ["vinegar", "buy"]}')},
        shows_in_order("With vinegar", "Buy a new one"),
        height=380,
    ),
    Sample(
        "date-time",
        {"text": "The bridge was opened on 4 March 2021."},
        (weak("day", text="2021-03-04", confidence=0.8),),
        ({"datetime": "2021-03-04"},),
        {"day": Answer(text="2021-03-04")},
        shows_date("2021-03-04"),
    ),
    Sample(
        "text-pair",
        {"premise": "Two dogs run along the beach.", "claim": "Animals are outside."},
        (weak("relation", 0.9, 0.05, 0.05),),
        ({"choices": ["Follows"]},),
        {"relation": Answer(("Follows",))},
        shows_choices("Follows"),
    ),
    Sample(
        "several-questions",
        {"text": "Order 17 has not come, and nobody answers the phone!"},
        (
            weak("kind", 0.1, 0.9),
            weak("numbers", spans=(Span(6, 8, "Order", 0.9),)),
            weak("urgency", 0.1, 0.2, 0.7),
        ),
        (
            {"start": 6, "end": 8, "text": "17", "labels": ["Order"]},
            {"choices": ["Complaint"]},
            {"rating": 3},
        ),
        {
            "kind": Answer(("Complaint",)),
            "numbers": Answer(spans=(Span(6, 8, "Order"),)),
            "urgency": Answer(("3",)),
        },
        shows_all(shows_choices("Complaint"), shows_marks("17"), shows_stars(3)),
        height=240,
    ),
    Sample(
        "labels-odd-characters",
        {"text": ODD},
        (weak("parts", spans=ODD_SPANS),),
        (),
        {"parts": certain(*ODD_SPANS)},
        shows_marks("kéttle", "👩‍👩‍👧 fine", "<b>lid</b> &amp; cord: 🐘"),
        config_of="labels",
    ),
    Sample(
        "labels-hypertext-odd-characters",
        {"html": ODD_HTML},
        (weak("entities", spans=ODD_HTML_SPANS),),
        (),
        {"entities": certain(*ODD_HTML_SPANS)},
        shows_marks("Ådå 🐘", "🐘", "Rome 🐘", frame=True),
        config_of="labels-hypertext",
    ),
    Sample(
        "labels-paragraphs-odd-characters",
        {"chat": [{"author": "🐘", "text": "🐘🐘 Bob is 🐘 here, é."}, {"text": "Oh 🐘, Bob!"}]},
        (weak("moments", spans=ODD_TURNS_SPANS),),
        (),
        {"moments": certain(*ODD_TURNS_SPANS)},
        shows_marks("Bob is 🐘", "🐘, Bob"),
        config_of="labels-paragraphs",
    ),
)
