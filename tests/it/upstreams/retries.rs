//! What is sent again, how often, and with which body.

use crate::support::gateway::Gateway;
use crate::support::origin::{Behaviour, Origin, Seen};
use crate::support::raw::RawClient;

/// What Pingora keeps of a body to send it again.
const KEPT: usize = 64 * 1024;
const STEADY: &str = "[ejection]\nfailures = 1000\n";

async fn three_that(behaviour: Behaviour) -> [Origin; 3] {
    let origins = [Origin::named("a").await, Origin::named("b").await, Origin::named("c").await];
    for origin in &origins {
        origin.answer(behaviour.clone());
    }
    origins
}

fn requests(origins: &[Origin]) -> usize {
    origins.iter().map(Origin::requests).sum()
}

#[tokio::test]
async fn nothing_is_tried_more_often_than_the_file_says() {
    let origins = three_that(Behaviour::Reset).await;
    let addresses = origins.each_ref().map(Origin::address);
    let mut lines = 0;
    for retries in [0, 1, 2] {
        let conf = format!("{STEADY}[retry]\nretries = {retries}");
        let gateway = Gateway::before(&addresses, &conf).start().await;
        for (method, tries) in [
            ("GET", 1 + retries),
            ("HEAD", 1 + retries),
            ("OPTIONS", 1 + retries),
            ("PUT", 1 + retries),
            ("DELETE", 1 + retries),
            ("POST", 1),
            ("PATCH", 1),
        ] {
            let before = requests(&origins);
            gateway.request(method, "/").send().await.expect_status(502);
            assert_eq!(requests(&origins) - before, tries, "{method}, {retries} retries");
            lines += 1;
            let line = gateway.access_log(lines).await.pop().unwrap();
            assert_eq!(line["tries"], tries, "{line}");
        }
        let metrics = gateway.metrics().await;
        let counted = metrics.sum("upstream_retries_total", &[("upstream", "orders")]);
        assert_eq!(counted, 5.0 * f64::from(u32::try_from(retries).unwrap()));
        lines = 0;
    }
}

#[tokio::test]
async fn no_request_goes_to_the_same_endpoint_twice() {
    let origins = three_that(Behaviour::Reset).await;
    let addresses = origins.each_ref().map(Origin::address);
    for balance in ["round_robin", "least_requests"] {
        let conf = format!("balance = '{balance}'\n{STEADY}[retry]\nretries = 2");
        let gateway = Gateway::before(&addresses, &conf).start().await;
        for _ in 0..10 {
            let before = origins.each_ref().map(Origin::requests);
            gateway.get("/").send().await.expect_status(502).expect_code("upstream_broken");
            for (origin, before) in origins.iter().zip(before) {
                assert_eq!(origin.requests(), before + 1);
            }
        }
    }
}

#[tokio::test]
async fn nothing_is_sent_again_once_a_part_of_the_response_is_with_the_client() {
    let origins = three_that(Behaviour::Half { promised: 10, sent: 5 }).await;
    let addresses = origins.each_ref().map(Origin::address);
    let conf = format!("{STEADY}[retry]\nretries = 2");
    let gateway = Gateway::before(&addresses, &conf).start().await;
    for method in ["GET", "PUT", "DELETE"] {
        let before = requests(&origins);
        assert!(gateway.request(method, "/").try_send().await.is_err());
        assert_eq!(requests(&origins), before + 1, "{method}");
    }
}

fn bodies(origins: &[&Origin]) -> Vec<Vec<u8>> {
    origins.iter().flat_map(|origin| origin.seen()).map(|Seen { body, .. }| body).collect()
}

