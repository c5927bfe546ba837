//! `gateway audit`: who changed what, and when.

use super::ledger::{Ledger, PAGE};
use super::notation::show_time;
use crate::auth::audit::AuditEntry;
use serde_json::{Value, json};

/// Options of `gateway audit`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// So many of the last changes.
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub limit: usize,
    /// Print JSON instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// Prints the last changes, the newest first.
///
/// # Errors
/// What went wrong, and what to do about it.
pub async fn run(args: &Args, ledger: &mut Ledger<'_>) -> anyhow::Result<()> {
    let done = list(args.limit, ledger).await;
    ledger.end(done).await
}

async fn list(limit: usize, ledger: &mut Ledger<'_>) -> anyhow::Result<()> {
    let mut all: Vec<AuditEntry> = Vec::new();
    while all.len() < limit {
        let before = all.last().map(|entry| entry.id);
        let wanted = PAGE.min(limit - all.len());
        let page = ledger.store.audit(before, wanted).await?;
        let is_last = page.len() < wanted;
        all.extend(page);
        if is_last {
            break;
        }
    }
    if ledger.json {
        return ledger.print_json(&all.iter().map(to_json).collect());
    }
    if all.is_empty() {
        return ledger.print("nothing was changed yet");
    }
    let rows: Vec<_> = all.iter().map(to_row).collect();
    ledger.print_table(["TIME", "WHO", "WHAT", "ON", "MORE"], &rows)
}

fn to_row(entry: &AuditEntry) -> [String; 5] {
    [
        show_time(entry.at),
        entry.actor.to_string(),
        entry.action.to_string(),
        entry.subject.to_string(),
        show_detail(&entry.detail),
    ]
}

/// `plan=pro before=free`: what is not there is left out.
fn show_detail(detail: &Value) -> String {
    let Value::Object(members) = detail else {
        return detail.to_string();
    };
    let said = members.iter().filter_map(|(name, value)| match value {
        Value::Null => None,
        Value::Array(items) if items.is_empty() => None,
        Value::String(text) if !text.contains([' ', '"', '=']) => Some(format!("{name}={text}")),
        value => Some(format!("{name}={value}")),
    });
    said.collect::<Vec<_>>().join(" ")
}

fn to_json(entry: &AuditEntry) -> Value {
    json!({
        "id": entry.id,
        "at": show_time(entry.at),
        "actor": &*entry.actor,
        "action": &*entry.action,
        "subject": &*entry.subject,
        "detail": entry.detail,
    })
}
