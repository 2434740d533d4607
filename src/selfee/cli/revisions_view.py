"""An analysis of revisions on the terminal: what revising did, beside other ways to spend the same tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from selfee.cli.output import Screen, for_terminal
from selfee.cli.table import Column, render_table
from selfee.eval.revising.result import Analysis, Critic, Delivery, Group, Round, StopRule, Strategy
from selfee.eval.scoring.estimates import Estimate


def show_analysis(analysis: Analysis, screen: Screen) -> None:
    """Every group as tables, each followed by what must be known to read it."""
    for number, group in enumerate(analysis.groups):
        screen.write("\n" if number else "")
        _show_group(group, screen)


def _show_group(group: Group, screen: Screen) -> None:
    is_share = group.grader is not None and group.grader.scale == "right"
    grader = "nobody graded the answers" if group.grader is None else f"graded by {group.grader.name}"
    title = f"{group.name}: {group.questions} questions, {grader}, {group.source}"
    screen.write(screen.style(for_terminal(title), "bold") + "\n\n")
    for head, columns, rows in _tables(group, is_share):
        if rows:
            screen.write(screen.style(head, "bold") + "\n" + render_table(columns, rows, screen) + "\n")
    for line in (*_delivery(group.delivery), *_critic(group.critic), *group.notes):
        screen.write(screen.style(for_terminal(line), "dim") + "\n")


def _tables(group: Group, is_share: bool) -> Iterator[tuple[str, Sequence[Column], list[Sequence[str]]]]:
    if group.grader is not None:
        yield (
            "The same tokens, spent in other ways",
            _columns("way", "questions", "score", "95 %", "tokens", "prompts", "attempts", "difference", "95 %", "p"),
            [_strategy(each, is_share) for each in group.strategies],
        )
    yield (
        "What each revision did to the answer before it",
        _columns(
            "revision", "chains", "helped", "hurt", "same", "wrong→right", "right→wrong", "copied", "edited", "equal"
        ),
        [_round(each) for each in group.rounds],
    )
    if group.grader is not None:
        yield (
            "Other stop rules over the same chains",
            _columns("rule", "looks at", "questions", "score", "95 %", "revisions", "tokens", "difference", "95 %"),
            [_rule(each, is_share) for each in group.stop_rules],
        )
        yield (
            "Which answer of the whole chain is delivered",
            _columns("answer", "questions", "score", "95 %", "difference", "95 %"),
            [
                (
                    each.name + _ceiling(each.is_oracle),
                    str(each.score.count),
                    *_value(each.score, is_share),
                    *_value(each.difference, is_share, signed=True),
                )
                for each in group.selections
            ],
        )


def _columns(first: str, *others: str) -> list[Column]:
    return [Column(first), *(Column(title, is_number=title != "looks at") for title in others)]


def _strategy(each: Strategy, is_share: bool) -> Sequence[str]:
    name = each.name + _ceiling(each.is_oracle) + (f" ({each.short} short of attempts)" if each.short else "")
    return (
        name,
        str(each.score.count),
        *_value(each.score, is_share),
        _number(each.tokens, 0),
        _number(each.prompt_tokens, 0),
        _number(each.attempts, 1),
        *_value(each.difference, is_share, signed=True),
        _number(each.p_value, 2),
    )


def _round(each: Round) -> Sequence[str]:
    return (
        str(each.number),
        str(each.chains),
        _hits(each.helped),
        _hits(each.hurt),
        _hits(each.unchanged),
        _hits(each.wrong_to_right),
        _hits(each.right_to_wrong),
        _percent(each.copied.value),
        _percent(each.edited.value),
        str(each.identical),
    )


def _rule(each: StopRule, is_share: bool) -> Sequence[str]:
    return (
        each.name + _ceiling(each.is_oracle),
        "the right answer" if each.signal == "gold" else "the critic" if each.signal == "self" else each.signal,
        str(each.score.count),
        *_value(each.score, is_share),
        _number(each.revisions, 2),
        _number(each.tokens, 0),
        *_value(each.difference, is_share, signed=True),
    )


def _delivery(each: Delivery) -> Iterator[str]:
    yield (
        f"{each.chains} chains, {each.well_formed} well formed, {each.cut} end in a cut answer, {each.fell_back} "
        f"deliver an earlier one; revisions {_counts(each.revisions)}; delivered {_counts(each.delivered)}; ends "
        f"{_counts(each.ends)}"
    )
    if each.tokens is not None and each.tokens_per_delivered is not None:
        yield (
            f"{each.tokens:,} tokens generated for {each.delivered_tokens:,} delivered: "
            f"{each.tokens_per_delivered:.2f} for one"
        )


def _critic(each: Critic | None) -> Iterator[str]:
    if each is None:
        return
    yield (
        f"critic: of {each.accepted_right + each.accepted_wrong} answers that it accepts {each.accepted_wrong} are "
        f"wrong, of {each.rejected_right + each.rejected_wrong} that it rejects {each.rejected_right} are right; "
        f"{each.without_verdict} times no verdict, {each.repeated} times the same words again"
    )
    if each.balanced_accuracy is not None:
        yield f"critic: balanced accuracy {each.balanced_accuracy:.2f} (a coin has 0.50)"
    if each.brier is not None and each.calibration_error is not None:
        auc = "" if each.auc is None else f", AUC {each.auc:.2f} (a coin has 0.50)"
        yield (
            f"critic's probabilities ({each.scored}): Brier score {each.brier:.2f} (always saying the mean gets "
            f"{each.brier_of_base_rate or 0.0:.2f}), calibration error {each.calibration_error:.2f}{auc}"
        )


def _ceiling(is_oracle: bool) -> str:
    return " [oracle]" if is_oracle else ""


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in counts.items())


def _value(estimate: Estimate | None, is_share: bool, *, signed: bool = False) -> tuple[str, str]:
    """A figure and its interval; shares in percent."""
    if estimate is None or estimate.value is None:
        return "", ""
    factor, form = (100.0, ".1f") if is_share else (1.0, ".2f")
    form = f"+{form}" if signed else form
    if estimate.low is None or estimate.high is None:
        return format(estimate.value * factor, form), ""
    return (
        format(estimate.value * factor, form),
        f"{format(estimate.low * factor, form)} … {format(estimate.high * factor, form)}",
    )


def _hits(estimate: Estimate | None) -> str:
    """A share as counts: 3/40."""
    return "–" if estimate is None or estimate.value is None else f"{estimate.hits}/{estimate.count}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"
