//! What the commands on consumers and keys share: the store, where they print, and how.

use crate::auth::UnixTime;
use crate::auth::api_key::KeyId;
use crate::auth::registry::{Actor, KeyInfo, Page, Registry, RegistryError};
use crate::telemetry::Clock;
use anyhow::{Context as _, bail};
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Rows that are read from the store at once.
pub(super) const PAGE: usize = 500;
/// Consumers among which a similar name is looked for.
const SEARCHED: usize = 20_000;
/// The least similarity that is worth a suggestion.
const SIMILAR: f64 = 0.8;

/// The store, and where to print.
pub struct Ledger<'a> {
    /// Consumers and keys.
    pub registry: &'a dyn Registry,
    /// Who writes.
    pub actor: &'a Actor,
    /// The plans that the configuration knows.
    pub plans: &'a [Arc<str>],
    /// The time.
    pub clock: &'a Clock,
    /// Whether to print JSON instead of tables.
    pub json: bool,
    /// Results.
    pub out: &'a mut dyn Write,
    /// Warnings.
    pub err: &'a mut dyn Write,
}

impl Ledger<'_> {
    /// Prints a value as JSON.
    pub(super) fn print_json(&mut self, value: &serde_json::Value) -> anyhow::Result<()> {
        writeln!(self.out, "{value:#}").context("the result could not be printed")
    }

    /// Prints a line.
    pub(super) fn print(&mut self, line: &str) -> anyhow::Result<()> {
        // In one piece: a reader that goes after the first part must not look like one that never was.
        self.out
            .write_all(format!("{line}\n").as_bytes())
            .and_then(|()| self.out.flush())
            .context("the result could not be printed")
    }

    /// Prints rows below their headings, each column as wide as its widest cell.
    pub(super) fn print_table<const N: usize>(
        &mut self,
        headings: [&str; N],
        rows: &[[String; N]],
    ) -> anyhow::Result<()> {
        let mut widths = headings.map(str::len);
        for row in rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.len());
            }
        }
        self.print_row(&headings.map(str::to_owned), &widths)?;
        rows.iter().try_for_each(|row| self.print_row(row, &widths))
    }

    fn print_row(&mut self, cells: &[String], widths: &[usize]) -> anyhow::Result<()> {
        let padded: Vec<String> =
            cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        self.print(padded.join("  ").trim_end())
    }

    /// Warns of a plan that the configuration does not know: whoever has it is refused.
    pub(super) fn warn_of_unknown_plan(&mut self, plan: &str) -> anyhow::Result<()> {
        if self.plans.iter().any(|known| &**known == plan) {
            return Ok(());
        }
        let known: Vec<&str> = self.plans.iter().map(|plan| &**plan).collect();
        let hint = match nearest(plan, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if known.is_empty() => "the configuration has no plans".to_owned(),
            None => format!("the configuration has `{}`", known.join("`, `")),
        };
        writeln!(
            self.err,
            "warning: no plan is called `{plan}`; requests are refused until there is one: {hint}"
        )
        .context("a warning could not be printed")
    }

    /// The error with a way out.
    pub(super) async fn explain(&self, error: RegistryError) -> anyhow::Error {
        match &error {
            RegistryError::UnknownConsumer(name) => {
                let hint = match self.similar_consumer(name).await {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "`gateway consumers list` shows all".to_owned(),
                };
                anyhow::anyhow!("{error}; {hint}")
            }
            RegistryError::UnknownKey(_) => {
                anyhow::anyhow!("{error}; `gateway keys list` shows all")
            }
            _ => error.into(),
        }
    }

    async fn similar_consumer(&self, name: &str) -> Option<Arc<str>> {
        let mut names: Vec<Arc<str>> = Vec::new();
        while names.len() < SEARCHED {
            let page = Page { after: names.last().map(|name| &**name), limit: PAGE };
            // Without the list there is no suggestion, and the first error is the one that counts.
            let consumers = self.registry.consumers(page).await.ok()?;
            let is_last = consumers.len() < PAGE;
            names.extend(consumers.into_iter().map(|info| info.consumer.username));
            if is_last {
                break;
            }
        }
        nearest(name, names.iter().map(|name| &**name)).map(Arc::from)
    }
}

/// All keys by id, of one consumer or of everybody.
pub(super) async fn all_keys(
    registry: &dyn Registry,
    consumer: Option<&str>,
) -> Result<Vec<KeyInfo>, RegistryError> {
    let mut all: Vec<KeyInfo> = Vec::new();
    loop {
        let after = all.last().map(|info| info.id);
        let page = Page { after: after.as_ref().map(KeyId::as_str), limit: PAGE };
        let page = registry.keys(consumer, page).await?;
        let is_last = page.len() < PAGE;
        all.extend(page);
        if is_last {
            return Ok(all);
        }
    }
}

/// The most similar of `names`, if it is similar enough.
fn nearest<'n>(name: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    names
        .map(|known| (strsim::jaro_winkler(name, known), known))
        .filter(|(similarity, _)| *similarity >= SIMILAR)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, known)| known)
}

/// `2027-01-31T00:00:00Z`.
pub(super) fn show_time(time: UnixTime) -> String {
    i64::try_from(time.as_secs())
        .ok()
        .and_then(|secs| OffsetDateTime::from_unix_timestamp(secs).ok())
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| format!("{} s after 1970", time.as_secs()))
}

/// Reads `2027-01-31T00:00:00Z`.
pub(super) fn parse_time(text: &str) -> anyhow::Result<UnixTime> {
    let time = OffsetDateTime::parse(text, &Rfc3339)
        .map_err(|_| anyhow::anyhow!("expected a time like `2027-01-31T00:00:00Z`"))?;
    let secs = u64::try_from(time.unix_timestamp()).context("times begin in 1970")?;
    Ok(UnixTime::from_secs(secs))
}

/// Reads `90d`, `24h`, `10min` or `30s`.
pub(super) fn parse_span(text: &str) -> anyhow::Result<Duration> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit: u64 = match unit {
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 604_800,
        _ => bail!("expected a span like `90d`, `24h`, `10min` or `30s`"),
    };
    let number: u64 =
        number.parse().map_err(|_| anyhow::anyhow!("expected a span like `90d` or `24h`"))?;
    let secs = number.checked_mul(unit).context("this span is too long")?;
    Ok(Duration::from_secs(secs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_times_are_read_strictly() {
        for (text, secs) in [
            ("30s", 30),
            ("10min", 600),
            ("5m", 300),
            ("24h", 86_400),
            ("0s", 0),
            ("2w", 1_209_600),
        ] {
            assert_eq!(parse_span(text).unwrap(), Duration::from_secs(secs), "{text}");
        }
        for text in ["", "90", "d", "1.5h", "-1h", "90 d", "1y", "99999999999999999999d"] {
            assert!(parse_span(text).is_err(), "{text}");
        }
        let time = parse_time("2027-01-31T02:00:00+02:00").unwrap();
        assert_eq!(show_time(time), "2027-01-31T00:00:00Z");
        for text in ["2027-01-31", "tomorrow", "1969-12-31T23:59:59Z"] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_typing_error_finds_its_name() {
        let plans = ["free", "pro", "enterprise"];
        assert_eq!(nearest("enterprize", plans.into_iter()), Some("enterprise"));
        assert_eq!(nearest("gold", plans.into_iter()), None);
    }
}
