//! What programs that embed the gateway are promised: filters at three points, that can make it
//! stricter and never more open, and a process that lives as `gateway run` does.

use crate::support::gateway::{Builder, Folder, Gateway, NotStarted};
use crate::support::http2::Http2;
use crate::support::origin::{Behaviour, Origin, Reply};
use crate::support::raw::RawClient;
use datahub_gateway::filter::{Admitted, Answer, Filter, Flow, Refusal, Request, Response};
use datahub_gateway::http::{HeaderName, HeaderValue, StatusCode};
use hmac::{Hmac, KeyInit, Mac};
use std::process::Command;
use std::time::Duration;

/// The example, as a part of the program of these tests.
#[path = "../../examples/filter.rs"]
#[expect(dead_code, reason = "its `main` is not the program's")]
mod example;

/// What the program of these tests is asked to do; see [`the_program_of_these_tests`].
const CONF: &str = "IT_EMBEDDED_CONF";
const READY: &str = "IT_EMBEDDED_READY";
const FILTERS: &str = "IT_EMBEDDED_FILTERS";

/// Does what the request's `x-<name>` asks for: `<point>:<deed>`, such as `admitted:panic`. Tells the
/// upstream, and the client, at which points it was.
struct Awkward(&'static str);

/// The points at which it was asked.
#[derive(Default)]
struct Been {
    points: Vec<&'static str>,
    /// What the client wants of the response's point, whose head it does not see.
    wish: String,
}

impl Awkward {
    /// The rest of the wish for `point`.
    fn wish<'a>(&self, wishes: &'a str, point: &str) -> &'a str {
        wishes.strip_prefix(point).and_then(|rest| rest.strip_prefix(':')).unwrap_or("")
    }

    async fn obey(&self, deed: &str) -> Result<(), Refusal> {
        match deed {
            "refuse" => Err(Refusal::new(StatusCode::IM_A_TEAPOT, "asked")),
            "busy" => Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, "busy")
                .retry_after(Duration::from_secs(7))),
            "allow" => Err(Refusal::new(StatusCode::OK, "allowed")),
            "late" => {
                std::future::pending::<()>().await;
                Ok(())
            }
            "block" => {
                std::thread::sleep(Duration::from_millis(1300));
                Ok(())
            }
            "panic" => panic!("as it was asked to"),
            _ => Ok(()),
        }
    }

    fn name_of(&self, what: &str) -> HeaderName {
        HeaderName::try_from(format!("x-{what}-{}", self.0)).unwrap()
    }
}

impl Filter for Awkward {
    type State = Been;

    fn name(&self) -> &'static str {
        self.0
    }

    fn deadline(&self) -> Duration {
        Duration::from_secs(1)
    }

    async fn on_request(&self, request: &Request<'_>, been: &mut Been) -> Result<(), Refusal> {
        been.points.push("request");
        let wish = request.headers().get(format!("x-{}", self.0));
        been.wish = wish.map_or("", |wish| wish.to_str().unwrap()).to_owned();
        self.obey(self.wish(&been.wish, "request")).await
    }

    async fn on_admitted(
        &self,
        admitted: &mut Admitted<'_>,
        been: &mut Been,
    ) -> Result<Flow, Refusal> {
        been.points.push("admitted");
        let deed = self.wish(&been.wish, "admitted").to_owned();
        self.obey(&deed).await?;
        let value = HeaderValue::from_static;
        match deed.as_str() {
            "answer" => {
                let caller = admitted.caller();
                let body = format!(
                    "{} {} {:?} {} {} {:?}",
                    admitted.route(),
                    admitted.request().path(),
                    admitted.request().query(),
                    admitted.request().host(),
                    admitted.request().client(),
                    caller.map(|caller| (caller.username(), caller.plan())),
                );
                let answer = Answer::new(StatusCode::ACCEPTED)
                    .header(HeaderName::from_static("x-own"), value("yes"))?;
                return Ok(Flow::Answer(answer.body(body)));
            }
            // A body that these statuses do not have.
            "204" | "205" | "304" => {
                let status = StatusCode::from_bytes(deed.as_bytes()).unwrap();
                return Ok(Flow::Answer(Answer::new(status).body("HTTP/1.1 200 OK")));
            }
            // Each of these is refused, by the editor.
            "forge" => {
                for name in ["x-consumer-id", "x_consumer_plan", "host", "transfer-encoding"] {
                    let forged = admitted.set_header(HeaderName::from_static(name), value("no"));
                    assert_eq!(forged.unwrap_err().0, name);
                }
                admitted.remove_header(HeaderName::from_static("content-length"))?;
            }
            _ => {}
        }
        admitted.remove_header(HeaderName::from_static("cookie"))?;
        // Each adds itself to what those before it have left.
        let visited = HeaderName::from_static("x-visited");
        admitted.add_header(visited, HeaderValue::from_static(self.0))?;
        let points = HeaderValue::try_from(been.points.join(",")).unwrap();
        admitted.set_header(self.name_of("been"), points)?;
        Ok(Flow::Continue)
    }

    async fn on_response(
        &self,
        response: &mut Response<'_>,
        been: &mut Been,
    ) -> Result<(), Refusal> {
        been.points.push("response");
        self.obey(self.wish(&been.wish, "response")).await?;
        let visited = HeaderName::from_static("x-visited");
        response.add_header(visited, HeaderValue::from_static(self.0))?;
        let points = HeaderValue::try_from(been.points.join(",")).unwrap();
        response.set_header(self.name_of("been"), points)?;
        Ok(())
    }
}

