"""What the report says about an analysis of revisions (``analysis.json``): round by round, critic, strategies."""

from __future__ import annotations

from collections.abc import Mapping

from selfee.eval.reporting.pictures import attempts_picture, strategies_picture
from selfee.eval.reporting.sections import Picture, Rows, Section
from selfee.eval.reporting.words import number, p_value, plural
from selfee.eval.revising.result import Analysis, Group
from selfee.eval.scoring.estimates import Estimate

_ORACLE = "knows the right answer: a ceiling"


def revising_sections(analysis: Analysis | None) -> list[Section]:
    """One section for every group of chains."""
    if analysis is None:
        return []
    sections = []
    for place, group in enumerate(analysis.groups):
        pictures = [attempts_picture(group), strategies_picture(group)]
        tables = (
            *_attempts(group).tables(),
            *_rounds(group).tables(),
            *_strategies(group).tables(),
            *_choices(group).tables(),
            *_critic(group).tables(),
            *_delivery(group).tables(),
        )
        drawn: tuple[Picture, ...] = tuple(picture for picture in pictures if picture is not None)
        title = f"Chains: {group.name}"
        words = (_about(group), *((analysis.matching,) if group.strategies and analysis.matching else ()))
        sections.append(Section(f"chains-{place}", title, (*words, *group.notes), drawn, tables))
    return sections


def _about(group: Group) -> str:
    grader = group.grader
    graded = (
        "nothing graded the answers" if grader is None else f"graded by {grader.name} ({grader.signal}; {grader.scale})"
    )
    failures = (
        f"; {plural(group.check_failures, 'grade')} missing because the grader failed" if group.check_failures else ""
    )
    return f"{plural(group.questions, 'question')} from {group.source}; {graded}{failures}."


def _is_share(group: Group) -> bool:
    return group.grader is not None and group.grader.scale == "right"


def _grade(group: Group, estimate: Estimate | None, digits: int = 1) -> str:
    """A grade: percent where answers are right or wrong, else points."""
    factor = 100.0 if _is_share(group) else 1.0
    return _within(estimate, factor, digits if _is_share(group) else 2)


def _share(estimate: Estimate | None) -> str:
    if estimate is None or estimate.value is None:
        return ""
    told = f"{estimate.hits} of {estimate.count}: " if estimate.hits is not None else ""
    return told + _within(estimate, 100.0, 1)


def _within(estimate: Estimate | None, factor: float, digits: int) -> str:
    if estimate is None or estimate.value is None:
        return ""
    told = number(estimate.value * factor, digits)
    if estimate.low is None or estimate.high is None:
        return told
    return f"{told} ({number(estimate.low * factor, digits)} to {number(estimate.high * factor, digits)})"


def _unit(group: Group) -> str:
    return "right, %" if _is_share(group) else "grade"


def _attempts(group: Group) -> Rows:
    rows = Rows(
        "Every answer of the chain.",
        (
            "Answer",
            "Written",
            f"Of those written: {_unit(group)}",
            f"Delivered if the chain stopped here: {_unit(group)}",
        ),
    )
    for each in group.attempts:
        name = "first answer" if each.number == 0 else f"revision {each.number}"
        rows.add(name, str(each.written), _grade(group, each.score), _grade(group, each.delivered_score))
    return rows


def _rounds(group: Group) -> Rows:
    rows = Rows(
        "What each revision did to the answer before it; shares in percent.",
        (
            "Revision",
            "Graded",
            "Helped",
            "Hurt",
            "Unchanged",
            "Wrong to right",
            "Right to wrong",
            "Mean change",
            "Copied",
            "Edited",
            "Identical",
            "Enforced",
        ),
    )
    for each in group.rounds:
        rows.add(
            str(each.number),
            f"{each.graded} of {each.chains}",
            _share(each.helped),
            _share(each.hurt),
            _share(each.unchanged),
            _share(each.wrong_to_right),
            _share(each.right_to_wrong),
            _grade(group, each.change),
            _within(each.copied, 100.0, 1),
            _within(each.edited, 100.0, 1),
            str(each.identical),
            str(each.enforced),
        )
    return rows


