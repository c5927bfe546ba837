//! Clients that say who they are by a certificate: who is let in, who is told what, and what ends a
//! connection, a session or an identity.

use crate::support::client::Client;
use crate::support::eventually_async;
use crate::support::gateway::{Builder, Gateway, succeed};
use crate::support::origin::Origin;
use crate::support::raw::RawClient;
use crate::support::tls::{self, Authority, Issued, Trust};
use rcgen::string::{BmpString, Ia5String};
use rcgen::{CertificateParams, DnType, DnValue, ExtendedKeyUsagePurpose, SanType, date_time_ymd};
use rustls::version::{TLS12, TLS13};
use rustls::{HandshakeKind, SupportedProtocolVersion};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::path::PathBuf;
use std::time::Duration;

/// A folder with what the listener `secure` believes, and the one whom it believes.
struct Clients {
    authority: Authority,
    folder: tempfile::TempDir,
}

impl Clients {
    fn new() -> Self {
        let clients = Self { authority: Authority::new(), folder: tempfile::tempdir().unwrap() };
        clients.believe(&[&clients.authority]);
        clients
    }

    fn bundle(&self) -> PathBuf {
        self.folder.path().join("clients.pem")
    }

    fn lists(&self) -> PathBuf {
        self.folder.path().join("clients.crl")
    }

    fn believe(&self, authorities: &[&Authority]) {
        let pems: String = authorities.iter().map(|authority| authority.pem()).collect();
        tls::replace(&self.bundle(), &pems);
    }

    /// A gateway before `origin` that asks for certificates of the authority.
    fn gateway(&self, origin: &Origin) -> Builder {
        let route = |auth: &str| format!("auth = {auth}\nupstream = \"u\"");
        let builder = Gateway::builder().tls_listener("secure").toml(&format!(
            "[listeners.secure.tls]\nclient_ca = {:?}\n[plans.basic]\n[plans.guest]\n",
            self.bundle()
        ));
        [
            ("open", "\"none\""),
            ("mtls", "\"mtls\""),
            ("key", "\"api_key\""),
            ("any", "[\"mtls\", \"api_key\", \"jwt\"]"),
        ]
        .into_iter()
        .fold(builder.upstream("u", &[origin.address()]), |builder, (name, auth)| {
            builder.route(name, &format!("path = \"/{name}/*\"\n{}", route(auth)))
        })
    }

    /// The same, where the store knows `alice`.
    async fn before(&self, origin: &Origin) -> Gateway {
        self.gateway(origin).key("alice", "basic").start().await
    }
}

/// Both protocols, with this certificate or none.
fn both(gateway: &Gateway, shown: Option<&Issued>) -> [Client; 2] {
    let trust = shown.map_or_else(|| gateway.trust(), |shown| gateway.trust().showing(shown));
    let address = gateway.listener("secure");
    [Client::tls(address, trust.clone()), Client::http2(address, trust)]
}

fn http1(gateway: &Gateway, shown: &Issued) -> Client {
    Client::tls(gateway.listener("secure"), gateway.trust().showing(shown))
}

