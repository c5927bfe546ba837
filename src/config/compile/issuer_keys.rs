//! Where the keys of `[auth.jwt.*]` are: public keys are read here, secrets only found.
//!
//! Must stay true: an issuer has secrets or public keys, never both, so that no public key can ever
//! stand in for a secret; and no two issuers can speak for each other.

use super::{Context, Owner};
use crate::auth::{
    Algorithm, Family, IssuerKeys, Jwks, JwksSource, JwksUrl, Key, KeySet, MAX_KEYS, MAX_KID,
    is_public,
};
use crate::config::certificate;
use crate::config::diagnostic::Diagnostic;
use crate::config::jose::PublicFile;
use crate::config::schema::{self, At, Entries, Text};
use crate::config::secret::Pointer;
use crate::config::source::Span;
use crate::config::value::Invalid;
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Bytes of a file with keys.
const LARGEST: u64 = 256 * 1024;

/// Where its keys come from.
pub(super) enum KeysOf<'a> {
    /// Public keys: here, or where they are fetched.
    Public(IssuerKeys),
    /// Secrets, which are read when everything else is known to be right.
    Secrets(Secrets<'a>),
}

/// Secrets, still to be read.
pub(super) struct Secrets<'a> {
    pub(super) algorithm: Algorithm,
    pub(super) single: Option<&'a At<Text<Pointer>>>,
    pub(super) by_kid: &'a [(At<String>, At<Text<Pointer>>)],
}

pub(super) fn keys<'a>(
    owner: Owner<'_>,
    jwt: &'a schema::Jwt,
    cx: &mut Context<'_>,
) -> Option<KeysOf<'a>> {
    let secret = jwt.secret.as_ref().map(|at| at.span);
    let secret = secret.or(jwt.secrets.0.first().map(|(kid, _)| kid.span));
    let public = [
        jwt.public_key.as_ref().map(|at| at.span),
        jwt.jwks.as_ref().map(|at| at.span),
        jwt.jwks_url.as_ref().map(|at| at.span),
    ];
    let lost = ["secret", "secrets", "public_key", "jwks", "jwks_url"]
        .iter()
        .any(|key| cx.is_lost(owner, key));
    let mut places = secret.into_iter().chain(public.into_iter().flatten());
    if let (Some(first), Some(second)) = (places.next(), places.next()) {
        let message = format!("{} takes its keys from two places", owner.subject());
        cx.report(
            Diagnostic::error(message)
                .at(first, "from here")
                .at(second, "and from here")
                .help("keep one: make a table for each, and tell them apart by `issuer`"),
        );
        return None;
    }
    let algorithm = match &jwt.algorithm {
        Some(at) => Some(Some((cx.read(at)?, at.span))),
        None => Some(None),
    }?;
    let is_secret = public.iter().all(Option::is_none);
    let of_secrets = of_family(Family::Secret, Algorithm::Hs256, algorithm, is_secret, cx);
    let of_rsa = of_family(Family::Rsa, Algorithm::Rs256, algorithm, !is_secret, cx);
    check_url_keys(owner, jwt, cx);
    if is_secret {
        check_kids(owner, jwt, cx);
        let (single, by_kid) = (jwt.secret.as_ref(), &*jwt.secrets.0);
        let algorithm = of_secrets?;
        return (!lost).then_some(KeysOf::Secrets(Secrets { algorithm, single, by_kid }));
    }
    warn_of_anyone(owner, jwt, cx);
    let of_rsa = of_rsa?;
    if let Some(file) = &jwt.public_key {
        let keys = read_file(file, cx, |bytes| pem(bytes, of_rsa, file.span))?;
        return Some(KeysOf::Public(IssuerKeys::Given(keys)));
    }
    if let Some(file) = &jwt.jwks {
        let keys = read_file(file, cx, |bytes| jwks(bytes, of_rsa, file.span))?;
        return Some(KeysOf::Public(IssuerKeys::Given(keys)));
    }
    url(jwt, of_rsa, cx).map(KeysOf::Public)
}

/// The algorithm of keys that do not name theirs.
fn of_family(
    family: Family,
    default: Algorithm,
    given: Option<(Algorithm, Span)>,
    is_used: bool,
    cx: &mut Context<'_>,
) -> Option<Algorithm> {
    let Some((algorithm, span)) = given.filter(|_| is_used) else { return Some(default) };
    if algorithm.family() == family {
        return Some(algorithm);
    }
    let (of, names) = match family {
        Family::Secret => ("secrets", "`HS256`, `HS384` or `HS512`"),
        _ => ("public keys of RSA", "`RS256`, `RS384`, `RS512`, `PS256`, `PS384` or `PS512`"),
    };
    cx.report(
        Diagnostic::error(format!("{} is not for {of}", algorithm.name()))
            .at(span, "the keys of this issuer are of another kind")
            .help(format!("{names}; keys on a curve have only one, and need none named")),
    );
    None
}

