//! `[store]`, `[redis]`, `[fleet]`, `[cache]` and `[admin]`: what is read once at the start.
//!
//! Must stay true: no message shows a URL or a token, or a part of one.

use super::url::{Url, read_as_postgres, read_as_redis, refuse};
use super::{Context, Owner};
use crate::config::certificate;
use crate::config::diagnostic::Diagnostic;
use crate::config::fleet::{
    AdminDef, AdminToken, CacheDef, FleetDef, PostgresDef, RedisDef, SecretText, StoreDef,
};
use crate::config::schema::{self, At, File};
use crate::config::secret::Pointer;
use crate::config::source::Span;
use crate::config::value::{AdminAddress, Invalid};
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

const DATABASE_URL: &str = "DATABASE_URL";
const REPLICA_URL: &str = "DATABASE_REPLICA_URL";
const REDIS_URL: &str = "REDIS_URL";
const ADMIN_TOKEN: &str = "ADMIN_TOKEN";

/// All of it.
pub(crate) struct Fleet {
    pub(crate) store: StoreDef,
    pub(crate) redis: Option<RedisDef>,
    pub(crate) fleet: FleetDef,
    pub(crate) cache: CacheDef,
    pub(crate) admin: AdminDef,
}

/// Where it stands.
pub(crate) struct Settings {
    pub(crate) admin: Span,
    pub(crate) tokens: Span,
    pub(crate) store: Span,
    pub(crate) postgres: Span,
    pub(crate) redis: Span,
    pub(crate) fleet: Span,
    pub(crate) cache: Span,
    pub(crate) cloudwatch: Span,
}

impl Settings {
    fn of(file: &File) -> Self {
        let token = file.admin.tokens.0.first();
        Self {
            admin: file.admin.address.span,
            tokens: token.map_or(Span::NOWHERE, |(name, _)| name.span),
            store: file.store.path.span,
            postgres: file.store.postgres.span(),
            redis: file.redis.span(),
            fleet: file.fleet.expected.span,
            cache: file.cache.span(),
            cloudwatch: file.cloudwatch.span(),
        }
    }
}

pub(crate) fn compile(file: &File, cx: &mut Context<'_>) -> Option<(Fleet, Settings)> {
    let store = compile_store(file, cx);
    let redis = redis(file, cx);
    let cache = cache(&file.cache, cx);
    let admin = admin(&file.admin, cx);
    let fleet = Fleet {
        store: store?,
        redis: redis?,
        fleet: FleetDef { expected: NonZeroU32::new(file.fleet.expected.value)? },
        cache: cache?,
        admin: admin?,
    };
    Some((fleet, Settings::of(file)))
}

/// Whether consumers and keys are in PostgreSQL.
pub(crate) fn has_postgres(file: &File, cx: &Context<'_>) -> bool {
    let lost = cx.lost.contains(&["store", "postgres", "url"]);
    lost || file.store.postgres.url.is_some() || cx.vault.has(DATABASE_URL)
}

/// Where consumers and keys are.
pub(crate) fn compile_store(file: &File, cx: &mut Context<'_>) -> Option<StoreDef> {
    let path = &file.store.path;
    let named = !path.value.is_empty() && !path.value.ends_with('/') && !path.value.contains('\0');
    if !named {
        let wrong = Diagnostic::error("the store must be a file");
        cx.report(
            wrong
                .at(path.span, "no file has this name")
                .help("the default is `../data/gateway.db`"),
        );
    }
    let def = &file.store.postgres;
    if !has_postgres(file, cx) {
        refuse_replica(def, cx);
        let path = cx.sources.dir.join(&path.value);
        return named.then_some(StoreDef::Embedded { path });
    }
    if path.is_given() {
        let unused = Diagnostic::warning("`path` has no effect beside PostgreSQL");
        cx.report(unused.at(path.span, "nothing is kept there").help("remove it"));
    }
    let schemes = ["postgres", "postgresql"];
    let at = Url { what: "the URL of PostgreSQL", variable: DATABASE_URL, schemes };
    let url = at.read(def.url.as_ref(), cx);
    let at_replica = Url { what: "the URL of the replica", variable: REPLICA_URL, schemes };
    let replica_url = at_replica.read(def.replica_url.as_ref(), cx);
    let ca = def.ca.as_ref().map(|ca| authority(ca, cx));
    let url = url??;
    refuse_authority(def.ca.as_ref(), url.text.expose().contains("sslmode=disable"), cx);
    // Without the authority that is asked for, the URLs can be read all the same.
    let trusted = ca.clone().flatten();
    let url = at.accept(url, |url| read_as_postgres(url, trusted.as_deref()), cx);
    let replica_url = replica_url?
        .map(|found| at_replica.accept(found, |url| read_as_postgres(url, trusted.as_deref()), cx));
    Some(StoreDef::Postgres(PostgresDef {
        url: url?,
        replica_url: given(replica_url)?,
        ca: given(ca)?,
        pool: count(&def.pool)?,
        lookups_per_second: NonZeroU32::new(def.lookups_per_second.value)?,
    }))
}