fn fingerprint(issued: &Issued) -> String {
    Sha256::digest(&issued.certificates()[0]).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn named(name: &str) -> impl Fn(&mut CertificateParams) {
    move |params| params.distinguished_name.push(DnType::CommonName, name)
}

/// Whether the gateway lets this client finish its handshake and answers it.
async fn is_let_in(
    gateway: &Gateway,
    trust: &Trust,
    version: &'static SupportedProtocolVersion,
) -> bool {
    let config = trust.config(&["http/1.1"], &[version]);
    // With TLS 1.3 the client is done before its certificate is looked at.
    let Ok(stream) = trust.connect_with(gateway.listener("secure"), config).await else {
        return false;
    };
    let mut client = RawClient::over(stream);
    let sent =
        client.try_send("GET /open/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    sent.is_ok() && client.try_some().await.is_ok_and(|bytes| bytes.starts_with(b"HTTP/1.1 200"))
}

#[tokio::test]
async fn a_certificate_opens_the_routes_that_take_it_and_the_upstream_is_told_who_it_is() {
    let (origin, clients) = (Origin::start().await, Clients::new());
    let gateway = clients.before(&origin).await;
    let alice = clients.authority.client("alice");
    let mut asked = 0;
    for client in both(&gateway, Some(&alice)) {
        for path in ["/mtls/x", "/any/x"] {
            let request = client.get(path);
            let forged = ["X-Consumer-Username", "X-Credential-Identifier", "Client-Cert"];
            let forged = [&forged[..], &["X-Forwarded-Client-Cert", "X_SSL_Client_S_DN"]].concat();
            let request =
                forged.iter().fold(request, |request, name| request.header(name, "forged"));
            request.send().await.expect_status(200);
            asked += 1;
            let seen = origin.last().head;
            assert_eq!(seen.headers("x-consumer-username"), ["alice"]);
            assert_eq!(seen.headers("x-consumer-plan"), ["basic"]);
            assert_eq!(seen.headers("x-credential-identifier"), [fingerprint(&alice)]);
            assert!(!seen.text().contains("forged"), "{seen:?}");
        }
        client.get("/open/x").send().await.expect_status(200);
        assert_eq!(origin.last().head.headers("x-anonymous-consumer"), ["true"]);
        client.get("/key/x").send().await.expect_status(401).expect_code("no_credential");
        asked += 2;
    }
    let lines = gateway.access_log(asked).await;
    let said = format!("mtls:{}/alice", fingerprint(&alice));
    let with = lines.iter().filter(|line| line["credential"] == json!(said)).count();
    assert_eq!(with, 4, "{lines:?}");
}

#[tokio::test]
async fn who_shows_no_certificate_can_use_what_takes_none() {
    let (origin, clients) = (Origin::start().await, Clients::new());
    let gateway = clients.before(&origin).await;
    for client in both(&gateway, None) {
        client.get("/open/x").send().await.expect_status(200);
        let refused = client.get("/mtls/x").send().await;
        refused.expect_status(401).expect_code("no_credential");
        refused.expect_header("www-authenticate", "Certificate realm=\"datahub\"");
    }
    // In plain text nobody can have one.
    gateway.get("/mtls/x").send().await.expect_status(401).expect_code("no_credential");
    assert_eq!(origin.requests(), 2);
}

#[tokio::test]
async fn what_a_request_says_goes_before_what_its_connection_says() {
    let (origin, clients) = (Origin::start().await, Clients::new());
    let gateway = clients.gateway(&origin).key("alice", "basic").key("bob", "basic").start().await;
    let alice = clients.authority.client("alice");
    let (key, token) = (gateway.key("bob"), gateway.token("bob"));
    for client in both(&gateway, Some(&alice)) {
        for request in [client.get("/any/x").key(&key), client.get("/any/x").bearer(&token)] {
            request.send().await.expect_status(200);
            assert_eq!(origin.last().head.headers("x-consumer-username"), ["bob"]);
        }
        let bad = client.get("/any/x").key("dh_live_nonsense").send().await;
        bad.expect_status(401).expect_code("invalid_key");
        client.get("/any/x").bearer("a.b.c").send().await.expect_code("invalid_token");
        // A key is no credential where none is taken.
        client.get("/mtls/x").key(&key).send().await.expect_status(200);
        assert_eq!(origin.last().head.headers("x-consumer-username"), ["alice"]);
    }
}

#[tokio::test]
async fn a_certificate_that_does_not_verify_ends_the_handshake() {
    let (origin, clients) = (Origin::start().await, Clients::new());
    let (ours, second) = (&clients.authority, clients.authority.intermediate());
    let good = ours.client("alice");
    let behind = second.client("alice");
    let lonely = Issued {
        chain: behind
            .chain
            .split_inclusive("-----END CERTIFICATE-----\n")
            .next()
            .unwrap()
            .to_owned(),
        ..behind.clone()
    };
    let long_ago = |params: &mut CertificateParams| {
        named("alice")(params);
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    };
    let far_away = |params: &mut CertificateParams| {
        named("alice")(params);
        params.not_before = date_time_ymd(2090, 1, 1);
        params.not_after = date_time_ymd(2091, 1, 1);
    };
    let of_servers = |params: &mut CertificateParams| {
        named("alice")(params);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    };
    let table = [
        ("good", good.clone(), true),
        ("behind another authority", behind, true),
        ("without that authority", lonely, false),
        ("signed by itself", Issued::by_itself(named("alice")), false),
        ("of another authority of the same name", Authority::new().client("alice"), false),
        ("ended", ours.client_with(long_ago), false),
        ("not begun", ours.client_with(far_away), false),
        ("of a server", ours.client_with(of_servers), false),
    ];
    for mode in ["optional", "required"] {
        let body = format!("[listeners.secure.tls]\nclient_certificate = {mode:?}");
        let gateway = clients.gateway(&origin).toml(&body).start().await;
        let mut refused = 0.0;
        for version in [&TLS12, &TLS13] {
            for (what, shown, expected) in &table {
                let let_in = is_let_in(&gateway, &gateway.trust().showing(shown), version).await;
                assert_eq!(let_in, *expected, "{mode}: {what}");
                refused += if *expected { 0.0 } else { 1.0 };
            }
            let without = is_let_in(&gateway, &gateway.trust(), version).await;
            assert_eq!(without, mode == "optional", "{mode}: without");
            refused += if without { 0.0 } else { 1.0 };
        }
        gateway.metric_is("tls_handshakes_failed_total", &[], refused).await;
        gateway
            .metric_is("tls_handshakes_failed_total", &[("reason", "certificate")], refused)
            .await;
        let told = gateway.stderr().containing("a TLS handshake has failed").await;
        assert!(told.contains("127.0.0.1") && told.contains("certificate"), "{told}");
        assert!(is_let_in(&gateway, &gateway.trust().showing(&good), &TLS13).await);
    }
}

#[tokio::test]
async fn a_certificate_that_names_nobody_clearly_is_refused() {
    let (origin, clients) = (Origin::start().await, Clients::new());
    let gateway =
        clients.gateway(&origin).toml("[auth.mtls]\ndefault_plan = \"guest\"").start().await;
    let common = |name: DnValue| {
        clients.authority.client_with(|params| {
            params.distinguished_name.push(DnType::CommonName, name);
        })
    };
    let two = clients.authority.client_with(|params| {
        named("alice")(params);
        params.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 3]), "bob");
    });
    let nobody = clients.authority.client_with(|params| {
        params.distinguished_name.push(DnType::OrganizationName, "alice");
    });
    let wide = BmpString::try_from("alice").unwrap();
    let table = [
        ("no common name", nobody),
        ("two of them", two),
        ("empty", common("".into())),
        ("NUL", common("alice\0.evil".into())),
        ("a line break", common("alice\r\nX-Admin: 1".into())),
        ("a tab", common("al\tice".into())),
        ("a space before it", common(" alice".into())),
        ("other than ASCII", common("alicé".into())),
        ("of two bytes each", common(DnValue::BmpString(wide))),
        ("long", common("a".repeat(257).into())),
        ("longer", common("a".repeat(5000).into())),
    ];
    for (what, shown) in &table {
        let refused = http1(&gateway, shown).get("/mtls/x").send().await;
        refused.expect_status(401).expect_code("invalid_certificate");
        assert_eq!(refused.header("www-authenticate"), Some("Certificate realm=\"datahub\""));
        assert!(!refused.text().contains("alice"), "{what}");
    }
    assert_eq!(origin.requests(), 0);
    let lines = gateway.access_log(table.len()).await;
    assert!(lines.iter().all(|line| line["cause"] == json!("no_usable_subject")), "{lines:?}");
    // As long as a name may be, and with a space in it.
    for name in ["a".repeat(256), "alice of the north".to_owned()] {
        http1(&gateway, &common(name.as_str().into()))
            .get("/mtls/x")
            .send()
            .await
            .expect_status(200);
        assert_eq!(origin.last().head.headers("x-consumer-username"), [name]);
    }
}

