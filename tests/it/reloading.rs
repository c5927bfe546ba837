//! A changed file takes effect without a restart and without costing a single request; a bad one
//! changes nothing.

use crate::support::client::Client;
use crate::support::eventually_async;
use crate::support::gateway::{Builder, Gateway};
use crate::support::load::{Load, Running};
use crate::support::origin::{Behaviour, Origin, Reply};
use crate::support::raw::RawClient;
use crate::support::tls::{self, Authority};
use std::time::Duration;

/// A fixed reply that names its revision.
fn reply(revision: usize) -> String {
    format!(
        "[routes.fixed]\npath = \"/fixed\"\nauth = \"none\"\n\
         reply = {{ status = 200, body = \"{revision}\" }}\n"
    )
}

fn replying() -> Builder {
    Gateway::builder().file("routes.toml", &reply(1))
}

/// Waits until clients see it.
async fn expect_in_force(gateway: &Gateway, body: &str) {
    eventually_async(&format!("the reply `{body}`"), async || {
        (gateway.get("/fixed").send().await.text() == body).then_some(())
    })
    .await;
}

#[tokio::test]
async fn every_way_to_save_a_file_is_noticed() {
    let gateway = replying().start().await;
    let path = gateway.folder().join("conf/routes.toml");
    // In place, as `cat >` does.
    std::fs::write(&path, reply(2)).unwrap();
    expect_in_force(&gateway, "2").await;
    // A new file renamed over the old one, as editors do.
    tls::replace(&path, &reply(3));
    expect_in_force(&gateway, "3").await;
    // Gone and there again.
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, reply(4)).unwrap();
    expect_in_force(&gateway, "4").await;
    // A file more, and one less.
    gateway.write_conf("more.toml", &reply(5).replace("fixed", "more"));
    eventually_async("the file more", async || {
        (gateway.get("/more").send().await.status == 200).then_some(())
    })
    .await;
    gateway.remove_conf("more.toml");
    eventually_async("the file less", async || {
        (gateway.get("/more").send().await.status == 404).then_some(())
    })
    .await;
    // What is no conf file is nobody's business.
    let before = gateway.metrics().await;
    std::fs::write(gateway.folder().join("conf/.routes.toml.swp"), "nonsense").unwrap();
    std::fs::write(gateway.folder().join("conf/notes.txt"), "nonsense").unwrap();
    let reloaded = gateway.reload_and_wait().await;
    assert_eq!(reloaded.result, "success");
    let count =
        |metrics: &crate::support::metrics::Metrics| metrics.sum("config_reloads_total", &[]);
    assert_eq!(count(&gateway.metrics().await), count(&before) + 1.0, "SIGHUP alone");
}

#[tokio::test]
async fn a_conf_folder_that_is_swapped_by_a_link_is_followed() {
    // As Kubernetes mounts a ConfigMap: conf/routes.toml -> ..data/routes.toml, ..data -> ..v1.
    let gateway = replying().start().await;
    let conf = gateway.folder().join("conf");
    let link = |target: &str, at: &str| {
        let new = conf.join(".new-link");
        std::os::unix::fs::symlink(target, &new).unwrap();
        std::fs::rename(new, conf.join(at)).unwrap();
    };
    for (version, revision) in [("..v1", 11), ("..v2", 12), ("..v3", 13)] {
        std::fs::create_dir(conf.join(version)).unwrap();
        std::fs::write(conf.join(version).join("routes.toml"), reply(revision)).unwrap();
        link(version, "..data");
        link("..data/routes.toml", "routes.toml");
        expect_in_force(&gateway, &revision.to_string()).await;
    }
}

#[tokio::test]
async fn sighup_reloads_and_says_whether_anything_changed() {
    let gateway = replying().start().await;
    let reloaded = gateway.reload_and_wait().await;
    assert_eq!((reloaded.result.as_str(), reloaded.revision), ("success", 1));
    gateway.stderr().containing("configuration is unchanged").await;
    gateway.write_conf("routes.toml", &reply(2));
    gateway.sighup();
    expect_in_force(&gateway, "2").await;
    gateway.metric_is("config_revision", &[], 2.0).await;
    gateway.stderr().containing("configuration is in force").await;
}

