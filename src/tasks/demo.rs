//! An upstream to try the gateway with, when there is no real one at hand.
//!
//! It says what arrived at it, so that one sees what the gateway adds, removes and rewrites. Nothing
//! in here is for production, but it is bounded all the same: demos are left running.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get};
use axum::serve::ListenerExt as _;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use serde_json::{Map, Value, json};
use std::net::TcpListener;
use std::time::Duration;

/// Bytes of a request body.
const MAX_BODY: usize = 1024 * 1024;
/// `/slow` waits no longer than this.
const MAX_DELAY: Duration = Duration::from_secs(30);

/// Answers on `listener` until `stop`, and then what is under way.
///
/// - `/health`: 200
/// - `/slow?ms=250`: the echo, after a while
/// - `/status/503`: the echo, with this status
/// - all else: the echo
///
/// # Errors
/// If the listener is not usable.
pub async fn serve(
    listener: TcpListener,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            log::debug!(error:% = error; "a connection to the demo keeps its delay");
        }
    });
    let router = Router::new()
        .route("/health", get(health))
        .route("/slow", any(slow))
        .route("/status/{code}", any(status))
        .fallback(echo)
        .layer(DefaultBodyLimit::max(MAX_BODY));
    axum::serve(listener, router).with_graceful_shutdown(stop).await
}

async fn health() -> &'static str {
    "ok\n"
}

async fn echo(method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    answer(200, &method, &uri, &headers, &body)
}

async fn slow(method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let Some(delay) = delay(uri.query().unwrap_or_default()) else {
        return mistaken("ask for a number of milliseconds, as in /slow?ms=250");
    };
    tokio::time::sleep(delay.min(MAX_DELAY)).await;
    answer(200, &method, &uri, &headers, &body)
}

async fn status(
    Path(code): Path<String>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match code.parse() {
        Ok(status @ 200..=599) => answer(status, &method, &uri, &headers, &body),
        _ => mistaken("ask for a status from 200 to 599, as in /status/503"),
    }
}

/// The value of `ms`; no delay without one.
fn delay(query: &str) -> Option<Duration> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix("ms="));
    value.map_or(Some(0), |value| value.parse().ok()).map(Duration::from_millis)
}

fn answer(status: u16, method: &Method, uri: &Uri, headers: &HeaderMap, body: &Bytes) -> Response {
    let mut fields = Map::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        match fields.get_mut(name.as_str()) {
            Some(Value::String(known)) => {
                known.push_str(", ");
                known.push_str(&value);
            }
            _ => drop(fields.insert(name.as_str().to_owned(), value.into())),
        }
    }
    let echo = json!({
        "method": method.as_str(),
        "path": uri.path(),
        "query": uri.query(),
        "headers": fields,
        "body_bytes": body.len(),
    });
    json(status, &echo)
}

/// An upstream's own refusal, which the gateway passes on as it is.
fn mistaken(message: &str) -> Response {
    json(400, &json!({ "error": message }))
}

fn json(status: u16, value: &Value) -> Response {
    // Bodies are for people.
    let kind = (CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let status = StatusCode::from_u16(status).unwrap_or_default();
    (status, [kind], format!("{value:#}\n")).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio::sync::oneshot;

    #[expect(clippy::disallowed_methods, reason = "the test waits for its task")]
    #[tokio::test]
    async fn it_says_what_arrived_and_answers_as_it_is_asked_to() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(serve(listener, async move { drop(stopped.await) }));
        for (request, status, expected) in [
            ("GET /health", "200", "ok"),
            ("POST /orders/1?x=2", "200", r#""query": "x=2""#),
            ("POST /orders/1?x=2", "200", r#""body_bytes": 3"#),
            ("GET /a", "200", r#""x-consumer-id": "c1, c2""#),
            ("GET /status/503", "503", r#""path": "/status/503""#),
            ("GET /status/100", "400", "200 to 599"),
            ("GET /slow?ms=1", "200", r#""path": "/slow""#),
            ("GET /slow?ms=x", "400", "milliseconds"),
        ] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let head = format!(
                "{request} HTTP/1.1\r\nHost: demo\r\nConnection: close\r\nContent-Length: 3\r\n\
                 X-Consumer-Id: c1\r\nX-Consumer-Id: c2\r\n\r\nabc"
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {answer}");
            assert!(answer.contains(expected), "{request}: {answer}");
        }
        drop(stop);
        served.await.unwrap().unwrap();
    }

    #[test]
    fn a_delay_is_a_number_or_nothing() {
        for (query, expected) in [
            ("", Some(0)),
            ("ms=250", Some(250)),
            ("a=1&ms=7", Some(7)),
            ("ms=", None),
            ("ms=-1", None),
            ("ms=1e9", None),
        ] {
            assert_eq!(delay(query), expected.map(Duration::from_millis), "{query}");
        }
    }
}
