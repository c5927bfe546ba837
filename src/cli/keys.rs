//! `gateway keys`: issue, list, rotate and revoke API keys.
//!
//! Must stay true: a key is printed once, when it is made; nothing else here has ever seen it.

use super::ledger::{Ledger, PAGE, all_keys};
use super::notation::{parse_span, parse_time, show_time};
use super::peppers;
use crate::auth::api_key::{KeyForm, KeyId, PlainKey, Standing};
use crate::auth::documents::DocumentKind;
use crate::auth::registry::{KeyInfo, NewKey, Page, Rotation};
use crate::auth::{ApiKeys, UnixTime, parse_network};
use anyhow::Context as _;
use ipnet::IpNet;
use serde_json::{Value, json};
use std::time::Duration;

/// Issue, list, rotate and revoke API keys.
#[derive(Debug, clap::Args)]
pub struct Keys {
    /// Print JSON instead of tables.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// When a key ends.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
#[group(multiple = false)]
pub struct End {
    /// It ends at this time, like 2027-01-31T00:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub expires_at: Option<UnixTime>,
    /// It ends after this span, like 90d or 24h.
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    pub expires_in: Option<Duration>,
}

impl End {
    fn at(self, now: UnixTime) -> Option<UnixTime> {
        self.expires_at.or_else(|| self.expires_in.map(|span| now.after(span)))
    }
}

/// What to do with keys. A key is named by its id, or by all of it.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Make a key for a consumer and print it, once.
    Issue {
        /// Username or id of the consumer.
        consumer: String,
        /// What you call it.
        #[arg(long)]
        name: Option<String>,
        /// Its own plan, instead of the consumer's.
        #[arg(long)]
        plan: Option<String>,
        /// What it may do; can be said several times.
        #[arg(long = "scope", value_name = "SCOPE")]
        scopes: Vec<String>,
        /// A network that it works from, like 10.0.0.0/8; can be said several times; from anywhere
        /// without it.
        #[arg(long = "address", value_name = "NETWORK", value_parser = parse_network)]
        addresses: Vec<IpNet>,
        /// It begins at this time, like 2027-01-31T00:00:00Z; at once without it.
        #[arg(long, value_name = "TIME", value_parser = parse_time)]
        not_before: Option<UnixTime>,
        /// When it ends; never without it.
        #[command(flatten)]
        end: End,
    },
    /// Print keys, of one consumer or of all; never the secret parts.
    List {
        /// Username or id of the consumer.
        consumer: Option<String>,
    },
    /// Print how many keys need which pepper: whether a previous one can be removed.
    Peppers,
    /// Take a key back, for good; running gateways refuse it within a second.
    Revoke {
        /// Id of the key.
        key: String,
    },
    /// Make a key that takes over from another one, which ends after an overlap.
    Rotate {
        /// Id of the old key.
        key: String,
        /// How long the old key lives on, like 24h; 0s ends it at once.
        #[arg(long, value_name = "SPAN", value_parser = parse_span, default_value = "24h")]
        overlap: Duration,
        /// When the new key ends; without it, it lives as long as the old one was meant to.
        #[command(flatten)]
        end: End,
    },
}

/// What the state of a key depends on, beside the key itself.
struct View {
    now: UnixTime,
    form: KeyForm,
}

impl View {
    fn of(ledger: &Ledger<'_>, keys: &ApiKeys) -> Self {
        Self { now: UnixTime::now(ledger.clock), form: KeyForm::new(keys) }
    }
}

/// Does it.
///
/// # Errors
/// What went wrong, and what to do about it.
pub async fn run(command: Command, keys: &ApiKeys, ledger: &mut Ledger<'_>) -> anyhow::Result<()> {
    let done = carry_out(command, keys, ledger).await;
    ledger.end(done).await
}

