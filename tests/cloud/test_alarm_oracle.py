"""The oracle says what CloudWatch's user guide says."""

import pytest

import alarm_oracle as oracle

TREATMENTS = ("missing", "ignore", "breaching", "notBreaching")
SHORT = {"A": "ALARM", "O": "OK", "I": "INSUFFICIENT_DATA", "previous": "previous"}


def points(text: str) -> list[float | None]:
    """`0` does not breach, `X` does, `-` is missing; the newest stands right, as in the guide."""
    return [{"0": 0.0, "X": 1.0, "-": None}[mark] for mark in text.replace(" ", "")]


def judge(text: str, periods: int, to_alarm: int, treat: str, previous: oracle.State = "OK") -> oracle.State:
    """The state of an alarm on `> 0.5`."""
    return oracle.state(
        points(text),
        periods=periods,
        to_alarm=to_alarm,
        treat_missing=treat,
        comparison="GreaterThanThreshold",
        threshold=0.5,
        previous=previous,
    )


# The guide's two tables, in its order of columns.
THREE_OF_THREE = {
    "0 - X - X": ("O", "O", "O", "O"),
    "0 - - - -": ("O", "O", "O", "O"),
    "- - - - -": ("I", "previous", "A", "O"),
    "0 X X - X": ("A", "A", "A", "A"),
    "- - X - -": ("A", "previous", "A", "O"),
}
TWO_OF_THREE = {
    "0 - X - X": ("A", "A", "A", "A"),
    "0 0 X 0 X": ("A", "A", "A", "A"),
    "0 - X - -": ("O", "O", "A", "O"),
    "- - - - 0": ("O", "O", "A", "O"),
    "- - - X -": ("A", "previous", "A", "O"),
}
ROWS = [
    (text, to_alarm, treat, expected)
    for to_alarm, table in ((3, THREE_OF_THREE), (2, TWO_OF_THREE))
    for text, row in table.items()
    for treat, expected in zip(TREATMENTS, row)
]


@pytest.mark.parametrize(("text", "to_alarm", "treat", "expected"), ROWS)
def test_a_row_of_the_guides_tables_is_judged_as_it_says(
    text: str, to_alarm: int, treat: str, expected: str
) -> None:
    for previous in ("OK", "ALARM"):
        wanted = previous if expected == "previous" else SHORT[expected]
        assert judge(text, 3, to_alarm, treat, previous) == wanted


@pytest.mark.parametrize("text", ["- - - - X", "- - - X -"])
def test_a_first_breaching_point_is_not_yet_an_alarm(text: str) -> None:
    assert judge(text, 3, 3, "missing") == "INSUFFICIENT_DATA"


def test_one_spike_does_not_make_three_of_three() -> None:
    assert judge("0 0 0 X 0", 3, 3, "breaching") == "OK"


def test_older_points_make_up_for_a_gap() -> None:
    assert judge("X X 0 - - - -", 3, 2, "notBreaching") == "ALARM"


@pytest.mark.parametrize("text", ["X", "- X", "X 0", "0 - - X - - -"])
def test_a_sparse_metric_needs_one_bad_minute_of_five(text: str) -> None:
    assert judge(text, 5, 1, "notBreaching") == "ALARM"


@pytest.mark.parametrize(
    ("comparison", "breaching"),
    [
        ("GreaterThanThreshold", [2.0]),
        ("GreaterThanOrEqualToThreshold", [1.0, 2.0]),
        ("LessThanThreshold", [0.0]),
        ("LessThanOrEqualToThreshold", [0.0, 1.0]),
    ],
)
def test_a_comparison_breaches_on_its_side_of_the_threshold(comparison: str, breaching: list[float]) -> None:
    def alarms(value: float) -> bool:
        return (
            oracle.state(
                [value], periods=1, to_alarm=1, treat_missing="missing", comparison=comparison, threshold=1
            )
            == "ALARM"
        )

    assert [value for value in (0.0, 1.0, 2.0) if alarms(value)] == breaching


