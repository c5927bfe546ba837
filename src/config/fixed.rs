//! What cannot be reloaded: whether a new configuration asks for a change of it, and where.
//!
//! Must stay true: no message shows a URL or a token; those only differ or do not.

use super::diagnostic::{Diagnostic, Findings, Report};
use super::fleet::{PostgresDef, StoreDef};
use super::source::Span;
use super::{Fixed, Listener, Loaded};
use std::net::SocketAddr;

impl Loaded {
    /// Whether this configuration can replace the running one without a restart.
    ///
    /// # Errors
    /// Each key that cannot be reloaded and differs, with its place.
    pub fn check_fixed(&self, running: &Fixed) -> Result<(), Report> {
        let mut changes = Changes { loaded: self, findings: Findings::default() };
        changes.of_process(running);
        changes.of_fleet(running);
        changes.of_listeners(running);
        let Changes { findings, .. } = changes;
        if findings.is_clean() { Ok(()) } else { Err(findings.into_report(&self.sources)) }
    }
}

struct Changes<'a> {
    loaded: &'a Loaded,
    findings: Findings,
}

impl Changes<'_> {
    /// One more: what would change, where that is said, and what runs.
    fn found(&mut self, what: &str, place: Span, running: &str) {
        let mut finding = Diagnostic::error(format!("{what} needs a restart"));
        if !place.is_somewhere() {
            finding = finding.at_file(&self.loaded.sources.dir);
        }
        let running = format!("running: {running}");
        let help = "restart to change it, or put it back; what is running stays as it is";
        let help = match place.is_somewhere() {
            true => help.to_owned(),
            false => format!("{running}; {help}"),
        };
        self.findings.push(finding.at(place, running).help(help));
    }

    fn of_process(&mut self, running: &Fixed) {
        let (new, origins) = (&self.loaded.config.fixed, &self.loaded.origins);
        if new.workers != running.workers {
            let now = running.workers.map_or_else(|| "auto".to_owned(), |count| count.to_string());
            self.found("a change of `workers`", origins.workers, &now);
        }
        if new.admin.address != running.admin.address {
            let now = running.admin.address.as_ref().map(SocketAddr::to_string);
            let now = now.unwrap_or_else(|| "off".to_owned());
            self.found("a change of the admin listener", origins.settings.admin, &now);
        }
        if new.admin.tokens != running.admin.tokens {
            let now = match running.admin.tokens.as_slice() {
                [] => "none".to_owned(),
                tokens => {
                    let names: Vec<&str> = tokens.iter().map(|token| &*token.name).collect();
                    names.join(", ")
                }
            };
            self.found("a change of the admin tokens", origins.settings.tokens, &now);
        }
    }

    fn of_fleet(&mut self, running: &Fixed) {
        let (new, places) = (&self.loaded.config.fixed, &self.loaded.origins.settings);
        if new.store != running.store {
            let (place, now) = match (&new.store, &running.store) {
                (StoreDef::Postgres(new), StoreDef::Postgres(running)) => {
                    (places.postgres, difference(new, running))
                }
                (StoreDef::Postgres(_), StoreDef::Embedded { path }) => {
                    (places.postgres, path.display().to_string())
                }
                (StoreDef::Embedded { .. }, StoreDef::Embedded { path }) => {
                    (places.store, path.display().to_string())
                }
                (StoreDef::Embedded { .. }, StoreDef::Postgres(_)) => {
                    (places.store, "PostgreSQL".to_owned())
                }
            };
            self.found("a change of the store", place, &now);
        }
        if new.redis != running.redis {
            let now = match (&new.redis, &running.redis) {
                (_, None) => "none",
                (Some(new), Some(running)) if new.url == running.url => "another authority",
                (_, Some(_)) => "another one",
            };
            self.found("a change of Redis", places.redis, now);
        }
        if new.fleet != running.fleet {
            let now = running.fleet.expected.to_string();
            self.found("a change of `expected`", places.fleet, &now);
        }
        if new.cache != running.cache {
            self.found("a change of the cache", places.cache, "other numbers");
        }
        if new.cloudwatch != running.cloudwatch {
            let now = running.cloudwatch.region.as_deref().unwrap_or("off");
            self.found("a change of what goes to CloudWatch", places.cloudwatch, now);
        }
    }

    fn of_listeners(&mut self, running: &Fixed) {
        let (new, origins) = (&self.loaded.config.fixed, &self.loaded.origins);
        for (listener, (_, name, address)) in new.listeners.iter().zip(&origins.listeners) {
            self.of_listener(listener, (*name, *address), running);
        }
        for known in &running.listeners {
            if new.listeners.iter().all(|listener| listener.name != known.name) {
                let what = format!("removing listener `{}`", known.name);
                self.found(&what, Span::NOWHERE, &known.address.to_string());
            }
        }
    }

    fn of_listener(&mut self, listener: &Listener, (name, address): (Span, Span), now: &Fixed) {
        let what = format!("a change of listener `{}`", listener.name);
        match now.listeners.iter().find(|known| known.name == listener.name) {
            None => self.found(&format!("the new listener `{}`", listener.name), name, "none"),
            Some(known) if known.address != listener.address => {
                self.found(&what, address, &known.address.to_string());
            }
            Some(known) if known.tls != listener.tls => {
                let word = match &known.tls {
                    None => "without TLS",
                    Some(tls) if tls.http2 => "TLS with HTTP/2",
                    Some(_) => "TLS without HTTP/2",
                };
                self.found(&what, name, word);
            }
            Some(_) => {}
        }
    }
}

/// What of PostgreSQL is another one, in words that hold no secret.
fn difference(new: &PostgresDef, running: &PostgresDef) -> String {
    if new.url != running.url || new.replica_url != running.replica_url {
        return "another URL".to_owned();
    }
    if new.ca != running.ca {
        return "another authority".to_owned();
    }
    format!("pool = {}, lookups_per_second = {}", running.pool, running.lookups_per_second)
}