#[tokio::test]
async fn routes_plans_and_upstreams_change_for_the_next_request() {
    let (first, second) = (Origin::named("first").await, Origin::named("second").await);
    let conf = |upstream: &Origin, rate: &str, more: &str| {
        format!(
            "[upstreams.it]\nendpoints = [\"{}\"]\n\
             [plans.basic.limits.requests]\nrate = \"{rate}\"\n\
             [routes.open]\npath = \"/open/*\"\nauth = \"none\"\nupstream = \"it\"\n{more}\
             [routes.keyed]\npath = \"/keyed\"\nauth = \"api_key\"\nupstream = \"it\"\n",
            upstream.authority()
        )
    };
    let builder = Gateway::builder().file("parts.toml", &conf(&first, "2/h", ""));
    let gateway = builder.key("kim", "basic").start().await;
    let answered = async || {
        let answer = gateway.get("/open/x").send().await;
        answer.expect_status(200).header("x-origin").unwrap().to_owned()
    };
    assert_eq!(answered().await, "first");
    gateway.get("/keyed").key("kim").times(2).await.expect_status(200);
    gateway.get("/keyed").key("kim").send().await.expect_status(429);

    gateway.write_conf("parts.toml", &conf(&second, "2/h", "strip_prefix = \"/open\"\n"));
    assert_eq!(gateway.reload_and_wait().await.result, "success");
    assert_eq!(answered().await, "second");
    assert_eq!(second.last().head.target(), "/x");
    // Counters survive.
    gateway.get("/keyed").key("kim").send().await.expect_status(429);

    gateway.write_conf("parts.toml", &conf(&second, "1000/s", "").replace("/keyed", "/moved"));
    assert_eq!(gateway.reload_and_wait().await.result, "success");
    gateway.get("/keyed").send().await.expect_status(404);
    gateway.get("/moved").key("kim").times(20).await.expect_status(200);
}