#[tokio::test]
async fn another_part_of_a_certificate_can_name_the_consumer() {
    let (origin, clients) = (Origin::start().await, Clients::new());
    let text = |text: &str| Ia5String::try_from(text).unwrap();
    let full = clients.authority.client_with(|params| {
        named("common")(params);
        params.subject_alt_names = vec![
            SanType::IpAddress([127, 0, 0, 1].into()),
            SanType::Rfc822Name(text("alice@example.com")),
            SanType::URI(text("spiffe://example.com/alice")),
            SanType::DnsName(text("alice.example.com")),
            SanType::DnsName(text("bob.example.com")),
        ];
    });
    let bare = clients.authority.client("alice.example.com");
    for (part, name) in [
        ("common_name", "common"),
        ("dns", "alice.example.com"),
        ("uri", "spiffe://example.com/alice"),
        ("email", "alice@example.com"),
    ] {
        let body = format!("[auth.mtls]\nsubject = {part:?}");
        let gateway = clients.gateway(&origin).toml(&body).key(name, "basic").start().await;
        http1(&gateway, &full).get("/mtls/x").send().await.expect_status(200);
        assert_eq!(origin.last().head.headers("x-consumer-username"), [name]);
        let without = http1(&gateway, &bare).get("/mtls/x").send().await;
        without.expect_status(401).expect_code("invalid_certificate");
    }
}

