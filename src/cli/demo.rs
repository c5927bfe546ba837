//! `gateway run --demo`: an upstream to call, a consumer with a fresh key, and what to paste.
//!
//! The key is made at each start and stored like any other; the one before it is revoked. Nothing
//! secret is fixed anywhere.

use super::ledger::all_keys;
use crate::auth::api_key::{KeyForm, PlainKey};
use crate::auth::registry::{Actor, NewConsumer, NewKey, RegistryError};
use crate::server::Ready;
use crate::tasks;
use anyhow::Context as _;
use std::io::Write as _;
use std::net::SocketAddr;

/// The consumer, the plan and the upstream of the demo, as `conf/` has them.
const NAME: &str = "demo";

/// Starts the demo and prints what to paste.
pub(super) async fn start(ready: &Ready) -> anyhow::Result<()> {
    start_upstream(ready)?;
    let key = fresh_key(ready).await.context("the demo consumer cannot be made")?;
    let address = ready
        .listeners
        .values()
        .next()
        .map(|address| SocketAddr::from(([127, 0, 0, 1], address.port())))
        .context("no listener is configured")?;
    print(address, ready.admin, key.reveal()).context("what to paste cannot be printed")
}

/// The upstream runs on a thread of its own, as another process would.
fn start_upstream(ready: &Ready) -> anyhow::Result<()> {
    let upstream = ready
        .config
        .upstreams
        .iter()
        .find(|upstream| &*upstream.name == NAME)
        .and_then(|upstream| upstream.endpoints.first())
        .context("the demo needs an upstream called `demo`; conf/upstreams.toml has it")?;
    let address = upstream.address;
    let listener = std::net::TcpListener::bind(address).with_context(|| {
        format!(
            "the demo upstream cannot listen on {address}: stop what listens there, or change the \
             endpoint of `demo` in conf/upstreams.toml"
        )
    })?;
    std::thread::Builder::new().name("demo-upstream".to_owned()).spawn(move || {
        let served =
            tokio::runtime::Builder::new_current_thread().enable_all().build().and_then(|events| {
                events.block_on(tasks::demo::serve(listener, std::future::pending()))
            });
        if let Err(error) = served {
            log::error!(error:% = error; "the demo upstream failed");
        }
    })?;
    Ok(())
}

async fn fresh_key(ready: &Ready) -> anyhow::Result<PlainKey> {
    let (store, by) = (&*ready.store, Actor::named("cli:demo"));
    let consumer = NewConsumer {
        username: NAME.to_owned(),
        custom_id: None,
        plan: NAME.to_owned(),
        policies: Vec::new(),
    };
    match store.add_consumer(&by, consumer).await {
        Ok(_) | Err(RegistryError::Taken { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    for old in all_keys(store, Some(NAME)).await? {
        if old.revoked_at.is_none() && old.name.as_deref() == Some(NAME) {
            store.revoke_key(&by, old.id).await?;
        }
    }
    let (key, proof) = KeyForm::new(&ready.config.api_key).generate()?;
    let new = NewKey {
        proof,
        consumer: NAME.to_owned(),
        name: Some(NAME.to_owned()),
        plan: None,
        scopes: Vec::new(),
        addresses: Vec::new(),
        not_before: None,
        expires_at: None,
    };
    store.issue_key(&by, new).await?;
    Ok(key)
}

fn print(address: SocketAddr, admin: Option<SocketAddr>, key: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "\nDataHub Gateway answers on http://{address}. Paste:\n\n\
         # 401: no key\n\
         curl -i http://{address}/demo/orders\n\n\
         # 200: through the demo upstream, with a key\n\
         curl -i -H 'X-API-Key: {key}' http://{address}/demo/orders\n\n\
         # 429: over the plan (3 at once, then one each 5 s), with Retry-After and RateLimit\n\
         for n in 1 2 3 4 5; do curl -s -o /dev/null -w '%{{http_code}}\\n' \
         -H 'X-API-Key: {key}' http://{address}/demo/orders; done\n"
    )?;
    if let Some(admin) = admin {
        writeln!(out, "# what happened\ncurl -s http://{admin}/metrics\n")?;
    }
    writeln!(out, "Below: one line for each request. Ctrl-C ends it (twice: at once).\n")
}
