//! A CloudWatch of our own: takes what the real one takes, remembers it, and fails on request.

use crate::judge::{Taken, judge};
use crate::support::eventually;
use crate::support::gateway::Builder;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use ciborium::cbor;
use http::{HeaderMap, StatusCode, Uri};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::task::JoinHandle;

/// What the sink does with a good call.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mood {
    /// Takes it.
    Takes,
    /// Never answers.
    Hangs,
    /// Answers with this status and code.
    Fails(u16, &'static str),
    /// Answers with an error that has no end.
    Raves,
}

struct Inner {
    mood: Mutex<Mood>,
    calls: Mutex<Vec<Vec<Taken>>>,
    /// Calls that came, whatever became of them.
    tried: Mutex<usize>,
    refused: Mutex<Vec<String>>,
}

/// The sink, on a port of its own.
pub(crate) struct Sink {
    pub(crate) address: SocketAddr,
    inner: Arc<Inner>,
    serving: JoinHandle<()>,
}

impl Sink {
    pub(crate) async fn start() -> Self {
        let inner = Arc::new(Inner {
            mood: Mutex::new(Mood::Takes),
            calls: Mutex::default(),
            tried: Mutex::default(),
            refused: Mutex::default(),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = axum::Router::new().fallback(answer).with_state(Arc::clone(&inner));
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, inner, serving }
    }

    pub(crate) fn mood(&self, mood: Mood) {
        *self.inner.mood.lock().unwrap() = mood;
    }

    /// A gateway that publishes here each second.
    pub(crate) fn of(&self, gateway: Builder) -> Builder {
        Self::at(self.address, gateway)
    }

    /// The same, where the address is all that is known.
    pub(crate) fn at(address: SocketAddr, gateway: Builder) -> Builder {
        gateway
            .toml(&format!(
                "[cloudwatch]\nregion = 'us-east-1'\nendpoint = 'http://{}'\ninterval = '1s'\n\
                 environment = 'test'",
                address
            ))
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
    }

    /// How many calls came.
    pub(crate) fn tried(&self) -> usize {
        *self.inner.tried.lock().unwrap()
    }

    /// What was taken, by call. Nothing may have been refused.
    pub(crate) fn calls(&self) -> Vec<Vec<Taken>> {
        let refused = self.inner.refused.lock().unwrap();
        assert!(refused.is_empty(), "CloudWatch would not take it: {refused:?}");
        self.inner.calls.lock().unwrap().clone()
    }

    pub(crate) fn taken(&self) -> Vec<Taken> {
        self.calls().into_iter().flatten().collect()
    }

    /// Everything taken of a metric, for one value of its third dimension.
    pub(crate) fn of_metric(&self, name: &str, third: Option<&str>) -> Vec<Taken> {
        let wanted = |datum: &Taken| datum.name == name && datum.third() == third;
        self.taken().into_iter().filter(wanted).collect()
    }

    /// The sum over all that was taken.
    pub(crate) fn sum(&self, name: &str, third: Option<&str>) -> f64 {
        self.of_metric(name, third).iter().map(Taken::sum).sum()
    }

    /// The begins of all intervals, in the order of their calls.
    pub(crate) fn intervals(&self) -> Vec<u64> {
        #[expect(clippy::cast_possible_truncation, reason = "seconds since 1970")]
        #[expect(clippy::cast_sign_loss, reason = "seconds since 1970")]
        let began = |datum: &Taken| datum.timestamp as u64;
        self.of_metric("Heartbeat", None).iter().map(began).collect()
    }

    /// Every series that anything was taken of.
    pub(crate) fn series(&self) -> BTreeSet<(String, BTreeMap<String, String>)> {
        self.taken().into_iter().map(|datum| (datum.name, datum.dimensions)).collect()
    }

    /// Waits for so many intervals.
    pub(crate) async fn has(&self, intervals: usize) {
        let what = format!("{intervals} intervals to be published");
        eventually(&what, || (self.intervals().len() >= intervals).then_some(())).await;
    }

    /// Waits until the sum over all that was taken is this.
    pub(crate) async fn sum_is(&self, name: &str, third: Option<&str>, sum: f64) {
        let what = format!("{name} {third:?} to be {sum}");
        eventually(&what, || (self.sum(name, third) >= sum).then_some(())).await;
        assert!((self.sum(name, third) - sum).abs() < 1e-6, "{name}: {}", self.sum(name, third));
    }

    /// Waits until so many calls came since `before`, whatever became of them.
    pub(crate) async fn tried_since(&self, before: usize, calls: usize) {
        eventually("calls to come", || (self.tried() >= before + calls).then_some(())).await;
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn answer(
    State(sink): State<Arc<Inner>>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    *sink.tried.lock().unwrap() += 1;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let taken = match judge(uri.path(), &headers, &body, now) {
        Ok(taken) => taken,
        Err(reason) => {
            sink.refused.lock().unwrap().push(reason);
            return failure(400, "InvalidParameterValue");
        }
    };
    let mood = *sink.mood.lock().unwrap();
    match mood {
        Mood::Takes => {
            sink.calls.lock().unwrap().push(taken);
            packed(200, &[0xa0])
        }
        Mood::Hangs => std::future::pending().await,
        Mood::Fails(status, code) => failure(status, code),
        Mood::Raves => {
            let chunk = || Ok::<_, std::convert::Infallible>(Bytes::from_static(&[b'x'; 65_536]));
            let endless = futures_util::stream::repeat_with(chunk);
            (StatusCode::INTERNAL_SERVER_ERROR, axum::body::Body::from_stream(endless))
                .into_response()
        }
    }
}

fn failure(status: u16, code: &str) -> Response {
    let mut body = Vec::new();
    let error = cbor!({
        "__type" => format!("com.amazonaws.cloudwatch#{code}"), "message" => "as the test asked",
    });
    ciborium::into_writer(&error.unwrap(), &mut body).unwrap();
    packed(status, &body)
}

fn packed(status: u16, body: &[u8]) -> Response {
    let headers = [("content-type", "application/cbor"), ("smithy-protocol", "rpc-v2-cbor")];
    (StatusCode::from_u16(status).unwrap(), headers, body.to_vec()).into_response()
}
