//! The filters of a gateway, and one request's visits to them.
//!
//! Each filter has a state of its own type for each request. The types are forgotten here, and only
//! here: a [`Visit`] is a filter together with its state.
//!
//! Must stay true: a gateway without filters has nothing to allocate and nothing to wait for.

use super::Filter;
use super::call::{Known, Pending, Point, Stopped};
use super::edits::Edit;
use super::outcome::{Answer, Flow};
use super::view::{Admitted, Request, Response};
use crate::auth::Caller;
use crate::proxy::head::Head;
use crate::snapshot::{Route, Snapshot};
use crate::telemetry::Clock;
use crate::telemetry::metrics::Metrics;
use http::{HeaderMap, HeaderValue, StatusCode};
use std::sync::Arc;
use std::time::Duration;

/// Filters in their order, not yet at work.
#[derive(Clone, Default)]
pub struct Filters(Vec<Arc<dyn Visited>>);

/// A name that no filter can have.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// It does not fit into metrics and logs.
    #[error("a filter's name is lower-case letters, digits, `-` and `_`, at most 64, not `{0}`")]
    Form(&'static str),
    /// Metrics could not tell the two apart.
    #[error("two filters are named `{0}`")]
    Twice(&'static str),
}

impl Filters {
    /// Adds a filter behind the others.
    pub fn push(&mut self, filter: impl Filter) {
        self.0.push(Arc::new(filter));
    }

    /// Puts them to work.
    ///
    /// # Errors
    /// A name that is none, or that two have.
    pub fn chain(&self, metrics: &Metrics, clock: &Clock) -> Result<Chain, BadName> {
        let mut links: Vec<Link> = Vec::with_capacity(self.0.len());
        for filter in &self.0 {
            let name = filter.name();
            let fits = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
            if name.is_empty() || name.len() > 64 || !name.bytes().all(fits) {
                return Err(BadName::Form(name));
            }
            if links.iter().any(|link| link.known.name == name) {
                return Err(BadName::Twice(name));
            }
            let (deadline, metrics) = (filter.deadline(), metrics.filter(name));
            links.push(Link {
                known: Known { name, deadline, metrics },
                filter: Arc::clone(filter),
            });
        }
        let chain = (!links.is_empty()).then(|| Arc::new(Links { links, clock: clock.clone() }));
        Ok(Chain(chain))
    }
}

impl std::fmt::Debug for Filters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|filter| filter.name())).finish()
    }
}

/// Filters at work.
#[derive(Clone, Default)]
pub struct Chain(Option<Arc<Links>>);

struct Links {
    links: Vec<Link>,
    clock: Clock,
}

struct Link {
    known: Known,
    filter: Arc<dyn Visited>,
}

impl Chain {
    /// Begins the visits of one request.
    pub fn begin(&self, id: &HeaderValue, began_at: Duration) -> Visits {
        Visits(self.0.as_ref().map(|links| {
            Box::new(Underway {
                visits: links.links.iter().map(|link| Arc::clone(&link.filter).begin()).collect(),
                links: Arc::clone(links),
                edits: Vec::new(),
                id: id.clone(),
                began_at,
            })
        }))
    }
}

/// One request's visits to the filters, if there are any.
#[derive(Default)]
pub struct Visits(Option<Box<Underway>>);

struct Underway {
    links: Arc<Links>,
    visits: Vec<Box<dyn Visit>>,
    edits: Vec<Edit>,
    id: HeaderValue,
    began_at: Duration,
}

impl Visits {
    /// Asks whether a request may be looked at at all.
    ///
    /// # Errors
    /// A filter stops it.
    pub async fn request(&mut self, head: &Head<'_>) -> Result<(), Stopped> {
        let Some(own) = self.0.as_deref_mut() else { return Ok(()) };
        let request = Request { head, id: &own.id, began_at: own.began_at };
        for (link, visit) in own.links.links.iter().zip(&mut own.visits) {
            let pending = visit.request(&request);
            link.known.call(Point::Request, &own.links.clock, pending).await?;
        }
        Ok(())
    }

