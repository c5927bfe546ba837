//! `[store]`, `[redis]`, `[fleet]`, `[cache]` and `[admin]`: what is read once at the start.
//!
//! Must stay true: no message shows a URL or a token, or a part of one.

use super::{Context, Owner};
use crate::config::certificate;
use crate::config::diagnostic::Diagnostic;
use crate::config::fleet::{
    AdminDef, AdminToken, CacheDef, FleetDef, PostgresDef, RedisDef, SecretText, StoreDef,
};
use crate::config::schema::{self, At, File, Text};
use crate::config::secret::{Pointer, Secret};
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
        }
    }
}

pub(crate) fn compile(file: &File, cx: &mut Context<'_>) -> Option<(Fleet, Settings)> {
    let store = store(file, cx);
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

fn store(file: &File, cx: &mut Context<'_>) -> Option<StoreDef> {
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
    let schemes = ["postgres", "postgresql"];
    let url = Url { what: "the URL of PostgreSQL", variable: DATABASE_URL, schemes };
    let url = url.read(def.url.as_ref(), cx);
    let replica = Url { what: "the URL of the replica", variable: REPLICA_URL, schemes };
    let replica_url = replica.read(def.replica_url.as_ref(), cx);
    let ca = def.ca.as_ref().map(|ca| authority(ca, cx));
    let url = url??;
    refuse_authority(def.ca.as_ref(), url.expose().contains("sslmode=disable"), cx);
    Some(StoreDef::Postgres(PostgresDef {
        url,
        replica_url: replica_url?,
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
    let url = Url { what, variable: REDIS_URL, schemes: ["rediss", "redis"] };
    let Some(url) = url.read(def.url.as_ref(), cx)? else { return Some(None) };
    let ca = def.ca.as_ref().map(|ca| authority(ca, cx));
    refuse_authority(def.ca.as_ref(), url.expose().starts_with("redis:"), cx);
    warn_of_shares(&file.fleet, cx);
    Some(Some(RedisDef { url, ca: given(ca)? }))
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

/// A URL that is a secret, and where it is when the file does not say.
struct Url<'a> {
    what: &'a str,
    variable: &'a str,
    schemes: [&'a str; 2],
}

impl Url<'_> {
    /// The URL, if there is one; `None` if it is wrong.
    fn read(
        &self,
        pointer: Option<&At<Text<Pointer>>>,
        cx: &mut Context<'_>,
    ) -> Option<Option<SecretText>> {
        let (pointer, place) = match pointer {
            Some(text) => (cx.read(text)?, text.span),
            None if !cx.vault.has(self.variable) => return Some(None),
            None => (Pointer::Env(self.variable.to_owned()), Span::NOWHERE),
        };
        match cx.vault.read(&pointer).and_then(|secret| self.check(secret)) {
            Ok(url) => Some(Some(url)),
            Err(invalid) => {
                refuse(self.what, self.variable, place, invalid, cx);
                None
            }
        }
    }

    fn check(&self, secret: Secret) -> Result<SecretText, Invalid> {
        let [first, second] = self.schemes;
        let help = format!("write it as `{first}://USER:PASSWORD@HOST`");
        let text = SecretText::of(secret);
        let text = text.ok_or_else(|| Invalid::new("it is not text", help.clone()))?;
        let (scheme, rest) = text.expose().split_once("://").unwrap_or_default();
        if scheme != first && scheme != second {
            let label = format!("it starts neither with `{first}://` nor with `{second}://`");
            return Err(Invalid::new(label, help));
        }
        let host = rest.split(['/', '?']).next().unwrap_or_default();
        if host.rsplit('@').next().is_none_or(str::is_empty)
            || rest.chars().any(|symbol| symbol.is_whitespace() || symbol.is_control())
        {
            return Err(Invalid::new("it names no host, or has a space or a line break", help));
        }
        Ok(text)
    }
}

/// What is wrong with a secret, without the secret.
fn refuse(what: &str, variable: &str, place: Span, invalid: Invalid, cx: &mut Context<'_>) {
    let broken = Diagnostic::error(format!("{what} cannot be used"));
    cx.report(match place.is_somewhere() {
        true => broken.at(place, invalid.label).help(invalid.help),
        false => broken
            .at_file(&cx.sources.dir.clone())
            .help(format!("`{variable}`: {}", invalid.label))
            .help(invalid.help),
    });
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
