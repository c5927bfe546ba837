//! What an expression costs: once, when it is compiled, and for each request.
//!
//! An evaluation must stay in single-digit microseconds: it is a part of the request path.

use criterion::{Criterion, criterion_group, criterion_main};
use datahub_gateway::expressions::{Caller, Claims, Facts, Language, Request, Sees, Wanted};
use http::{HeaderMap, HeaderValue};
use std::borrow::Cow;
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// A condition on a header, one on who calls and from where, a cost, and a subject.
const EXPRESSIONS: [(&str, &str, Wanted); 4] = [
    ("canary", "request.headers['x-canary'] == '1'", Wanted::Condition),
    (
        "policy",
        "caller.plan in ['gold', 'platinum'] && inNetwork(request.address, '10.0.0.0/8') \
         && caller.scopes.exists(s, s.startsWith('orders:'))",
        Wanted::Condition,
    ),
    ("cost", "request.size / 1024 + 1", Wanted::Number),
    ("subject", "claims.tenant + ':' + request.method", Wanted::Text),
];

struct Token;

impl Claims for Token {
    fn claim(&self, name: &str) -> Option<Cow<'_, str>> {
        (name == "tenant").then_some("acme".into())
    }
}

fn compile(criterion: &mut Criterion) {
    let language = Language::default();
    let mut group = criterion.benchmark_group("compile");
    for (name, source, wanted) in EXPRESSIONS {
        group.bench_function(name, |bencher| {
            bencher.iter(|| language.compile(black_box(source), name, Sees::Caller, wanted));
        });
    }
    group.bench_function("language", |bencher| bencher.iter(Language::default));
    group.finish();
}

fn evaluate(criterion: &mut Criterion) {
    let mut headers = HeaderMap::new();
    for name in ["host", "accept", "user-agent", "x-canary", "content-length"] {
        headers.insert(name, HeaderValue::from_static("1"));
    }
    let scopes: [Arc<str>; 3] = ["items:read".into(), "items:write".into(), "orders:read".into()];
    let caller = Caller {
        consumer: "acme",
        id: "c1",
        plan: "gold",
        custom_id: None,
        scopes: &scopes,
        method: "jwt",
        key: "acme",
    };
    let request = Request {
        method: "POST",
        path: "/orders/7",
        host: "api.example.com",
        query: Some("page=2"),
        headers: &headers,
        address: Ipv4Addr::new(10, 1, 2, 3).into(),
        tls: true,
        goes_on: false,
    };
    let facts =
        Facts { request, route: Some("orders"), caller: Some(caller), claims: Some(&Token) };
    let language = Language::default();
    let mut group = criterion.benchmark_group("evaluate");
    for (name, source, wanted) in EXPRESSIONS {
        let Ok(expression) = language.compile(source, name, Sees::Caller, wanted) else { continue };
        group.bench_function(name, |bencher| {
            bencher.iter(|| expression.evaluate(black_box(&facts), |_| Some(())));
        });
    }
    group.finish();
}

criterion_group!(benches, compile, evaluate);
criterion_main!(benches);