async fn carry_out(
    command: Command,
    keys: &ApiKeys,
    ledger: &mut Ledger<'_>,
) -> anyhow::Result<()> {
    let view = View::of(ledger, keys);
    let now = view.now;
    match command {
        Command::Issue { consumer, name, plan, scopes, addresses, not_before, end } => {
            let (plain, proof) = KeyForm::new(keys).generate()?;
            let expires_at = match end {
                End { expires_in: Some(span), .. } => {
                    Some(not_before.unwrap_or_default().max(now).after(span))
                }
                end => end.at(now),
            };
            let new =
                NewKey { proof, consumer, name, plan, scopes, addresses, not_before, expires_at };
            let issued = ledger.store.issue_key(ledger.actor, new).await?;
            print_issued(ledger, keys, &plain, &issued, None)?;
            warn_of_refusals(ledger, &issued).await?;
            warn_of_pepper(ledger, &issued, &view).await
        }
        Command::List { consumer } => list(ledger, consumer.as_deref(), &view).await,
        Command::Peppers => peppers::list(ledger, keys).await,
        Command::Revoke { key } => {
            let revoked = ledger.store.revoke_key(ledger.actor, parse_id(&key)?).await?;
            if ledger.json {
                return ledger.print_json(&to_json(&revoked, &view));
            }
            ledger.print(&format!(
                "revoked `{}` of `{}`; running gateways refuse it within a second",
                revoked.id, revoked.consumer
            ))
        }
        Command::Rotate { key, overlap, end } => {
            let id = parse_id(&key)?;
            let old = ledger.store.key(id).await?;
            let lifetime = old.expires_at.map(|end| {
                let begin = old.not_before.unwrap_or(old.created_at);
                Duration::from_secs(end.as_secs().saturating_sub(begin.as_secs()))
            });
            let expires_at = end.at(now).or_else(|| lifetime.map(|span| now.after(span)));
            let (plain, proof) = KeyForm::new(keys).generate()?;
            let rotation = Rotation { proof, expires_at, overlap };
            let (old, new) = ledger.store.rotate_key(ledger.actor, id, rotation).await?;
            print_issued(ledger, keys, &plain, &new, Some(&old))
        }
    }
}

/// Warns of what keeps a new key from working, beside the key itself.
async fn warn_of_refusals(ledger: &mut Ledger<'_>, issued: &KeyInfo) -> anyhow::Result<()> {
    let owner = ledger.store.consumer(&issued.consumer).await?.consumer;
    let plan = issued.plan.as_ref().unwrap_or(&owner.plan);
    ledger.warn_of_unknown(DocumentKind::Plan, plan).await?;
    if owner.enabled {
        return Ok(());
    }
    let name = owner.username;
    ledger.warn(&format!(
        "`{name}` is disabled, its keys are refused: gateway consumers enable {name}"
    ))
}

/// Warns when nobody else's key was made under this pepper: the gateway may run with theirs.
async fn warn_of_pepper(
    ledger: &mut Ledger<'_>,
    issued: &KeyInfo,
    view: &View,
) -> anyhow::Result<()> {
    let now = view.now;
    // Ids are random, so one page is a sample of all.
    let page = ledger.store.keys(None, Page { after: None, limit: PAGE }).await?;
    let mut others = page.iter().filter(|key| key.id != issued.id && key.is_live(now)).peekable();
    if others.peek().is_none()
        || others.any(|key| view.form.standing(key.pepper) != Standing::Other)
    {
        return Ok(());
    }
    ledger.warn(
        "all other keys were made under another pepper; a gateway that runs with theirs refuses \
         this one: give this command the gateway's `API_KEY_PEPPER` or configuration",
    )
}

/// Prints a new key: the only time that anyone sees it.
fn print_issued(
    ledger: &mut Ledger<'_>,
    keys: &ApiKeys,
    plain: &PlainKey,
    issued: &KeyInfo,
    old: Option<&KeyInfo>,
) -> anyhow::Result<()> {
    let view = View::of(ledger, keys);
    let printed = if ledger.json {
        let mut value = to_json(issued, &view);
        if let Value::Object(members) = &mut value {
            members.insert("key".to_owned(), json!(plain.reveal()));
            if let Some(old) = old {
                members.insert("replaces".to_owned(), to_json(old, &view));
            }
        }
        ledger.print_json(&value)
    } else {
        ledger.print(&describe_issued(keys, plain, issued, old))
    };
    printed.with_context(|| {
        format!(
            "the key is stored but could not be printed, so nobody has it: \
             take it back with `gateway keys revoke {}`",
            issued.id
        )
    })
}

