//! `[upstreams.*]`.

use super::{Context, Owner};
use crate::config::certificate;
use crate::config::diagnostic::Diagnostic;
use crate::config::schema::{self, At, Entries, Text, TextOrTable};
use crate::config::source::Span;
use crate::upstreams::{
    Balance, Ejection, EndpointDef, HealthCheck, Probe, Protocol, Retry, Timeouts, UpstreamDef,
    UpstreamTls,
};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

const SHORTEST: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);
/// Endpoints of one upstream.
const MOST: usize = 1000;

pub(crate) fn compile(
    upstreams: &Entries<schema::Upstream>,
    cx: &mut Context<'_>,
) -> Option<Vec<UpstreamDef>> {
    let compiled: Vec<Option<UpstreamDef>> =
        upstreams.0.iter().map(|(name, file)| upstream(name, &file.value, cx)).collect();
    let mut upstreams: Vec<UpstreamDef> = compiled.into_iter().collect::<Option<_>>()?;
    upstreams.sort_by(|one, other| one.name.cmp(&other.name));
    Some(upstreams)
}

fn upstream(
    name: &At<String>,
    file: &schema::Upstream,
    cx: &mut Context<'_>,
) -> Option<UpstreamDef> {
    let owner = Owner { path: &["upstreams", &name.value], span: name.span };
    let endpoints = endpoints(owner, file, cx);
    let idle_timeout = cx.bounded(&file.idle_timeout, SHORTEST, HOUR);
    let timeouts = timeouts(&file.timeouts, cx);
    let ejection = ejection(&file.ejection, cx);
    let health = file.health.as_ref().map(|health| self::health(&health.value, cx));
    let tls = file.tls.as_ref().map(|tls| self::tls(name, tls, cx));
    let name = cx.name(name);
    Some(UpstreamDef {
        name: name?,
        endpoints: endpoints?,
        balance: match file.balance.value {
            schema::Balance::LeastRequests => Balance::LeastRequests,
            schema::Balance::RoundRobin => Balance::RoundRobin,
        },
        protocol: match file.protocol.value {
            schema::Protocol::Http1 => Protocol::Http1,
            schema::Protocol::Http2 => Protocol::Http2,
        },
        tls: match tls {
            Some(tls) => Some(tls?),
            None => None,
        },
        health: match health {
            Some(health) => Some(health?),
            None => None,
        },
        ejection: ejection?,
        timeouts: timeouts?,
        retry: Retry { retries: file.retry.retries.value },
        idle_timeout: idle_timeout?,
    })
}

fn endpoints(
    owner: Owner<'_>,
    file: &schema::Upstream,
    cx: &mut Context<'_>,
) -> Option<Vec<EndpointDef>> {
    let help = "list at least one, as `endpoints = [\"10.0.0.1:8080\"]`";
    let list = cx.required(file.endpoints.as_ref(), owner, "endpoints", help)?;
    if list.value.is_empty() || list.value.len() > MOST {
        let number = if list.value.is_empty() { "no" } else { "too many" };
        let message = format!("{} has {number} endpoints", owner.subject());
        cx.report(
            Diagnostic::error(message)
                .at(list.span, format!("1 to {MOST} are possible"))
                .help(help),
        );
        return None;
    }
    let mut compiled = Vec::new();
    let mut known = Vec::new();
    for item in &list.value {
        let (text, weight) = match &item.value {
            TextOrTable::Text(text) => (Some((text, item.span)), 1),
            TextOrTable::Table(table) => {
                let inner = Owner { path: owner.path, span: item.span };
                let help = "write `{ address = \"10.0.0.1:8080\", weight = 2 }`";
                let address = cx.required(table.address.as_ref(), inner, "address", help);
                (address.map(|text| (&text.value, text.span)), table.weight.value)
            }
        };
        let address = text.and_then(|(text, span)| endpoint(text, span, cx));
        known.extend(address.map(|address| (item.span, address)));
        let weight = NonZeroU32::new(weight);
        compiled.push(address.zip(weight).map(|(address, weight)| EndpointDef { address, weight }));
    }
    cx.refuse_twice(&known, "endpoint");
    compiled.into_iter().collect()
}

fn endpoint(text: &Text<SocketAddr>, span: Span, cx: &mut Context<'_>) -> Option<SocketAddr> {
    let address: SocketAddr = cx.parse(&text.text, span)?;
    if address.port() == 0 || address.ip().is_unspecified() || address.ip().is_multicast() {
        cx.report(
            Diagnostic::error(format!("`{address}` is not an endpoint"))
                .at(span, "nothing can be reached there")
                .help("write the address and port that the endpoint listens on"),
        );
        return None;
    }
    Some(address)
}

pub(crate) fn read_timeout(text: &At<Text<Duration>>, cx: &mut Context<'_>) -> Option<Duration> {
    cx.bounded(text, SHORTEST, HOUR)
}

