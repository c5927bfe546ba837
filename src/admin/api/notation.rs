//! How times, spans and days are written in documents.

use super::body::{expected, text};
use crate::auth::UnixTime;
use crate::limits::usage::Day;
use serde_json::Value;
use std::time::Duration;
use time::format_description::well_known::Rfc3339;
use time::{Date, Month, OffsetDateTime};

/// Days from the first Julian day to 1970-01-01.
const EPOCH: i32 = 2_440_588;
/// The longest span: a hundred years.
const LONGEST: Duration = Duration::from_secs(36_525 * 86_400);
const SPAN: &str =
    "a span like `\"90d\"`, `\"24h\"`, `\"10min\"` or `\"30s\"`, or seconds as a number";

/// `2027-01-31T00:00:00Z`.
pub(super) fn show_time(time: UnixTime) -> String {
    i64::try_from(time.as_secs())
        .ok()
        .and_then(|secs| OffsetDateTime::from_unix_timestamp(secs).ok())
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| "9999-12-31T23:59:59Z".to_owned())
}

/// Reads `2027-01-31T00:00:00Z`.
pub(super) fn read_time(value: &Value) -> Result<UnixTime, String> {
    const WHAT: &str = "a time like `2027-01-31T00:00:00Z`";
    let text = value.as_str().ok_or_else(|| expected(WHAT, value))?;
    let time = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| format!("must be {WHAT}"))?;
    let secs = u64::try_from(time.unix_timestamp()).map_err(|_| "must be after 1970".to_owned())?;
    Ok(UnixTime::from_secs(secs))
}

/// Reads `"24h"`, or seconds as a number.
pub(super) fn read_span(value: &Value) -> Result<Duration, String> {
    let secs = match value {
        Value::Number(number) => number.as_u64(),
        _ => secs_in(&text(value).map_err(|_| expected(SPAN, value))?),
    };
    let span = Duration::from_secs(secs.ok_or_else(|| format!("must be {SPAN}"))?);
    if span <= LONGEST { Ok(span) } else { Err("must be at most 36525d".to_owned()) }
}

fn secs_in(text: &str) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit: u64 = match unit {
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

/// The day of a time.
pub(super) fn day_of(time: UnixTime) -> Day {
    Day(u32::try_from(time.as_secs() / 86_400).unwrap_or(u32::MAX))
}

/// `2027-01-31`.
pub(super) fn show_day(Day(day): Day) -> String {
    i32::try_from(day)
        .ok()
        .and_then(|day| Date::from_julian_day(EPOCH.checked_add(day)?).ok())
        .map_or_else(
            || "9999-12-31".to_owned(),
            |date| format!("{:04}-{:02}-{:02}", date.year(), u8::from(date.month()), date.day()),
        )
}

/// Reads `2027-01-31`.
pub(super) fn parse_day(text: &str) -> Option<Day> {
    let well_formed = text.len() == "2027-01-31".len()
        && text.bytes().enumerate().all(|(place, byte)| match place {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    if !well_formed {
        return None;
    }
    let year = text.get(..4)?.parse().ok()?;
    let month = Month::try_from(text.get(5..7)?.parse::<u8>().ok()?).ok()?;
    let date = Date::from_calendar_date(year, month, text.get(8..)?.parse().ok()?).ok()?;
    u32::try_from(date.to_julian_day() - EPOCH).ok().map(Day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn times_are_read_and_written_as_rfc_3339() {
        let time = read_time(&json!("2027-01-31T02:00:00+02:00")).unwrap();
        assert_eq!(show_time(time), "2027-01-31T00:00:00Z");
        for value in [
            json!("2027-01-31"),
            json!("tomorrow"),
            json!("1969-12-31T23:59:59Z"),
            json!(""),
            json!(1_800_000_000),
            json!(null),
        ] {
            assert!(read_time(&value).is_err(), "{value}");
        }
        assert_eq!(show_time(UnixTime::from_secs(u64::MAX)), "9999-12-31T23:59:59Z");
    }

    #[test]
    fn spans_are_seconds_or_a_number_with_a_unit() {
        for (value, secs) in [
            (json!(0), 0),
            (json!(90), 90),
            (json!("0s"), 0),
            (json!("10min"), 600),
            (json!("5m"), 300),
            (json!("24h"), 86_400),
            (json!("2w"), 1_209_600),
        ] {
            assert_eq!(read_span(&value).unwrap(), Duration::from_secs(secs), "{value}");
        }
        for value in [
            json!(-1),
            json!(1.5),
            json!("90"),
            json!("d"),
            json!("-1h"),
            json!("90 d"),
            json!("1y"),
            json!("99999999999999999999d"),
            json!("36526d"),
            json!([]),
        ] {
            assert!(read_span(&value).is_err(), "{value}");
        }
    }

    #[test]
    fn days_are_read_strictly_and_written_back() {
        for (text, day) in [("1970-01-01", 0), ("1970-03-01", 59), ("2028-02-29", 21_243)] {
            assert_eq!(parse_day(text), Some(Day(day)), "{text}");
            assert_eq!(show_day(Day(day)), text);
        }
        for text in [
            "",
            "2027",
            "2027-1-1",
            "2027-02-29",
            "2027-13-01",
            "1969-12-31",
            "+027-01-01",
            "٢٠٢٧-0",
        ] {
            assert_eq!(parse_day(text), None, "{text}");
        }
        assert_eq!(day_of(UnixTime::from_secs(86_400 * 59 + 1)), Day(59));
    }
}
