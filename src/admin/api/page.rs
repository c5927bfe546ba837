//! Queries, and lists in pages.
//!
//! A cursor is the place of the last row, with a checksum over that and the list it is of. It is
//! opaque, not secret: whoever may read the list may read all of it.

use super::problem::{Code, Problem};
use super::told;
use crate::auth::registry::Page;
use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::fmt::Write as _;

/// Rows of a page unless the query says otherwise.
const DEFAULT: usize = 100;
/// The most rows of a page.
const MOST: usize = 500;
/// The most rows of a page if each may be as large as a body.
const MOST_LARGE: usize = 100;

/// The parameters of a request; none is unknown, none stands twice.
pub(super) struct Query<'q>(Vec<(Cow<'q, str>, Cow<'q, str>)>);

impl<'q> Query<'q> {
    /// Reads `text`.
    pub(super) fn read(text: &'q str, known: &[&str]) -> Result<Self, Problem> {
        let mut all: Vec<(Cow<'q, str>, Cow<'q, str>)> = Vec::new();
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            if !known.contains(&&*name) {
                let known = known.join("`, `");
                return Err(bad(format!("the parameters here are `{known}`")));
            }
            if all.iter().any(|(other, _)| *other == name) {
                return Err(bad(format!("`{name}` stands twice")));
            }
            all.push((name, value));
        }
        Ok(Self(all))
    }

    /// A parameter.
    pub(super) fn find(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| &**value)
    }

    /// Which page of the list `list` is asked for.
    pub(super) fn paging(&self, list: impl Into<String>) -> Result<Paging, Problem> {
        let list = list.into();
        let limit = match self.find("limit") {
            None => DEFAULT,
            Some(text) => text
                .parse()
                .ok()
                .filter(|limit| (1..=MOST).contains(limit))
                .ok_or_else(|| bad(format!("`limit` is a number from 1 to {MOST}")))?,
        };
        let after = match self.find("cursor") {
            None => None,
            Some(cursor) => Some(open(&list, cursor).ok_or_else(|| {
                let detail = "send the `next_cursor` of the page before, with the same filters";
                Problem::new(Code::BadCursor, detail)
            })?),
        };
        Ok(Paging { list, after, limit })
    }
}

/// A query that cannot be taken.
pub(super) fn bad(detail: String) -> Problem {
    Problem::new(Code::BadQuery, detail)
}

/// A page of a list.
pub(super) struct Paging {
    list: String,
    after: Option<String>,
    limit: usize,
}

impl Paging {
    /// For rows that may be large: a page has fewer of them, whatever was asked for.
    pub(super) fn of_large_rows(self) -> Self {
        Self { limit: self.limit.min(MOST_LARGE), ..self }
    }

    /// The place of the last row that was seen.
    pub(super) fn after(&self) -> Option<&str> {
        self.after.as_deref()
    }

    /// How many rows to read: one more than the page has, which says whether there is a next one.
    pub(super) const fn wanted(&self) -> usize {
        self.limit + 1
    }

    /// What to ask the store for.
    pub(super) fn page(&self) -> Page<'_> {
        Page { after: self.after(), limit: self.wanted() }
    }

    /// The page with `rows`, of which there are at most as many as were wanted.
    pub(super) fn told<T>(
        &self,
        mut rows: Vec<T>,
        place: impl Fn(&T) -> String,
        show: impl Fn(&T) -> Value,
    ) -> Response {
        let more = rows.len() > self.limit;
        rows.truncate(self.limit);
        let next = rows.last().filter(|_| more).map(|row| seal(&self.list, &place(row)));
        let items: Vec<Value> = rows.iter().map(show).collect();
        told(StatusCode::OK, &json!({ "items": items, "next_cursor": next }))
    }
}

fn checksum(list: &str, place: &[u8]) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new();
    for part in [&list.len().to_le_bytes(), list.as_bytes(), place] {
        hasher.update(part);
    }
    hasher.finalize().to_be_bytes()
}

fn seal(list: &str, place: &str) -> String {
    let mut cursor = String::new();
    for byte in checksum(list, place.as_bytes()).iter().chain(place.as_bytes()) {
        // A text takes whatever is written to it.
        if write!(cursor, "{byte:02x}").is_err() {
            break;
        }
    }
    cursor
}

fn open(list: &str, cursor: &str) -> Option<String> {
    let digits: Vec<u8> = cursor
        .chars()
        .map(|digit| if digit.is_ascii_uppercase() { None } else { digit.to_digit(16) })
        .map(|digit| digit.and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    let bytes: Vec<u8> = pairs.iter().map(|[high, low]| (high << 4) | low).collect();
    let (sum, place) = bytes.split_first_chunk()?;
    if !rest.is_empty() || checksum(list, place) != *sum {
        return None;
    }
    String::from_utf8(place.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_place_is_found_again(list in ".*", place in "\\PC*") {
            prop_assert_eq!(open(&list, &seal(&list, &place)), Some(place));
        }

        #[test]
        fn nothing_that_is_sent_can_stop_us(list in ".*", text in ".*") {
            prop_assert_eq!(open(&list, &text), None);
            drop(Query::read(&text, &["limit"]));
        }
    }

    #[test]
    fn a_cursor_is_good_for_the_list_it_was_given_for() {
        let cursor = seal("keys", "0123456789abcDEF");
        assert_eq!(open("keys", &cursor).as_deref(), Some("0123456789abcDEF"));
        assert_eq!(open("consumers", &cursor), None);
        assert_eq!(open("key", &cursor), None);
        for place in 0..cursor.len() {
            let mut other = cursor.clone();
            other.replace_range(
                place..=place,
                if &cursor[place..=place] == "0" { "1" } else { "0" },
            );
            assert_eq!(open("keys", &other), None, "{other}");
            assert_eq!(open("keys", &cursor[..place]), None, "{place} digits");
        }
        for cursor in ["", "zz", "é", "0", &cursor.to_uppercase(), &format!("{cursor}0")] {
            assert_eq!(open("keys", cursor), None, "{cursor}");
        }
    }

    #[test]
    fn a_query_is_read_strictly() {
        let read = |text| Query::read(text, &["limit", "cursor", "consumer"]);
        let query = read("consumer=a%2Fb+c&limit=500").ok().unwrap();
        assert_eq!(query.find("consumer"), Some("a/b c"));
        assert_eq!(query.paging("x").ok().unwrap().limit, 500);
        for text in ["limits=5", "limit=5&limit=5", "=", "limit=5&x"] {
            assert_eq!(read(text).err().unwrap().code(), Code::BadQuery, "{text}");
        }
        for text in ["limit=0", "limit=501", "limit=", "limit=-1", "limit=1e2", "limit=ten"] {
            let problem = read(text).ok().unwrap().paging("x").err().unwrap();
            assert_eq!(problem.code(), Code::BadQuery, "{text}");
        }
        let problem = read("cursor=7").ok().unwrap().paging("x").err().unwrap();
        assert_eq!(problem.code(), Code::BadCursor);
    }
}
