"""What CloudWatch would say of an alarm, by its user guide: no emulator judges metric math or missing data.

Sources, all of docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring: `alarm-evaluation` and
`alarms-and-missing-data` (`state`: its two tables are the tests), `using-metric-math` (`math`),
`alarm-combining` (`composite`), `percentiles-with-low-samples` and API_MetricDatum (`percentile`). This is
our reading of them, not AWS: infra/RUNBOOK.md asks for one drill per alarm on a real account.
"""

import ast
import operator
import re
from typing import Callable, Literal, Mapping, Sequence

State = Literal["OK", "ALARM", "INSUFFICIENT_DATA"]
Point = float | None  # None: a period without data

BREACHES: dict[str, Callable[[float, float], bool]] = {
    "GreaterThanThreshold": operator.gt,
    "GreaterThanOrEqualToThreshold": operator.ge,
    "LessThanThreshold": operator.lt,
    "LessThanOrEqualToThreshold": operator.le,
}
ARITHMETIC: dict[type, Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
}
COMPARISONS: dict[type, Callable[[float, float], bool]] = {
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
}


class NotUnderstood(ValueError):
    """An expression or rule outside the part of the language that is read here."""


def math(expression: str, values: Mapping[str, Point]) -> Point:
    """One period of a metric-math expression; what uses a missing value is missing, but for FILL.

    Understood: numbers, ids, `+ - * /`, one comparison (1 or 0), FILL(m, number), IF(condition, a, b).
    """
    return _math(ast.parse(expression.strip(), mode="eval").body, values)


def _math(node: ast.expr, values: Mapping[str, Point]) -> Point:
    match node:
        case ast.Constant(value=int() | float() as number):
            return float(number)
        case ast.Name(id=name):
            return values[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            value = _math(operand, values)
            return None if value is None else -value
        case ast.Call(func=ast.Name(id="FILL"), args=[series, ast.Constant() as filler]):
            value = _math(series, values)
            return _math(filler, values) if value is None else value
        case ast.Call(func=ast.Name(id="IF"), args=[condition, then, otherwise]):
            value = _math(condition, values)
            return None if value is None else _math(then if value else otherwise, values)
        case ast.BinOp(left=left, op=op, right=right):
            return _arithmetic(op, _math(left, values), _math(right, values))
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in COMPARISONS:
            a, b = _math(left, values), _math(right, values)
            return None if a is None or b is None else float(COMPARISONS[type(op)](a, b))
    raise NotUnderstood(ast.unparse(node))


def _arithmetic(op: ast.operator, a: Point, b: Point) -> Point:
    if a is None or b is None:
        return None
    if isinstance(op, ast.Div):
        return a / b if b else None  # by zero gives no data point
    if type(op) not in ARITHMETIC:
        raise NotUnderstood(type(op).__name__)
    return ARITHMETIC[type(op)](a, b)


def state(
    points: Sequence[Point],
    *,
    periods: int,
    to_alarm: int,
    treat_missing: str,
    comparison: str,
    threshold: float,
    previous: State = "INSUFFICIENT_DATA",
) -> State:
    """The state of a metric alarm; `points` is the evaluation range, the oldest first.

    CloudWatch fetches more points than `periods`, so that a gap can be made up by older ones.
    """
    real = [(age, BREACHES[comparison](p, threshold)) for age, p in _ages(points) if p is not None]
    if not real:
        return _nothing(treat_missing, previous)
    if len(real) >= periods:  # enough: how to treat what is missing does not matter
        return "ALARM" if sum(bad for _, bad in real[-periods:]) >= to_alarm else "OK"
    bad, filled = sum(bad for _, bad in real), periods - len(real)
    if treat_missing == "breaching":
        return "ALARM" if bad + filled >= to_alarm else "OK"
    if bad >= to_alarm:
        return "ALARM"
    if treat_missing == "notBreaching" or bad < len(real):
        return "OK"
    if treat_missing == "ignore":
        return previous
    # Only breaching points, and fewer than it takes: ALARM when waiting longer cannot change that.
    return "ALARM" if real[0][0] >= to_alarm else "INSUFFICIENT_DATA"


def _ages(points: Sequence[Point]) -> list[tuple[int, Point]]:
    """Each point with its age in periods; the newest is 1 old."""
    return [(len(points) - place, point) for place, point in enumerate(points)]


def _nothing(treat_missing: str, previous: State) -> State:
    """The state when the whole range is missing."""
    states: dict[str, State] = {
        "missing": "INSUFFICIENT_DATA",
        "ignore": previous,
        "breaching": "ALARM",
        "notBreaching": "OK",
    }
    return states[treat_missing]


def composite(rule: str, states: Mapping[str, State]) -> State:
    """The state of a composite alarm: ALARM(x), OK(x), INSUFFICIENT_DATA(x), AND, OR, NOT, TRUE, FALSE.

    `x` is the name of an alarm or its ARN; one that is not in `states` is a KeyError, since CloudWatch
    refuses a rule that names nothing.
    """

    def atom(found: re.Match[str]) -> str:
        name = found[2].strip().strip("'\"").split(":alarm:")[-1]
        return str(states[name] == found[1])

    text = re.sub(r"\b(ALARM|OK|INSUFFICIENT_DATA)\s*\(\s*(\"[^\"]*\"|'[^']*'|[^()]*)\s*\)", atom, rule)
    for word, python in (("AND", "and"), ("OR", "or"), ("NOT", "not"), ("TRUE", "True"), ("FALSE", "False")):
        text = re.sub(rf"\b{word}\b", python, text)
    return "ALARM" if _truth(ast.parse(text.strip(), mode="eval").body) else "OK"


def _truth(node: ast.expr) -> bool:
    match node:
        case ast.Constant(value=bool() as value):
            return value
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return not _truth(operand)
        case ast.BoolOp(op=ast.And(), values=parts):
            return all(_truth(part) for part in parts)
        case ast.BoolOp(op=ast.Or(), values=parts):
            return any(_truth(part) for part in parts)
    raise NotUnderstood(ast.unparse(node))


def percentile(samples: Mapping[float, float], percent: float) -> Point:
    """A percentile of values with their counts, between the two nearest ranks.

    AWS does not say how it interpolates, so what is judged by it must not lie at the edge. There is
    none of negative values.
    """
    ordered = sorted((value, count) for value, count in samples.items() if count > 0)
    total = sum(count for _, count in ordered)
    if not ordered or ordered[0][0] < 0:
        return None
    rank = percent / 100 * (total - 1) if total > 1 else 0.0
    low, part = _at(ordered, int(rank)), rank - int(rank)
    return low + part * (_at(ordered, int(rank) + 1) - low)


def _at(ordered: Sequence[tuple[float, float]], rank: int) -> float:
    """The value that stands at a rank, counted from 0, when each is written down as often as it occurred."""
    seen = 0.0
    for value, count in ordered:
        seen += count
        if rank < seen:
            return value
    return ordered[-1][0]
