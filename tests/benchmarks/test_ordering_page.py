import json

from benchmarks.ordering_page import write_ordering_page


def figures(gain, worse):
    return {
        "aulc": 60.0 + gain,
        "aulc_minus_random": gain,
        "interval": [gain - 1, gain + 1],
        "p_worse_than_random": worse,
        "macro_f1": 50.0,
        "class_coverage": 1.0,
        "tokens": 0,
        "curve": [50, 55, 60, 65, 70],
        "seed_differences": [gain - 1, gain + 1],
    }


def write_report(folder, name, gains, **asked):
    report = {
        "commit": "abc",
        "parameters": {
            "seeds": 2,
            "pool_size": 10,
            "random_draws": 5,
            "posteriors": "similarity",
            "measured_on": "test rows",
        }
        | asked,
        "results": {key: figures(gain, 0.0 if gain > 0 else 0.5) for key, gain in gains.items()},
        "notes": {
            "budgets": [8, 16, 32, 64, 128],
            "n_classes": 2,
            "largest_class": 0.5,
            "pool_size": 10,
            "n_train": 20,
            "n_test": 10,
            "posterior_accuracy": 0.8,
        },
    }
    (folder / "ordering").mkdir(exist_ok=True)
    (folder / "ordering" / f"{name}.json").write_text(json.dumps(report))


def test_the_page_says_which_goals_are_met_and_which_are_not(tmp_path):
    write_report(tmp_path, "one", {"random": 0.0, "activellm": 9.0, "badge": 2.0})
    write_report(tmp_path, "two", {"random": 0.0, "activellm": 3.0, "badge": 12.0})
    page, picture = write_ordering_page(tmp_path)
    text = page.read_text()
    assert "| +6.00 [" in text
    assert "| above `badge` on average | +6.00 against +7.00 | **no** |" in text
    assert "| on no set more than 0.5 under random | worst: two +3.00 | yes |" in text
    assert "| `activellm` | +9.0 | +3.0 | +6.0 |" in text
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_pools_with_weak_posteriors_have_a_table_and_goals(tmp_path):
    write_report(tmp_path, "one", {"random": 0.0, "activellm": 9.0})
    for name, told, untold, herding in (("one", 5.0, 3.0, 1.0), ("two", 4.0, -1.0, 0.5)):
        found = {"random": 0.0, "activellm": told, "maxherding": herding}
        write_report(tmp_path, f"{name}.similarity", found)
        write_report(tmp_path, f"{name}.names", found | {"activellm": untold}, definitions=False)
    text = write_ordering_page(tmp_path)[0].read_text()
    assert "| one | +5.0 (80%) | +3.0 (80%) | +2.00 [+2.00, +2.00], 2 pools | +1.0 |" in text
    assert "above `maxherding` on average over 2 sets | +0.25 [+0.25, +0.25] | yes |" in text
    assert "no set more than a point under `maxherding` | worst: two -1.50 | **no** |" in text
    assert "in at most 10 % of pools | 25.0% over all | **no** |" in text
    assert "no set more than 0.5 under random | worst: two -1.00 | **no** |" in text
    assert "## one.names" not in text


def test_sets_learned_by_the_student_have_a_goal(tmp_path):
    write_report(tmp_path, "one", {"random": 0.0, "activellm": 9.0})
    write_report(tmp_path, "one.fine-tune", {"random": 0.0, "activellm": 3.0}, learner="fine-tune")
    text = write_ordering_page(tmp_path)[0].read_text()
    assert (
        "| above random on average over 1 sets, 2 pools each | +3.00 [+2.00, +4.00] | yes |" in text
    )


def test_the_page_says_what_the_llm_adds_pool_by_pool(tmp_path):
    write_report(tmp_path, "one.llm", {"activellm": 3.0, "activellm-judged": 3.5})
    write_report(tmp_path, "one", {"activellm": 9.0})
    page, _ = write_ordering_page(tmp_path)
    said = "| one.llm | `activellm-judged` | +0.50 [+0.50, +0.50], 2 pools |  |  |  | 0 |"
    assert said in page.read_text()


def test_the_page_says_what_an_order_is_worth_to_another_learner(tmp_path):
    write_report(tmp_path, "one", {"activellm": 9.0})
    write_report(tmp_path, "one.fine-tune", {"random": 0.0, "activellm": 3.0}, learner="fine-tune")
    page, _ = write_ordering_page(tmp_path)
    said = "| one.fine-tune | fine-tune | `activellm` | 63.0 | +3.00 [+2.00, +4.00] | 2 |"
    assert said in page.read_text()
    assert "| one.fine-tune | fine-tune | `random`" not in page.read_text()


def test_without_reports_there_is_no_page(tmp_path):
    assert write_ordering_page(tmp_path) == []
