//! A search that is slow and plainly right, and the proof that the table says the same.
//!
//! It looks at every route, gives each that matches a rank, and takes the best: no tree, no order of
//! visits, no early end.

use super::candidate::conflict;
use super::matcher::{HostPattern, Matcher, PathPattern, Segment, ValueMatch};
use super::notation::{host, pattern};
use super::table::{Asked, NoMatch, Routes};
use super::target::Target;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use std::cmp::Reverse;

/// The smaller, the better.
type Rank = (Reverse<usize>, Vec<u8>, bool, Reverse<[usize; 4]>);

/// A request head without a path that has to be parsed.
#[derive(Clone, Debug)]
struct Head {
    host: &'static str,
    target: String,
    method: Method,
    headers: HeaderMap,
}

fn host_rank(pattern: &HostPattern, host: &str) -> Option<usize> {
    match pattern {
        HostPattern::Exact(name) => (**name == *host).then_some(usize::MAX),
        HostPattern::Wildcard(end) => {
            host.strip_suffix(&**end).filter(|front| !front.is_empty()).map(|_| end.len())
        }
    }
}

fn path_rank(pattern: &PathPattern, path: &str) -> Option<Vec<u8>> {
    let inner = path.strip_prefix('/')?;
    let slash = inner.is_empty() || inner.ends_with('/');
    let asked: Vec<&str> = inner.split('/').filter(|part| !part.is_empty()).collect();
    let (segments, end) = match pattern {
        PathPattern::Exact { segments, trailing_slash } => {
            let alike = segments.is_empty() || *trailing_slash == slash;
            if segments.len() != asked.len() || !alike {
                return None;
            }
            (segments, 0)
        }
        PathPattern::Prefix { segments } => (segments, 2),
    };
    let mut rank = Vec::new();
    for (index, segment) in segments.iter().enumerate() {
        let part = asked.get(index)?;
        match segment {
            Segment::Literal(text) if part.replace("%40", "@") == **text => rank.push(0),
            Segment::Literal(_) => return None,
            Segment::Param(_) => rank.push(1),
        }
    }
    rank.push(end);
    Some(rank)
}

fn fits(wanted: &ValueMatch, value: Option<&str>) -> bool {
    match (wanted, value) {
        (_, None) => false,
        (ValueMatch::Present, Some(_)) => true,
        (ValueMatch::Exact(text), Some(value)) => **text == *value,
    }
}

/// The rank at which a route's host, path, headers and query match.
fn rank(asks: &Matcher, head: &Head, target: &Target<'_>) -> Option<Rank> {
    let header = |name: &HeaderName| head.headers.get(name).map(|value| value.to_str().unwrap());
    let parameter = |name: &str| {
        let pairs = target.query().unwrap_or_default().split('&');
        pairs.filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, v)| v)
    };
    if !asks.headers.iter().all(|(name, value)| fits(value, header(name)))
        || !asks.query.iter().all(|(name, value)| fits(value, parameter(name)))
    {
        return None;
    }
    let hosts: Option<usize> = match &*asks.hosts {
        [] => Some(0),
        hosts => hosts.iter().filter_map(|pattern| host_rank(pattern, head.host)).max(),
    };
    let path = asks.paths.iter().filter_map(|pattern| path_rank(pattern, target.path())).min()?;
    let exact = |value: &ValueMatch| *value != ValueMatch::Present;
    let details = [
        asks.headers.len(),
        asks.query.len(),
        asks.headers.iter().filter(|(_, value)| exact(value)).count(),
        asks.query.iter().filter(|(_, value)| exact(value)).count(),
    ];
    Some((Reverse(hosts?), path, asks.methods.is_empty(), Reverse(details)))
}

fn takes(asks: &Matcher, method: &Method) -> bool {
    let as_get = *method == Method::HEAD && asks.methods.contains(&Method::GET);
    asks.methods.is_empty() || asks.methods.contains(method) || as_get
}

/// The routes at the best rank, or why there are none.
fn search(routes: &[Matcher], head: &Head, target: &Target<'_>) -> Result<Vec<usize>, NoMatch> {
    let matching: Vec<(Rank, usize)> = routes
        .iter()
        .enumerate()
        .filter_map(|(index, asks)| Some((rank(asks, head, target)?, index)))
        .collect();
    let open = |index: &usize| takes(&routes[*index], &head.method);
    let keeps = |index: &usize| routes[*index].keep_encoded_slash || !target.has_encoded_slash();
    let full: Vec<_> = matching.iter().filter(|(_, index)| open(index) && keeps(index)).collect();
    if let Some((best, _)) = full.iter().min() {
        return Ok(full.iter().filter(|(rank, _)| rank == best).map(|(_, index)| *index).collect());
    }
    if matching.iter().any(|(_, index)| open(index)) {
        return Err(NoMatch::EncodedSlash);
    }
    let mut allow: Vec<&str> = matching
        .iter()
        .filter(|(_, index)| keeps(index))
        .flat_map(|(_, index)| routes[*index].methods.iter())
        .flat_map(|method| match *method {
            Method::GET => vec!["GET", "HEAD"],
            _ => vec![method.as_str()],
        })
        .collect();
    allow.sort_unstable();
    allow.dedup();
    match (allow.is_empty(), matching.is_empty()) {
        (false, _) => Err(NoMatch::Method { allow: allow.join(", ").parse().unwrap() }),
        (true, false) => Err(NoMatch::EncodedSlash),
        (true, true) => Err(NoMatch::Route),
    }
}

