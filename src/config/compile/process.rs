//! `workers`, `[listeners.*]`, `[http]`, `[drain]`, `[access_log]`.

use super::{Context, Owner};
use crate::config::certificate::{self, Certificate, Unusable};
use crate::config::diagnostic::Diagnostic;
use crate::config::schema::{self, At, File, Text, Workers};
use crate::config::source::Span;
use crate::config::value::{AdminAddress, ByteSize};
use crate::config::{Drain, Http, Listener, ListenerTls};
use ipnet::IpNet;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

/// Everything about the process.
pub(crate) struct Process {
    pub(crate) workers: Option<NonZeroUsize>,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) certificates: Vec<(Arc<str>, Certificate)>,
    pub(crate) http: Http,
    pub(crate) drain: Drain,
    pub(crate) access_log: bool,
}

/// Listeners, each by its name, the place of the name and the place of its address.
type Places = Vec<(Arc<str>, Span, Span)>;

/// The shortest time that can be asked for.
const SHORTEST: Duration = Duration::from_millis(10);
const HOUR: Duration = Duration::from_secs(3600);

pub(crate) fn compile(file: &File, cx: &mut Context<'_>) -> Option<(Process, Places)> {
    let workers = match file.workers.value {
        Workers::Auto => None,
        Workers::Count(count) => usize::try_from(count).ok().and_then(NonZeroUsize::new),
    };
    let (listeners, certificates, places) = listeners(file, cx);
    let admin = cx.read_quietly(&file.admin.address);
    if let (Some(AdminAddress::On(address)), Some(places)) = (admin, &places) {
        let all = places.iter().zip(listeners.iter().flatten());
        for ((_, _, place), listener) in all {
            refuse_same(&file.admin.address, address, (*place, listener.address), cx);
        }
    }
    let http = http(&file.http, cx);
    let drain = drain(&file.drain, cx);
    let process = Process {
        workers,
        listeners: listeners?,
        certificates: certificates?,
        http: http?,
        drain: drain?,
        access_log: file.access_log.output.value == schema::Output::Stdout,
    };
    Some((process, places?))
}

type Listeners = (Option<Vec<Listener>>, Option<Vec<(Arc<str>, Certificate)>>, Option<Places>);

fn listeners(file: &File, cx: &mut Context<'_>) -> Listeners {
    if file.listeners.0.is_empty() && cx.complete && !cx.lost.contains(&["listeners"]) {
        let none = Diagnostic::error("there is no listener").at_file(&cx.sources.dir.clone());
        cx.report(none.help("add `[listeners.public]` with `address = \"0.0.0.0:3000\"`"));
        return (None, None, None);
    }
    let mut compiled = Vec::new();
    for (name, listener) in &file.listeners.0 {
        compiled.push(self::listener(name, &listener.value, cx));
    }
    let known: Vec<(Span, SocketAddr)> = (compiled.iter().flatten())
        .map(|(listener, _, place)| (*place, listener.address))
        .collect();
    for (index, (place, address)) in known.iter().enumerate() {
        let at = At { span: *place, value: () };
        for earlier in known.iter().take(index) {
            refuse_same(&at, *address, *earlier, cx);
        }
    }
    let mut all = (Vec::new(), Vec::new(), Vec::new());
    let names = file.listeners.0.iter().map(|(name, _)| name.span);
    for (one, span) in compiled.into_iter().zip(names) {
        let Some((listener, certificate, address)) = one else { return (None, None, None) };
        all.1.extend(certificate.map(|it| (Arc::clone(&listener.name), it)));
        all.2.push((Arc::clone(&listener.name), span, address));
        all.0.push(listener);
    }
    (Some(all.0), Some(all.1), Some(all.2))
}

fn listener(
    name: &At<String>,
    listener: &schema::Listener,
    cx: &mut Context<'_>,
) -> Option<(Listener, Option<Certificate>, Span)> {
    let owner = Owner { path: &["listeners", &name.value], span: name.span };
    let text = cx.required(
        listener.address.as_ref(),
        owner,
        "address",
        "add `address = \"0.0.0.0:3000\"`",
    );
    let address = text.and_then(|text| cx.read(text));
    let tls = listener.tls.as_ref().map(|tls| (certificate(tls, name, cx), tls.value.http2.value));
    let name = cx.name(name);
    let certificate = match tls {
        Some((certificate, http2)) => Some((certificate?, ListenerTls { http2 })),
        None => None,
    };
    let (certificate, tls) = certificate.unzip();
    Some((Listener { name: name?, address: address?, tls }, certificate, text?.span))
}

fn certificate(
    tls: &At<schema::ListenerTls>,
    name: &At<String>,
    cx: &mut Context<'_>,
) -> Option<Certificate> {
    let owner = Owner { path: &["listeners", &name.value, "tls"], span: tls.span };
    let help = "name the PEM file with the chain, leaf first: `certificate = \"tls/chain.pem\"`";
    let chain = cx.required(tls.value.certificate.as_ref(), owner, "certificate", help);
    let help = "name the PEM file with the private key: `key = \"file:tls/key.pem\"`";
    let key = cx.required(tls.value.key.as_ref(), owner, "key", help);
    let pointer = key.and_then(|key| cx.read(key));
    let secret = pointer.map(|pointer| cx.vault.read(&pointer));
    let path = chain.map(|chain| cx.sources.dir.join(&chain.value));
    cx.watched.extend(path.clone());
    let of = format!("listener `{}`", name.value);
    let secret = match secret {
        Some(Err(invalid)) => {
            let broken = Diagnostic::error(format!("the private key of {of} cannot be used"));
            cx.report(broken.at(key?.span, invalid.label).help(invalid.help));
            None
        }
        other => other.and_then(Result::ok),
    };
    match certificate::pair(&path?, &secret?) {
        Ok(certificate) => Some(certificate),
        Err(unusable) => {
            let (what, place, invalid) = match unusable {
                Unusable::Chain(invalid) => ("certificate", chain?.span, invalid),
                Unusable::Key(invalid) => ("private key", key?.span, invalid),
            };
            let broken = Diagnostic::error(format!("the {what} of {of} cannot be used"));
            cx.report(broken.at(place, invalid.label).help(invalid.help));
            None
        }
    }
}

