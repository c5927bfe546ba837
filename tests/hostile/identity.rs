//! Names that only the gateway may say, from somebody who says them.

use crate::case::{Case, get, passed};

const GET: &str = "GET /a HTTP/1.1";

#[expect(clippy::too_many_lines, reason = "a table")]
pub(crate) fn rows() -> Vec<Case> {
    // Removed in any spelling; where the gateway has something to say, the row's check of its own
    // words shows that they are the only ones.
    let gone = [
        get!("X-Consumer-Id: admin"),
        get!("x-consumer-id: admin"),
        get!("X-CONSUMER-ID: admin"),
        get!("X_Consumer_Id: admin"),
        get!("X-Consumer_Id: admin"),
        get!("x_consumer-id: admin"),
        get!("X-Consumer-ID: admin", "X-Consumer-Id: root"),
        get!("X-Consumer-Id:"),
        get!("X-Consumer-Username: admin"),
        get!("X-Consumer-Custom-ID: 1"),
        get!("X-Consumer-Plan: unlimited"),
        get!("X_Consumer_Plan: unlimited"),
        get!("X-Consumer-Groups: admins"),
        get!("X-Consumer-Anything: x"),
        get!("X-Credential-Identifier: x"),
        get!("X-Credential-Anything: x"),
        get!("X-Authenticated-Userid: admin"),
        get!("X-Authenticated-Scope: all"),
        get!("x_authenticated_scope: all"),
        get!("X-Anonymous-Consumer: false"),
        get!("X_Anonymous_Consumer: false"),
        get!("X-Anonymous-Consumer: true", "X-Anonymous-Consumer: false"),
        get!("X-Forwarded-For: 6.6.6.6"),
        get!("X-Forwarded-For: 127.0.0.1", "X-Forwarded-For: 6.6.6.6"),
        get!("x_forwarded_for: 6.6.6.6"),
        get!("X-Forwarded_For: 6.6.6.6"),
        get!("X-Forwarded-Proto: https"),
        get!("X_Forwarded_Proto: https"),
        get!("X-Forwarded-Host: inner.test"),
        get!("X_Forwarded_Host: inner.test"),
        get!("X-Forwarded-Port: 443"),
        get!("X_Forwarded_Port: 443"),
        get!("X-Real-IP: 6.6.6.6"),
        get!("x_real_ip: 6.6.6.6"),
        get!("Forwarded: for=6.6.6.6;host=inner.test;proto=https"),
        get!("X-Request-Id: mine"),
        get!("X_Request_Id: mine"),
        get!("X-Request-Id: a", "X-Request-Id: b"),
        get!("X-Request-Id: {\"json\":\"x\"}"),
        get!("traceparent: 00-zz-zz-01"),
        get!("traceparent: x", "tracestate: a=1"),
        get!("Content_Length: 5"),
        get!("Transfer_Encoding: chunked"),
    ]
    .map(|raw| passed(raw, GET, &[], b""));
    // Near misses are other names, and nobody reads them as ours.
    let other = [
        passed(get!("X-ConsumerId: admin"), GET, &["x-consumerid: admin"], b""),
        passed(get!("XX-Consumer-Id: admin"), GET, &["xx-consumer-id: admin"], b""),
        passed(get!("Consumer-Id: admin"), GET, &["consumer-id: admin"], b""),
        passed(get!("X-Client-IP: 6.6.6.6"), GET, &["x-client-ip: 6.6.6.6"], b""),
        passed(get!("True-Client-IP: 6.6.6.6"), GET, &["true-client-ip: 6.6.6.6"], b""),
        passed(get!("X-Forwarded-Server: x"), GET, &["x-forwarded-server: x"], b""),
        passed(
            get!("Authorization: Basic YWRtaW46YWRtaW4="),
            GET,
            &["authorization: Basic YWRtaW46YWRtaW4="],
            b"",
        ),
    ];
    let torn = [
        get!("X-Consumer-Id : admin"),
        get!("X-Consumer-Id\x00: admin"),
        get!(" X-Consumer-Id: admin"),
        get!("X: y", "\tX-Consumer-Id: admin"),
        get!("X-Consumer\u{2010}Id: admin"),
        get!("X-Consumer Id: admin"),
        get!("X: y\rX-Consumer-Id: admin"),
    ]
    .map(|raw| crate::case::refused(raw, 400, "malformed_field"));
    gone.into_iter().chain(other).chain(torn).collect()
}
