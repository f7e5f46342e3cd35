"""Curves over the number of human labels are compared run by run with random order."""

from benchmarks.rounds_curves import curve_tables, is_curve


def report(order, seed, *scores):
    points = [
        {"n": n, "pool": {"fused": pool}, "test": {"small_model": test}}
        for n, (pool, test) in zip((16, 64), scores, strict=True)
    ]
    parameters = {"data": "sst2.jsonl.gz", "seed": seed, "order": order, "humans": [16, 64]}
    return {"parameters": parameters, "results": {"curve": points}}


def test_points_above_random_order_are_paired_by_set_and_seed():
    lines = curve_tables(
        [
            report("random", 0, (0.70, 0.60), (0.80, 0.70)),
            report("random", 1, (0.60, 0.60), (0.70, 0.70)),
            report("queue", 0, (0.71, 0.60), (0.85, 0.72)),
            report("queue", 1, (0.61, 0.60), (0.75, 0.72)),
            report("queue", 2, (0.99, 0.99), (0.99, 0.99)),
        ]
    )
    assert "| `queue` | 16 | 3 | +1.0 ± 0.0 over 2 |" in lines
    assert "| `queue` | 64 | 3 | +5.0 ± 0.0 over 2 |" in lines
    assert "| `queue` | 64 | 3 | +2.0 ± 0.0 over 2 |" in lines
    assert not any("`random`" in line for line in lines)


def test_without_curves_there_are_no_tables():
    assert curve_tables([]) == []
    assert is_curve(report("queue", 0, (1, 1), (1, 1)))
    assert not is_curve({"parameters": {"humans": 64}})