/// What is said of a URL where there is none.
fn check_url_keys(owner: Owner<'_>, jwt: &schema::Jwt, cx: &mut Context<'_>) {
    if jwt.jwks_url.is_some() || cx.is_lost(owner, "jwks_url") {
        return;
    }
    let given = [
        ("refresh", Some(jwt.refresh.span)),
        ("ca", jwt.ca.as_ref().map(|at| at.span)),
        ("allow_http", Some(jwt.allow_http.span)),
        ("allow_private", Some(jwt.allow_private.span)),
    ];
    for (key, span) in given {
        let Some(span) = span.filter(|span| span.is_somewhere()) else { continue };
        let message = format!("`{key}` has no effect in {}", owner.subject());
        cx.report(
            Diagnostic::error(message)
                .at(span, "no keys are fetched")
                .help(format!("remove `{key}`, or name a `jwks_url`")),
        );
    }
}

fn check_kids(owner: Owner<'_>, jwt: &schema::Jwt, cx: &mut Context<'_>) {
    for (kid, _) in &jwt.secrets.0 {
        if !(1..=MAX_KID).contains(&kid.value.len()) {
            let message = format!("{} has a `kid` that no token can have", owner.subject());
            let wrong = Diagnostic::error(message);
            cx.report(wrong.at(kid.span, format!("it must have 1 to {MAX_KID} bytes")));
        }
    }
    if let Some((kid, _)) = jwt.secrets.0.get(MAX_KEYS) {
        let many = Diagnostic::error(format!("{} has too many secrets", owner.subject()));
        cx.report(many.at(kid.span, format!("more than {MAX_KEYS}")));
    }
}

/// Who publishes keys often signs for many.
fn warn_of_anyone(owner: Owner<'_>, jwt: &schema::Jwt, cx: &mut Context<'_>) {
    if jwt.issuer.is_some() && !jwt.audiences.is_empty() {
        return;
    }
    if cx.is_lost(owner, "issuer") || cx.is_lost(owner, "audiences") {
        return;
    }
    let (label, help) = match jwt.issuer {
        None => ("whoever they name as `iss`", "say whose they are, as `issuer = \"https://…\"`"),
        Some(_) => ("whoever they are for", "say what they must be for, as `audiences = [\"…\"]`"),
    };
    let message = format!("{} believes all tokens that its keys sign", owner.subject());
    cx.report(Diagnostic::warning(message).at(owner.span, label).help(help));
}

/// What is wrong with a file of keys: its findings, and its keys if it has any.
type Read = (Vec<Diagnostic>, Option<KeySet>);

