//! Usage: requests of each consumer, by day and class of route.

use super::notation::{day_of, parse_day, show_day};
use super::page::{Paging, bad};
use super::problem::{Code, Problem};
use super::{Api, Outcome, query};
use crate::auth::UnixTime;
use crate::limits::usage::{Day, UsageCount, UsageQuery};
use axum::extract::State;
use http::Uri;
use serde_json::{Value, json};

/// Days that are told unless the query says otherwise, today among them.
const DAYS: u32 = 30;

pub(super) async fn list(State(api): Api, uri: Uri) -> Outcome {
    let query = query(&uri, &["consumer", "from", "to", "limit", "cursor"])?;
    let day = |name: &str| match query.find(name) {
        None => Ok(None),
        Some(text) => parse_day(text)
            .map(Some)
            .ok_or_else(|| bad(format!("`{name}` is a day like `2027-01-31`, in UTC"))),
    };
    let to = day("to")?.unwrap_or_else(|| day_of(UnixTime::now(&api.clock)));
    let from = day("from")?.unwrap_or_else(|| Day(to.0.saturating_sub(DAYS - 1)));
    if from > to {
        return Err(bad("`from` is after `to`".to_owned()));
    }
    let consumer = query.find("consumer");
    // Not the days: the default ones move at midnight, and a page goes on from its place anyway.
    let paging = query.paging(format!("usage of {consumer:?}"))?;
    let after = paging.after().map(|place| parse_place(place).ok_or_else(bad_place)).transpose()?;
    let limit = paging.wanted();
    let rows = api.ports.usage.usage(UsageQuery { consumer, from, to, after, limit }).await?;
    Ok(answer(&paging, rows))
}

fn answer(paging: &Paging, rows: Vec<UsageCount>) -> axum::response::Response {
    paging.told(rows, |row| format!("{}\0{}\0{}", row.day.0, row.consumer, row.class), show)
}

fn parse_place(place: &str) -> Option<(Day, &str, &str)> {
    let (day, rest) = place.split_once('\0')?;
    let (consumer, class) = rest.split_once('\0')?;
    Some((Day(day.parse().ok()?), consumer, class))
}

fn bad_place() -> Problem {
    Problem::new(Code::BadCursor, "send the `next_cursor` of the page before")
}

fn show(row: &UsageCount) -> Value {
    json!({
        "day": show_day(row.day),
        "consumer": &*row.consumer,
        "username": &*row.username,
        "class": &*row.class,
        "admitted": row.admitted,
        "refused": row.refused,
    })
}