fn describe_issued(
    keys: &ApiKeys,
    plain: &PlainKey,
    issued: &KeyInfo,
    old: Option<&KeyInfo>,
) -> String {
    let or_never = |end: Option<UnixTime>| end.map_or_else(|| "never".to_owned(), show_time);
    let mut text = format!(
        "{}\n\nid        {}\nconsumer  {}\nscopes    {}\nends      {}\n",
        plain.reveal(),
        issued.id,
        issued.consumer,
        show_scopes(issued),
        or_never(issued.expires_at),
    );
    if let Some(addresses) = show_addresses(issued) {
        text.push_str(&format!("from      {addresses}\n"));
    }
    if let Some(old) = old {
        let end = or_never(old.expires_at);
        text.push_str(&format!("replaces  {}, which ends {end}\n", old.id));
    }
    text.push_str(&format!(
        "\nKeep it now: only a digest is stored, it cannot be shown again.\n\
         Clients send it as `{}: <key>`.",
        keys.header
    ));
    text
}

async fn list(ledger: &mut Ledger<'_>, consumer: Option<&str>, view: &View) -> anyhow::Result<()> {
    let mut all = all_keys(ledger.store, consumer).await?;
    all.sort_by(|one, other| {
        (&one.consumer, one.created_at, one.id).cmp(&(&other.consumer, other.created_at, other.id))
    });
    if ledger.json {
        return ledger.print_json(&all.iter().map(|info| to_json(info, view)).collect());
    }
    if all.is_empty() {
        return ledger.print("no keys yet; issue one: gateway keys issue <consumer>");
    }
    let rows: Vec<_> = all.iter().map(|info| to_row(info, view)).collect();
    ledger.print_table(HEADINGS, &rows)
}

const HEADINGS: [&str; 10] = [
    "ID",
    "CONSUMER",
    "NAME",
    "STATE",
    "PLAN",
    "SCOPES",
    "ADDRESSES",
    "ISSUED",
    "ENDS",
    "LAST USED",
];

fn to_row(info: &KeyInfo, view: &View) -> [String; 10] {
    let or_dash = |text: Option<&str>| text.unwrap_or("-").to_owned();
    [
        info.id.to_string(),
        info.consumer.to_string(),
        or_dash(info.name.as_deref()),
        state(info, view).to_owned(),
        or_dash(info.plan.as_deref()),
        show_scopes(info),
        show_addresses(info).unwrap_or_else(|| "-".to_owned()),
        show_time(info.created_at),
        info.expires_at.map_or_else(|| "never".to_owned(), show_time),
        info.last_used_at.map_or_else(|| "-".to_owned(), show_time),
    ]
}

fn to_json(info: &KeyInfo, view: &View) -> Value {
    json!({
        "id": info.id.as_str(),
        "consumer": &*info.consumer,
        "name": info.name.as_deref(),
        "state": state(info, view),
        "plan": info.plan.as_deref(),
        "scopes": info.scopes.iter().map(|scope| &**scope).collect::<Vec<_>>(),
        "addresses": info.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "pepper": show_standing(view.form.standing(info.pepper)),
        "created_at": show_time(info.created_at),
        "not_before": info.not_before.map(show_time),
        "expires_at": info.expires_at.map(show_time),
        "revoked_at": info.revoked_at.map(show_time),
        "last_used_at": info.last_used_at.map(show_time),
    })
}

fn state(info: &KeyInfo, view: &View) -> &'static str {
    let now = view.now;
    if info.revoked_at.is_some() {
        "revoked"
    } else if !info.is_live(now) {
        "expired"
    } else if view.form.standing(info.pepper) == Standing::Other {
        "other pepper"
    } else if info.not_before.is_some_and(|begin| now < begin) {
        "not yet"
    } else {
        "live"
    }
}

fn show_scopes(info: &KeyInfo) -> String {
    if info.scopes.is_empty() { "-".to_owned() } else { info.scopes.join(" ") }
}

/// `None` where it works from anywhere.
fn show_addresses(info: &KeyInfo) -> Option<String> {
    let shown: Vec<_> = info.addresses.iter().map(ToString::to_string).collect();
    (!shown.is_empty()).then(|| shown.join(" "))
}

pub(super) const fn show_standing(standing: Standing) -> &'static str {
    match standing {
        Standing::Current => "current",
        Standing::Other => "other",
        Standing::Previous => "previous",
    }
}

/// An id, alone or inside of a whole key: whoever revokes a leaked key has just that.
fn parse_id(text: &str) -> anyhow::Result<KeyId> {
    let id = match text.strip_prefix("dh_").map(|rest| rest.split('_')) {
        Some(mut parts) => parts.nth(1).unwrap_or_default(),
        None => text,
    };
    id.parse().ok().with_context(|| {
        "this is neither the id of a key (16 letters and digits) nor a whole key; \
         `gateway keys list` shows all ids"
            .to_owned()
    })
}
