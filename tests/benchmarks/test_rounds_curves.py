from __future__ import annotations

from benchmarks.rounds_curves import curve_tables


def report(order, data, *points):
    """Return a report with shares right on the pool and on test texts, by number of labels."""
    curve = [
        {"n": n, "pool": {"fused": on_pool}, "test": {"small_model": on_test}}
        for n, on_pool, on_test in points
    ]
    return {
        "parameters": {
            "data": f"{data}.jsonl.gz",
            "humans": [n for n, *_ in points],
            "limit": 600,
            "small_model": "probe",
            "order": order,
            "seed": 0,
        },
        "notes": {"model": "llm:tiny"},
        "results": {"curve": curve},
    }


REPORTS = [
    report("random", "one", (16, 0.70, 0.60), (64, 0.80, 0.70)),
    report("random", "two", (16, 0.50, 0.50), (64, 0.60, 0.60)),
    report("queue", "one", (16, 0.69, 0.62), (64, 0.83, 0.74)),
    report("queue", "two", (16, 0.51, 0.52), (64, 0.65, 0.62)),
]


def test_an_order_is_compared_with_a_random_one_on_the_same_texts():
    lines = curve_tables(REPORTS)
    assert "| `queue` | 64 | 2 | +4.0 ± 2.0 over 2 |" in lines
    assert "| `queue` | 16 | 2 | +0.0 ± 2.0 over 2 |" in lines
    assert "| `queue` | 16 | 2 | +2.0 ± 0.0 over 2 |" in lines
    assert "600 texts of one, two with llm:tiny" in lines[0]


def test_one_run_has_no_interval_and_a_random_order_alone_no_table():
    alone = curve_tables([each for each in REPORTS if each["parameters"]["data"][:3] == "one"])
    assert "| `queue` | 64 | 1 | – |" in alone
    assert curve_tables(REPORTS[:2]) == []
