//! From the command to the first answer, and what an operator is told when there is none.

use crate::support::client::Client;
use crate::support::gateway::{Builder, Gateway, NotStarted};
use crate::support::origin::Origin;
use crate::support::tls::Authority;
use std::net::{SocketAddr, TcpListener};

fn replying() -> Builder {
    let body = r#"
        path = "/*"
        auth = "none"
        reply = { status = 200, body = "here" }
    "#;
    Gateway::builder().route("all", body)
}

/// Its message, which has to say each of `parts`; it must have exited with 1.
#[track_caller]
fn expect_refused(started: Result<Gateway, NotStarted>, parts: &[&str]) {
    let Err(NotStarted { status, stderr }) = started else { panic!("it started: {parts:?}") };
    assert_eq!(status.code(), Some(1), "{stderr}");
    for part in parts {
        assert!(stderr.contains(part), "no `{part}` in\n{stderr}");
    }
    assert!(stderr.matches("(os error").count() <= 1, "a cause is told twice:\n{stderr}");
}

#[tokio::test]
async fn a_free_port_is_found_and_told_once_requests_are_answered() {
    for workers in [1, 2] {
        let listener = "[listeners.more]\naddress = \"[::1]:0\"";
        let gateway = replying().toml(&format!("workers = {workers}\n{listener}")).start().await;
        for name in ["public", "more"] {
            let address = gateway.listener(name);
            assert_ne!(address.port(), 0);
            Client::new(address).get("/").send().await.expect_status(200).expect_body("here");
            Client::new(address).get("/health").send().await.expect_status(200);
        }
        let admin = Client::new(gateway.admin());
        for path in ["/livez", "/readyz", "/metrics"] {
            admin.get(path).send().await.expect_status(200);
        }
    }
}

#[tokio::test]
async fn a_taken_port_ends_the_start_with_the_listener_and_a_way_out() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    for workers in [1, 2] {
        for (table, name) in [("listeners.public", "listener `public`"), ("admin", "`admin`")] {
            let toml = format!("workers = {workers}\n[{table}]\naddress = \"{address}\"");
            let started = replying().toml(&toml).try_start().await;
            let place = address.to_string();
            expect_refused(started, &[name, &place, "another process has this port"]);
        }
    }
}

#[tokio::test]
async fn a_second_gateway_does_not_share_the_port_of_the_first() {
    for workers in [1, 2] {
        let first = replying().start().await;
        let toml =
            format!("workers = {workers}\n[listeners.public]\naddress = \"{}\"", first.address());
        let second = replying().toml(&toml).try_start().await;
        expect_refused(second, &["listener `public`", "another process has this port"]);
        first.get("/").times(20).await.expect_status(200);
    }
}

#[tokio::test]
async fn an_address_that_the_machine_does_not_have_is_refused_with_a_way_out() {
    let toml = "[listeners.public]\naddress = \"203.0.113.1:0\"";
    let started = replying().toml(toml).try_start().await;
    expect_refused(started, &["listener `public`", "203.0.113.1:0", "0.0.0.0"]);
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_refused_with_its_place() {
    let other = Authority::new().issue(&["localhost"]);
    let broken = |body: &str| {
        let builder = replying().tls_listener("secure").file("chain.pem", "not a certificate\n");
        let builder = builder.file("other.pem", &other.chain).file("open.pem", &other.key);
        builder.toml(&format!("[listeners.secure.tls]\n{body}")).try_start()
    };
    let cases: [(&str, &[&str]); 5] = [
        ("certificate = \"nowhere.pem\"", &["nowhere.pem", "cannot be read"]),
        ("certificate = \"chain.pem\"", &["chain.pem", "BEGIN CERTIFICATE"]),
        ("certificate = \"other.pem\"", &["private key", "does not belong to the certificate"]),
        ("key = \"file:nowhere.pem\"", &["private key", "nowhere.pem"]),
        ("key = \"file:open.pem\"", &["private key", "open.pem", "chmod"]),
    ];
    for (body, parts) in cases {
        let started = broken(body).await;
        expect_refused(started, &[parts, &["listener `secure`", "gateway.toml:"]].concat());
    }
}

#[tokio::test]
async fn every_mistake_of_the_files_is_printed_before_the_start_is_given_up() {
    let files = r#"
        [routes.a]
        path = "/a"
        upstream = "nowhere"
        auth = "none"
        [routes.b]
        path = "/b"
        reply = { status = 200 }
        [htpp]
        max_head = "1KiB"
    "#;
    let started = replying().file("more.toml", files).try_start().await;
    expect_refused(
        started,
        &["upstream = \"nowhere\"", "`auth`", "htpp", "more.toml:4:", "3 errors"],
    );
}

#[tokio::test]
async fn a_store_that_cannot_be_had_is_refused_with_its_path() {
    let secrets = "it-only-pepper-it-only-pepper-it-only-pepper";
    let start = |path: &str| {
        let builder = replying().env("API_KEY_PEPPER", secrets);
        builder.toml(&format!("[store]\npath = \"{path}\"")).try_start()
    };
    // A folder in the way of a file, a file in the way of a folder, and no database.
    for (path, said) in [
        ("../data", "data"),
        ("gateway.toml/gateway.db", "conf/gateway.toml` for the store cannot be made"),
        ("gateway.toml", "conf/gateway.toml"),
    ] {
        expect_refused(start(path).await, &["store", said]);
    }
    // Secrets that nobody gave are to be kept beside it.
    let path = "[store]\npath = \"gateway.toml/gateway.db\"";
    let started = replying().toml(path).try_start().await;
    expect_refused(started, &["pepper", "cannot be written", "API_KEY_PEPPER"]);
}

#[tokio::test]
async fn the_health_check_of_a_container_tells_health_by_its_exit_code() {
    let gateway =
        replying().route("gone", "path = \"/gone\"\nauth = \"none\"\nreply = { status = 410 }");
    let gateway = gateway.start().await;
    let health = |address: SocketAddr, path: &str| {
        let url = format!("http://{address}{path}");
        let output = gateway.cli(&["healthcheck", "--url", &url]);
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(health(gateway.address(), "/health"), (Some(0), String::new()));
    assert_eq!(health(gateway.admin(), "/readyz").0, Some(0));
    let (code, said) = health(gateway.address(), "/gone");
    assert_eq!(code, Some(1));
    assert!(said.contains("/gone answered 410"), "{said}");
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (code, said) = health(nobody, "/health");
    assert_eq!(code, Some(1));
    assert!(said.contains("cannot be asked"), "{said}");
    let output = gateway.cli(&["healthcheck", "--url", "https://localhost/health"]);
    assert_eq!(output.status.code(), Some(1));
}

#[tokio::test]
async fn every_worker_serves() {
    for workers in [1, 2] {
        let origin = Origin::start().await;
        let gateway = Gateway::builder()
            .toml(&format!("workers = {workers}"))
            .upstream("origin", &[origin.address()])
            .route("all", "path = \"/*\"\nauth = \"none\"\nupstream = \"origin\"")
            .start()
            .await;
        for _ in 0..40 {
            gateway.client().get("/").send().await.expect_status(200);
        }
        // Each worker keeps a pool of its own, so one connection each is opened.
        assert_eq!(origin.connections(), workers);
    }
}
