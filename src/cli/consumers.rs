//! `gateway consumers`: who calls, and by which plan.

use super::ledger::{Ledger, PAGE, all_keys, show_time};
use crate::auth::UnixTime;
use crate::auth::registry::{ConsumerInfo, NewConsumer, Page, RegistryError};
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
        /// What it has bought; a plan of the configuration.
        #[arg(long)]
        plan: String,
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
        /// A plan of the configuration.
        plan: String,
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
    match carry_out(command, ledger).await {
        Err(error) => match error.downcast::<RegistryError>() {
            Ok(refused) => Err(ledger.explain(refused).await),
            Err(error) => Err(error),
        },
        Ok(()) => Ok(()),
    }
}

async fn carry_out(command: Command, ledger: &mut Ledger<'_>) -> anyhow::Result<()> {
    let registry = ledger.registry;
    match command {
        Command::Add { username, plan, custom_id } => {
            let added = registry
                .add_consumer(
                    ledger.actor,
                    NewConsumer { username, custom_id, plan: plan.clone(), policies: Vec::new() },
                )
                .await?;
            ledger.warn_of_unknown_plan(&plan)?;
            let name = added.consumer.username.to_string();
            print_one(ledger, &added, &format!("added; issue a key: gateway keys issue {name}"))
        }
        Command::Disable { name } => {
            let info = registry.set_enabled(ledger.actor, &name, false).await?;
            print_one(ledger, &info, "disabled: all of its keys and tokens are refused")
        }
        Command::Enable { name } => {
            let info = registry.set_enabled(ledger.actor, &name, true).await?;
            print_one(ledger, &info, "enabled")
        }
        Command::List => list(ledger).await,
        Command::Remove { name, yes } => remove(ledger, &name, yes).await,
        Command::SetPlan { name, plan } => {
            let info = registry.set_plan(ledger.actor, &name, &plan).await?;
            ledger.warn_of_unknown_plan(&plan)?;
            let note = match own_plans(ledger, &info).await? {
                0 => "changed".to_owned(),
                keys => format!(
                    "changed, but for {} with a plan of {} own: gateway keys list {}",
                    if keys == 1 { "1 key".to_owned() } else { format!("{keys} keys") },
                    if keys == 1 { "its" } else { "their" },
                    info.consumer.username
                ),
            };
            print_one(ledger, &info, &note)
        }
        Command::Show { name } => {
            let info = registry.consumer(&name).await?;
            print_one(ledger, &info, "")
        }
    }
}

/// How many live keys of a consumer do not have its plan but one of their own.
async fn own_plans(ledger: &Ledger<'_>, info: &ConsumerInfo) -> anyhow::Result<usize> {
    let now = UnixTime::now(ledger.clock);
    let keys = all_keys(ledger.registry, Some(&info.consumer.username)).await?;
    Ok(keys.iter().filter(|key| key.plan.is_some() && key.is_live(now)).count())
}

async fn list(ledger: &mut Ledger<'_>) -> anyhow::Result<()> {
    let mut all: Vec<ConsumerInfo> = Vec::new();
    loop {
        let after = all.last().map(|info| &*info.consumer.username);
        let page = ledger.registry.consumers(Page { after, limit: PAGE }).await?;
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
        let username = ledger.registry.consumer(name).await?.consumer.username;
        bail!(
            "this removes `{username}` and all of its keys for good; say --yes to do it, or \
             `gateway consumers disable {username}` to be able to go back"
        );
    }
    let (info, keys) = ledger.registry.remove_consumer(ledger.actor, name).await?;
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

const HEADINGS: [&str; 6] = ["USERNAME", "PLAN", "STATE", "CUSTOM ID", "ADDED", "ID"];

fn to_row(info: &ConsumerInfo) -> [String; 6] {
    let consumer = &info.consumer;
    [
        consumer.username.to_string(),
        consumer.plan.to_string(),
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
