//! What a program that embeds the gateway may do to requests: the trait [`Filter`] and its three
//! points.
//!
//! ```text
//! head ─▶ on_request ─▶ route ─▶ who ─▶ may it ─▶ limits ─▶ on_admitted ─▶ upstream ─▶ on_response ─▶ client
//!          may refuse                                        may refuse,                may refuse,
//!                                                            answer, edit               edit
//! ```
//!
//! Filters are called in the order in which they were given, for responses in the reverse order: the
//! first one stands outside of the others, as layers do.
//!
//! Must stay true: a filter makes the gateway stricter and never more open. It cannot let a request
//! pass that a later check refuses, cannot touch the framing or the identity of a message, and one
//! that fails, or takes too long, refuses the request.

mod call;
mod edits;
mod outcome;
mod view;
mod visits;

pub use call::{Point, Stopped, Why};
pub use edits::Protected;
pub use outcome::{Answer, Flow, Refusal};
pub use view::{Admitted, Caller, Request, Response};
pub use visits::{BadName, Chain, Filters, Visits};

use std::time::Duration;

/// Code of one's own on the request path, given to
/// [`Builder::filter`](crate::Builder::filter).
///
/// Each method is a point of a request's way; one that is not written does nothing. Methods are
/// written as `async fn`. What they wait for must not block the thread: it serves other requests
/// meanwhile.
///
/// ```
/// use datahub_gateway::filter::{Filter, Refusal, Request};
/// use datahub_gateway::http::StatusCode;
///
/// /// Lets nobody in who does not say what they are.
/// struct NamedClients;
///
/// impl Filter for NamedClients {
///     type State = ();
///
///     fn name(&self) -> &'static str {
///         "named-clients"
///     }
///
///     async fn on_request(&self, request: &Request<'_>, _: &mut ()) -> Result<(), Refusal> {
///         if request.headers().contains_key("user-agent") {
///             Ok(())
///         } else {
///             Err(Refusal::new(StatusCode::FORBIDDEN, "no_user_agent"))
///         }
///     }
/// }
///
/// let gateway = datahub_gateway::Gateway::builder().conf("conf").filter(NamedClients);
/// # drop(gateway);
/// ```
pub trait Filter: Send + Sync + 'static {
    /// What the filter remembers of one request from one point to the next; `()` for nothing.
    type State: Default + Send + Sync + 'static;

    /// Its name in metrics and the access log: lower-case letters, digits, `-` and `_`, and no other
    /// filter's. Asked once.
    fn name(&self) -> &'static str;

    /// How long it may take at one point; a request that it keeps for longer is refused with 503.
    /// Asked once.
    fn deadline(&self) -> Duration {
        Duration::from_millis(100)
    }

    /// A request has come, and nothing is decided yet: no route is known, and nobody. It can be
    /// refused, and nothing else. Not asked for CORS preflights and `/health`.
    fn on_request(
        &self,
        _request: &Request<'_>,
        _state: &mut Self::State,
    ) -> impl Future<Output = Result<(), Refusal>> + Send {
        std::future::ready(Ok(()))
    }

    /// A request has passed every check of the gateway and is about to go to its upstream, or to get
    /// its route's own reply. It can be refused, answered here, or given other header fields.
    fn on_admitted(
        &self,
        _request: &mut Admitted<'_>,
        _state: &mut Self::State,
    ) -> impl Future<Output = Result<Flow, Refusal>> + Send {
        std::future::ready(Ok(Flow::Continue))
    }

    /// The head of a response is about to go to the client: the upstream's, the route's or a filter's.
    /// It can be given other header fields, or be withheld by a refusal. Not asked for what the gateway
    /// itself says when it refuses.
    fn on_response(
        &self,
        _response: &mut Response<'_>,
        _state: &mut Self::State,
    ) -> impl Future<Output = Result<(), Refusal>> + Send {
        std::future::ready(Ok(()))
    }
}
