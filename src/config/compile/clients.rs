//! `client_ca` of listeners and `[auth.mtls]`: whose certificates are believed, and what is read from
//! them.

use super::{Context, Names, Owner};
use crate::auth::{CERTIFICATES, CertificateRules, ClientTrust};
use crate::config::certificate::{Unbelievable, client_trust};
use crate::config::diagnostic::Diagnostic;
use crate::config::schema::{At, AuthMethod, ClientCertificates, File, ListenerTls};
use crate::config::source::Span;
use std::sync::Arc;

/// Whose certificates the listeners believe, and what is read from them.
pub(crate) struct Clients {
    pub(crate) trusts: Vec<(Arc<str>, Arc<ClientTrust>)>,
    pub(crate) rules: CertificateRules,
}

pub(crate) fn compile(file: &File, plans: &Names<'_>, cx: &mut Context<'_>) -> Option<Clients> {
    let mut trusts = Vec::new();
    for (name, listener) in &file.listeners.0 {
        let Some(tls) = &listener.value.tls else { continue };
        match &tls.value.client_ca {
            Some(authorities) => {
                let trust = trust(name, &tls.value, authorities, cx);
                trusts.push(trust.map(|trust| (name.value.as_str().into(), Arc::new(trust))));
            }
            None => refuse_keys_of_nobody(name, tls, cx),
        }
    }
    refuse_issuer(file, cx);
    warn_of_certificates(file, cx);
    let mtls = &file.auth.mtls;
    let default_plan = match &mtls.default_plan {
        Some(plan) => {
            let owner = Owner { path: &["auth", "mtls"], span: plan.span };
            Some(cx.reference(owner, "plan", "plans", plan, plans)?)
        }
        None => None,
    };
    let rules = CertificateRules { subject: mtls.subject.value.into(), default_plan };
    Some(Clients { trusts: trusts.into_iter().collect::<Option<_>>()?, rules })
}

/// Whose certificates this listener believes.
fn trust(
    name: &At<String>,
    tls: &ListenerTls,
    authorities: &At<String>,
    cx: &mut Context<'_>,
) -> Option<ClientTrust> {
    if authorities.value.starts_with("file:") {
        let wrong = format!("`client_ca` of listener `{}` cannot be used", name.value);
        let wrong = Diagnostic::error(wrong).at(authorities.span, "not the path of a file");
        cx.report(wrong.help("this is a path, without `file:`"));
        return None;
    }
    let path = cx.sources.dir.join(&authorities.value);
    let lists =
        tls.client_crl.as_ref().map(|lists| (cx.sources.dir.join(&lists.value), lists.span));
    cx.watched.push(path.clone());
    cx.watched.extend(lists.as_ref().map(|(path, _)| path.clone()));
    let required = tls.client_certificate.value == ClientCertificates::Required;
    let unbelievable = match client_trust(&path, lists.as_ref().map(|(path, _)| &**path), required)
    {
        Ok(trust) => return Some(trust),
        Err(unbelievable) => unbelievable,
    };
    let (what, place, invalid) = match unbelievable {
        Unbelievable::Authorities(invalid) => ("`client_ca`", authorities.span, invalid),
        Unbelievable::NoAuthority(invalid) => {
            let file = super::shorten(&authorities.value);
            let message = format!("the certificate in `{file}` is not an authority");
            let none = Diagnostic::error(message).at(authorities.span, invalid.label);
            cx.report(none.help(invalid.help));
            return None;
        }
        Unbelievable::Lists(invalid) => {
            ("`client_crl`", lists.map_or(authorities.span, |(_, place)| place), invalid)
        }
    };
    let broken = Diagnostic::error(format!("{what} of listener `{}` cannot be used", name.value));
    cx.report(broken.at(place, invalid.label).help(invalid.help));
    None
}

/// Without an authority no certificate is asked for.
fn refuse_keys_of_nobody(name: &At<String>, tls: &At<ListenerTls>, cx: &mut Context<'_>) {
    let owner = Owner { path: &["listeners", &name.value, "tls"], span: tls.span };
    if cx.is_lost(owner, "client_ca") {
        return;
    }
    let asked = &tls.value.client_certificate;
    let lists = tls.value.client_crl.as_ref().map(|lists| lists.span);
    let places: [(&str, Option<Span>); 2] =
        [("client_certificate", asked.is_given().then_some(asked.span)), ("client_crl", lists)];
    for (key, place) in places {
        let Some(place) = place else { continue };
        let message = format!("listener `{}` believes no client certificate", name.value);
        cx.report(
            Diagnostic::error(message)
                .at(place, format!("`{key}` has no effect without `client_ca`"))
                .help("name the PEM file with the authorities: `client_ca = \"tls/clients.pem\"`"),
        );
    }
}

/// The deny list tells issuers apart by name, and certificates are one of them.
fn refuse_issuer(file: &File, cx: &mut Context<'_>) {
    let taken = file.auth.jwt.0.iter().find(|(name, _)| name.value == CERTIFICATES);
    if let Some((name, _)) = taken {
        cx.report(
            Diagnostic::error(format!("an issuer of tokens cannot be called `{CERTIFICATES}`"))
                .at(name.span, "the deny list knows client certificates by this name")
                .help("choose another name"),
        );
    }
}

/// Certificates that no listener asks for never come; said once.
fn warn_of_certificates(file: &File, cx: &mut Context<'_>) {
    let asks = |tls: &Option<At<ListenerTls>>| {
        tls.as_ref().is_some_and(|tls| tls.value.client_ca.is_some())
    };
    let asked = file.listeners.0.iter().any(|(_, listener)| asks(&listener.value.tls));
    if asked || !cx.complete || !cx.findings.is_clean() {
        return;
    }
    let place = (file.routes.0.iter())
        .filter_map(|(name, route)| Some((name, route.value.auth.as_ref()?)))
        .flat_map(|(name, auth)| auth.items().into_iter().map(move |item| (name, item)))
        .find(|(_, (_, method))| **method == AuthMethod::Mtls);
    if let Some((name, (span, _))) = place {
        let message =
            format!("route `{}` accepts certificates, but no listener asks for one", name.value);
        cx.report(
            Diagnostic::warning(message)
                .at(span, "nobody can show one")
                .help("add `client_ca` to a listener's `tls`, or take `mtls` away"),
        );
    }
}