/// A replica of nothing: the primary was forgotten, and all would be kept in a file.
fn refuse_replica(def: &schema::Postgres, cx: &mut Context<'_>) {
    let place = def.replica_url.as_ref().map_or(Span::NOWHERE, |at| at.span);
    if !place.is_somewhere() && !cx.vault.has(REPLICA_URL) {
        return;
    }
    let alone = Diagnostic::error("there is a replica, but no primary");
    let alone = match place.is_somewhere() {
        true => alone.at(place, "of what?"),
        false => alone.at_file(&cx.sources.dir.clone()),
    };
    cx.report(
        alone.help(format!(
            "set `{DATABASE_URL}` too, or take away `replica_url` and `{REPLICA_URL}`"
        )),
    );
}

fn redis(file: &File, cx: &mut Context<'_>) -> Option<Option<RedisDef>> {
    let def = &file.redis;
    let what = "the URL of Redis";
    let at = Url { what, variable: REDIS_URL, schemes: ["rediss", "redis"] };
    let Some(url) = at.read(def.url.as_ref(), cx)? else {
        warn_of_tasks_alone(file, cx);
        return Some(None);
    };
    let ca = def.ca.as_ref().map(|ca| authority(ca, cx));
    let plain = url.text.expose().starts_with("redis:");
    refuse_authority(def.ca.as_ref(), plain, cx);
    let trusted = ca.clone().flatten().filter(|_| !plain);
    let url = at.accept(url, |url| read_as_redis(url, trusted.as_deref()), cx);
    warn_of_shares(&file.fleet, cx);
    Some(Some(RedisDef { url: url?, ca: given(ca)? }))
}

/// PostgreSQL is for a fleet, and its limits are not, without Redis.
fn warn_of_tasks_alone(file: &File, cx: &mut Context<'_>) {
    if !has_postgres(file, cx) || cx.lost.contains(&["redis", "url"]) {
        return;
    }
    let alone = Diagnostic::warning("limits are counted by each task alone");
    let place = file.store.postgres.span();
    let alone = match place.is_somewhere() {
        true => alone.at(place, "a fleet has its keys here, but no place for its counters"),
        false => alone.at_file(&cx.sources.dir.clone()),
    };
    cx.report(
        alone.help(format!("with N tasks N times of them is let through; set `{REDIS_URL}`")),
    );
}

/// Until a task has seen the others, it would take all of a limit for itself.
fn warn_of_shares(fleet: &schema::Fleet, cx: &mut Context<'_>) {
    if fleet.expected.is_given() || cx.lost.contains(&["fleet", "expected"]) {
        return;
    }
    cx.report(
        Diagnostic::warning("nothing says how many tasks share the limits")
            .at_file(&cx.sources.dir.clone())
            .help(
                "say it, as `[fleet]` with `expected = 3`: it is what limits are divided by while \
                   Redis is away",
            ),
    );
}

/// Certificates to trust, as PEM.
fn authority(ca: &At<String>, cx: &mut Context<'_>) -> Option<Arc<[u8]>> {
    let path = cx.sources.dir.join(&ca.value);
    cx.watched.push(path.clone());
    match certificate::authority(&path) {
        Ok(pem) => Some(pem),
        Err(invalid) => {
            let broken = Diagnostic::error("the authority cannot be used");
            cx.report(broken.at(ca.span, invalid.label).help(invalid.help));
            None
        }
    }
}

/// An authority is for nothing where nothing is encrypted.
fn refuse_authority(ca: Option<&At<String>>, plain: bool, cx: &mut Context<'_>) {
    if let Some(ca) = ca.filter(|_| plain) {
        cx.report(
            Diagnostic::error("`ca` has no effect on a connection without TLS")
                .at(ca.span, "the URL asks for none")
                .help("let the URL ask for TLS (`rediss://`, `sslmode=require`), or remove `ca`"),
        );
    }
}

