//! All routes, and the search for the one that answers.
//!
//! Hosts are tried exact first, then by wildcard from the longest, then the routes without a host;
//! inside a host the path decides (`tree.rs` has the order), inside a pattern what else a route
//! asks (`candidate.rs`). The first that accepts answers; one that does not leaves the request to
//! the next, in the same host or a less specific one.
//!
//! Must stay true: order in the files never matters; `find` does not allocate but for a 405 and for conditions; its
//! cost does not grow with the number of routes, only with those that share host and pattern, and
//! with the patterns that match a path's beginning (`tree.rs` has the bound).

use super::candidate::{Candidate, Near};
use super::matcher::{HostPattern, Matcher};
use super::target::Target;
use super::tree::Node;
use crate::expressions::{Facts, Request};
use http::{HeaderMap, HeaderValue, Method};
use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::sync::Arc;

type Tree<T> = Node<Arc<Candidate<T>>>;
type Slot<T> = [Arc<Candidate<T>>];

/// What routes are asked about.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// As `parse_host` gives it; empty for a request without one.
    pub host: &'a str,
    /// The canonical target.
    pub target: &'a Target<'a>,
    /// The method.
    pub method: &'a Method,
    /// The fields.
    pub headers: &'a HeaderMap,
    /// Where it came from.
    pub origin: Origin,
}

/// Where a request came from; only conditions ask for it.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// The resolved address of the client.
    pub address: IpAddr,
    /// Whether it came over TLS.
    pub tls: bool,
    /// Whether an HTTP/2 stream goes on after the head: there, no field has to tell of a body.
    pub goes_on: bool,
}

impl<'a> Asked<'a> {
    /// As conditions see it: nobody is identified yet.
    #[must_use]
    pub fn facts(&self) -> Facts<'a> {
        let request = Request {
            method: self.method.as_str(),
            path: self.target.path(),
            host: self.host,
            query: self.target.query(),
            headers: self.headers,
            address: self.origin.address,
            tls: self.origin.tls,
            goes_on: self.origin.goes_on,
        };
        Facts { request, route: None, caller: None, claims: None }
    }
}

/// Why no route answers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoMatch {
    /// The target has a `%2F`, and no route that matches takes it as data.
    #[error("an encoded slash is not accepted here")]
    EncodedSlash,
    /// Routes match but for the method.
    #[error("the method is not allowed here")]
    Method {
        /// What those routes take, sorted.
        allow: HeaderValue,
    },
    /// Nothing matches.
    #[error("no route matches the request")]
    Route,
    /// Of a route that matches otherwise, the condition cannot be evaluated.
    #[error("a condition of a route cannot be evaluated for this request")]
    Unclear,
}

/// Every route of a configuration.
pub struct Routes<T> {
    exact: HashMap<Box<str>, Tree<T>>,
    /// By what follows the `*`, dot included.
    wildcard: HashMap<Box<str>, Tree<T>>,
    /// The longest key of `wildcard`, so that a host of 127 labels costs no 127 lookups.
    longest_wildcard: usize,
    any: Tree<T>,
}

impl<T> Routes<T> {
    /// Arranges the routes for the search.
    #[must_use]
    pub fn build(routes: Vec<(Matcher, T)>) -> Self {
        let mut candidates: Vec<_> =
            routes.into_iter().map(|(asks, value)| Arc::new(Candidate::new(asks, value))).collect();
        // Best first: what is put in a slot in this order stands there in this order.
        candidates.sort_by(|a, b| a.precedence(b));
        let mut built = Self {
            exact: HashMap::new(),
            wildcard: HashMap::new(),
            longest_wildcard: 0,
            any: Node::default(),
        };
        for candidate in &candidates {
            built.insert(candidate);
        }
        built
    }

    /// The most specific route that takes the request.
    ///
    /// # Errors
    /// Why there is none.
    pub fn find(&self, query: &Asked<'_>) -> Result<&T, NoMatch> {
        let mut near = Near::default();
        let found = self.walk(query, &mut |slot: &Slot<T>| {
            for candidate in slot {
                match candidate.check(query) {
                    Ok(()) => return ControlFlow::Break(Some(&candidate.value)),
                    // A client that makes a condition fail is not let pass to a less specific route.
                    Err(Near::Unclear) => return ControlFlow::Break(None),
                    Err(reached) => near = near.max(reached),
                }
            }
            ControlFlow::Continue(())
        });
        match (found, near) {
            (ControlFlow::Break(value), _) => value.ok_or(NoMatch::Unclear),
            (_, Near::Slash | Near::MethodAndSlash) => Err(NoMatch::EncodedSlash),
            (_, Near::Method) => Err(NoMatch::Method { allow: self.allow(query) }),
            (_, Near::Far | Near::Unclear) => Err(NoMatch::Route),
        }
    }

