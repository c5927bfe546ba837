//! What it costs to read a target and to find its route, with 10, 1 000 and 10 000 routes.
//!
//! The three must stay close together: 10 000 routes at most 1.3 times 10 (DESIGN, numbers to hold).

use criterion::{Criterion, criterion_group, criterion_main};
use datahub_gateway::routing::{
    Asked, HostPattern, Matcher, Origin, PathPattern, Routes, Segment, Target, parse_host,
};
use http::{HeaderMap, Method};
use std::hint::black_box;
use std::net::Ipv4Addr;

fn literal(text: &str) -> Segment {
    Segment::Literal(text.into())
}

/// Route `n`: a third by host, a third by parameter, a third by prefix.
fn matcher(n: usize) -> Matcher {
    let service = literal(&format!("service-{n}"));
    let param = || Segment::Param("id".into());
    let (host, path) = match n % 3 {
        0 => (
            Some(HostPattern::Exact(format!("service-{n}.example.com").into())),
            PathPattern::Prefix { segments: vec![literal("v1")] },
        ),
        1 => (
            None,
            PathPattern::Exact {
                segments: vec![literal("v1"), service, param(), literal("items"), param()],
                trailing_slash: false,
            },
        ),
        _ => (
            Some(HostPattern::Wildcard(".example.com".into())),
            PathPattern::Prefix { segments: vec![literal("v1"), service] },
        ),
    };
    Matcher {
        hosts: host.into_iter().collect(),
        paths: vec![path],
        methods: if n.is_multiple_of(2) { vec![] } else { vec![Method::GET] },
        headers: vec![],
        query: vec![],
        keep_encoded_slash: false,
        when: None,
    }
}

/// Host and target that route `n` answers.
fn request(n: usize) -> (String, String) {
    let target = format!("/v1/service-{n}/81726/items/3?page=2");
    match n % 3 {
        0 => (format!("service-{n}.example.com"), target),
        1 => ("api.example.org".to_owned(), target),
        _ => ("api.example.com".to_owned(), target),
    }
}

fn find(criterion: &mut Criterion) {
    let headers = HeaderMap::new();
    let origin = Origin { address: Ipv4Addr::LOCALHOST.into(), tls: false, goes_on: false };
    let mut group = criterion.benchmark_group("find");
    for count in [10, 1_000, 10_000] {
        let routes = Routes::build((0..count).map(|n| (matcher(n), n)).collect());
        // Scattered over all routes, so that what is measured is not one warm path.
        let requests: Vec<_> = (0..count).map(|n| request(n * 7919 % count)).collect();
        let targets: Vec<_> = requests
            .iter()
            .filter_map(|(host, target)| Some((host, Target::parse(target).ok()?)))
            .collect();
        let mut next = targets.iter().cycle();
        group.bench_function(format!("{count} routes"), |bencher| {
            bencher.iter(|| {
                let (host, target) = next.next()?;
                let asked = Asked { host, target, method: &Method::GET, headers: &headers, origin };
                black_box(&routes).find(black_box(&asked)).ok()
            });
        });
    }
    group.finish();
}

fn read(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("read");
    for (name, raw) in [
        ("canonical", "/v1/service-7/81726/items/3?page=2"),
        ("not canonical", "/v1//service-7/./81726/%69tems/3?page=2"),
    ] {
        group.bench_function(name, |bencher| bencher.iter(|| Target::parse(black_box(raw))));
    }
    group.bench_function("host", |bencher| {
        bencher.iter(|| parse_host(black_box("api.example.com:443")));
    });
    group.finish();
}

criterion_group!(benches, find, read);
criterion_main!(benches);
