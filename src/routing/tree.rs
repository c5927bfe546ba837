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
                if let Some(child) = find_by_meaning(segment, |text| self.literals.get(text)) {
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
