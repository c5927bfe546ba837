//! `[auth.api_key]` and the secrets of `[auth.jwt.*]`.

use super::fleet::has_postgres;
use super::issuer_keys::{KeysOf, Secrets, refuse_shared};
use super::issuers::{Draft, draft};
use super::{Context, Names};
use crate::auth::{Algorithm, ApiKeys, IssuerKeys, JwtIssuer, Key, KeySet};
use crate::config::diagnostic::Diagnostic;
use crate::config::schema::{At, File, Text};
use crate::config::secret::{Pointer, Secret, SecretFiles};
use crate::config::source::Span;
use http::HeaderName;
use std::path::Path;
use std::sync::Arc;

/// The most peppers that are accepted beside the one in use.
const MOST_PREVIOUS: usize = 4;

type Auth = (ApiKeys, Vec<Arc<JwtIssuer>>);

pub(crate) fn compile(
    file: &File,
    plans: &Names<'_>,
    files: SecretFiles,
    cx: &mut Context<'_>,
) -> Option<Auth> {
    let api_key = &file.auth.api_key;
    let environment = cx.read(&api_key.environment);
    let header = cx.read(&api_key.header);
    if let Some(header) = &header {
        check_header(header, api_key.header.span, cx);
    }
    let drafts: Vec<Option<Draft<'_>>> = (file.auth.jwt.0.iter())
        .map(|(name, jwt)| draft(name, &jwt.value, plans, header.as_ref(), cx))
        .collect();
    refuse_shared(&file.auth.jwt, cx);

    let store = cx.sources.dir.join(&file.store.path.value);
    let postgres = has_postgres(file, cx);
    let what = Wanted {
        what: "the pepper of API keys",
        variable: "API_KEY_PEPPER",
        name: "api-key.pepper",
        key: "pepper",
        binds_store: true,
        place: if postgres { file.store.postgres.span() } else { file.store.path.span },
        shared: postgres,
    };
    let pepper = secret(api_key.pepper.as_ref(), &what, &store, files, cx);
    let previous = previous_peppers(&api_key.previous_peppers, pepper.as_ref(), &store, files, cx);
    let mut issuers = Vec::new();
    for draft in drafts {
        issuers.push(draft.and_then(|draft| {
            let keys = match draft.keys {
                KeysOf::Public(keys) => keys,
                KeysOf::Secrets(secrets) => {
                    let keys = secret_keys(draft.name, &secrets, postgres, &store, files, cx)?;
                    IssuerKeys::Given(Arc::new(keys))
                }
            };
            Some(Arc::new(JwtIssuer { keys, ..draft.issuer }))
        }));
    }
    let mut issuers: Vec<Arc<JwtIssuer>> = issuers.into_iter().collect::<Option<_>>()?;
    issuers.sort_by(|one, other| one.name.cmp(&other.name));
    let api_keys = ApiKeys {
        environment: environment?.0,
        header: header?,
        pepper: pepper?.0,
        previous_peppers: previous?,
    };
    Some((api_keys, issuers))
}

/// The peppers beside the one in use: each another one.
fn previous_peppers(
    pointers: &[At<Text<Pointer>>],
    current: Option<&Secret>,
    store: &Path,
    files: SecretFiles,
    cx: &mut Context<'_>,
) -> Option<Vec<Vec<u8>>> {
    if let Some(surplus) = pointers.get(MOST_PREVIOUS) {
        cx.report(
            Diagnostic::error("there are too many previous peppers")
                .at(surplus.span, format!("at most {MOST_PREVIOUS} are accepted"))
                .help("`gateway keys peppers` says which of them no key needs"),
        );
        return None;
    }
    let mut peppers: Vec<Option<Secret>> = Vec::new();
    for pointer in pointers {
        let wanted = Wanted {
            what: "a previous pepper of API keys",
            variable: "",
            name: "",
            key: "previous_peppers",
            binds_store: false,
            place: pointer.span,
            shared: false,
        };
        let pepper = secret(Some(pointer), &wanted, store, files, cx);
        let twin = match &pepper {
            Some(one) if current == Some(one) => Some("it is the pepper in use"),
            Some(one) if peppers.iter().flatten().any(|other| other == one) => {
                Some("it stands here already")
            }
            _ => None,
        };
        if let Some(twin) = twin {
            let same = Diagnostic::error("a previous pepper is named twice");
            cx.report(same.at(pointer.span, twin).help("remove one of them"));
            peppers.push(None);
            continue;
        }
        peppers.push(pepper);
    }
    peppers.into_iter().map(|pepper| pepper.map(|pepper| pepper.0)).collect()
}