#[tokio::test]
async fn a_body_is_sent_again_whole_up_to_64_kib() {
    let (bad, good) = (Origin::named("bad").await, Origin::named("good").await);
    bad.answer(Behaviour::Reset);
    good.answer(Behaviour::Echo);
    for size in [0, 1, 5_000, KEPT - 1, KEPT, KEPT + 1, 3 * KEPT] {
        let body: Vec<u8> = (0..size).map(|n| b'a' + u8::try_from(n % 26).unwrap()).collect();
        for chunked in [false, true] {
            // Both turns of the round robin. The limit counts what the client sent, once.
            let gateway = Gateway::before(&[bad.address(), good.address()], STEADY)
                .route("all", &format!("max_body = '{}B'", size.max(1)))
                .start()
                .await;
            for _ in 0..2 {
                let asked = (bad.requests(), good.requests());
                let (status, echoed) = put(&gateway, &body, chunked).await;
                let failed_first = bad.requests() > asked.0;
                if failed_first && size > KEPT {
                    assert_eq!((status, good.requests()), (502, asked.1), "{size} {chunked}");
                } else {
                    assert_eq!(status, 200, "{size} {chunked}");
                    assert!(echoed == body, "{size} {chunked}: {} came back", echoed.len());
                }
            }
        }
        assert!(bodies(&[&bad, &good]).iter().all(|sent| sent.len() <= size), "sent too much");
    }
    assert_eq!(bad.requests(), 7 * 2, "half of all first tries");
}

/// Sends a PUT as a whole, or in uneven chunks; status and body of the response.
async fn put(gateway: &Gateway, body: &[u8], chunked: bool) -> (u16, Vec<u8>) {
    let mut client = RawClient::connect(gateway.address()).await;
    let framing = if chunked {
        "Transfer-Encoding: chunked".to_owned()
    } else {
        format!("Content-Length: {}", body.len())
    };
    let head = format!("PUT / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n");
    let mut bytes = head.into_bytes();
    if chunked {
        for piece in body.chunks(7_001) {
            bytes.extend(format!("{:x}\r\n", piece.len()).as_bytes());
            bytes.extend(piece);
            bytes.extend(b"\r\n");
        }
        bytes.extend(b"0\r\n\r\n");
    } else {
        bytes.extend(body);
    }
    // A refusal may come before the end of the body.
    drop(client.try_send(bytes).await);
    let response = client.response().await;
    (response.status(), response.body)
}

#[tokio::test]
async fn a_body_over_the_limit_is_413_also_where_a_try_failed_before() {
    let (bad, good) = (Origin::named("bad").await, Origin::named("good").await);
    bad.answer(Behaviour::Reset);
    let gateway = Gateway::before(&[bad.address(), good.address()], STEADY)
        .route("all", "max_body = '1000B'")
        .start()
        .await;
    for _ in 0..4 {
        let (status, _) = put(&gateway, &[b'x'; 1001], true).await;
        assert_eq!(status, 413);
        let (status, _) = put(&gateway, &[b'x'; 1000], true).await;
        assert_eq!(status, 200);
    }
}

#[tokio::test]
async fn a_body_that_is_still_coming_goes_on_to_the_second_endpoint() {
    let (bad, good) = (Origin::named("bad").await, Origin::named("good").await);
    // Ends the connection as soon as the head is there.
    bad.answer(Behaviour::Freeze);
    good.answer(Behaviour::Echo);
    let conf = format!("{STEADY}[timeouts]\nper_try = '5s'");
    let gateway = Gateway::before(&[bad.address(), good.address()], &conf).start().await;
    let mut through_both = 0;
    for _ in 0..2 {
        let asked = (bad.requests(), good.requests());
        let mut client = RawClient::connect(gateway.address()).await;
        client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nfirst").await;
        crate::support::eventually("a request", || {
            (bad.requests() + good.requests() > asked.0 + asked.1).then_some(())
        })
        .await;
        if bad.requests() > asked.0 {
            bad.kill().await;
            through_both += 1;
        }
        good.reached(asked.1 + 1).await;
        client.send("other").await;
        let response = client.response().await;
        assert_eq!((response.status(), response.text().as_str()), (200, "firstother"));
    }
    assert_eq!(through_both, 1);
}