/// Two sockets cannot have one address; port 0 is another one each time.
fn refuse_same<T>(
    at: &At<T>,
    address: SocketAddr,
    (first, other): (Span, SocketAddr),
    cx: &mut Context<'_>,
) {
    let same_family = address.is_ipv4() == other.is_ipv4();
    let any = address.ip().is_unspecified() || other.ip().is_unspecified();
    let same_ip = address.ip() == other.ip() || (same_family && any);
    if address.port() == 0 || address.port() != other.port() || !same_ip {
        return;
    }
    let twice = Diagnostic::error(format!("two listeners want port {}", address.port()));
    let twice = if at.is_given() {
        twice.at(at.span, "this one").at(first, "and this one")
    } else {
        twice.at(first, format!("the admin listener has `{address}` unless told otherwise"))
    };
    cx.report(twice.help("give one of them another port"));
}

fn http(file: &schema::Http, cx: &mut Context<'_>) -> Option<Http> {
    let max_head = cx.bounded(&file.max_head, ByteSize(1 << 10), ByteSize(1 << 20));
    let max_target = cx.bounded(&file.max_target, ByteSize(64), ByteSize(1 << 20));
    if let (Some(head), Some(target)) = (max_head, max_target)
        && target > head
    {
        let place = if file.max_target.is_given() { &file.max_target } else { &file.max_head };
        cx.report(
            Diagnostic::error("`max_target` is larger than `max_head`")
                .at(place.span, "the target is a part of the head")
                .help("lower `max_target` or raise `max_head`"),
        );
    }
    let handshake_timeout = cx.bounded(&file.handshake_timeout, SHORTEST, HOUR);
    let head_timeout = cx.bounded(&file.head_timeout, SHORTEST, HOUR);
    let idle_timeout = cx.bounded(&file.idle_timeout, SHORTEST, HOUR);
    let body_timeout = cx.bounded(&file.body_timeout, SHORTEST, HOUR);
    let write_timeout = cx.bounded(&file.write_timeout, SHORTEST, HOUR);
    let (least, most) = (ByteSize(64 << 20), ByteSize(1 << 40));
    let max_memory = file.max_memory.as_ref().map(|at| cx.bounded(at, least, most));
    let trusted_proxies = cx.read_set(&file.trusted_proxies, "network");
    warn_of_trust(&file.trusted_proxies, cx);
    warn_of_connections(file, cx);
    Some(Http {
        max_head: usize::try_from(max_head?.0).ok()?,
        max_headers: usize::try_from(file.max_headers.value).ok()?,
        max_target: usize::try_from(max_target?.0).ok()?,
        handshake_timeout: handshake_timeout?,
        head_timeout: head_timeout?,
        idle_timeout: idle_timeout?,
        body_timeout: body_timeout?,
        write_timeout: write_timeout?,
        max_connections: usize::try_from(file.max_connections.value).ok()?,
        max_connections_per_address: usize::try_from(file.max_connections_per_address.value)
            .ok()?,
        max_requests: usize::try_from(file.max_requests.value).ok()?,
        max_memory: match max_memory {
            Some(bytes) => Some(bytes?.0),
            None => None,
        },
        keeps_request_ids: file.request_ids.value == schema::RequestIds::Trusted,
        trusted_proxies: trusted_proxies?,
        legacy_rate_limit_headers: file.legacy_rate_limit_headers.value,
    })
}

/// Where one address may have as many connections as all together, only the latter is ever met.
fn warn_of_connections(file: &schema::Http, cx: &mut Context<'_>) {
    let (all, each) = (&file.max_connections, &file.max_connections_per_address);
    if each.is_given() && all.value <= each.value {
        cx.report(
            Diagnostic::warning("`max_connections_per_address` never acts")
                .at(each.span, format!("`max_connections` of {} is met first", all.value))
                .at(all.span, "here")
                .help("one address can take all connections; set it below `max_connections`"),
        );
    }
}

/// Whoever is believed can say to be anyone.
fn warn_of_trust(networks: &[At<Text<IpNet>>], cx: &mut Context<'_>) {
    for network in networks {
        if cx.read_quietly(network).is_some_and(|network| network.prefix_len() == 0) {
            cx.report(
                Diagnostic::warning("every client is a trusted proxy")
                    .at(network.span, "limits per address can be evaded by a header")
                    .help("name the networks of the load balancer"),
            );
        }
    }
}

fn drain(file: &schema::Drain, cx: &mut Context<'_>) -> Option<Drain> {
    let longest = Duration::from_secs(600);
    let announce = cx.bounded(&file.announce, Duration::ZERO, longest);
    let deadline = cx.bounded(&file.deadline, Duration::ZERO, longest);
    let drain = Drain { announce: announce?, deadline: deadline? };
    if drain.announce > drain.deadline {
        let place = if file.announce.is_given() { &file.announce } else { &file.deadline };
        cx.report(
            Diagnostic::error("`announce` is longer than `deadline`")
                .at(place.span, "the process would end before its listeners close")
                .help("both are counted from SIGTERM; raise `deadline` or lower `announce`"),
        );
    }
    Some(drain)
}
