//! Path patterns of one host, as a tree of segments.
//!
//! A search goes down in the order of precedence, so the first route that accepts is the best one.
//! Two patterns that match the same path are told apart at the first segment in which they differ,
//! read from the left: a literal beats a parameter, a parameter beats the end of a prefix, and a
//! pattern that ends with the path beats a prefix that ends there. So `/a/*` beats `/{x}/b`, and
//! `/a/{x}` beats `/a/*`. No two different patterns are equal in this order.
//!
//! Must stay true: a node stands at one depth and has one parent, so a search visits it at most
//! once. A search costs at most the nodes of the tree, however often it turns back, and at most
//! `2^(d+1)` where `d` is the lower of the depth of the tree and the number of segments asked for.
//! The same `d` bounds the recursion; `conf/` takes patterns of at most 2048 bytes, so 1024 levels.

use super::canonical::{find_by_meaning, key};
use super::matcher::{PathPattern, Segment};
use std::collections::HashMap;
use std::ops::ControlFlow;

/// A node and all below it; `R` is what stands at the end of a pattern.
pub(super) struct Node<R> {
    literals: HashMap<Box<str>, Self>,
    param: Option<Box<Self>>,
    /// The path ends here.
    end: Vec<R>,
    /// The path ends here with a slash.
    slash: Vec<R>,
    /// The path ends here or goes on.
    prefix: Vec<R>,
}

impl<R> Default for Node<R> {
    fn default() -> Self {
        Self {
            literals: HashMap::new(),
            param: None,
            end: Vec::new(),
            slash: Vec::new(),
            prefix: Vec::new(),
        }
    }
}

impl<R> Node<R> {
    /// Where the routes of `pattern` stand.
    pub(super) fn slot(&mut self, pattern: &PathPattern) -> &mut Vec<R> {
        let (PathPattern::Exact { segments, .. } | PathPattern::Prefix { segments }) = pattern;
        let node = segments.iter().fold(self, |node, segment| match segment {
            Segment::Literal(text) => node.literals.entry(key(text)).or_default(),
            Segment::Param(_) => node.param.get_or_insert_default(),
        });
        match pattern {
            PathPattern::Prefix { .. } => &mut node.prefix,
            // `/` ends with its only slash.
            PathPattern::Exact { segments, trailing_slash }
                if *trailing_slash || segments.is_empty() =>
            {
                &mut node.slash
            }
            PathPattern::Exact { .. } => &mut node.end,
        }
    }

