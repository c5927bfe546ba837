//! Heads and their fields.

use crate::proxy::client::Client;
use crate::proxy::wire::{self, Body, HeadCaps};
use crate::telemetry::trace::TraceContext;
use http::{HeaderMap, HeaderValue};
use ipnet::{IpNet, Ipv4Net};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

const CAPS: HeadCaps = HeadCaps { bytes: 16 * 1024, fields: 64, target: 8 * 1024 };

/// A head that is accepted is read by another parser, field by field, as we read it; and there is no
/// doubt where its message ends.
pub fn head(data: &[u8]) -> bool {
    let Some(end) = wire::head_end(data, 0) else { return false };
    let head = data.get(..end).unwrap_or_default();
    assert!(head.ends_with(b"\r\n\r\n"));
    let Ok(body) = wire::check(head, CAPS) else { return false };
    let mut fields = [httparse::EMPTY_HEADER; CAPS.fields];
    let mut request = httparse::Request::new(&mut fields);
    let parsed = request.parse(head);
    assert_eq!(parsed, Ok(httparse::Status::Complete(end)), "{}", head.escape_ascii());

    let text = head.strip_suffix(b"\r\n\r\n").unwrap_or_default();
    // No byte but those between lines ends one.
    let mut lines = text.split(|&byte| byte == b'\n').map(|line| match line.last() {
        Some(b'\r') => line.get(..line.len() - 1).unwrap_or_default(),
        _ => line,
    });
    let first = lines.next().unwrap_or_default();
    let version = request.version.unwrap_or_default();
    let line = format!(
        "{} {} HTTP/1.{version}",
        request.method.unwrap_or_default(),
        request.path.unwrap_or_default(),
    );
    assert_eq!(line.as_bytes(), first, "the request line");
    assert!(version == 0 || version == 1);
    let mut framing = (0, 0, 0, 0_u64);
    for field in request.headers.iter() {
        let line = lines.next().unwrap_or_default();
        let (name, value) = line.split_at(field.name.len().min(line.len()));
        assert_eq!(name, field.name.as_bytes());
        let value = value.strip_prefix(b":").unwrap_or(b"no colon").trim_ascii();
        assert_eq!(value, field.value.trim_ascii(), "{}", field.name);
        match field.name.to_ascii_lowercase().as_str() {
            "host" => framing.0 += 1,
            "content-length" => {
                framing.1 += 1;
                let digits = std::str::from_utf8(value).unwrap_or_default();
                assert!(digits.bytes().all(|digit| digit.is_ascii_digit()), "{digits:?}");
                framing.3 = digits.parse().unwrap_or(u64::MAX);
            }
            "transfer-encoding" => {
                framing.2 += 1;
                assert!(value.eq_ignore_ascii_case(b"chunked"), "{}", value.escape_ascii());
            }
            _ => {}
        }
    }
    assert_eq!(lines.next(), None, "a line that the other parser does not see");
    let (hosts, lengths, encodings, length) = framing;
    assert!(hosts == 1 || (hosts == 0 && version == 0), "one host");
    assert!(lengths + encodings <= 1 && (encodings == 0 || version == 1), "one framing");
    match body {
        Body::None => assert!(encodings == 0 && length == 0),
        Body::Length(told) => assert!(lengths == 1 && told == length && length > 0),
        Body::Chunks => assert!(encodings == 1),
        Body::Unknown => {}
    }
    assert!(
        encodings == 0 || matches!(body, Body::Chunks | Body::Unknown),
        "chunks have no length"
    );
    true
}

/// Whose address a request has is never the client's own claim. The first byte chooses who is at the
/// other end; each further line is a field.
pub fn forwarded_for(data: &[u8]) -> bool {
    let Some((&first, rest)) = data.split_first() else { return false };
    let Ok(net) = Ipv4Net::new(Ipv4Addr::new(10, 0, 0, 0), 8) else { return false };
    let trusted = [IpNet::V4(net)];
    let believed = first & 1 == 1;
    let ip = IpAddr::V4(Ipv4Addr::new(if believed { 10 } else { 192 }, 0, 2, 7));
    let resolve = |lines: &[u8]| {
        let mut headers = HeaderMap::new();
        for line in lines.split(|&byte| byte == b'\n') {
            if let Ok(value) = HeaderValue::from_bytes(line) {
                headers.append("x-forwarded-for", value);
            }
        }
        Client::resolve(SocketAddr::new(ip, 80), &headers, &trusted)
    };
    let client = resolve(rest);
    assert_eq!(client.peer.ip(), ip);
    assert_eq!(client.trusted, believed);
    assert!(believed || client.address == ip, "a stranger spoke for another");
    assert_eq!(client.address, client.address.to_canonical());
    if believed && client.address != ip {
        let hop = |text: &[u8]| {
            let text = std::str::from_utf8(text).unwrap_or_default().trim();
            let bare = text.trim_start_matches('[').trim_end_matches(']');
            let with_port = text.parse().map(|address: SocketAddr| address.ip());
            bare.parse().or(with_port).map(|ip: IpAddr| ip.to_canonical())
        };
        let mut hops = rest.split(|byte| b",\n".contains(byte)).map(hop);
        assert!(hops.any(|hop| hop == Ok(client.address)), "an address from nowhere");
    }
    if believed && client.address != ip && !trusted.iter().any(|net| net.contains(&client.address))
    {
        // What a client has put further left, in the same field or in one before, says nothing.
        for claim in [&b"10.9.9.9, "[..], b"nonsense,", b"\xff,", b"203.0.113.66\n"] {
            let longer = [claim, rest].concat();
            assert_eq!(resolve(&longer).address, client.address, "{}", claim.escape_ascii());
        }
    }
    if believed && !rest.is_empty() && HeaderValue::from_bytes(last_line(rest)).is_ok() {
        // A proxy that we trust says where it had the request from, and is believed.
        let longer = [rest, b", 198.51.100.9, 10.1.1.1"].concat();
        assert_eq!(resolve(&longer).address.to_string(), "198.51.100.9");
    }
    client.address != ip
}

fn last_line(lines: &[u8]) -> &[u8] {
    lines.rsplit(|&byte| byte == b'\n').next().unwrap_or_default()
}

/// A trace that is resumed is the one that was named, and is named on in the standard's form.
pub fn traceparent(data: &[u8]) -> bool {
    let Some(trace) = TraceContext::resume(data) else { return false };
    let named = data.get(3..35).unwrap_or_default();
    assert_eq!(trace.trace_id().as_bytes(), named);
    assert_eq!(trace.parent_id().map(str::as_bytes), data.get(36..52));
    let hex = |text: &str| text.bytes().all(|byte| b"0123456789abcdef".contains(&byte));
    let some = |text: &str| text.bytes().any(|byte| byte != b'0');
    for id in [trace.trace_id(), trace.span_id(), trace.parent_id().unwrap_or_default()] {
        assert!(hex(id) && some(id), "{id}");
    }
    let told = trace.header_value();
    assert_eq!(told.len(), 55);
    let next = TraceContext::resume(told.as_bytes());
    let next = next.map(|next| (next.trace_id().to_owned(), next.parent_id().map(str::to_owned)));
    let expected = (trace.trace_id().to_owned(), Some(trace.span_id().to_owned()));
    assert_eq!(next, Some(expected));
    true
}
