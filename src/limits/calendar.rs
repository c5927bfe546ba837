//! Calendar periods in UTC.

use super::rule::QuotaPeriod;
use std::time::Duration;
use time::{Date, OffsetDateTime, Time};

/// One period of a quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    /// When it began, in seconds since 1970.
    pub(super) starts: u64,
    /// When it ends.
    pub(super) ends: u64,
}

impl Span {
    /// The period that `now`, a time since 1970, is in.
    pub(super) fn around(per: QuotaPeriod, now: Duration) -> Self {
        let every = |length: u64| {
            let starts = now.as_secs() / length * length;
            Self { starts, ends: starts + length }
        };
        match per {
            QuotaPeriod::Minute => every(60),
            QuotaPeriod::Hour => every(3_600),
            QuotaPeriod::Day => every(86_400),
            QuotaPeriod::Month => month(now).unwrap_or_else(|| every(86_400)),
        }
    }

    /// How long it still lasts.
    pub(super) fn left(self, now: Duration) -> Duration {
        Duration::from_secs(self.ends).saturating_sub(now)
    }
}

/// The length that clients are told; of a month, the longest.
pub(super) const fn length(per: QuotaPeriod) -> Duration {
    Duration::from_secs(match per {
        QuotaPeriod::Minute => 60,
        QuotaPeriod::Hour => 3_600,
        QuotaPeriod::Day => 86_400,
        QuotaPeriod::Month => 31 * 86_400,
    })
}

/// `None` beyond the year 9999.
fn month(now: Duration) -> Option<Span> {
    let today = OffsetDateTime::from_unix_timestamp(i64::try_from(now.as_secs()).ok()?).ok()?;
    let first = today.date().replace_day(1).ok()?;
    let next = match first.month() {
        time::Month::December => {
            Date::from_calendar_date(first.year() + 1, time::Month::January, 1)
        }
        month => Date::from_calendar_date(first.year(), month.next(), 1),
    };
    let seconds = |date: Date| {
        u64::try_from(date.with_time(Time::MIDNIGHT).assume_utc().unix_timestamp()).ok()
    };
    Some(Span { starts: seconds(first)?, ends: seconds(next.ok()?)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_begin_and_end_on_the_calendar() {
        let at = |text: &str| {
            let time = OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339);
            Duration::from_secs(u64::try_from(time.unwrap().unix_timestamp()).unwrap())
        };
        use QuotaPeriod::{Day, Hour, Minute, Month};
        let table = [
            (Minute, "2026-11-24T23:59:59Z", "2026-11-24T23:59:00Z", "2026-11-25T00:00:00Z"),
            (Hour, "2026-11-24T23:00:00Z", "2026-11-24T23:00:00Z", "2026-11-25T00:00:00Z"),
            (Day, "2026-12-31T12:00:00Z", "2026-12-31T00:00:00Z", "2027-01-01T00:00:00Z"),
            (Month, "2028-02-29T12:00:00Z", "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z"),
            (Month, "2026-12-31T23:59:59Z", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"),
            (Month, "2027-01-01T00:00:00Z", "2027-01-01T00:00:00Z", "2027-02-01T00:00:00Z"),
        ];
        for (per, now, starts, ends) in table {
            let span = Span::around(per, at(now));
            assert_eq!(
                (span.starts, span.ends),
                (at(starts).as_secs(), at(ends).as_secs()),
                "{now}"
            );
            assert_eq!(span.left(at(now)), at(ends) - at(now));
            assert!(span.left(at(ends)).is_zero());
        }
    }
}