/// The secrets of an issuer as keys.
fn secret_keys(
    name: &At<String>,
    secrets: &Secrets<'_>,
    shared: bool,
    store: &Path,
    files: SecretFiles,
    cx: &mut Context<'_>,
) -> Option<KeySet> {
    let mut keys = Vec::new();
    if secrets.single.is_some() || secrets.by_kid.is_empty() {
        let what = Wanted {
            what: &format!("the secret of issuer `{}`", name.value),
            variable: "JWT_SECRET",
            name: "jwt.secret",
            key: "secret",
            binds_store: false,
            place: name.span,
            shared,
        };
        let place = secrets.single.map_or(name.span, |pointer| pointer.span);
        let secret = secret(secrets.single, &what, store, files, cx);
        keys.push(secret.and_then(|secret| key(None, secrets.algorithm, &secret, place, cx)));
    }
    for (kid, pointer) in secrets.by_kid {
        let what = Wanted {
            what: &format!(
                "the secret `{}` of issuer `{}`",
                super::shorten(&kid.value),
                name.value
            ),
            variable: "",
            name: "",
            key: "secrets",
            binds_store: false,
            place: kid.span,
            shared,
        };
        let secret = secret(Some(pointer), &what, store, files, cx);
        let kid = Some(kid.value.as_str());
        keys.push(secret.and_then(|secret| key(kid, secrets.algorithm, &secret, pointer.span, cx)));
    }
    keys.into_iter().collect()
}

/// A secret as the key of an algorithm, which asks for as many bytes as its digest has.
fn key(
    kid: Option<&str>,
    algorithm: Algorithm,
    secret: &Secret,
    place: Span,
    cx: &mut Context<'_>,
) -> Option<Key> {
    let (length, least) = (secret.0.len(), algorithm.shortest_secret());
    if length < least {
        let short = format!("the secret is too short for {}", algorithm.name());
        cx.report(
            Diagnostic::error(short)
                .at(place, format!("it has {length} bytes, at least {least} are needed"))
                .help(format!("make one with `openssl rand -hex {}`", least.div_ceil(2))),
        );
        return None;
    }
    // The algorithm of secrets is checked where it is read.
    Key::secret(kid, algorithm, &secret.0).ok()
}

fn check_header(header: &HeaderName, span: Span, cx: &mut Context<'_>) {
    let reserved = header == http::header::AUTHORIZATION || header == http::header::COOKIE;
    if reserved || super::rewrite::is_protected(header) {
        cx.report(
            Diagnostic::error(format!("the header `{header}` cannot carry keys"))
                .at(span, "it has another meaning")
                .help("the default is `X-API-Key`"),
        );
    }
}

/// What a secret is for, and where it is when the file does not say.
struct Wanted<'a> {
    what: &'a str,
    variable: &'a str,
    name: &'a str,
    /// The key that would name another one.
    key: &'a str,
    /// Whether what is in the store is worthless without it.
    binds_store: bool,
    place: Span,
    /// Whether all tasks of a fleet must have the same one, so that none can make its own.
    shared: bool,
}

