//! Invented keys of the right form beside good ones.

use crate::gateway::{Gateway, api_keys};
use crate::stock::Stock;
use anyhow::{Context as _, Result, bail, ensure};
use datahub_gateway::auth::Denied;
use datahub_gateway::auth::api_key::KeyForm;
use futures_util::future::try_join_all;
use std::cell::Cell;
use std::time::{Duration, Instant};

/// Look-ups that PostgreSQL is asked for in a second at most.
const RATE: u32 = 500;
/// A quarter of a second's may come at once.
const AT_ONCE: u32 = RATE / 4;
/// Good keys in use.
const GOOD: usize = 100;
const IN_FLIGHT: usize = 32;
/// A flood is not to be waited for without end.
const PAUSE: Duration = Duration::from_millis(1);

/// Floods a gateway for so long, and says what became of it.
pub(crate) async fn run(url: &str, stock: &Stock, span: Duration) -> Result<String> {
    let gateway = Gateway::start(url, 10 * GOOD, RATE)?;
    gateway.during(flood(&gateway, stock, span)).await
}

async fn flood(gateway: &Gateway, stock: &Stock, span: Duration) -> Result<String> {
    for number in 0..GOOD {
        gateway.learn(stock.key(number)?).await?;
    }
    let form = KeyForm::new(&api_keys());
    let before = gateway.store.vitals();
    let began = Instant::now();
    let [hits, renewed, unknown, told_to_wait] = [const { Cell::new(0_u64) }; 4];
    let add = |count: &Cell<u64>| count.set(count.get() + 1);
    let client = || async {
        while began.elapsed() < span {
            let (invented, _) = form.generate()?;
            match gateway.identify(invented.reveal().as_bytes()).await? {
                Err(Denied::Invalid { .. }) => add(&unknown),
                Err(Denied::Unavailable(_)) => {
                    add(&told_to_wait);
                    tokio::time::sleep(PAUSE).await;
                }
                other => bail!("an invented key: {other:?}"),
            }
            let good = stock.key(rand::random_range(0..GOOD))?;
            match gateway.glance(good)? {
                Some(hit) => {
                    hit?.context("a good key")?;
                    add(&hits);
                }
                // It is known, and due to be asked for again.
                None => {
                    gateway.identify(good).await??.context("a good key")?;
                    add(&renewed);
                }
            }
        }
        Ok(())
    };
    try_join_all((0..IN_FLIGHT).map(|_| client())).await?;
    let elapsed = began.elapsed().as_secs_f64();
    let vitals = gateway.store.vitals();
    // What is followed asks four times a second, on a connection of its own.
    let asked = vitals.primary.acquired - before.primary.acquired;
    let most = f64::from(AT_ONCE) + (f64::from(RATE) + 4.0) * elapsed;
    ensure!(asked as f64 <= most + 1.0, "PostgreSQL was asked {asked} times of {most:.0}");
    let known = gateway.directory.vitals();
    ensure!(known.keys == GOOD, "{} of {GOOD} good keys are left", known.keys);
    Ok(format!(
        "flood, {elapsed:.1} s: {} invented keys were unknown, {} told to come back; of the requests with \
         good keys {} were hits and {} asked again for what was known; PostgreSQL was asked {asked} times \
         of {most:.0} ({RATE}/s); {} unknown keys are remembered",
        unknown.get(),
        told_to_wait.get(),
        hits.get(),
        renewed.get(),
        known.unknown_keys,
    ))
}
