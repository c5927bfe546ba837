//! `gateway consumers`: who calls, by which plan and under which policies.

use super::ledger::{Ledger, PAGE, all_keys};
use super::notation::show_time;
use crate::auth::UnixTime;
use crate::auth::documents::DocumentKind;
use crate::auth::registry::{ConsumerInfo, NewConsumer, Page};
use anyhow::bail;
use serde_json::{Value, json};

/// Add, list and change those who call.
#[derive(Debug, clap::Args)]
pub struct Consumers {
    /// Print JSON instead of tables.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do with consumers. A consumer is named by its username or its id.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Add a consumer.
    Add {
        /// A unique name; upstreams see it as X-Consumer-Username.
        username: String,
        /// What it has bought; a plan of the files or of the store.
        #[arg(long)]
        plan: String,
        /// A policy that holds for it beside its plan; can be said several times.
        #[arg(long = "policy", value_name = "POLICY")]
        policies: Vec<String>,
        /// A reference of your own.
        #[arg(long)]
        custom_id: Option<String>,
    },
    /// Refuse all credentials of a consumer, until it is enabled again.
    Disable {
        /// Username or id.
        name: String,
    },
    /// Accept a disabled consumer again.
    Enable {
        /// Username or id.
        name: String,
    },
    /// Print all consumers.
    List,
    /// Remove a consumer and its keys, for good.
    Remove {
        /// Username or id.
        name: String,
        /// Really.
        #[arg(long)]
        yes: bool,
    },
    /// Give a consumer another plan.
    SetPlan {
        /// Username or id.
        name: String,
        /// A plan of the files or of the store.
        plan: String,
    },
    /// Give a consumer other policies, instead of all that it has.
    SetPolicies {
        /// Username or id.
        name: String,
        /// Policies of the files or of the store; without any, it has none.
        policies: Vec<String>,
    },
    /// Print one consumer.
    Show {
        /// Username or id.
        name: String,
    },
}

/// Does it.
///
/// # Errors
/// What went wrong, and what to do about it.
pub async fn run(command: Command, ledger: &mut Ledger<'_>) -> anyhow::Result<()> {
    let done = carry_out(command, ledger).await;
    ledger.end(done).await
}

async fn carry_out(command: Command, ledger: &mut Ledger<'_>) -> anyhow::Result<()> {
    let store = ledger.store;
    match command {
        Command::Add { username, plan, policies, custom_id } => {
            let new = NewConsumer { username, custom_id, plan, policies };
            let added = store.add_consumer(ledger.actor, new).await?;
            let name = added.consumer.username.to_string();
            print_one(ledger, &added, &format!("added; issue a key: gateway keys issue {name}"))?;
            ledger.warn_of_unknown(DocumentKind::Plan, &added.consumer.plan).await?;
            warn_of_unknown_policies(ledger, &added).await
        }
        Command::Disable { name } => {
            let info = store.set_enabled(ledger.actor, &name, false).await?;
            print_one(ledger, &info, "disabled: all of its keys and tokens are refused")
        }
        Command::Enable { name } => {
            let info = store.set_enabled(ledger.actor, &name, true).await?;
            print_one(ledger, &info, "enabled")
        }
        Command::List => list(ledger).await,
        Command::Remove { name, yes } => remove(ledger, &name, yes).await,
        Command::SetPlan { name, plan } => {
            let info = store.set_plan(ledger.actor, &name, &plan).await?;
            let note = match own_plans(ledger, &info).await? {
                0 => "changed".to_owned(),
                keys => format!(
                    "changed, but for {} with a plan of {} own: gateway keys list {}",
                    if keys == 1 { "1 key".to_owned() } else { format!("{keys} keys") },
                    if keys == 1 { "its" } else { "their" },
                    info.consumer.username
                ),
            };
            print_one(ledger, &info, &note)?;
            ledger.warn_of_unknown(DocumentKind::Plan, &plan).await
        }
        Command::SetPolicies { name, policies } => {
            let info = store.set_policies(ledger.actor, &name, &policies).await?;
            print_one(ledger, &info, "changed")?;
            warn_of_unknown_policies(ledger, &info).await
        }
        Command::Show { name } => {
            let info = store.consumer(&name).await?;
            print_one(ledger, &info, "")
        }
    }
}