#[tokio::test]
async fn whom_the_store_does_not_know_is_refused_unless_there_is_a_plan_for_strangers() {
    let (origin, clients) = (Origin::start().await, Clients::new());
    let gateway = clients.before(&origin).await;
    let mallory = clients.authority.client("mallory");
    let strict = http1(&gateway, &mallory).get("/mtls/x").send().await;
    strict.expect_status(401).expect_code("invalid_certificate");
    assert_eq!(gateway.access_log(1).await[0]["cause"], json!("unknown"));
    let body = "[auth.mtls]\ndefault_plan = \"guest\"\n[plans.guest.limits.few]\nrate = \"1/min\"\nburst = 2";
    let lenient = clients.gateway(&origin).toml(body).start().await;
    for client in both(&lenient, Some(&mallory)) {
        client.get("/mtls/x").send().await.expect_status(200);
        let seen = origin.last().head;
        assert_eq!(seen.headers("x-consumer-id"), ["mtls:mallory"]);
        assert_eq!(seen.headers("x-consumer-plan"), ["guest"]);
    }
    // A new certificate is no new start.
    let renewed = clients.authority.client("mallory");
    http1(&lenient, &renewed).get("/mtls/x").send().await.expect_status(429);
}

#[tokio::test]
async fn an_identity_ends_on_an_open_connection_when_its_consumer_or_subject_is_taken_back() {
    let (origin, clients) = (Origin::start().await, Clients::new());
    let gateway = clients.before(&origin).await;
    let alice = clients.authority.client("alice");
    let [http1, http2] = both(&gateway, Some(&alice));
    let becomes = async |status: u16| {
        for client in [&http1, &http2] {
            eventually_async("the change to be in effect", async || {
                (client.get("/mtls/x").send().await.status == status).then_some(())
            })
            .await;
        }
    };
    becomes(200).await;
    succeed(&gateway.cli(&["consumers", "disable", "alice"]));
    becomes(401).await;
    succeed(&gateway.cli(&["consumers", "enable", "alice"]));
    becomes(200).await;
    let print = fingerprint(&alice);
    // As OpenSSL prints it.
    let pairs: Vec<&str> = print.as_bytes().chunks(2).flat_map(std::str::from_utf8).collect();
    let printed = pairs.join(":").to_uppercase();
    let ways = [["--jti", &*print], ["--jti", &*printed], ["--subject", "alice"]];
    for which in ways {
        let deny = [&["tokens", "deny", "--issuer", "mtls", "--for", "1h", "--json"], &which[..]];
        let entry = succeed(&gateway.cli(&deny.concat()));
        becomes(401).await;
        let entry: serde_json::Value = serde_json::from_str(&entry).unwrap();
        let id = entry["id"].as_str().unwrap();
        succeed(&gateway.cli(&["tokens", "allow", id]));
        becomes(200).await;
    }
    gateway.stdout().containing("\"cause\":\"revoked\"").await;
    let half = &printed[..59];
    let refused =
        gateway.cli(&["tokens", "deny", "--issuer", "mtls", "--jti", half, "--for", "1h"]);
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("must be a SHA-256 fingerprint, 64 hex digits"), "{said}");
}

#[tokio::test]
async fn an_identity_ends_on_an_open_connection_when_its_certificate_does() {
    let (origin, clients) = (Origin::start().await, Clients::new());
    let gateway = clients.before(&origin).await;
    let short = clients.authority.client_with(|params| {
        named("alice")(params);
        params.not_after = time::OffsetDateTime::now_utc() + Duration::from_secs(6);
    });
    let client = http1(&gateway, &short);
    client.get("/mtls/x").send().await.expect_status(200);
    eventually_async("the certificate to end", async || {
        (client.get("/mtls/x").send().await.status == 401).then_some(())
    })
    .await;
    gateway.stdout().containing("\"cause\":\"expired\"").await;
    client.get("/open/x").send().await.expect_status(200);
    assert_eq!(gateway.metrics().await.sum("connections_total", &[("listener", "secure")]), 1.0);
}