#[tokio::test]
async fn a_request_ends_with_the_configuration_that_it_began_with() {
    let origin = Origin::start().await;
    origin.answer(Behaviour::After(Duration::from_secs(1), Reply::text("late")));
    let conf = |revision: usize| {
        format!(
            "{}[upstreams.it]\nendpoints = [\"{}\"]\n[routes.slow]\npath = \"/slow\"\n\
             auth = \"none\"\nupstream = \"it\"\n\
             response_headers = {{ set = {{ \"x-revision\" = \"{revision}\" }} }}\n",
            reply(revision),
            origin.authority()
        )
    };
    let gateway = Gateway::builder().file("routes.toml", &conf(1)).start().await;
    let client = gateway.client();
    let request = client.get("/slow").send();
    let change = async {
        origin.reached(1).await;
        // Without the route and without its upstream.
        gateway.write_conf("routes.toml", &reply(2));
        expect_in_force(&gateway, "2").await;
        gateway.client().get("/slow").send().await.expect_status(404);
    };
    let (answer, ()) = tokio::join!(request, change);
    answer.expect_status(200).expect_body("late").expect_header("x-revision", "1");
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_says_so_until_a_good_one_comes() {
    let gateway = replying().start().await;
    let good = reply(2);
    for (number, (bad, said)) in [
        (good.replace("\"none\"", "\"nobody\""), "nobody"),
        (good.replace("reply =", "reply"), "routes.toml:4:"),
        (format!("{good}upstream = \"nowhere\""), "nowhere"),
        (good.replace("auth = \"none\"", ""), "`auth`"),
    ]
    .into_iter()
    .enumerate()
    {
        let before = gateway.metrics().await;
        gateway.write_conf("routes.toml", &bad);
        let reloaded = gateway.reloaded_since(&before).await;
        let failed = reloaded.result.as_str();
        assert_eq!((failed, reloaded.revision), ("failure", number as u64 + 1), "{said}");
        gateway.metric_is("config_last_reload_successful", &[], 0.0).await;
        let line = gateway.stderr().containing(said).await;
        assert!(line.contains("the old one stays in force"), "{line}");
        let body = if number == 0 { "1".to_owned() } else { format!("{}", number * 10) };
        gateway.get("/fixed").times(3).await.expect_status(200);
        assert_eq!(gateway.get("/fixed").send().await.text(), body);
        // And a good one takes over.
        let next = (number + 1) * 10;
        gateway.write_conf("routes.toml", &reply(next));
        expect_in_force(&gateway, &next.to_string()).await;
        gateway.metric_is("config_last_reload_successful", &[], 1.0).await;
    }
}

#[tokio::test]
async fn a_file_that_a_refused_configuration_waits_for_takes_effect_when_it_comes() {
    let origin = Origin::start().await;
    let gateway = replying().start().await;
    let conf = format!(
        "{}[upstreams.it]\nendpoints = [\"{}\"]\n\
         [upstreams.it.tls]\nserver_name = \"it\"\nca = \"../tls/ca.pem\"\n",
        reply(2),
        origin.authority()
    );
    let before = gateway.metrics().await;
    gateway.write_conf("routes.toml", &conf);
    assert_eq!(gateway.reloaded_since(&before).await.result, "failure");
    // An unfinished copy does not end the wait.
    let ca = gateway.folder().join("tls/ca.pem");
    let before = gateway.metrics().await;
    std::fs::create_dir(ca.parent().unwrap()).unwrap();
    std::fs::write(&ca, "-----BEGIN").unwrap();
    assert_eq!(gateway.reloaded_since(&before).await.result, "failure");
    tls::replace(&ca, &Authority::new().pem());
    expect_in_force(&gateway, "2").await;
    gateway.metric_is("config_last_reload_successful", &[], 1.0).await;
}

#[tokio::test]
async fn what_is_fixed_at_the_start_is_refused_with_its_place() {
    let gateway = replying().start().await;
    let original = gateway.read_conf("gateway.toml");
    let changed = |find: &str, put: &str| {
        assert!(original.contains(find), "{original}");
        original.replace(find, put)
    };
    let free = "[listeners.public]\naddress = \"127.0.0.1:0\"";
    let cases = [
        (changed("workers = 2", "workers = 3"), "a change of `workers`"),
        (changed(free, "[listeners.public]\naddress = \"127.0.0.2:0\""), "listener `public`"),
        (changed("listeners.public", "listeners.other"), "the new listener `other`"),
        (format!("{original}[listeners.more]\naddress = \"127.0.0.1:0\"\n"), "listener `more`"),
        (changed("../data/gateway.db", "../data/other.db"), "a change of the store"),
        (changed("[admin]\naddress = \"127.0.0.1:0\"", "[admin]\naddress = \"off\""), "admin"),
    ];
    for (text, said) in cases {
        let before = gateway.metrics().await;
        gateway.write_conf("gateway.toml", &text);
        assert_eq!(gateway.reloaded_since(&before).await.result, "failure", "{said}");
        let line = gateway.stderr().containing(said).await;
        assert!(line.contains("needs a restart"), "{line}");
        assert!(line.contains("gateway.toml:"), "{line}");
        gateway.get("/fixed").send().await.expect_status(200).expect_body("1");
        let before = gateway.metrics().await;
        gateway.write_conf("gateway.toml", &original);
        assert_eq!(gateway.reloaded_since(&before).await.result, "success");
    }
}

/// Loads that see revisions, and when each was written and seen to be in force.
struct Watched {
    control: Running,
    loads: Vec<(&'static str, Running)>,
    written: Vec<Vec<Duration>>,
    confirmed: Vec<Vec<Duration>>,
}

impl Watched {
    fn start(gateway: &Gateway, origin: &Origin) -> Self {
        let plain = |path: &str| Load::on(gateway.address()).get(path).rate(40);
        let secure = Load::on(gateway.listener("secure")).get("/proxied").rate(40);
        let loads = vec![
            ("kept, fixed reply", plain("/fixed").start()),
            ("kept, proxied", plain("/proxied").start()),
            ("new connections, proxied", plain("/proxied").fresh().start()),
            ("http2, proxied", secure.http2(gateway.trust()).start()),
        ];
        let control = Load::on(origin.address()).rate(40).start();
        Self { control, loads, written: Vec::new(), confirmed: Vec::new() }
    }

    fn now(&self) -> Vec<Duration> {
        self.loads.iter().map(|(_, load)| load.elapsed()).collect()
    }

    async fn goes_on(&self, count: usize) {
        for (_, load) in &self.loads {
            load.goes_on(count).await;
        }
    }

    /// Every answer is that of a revision that was in force while the request was under way.
    async fn expect_right(self, from: &[Duration]) {
        let control = self.control.stop().await;
        for (index, (name, running)) in self.loads.into_iter().enumerate() {
            let summary = running.stop().await;
            summary.expect_only(200);
            for outcome in &summary.outcomes {
                let revision: usize = String::from_utf8_lossy(&outcome.body).parse().unwrap();
                // Revision 1 was in force from the start; n + 2 is at index n.
                let before = |times: &[Vec<Duration>], when: Duration| {
                    1 + times.iter().filter(|times| times[index] < when).count()
                };
                let least = before(&self.confirmed, outcome.at);
                let most = before(&self.written, outcome.at + outcome.latency);
                let right = (least..=most).contains(&revision);
                assert!(right, "{name}: {revision}, not {least} to {most}: {outcome:?}");
            }
            let before = summary.between(Duration::ZERO, from[index]).percentile(0.99);
            let during = summary.between(from[index], Duration::MAX);
            during.expect_p99(name, before, &control);
        }
    }
}

#[tokio::test]
async fn a_hundred_reloads_under_load_cost_nothing() {
    let origin = Origin::start().await;
    origin.decide(|head| {
        Behaviour::Answer(Reply::text(&head.header("x-revision").unwrap_or_default()))
    });
    let conf = |revision: usize| {
        format!(
            "{}[upstreams.it]\nendpoints = [\"{}\"]\n[routes.proxied]\npath = \"/proxied\"\n\
             auth = \"none\"\nupstream = \"it\"\n\
             request_headers = {{ set = {{ \"x-revision\" = \"{revision}\" }} }}\n",
            reply(revision),
            origin.authority()
        )
    };
    let builder = Gateway::builder().file("routes.toml", &conf(1)).tls_listener("secure");
    let gateway = builder.start().await;
    let mut watched = Watched::start(&gateway, &origin);
    watched.goes_on(100).await;
    let from = watched.now();
    for revision in 2..=101 {
        watched.written.push(watched.now());
        gateway.write_conf("routes.toml", &conf(revision));
        if revision % 2 == 0 {
            gateway.sighup();
        }
        expect_in_force(&gateway, &revision.to_string()).await;
        watched.confirmed.push(watched.now());
    }
    watched.goes_on(5).await;
    watched.expect_right(&from).await;
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.sum("config_revision", &[]), 101.0);
    assert_eq!(metrics.sum("config_reloads_total", &[("result", "failure")]), 0.0);
}

#[tokio::test]
async fn a_new_certificate_is_shown_to_new_handshakes_only() {
    let gateway = replying().tls_listener("secure").start().await;
    let address = gateway.listener("secure");
    let (old, new) = (gateway.authority(), Authority::new());
    let mut before = RawClient::connect_tls(address, &old.trust(), &[]).await;
    let get = "GET /fixed HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(before.exchange(get).await.status(), 200);
    let http2 = gateway.http2_client("secure");
    http2.get("/fixed").send().await.expect_status(200);

    let folder = gateway.folder().join("tls");
    new.issue(&[tls::NAME]).write(&folder);
    eventually_async("the new certificate", async || {
        new.trust().connect(address, &[]).await.is_ok().then_some(())
    })
    .await;
    assert!(old.trust().connect(address, &[]).await.is_err());
    Client::http2(address, new.trust()).get("/fixed").send().await.expect_status(200);
    assert_eq!(before.exchange(get).await.status(), 200);
    http2.get("/fixed").send().await.expect_status(200);

    // A broken one changes nothing.
    for (name, text) in [("chain.pem", "nonsense\n".to_owned()), ("key.pem", old.issue(&["a"]).key)]
    {
        let keep = std::fs::read_to_string(folder.join(name)).unwrap();
        let before = gateway.metrics().await;
        tls::write_private(&folder.join(name), &text);
        assert_eq!(gateway.reloaded_since(&before).await.result, "failure", "{name}");
        new.trust().connect(address, &[]).await.unwrap();
        let before = gateway.metrics().await;
        tls::write_private(&folder.join(name), &keep);
        assert_eq!(gateway.reloaded_since(&before).await.result, "success", "{name}");
    }
    let line = gateway.stderr().containing("of listener `secure` cannot be used").await;
    assert!(line.contains("stays in force"), "{line}");
    // Both files gone, and another pair in their places.
    std::fs::remove_file(folder.join("chain.pem")).unwrap();
    std::fs::remove_file(folder.join("key.pem")).unwrap();
    new.trust().connect(address, &[]).await.unwrap();
    old.issue(&[tls::NAME]).write(&folder);
    eventually_async("the third certificate", async || {
        old.trust().connect(address, &[]).await.is_ok().then_some(())
    })
    .await;
}