    /// Shows `visit` the routes of each pattern that matches, best pattern first, until it breaks.
    /// `rest` is what of the canonical path follows this node: empty, or starting with a slash.
    ///
    /// Every node on the way shows its prefix, an empty one too.
    pub(super) fn walk<'n, B>(
        &'n self,
        rest: &str,
        visit: &mut impl FnMut(&'n [R]) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        match rest.strip_prefix('/') {
            None => visit(&self.end)?,
            Some("") => visit(&self.slash)?,
            Some(after) => {
                let end = after.find('/').unwrap_or(after.len());
                let (segment, rest) = after.split_at(end);
                if !self.literals.is_empty()
                    && let Some(child) = find_by_meaning(segment, |text| self.literals.get(text))
                {
                    child.walk(rest, visit)?;
                }
                if let Some(child) = &self.param {
                    child.walk(rest, visit)?;
                }
            }
        }
        visit(&self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::super::notation::pattern;
    use super::*;

    fn tree(patterns: &[String]) -> Node<String> {
        let mut root = Node::default();
        for text in patterns {
            root.slot(&pattern(text)).push(text.clone());
        }
        root
    }

    /// Everything that matches, in the order of the search, and the number of nodes visited.
    fn search(root: &Node<String>, path: &str) -> (Vec<String>, usize) {
        let mut found = Vec::new();
        let mut nodes = 0;
        let walked = root.walk::<()>(path, &mut |slot| {
            nodes += 1;
            found.extend_from_slice(slot);
            ControlFlow::Continue(())
        });
        assert!(walked.is_continue());
        (found, nodes)
    }

    fn all(patterns: &[&str], path: &str) -> Vec<String> {
        let patterns: Vec<_> = patterns.iter().map(|text| (*text).to_owned()).collect();
        search(&tree(&patterns), path).0
    }

    #[test]
    fn patterns_match_in_their_order() {
        let patterns = [
            "/",
            "/*",
            "/a",
            "/a/",
            "/a/*",
            "/a/b",
            "/a/{x}",
            "/a/{x}/*",
            "/{x}/b",
            "/{x}",
            "/{x}/",
            "/{x}/*",
            "/a/b/c",
            "/a/{x}/c",
            "/{x}/{y}/{z}",
            "/{x}/b/c",
        ];
        for (path, expected) in [
            ("/", &["/", "/*"][..]),
            ("/a", &["/a", "/a/*", "/{x}", "/{x}/*", "/*"]),
            ("/a/", &["/a/", "/a/*", "/{x}/", "/{x}/*", "/*"]),
            ("/q", &["/{x}", "/{x}/*", "/*"]),
            ("/ab", &["/{x}", "/{x}/*", "/*"]),
            ("/a/b", &["/a/b", "/a/{x}", "/a/{x}/*", "/a/*", "/{x}/b", "/{x}/*", "/*"]),
            ("/a/b/", &["/a/{x}/*", "/a/*", "/{x}/*", "/*"]),
            ("/a/q", &["/a/{x}", "/a/{x}/*", "/a/*", "/{x}/*", "/*"]),
            (
                "/a/b/c",
                &[
                    "/a/b/c",
                    "/a/{x}/c",
                    "/a/{x}/*",
                    "/a/*",
                    "/{x}/b/c",
                    "/{x}/{y}/{z}",
                    "/{x}/*",
                    "/*",
                ],
            ),
            ("/a/b/c/d", &["/a/{x}/*", "/a/*", "/{x}/*", "/*"]),
            ("/A", &["/{x}", "/{x}/*", "/*"]),
        ] {
            assert_eq!(all(&patterns, path), expected, "{path}");
        }
    }

    #[test]
    fn a_parameter_is_never_empty() {
        assert!(all(&["/a/{x}", "/{x}"], "/a/").is_empty());
        assert!(all(&["/{x}"], "/").is_empty());
    }

    #[test]
    fn a_literal_is_found_under_every_spelling_of_its_reserved_characters() {
        let patterns = ["/items:delete", "/{x}", "/a%40b", "/a%2Fb"];
        for (path, best) in [
            ("/items:delete", "/items:delete"),
            ("/items%3Adelete", "/items:delete"),
            ("/a@b", "/a%40b"),
            ("/a%40b", "/a%40b"),
            ("/a%2Fb", "/a%2Fb"),
            ("/a%252Fb", "/{x}"),
            ("/items%253Adelete", "/{x}"),
            ("/items%3Adeleted", "/{x}"),
        ] {
            assert_eq!(all(&patterns, path)[0], best, "{path}");
        }
        let long = "%40".repeat(LONG);
        assert_eq!(all(&["/{x}", "/@"], &format!("/{long}")), ["/{x}"]);
    }

    const LONG: usize = 3000;

    #[test]
    fn a_search_visits_each_node_at_most_once_however_it_turns_back() {
        // Every choice of literal or parameter at ten levels, and none of them ends in `y`.
        let depth = 10;
        let patterns: Vec<String> = (0..1_u32 << depth)
            .map(|bits| {
                (0..depth).fold(String::new(), |text, level| {
                    text + if bits >> level & 1 == 0 { "/a" } else { "/{p}" }
                }) + "/x"
            })
            .collect();
        let root = tree(&patterns);
        // The inner nodes, and the leaves `x` below the last of them.
        let nodes = (1_usize << (depth + 1)) - 1 + (1 << depth);
        let (found, visited) = search(&root, &format!("{}/y", "/a".repeat(depth)));
        assert!(found.is_empty());
        assert!(visited <= nodes, "{visited} of {nodes}");
        let (found, visited) = search(&root, &"/a".repeat(4000));
        assert!(found.is_empty());
        assert!(visited <= nodes, "{visited} of {nodes}");
        let (found, visited) = search(&root, &format!("{}/x", "/a".repeat(depth)));
        assert_eq!(found.len(), 1 << depth);
        // A leaf shows its end and its prefix.
        assert!(visited <= nodes + (1 << depth), "{visited} of {nodes}");
    }

    #[test]
    fn the_deepest_pattern_that_a_file_can_hold_fits_on_the_stack() {
        let deep = "/a".repeat(1024);
        let patterns = [deep.clone(), "/{p}".repeat(500), "/*".to_owned()];
        assert_eq!(search(&tree(&patterns), &deep).0, [deep, "/*".to_owned()]);
    }

    #[test]
    fn ten_thousand_routes_do_not_lengthen_a_search() {
        let patterns: Vec<String> =
            (0..10_000).map(|number| format!("/service{}/v{number}/{{id}}", number % 97)).collect();
        let (found, visited) = search(&tree(&patterns), "/service3/v3/7");
        assert_eq!(found, ["/service3/v3/{id}"]);
        assert_eq!(visited, 5);
    }
}
