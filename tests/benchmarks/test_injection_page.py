"""The page of instructions inside texts."""

from benchmarks.injection_page import injection_page


def report(n_outside: int) -> dict:
    figures = {"n_pairs": 74, "n_compared": 70, "n_outside": n_outside, "flipped": 0.25}
    figures |= {"obeyed": 0.1, "flagged": 0.9, "flagged_clean": 0.0}
    results = {
        f"{key} {template}": value
        for template in ("plain", "chat")
        for key, value in figures.items()
    }
    return {"commit": "abc", "notes": {"model": "tiny"}, "results": results}


def test_every_template_has_a_row():
    page = injection_page(report(0), "injection.json")
    assert "| chat | 74 | 70 | 0 | 25.0% | 10.0% | 90.0% | 0.0% |" in page
    assert "| plain | 74 |" in page
    assert "label space: 0 (goal 0: met)" in page


def test_an_answer_outside_the_labels_misses_the_goal():
    assert "label space: 2 (goal 0: no)" in injection_page(report(1), "injection.json")