    /// Tells of a request that passed every check; the answer if a filter has one.
    ///
    /// # Errors
    /// A filter stops it.
    pub async fn admitted(
        &mut self,
        snapshot: &Snapshot,
        head: &Head<'_>,
        route: &Route,
        caller: Option<&Caller>,
    ) -> Result<Option<Box<Answer>>, Stopped> {
        let Some(own) = self.0.as_deref_mut() else { return Ok(None) };
        let mut admitted = Admitted {
            request: Request { head, id: &own.id, began_at: own.began_at },
            route: &route.name,
            caller,
            claims: snapshot.authenticator.claim_headers(),
            edits: &mut own.edits,
        };
        for (link, visit) in own.links.links.iter().zip(&mut own.visits) {
            let pending = visit.admitted(&mut admitted);
            match link.known.call(Point::Admitted, &own.links.clock, pending).await? {
                Flow::Continue => {}
                Flow::Answer(answer) => {
                    link.known.metrics.answered();
                    return Ok(Some(Box::new(answer)));
                }
            }
        }
        Ok(None)
    }

    /// Edits a request on its way to the upstream as the filters said.
    pub fn edit(&self, request: &mut HeaderMap) {
        let edits = self.0.iter().flat_map(|own| &own.edits);
        edits.for_each(|edit| edit.apply(request));
    }

    /// Shows a response before the client gets it.
    ///
    /// # Errors
    /// A filter withholds it.
    pub async fn response(
        &mut self,
        status: StatusCode,
        headers: &mut HeaderMap,
    ) -> Result<(), Stopped> {
        let Some(own) = self.0.as_deref_mut() else { return Ok(()) };
        let mut response = Response { status, headers };
        for (link, visit) in own.links.links.iter().zip(&mut own.visits).rev() {
            let pending = visit.response(&mut response);
            link.known.call(Point::Response, &own.links.clock, pending).await?;
        }
        Ok(())
    }
}

/// A [`Filter`] without the type of its state.
trait Visited: Send + Sync {
    fn name(&self) -> &'static str;
    fn deadline(&self) -> Duration;
    fn begin(self: Arc<Self>) -> Box<dyn Visit>;
}

impl<F: Filter> Visited for F {
    fn name(&self) -> &'static str {
        Filter::name(self)
    }

    fn deadline(&self) -> Duration {
        Filter::deadline(self)
    }

    fn begin(self: Arc<Self>) -> Box<dyn Visit> {
        Box::new(Visiting { filter: self, state: None })
    }
}

/// One request's visit to one filter.
trait Visit: Send + Sync {
    fn request<'a>(&'a mut self, request: &'a Request<'_>) -> Pending<'a, ()>;
    fn admitted<'a>(&'a mut self, request: &'a mut Admitted<'_>) -> Pending<'a, Flow>;
    fn response<'a>(&'a mut self, response: &'a mut Response<'_>) -> Pending<'a, ()>;
}

/// A filter with its state of one request, which it makes itself, so that a panic there is its own.
struct Visiting<F: Filter> {
    filter: Arc<F>,
    state: Option<F::State>,
}

impl<F: Filter> Visit for Visiting<F> {
    fn request<'a>(&'a mut self, request: &'a Request<'_>) -> Pending<'a, ()> {
        Box::pin(async move {
            self.filter.on_request(request, self.state.get_or_insert_default()).await
        })
    }

    fn admitted<'a>(&'a mut self, request: &'a mut Admitted<'_>) -> Pending<'a, Flow> {
        Box::pin(async move {
            self.filter.on_admitted(request, self.state.get_or_insert_default()).await
        })
    }

    fn response<'a>(&'a mut self, response: &'a mut Response<'_>) -> Pending<'a, ()> {
        Box::pin(async move {
            self.filter.on_response(response, self.state.get_or_insert_default()).await
        })
    }
}
