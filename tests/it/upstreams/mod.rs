//! What endpoints do to clients, and clients to endpoints.

mod balancing;
mod client_faults;
mod failing_endpoints;
mod health;
mod kept_connections;
mod retries;
mod soak;
mod timeouts;
mod trust;

use crate::support::eventually_async;
use crate::support::gateway::Gateway;

/// Reloads a configuration that differs from the one before, so that all is built anew.
async fn rebuild(gateway: &Gateway, round: usize) {
    let revision = async || gateway.metrics().await.sum("config_revision", &[]);
    let before = revision().await;
    let reply = "auth = 'none'\nreply = { status = 200, body = 'round' }";
    let route = format!("[routes.round]\npath = '/round/{round}'\n{reply}\n");
    gateway.write_conf("round.toml", &route);
    gateway.sighup();
    eventually_async("another revision", async || (revision().await > before).then_some(())).await;
}
