"""Write docs/benchmarks/ordering.md and its pictures from the reports beside it, one per set."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import goal_rows

_HEADLINE = "activellm"
_WITH_LLM = (
    "activellm-judged",
    "activellm-judged-permuted",
    "activellm-judged-blank",
    "activellm-paper",
    "activellm-paper-permuted",
    "activellm-paper-blank",
)
_HERDING = "maxherding"
_BASELINES = (_HERDING, "typiclust", "badge")
_SCORER_FIGURES = ("ascending_share", "split_half_reliability", "judgement_weight")
_PROBE = "probe"
_SIMILARITY, _NAMES = ".similarity", ".names"
_BY_SIMILARITY = (_SIMILARITY, _NAMES)
"""Endings of reports with similarity as the one annotator: told what labels mean, or not."""
_MAX_LINES = 7
_COLUMNS = 3

Reports = dict[str, dict[str, Any]]


def write_ordering_page(folder: Path) -> list[Path]:
    """Write the page of `folder`/ordering/*.json; return what was written, nothing without any."""
    sources = sorted((folder / "ordering").glob("*.json"))
    if not sources:
        return []
    reports = {source.stem: json.loads(source.read_text(encoding="utf-8")) for source in sources}
    plain = {name: report for name, report in reports.items() if "." not in name}
    picture = folder / "ordering" / "curves.png"
    _draw(plain, picture)
    page = folder / "ordering.md"
    page.write_text("\n".join(_lines(reports, plain)), encoding="utf-8")
    return [page, picture]


def _lines(reports: Reports, plain: Reports) -> list[str]:
    names = _strategies(plain)
    some = next(iter(plain.values()))
    config = some["parameters"]
    lines = [
        "# Query strategies: what to label first",
        "",
        "Written by `python -m benchmarks pages` from `ordering/*.json`, which `python -m "
        "benchmarks ordering --data FILE --strategies NAMES --json OUT` measured. Each set: "
        f"{config['seeds']} pools of up to {config['pool_size']} training rows, every strategy on "
        f"the same pools, {config['random_draws']} random orders per pool; after 8, 16, 32, 64 and "
        "128 labels a logistic regression on frozen sentence embeddings is scored on test rows, "
        "and the strategy gets its predictions; the annotators are aggregated again with the new "
        "labels, as in the product. Figures are areas under the learning curve: points of "
        "accuracy, averaged over the logarithm of the budget, less random's mean on the same pool.",
        "",
        "## Goals",
        "",
        *_goals(plain),
        "",
        "## Against random, in points",
        "",
        "| strategy | " + " | ".join(plain) + " | mean |",
        "|---|" + "---|" * (len(plain) + 1),
    ]
    for name in names:
        found = [_figure(report, name, "aulc_minus_random") for report in plain.values()]
        cells = ["" if value is None else f"{value:+.1f}" for value in found]
        known = [value for value in found if value is not None]
        mean = f"{np.mean(known):+.1f}" if len(known) == len(found) else f"({np.mean(known):+.1f})"
        lines.append(f"| `{name}` | " + " | ".join(cells) + f" | {mean} |")
    lines += [
        "",
        "A mean in brackets is over fewer sets.",
        "",
        "![Learning curves](ordering/curves.png)",
    ]
    lines += _similarity_lines(reports)
    lines += _scorer_lines(reports)
    lines += _learner_lines(reports)
    for set_name, report in reports.items():
        if not set_name.endswith(_BY_SIMILARITY):
            lines += ["", *_set_lines(set_name, report)]
    return [*lines, ""]


def _goals(plain: Reports) -> list[str]:
    own = {name: report["results"][_HEADLINE] for name, report in plain.items()}
    gains = np.array([figures["aulc_minus_random"] for figures in own.values()])
    low, high = _mean_interval([figures["seed_differences"] for figures in own.values()])
    worst = min(own, key=lambda name: own[name]["aulc_minus_random"])
    unlucky = np.array([figures["p_worse_than_random"] for figures in own.values()])
    rows = [
        (
            f"mean gain over random on {len(own)} sets, at least 5 points, interval above 0",
            f"{gains.mean():+.2f} [{low:+.2f}, {high:+.2f}]",
            gains.mean() >= 5 and low > 0,
        ),
        (
            "on no set more than 0.5 under random",
            f"worst: {worst} {gains.min():+.2f}",
            gains.min() >= -0.5,
        ),
        (
            "worse than random's median in at most 10 % of pools",
            f"{unlucky.mean():.1%} over all, {unlucky.max():.0%} on the worst set",
            unlucky.mean() <= 0.1,
        ),
    ]
    for baseline in _BASELINES:
        pairs = [
            (own[name]["aulc_minus_random"], report["results"][baseline]["aulc_minus_random"])
            for name, report in plain.items()
            if baseline in report["results"]
        ]
        if pairs:
            mine, theirs = np.mean(pairs, axis=0)
            rows.append(
                (
                    f"above `{baseline}` on average",
                    f"{mine:+.2f} against {theirs:+.2f}",
                    mine > theirs,
                )
            )
    return goal_rows(rows)


def _similarity_lines(reports: Reports) -> list[str]:
    """Return the table of pools that similarity alone labels, with and without definitions."""
    sets = [name.removesuffix(_NAMES) for name in reports if name.endswith(_NAMES)]
    if not sets:
        return []
    some = reports[sets[0] + _NAMES]["parameters"]
    lines = [
        "",
        "## With weak posteriors: similarity alone",
        "",
        f"No LLM: {some['seeds']} pools of up to {some['pool_size']} rows, "
        f"{some['random_draws']} random orders of each. With definitions similarity reads what "
        "each label means, without them its name alone. Points over random; in brackets how often "
        "similarity is right.",
        "",
        "| set | "
        + " | ".join(
            f"`{_HEADLINE}` {how}" for how in ("with definitions", "without", "less `maxherding`")
        )
        + " | `maxherding` |",
        "|---|---|---|---|---|",
    ]
    for name in sets:
        told, untold = (reports.get(name + ending) for ending in _BY_SIMILARITY)
        cells = ["" if each is None else _gain_and_accuracy(each) for each in (told, untold)]
        results = reports[name + _NAMES]["results"]
        cells += [_paired(results[_HEADLINE], results[_HERDING])]
        cells += [f"{results[_HERDING]['aulc_minus_random']:+.1f}"]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return [*lines, "", *goal_rows(_weak_goals([reports[name + _NAMES] for name in sets], sets))]


def _gain_and_accuracy(report: dict[str, Any]) -> str:
    gain = report["results"][_HEADLINE]["aulc_minus_random"]
    return f"{gain:+.1f} ({report['notes']['posterior_accuracy']:.0%})"


def _weak_goals(
    reports: Sequence[dict[str, Any]], names: Sequence[str]
) -> list[tuple[str, str, bool]]:
    """Return the goals of pools whose labels are known by name alone."""
    results = [report["results"] for report in reports]
    differences = [
        np.subtract(each[_HEADLINE]["seed_differences"], each[_HERDING]["seed_differences"])
        for each in results
    ]
    low, high = _mean_interval([each.tolist() for each in differences])
    means = np.array([each.mean() for each in differences])
    gains = np.array([each[_HEADLINE]["aulc_minus_random"] for each in results])
    unlucky = np.array([each[_HEADLINE]["p_worse_than_random"] for each in results])
    return [
        (
            f"without definitions above `{_HERDING}` on average over {len(means)} sets",
            f"{means.mean():+.2f} [{low:+.2f}, {high:+.2f}]",
            bool(means.mean() > 0),
        ),
        (
            f"there on no set more than a point under `{_HERDING}`",
            f"worst: {names[int(means.argmin())]} {means.min():+.2f}",
            bool(means.min() >= -1),
        ),
        (
            "there worse than random's median in at most 10 % of pools",
            f"{unlucky.mean():.1%} over all",
            bool(unlucky.mean() <= 0.1),
        ),
        (
            "there no set more than 0.5 under random",
            f"worst: {names[int(gains.argmin())]} {gains.min():+.2f}",
            bool(gains.min() >= -0.5),
        ),
    ]


def _scorer_lines(reports: Reports) -> list[str]:
    """Return the table of gains by an LLM's scores, paired by pool."""
    rows = []
    for set_name, report in reports.items():
        results = report["results"]
        for strategy in _WITH_LLM:
            if strategy in results and _HEADLINE in results:
                gain = _paired(results[strategy], results[_HEADLINE])
                own = results[strategy]
                shown = [own.get(key, "") for key in _SCORER_FIGURES]
                cells = " | ".join(str(value) for value in (*shown, own["tokens"]))
                rows.append(f"| {set_name} | `{strategy}` | {gain} | {cells} |")
    if not rows:
        return []
    return [
        "",
        "## Gain by the LLM's scores",
        "",
        f"Points more than `{_HEADLINE}` without the LLM, on the same pools; `-permuted` reads "
        "other texts under the same names, `-blank` none. Reliability (split-half) and weight are "
        "those of the informativeness scores, requested four times before the first label; at "
        "weight 0 the order is the one without the LLM. Ascending: the share of neighbors in the "
        "first order that are in list order, 0.5 without a position bias. Tokens are per pool.",
        "",
        "| set | strategy | more than without | ascending | reliability | weight | tokens |",
        "|---|---|---|---|---|---|---|",
        *rows,
    ]


def _learner_lines(reports: Reports) -> list[str]:
    """Return the table of learners other than the linear probe."""
    rows = []
    for set_name, report in reports.items():
        learner = report["parameters"].get("learner", _PROBE)
        if learner == _PROBE:
            continue
        for name, figures in report["results"].items():
            if name != "random":
                low, high = figures["interval"]
                rows.append(
                    f"| {set_name} | {learner} | `{name}` | {figures['aulc']:.1f} | "
                    f"{figures['aulc_minus_random']:+.2f} [{low:+.2f}, {high:+.2f}] | "
                    f"{len(figures['seed_differences'])} |"
                )
    if not rows:
        return []
    return [
        "",
        "## With the student as learner",
        "",
        "The student is fine-tuned on the selected texts by the plain recipe, in place of the "
        "linear probe; it is scored, and the strategy gets its predictions.",
        "",
        "| set | learner | strategy | area | less random | pools |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
        *goal_rows([_learner_goal(reports)]),
    ]


def _learner_goal(reports: Reports) -> tuple[str, str, bool]:
    differences = [
        report["results"][_HEADLINE]["seed_differences"]
        for report in reports.values()
        if report["parameters"].get("learner", _PROBE) != _PROBE
    ]
    low, high = _mean_interval(differences)
    n_pools = min(map(len, differences))
    return (
        f"above random on average over {len(differences)} sets, {n_pools} pools each",
        f"{np.mean([np.mean(each) for each in differences]):+.2f} [{low:+.2f}, {high:+.2f}]",
        low > 0,
    )


def _paired(own: dict[str, Any], other: dict[str, Any]) -> str:
    gains = np.array(own["seed_differences"]) - np.array(other["seed_differences"])
    low, high = _mean_interval([gains.tolist()])
    return f"{gains.mean():+.2f} [{low:+.2f}, {high:+.2f}], {len(gains)} pools"


def _mean_interval(differences: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Return the bootstrap interval of the mean over sets, pools drawn anew within each set."""
    rng = np.random.default_rng(0)
    means = np.zeros(4000)
    for of_set in differences:
        values = np.array(of_set)
        means += values[rng.integers(len(values), size=(4000, len(values)))].mean(axis=1)
    low, high = np.quantile(means / len(differences), [0.025, 0.975])
    return float(low), float(high)


def _set_lines(name: str, report: dict[str, Any]) -> list[str]:
    notes, config = report["notes"], report["parameters"]
    lines = [
        f"## {name}",
        "",
        f"{notes['n_classes']} classes, the largest {notes['largest_class']:.0%}; pools of "
        f"{notes['pool_size']} of {notes['n_train']} rows, {config['seeds']} pools, "
        f"{config['random_draws']} random orders of each; posteriors from "
        f"{config['posteriors']}, accuracy {notes['posterior_accuracy']:.0%}{_agreement(notes)}; "
        f"{notes['n_test']} "
        f"{config['measured_on']}; commit `{report['commit']}`.",
        "",
        "| strategy | area | less random | 95 % interval | worse than random's median | macro-F1 "
        "| classes seen at 32 | tokens | LLM reliability | LLM weight |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for strategy, figures in report["results"].items():
        low, high = figures["interval"]
        lines.append(
            f"| `{strategy}` | {figures['aulc']:.1f} | {figures['aulc_minus_random']:+.2f} | "
            f"{low:+.2f} to {high:+.2f} | {figures['p_worse_than_random']:.0%} | "
            f"{figures['macro_f1']:.1f} | {figures['class_coverage']:.0%} | {figures['tokens']} | "
            f"{figures.get('split_half_reliability', '')} | {figures.get('judgement_weight', '')} |"
        )
    return lines


def _agreement(notes: dict[str, Any]) -> str:
    kappa = notes.get("agreement")
    return "" if kappa is None else f", the annotators' agreement beyond chance (kappa) {kappa:.2f}"


def _strategies(plain: Reports) -> list[str]:
    names: dict[str, None] = {}
    for report in plain.values():
        names.update(dict.fromkeys(report["results"]))
    return list(names)


def _figure(report: dict[str, Any], strategy: str, name: str) -> float | None:
    figures = report["results"].get(strategy)
    return None if figures is None else float(figures[name])


def _draw(plain: Reports, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    n_rows = -(-len(plain) // _COLUMNS)
    figure, axes = pyplot.subplots(
        n_rows, _COLUMNS, figsize=(4 * _COLUMNS, 3 * n_rows), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(plain) :]:
        axis.set_visible(False)
    for axis, (name, report) in zip(axes.flat, plain.items(), strict=False):
        budgets = report["notes"]["budgets"]
        for strategy in [*report["results"]][:_MAX_LINES]:
            is_ours = strategy == _HEADLINE
            axis.plot(
                budgets,
                report["results"][strategy]["curve"],
                label=strategy,
                linewidth=2.5 if is_ours else 1.0,
                color="black" if is_ours else None,
                linestyle="--" if strategy == "random" else "-",
            )
        axis.set_xscale("log", base=2)
        axis.set_xticks(budgets, [str(budget) for budget in budgets])
        axis.set_title(name)
    axes[0, 0].set_ylabel("accuracy, %")
    axes[0, 0].set_xlabel("labels")
    axes[0, 0].legend(fontsize=7)
    figure.savefig(path, dpi=90, metadata={"Software": None})
    pyplot.close(figure)
