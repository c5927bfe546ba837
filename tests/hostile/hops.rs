//! What is between two neighbours: wishes for another protocol, `Connection` and what it names.

use crate::case::{Case, get, kept, passed, post, refused};

const GET: &str = "GET /a HTTP/1.1";
const SOCKET: &str = "GET /socket HTTP/1.1";
const WEBSOCKET: &[&str] = &["connection: Upgrade", "upgrade: websocket"];

pub(crate) fn rows() -> Vec<Case> {
    [upgrades(), connections(), judged(), others()].concat()
}

fn upgrades() -> Vec<Case> {
    macro_rules! socket {
        ($($line:expr),* $(,)?) => {
            concat!("GET /socket HTTP/1.1\r\nHost: a\r\n", $($line, "\r\n",)* "\r\n").as_bytes()
        };
    }
    vec![
        // Bytes before 101 are for the other protocol, and go on only once it is spoken.
        Case {
            status: 101,
            ..passed(
                socket!("Connection: Upgrade", "Upgrade: websocket"),
                SOCKET,
                WEBSOCKET,
                crate::case::FOLLOWER,
            )
            .closes()
        },
        // Anything but a plain wish for a WebSocket is no wish at all.
        passed(socket!("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"), SOCKET, &[], b"").closes(),
        passed(socket!("Connection: Upgrade", "Upgrade: h2c"), SOCKET, &[], b"").closes(),
        passed(socket!("Connection: Upgrade", "Upgrade: websocket, h2c"), SOCKET, &[], b"").closes(),
        passed(socket!("Connection: Upgrade", "Upgrade: websocket", "Upgrade: h2c"), SOCKET, &[], b"").closes(),
        passed(socket!("Connection: Upgrade", "Upgrade: TLS/1.0"), SOCKET, &[], b"").closes(),
        passed(socket!("Connection: Upgrade", "Upgrade: websocket/13"), SOCKET, &[], b"").closes(),
        passed(socket!("Connection: Upgrade", "Upgrade:"), SOCKET, &[], b"").closes(),
        passed(socket!("Upgrade: websocket"), SOCKET, &[], b"").closes(),
        passed(socket!("Connection: close", "Upgrade: websocket"), SOCKET, &[], b"").closes(),
        passed(
            b"POST /socket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n",
            "POST /socket HTTP/1.1",
            &["content-length: 0"],
            b"",
        ).closes(),
        passed(
            b"GET /socket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n\r\nhello",
            SOCKET,
            &["content-length: 5"],
            b"hello",
        ).closes(),
        passed(
            b"GET /socket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            SOCKET,
            &["transfer-encoding: chunked"],
            b"",
        ).closes(),
        passed(
            b"GET /socket HTTP/1.0\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            SOCKET,
            &[],
            b"",
        )
        .closes(),
        // Where the upstream does not switch, what was sent ahead is nothing.
        passed(get!("Connection: Upgrade", "Upgrade: websocket"), GET, WEBSOCKET, b"").closes(),
        refused(
            b"GET /denied/x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            401,
            "no_credential",
        ),
    ]
}

fn connections() -> Vec<Case> {
    let silent = [
        get!("Connection: keep-alive"),
        get!("Connection: X", "X: y"),
        get!("Connection: keep-alive, x", "X: y"),
        get!("Connection: X,,Z", "X: y", "Z: a"),
        get!("Connection: x-other", "Connection: X", "X: y"),
        get!("Connection: Keep-Alive", "Keep-Alive: timeout=99999"),
        get!("Proxy-Connection: keep-alive"),
        get!("Keep-Alive: max=1"),
        get!("TE: gzip"),
        get!("Connection: TE", "TE: gzip"),
        get!("Connection: upgrade"),
        get!("Connection: X-Anonymous-Consumer"),
        get!("Connection: X-Consumer-Id, x_consumer_id", "X-Consumer-Id: admin"),
        get!("Connection: traceparent"),
    ]
    .map(|raw| passed(raw, GET, &[], b""));
    let more = vec![
        passed(get!("Connection: close"), GET, &[], b"").closes(),
        passed(get!("Connection: CLOSE"), GET, &[], b"").closes(),
        passed(get!("Connection: x, Close"), GET, &[], b"").closes(),
        passed(get!("Connection: keep-alive, close"), GET, &[], b"").closes(),
        passed(get!("Connection: keep-alive", "Connection: close"), GET, &[], b"").closes(),
        passed(get!("Connection: x", "Connection: y", "Connection: z, CLOSE"), GET, &[], b"")
            .closes(),
        passed(get!("Connection: closed"), GET, &[], b""),
        passed(get!("Proxy-Connection: close"), GET, &[], b""),
        // Whom a message is for, and where it came from, is no hop's business.
        refused(get!("Connection: Host"), 400, "malformed_field"),
        refused(get!("Connection: close, Host"), 400, "malformed_field"),
        refused(
            get!("Connection: X-Forwarded-For, X-Forwarded-Proto, X-Request-Id"),
            400,
            "malformed_field",
        ),
        // Its own framing is a hop's business; what is passed on is framed anew.
        passed(
            post!("Content-Length: 5\r\nConnection: Content-Length", "hello"),
            "POST /a HTTP/1.1",
            &["transfer-encoding: chunked"],
            b"hello",
        ),
        passed(
            post!("Transfer-Encoding: chunked\r\nConnection: Transfer-Encoding", "0\r\n\r\n"),
            "POST /a HTTP/1.1",
            &["transfer-encoding: chunked"],
            b"",
        )
        .closes(),
        passed(get!("Connection: Authorization", "Authorization: Basic YTpi"), GET, &[], b""),
        passed(get!("Connection: Cookie", "Cookie: a=b"), GET, &[], b""),
    ];
    [&silent[..], &more].concat()
}

