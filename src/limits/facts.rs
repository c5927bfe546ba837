//! The port through which a rule reads a request, without knowing HTTP or tokens.
//!
//! Must stay true: what is not there is `None`, and then the rule counts somebody who is.

use crate::expressions;
use http::HeaderName;
use std::borrow::Cow;

/// What a rule can ask about a request.
pub trait Facts: Sync {
    /// The claim of this name, of a token that was verified.
    fn claim(&self, name: &str) -> Option<Cow<'_, str>>;

    /// The value of this header; of one that is repeated, all values joined by `, `.
    fn header(&self, name: &HeaderName) -> Option<Cow<'_, [u8]>>;

    /// What expressions read.
    fn known(&self) -> Option<&expressions::Facts<'_>> {
        None
    }
}

/// A request of which nothing is known.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoFacts;

impl Facts for NoFacts {
    fn claim(&self, _: &str) -> Option<Cow<'_, str>> {
        None
    }

    fn header(&self, _: &HeaderName) -> Option<Cow<'_, [u8]>> {
        None
    }
}
