//! `gateway tokens`: takes tokens back before they end.

use super::ledger::{Ledger, PAGE, hint};
use super::notation::{parse_span, parse_time, show_time};
use crate::auth::UnixTime;
use crate::auth::denials::{Denial, DeniedTokens, NewDenial};
use crate::auth::registry::Page;
use anyhow::bail;
use serde_json::{Value, json};
use std::time::Duration;

/// Deny tokens, list what is denied, and allow them again.
#[derive(Debug, clap::Args)]
pub struct Tokens {
    /// Print JSON instead of tables.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do with the deny list.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Take an entry off the list.
    Allow {
        /// Id of the entry.
        id: String,
    },
    /// Refuse a token, or all tokens of a subject that were issued so far.
    Deny(Deny),
    /// Print all entries that have not ended.
    List,
}

/// Which tokens are denied, and for how long.
#[derive(Debug, clap::Args)]
pub struct Deny {
    /// Who issued them: the name of an `[auth.jwt.*]` table, or `mtls` for client certificates.
    #[arg(long, value_name = "NAME")]
    pub issuer: String,
    /// The one token or the subject.
    #[command(flatten)]
    pub which: Which,
    /// Only those that were issued before this time, like 2027-01-31T00:00:00Z; now without it.
    #[arg(long, value_name = "TIME", value_parser = parse_time, conflicts_with = "jti")]
    pub issued_before: Option<UnixTime>,
    /// When the entry ends.
    #[command(flatten)]
    pub end: End,
    /// Why, for those who read the list.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// Which tokens.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct Which {
    /// The token with this id: its `jti` claim, or the SHA-256 of a certificate.
    #[arg(long, value_name = "ID")]
    pub jti: Option<String>,
    /// All tokens of this subject: their `sub` claim, or the name in a certificate.
    #[arg(long, value_name = "SUB")]
    pub subject: Option<String>,
}

/// When the last of the tokens has ended anyway.
#[derive(Clone, Copy, Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct End {
    /// At this time, like 2027-01-31T00:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub until: Option<UnixTime>,
    /// After this span, like 24h: the longest life of such a token.
    #[arg(long = "for", value_name = "SPAN", value_parser = parse_span)]
    pub span: Option<Duration>,
}

/// Does it.
///
/// # Errors
/// What went wrong, and what to do about it.
pub async fn run(command: Command, ledger: &mut Ledger<'_>) -> anyhow::Result<()> {
    let done = match command {
        Command::Allow { id } => allow(ledger, &id).await,
        Command::Deny(args) => deny(ledger, args).await,
        Command::List => list(ledger).await,
    };
    ledger.end(done).await
}

async fn deny(ledger: &mut Ledger<'_>, args: Deny) -> anyhow::Result<()> {
    refuse_unknown_issuer(ledger, &args.issuer)?;
    let now = UnixTime::now(ledger.clock);
    let tokens = match (args.which.jti, args.which.subject) {
        (Some(jti), _) => DeniedTokens::Id(jti.into()),
        (None, subject) => DeniedTokens::Subject {
            subject: subject.unwrap_or_default().into(),
            issued_before: args.issued_before.unwrap_or(now),
        },
    };
    let until = match (args.end.until, args.end.span) {
        (Some(time), _) => time,
        (None, span) => now.after(span.unwrap_or_default()),
    };
    let new = NewDenial { issuer: args.issuer, tokens, until, reason: args.reason };
    let denial = ledger.store.deny(ledger.actor, new).await?;
    print_one(ledger, &denial, "denied: running gateways refuse them within a second")
}

/// An entry under another name would refuse nothing, while whoever wrote it believes that it does.
fn refuse_unknown_issuer(ledger: &Ledger<'_>, issuer: &str) -> anyhow::Result<()> {
    let known = &ledger.names.issuers;
    if known.iter().any(|name| **name == *issuer) {
        return Ok(());
    }
    let hint = hint(issuer, known);
    bail!("no issuer is called `{issuer}`, so nothing would be refused: {hint}")
}

async fn allow(ledger: &mut Ledger<'_>, id: &str) -> anyhow::Result<()> {
    let denial = ledger.store.allow(ledger.actor, id).await?;
    if ledger.json {
        return ledger.print_json(&to_json(&denial));
    }
    let id = denial.id;
    ledger.print(&format!("removed entry `{id}`: what it alone denied is accepted again"))
}

async fn list(ledger: &mut Ledger<'_>) -> anyhow::Result<()> {
    let mut all: Vec<Denial> = Vec::new();
    loop {
        let after = all.last().map(|denial| &*denial.id);
        let page = ledger.store.denials(Page { after, limit: PAGE }).await?;
        let is_last = page.len() < PAGE;
        all.extend(page);
        if is_last {
            break;
        }
    }
    if ledger.json {
        return ledger.print_json(&all.iter().map(to_json).collect());
    }
    if all.is_empty() {
        return ledger.print("no tokens are denied");
    }
    let rows: Vec<_> = all.iter().map(to_row).collect();
    ledger.print_table(HEADINGS, &rows)
}

fn print_one(ledger: &mut Ledger<'_>, denial: &Denial, note: &str) -> anyhow::Result<()> {
    if ledger.json {
        return ledger.print_json(&to_json(denial));
    }
    ledger.print_table(HEADINGS, &[to_row(denial)])?;
    ledger.print(note)
}

const HEADINGS: [&str; 6] = ["ID", "ISSUER", "TOKENS", "UNTIL", "REASON", "MADE"];

fn to_row(denial: &Denial) -> [String; 6] {
    let tokens = match &denial.tokens {
        DeniedTokens::Id(id) => format!("jti {id}"),
        DeniedTokens::Subject { subject, issued_before } => {
            format!("sub {subject}, issued before {}", show_time(*issued_before))
        }
    };
    [
        denial.id.to_string(),
        denial.issuer.to_string(),
        tokens,
        show_time(denial.until),
        denial.reason.as_deref().unwrap_or("-").to_owned(),
        show_time(denial.created_at),
    ]
}

fn to_json(denial: &Denial) -> Value {
    let (jti, subject, issued_before) = match &denial.tokens {
        DeniedTokens::Id(id) => (Some(&**id), None, None),
        DeniedTokens::Subject { subject, issued_before } => {
            (None, Some(&**subject), Some(show_time(*issued_before)))
        }
    };
    json!({
        "id": &*denial.id,
        "issuer": &*denial.issuer,
        "jti": jti,
        "subject": subject,
        "issued_before": issued_before,
        "until": show_time(denial.until),
        "reason": denial.reason.as_deref(),
        "created_at": show_time(denial.created_at),
    })
}