/// A field that the upstream does not get opens nothing.
fn judged() -> Vec<Case> {
    macro_rules! asks {
        ($($line:expr),* $(,)?) => {
            concat!("GET /approved HTTP/1.1\r\nHost: a\r\n", $($line, "\r\n",)* "\r\n").as_bytes()
        };
    }
    const ASKS: &str = "GET /approved HTTP/1.1";
    let approved: &[&str] = &["x-approved: yes"];
    let passing = [
        asks!("X-Approved: yes"),
        asks!("X-Approved: yes", "Connection: keep-alive"),
        asks!("X-Approved: yes", "Connection: x_approved, x-approve"),
    ]
    .map(|raw| passed(raw, ASKS, approved, b""));
    let refusals = [
        asks!(),
        asks!("X-Approved: yes", "Connection: x-approved"),
        asks!("Connection: X-APPROVED", "X-Approved: yes"),
        asks!("X-Approved: yes", "X-Approved: yes", "Connection: keep-alive, , x-approved\t"),
        asks!("X-Approved: yes", "Connection: keep-alive", "Connection: x, X-Approved"),
        asks!("Cookie: a=b", "Connection: cookie"),
        // A credential as well: it is the connection's, and no route's.
        asks!("X-API-Key: k", "Connection: x-api-key"),
    ]
    .map(|raw| kept(raw, 401, "no_credential"));
    let more = vec![
        refused(asks!("X-Approved: yes", "Connection: close, x-approved"), 401, "no_credential"),
        refused(
            asks!("X-Approved: yes", "Connection: Upgrade, x-approved", "Upgrade: websocket"),
            401,
            "no_credential",
        ),
        passed(asks!("Cookie: a=b"), ASKS, &["cookie: a=b"], b""),
        Case {
            status: 101,
            ..passed(
                b"GET /socket HTTP/1.1\r\nHost: a\r\nConnection: x, Upgrade, connection\r\nUpgrade: websocket\r\nX: y\r\n\r\n",
                SOCKET,
                WEBSOCKET,
                crate::case::FOLLOWER,
            )
            .closes()
        },
    ];
    [&passing[..], &refusals, &more].concat()
}

fn others() -> Vec<Case> {
    vec![
        passed(get!("TE: trailers"), GET, &[], b""),
        passed(get!("Trailer: X-Consumer-Id"), GET, &[], b""),
        passed(get!("Proxy-Authorization: Basic YTpi"), GET, &[], b""),
        passed(get!("Proxy-Authenticate: Basic"), GET, &[], b""),
        passed(get!("Max-Forwards: 0"), GET, &["max-forwards: 0"], b""),
        passed(
            b"OPTIONS /a HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n",
            "OPTIONS /a HTTP/1.1",
            &["max-forwards: 0"],
            b"",
        ),
        passed(get!("Expect: 100-continue"), GET, &["expect: 100-continue"], b""),
        passed(
            post!("Content-Length: 5\r\nExpect: 100-continue", "hello"),
            "POST /a HTTP/1.1",
            &["content-length: 5", "expect: 100-continue"],
            b"hello",
        ),
        passed(
            post!("Content-Length: 5\r\nExpect: 200-ok", "hello"),
            "POST /a HTTP/1.1",
            &["content-length: 5", "expect: 200-ok"],
            b"hello",
        ),
        passed(get!("Via: 1.1 evil"), GET, &["via: 1.1 evil"], b""),
        passed(
            get!("Content-Type: application/grpc"),
            GET,
            &["content-type: application/grpc"],
            b"",
        ),
    ]
}