/// What is given must be good.
fn given<T>(value: Option<Option<T>>) -> Option<Option<T>> {
    match value {
        Some(value) => value.map(Some),
        None => Some(None),
    }
}

fn count(at: &At<u32>) -> Option<NonZeroUsize> {
    usize::try_from(at.value).ok().and_then(NonZeroUsize::new)
}

fn cache(cache: &schema::Cache, cx: &mut Context<'_>) -> Option<CacheDef> {
    let second = Duration::from_secs(1);
    let stale_for = cx.bounded(&cache.stale_for, Duration::ZERO, second * 86_400);
    let redis_ttl = cx.bounded(&cache.redis_ttl, second, second * 60);
    Some(CacheDef {
        keys: count(&cache.keys)?,
        unknown_keys: count(&cache.unknown_keys)?,
        stale_for: stale_for?,
        redis_ttl: redis_ttl?,
    })
}

fn admin(admin: &schema::Admin, cx: &mut Context<'_>) -> Option<AdminDef> {
    let address = cx.read(&admin.address);
    if let (Some(AdminAddress::Off), Some((name, _))) = (address, admin.tokens.0.first()) {
        cx.report(
            Diagnostic::error("tokens have no effect without an admin listener")
                .at(name.span, "nobody can show it")
                .at(admin.address.span, "no listener, no admin API")
                .help("give the listener an address, or remove the tokens"),
        );
    }
    let mut tokens: Vec<(Span, Option<AdminToken>)> = Vec::new();
    for (name, token) in &admin.tokens.0 {
        tokens.push((name.span, self::token(name, &token.value, cx)));
    }
    if admin.tokens.0.is_empty() && cx.vault.has(ADMIN_TOKEN) {
        let pointer = Pointer::Env(ADMIN_TOKEN.to_owned());
        let token = bearer("default".into(), &pointer, Span::NOWHERE, cx);
        tokens.push((Span::NOWHERE, token));
    }
    refuse_same_tokens(&tokens, cx);
    let tokens = tokens.into_iter().map(|(_, token)| token).collect::<Option<Vec<_>>>();
    let address = match address? {
        AdminAddress::Off => None,
        AdminAddress::On(address) => Some(address),
    };
    Some(AdminDef { address, tokens: tokens? })
}

fn token(
    name: &At<String>,
    token: &schema::AdminToken,
    cx: &mut Context<'_>,
) -> Option<AdminToken> {
    let owner = Owner { path: &["admin", "tokens", &name.value], span: name.span };
    let help = "say where it is, as `token = \"env:ADMIN_TOKEN\"`";
    let text = cx.required(token.token.as_ref(), owner, "token", help);
    let pointer = text.and_then(|text| cx.read(text));
    let compiled_name = cx.name(name);
    bearer(compiled_name?, &pointer?, text?.span, cx)
}

fn bearer(
    name: Arc<str>,
    pointer: &Pointer,
    place: Span,
    cx: &mut Context<'_>,
) -> Option<AdminToken> {
    let checked = cx.vault.read_key(pointer).and_then(|secret| {
        let visible = secret.0.iter().all(u8::is_ascii_graphic);
        SecretText::of(secret).filter(|_| visible).ok_or_else(|| {
            Invalid::new(
                "no header can carry it: it has a space, a line break or other symbols",
                "make one with `openssl rand -hex 32`",
            )
        })
    });
    match checked {
        Ok(token) => Some(AdminToken { name, token }),
        Err(invalid) => {
            refuse(&format!("admin token `{name}`"), ADMIN_TOKEN, place, invalid, cx);
            None
        }
    }
}

/// The audit says who it was, so no two may show the same.
fn refuse_same_tokens(tokens: &[(Span, Option<AdminToken>)], cx: &mut Context<'_>) {
    let known: Vec<(Span, &AdminToken)> =
        tokens.iter().filter_map(|(span, token)| Some((*span, token.as_ref()?))).collect();
    for (index, (span, token)) in known.iter().enumerate() {
        let mut earlier = known.iter().take(index);
        if let Some((first, other)) = earlier.find(|(_, other)| other.token == token.token) {
            let message =
                format!("admin tokens `{}` and `{}` are the same", other.name, token.name);
            cx.report(
                Diagnostic::error(message)
                    .at(*span, "this one")
                    .at(*first, "and this one")
                    .help("the audit could not tell them apart; give each a token of its own"),
            );
        }
    }
}