@pytest.mark.parametrize(
    ("expression", "values", "expected"),
    [
        ("100 * e / r", {"e": 5, "r": 200}, 2.5),
        ("100 * e / r", {"e": 0, "r": 0}, None),
        ("100 * e / r", {"e": 5, "r": None}, None),
        ("100 * (FILL(t, 0) + FILL(e, 0)) / r", {"t": None, "e": 7, "r": 100}, 7),
        ("100 * (FILL(t, 0) + FILL(e, 0)) / r", {"t": None, "e": None, "r": None}, None),
        ("100 * e * (e >= 2) / r", {"e": 1, "r": 10}, 0),
        ("100 * e * (e >= 2) / r", {"e": 2, "r": 10}, 20),
        ("IF(t > 0, 100, u)", {"t": 1, "u": 30}, 100),
        ("IF(t > 0, 100, u)", {"t": 0, "u": 30}, 30),
        ("IF(t > 0, 100, u)", {"t": None, "u": 30}, None),
        ("IF(t > 0, 100, u)", {"t": 0, "u": None}, None),
        ("-a - 2", {"a": 3}, -5),
    ],
)
def test_metric_math_gives(expression: str, values: dict[str, float | None], expected: float | None) -> None:
    assert oracle.math(expression, values) == expected


@pytest.mark.parametrize(
    "expression", ["SUM(METRICS())", "a ** 2", "a if b else c", "0 < a < 5", "FILL(a, b)"]
)
def test_metric_math_that_is_not_understood_is_not_guessed(expression: str) -> None:
    with pytest.raises(oracle.NotUnderstood):
        oracle.math(expression, {"a": 1, "b": 1, "c": 1})


def test_an_id_that_is_not_there_is_an_error() -> None:
    with pytest.raises(KeyError):
        oracle.math("100 * e / requests", {"e": 1, "r": 1})


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ('ALARM("a") OR ALARM("b")', "ALARM"),
        ('ALARM("a") AND ALARM("b")', "OK"),
        ("ALARM(a) AND NOT ALARM(b)", "ALARM"),
        ("ALARM(arn:aws:cloudwatch:us-east-1:1:alarm:a)", "ALARM"),
        ("NOT (OK(b) OR INSUFFICIENT_DATA(c))", "OK"),
        ("INSUFFICIENT_DATA('c') AND TRUE", "ALARM"),
        ("FALSE", "OK"),
        ('ALARM("name (with) brackets")', "ALARM"),
    ],
)
def test_a_composite_follows_its_children(rule: str, expected: str) -> None:
    states: dict[str, oracle.State] = {
        "a": "ALARM",
        "b": "OK",
        "c": "INSUFFICIENT_DATA",
        "name (with) brackets": "ALARM",
    }
    assert oracle.composite(rule, states) == expected


def test_a_composite_that_names_nothing_is_an_error() -> None:
    with pytest.raises(KeyError):
        oracle.composite('ALARM("nobody")', {})


def test_a_percentile_of_values_and_counts_is_that_of_all_of_them_written_down() -> None:
    samples = {10.0: 7, 20.0: 2, 300.0: 1}
    written = sorted(value for value, count in samples.items() for _ in range(count))
    for percent in (0, 10, 50, 77, 90, 99, 100):
        rank = percent / 100 * (len(written) - 1)
        below, above = written[int(rank)], written[min(int(rank) + 1, len(written) - 1)]
        expected = below + (rank - int(rank)) * (above - below)
        assert oracle.percentile(samples, percent) == pytest.approx(expected)


def test_one_slow_request_in_fifty_is_seen_at_p99_and_one_in_a_thousand_is_not() -> None:
    assert oracle.percentile({20: 980, 900: 20}, 99) == 900
    assert oracle.percentile({20: 999, 900: 1}, 99) == 20


def test_nothing_and_negative_values_have_no_percentile() -> None:
    assert oracle.percentile({}, 99) is None
    assert oracle.percentile({5: 0}, 99) is None
    assert oracle.percentile({-1: 1, 5: 10}, 99) is None