/// A filter that has only a name, and a state that cannot be made.
struct Named(&'static str);

struct Unmade;

impl Default for Unmade {
    fn default() -> Self {
        panic!("no state is to be had")
    }
}

impl Filter for Named {
    type State = Unmade;

    fn name(&self) -> &'static str {
        self.0
    }
}

/// The program: this test binary once more, asked for this one test.
#[test]
fn the_program_of_these_tests() {
    let (Some(conf), Some(ready)) = (std::env::var_os(CONF), std::env::var_os(READY)) else {
        return;
    };
    let gateway = datahub_gateway::Gateway::builder();
    let gateway = match std::env::var(FILTERS).unwrap().as_str() {
        "example" => example::gateway().unwrap(),
        "awkward" => gateway.filter(Awkward("first")).filter(Awkward("second")),
        "unmade" => gateway.filter(Named("unmade")),
        "twice" => gateway.filter(Named("same")).filter(Named("same")),
        name => gateway.filter(Named(Box::leak(name.into()))),
    };
    match gateway.conf(conf).ready_file(ready).run() {
        Ok(code) => assert_eq!(code, std::process::ExitCode::SUCCESS),
        Err(error) => panic!("{error:#}"),
    }
}

async fn try_start(builder: Builder, filters: &str) -> Result<Gateway, NotStarted> {
    try_start_in(builder.folder(), filters).await
}

async fn try_start_in(folder: Folder, filters: &str) -> Result<Gateway, NotStarted> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "embedding::the_program_of_these_tests", "--nocapture"])
        .current_dir(folder.path())
        .env(CONF, folder.path().join("conf"))
        .env(READY, folder.ready_file())
        .env(FILTERS, filters)
        .env("JWT_SECRET", crate::support::gateway::JWT_SECRET);
    folder.try_start_by(&mut command).await
}

async fn start(builder: Builder, filters: &str) -> Gateway {
    match try_start(builder, filters).await {
        Ok(gateway) => gateway,
        Err(failed) => panic!("{}\n{}", failed.status, failed.stderr),
    }
}

fn before(origin: &Origin) -> Builder {
    Gateway::builder()
        .plan("basic", "1000/s")
        .plan("few", "2/h")
        .key("alice", "basic")
        .key("bob", "few")
        .upstream("u", &[origin.address()])
        .route("open", "path = '/open/*'\nauth = 'none'\nupstream = 'u'")
        .route("key", "path = '/key'\nauth = 'api_key'\nupstream = 'u'")
        .route("own", "path = '/own'\nauth = 'none'\nreply = { status = 200, body = 'own' }")
}

#[tokio::test]
async fn filters_see_a_request_at_three_points_and_keep_their_state_between_them() {
    let origin = Origin::start().await;
    let gateway = start(before(&origin), "awkward").await;
    let answer = gateway.get("/key").key("alice").header("cookie", "a=1").send().await;
    answer.expect_status(200);

    let head = origin.last().head;
    assert_eq!(head.headers("x-visited"), ["first", "second"], "in their order");
    assert_eq!(head.header("x-been-first").as_deref(), Some("request,admitted"));
    assert_eq!(head.header("x-been-second").as_deref(), Some("request,admitted"));
    assert_eq!(head.header("cookie"), None);
    let visited: Vec<_> = answer.headers.get_all("x-visited").iter().collect();
    assert_eq!(visited, ["second", "first"], "from the inside to the outside");
    answer.expect_header("x-been-first", "request,admitted,response");

    // The route's own reply is a response like another; what the gateway refuses is not.
    let own = gateway.get("/own").send().await;
    own.expect_status(200).expect_body("own");
    own.expect_header("x-been-second", "request,admitted,response");
    gateway.get("/nowhere").send().await.expect_status(404).expect_no_header("x-been-first");
    gateway.get("/health").send().await.expect_status(200).expect_no_header("x-been-first");
    gateway.metric_is("filter_duration_seconds_count", &[("filter", "first")], 7.0).await;
}