    fn insert(&mut self, candidate: &Arc<Candidate<T>>) {
        let paths = &candidate.asks.paths;
        let add = |tree: &mut Tree<T>| {
            for path in paths {
                tree.slot(path).push(Arc::clone(candidate));
            }
        };
        if candidate.asks.hosts.is_empty() {
            add(&mut self.any);
        }
        for host in &candidate.asks.hosts {
            match host {
                HostPattern::Exact(name) => add(self.exact.entry(name.clone()).or_default()),
                HostPattern::Wildcard(suffix) => {
                    self.longest_wildcard = self.longest_wildcard.max(suffix.len());
                    add(self.wildcard.entry(suffix.clone()).or_default());
                }
            }
        }
    }

    /// Shows `visit` every slot whose host and path match, best first, until it breaks.
    fn walk<'s, B>(
        &'s self,
        query: &Asked<'_>,
        visit: &mut impl FnMut(&'s Slot<T>) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let path = query.target.path();
        // `*` is no path; it asks about the server, which no route is.
        if !path.starts_with('/') {
            return ControlFlow::Continue(());
        }
        if let Some(tree) = self.exact.get(query.host) {
            tree.walk(path, visit)?;
        }
        for tree in self.wildcards(query.host) {
            tree.walk(path, visit)?;
        }
        self.any.walk(path, visit)
    }

    /// Trees of the wildcards that match `host`, longest first.
    fn wildcards(&self, host: &str) -> impl Iterator<Item = &Tree<T>> {
        // From where a suffix is short enough; never the whole host, `*` is at least one label.
        let start = host.len().saturating_sub(self.longest_wildcard).max(1);
        host.char_indices()
            .filter(move |&(index, symbol)| symbol == '.' && index >= start)
            .filter_map(|(index, _)| self.wildcard.get(host.get(index..)?))
    }

    /// The methods of all routes that match but for the method.
    fn allow(&self, query: &Asked<'_>) -> HeaderValue {
        let mut methods = Vec::new();
        let all = self.walk::<()>(query, &mut |slot| {
            for candidate in slot {
                if candidate.check(query) == Err(Near::Method) {
                    methods.extend(candidate.asks.methods.iter().map(Method::as_str));
                }
            }
            ControlFlow::Continue(())
        });
        debug_assert!(all.is_continue());
        if methods.contains(&Method::GET.as_str()) {
            methods.push(Method::HEAD.as_str());
        }
        methods.sort_unstable();
        methods.dedup();
        #[expect(clippy::expect_used, reason = "a method is a token, which a header can carry")]
        let allow = HeaderValue::try_from(methods.join(", ")).expect("methods are tokens");
        allow
    }
}

#[cfg(test)]
mod tests {
    use super::super::notation::{host, origin, pattern, request, route};
    use super::*;
    use proptest::prelude::*;

    fn build(routes: &[&str]) -> Routes<String> {
        Routes::build(routes.iter().map(|text| (route(text), (*text).to_owned())).collect())
    }

    fn find(routes: &Routes<String>, text: &str) -> Result<String, NoMatch> {
        let request = request(text);
        let target = Target::parse(&request.target).unwrap();
        let asked = Asked {
            host: &request.host,
            target: &target,
            method: &request.method,
            headers: &request.headers,
            origin: origin(),
        };
        routes.find(&asked).cloned()
    }