fn read_file(
    file: &At<Text<PublicFile>>,
    cx: &mut Context<'_>,
    read: impl FnOnce(&[u8]) -> Read,
) -> Option<Arc<KeySet>> {
    let path = cx.sources.dir.join(cx.read(file)?.0);
    let bytes = read_bounded(&path);
    cx.watched.push(path);
    match bytes {
        Ok(bytes) => {
            let (findings, keys) = read(&bytes);
            findings.into_iter().for_each(|finding| cx.report(finding));
            keys.map(Arc::new)
        }
        Err(invalid) => {
            let broken = Diagnostic::error("the keys cannot be read");
            cx.report(broken.at(file.span, invalid.label).help(invalid.help));
            None
        }
    }
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, Invalid> {
    let shown = path.display();
    let failed = |error: std::io::Error| {
        Invalid::new(
            format!("`{shown}` cannot be read: {error}"),
            "paths start at the folder of the configuration",
        )
    };
    let about = std::fs::metadata(path).map_err(failed)?;
    if !about.is_file() || about.len() > LARGEST {
        let label = format!("`{shown}` is not a file of at most 256 KiB");
        return Err(Invalid::new(label, "is it the right file?"));
    }
    std::fs::read(path).map_err(failed)
}

fn jwks(bytes: &[u8], of_rsa: Algorithm, span: Span) -> Read {
    let set = match Jwks::parse(bytes, of_rsa) {
        Ok(set) => set,
        Err(reason) => {
            let broken = Diagnostic::error("the file is no set of keys");
            let help = "RFC 7517: `{\"keys\": [{\"kty\": …}]}`";
            return (vec![broken.at(span, reason.to_string()).help(help)], None);
        }
    };
    let mut findings = Vec::new();
    for refused in &set.refused {
        let finding = match refused.reason.is_for_others() && !set.keys.is_empty() {
            true => Diagnostic::warning("a key of the set is not used"),
            false => Diagnostic::error("a key of the set cannot be used"),
        };
        findings.push(finding.at(span, refused.to_string()));
    }
    if set.keys.is_empty() && findings.is_empty() {
        findings.push(Diagnostic::error("the set has no key").at(span, "no token would be good"));
    }
    let keys = (!set.keys.is_empty()).then_some(set.keys);
    (findings, keys)
}

fn pem(bytes: &[u8], of_rsa: Algorithm, span: Span) -> Read {
    const HELP: &str = "the file must be PEM, with `BEGIN PUBLIC KEY`";
    let broken = |label: String| Diagnostic::error("the key cannot be used").at(span, label);
    let found: Result<Vec<_>, _> = SubjectPublicKeyInfoDer::pem_slice_iter(bytes).collect();
    let found = found.unwrap_or_default();
    if found.is_empty() || found.len() > MAX_KEYS {
        return (vec![broken("there is no public key in it".to_owned()).help(HELP)], None);
    }
    let keys: Result<KeySet, _> = found.iter().map(|der| Key::spki(of_rsa, der)).collect();
    match keys {
        Ok(keys) => (Vec::new(), Some(keys)),
        Err(reason) => (vec![broken(reason.to_string())], None),
    }
}

fn url(jwt: &schema::Jwt, of_rsa: Algorithm, cx: &mut Context<'_>) -> Option<IssuerKeys> {
    let at = jwt.jwks_url.as_ref()?;
    let (least, most) = (Duration::from_secs(10), Duration::from_secs(3600));
    let refresh = cx.bounded(&jwt.refresh, least, most);
    let url = cx.read(at);
    let ca = jwt.ca.as_ref().map(|ca| {
        let path = cx.sources.dir.join(&ca.value);
        let authority = certificate::authority(&path);
        cx.watched.push(path);
        authority
            .map_err(|invalid| {
                let broken = Diagnostic::error("the authority cannot be used");
                cx.report(broken.at(ca.span, invalid.label).help(invalid.help));
            })
            .ok()
    });
    let url = url?;
    check_way(&url, jwt, at.span, cx);
    let source = JwksSource {
        url,
        ca: match ca {
            Some(ca) => Some(ca?),
            None => None,
        },
        allow_private: jwt.allow_private.value,
        of_rsa,
    };
    Some(IssuerKeys::Fetched { source: Arc::new(source), refresh: refresh? })
}

/// Over which way, and whereto.
fn check_way(url: &JwksUrl, jwt: &schema::Jwt, span: Span, cx: &mut Context<'_>) {
    if !url.tls && !jwt.allow_http.value {
        cx.report(
            Diagnostic::error("keys are fetched without TLS")
                .at(span, "whoever is on the way decides which tokens are good")
                .help("write `https://`; `allow_http = true` if there is nobody on the way"),
        );
    }
    if let Some(ca) = jwt.ca.as_ref().filter(|_| !url.tls) {
        let unused = Diagnostic::error("`ca` has no effect on a connection without TLS");
        cx.report(unused.at(ca.span, "the URL asks for none").help("remove `ca`"));
    }
    let is_here = url.address().is_some_and(|address: IpAddr| !is_public(address))
        || &*url.host == "localhost"
        || url.host.ends_with(".localhost");
    if is_here && !jwt.allow_private.value {
        cx.report(
            Diagnostic::error("keys are fetched from an address that is not public")
                .at(span, "it means something else on each machine")
                .help("`allow_private = true` if it is meant"),
        );
    }
}

/// Two issuers must not be able to speak for each other.
pub(super) fn refuse_shared(issuers: &Entries<schema::Jwt>, cx: &mut Context<'_>) {
    for (index, (name, jwt)) in issuers.0.iter().enumerate() {
        let mine = pointers(&jwt.value);
        let mut others = issuers.0.iter().take(index);
        let shares = |other: &At<schema::Jwt>| {
            pointers(&other.value).iter().any(|pointer| mine.contains(pointer))
        };
        if let Some((other, _)) = others.clone().find(|(_, other)| shares(other)) {
            let message = format!("issuers `{}` and `{}` have one secret", other.value, name.value);
            cx.report(
                Diagnostic::error(message)
                    .at(name.span, "this one")
                    .at(other.span, "and this one")
                    .help("each could speak for the other; give each a `secret` of its own"),
            );
        }
        let mine = published(&jwt.value);
        let unnamed =
            |other: &At<schema::Jwt>| jwt.value.issuer.is_none() || other.value.issuer.is_none();
        let same = others
            .find(|(_, other)| mine.is_some() && published(&other.value) == mine && unnamed(other));
        if let Some((other, _)) = same {
            let message =
                format!("issuers `{}` and `{}` have the same keys", other.value, name.value);
            cx.report(
                Diagnostic::error(message)
                    .at(name.span, "this one")
                    .at(other.span, "and this one")
                    .help("each could speak for the other; tell them apart by `issuer`"),
            );
        }
    }
}

/// Where the secrets of an issuer are; `None` stands for the one that is taken without a word.
fn pointers(jwt: &schema::Jwt) -> Vec<Option<&str>> {
    let single = jwt.secret.as_ref().map(|at| at.value.text.as_str());
    let by_kid = jwt.secrets.0.iter().map(|(_, at)| Some(at.value.text.as_str()));
    let is_silent = published(jwt).is_none() && jwt.secrets.0.is_empty();
    let single = (single.is_some() || is_silent).then_some(single);
    single.into_iter().chain(by_kid).collect()
}

/// Where the public keys of an issuer are.
fn published(jwt: &schema::Jwt) -> Option<&str> {
    let files = [jwt.public_key.as_ref(), jwt.jwks.as_ref()].into_iter().flatten();
    let url = jwt.jwks_url.as_ref().map(|at| at.value.text.as_str());
    files.map(|at| at.value.text.as_str()).next().or(url)
}