/// Connects and asks; how the handshake went, and what was answered.
async fn resumes(
    gateway: &Gateway,
    trust: &Trust,
    config: &std::sync::Arc<rustls::ClientConfig>,
) -> Option<(HandshakeKind, u16)> {
    let address = gateway.listener("secure");
    let stream = trust.connect_with(address, std::sync::Arc::clone(config)).await.ok()?;
    let kind = stream.get_ref().1.handshake_kind().unwrap();
    let mut client = RawClient::over(stream);
    client.try_send("GET /mtls/x HTTP/1.1\r\nHost: a\r\n\r\n").await.ok()?;
    let answer = client.try_some().await.ok()?;
    let status = std::str::from_utf8(answer.get(9..12)?).ok()?;
    Some((kind, status.parse().ok()?))
}

#[tokio::test]
async fn a_session_that_is_taken_up_again_says_who_and_ends_with_the_trust_it_began_under() {
    for version in [&TLS12, &TLS13] {
        let (origin, clients) = (Origin::start().await, Clients::new());
        let gateway = clients.before(&origin).await;
        let trust = gateway.trust().showing(&clients.authority.client("alice"));
        let config = trust.config(&["http/1.1"], &[version]);
        let first = resumes(&gateway, &trust, &config).await;
        assert_eq!(first, Some((HandshakeKind::Full, 200)), "{version:?}");
        let again = resumes(&gateway, &trust, &config).await;
        assert_eq!(again, Some((HandshakeKind::Resumed, 200)), "{version:?}");
        // The store is asked for a session as for any other.
        succeed(&gateway.cli(&["consumers", "disable", "alice"]));
        eventually_async("alice to be refused", async || {
            let (_, status) = resumes(&gateway, &trust, &config).await?;
            (status == 401).then_some(())
        })
        .await;
        succeed(&gateway.cli(&["consumers", "enable", "alice"]));
        eventually_async("alice to be let in", async || {
            let (_, status) = resumes(&gateway, &trust, &config).await?;
            (status == 200).then_some(())
        })
        .await;
        // One more is believed: what went before does not count, and is proved again.
        let other = Authority::new();
        let before = gateway.metrics().await;
        clients.believe(&[&clients.authority, &other]);
        assert_eq!(gateway.reloaded_since(&before).await.result, "success");
        let anew = resumes(&gateway, &trust, &config).await;
        assert_eq!(anew, Some((HandshakeKind::Full, 200)), "{version:?}");
        // Alice's is not believed any more.
        let before = gateway.metrics().await;
        clients.believe(&[&other]);
        assert_eq!(gateway.reloaded_since(&before).await.result, "success");
        assert_eq!(resumes(&gateway, &trust, &config).await, None, "{version:?}");
        let theirs = gateway.trust().showing(&other.client("alice"));
        let config = theirs.config(&["http/1.1"], &[version]);
        let theirs = resumes(&gateway, &theirs, &config).await;
        assert_eq!(theirs, Some((HandshakeKind::Full, 200)), "{version:?}");
    }
}

#[tokio::test]
async fn a_reload_changes_whom_open_connections_are_taken_for() {
    let (origin, clients) = (Origin::start().await, Clients::new());
    let gateway = clients.before(&origin).await;
    let open = both(&gateway, Some(&clients.authority.client("alice")));
    let expect = async |status: u16| {
        for client in &open {
            client.get("/mtls/x").send().await.expect_status(status);
            client.get("/open/x").send().await.expect_status(200);
        }
    };
    let other = Authority::new();
    let reload = async |authorities: &[&Authority], expected: &str| {
        let before = gateway.metrics().await;
        clients.believe(authorities);
        assert_eq!(gateway.reloaded_since(&before).await.result, expected);
    };
    expect(200).await;
    reload(&[&other], "success").await;
    expect(401).await;
    gateway.stdout().containing("\"cause\":\"wrong_issuer\"").await;
    reload(&[&other, &clients.authority], "success").await;
    expect(200).await;
    // A bundle that cannot be used changes nothing.
    reload(&[], "failure").await;
    expect(200).await;
    let metrics = gateway.metrics().await;
    assert_eq!(
        metrics.sum("connections_total", &[("listener", "secure")]),
        2.0,
        "they stayed open"
    );
}