#[tokio::test]
async fn a_filter_refuses_at_each_point_in_its_own_words_and_nothing_goes_on() {
    let origin = Origin::start().await;
    let gateway = start(before(&origin), "awkward").await;
    for (n, point) in ["request", "admitted", "response"].into_iter().enumerate() {
        let wish = format!("{point}:refuse");
        let refused = gateway.get("/open/1").header("x-second", &wish).send().await;
        refused.expect_status(418).expect_code("filtered").expect_no_header("x-visited");
        let line = gateway.line_of(&refused).await;
        assert_eq!(
            (&line["reason"], &line["cause"]),
            (&"filtered".into(), &"filter/second/asked".into())
        );
        assert_eq!(origin.requests(), usize::from(n == 2), "{point}");
    }
    // A route's own reply is withheld like an upstream's response.
    let withheld = gateway.get("/own").header("x-first", "response:refuse").send().await;
    withheld.expect_status(418).expect_code("filtered");
    let busy = gateway.get("/open/1").header("x-first", "request:busy").send().await;
    busy.expect_status(429).expect_header("retry-after", "7");
    // It cannot open anything: neither by a status that allows, nor by coming before a check.
    let allowed = gateway.get("/open/1").header("x-first", "request:allow").send().await;
    allowed.expect_status(500).expect_code("filtered");
    gateway.get("/key").header("x-first", "admitted:answer").send().await.expect_status(401);
    assert_eq!(origin.requests(), 1);
    gateway.metric_is("filter_refusals_total", &[("filter", "second")], 3.0).await;
    gateway.metric_is("filter_refusals_total", &[("filter", "first")], 3.0).await;
}

#[tokio::test]
async fn a_filter_answers_only_what_was_admitted_and_the_limits_count_it() {
    let origin = Origin::start().await;
    let gateway = start(before(&origin), "awkward").await;
    let ask = || gateway.get("/key?a=1").host("API.example.com:80").key("bob");
    for _ in 0..2 {
        let answer = ask().header("x-first", "admitted:answer").send().await;
        answer.expect_status(202).expect_header("x-own", "yes");
        answer.expect_body(
            "key /key Some(\"a=1\") api.example.com 127.0.0.1 Some((\"bob\", \"few\"))",
        );
        assert!(answer.header("ratelimit").is_some(), "it is of its route");
        answer.expect_header("x-been-first", "request,admitted,response");
        answer.expect_header("x-been-second", "request,response");
    }
    ask().header("x-first", "admitted:answer").send().await.expect_status(429);
    assert_eq!(origin.requests(), 0);
    gateway.metric_is("filter_answers_total", &[("filter", "first")], 2.0).await;
}