fn timeouts(file: &schema::Timeouts, cx: &mut Context<'_>) -> Option<Timeouts> {
    let connect = read_timeout(&file.connect, cx);
    let per_try = read_timeout(&file.per_try, cx);
    let total = read_timeout(&file.total, cx);
    let timeouts = Timeouts { connect: connect?, per_try: per_try?, total: total? };
    check_timeouts(&timeouts, [file.connect.span, file.per_try.span, file.total.span], cx);
    Some(timeouts)
}

/// A part cannot take longer than the whole. The places are those of the three keys.
pub(crate) fn check_timeouts(timeouts: &Timeouts, places: [Span; 3], cx: &mut Context<'_>) {
    let [connect, per_try, total] = places;
    for (key, value, place) in
        [("connect", timeouts.connect, connect), ("per_try", timeouts.per_try, per_try)]
    {
        if value <= timeouts.total {
            continue;
        }
        use crate::config::value::Bounded;
        let place = if place.is_somewhere() { place } else { total };
        let (part, whole) = (value.show(), timeouts.total.show());
        cx.report(
            Diagnostic::error(format!("`{key}` is longer than `total`"))
                .at(place, format!("`{key}` is {part}, `total` is {whole}"))
                .help(format!("raise `total`, or lower `{key}`")),
        );
    }
}

fn ejection(file: &schema::Ejection, cx: &mut Context<'_>) -> Option<Ejection> {
    let base = cx.bounded(&file.base, SHORTEST, HOUR);
    let max = cx.bounded(&file.max, SHORTEST, HOUR);
    let (base, max) = (base?, max?);
    if base > max {
        let place = if file.base.is_given() { &file.base } else { &file.max };
        let wrong = Diagnostic::error("`base` is longer than `max`");
        cx.report(
            wrong.at(place.span, "it doubles up to `max`").help("raise `max` or lower `base`"),
        );
    }
    Some(Ejection { failures: NonZeroU32::new(file.failures.value)?, base, max })
}

fn health(file: &schema::Health, cx: &mut Context<'_>) -> Option<HealthCheck> {
    let interval = cx.bounded(&file.interval, Duration::from_millis(10), HOUR);
    let timeout = cx.bounded(&file.timeout, SHORTEST, HOUR);
    if let (Some(interval), Some(timeout)) = (interval, timeout)
        && timeout > interval
    {
        let place = if file.timeout.is_given() { &file.timeout } else { &file.interval };
        let wrong = Diagnostic::error("`timeout` is longer than `interval`");
        let wrong = wrong.at(place.span, "probes would overtake each other");
        cx.report(wrong.help("lower `timeout` or raise `interval`"));
    }
    let probe = match file.probe.value {
        schema::Probe::Http => {
            let path = cx.read(&file.path);
            let host = file.host.as_ref().map(|host| cx.read(host));
            let host = match host {
                Some(host) => Some(host?.0),
                None => None,
            };
            Probe::Http { path: path?.0, host }
        }
        schema::Probe::Tcp => {
            let host = file.host.as_ref().map(|host| ("host", host.span));
            let path = file.path.is_given().then_some(("path", file.path.span));
            for (key, span) in host.into_iter().chain(path) {
                let idle =
                    Diagnostic::error(format!("`{key}` has no effect with `type = \"tcp\"`"));
                let idle = idle.at(span, "only an HTTP probe asks for it");
                cx.report(idle.help(format!("remove `{key}`, or write `type = \"http\"`")));
            }
            Probe::Tcp
        }
    };
    Some(HealthCheck {
        probe,
        interval: interval?,
        timeout: timeout?,
        healthy_after: NonZeroU32::new(file.healthy_after.value)?,
        unhealthy_after: NonZeroU32::new(file.unhealthy_after.value)?,
    })
}

fn tls(
    name: &At<String>,
    file: &At<schema::UpstreamTls>,
    cx: &mut Context<'_>,
) -> Option<UpstreamTls> {
    let owner = Owner { path: &["upstreams", &name.value, "tls"], span: file.span };
    let help = "add the name in the endpoints' certificate: `server_name = \"orders.internal\"`";
    let text = cx.required(file.value.server_name.as_ref(), owner, "server_name", help);
    let server_name = text.and_then(|text| cx.read(text));
    let verify = file.value.verify.value == schema::Verify::On;
    if !verify {
        let message = format!("upstream `{}` is not verified", name.value);
        cx.report(
            Diagnostic::warning(message)
                .at(file.value.verify.span, "anyone on the way can pretend to be the endpoint")
                .help("name the authority with `ca`, and leave `verify` out"),
        );
    }
    let ca = match &file.value.ca {
        Some(ca) => {
            let path = cx.sources.dir.join(&ca.value);
            let roots = certificate::roots(&path);
            cx.watched.push(path);
            Some(roots.map_err(|invalid| {
                let message = format!("the `ca` of upstream `{}` cannot be used", name.value);
                cx.report(Diagnostic::error(message).at(ca.span, invalid.label).help(invalid.help));
            }))
        }
        None => None,
    };
    let ca = match ca {
        Some(ca) => Some(ca.ok()?),
        None => None,
    };
    Some(UpstreamTls { server_name: server_name?.0, ca, verify })
}