#[tokio::test]
async fn what_the_authority_has_revoked_is_refused_also_on_open_connections() {
    let (origin, clients) = (Origin::start().await, Clients::new());
    let numbered = |serial: u64| {
        clients.authority.client_with(|params| {
            named("alice")(params);
            params.serial_number = Some(serial.into());
        })
    };
    let (first, second) = (numbered(11), numbered(12));
    tls::replace(&clients.lists(), &clients.authority.revoked(&[11]));
    let body = format!("[listeners.secure.tls]\nclient_crl = {:?}", clients.lists());
    let gateway = clients.gateway(&origin).toml(&body).key("alice", "basic").start().await;
    for version in [&TLS12, &TLS13] {
        assert!(!is_let_in(&gateway, &gateway.trust().showing(&first), version).await);
    }
    let client = http1(&gateway, &second);
    client.get("/mtls/x").send().await.expect_status(200);
    let before = gateway.metrics().await;
    tls::replace(&clients.lists(), &clients.authority.revoked(&[11, 12]));
    assert_eq!(gateway.reloaded_since(&before).await.result, "success");
    client.get("/mtls/x").send().await.expect_status(401).expect_code("invalid_certificate");
    client.get("/open/x").send().await.expect_status(200);
    assert!(!is_let_in(&gateway, &gateway.trust().showing(&second), &TLS13).await);
    // Of an authority without a list nobody knows what is revoked.
    let behind = clients.authority.intermediate().client("alice");
    assert!(!is_let_in(&gateway, &gateway.trust().showing(&behind), &TLS13).await);
}

#[tokio::test]
async fn a_listener_can_begin_and_stop_to_ask_for_certificates_without_a_restart() {
    let (origin, clients) = (Origin::start().await, Clients::new());
    let gateway = clients.before(&origin).await;
    let asking = gateway.read_conf("gateway.toml");
    let line = asking.lines().find(|line| line.starts_with("client_ca")).unwrap();
    let alice = clients.authority.client("alice");
    let change = async |text: &str| {
        let before = gateway.metrics().await;
        gateway.write_conf("gateway.toml", text);
        assert_eq!(gateway.reloaded_since(&before).await.result, "success");
    };
    let open = http1(&gateway, &alice);
    open.get("/mtls/x").send().await.expect_status(200);
    change(&asking.replace(line, "")).await;
    open.get("/mtls/x").send().await.expect_status(401);
    http1(&gateway, &alice).get("/mtls/x").send().await.expect_code("no_credential");
    change(&asking.replace(line, &format!("{line}\nclient_certificate = \"required\""))).await;
    open.get("/mtls/x").send().await.expect_status(200);
    http1(&gateway, &alice).get("/mtls/x").send().await.expect_status(200);
    assert!(!is_let_in(&gateway, &gateway.trust(), &TLS13).await);
}

/// A `ClientHello` of an old version: one suite, no extension.
fn old_hello(minor: u8) -> Vec<u8> {
    let mut body = vec![3, minor];
    body.extend([7; 32]);
    body.extend([0, 0, 4, 0xC0, 0x13, 0x00, 0x2F, 1, 0]);
    let mut message = vec![1, 0, 0, u8::try_from(body.len()).unwrap()];
    message.extend(body);
    let mut record = vec![22, 3, 1, 0, u8::try_from(message.len()).unwrap()];
    record.extend(message);
    record
}

#[tokio::test]
async fn versions_before_tls_1_2_are_refused() {
    let (origin, clients) = (Origin::start().await, Clients::new());
    let gateway = clients.before(&origin).await;
    for minor in [0, 1, 2] {
        let mut client = RawClient::connect(gateway.listener("secure")).await;
        client.send(old_hello(minor)).await;
        let mut heard = Vec::new();
        while let Ok(bytes) = client.try_some().await
            && !bytes.is_empty()
        {
            heard.extend(bytes);
        }
        // At most a fatal alert, never a ServerHello.
        assert!(heard.is_empty() || (heard[0] == 21 && heard[5] == 2), "3.{minor}: {heard:?}");
    }
    gateway.metric_is("tls_handshakes_failed_total", &[], 3.0).await;
    for version in [&TLS12, &TLS13] {
        assert!(is_let_in(&gateway, &gateway.trust(), version).await);
    }
}
