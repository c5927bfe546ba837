//! What upstreams are told of where a request came from, and which request it is.

use crate::support::gateway::{Builder, Gateway};
use crate::support::origin::Origin;
use crate::support::wire::Head;

const OPEN: &str = "path = \"/*\"\nauth = \"none\"\nupstream = \"u\"";
const TRUSTING: &str = "[http]\ntrusted_proxies = [\"127.0.0.0/8\", \"10.0.0.0/8\"]";

fn before(origin: &Origin) -> Builder {
    Gateway::builder().tls_listener("secure").upstream("u", &[origin.address()]).route("open", OPEN)
}

fn is_uuid_v7(id: &str) -> bool {
    let lengths: Vec<_> = id.split('-').map(str::len).collect();
    let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-');
    lengths == [8, 4, 4, 4, 12] && id.bytes().all(hex) && id.as_bytes()[14] == b'7'
}

/// What a client claims of its way here.
const CLAIMS: [(&str, &str); 8] = [
    ("x-forwarded-for", "203.0.113.7, 10.0.0.1"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-host", "claimed.example.com"),
    ("x-forwarded-port", "8443"),
    ("x_forwarded_for", "203.0.113.7"),
    ("x_forwarded_proto", "https"),
    ("x-real-ip", "203.0.113.7"),
    ("forwarded", "for=203.0.113.7;proto=https"),
];

#[tokio::test]
async fn an_untrusted_peer_is_not_believed_where_it_came_from() {
    let origin = Origin::start().await;
    let gateway = before(&origin).start().await;
    let plain = gateway.address().port().to_string();
    let secure = gateway.listener("secure").port().to_string();
    for (client, proto, port) in
        [(gateway.client(), "http", &plain), (gateway.http2_client("secure"), "https", &secure)]
    {
        for claims in [&CLAIMS[..], &[]] {
            let request = client.get("/").host("api.example.com");
            let request = claims.iter().fold(request, |r, (name, value)| r.header(name, value));
            request.send().await.expect_status(200);
            let head = origin.last().head;
            let fields = head.text();
            assert_eq!(head.headers("x-forwarded-for"), ["127.0.0.1"], "{fields}");
            assert_eq!(head.headers("x-forwarded-proto"), [proto], "{fields}");
            assert_eq!(head.headers("x-forwarded-host"), ["api.example.com"], "{fields}");
            assert_eq!(head.headers("x-forwarded-port"), [port.as_str()], "{fields}");
            for name in ["x_forwarded_for", "x_forwarded_proto", "x-real-ip", "forwarded"] {
                assert_eq!(head.header(name), None, "{fields}");
            }
        }
    }
    let logged = gateway.access_log(4).await;
    assert!(logged.iter().all(|line| line["client"] == "127.0.0.1"), "{logged:?}");
}

#[tokio::test]
async fn a_trusted_peer_is_believed_and_added_to_the_list() {
    let origin = Origin::start().await;
    let gateway = before(&origin).toml(TRUSTING).start().await;
    let request = CLAIMS.iter().fold(gateway.get("/"), |r, (name, value)| r.header(name, value));
    request.send().await.expect_status(200);
    let head = origin.last().head;
    assert_eq!(head.headers("x-forwarded-for"), ["203.0.113.7, 10.0.0.1, 127.0.0.1"]);
    assert_eq!(head.headers("x-forwarded-proto"), ["https"]);
    // Load balancers do not set this one: what stands there is the client's word.
    assert_eq!(head.headers("x-forwarded-host"), [gateway.address().to_string()]);
    assert_eq!(head.headers("x-forwarded-port"), ["8443"]);
    // Even from a trusted proxy there is one spelling.
    assert_eq!(head.header("x_forwarded_for"), None);
    // The list may come in several fields.
    let several = gateway.get("/").header("x-forwarded-for", "198.51.100.1");
    several.header("x-forwarded-for", "10.0.0.2").send().await.expect_status(200);
    let head = origin.last().head;
    assert_eq!(head.headers("x-forwarded-for"), ["198.51.100.1, 10.0.0.2, 127.0.0.1"]);
    gateway.get("/").send().await.expect_status(200);
    assert_eq!(origin.last().head.headers("x-forwarded-for"), ["127.0.0.1"]);

    let logged = gateway.access_log(3).await;
    let clients: Vec<_> = logged.iter().map(|line| line["client"].as_str().unwrap()).collect();
    assert_eq!(clients, ["203.0.113.7", "198.51.100.1", "127.0.0.1"]);
}

#[tokio::test]
async fn a_request_has_one_id_for_client_upstream_and_log() {
    let origin = Origin::start().await;
    let gateway = before(&origin).start().await;
    let mut ids = Vec::new();
    for client in [gateway.client(), gateway.http2_client("secure")] {
        for target in ["/", "/health", "/%2F"] {
            // A claim of an untrusted peer, in two spellings.
            let request = client.get(target).header("x-request-id", "mine");
            let answer = request.header("x_request_id", "mine").send().await;
            let id = answer.header("x-request-id").unwrap().to_owned();
            assert!(is_uuid_v7(&id), "{id}");
            if target == "/" {
                let head = origin.last().head;
                assert_eq!(head.headers("x-request-id"), [&*id]);
                assert_eq!(head.header("x_request_id"), None);
            }
            ids.push(id);
        }
    }
    let logged = gateway.access_log(ids.len()).await;
    let mut logged: Vec<_> =
        logged.iter().map(|line| line["request_id"].as_str().unwrap().to_owned()).collect();
    logged.sort_unstable();
    logged.dedup();
    ids.sort_unstable();
    assert_eq!(logged, ids);
}

#[tokio::test]
async fn an_upstreams_own_request_id_is_not_shown() {
    use crate::support::origin::{Behaviour, Reply};
    let origin = Origin::start().await;
    origin.answer(Behaviour::Answer(Reply::text("ok").header("x-request-id", "theirs")));
    let gateway = before(&origin).start().await;
    let answer = gateway.get("/").send().await;
    let ids: Vec<_> = answer.headers.get_all("x-request-id").iter().collect();
    assert_eq!(ids.len(), 1);
    assert!(is_uuid_v7(ids[0].to_str().unwrap()));
}

#[tokio::test]
async fn a_trusted_peer_may_bring_an_id_that_is_safe_to_log() {
    let origin = Origin::start().await;
    let gateway = before(&origin).toml(TRUSTING).start().await;
    let longest = "a".repeat(64);
    for id in ["0198c6d2-7e3f-7abc-8def-0123456789ab", "A", &longest] {
        gateway.get("/").header("x-request-id", id).send().await.expect_header("x-request-id", id);
        assert_eq!(origin.last().head.headers("x-request-id"), [id]);
    }
    let too_long = "a".repeat(65);
    for id in ["", "a b", "a\"b", "a,b", &too_long] {
        let answer = gateway.get("/").header("x-request-id", id).send().await;
        let ours = answer.header("x-request-id").unwrap();
        assert!(is_uuid_v7(ours), "{id:?}: {ours}");
        assert_eq!(origin.last().head.headers("x-request-id"), [ours]);
    }
}

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

fn traceparent(head: &Head) -> Vec<String> {
    let values = head.headers("traceparent");
    assert_eq!(values.len(), 1, "{head:?}");
    values[0].split('-').map(str::to_owned).collect()
}

#[tokio::test]
async fn a_trace_is_continued_with_a_span_of_our_own() {
    let origin = Origin::start().await;
    let gateway = before(&origin).start().await;
    for flags in ["00", "01"] {
        let parent = format!("00-{TRACE}-{PARENT}-{flags}");
        let request = gateway.get("/").header("traceparent", &parent);
        let request = request.header("tracestate", "a=1,b=2").header("tracestate", "c=3");
        request.send().await.expect_status(200);
        let head = origin.last().head;
        let [version, trace, span, sent_flags] = &traceparent(&head)[..] else {
            panic!("{head:?}")
        };
        assert_eq!((version.as_str(), trace.as_str(), sent_flags.as_str()), ("00", TRACE, flags));
        assert!(span != PARENT && span.len() == 16, "{span}");
        assert_eq!(head.headers("tracestate").join(","), "a=1,b=2,c=3");
    }
    let logged = gateway.access_log(2).await;
    assert!(logged.iter().all(|line| line["trace_id"] == TRACE), "{logged:?}");
    let span = traceparent(&origin.last().head)[2].clone();
    assert_eq!(logged[1]["span_id"], span);
}

#[tokio::test]
async fn a_trace_that_is_not_valid_is_begun_anew_without_its_state() {
    let origin = Origin::start().await;
    let gateway = before(&origin).start().await;
    let valid = format!("00-{TRACE}-{PARENT}-01");
    let cases: Vec<Vec<String>> = vec![
        vec![],
        vec!["nonsense".into()],
        vec![format!("ff-{TRACE}-{PARENT}-01")],
        vec![format!("00-{TRACE}-{PARENT}-01-more")],
        vec![format!("00-{}-{PARENT}-01", "0".repeat(32))],
        vec![format!("00-{TRACE}-{}-01", "0".repeat(16))],
        vec![format!("00-{}-{PARENT}-01", TRACE.to_uppercase())],
        vec![valid.clone(), valid.clone()],
        vec![valid.clone(), format!("00-{TRACE}-{}-01", "1".repeat(16))],
    ];
    let mut traces = Vec::new();
    for parents in &cases {
        let request = gateway.get("/").header("tracestate", "a=1");
        let request = parents.iter().fold(request, |r, value| r.header("traceparent", value));
        request.send().await.expect_status(200);
        let head = origin.last().head;
        let [_, trace, span, _] = &traceparent(&head)[..] else { panic!("{head:?}") };
        assert!(trace != TRACE && trace.len() == 32 && span.len() == 16, "{parents:?}");
        assert_eq!(head.header("tracestate"), None, "{parents:?}");
        traces.push(trace.clone());
    }
    let logged = gateway.access_log(cases.len()).await;
    let logged: Vec<_> = logged.iter().map(|line| line["trace_id"].as_str().unwrap()).collect();
    assert_eq!(logged, traces);
    traces.sort_unstable();
    traces.dedup();
    assert_eq!(traces.len(), cases.len());
}

#[tokio::test]
async fn the_load_balancers_trace_id_is_passed_on_and_logged() {
    let origin = Origin::start().await;
    let gateway = before(&origin).start().await;
    let id = "Self=1-67891234-12456789abcdef012345678;Root=1-67891233-abcdef012345678912345678";
    gateway.get("/").header("x-amzn-trace-id", id).send().await.expect_status(200);
    assert_eq!(origin.last().head.headers("x-amzn-trace-id"), [id]);
    assert_eq!(gateway.access_log(1).await[0]["amzn_trace_id"], id);
}