def _strategies(group: Group) -> Rows:
    rows = Rows(
        "The same tokens, spent in other ways.",
        (
            "Strategy",
            f"Delivers: {_unit(group)}",
            "Tokens a question",
            "Read, tokens",
            "Attempts",
            "Given the tokens of",
            "Minus that",
            "p (sign test)",
            "Too few attempts",
            "Note",
        ),
        (0, 5, 9),
    )
    for each in group.strategies:
        rows.add(
            each.name,
            _grade(group, each.score),
            number(each.tokens, 0),
            number(each.prompt_tokens, 0),
            number(each.attempts, 1),
            each.matched_to or "",
            _grade(group, each.difference),
            "" if each.p_value is None else p_value(each.p_value),
            str(each.short) if each.short else "",
            "; ".join(part for part in (_ORACLE if each.is_oracle else "", each.note) if part),
        )
    return rows


def _choices(group: Group) -> Rows:
    rows = Rows(
        "Which answer to deliver, and when to stop: replayed over the same chains.",
        ("Rule", "Looks at", f"Delivers: {_unit(group)}", "Revisions", "Tokens", "Minus the plain rule", "p", "Note"),
        (0, 1, 7),
    )
    for each in group.selections:
        rows.add(
            f"deliver: {each.name}",
            "",
            _grade(group, each.score),
            "",
            "",
            _grade(group, each.difference),
            "" if each.p_value is None else p_value(each.p_value),
            _ORACLE if each.is_oracle else "",
        )
    for rule in group.stop_rules:
        unknown = f"{plural(rule.unknown, 'chain')} ended before it could say stop" if rule.unknown else ""
        rows.add(
            f"stop: {rule.name}",
            rule.signal,
            _grade(group, rule.score),
            number(rule.revisions, 2),
            number(rule.tokens, 0),
            _grade(group, rule.difference),
            "" if rule.p_value is None else p_value(rule.p_value),
            "; ".join(part for part in (_ORACLE if rule.is_oracle else "", unknown) if part),
        )
    return rows


def _critic(group: Group) -> Rows:
    rows = Rows("The critic's verdicts against the truth.", ("What", "Found"), (0, 1))
    critic = group.critic
    if critic is None:
        return rows
    for name, count in (
        ("Accepted, right", critic.accepted_right),
        ("Accepted, wrong", critic.accepted_wrong),
        ("Rejected, right", critic.rejected_right),
        ("Rejected, wrong", critic.rejected_wrong),
        ("Feedback without a verdict", critic.without_verdict),
        ("Feedback that repeats an earlier one", critic.repeated),
    ):
        rows.add(name, str(count))
    for name, estimate in (
        ("Wrong if accepted", critic.wrong_if_accepted),
        ("Right if rejected", critic.right_if_rejected),
        ("Wrong answers that it finds", critic.wrong_found),
    ):
        if told := _share(estimate):
            rows.add(name, f"{told} %")
    for name, value in (
        ("Balanced accuracy (0.5 = a coin)", critic.balanced_accuracy),
        ("AUC of its probabilities (0.5 = a coin)", critic.auc),
        ("Brier score", critic.brier),
        ("… of always saying the share of wrong answers", critic.brier_of_base_rate),
        ("Calibration error", critic.calibration_error),
    ):
        if value is not None:
            rows.add(name, number(value, 3))
    for each in critic.bins:
        told = f"says {each.probability:.0%}, {_share(each.wrong)} % are wrong"
        rows.add(f"Where it says {each.low:.0%} to {each.high:.0%}", told)
    return rows


def _delivery(group: Group) -> Rows:
    rows = Rows("Chains, how they ended and what they took.", ("What", "Found"), (0, 1))
    delivery = group.delivery
    for name, counts in (
        ("Revisions begun", delivery.revisions),
        ("Answer delivered", delivery.delivered),
        ("Ends", delivery.ends),
        ("Cut off by", delivery.cuts),
    ):
        if counts:
            rows.add(name, _counts(counts))
    rows.add("Ended by themselves, every section finished", f"{delivery.well_formed} of {delivery.chains}")
    rows.add("Last answer cut off", str(delivery.cut))
    rows.add("An earlier answer delivered than the last begun", str(delivery.fell_back))
    if delivery.tokens is not None:
        rows.add("Tokens generated", f"{delivery.tokens:,}")
    if delivery.tokens_per_delivered is not None:
        rows.add("Tokens generated for each token delivered", number(delivery.tokens_per_delivered, 2))
    if delivery.seconds is not None:
        rows.add("Seconds", number(delivery.seconds, 0))
    return rows


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in counts.items())