    fn not_allowed(allow: &'static str) -> Result<&'static str, NoMatch> {
        Err(NoMatch::Method { allow: HeaderValue::from_static(allow) })
    }

    /// From the most specific to the least, for the request that matches them all.
    const LADDER: [&str; 17] = [
        "GET api.example.com/a/b",
        "api.example.com/a/b x=1 y=1",
        "api.example.com/a/b x=1 ?q=1",
        "api.example.com/a/b x=1",
        "api.example.com/a/b x=*",
        "api.example.com/a/b ?q=1 ?r=*",
        "api.example.com/a/b ?q=1",
        "api.example.com/a/b ?q=*",
        "api.example.com/a/b when:x",
        "api.example.com/a/b",
        "api.example.com/a/{x}",
        "api.example.com/a/*",
        "api.example.com/{x}/b",
        "api.example.com/*",
        "*.example.com/a/b",
        "*.com/a/b",
        "/a/b",
    ];

    #[test]
    fn the_most_specific_route_wins() {
        for from in 0..LADDER.len() {
            let mut routes = LADDER[from..].to_vec();
            // The worst order in the file.
            routes.reverse();
            let found = find(&build(&routes), "GET api.example.com/a/b?q=1&r=1 x=1 y=1");
            assert_eq!(found.as_deref(), Ok(LADDER[from]));
        }
    }

    #[test]
    fn a_route_that_does_not_take_the_request_leaves_it_to_the_next() {
        let routes = build(&[
            "GET api.example.com/a/{x}",
            "PUT api.example.com/a/* x=1",
            "api.example.com/* ?q=1",
            "PUT *.example.com/a/b",
            "DELETE /a/*",
        ]);
        for (asked, expected) in [
            ("GET api.example.com/a/b", Ok("GET api.example.com/a/{x}")),
            ("HEAD api.example.com/a/b", Ok("GET api.example.com/a/{x}")),
            ("PUT api.example.com/a/b x=1", Ok("PUT api.example.com/a/* x=1")),
            ("PUT api.example.com/a/b?q=1", Ok("api.example.com/* ?q=1")),
            ("PUT api.example.com/a/b", Ok("PUT *.example.com/a/b")),
            ("DELETE api.example.com/a/b", Ok("DELETE /a/*")),
            ("POST api.example.com/a/b", not_allowed("DELETE, GET, HEAD, PUT")),
            ("POST api.example.com/a/b x=1", not_allowed("DELETE, GET, HEAD, PUT")),
            ("POST api.example.com/a/c", not_allowed("DELETE, GET, HEAD")),
            ("POST other/a/c", not_allowed("DELETE")),
            ("POST other/b", Err(NoMatch::Route)),
            ("POST api.example.com/b", Err(NoMatch::Route)),
        ] {
            assert_eq!(find(&routes, asked).as_deref(), expected.as_ref().copied(), "{asked}");
        }
    }

    #[test]
    fn a_route_whose_condition_is_not_met_is_as_if_it_were_not_there() {
        let routes = build(&["PUT /a when:x", "/a when:x", "/a when:y", "/a", "PUT /b when:x"]);
        for (asked, expected) in [
            ("GET /a x=1", Ok("/a when:x")),
            ("PUT /a x=1", Ok("PUT /a when:x")),
            ("GET /a y=1", Ok("/a when:y")),
            ("PUT /a y=1", Ok("/a when:y")),
            ("GET /a x=2", Ok("/a")),
            ("GET /a", Ok("/a")),
            ("PUT /b x=1", Ok("PUT /b when:x")),
            ("PUT /b", Err(NoMatch::Route)),
            ("GET /b", Err(NoMatch::Route)),
            ("GET /b x=1", not_allowed("PUT")),
        ] {
            assert_eq!(find(&routes, asked).as_deref(), expected.as_ref().copied(), "{asked}");
        }
    }

    #[test]
    fn a_wildcard_takes_one_or_more_labels() {
        let routes = build(&["*.example.com/*", "*.b.example.com/*", "example.com/*"]);
        for (asked, expected) in [
            ("GET example.com/", Ok("example.com/*")),
            ("GET a.example.com/", Ok("*.example.com/*")),
            ("GET b.example.com/", Ok("*.example.com/*")),
            ("GET x.y.example.com/", Ok("*.example.com/*")),
            ("GET a.b.example.com/", Ok("*.b.example.com/*")),
            ("GET z.a.b.example.com/", Ok("*.b.example.com/*")),
            ("GET aexample.com/", Err(NoMatch::Route)),
            ("GET example.com.evil/", Err(NoMatch::Route)),
            ("GET com/", Err(NoMatch::Route)),
            ("GET /", Err(NoMatch::Route)),
            ("GET [::1]/", Err(NoMatch::Route)),
        ] {
            assert_eq!(find(&routes, asked).as_deref(), expected.as_ref().copied(), "{asked}");
        }
        assert_eq!(find(&routes, "GET .example.com/"), Err(NoMatch::Route));
    }

    #[test]
    fn an_encoded_slash_is_only_for_routes_that_keep_it() {
        let routes =
            build(&["/files/{name} keep", "/files/*", "/docs/{name}", "PUT /put/{x} keep"]);
        for (asked, expected) in [
            ("GET /files/a%2Fb", Ok("/files/{name} keep")),
            ("GET /files/a", Ok("/files/{name} keep")),
            ("GET /files/a/b%2Fc", Err(NoMatch::EncodedSlash)),
            ("GET /docs/a%2fb", Err(NoMatch::EncodedSlash)),
            ("GET /docs%2Fa", Err(NoMatch::Route)),
            ("PUT /put/a%2Fb", Ok("PUT /put/{x} keep")),
            ("GET /put/a%2Fb", not_allowed("PUT")),
        ] {
            assert_eq!(find(&routes, asked).as_deref(), expected.as_ref().copied(), "{asked}");
        }
        let routes = build(&["PUT /a/*", "GET /a/{x} keep"]);
        assert_eq!(find(&routes, "PUT /a/b%2Fc"), Err(NoMatch::EncodedSlash));
        assert_eq!(find(&routes, "POST /a/b%2Fc").as_deref(), not_allowed("GET, HEAD").as_deref());
        let routes = build(&["PUT /a/*"]);
        assert_eq!(find(&routes, "GET /a/b%2Fc"), Err(NoMatch::EncodedSlash));
    }

    #[test]
    fn an_escaped_letter_does_not_lead_around_a_route() {
        let routes = build(&["/admin/*", "/v1/items:delete", "/*"]);
        for (asked, expected) in [
            ("GET /%61dmin/x", "/admin/*"),
            ("GET //admin/x", "/admin/*"),
            ("GET /x/../admin", "/admin/*"),
            ("GET /v1/items%3Adelete", "/v1/items:delete"),
            ("GET /v1/items%3adelet%65", "/v1/items:delete"),
            ("GET /administrator", "/*"),
        ] {
            assert_eq!(find(&routes, asked).as_deref(), Ok(expected), "{asked}");
        }
    }

    #[test]
    fn a_question_about_the_server_has_no_route() {
        assert_eq!(find(&build(&["/*", "/"]), "OPTIONS *"), Err(NoMatch::Route));
        assert_eq!(find(&build(&[]), "GET /"), Err(NoMatch::Route));
    }

    #[test]
    fn a_route_may_have_several_hosts_and_paths() {
        let mut asks = route("/");
        asks.hosts = vec![host("a.com"), host("*.b.com")];
        asks.paths = vec![pattern("/x"), pattern("/y/*")];
        let routes = Routes::build(vec![(asks, "it".to_owned())]);
        for asked in ["GET a.com/x", "GET a.com/y/z", "GET q.b.com/x", "GET q.b.com/y"] {
            assert!(find(&routes, asked).is_ok(), "{asked}");
        }
        for asked in ["GET b.com/x", "GET a.com/", "GET c.com/x"] {
            assert_eq!(find(&routes, asked), Err(NoMatch::Route), "{asked}");
        }
    }

    #[test]
    fn what_excludes_each_other_has_a_fixed_order_too() {
        let mut routes = ["/a x=1", "/a x=2"];
        let first = find(&build(&routes), "GET /a x=2 x=1");
        routes.reverse();
        assert_eq!(find(&build(&routes), "GET /a x=2 x=1"), first);
        assert!(first.is_ok());
    }

    #[test]
    fn ten_thousand_routes_are_each_found() {
        let texts: Vec<String> = (0..10_000)
            .map(|n| match n % 4 {
                0 => format!("host{n}.example.com/api/*"),
                1 => format!("*.host{n}.example.com/api/{{id}}"),
                2 => format!("GET /service{}/v{n}/{{id}}/*", n % 50),
                _ => format!("/flat{n} x=1"),
            })
            .collect();
        let routes = build(&texts.iter().map(String::as_str).collect::<Vec<_>>());
        for (n, text) in texts.iter().enumerate().step_by(7) {
            let asked = match n % 4 {
                0 => format!("GET host{n}.example.com/api/a/b"),
                1 => format!("GET a.b.host{n}.example.com/api/7"),
                2 => format!("GET any/service{}/v{n}/7/items", n % 50),
                _ => format!("GET any/flat{n} x=1"),
            };
            assert_eq!(find(&routes, &asked).as_ref(), Ok(text));
        }
    }

    proptest! {
        #[test]
        fn order_in_the_file_does_not_matter(routes in Just(LADDER.to_vec()).prop_shuffle(),
                                             kept in 1..LADDER.len()) {
            let routes = &routes[..kept];
            let best = LADDER.iter().find(|text| routes.contains(text)).unwrap();
            let found = find(&build(routes), "GET api.example.com/a/b?q=1&r=1 x=1 y=1");
            prop_assert_eq!(found.as_deref(), Ok(*best));
        }
    }
}