#[tokio::test]
async fn an_answer_that_has_no_content_brings_none() {
    let origin = Origin::start().await;
    let gateway = start(before(&origin).tls_listener("secure"), "awkward").await;
    let mut http2 = Http2::connect(gateway.listener("secure"), &gateway.trust()).await;
    let mut client = RawClient::connect(gateway.address()).await;
    for (status, length) in [(204, None), (205, Some("0")), (304, None)] {
        let request = format!("GET /own HTTP/1.1\r\nHost: a\r\nX-First: admitted:{status}\r\n\r\n");
        let answer = client.exchange(request).await;
        assert_eq!(
            (answer.status(), answer.head.header("content-length").as_deref()),
            (status, length)
        );
        // What follows is the next response, and not a body.
        let own = client.exchange("GET /own HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!((own.status(), own.text().as_str()), (200, "own"), "after {status}");
        let answer = http2.get("/own", &[("x-first", &format!("admitted:{status}"))]).await;
        assert_eq!((answer.status, &*answer.body), (status, &b""[..]));
    }
}

#[tokio::test]
async fn a_filter_that_is_late_or_panics_ends_its_request_and_nothing_else() {
    let origin = Origin::start().await;
    let gateway = start(before(&origin), "awkward").await;
    for (deed, status, code, word) in [
        ("late", 503, "filtered", "deadline"),
        ("block", 503, "filtered", "deadline"),
        ("panic", 500, "internal", "panic"),
    ] {
        let end = async |point: &str| {
            let (wish, client) = (format!("{point}:{deed}"), gateway.client());
            let ended = client.get("/open/1").header("x-first", &wish).send().await;
            ended.expect_status(status).expect_code(code);
            let line = gateway.line_of(&ended).await;
            assert_eq!(line["cause"], format!("filter/first/{word}"), "{wish}");
        };
        tokio::join!(end("request"), end("admitted"), end("response"));
    }
    assert_eq!(origin.requests(), 3, "only the response's point comes after the upstream");
    let failures = |kind| [("filter", "first"), ("kind", kind)];
    gateway.metric_is("filter_failures_total", &failures("deadline"), 6.0).await;
    gateway.metric_is("filter_failures_total", &failures("panic"), 3.0).await;
    gateway.get("/open/1").send().await.expect_status(200);
    gateway.metric_is("requests_in_flight", &[], 0.0).await;
}

#[tokio::test]
async fn what_upstreams_must_believe_is_not_for_filters_to_change() {
    let origin = Origin::start().await;
    let gateway = start(before(&origin), "awkward").await;
    let defect = gateway.get("/open/1").header("x-first", "admitted:forge").send().await;
    defect.expect_status(500).expect_code("filtered");
    let line = gateway.line_of(&defect).await;
    assert_eq!(line["cause"], "filter/first/protected_header");
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn a_state_that_cannot_be_made_is_its_filters_panic() {
    let origin = Origin::start().await;
    let gateway = start(before(&origin), "unmade").await;
    gateway.get("/open/1").send().await.expect_status(500).expect_code("internal");
    gateway.get("/health").send().await.expect_status(200);
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn an_embedded_gateway_reloads_and_drains_as_the_program_does() {
    let origin = Origin::start().await;
    origin.answer(Behaviour::After(Duration::from_millis(500), Reply::text("late")));
    let mut gateway = start(before(&origin), "awkward").await;
    gateway.write_conf("more.toml", "[routes.more]\npath = '/more'\nauth = 'none'\nupstream = 'u'");
    assert_eq!(gateway.reload_and_wait().await.result, "success");
    let mut client = RawClient::connect(gateway.address()).await;
    client.send(b"GET /more HTTP/1.1\r\nHost: a\r\n\r\n").await;
    origin.reached(1).await;
    gateway.sigterm();
    let answer = client.response().await;
    assert_eq!((answer.status(), answer.head.header("x-been-first").is_some()), (200, true));
    assert!(gateway.wait_exit(Duration::from_secs(20)).await.success());
}

#[tokio::test]
async fn filters_that_metrics_could_not_tell_apart_do_not_start() {
    for (filters, message) in
        [("twice", "two filters are named `same`"), ("Bad name", "not `Bad name`")]
    {
        let origin = Origin::start().await;
        let failed = try_start(before(&origin), filters).await.err().expect("it does not start");
        assert!(failed.stderr.contains(message), "{}", failed.stderr);
    }
}

#[tokio::test]
async fn the_example_turns_away_signs_and_tidies() {
    let origin = Origin::start().await;
    let served = Reply::text("hello").header("server", "secret/1").header("x-powered-by", "luck");
    origin.answer(Behaviour::Answer(served));
    let secret = b"0123456789abcdef0123456789abcdef";
    let start = async |banned: &str| {
        let folder = before(&origin).toml("[http]\ntrusted_proxies = ['127.0.0.1/32']").folder();
        std::fs::write(folder.path().join("banned.txt"), banned).unwrap();
        std::fs::write(folder.path().join("signing.key"), secret).unwrap();
        try_start_in(folder, "example").await
    };
    let gateway = start("192.0.2.0/24\n2001:db8::7\n").await.unwrap_or_else(|failed| {
        panic!("the example did not start: {}\n{}", failed.status, failed.stderr)
    });
    for banned in ["192.0.2.77", "2001:db8::7"] {
        let refused = gateway.get("/open/1").header("x-forwarded-for", banned).send().await;
        refused.expect_status(403).expect_code("filtered");
        assert_eq!(gateway.line_of(&refused).await["cause"], "filter/partner/banned");
    }
    assert_eq!(origin.requests(), 0);
    let request = gateway.get("/key?page=2").key("alice").header("x-signature", "forged");
    let answer = request.header("x-forwarded-for", "192.0.3.1").send().await;
    answer.expect_status(200).expect_body("hello");
    answer.expect_no_header("server").expect_no_header("x-powered-by");

    let head = origin.last().head;
    let at = answer.header("x-signed-at").unwrap();
    let consumer = head.header("x-consumer-id").unwrap();
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret).unwrap();
    mac.update(format!("{at}\nGET\n/key?page=2\n{consumer}").as_bytes());
    let digest: String = mac.finalize().into_bytes().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(head.headers("x-signature"), [format!("t={at}, v1={digest}")]);

    let failed = start("nonsense\n").await.err().expect("it does not start");
    assert!(failed.stderr.contains("`nonsense` is not an address"), "{}", failed.stderr);
}
