"""The charts of a report as Vega-Lite specifications. The page fills their named data sets in:

rows      one object a step and run: `run`, `step`, and every metric
bugs      one a bug: run, repo, file, strategy, difficulty, rate (share resolved, 0 to 1, or null)
injections  one an injector's episode: run, repo, strategy, reason
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

Spec = dict[str, Any]

CURVES: tuple[tuple[str, dict[str, str]], ...] = (
    ("Valid and solved", {"valid": "injector/valid_rate", "solved": "solver/solve_rate"}),
    ("Reward", {"injector": "injector/reward", "solver": "solver/reward"}),
    (
        "Groups whose rewards differ",
        {
            "injector": "injector/groups_with_variance",
            "solver": "solver/groups_with_variance",
        },
    ),
    ("Entropy, nats a token", {"entropy": "learner/entropy"}),
    ("Sampler against trainer, KL", {"mismatch": "learner/mismatch_kl"}),
    ("Gradient norm", {"norm": "learner/grad_norm"}),
    (
        "Seconds of a step",
        {"play": "play/wall_s", "learner": "learner/train_s", "whole": "curriculum/step_s"},
    ),
)
"""Title of a chart, and {label: metric}. What no run has written is left out."""
_WHOLE = alt.Axis(format="d", labelExpr="datum.value % 1 ? '' : datum.label")
_TALLEST = 40
"""Bars of one chart; a page is no place for thousands of files."""


def curves(names: Sequence[str], num_runs: int) -> list[Spec]:
    """Curves over the steps, and one for any metric of `names` (sorted)."""
    specs = []
    for title, labels in CURVES:
        present = {label: metric for label, metric in labels.items() if metric in names}
        if present:
            specs.append(_curve(title, present, num_runs))
    if names:
        specs.append(_any_metric(names, num_runs))
    return specs


def coverage(num_runs: int) -> list[Spec]:
    """Where the bugs lie, how hard they are, and why injections failed."""
    bugs, injections = alt.NamedData("bugs"), alt.NamedData("injections")
    files = (
        alt.Chart(bugs, title=f"Bugs by file (the {_TALLEST} with most)")
        .transform_aggregate(count="count()", groupby=["repo", "file", "strategy"])
        .transform_joinaggregate(total="sum(count)", groupby=["repo", "file"])
        .transform_window(rank="dense_rank()", sort=[alt.SortField("total", order="descending")])
        .transform_filter(f"datum.rank <= {_TALLEST}")
        .transform_calculate(place="datum.repo + ': ' + datum.file")
        .mark_bar()
        .encode(
            y=alt.Y("place:N", sort="-x", title=None),
            x=alt.X("sum(count):Q", title="bugs"),
            color=alt.Color("strategy:N", title=None),
            tooltip=["repo:N", "file:N", "strategy:N", "count:Q"],
        )
    )
    cells = alt.Chart(bugs, title="Solve rate by repository and strategy").encode(
        x=alt.X("strategy:N", title=None, axis=alt.Axis(labelAngle=0)),
        y=alt.Y("repo:N", title=None),
    )
    rate = cells.transform_filter("isValid(datum.rate)")
    heat = rate.mark_rect().encode(
        color=alt.Color("mean(rate):Q", title=None, scale=alt.Scale(domain=[0, 1])),
        tooltip=["repo:N", "strategy:N", alt.Tooltip("mean(rate):Q", format=".1%"), "count():Q"],
    )
    number = rate.mark_text(stroke="black", strokeWidth=0.3, fill="white").encode(
        text=alt.Text("mean(rate):Q", format=".0%")
    )
    hard = (
        alt.Chart(bugs, title="How hard the bugs are")
        .mark_bar()
        .encode(
            x=alt.X(
                "difficulty:N",
                title=None,
                sort=["unattempted", "never", "hard", "medium", "easy", "always"],
                axis=alt.Axis(labelAngle=0),
            ),
            y=alt.Y("count():Q", title="bugs"),
            color=_by_run(num_runs),
            xOffset="run:N",
            tooltip=["run:N", "difficulty:N", "count():Q"],
        )
    )
    why = (
        alt.Chart(injections, title="What became of injections")
        .mark_bar()
        .encode(
            y=alt.Y("reason:N", sort="-x", title=None),
            x=alt.X("count():Q", title="episodes"),
            color=alt.Color("strategy:N", title=None),
            tooltip=["reason:N", "strategy:N", "count():Q"],
        )
    )
    return [_spec(chart) for chart in (why, hard, alt.layer(heat, number), files)]


def _curve(title: str, labels: dict[str, str], num_runs: int) -> Spec:
    """Lines over the steps: a colour for each label, or for each run where there are several."""
    back = ", ".join(f"{metric!r}: {label!r}" for label, metric in labels.items())
    chart = (
        alt.Chart(alt.NamedData("rows"), title=title)
        .transform_fold(list(labels.values()), as_=["metric", "value"])
        .transform_filter("isValid(datum.value)")
        .transform_calculate(label=f"{{{back}}}[datum.metric]")
        .mark_line(point=alt.OverlayMarkDef(size=12), interpolate="linear")
    )
    encoded = chart.encode(
        x=alt.X("step:Q", title="step", axis=_WHOLE),
        y=alt.Y("value:Q", title=None, scale=alt.Scale(zero=False)),
        color=alt.Color("label:N", title=None) if num_runs == 1 else _by_run(num_runs),
        tooltip=["run:N", "step:Q", "label:N", alt.Tooltip("value:Q", format=".4~g")],
    )
    if num_runs > 1 and len(labels) > 1:
        encoded = encoded.encode(strokeDash=alt.StrokeDash("label:N", title=None))
    return _spec(encoded)


def _any_metric(names: Sequence[str], num_runs: int) -> Spec:
    first = "learner/loss" if "learner/loss" in names else names[0]
    chosen = alt.param(
        name="chosen", value=first, bind=alt.binding_select(options=list(names), name="metric ")
    )
    chart = (
        alt.Chart(alt.NamedData("rows"), title="Any metric")
        .add_params(chosen)
        .transform_calculate(value="datum[chosen]")
        .transform_filter("isValid(datum.value)")
        .mark_line(point=alt.OverlayMarkDef(size=12))
        .encode(
            x=alt.X("step:Q", title="step", axis=_WHOLE),
            y=alt.Y("value:Q", title=None, scale=alt.Scale(zero=False)),
            color=_by_run(num_runs),
            tooltip=["run:N", "step:Q", alt.Tooltip("value:Q", format=".4~g")],
        )
    )
    return _spec(chart)


def _by_run(num_runs: int) -> alt.Color:
    """A colour for each run; a single one needs no legend."""
    return alt.Color("run:N", title=None, legend=alt.Legend() if num_runs > 1 else None)


def _spec(chart: Any) -> Spec:
    """As wide as the page allows, on its own background."""
    wide = chart.properties(
        width="container", autosize=alt.AutoSizeParams(type="fit-x", contains="padding")
    ).configure(background="transparent")
    wide = wide.configure_view(stroke=None)
    spec: Spec = wide.to_dict()
    return spec
