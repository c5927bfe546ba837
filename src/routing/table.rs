//! All routes, and the search for the one that answers.
//!
//! Hosts are tried exact first, then by wildcard from the longest, then the routes without a host;
//! inside a host the path decides (`tree.rs` has the order), inside a pattern what else a route
//! asks (`candidate.rs`). The first that accepts answers; one that does not leaves the request to
//! the next, in the same host or a less specific one.
//!
//! Must stay true: order in the files never matters; `find` does not allocate but for a 405; its
//! cost does not grow with the number of routes, only with those that share host and pattern, and
//! with the patterns that match a path's beginning (`tree.rs` has the bound).

use super::candidate::{Candidate, Near};
use super::matcher::{HostPattern, Matcher};
use super::target::Target;
use super::tree::Node;
use http::{HeaderMap, HeaderValue, Method};
use std::collections::HashMap;
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
                    Ok(()) => return ControlFlow::Break(&candidate.value),
                    Err(reached) => near = near.max(reached),
                }
            }
            ControlFlow::Continue(())
        });
        match (found, near) {
            (ControlFlow::Break(value), _) => Ok(value),
            (_, Near::Slash | Near::MethodAndSlash) => Err(NoMatch::EncodedSlash),
            (_, Near::Method) => Err(NoMatch::Method { allow: self.allow(query) }),
            (_, Near::Far) => Err(NoMatch::Route),
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
