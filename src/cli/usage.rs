//! `gateway usage`: what consumers have used, by day and class of routes.

use super::ledger::{Ledger, PAGE};
use super::notation::{day_of, first_of_month, parse_day, show_day};
use crate::auth::UnixTime;
use crate::limits::usage::{Day, UsageCount, UsageQuery};
use anyhow::bail;
use serde_json::{Value, json};

/// Options of `gateway usage`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only of this consumer: its username or its id.
    #[arg(long, value_name = "NAME")]
    pub consumer: Option<String>,
    /// From this day on, like 2027-01-31; the first of the month without it. Days are those of UTC.
    #[arg(long, value_name = "DAY", value_parser = parse_day)]
    pub from: Option<Day>,
    /// To this day, included; today without it.
    #[arg(long, value_name = "DAY", value_parser = parse_day)]
    pub to: Option<Day>,
    /// Print JSON instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// Prints what was used.
///
/// # Errors
/// What went wrong, and what to do about it.
pub async fn run(args: &Args, ledger: &mut Ledger<'_>) -> anyhow::Result<()> {
    let done = list(args, ledger).await;
    ledger.end(done).await
}

async fn list(args: &Args, ledger: &mut Ledger<'_>) -> anyhow::Result<()> {
    let to = args.to.unwrap_or_else(|| day_of(UnixTime::now(ledger.clock)));
    let from = args.from.unwrap_or_else(|| first_of_month(to));
    if from > to {
        bail!(
            "nothing lies from {} to {}: the first day is after the last",
            show_day(from),
            show_day(to)
        );
    }
    let rows = read(ledger, args.consumer.as_deref(), from, to).await?;
    if let (Some(name), true) = (&args.consumer, rows.is_empty()) {
        // Usage outlives its consumer; but a name that never was is a mistake.
        ledger.store.consumer(name).await?;
    }
    let total = |count: fn(&UsageCount) -> u64| rows.iter().map(count).fold(0, u64::saturating_add);
    let (admitted, refused) = (total(|row| row.admitted), total(|row| row.refused));
    if ledger.json {
        return ledger.print_json(&json!({
            "from": show_day(from),
            "to": show_day(to),
            "usage": rows.iter().map(to_json).collect::<Vec<_>>(),
            "total": { "admitted": admitted, "refused": refused },
        }));
    }
    if rows.is_empty() {
        let (from, to) = (show_day(from), show_day(to));
        return ledger.print(&format!("nothing was used from {from} to {to}"));
    }
    let mut table: Vec<_> = rows.iter().map(to_row).collect();
    let blank = String::new;
    table.push(["TOTAL".to_owned(), blank(), blank(), admitted.to_string(), refused.to_string()]);
    ledger.print_table(["DAY", "CONSUMER", "CLASS", "ADMITTED", "REFUSED"], &table)
}

async fn read(
    ledger: &Ledger<'_>,
    consumer: Option<&str>,
    from: Day,
    to: Day,
) -> anyhow::Result<Vec<UsageCount>> {
    let mut all: Vec<UsageCount> = Vec::new();
    loop {
        let after = all.last().map(|row| (row.day, &*row.consumer, &*row.class));
        let page = UsageQuery { consumer, from, to, after, limit: PAGE };
        let page = ledger.store.usage(page).await?;
        let is_last = page.len() < PAGE;
        all.extend(page);
        if is_last {
            return Ok(all);
        }
    }
}

fn to_row(row: &UsageCount) -> [String; 5] {
    [
        show_day(row.day),
        row.username.to_string(),
        row.class.to_string(),
        row.admitted.to_string(),
        row.refused.to_string(),
    ]
}

fn to_json(row: &UsageCount) -> Value {
    json!({
        "day": show_day(row.day),
        "consumer": &*row.consumer,
        "username": &*row.username,
        "class": &*row.class,
        "admitted": row.admitted,
        "refused": row.refused,
    })
}
