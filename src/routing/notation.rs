//! Routes and requests as tests write them: `GET,PUT api.example.com/orders/{id} x-a=1 ?b=* keep when:x-b`.

use super::matcher::{HostPattern, Matcher, PathPattern, Segment, ValueMatch};
use super::table::Origin;
use crate::expressions::{Expression, Language, Sees, Wanted};
use http::{HeaderName, Method};

/// `/a/{b}`, `/a/`, `/a/*`
pub(super) fn pattern(text: &str) -> PathPattern {
    let text = text.strip_prefix('/').unwrap();
    let segments = |text: &str| match text {
        "" => vec![],
        text => text.split('/').map(segment).collect(),
    };
    if let Some(front) = text.strip_suffix('*') {
        return PathPattern::Prefix { segments: segments(front.trim_end_matches('/')) };
    }
    match text.strip_suffix('/') {
        Some(front) => PathPattern::Exact { segments: segments(front), trailing_slash: true },
        None => PathPattern::Exact { segments: segments(text), trailing_slash: false },
    }
}

fn segment(text: &str) -> Segment {
    match text.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')) {
        Some(name) => Segment::Param(name.into()),
        None => Segment::Literal(text.into()),
    }
}

/// `*.example.com`
pub(super) fn host(text: &str) -> HostPattern {
    match text.strip_prefix('*') {
        Some(suffix) => HostPattern::Wildcard(suffix.into()),
        None => HostPattern::Exact(text.into()),
    }
}

/// A whole route; several hosts or paths are put into the value by the test itself.
pub(super) fn route(text: &str) -> Matcher {
    let mut matcher = Matcher {
        hosts: vec![],
        paths: vec![],
        methods: vec![],
        headers: vec![],
        query: vec![],
        keep_encoded_slash: false,
        when: None,
    };
    for word in text.split_whitespace() {
        if word == "keep" {
            matcher.keep_encoded_slash = true;
        } else if let Some(name) = word.strip_prefix("when:") {
            matcher.when = Some(when(name));
        } else if let Some(pair) = word.strip_prefix('?') {
            let (name, value) = pair.split_once('=').unwrap();
            matcher.query.push((name.into(), value_match(value)));
        } else if let Some(start) = word.find('/') {
            let (name, path) = word.split_at(start);
            matcher.hosts.extend((!name.is_empty()).then(|| host(name)));
            matcher.paths.push(pattern(path));
        } else if let Some((name, value)) = word.split_once('=') {
            let name = HeaderName::try_from(name).unwrap();
            matcher.headers.push((name, value_match(value)));
        } else {
            matcher.methods.extend(word.split(',').map(|method| method.parse::<Method>().unwrap()));
        }
    }
    matcher
}

/// `when:x`: the header `x` is `1`.
fn when(name: &str) -> Expression {
    let source = format!("request.headers['{name}'] == '1'");
    let place = format!("route/{name}/when");
    Language::default().compile(&source, &place, Sees::Request, Wanted::Condition).unwrap()
}

fn value_match(text: &str) -> ValueMatch {
    if text == "*" { ValueMatch::Present } else { ValueMatch::Exact(text.into()) }
}

/// The head of a request.
pub(super) struct Request {
    pub(super) host: String,
    pub(super) target: String,
    pub(super) method: Method,
    pub(super) headers: http::HeaderMap,
}

/// Where requests of tests come from.
pub(super) fn origin() -> Origin {
    Origin { address: std::net::Ipv4Addr::LOCALHOST.into(), tls: false, goes_on: false }
}

/// `PUT api.example.com/orders/7?b=1 x-a=1`
pub(super) fn request(text: &str) -> Request {
    let mut words = text.split_whitespace();
    let method = words.next().unwrap().parse().unwrap();
    let place = words.next().unwrap();
    let (host, target) = place.split_at(place.find(['/', '*']).unwrap());
    let mut headers = http::HeaderMap::new();
    for word in words {
        let (name, value) = word.split_once('=').unwrap();
        headers.append(HeaderName::try_from(name).unwrap(), value.parse().unwrap());
    }
    Request { host: host.to_owned(), target: target.to_owned(), method, headers }
}