fn any_pattern() -> impl Strategy<Value = PathPattern> {
    let segment = select(vec!["a", "b", "c@d", "{x}", "{y}"]);
    let end = select(vec!["", "/", "/*"]);
    (prop::collection::vec(segment, 0..4), end).prop_map(|(segments, end)| {
        let front: String = segments.iter().map(|segment| format!("/{segment}")).collect();
        pattern(&if front.is_empty() && end.is_empty() { "/".to_owned() } else { front + end })
    })
}

fn any_matcher() -> impl Strategy<Value = Matcher> {
    let exact = |text: &str| ValueMatch::Exact(text.into());
    let header = |name: &'static str, value| (HeaderName::from_static(name), value);
    let headers = vec![
        header("x", exact("1")),
        header("x", exact("2")),
        header("x", ValueMatch::Present),
        header("y", exact("1")),
    ];
    let query =
        vec![("q".into(), exact("1")), ("q".into(), ValueMatch::Present), ("r".into(), exact("1"))];
    (
        subsequence(vec!["a.com", "b.a.com", "*.com", "*.a.com"], 0..3),
        prop::collection::vec(any_pattern(), 1..3),
        subsequence(vec![Method::GET, Method::HEAD, Method::PUT], 0..3),
        subsequence(headers, 0..2),
        subsequence(query, 0..2),
        any::<bool>(),
    )
        .prop_map(|(hosts, paths, methods, headers, query, keep_encoded_slash)| Matcher {
            hosts: hosts.into_iter().map(host).collect(),
            paths,
            methods,
            headers,
            query,
            keep_encoded_slash,
            when: None,
        })
}

fn any_head() -> impl Strategy<Value = Head> {
    let segment = select(vec!["a", "b", "c@d", "c%40d", "z", "a%2Fb"]);
    (
        select(vec!["a.com", "b.a.com", "c.b.a.com", "com", "x.com", ""]),
        prop::collection::vec(segment, 0..5),
        select(vec!["", "/"]),
        select(vec!["", "?q=1", "?q=2", "?r=1&q=1"]),
        select(vec![Method::GET, Method::HEAD, Method::PUT, Method::POST]),
        subsequence(vec![("x", "1"), ("y", "1")], 0..=2),
    )
        .prop_map(|(host, segments, slash, query, method, headers)| {
            let front: String = segments.iter().map(|segment| format!("/{segment}")).collect();
            let slash = if front.is_empty() { "/" } else { slash };
            let headers = headers.into_iter().map(|(name, value)| {
                (HeaderName::from_static(name), HeaderValue::from_static(value))
            });
            let target = format!("{front}{slash}{query}");
            Head { host, target, method, headers: headers.collect() }
        })
}

/// What the table says, as indices into `routes`.
fn find(routes: &Routes<usize>, head: &Head, target: &Target<'_>) -> Result<usize, NoMatch> {
    let (host, origin) = (head.host, super::notation::origin());
    let asked = Asked { host, target, method: &head.method, headers: &head.headers, origin };
    routes.find(&asked).copied()
}

fn build(routes: &[Matcher]) -> Routes<usize> {
    Routes::build(routes.iter().cloned().zip(0..).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_table_finds_what_a_look_at_every_route_finds(
        routes in prop::collection::vec(any_matcher(), 0..12),
        heads in prop::collection::vec(any_head(), 8),
    ) {
        let table = build(&routes);
        for head in &heads {
            let target = Target::parse(&head.target).unwrap();
            match (find(&table, head, &target), search(&routes, head, &target)) {
                (Ok(found), Ok(best)) => prop_assert!(best.contains(&found), "{head:?}"),
                (Err(found), Err(expected)) => prop_assert_eq!(found, expected, "{:?}", head),
                (found, expected) => prop_assert!(false, "{head:?}: {found:?}, {expected:?}"),
            }
        }
    }

    #[test]
    fn routes_that_tie_for_a_request_conflict(
        routes in prop::collection::vec(any_matcher(), 0..12),
        heads in prop::collection::vec(any_head(), 8),
    ) {
        for head in &heads {
            let target = Target::parse(&head.target).unwrap();
            for pair in search(&routes, head, &target).unwrap_or_default().windows(2) {
                let (a, b) = (&routes[pair[0]], &routes[pair[1]]);
                prop_assert!(conflict(a, b) && conflict(b, a), "{a:?}, {b:?}");
            }
        }
    }

    #[test]
    fn routes_without_conflict_are_found_in_any_order(
        routes in prop::collection::vec(any_matcher(), 0..12).prop_shuffle(),
        heads in prop::collection::vec(any_head(), 8),
    ) {
        let mut kept: Vec<Matcher> = Vec::new();
        for asks in routes {
            if !kept.iter().any(|other| conflict(other, &asks)) {
                kept.push(asks);
            }
        }
        let forward = build(&kept);
        let mut reversed = kept.clone();
        reversed.reverse();
        let backward = build(&reversed);
        for head in &heads {
            let target = Target::parse(&head.target).unwrap();
            let found = find(&forward, head, &target);
            let again = find(&backward, head, &target).map(|index| kept.len() - 1 - index);
            prop_assert_eq!(found, again, "{:?}", head);
        }
    }
}