async fn warn_of_unknown_policies(
    ledger: &mut Ledger<'_>,
    info: &ConsumerInfo,
) -> anyhow::Result<()> {
    for policy in info.consumer.policies.iter() {
        ledger.warn_of_unknown(DocumentKind::Policy, policy).await?;
    }
    Ok(())
}

/// How many live keys of a consumer do not have its plan but one of their own.
async fn own_plans(ledger: &Ledger<'_>, info: &ConsumerInfo) -> anyhow::Result<usize> {
    let now = UnixTime::now(ledger.clock);
    let keys = all_keys(ledger.store, Some(&info.consumer.username)).await?;
    Ok(keys.iter().filter(|key| key.plan.is_some() && key.is_live(now)).count())
}

async fn list(ledger: &mut Ledger<'_>) -> anyhow::Result<()> {
    let mut all: Vec<ConsumerInfo> = Vec::new();
    loop {
        let after = all.last().map(|info| &*info.consumer.username);
        let page = ledger.store.consumers(Page { after, limit: PAGE }).await?;
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
        return ledger
            .print("no consumers yet; add one: gateway consumers add <name> --plan <plan>");
    }
    let rows: Vec<_> = all.iter().map(to_row).collect();
    ledger.print_table(HEADINGS, &rows)
}

async fn remove(ledger: &mut Ledger<'_>, name: &str, yes: bool) -> anyhow::Result<()> {
    if !yes {
        let username = ledger.store.consumer(name).await?.consumer.username;
        bail!(
            "this removes `{username}` and all of its keys for good; say --yes to do it, or \
             `gateway consumers disable {username}` to be able to go back"
        );
    }
    let (info, keys) = ledger.store.remove_consumer(ledger.actor, name).await?;
    if ledger.json {
        let mut value = to_json(&info);
        if let Value::Object(members) = &mut value {
            members.insert("removed_keys".to_owned(), json!(keys));
        }
        return ledger.print_json(&value);
    }
    let plural = if keys == 1 { "" } else { "s" };
    ledger.print(&format!("removed `{}` and {keys} key{plural}", info.consumer.username))
}

const HEADINGS: [&str; 7] = ["USERNAME", "PLAN", "POLICIES", "STATE", "CUSTOM ID", "ADDED", "ID"];

fn to_row(info: &ConsumerInfo) -> [String; 7] {
    let consumer = &info.consumer;
    [
        consumer.username.to_string(),
        consumer.plan.to_string(),
        if consumer.policies.is_empty() { "-".to_owned() } else { consumer.policies.join(" ") },
        if consumer.enabled { "enabled" } else { "disabled" }.to_owned(),
        consumer.custom_id.as_deref().unwrap_or("-").to_owned(),
        show_time(info.created_at),
        consumer.id.to_string(),
    ]
}

fn to_json(info: &ConsumerInfo) -> Value {
    let consumer = &info.consumer;
    json!({
        "id": &*consumer.id,
        "username": &*consumer.username,
        "custom_id": consumer.custom_id.as_deref(),
        "plan": &*consumer.plan,
        "policies": consumer.policies.iter().map(|name| &**name).collect::<Vec<_>>(),
        "enabled": consumer.enabled,
        "created_at": show_time(info.created_at),
    })
}

fn print_one(ledger: &mut Ledger<'_>, info: &ConsumerInfo, note: &str) -> anyhow::Result<()> {
    if ledger.json {
        return ledger.print_json(&to_json(info));
    }
    ledger.print_table(HEADINGS, &[to_row(info)])?;
    if note.is_empty() { Ok(()) } else { ledger.print(note) }
}
