//! Who is believed to be the server, and whom the server lets in.

use super::{migrated, open, patient};
use crate::lab::{Authority, Server, Setup};
use crate::{consumer, me};
use datahub_gateway::auth::registry::Registry as _;
use datahub_gateway::stores::postgres::{Settings, migrate};
use datahub_gateway::stores::{Postgres, PostgresError, Reactor};
use datahub_gateway::telemetry::Clock;

fn with_authority(url: &str, pem: &str) -> Postgres {
    let settings = Settings::parse(url, None, Some(pem.as_bytes()), patient()).unwrap();
    Postgres::connect(settings, Reactor::start().unwrap(), Clock::system())
}

#[tokio::test]
async fn only_the_server_of_the_authority_that_is_named_and_only_with_the_password() {
    let password = "pass-w0rd";
    let setup = Setup { tls: Some(Authority::new()), password: Some(password.to_owned()) };
    let server = Server::start(&setup);
    let authority = setup.tls.unwrap();
    let database = server.database();
    let url = server.url(&database);

    let store = with_authority(&url, &authority.pem());
    migrate::apply(&store).await.unwrap();
    store.add_consumer(&me(), consumer("alice")).await.unwrap();
    let encrypted = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                     WHERE usename = 'gw'";
    assert_eq!(server.sql(&database, encrypted), "t");

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, authority.pem()).unwrap();
    for mode in ["require", "verify-full", "prefer"] {
        let url = format!("{url}?sslmode={mode}&sslrootcert={}", file.display());
        let store = open(&url, None, patient(), Clock::system());
        store.check_schema().await.unwrap_or_else(|error| panic!("{mode}: {error}"));
    }

    let plain = open(&format!("{url}?sslmode=disable"), None, patient(), Clock::system());
    let wrong = url.replace(password, "wrong-w0rd");
    let by_address = url.replace("localhost", "127.0.0.1");
    let refusals = [
        (
            with_authority(&url, &Authority::new().pem()),
            "cannot be reached over TLS",
            "sslrootcert",
        ),
        (with_authority(&by_address, &authority.pem()), "cannot be reached over TLS", "the name"),
        (with_authority(&wrong, &authority.pem()), "password authentication failed", "check user"),
        (plain, "no encryption", "pg_hba.conf"),
    ];
    for (store, problem, help) in refusals {
        let error = store.consumer("alice").await.unwrap_err();
        let message = error.to_string();
        assert!(message.contains(problem) && message.contains(help), "{message}");
        assert!(!format!("{error:?} {message} {store:?}").contains("w0rd"), "{message}");
    }
}

#[tokio::test]
async fn a_server_without_tls_is_refused_where_tls_is_asked_for() {
    let server = crate::lab::shared();
    let database = server.database();
    migrated(server, &database);
    let url = server.url(&database);
    let store = with_authority(&url, &Authority::new().pem());
    let error = store.check_schema().await.unwrap_err();
    assert!(matches!(error, PostgresError::Tls { .. }), "{error}");
    assert!(error.to_string().contains("server does not support TLS"), "{error}");
    let store = open(&format!("{url}?sslmode=prefer"), None, patient(), Clock::system());
    store.check_schema().await.unwrap();
}