fn secret(
    pointer: Option<&At<Text<Pointer>>>,
    wanted: &Wanted<'_>,
    store: &Path,
    files: SecretFiles,
    cx: &mut Context<'_>,
) -> Option<Secret> {
    let (secret, place) = match pointer {
        Some(text) => {
            let pointer = cx.read(text)?;
            (cx.vault.read_key(&pointer), text.span)
        }
        None if wanted.shared => {
            let pointer = Pointer::Env(wanted.variable.to_owned());
            if cx.vault.has(wanted.variable) {
                (cx.vault.read_key(&pointer), wanted.place)
            } else {
                refuse_own(wanted, cx);
                return None;
            }
        }
        None => {
            let path = beside(store, wanted.name);
            // The store is looked for first: whoever makes both makes the pepper first.
            let bound = wanted.binds_store && store.exists();
            let needed = bound || files == SecretFiles::Keep;
            if needed && cx.vault.lacks(wanted.variable, &path) {
                let missing = missing(wanted, &path, bound.then_some(store), files);
                cx.report(match wanted.place.is_somewhere() {
                    true => missing.at(wanted.place, "needed here"),
                    false => missing.at_file(&cx.sources.dir),
                });
                return None;
            }
            let files = match files {
                _ if needed => SecretFiles::Keep,
                // Nothing is written for a configuration that cannot be used.
                SecretFiles::Create if !cx.findings.is_clean() => SecretFiles::Leave,
                files => files,
            };
            (cx.vault.read_or_make(wanted.variable, &path, files), wanted.place)
        }
    };
    match secret {
        Ok(secret) => Some(secret),
        Err(invalid) => {
            let mut broken = Diagnostic::error(format!("{} cannot be used", wanted.what));
            broken = if place.is_somewhere() {
                broken.at(place, invalid.label)
            } else {
                broken.at_file(&cx.sources.dir).help(invalid.label)
            };
            cx.report(broken.help(invalid.help));
            None
        }
    }
}

/// With PostgreSQL there are other tasks, and what one signs or digests the others must understand.
fn refuse_own(wanted: &Wanted<'_>, cx: &mut Context<'_>) {
    let Wanted { what, variable, key, .. } = wanted;
    let missing = Diagnostic::error(format!("{what} is nowhere"));
    let missing = match wanted.place.is_somewhere() {
        true => missing.at(wanted.place, "needed here"),
        false => missing.at_file(&cx.sources.dir),
    };
    cx.report(missing.help(format!(
        "with PostgreSQL none is made, since all tasks must have the same: set `{variable}` to at \
         least 32 random bytes (`openssl rand -hex 32`) for all of them, or name one with `{key}`"
    )));
}

/// The folder of a file, for what is kept beside it.
fn beside(store: &Path, name: &str) -> std::path::PathBuf {
    store.parent().unwrap_or(Path::new(".")).join(name)
}

/// A secret that is nowhere and must not be made. `store` is there and cannot do without it.
fn missing(
    wanted: &Wanted<'_>,
    path: &Path,
    store: Option<&Path>,
    files: SecretFiles,
) -> Diagnostic {
    let (what, variable, key, path) = (wanted.what, wanted.variable, wanted.key, path.display());
    match store {
        Some(_) if files == SecretFiles::Keep => Diagnostic::error(format!("{what} is gone"))
            .help(format!("put `{path}` back: without it no key is valid")),
        Some(store) => {
            let store = store.display();
            let message =
                format!("the store `{store}` exists, but the pepper of its keys does not");
            Diagnostic::error(message)
                .help(format!("restore `{path}`, or set `{variable}` if that was it"))
                .help(format!(
                    "to give up all keys, put 32 random bytes or more into `{path}`, with mode 0600"
                ))
        }
        None => Diagnostic::error(format!("{what} is gone"))
            .help(format!("put `{path}` back"))
            .help(format!(
                "a running gateway makes no secrets: name one with `{key}`, or restart to have \
                 one made"
            )),
    }
}
