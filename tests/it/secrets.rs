//! Secrets: made private, refused when they are not, and changed without a word to clients.

use crate::support::credential::{invented, now, token};
use crate::support::gateway::{Builder, Folder, Gateway, succeed};
use crate::support::load::Load;
use crate::support::{eventually_async, secret};
use jsonwebtoken::Algorithm;
use serde_json::json;
use std::path::Path;
use std::process::Output;

/// Everything answers `ok` to keys and tokens.
fn described() -> Builder {
    let route = "path = \"/*\"\nauth = [\"api_key\", \"jwt\"]\n\
                 reply = { status = 200, body = \"ok\" }";
    Gateway::builder()
        .route("all", route)
        .toml("[auth.jwt.default]\ndefault_plan = \"free\"")
        .plan("free", "100000/s")
}

#[tokio::test]
async fn what_a_first_start_makes_is_private_and_lasts() {
    let fresh = described().without_env("JWT_SECRET").toml("[store]\npath = \"../made/here/db\"");
    let gateway = fresh.start().await;
    let made = gateway.folder().join("made/here");
    assert_eq!((secret::mode(&gateway.folder().join("made")), secret::mode(&made)), (0o700, 0o700));
    let names = ["api-key.pepper", "jwt.secret", "db", "db-wal", "db-shm"];
    for name in names {
        assert_eq!(secret::mode(&made.join(name)), 0o600, "{name}");
    }
    assert_eq!(std::fs::read_dir(&made).unwrap().count(), names.len(), "no drafts are left");

    let text = std::fs::read_to_string(made.join("jwt.secret")).unwrap();
    let claims = json!({ "sub": "acme", "exp": now() + 3600 });
    let token = token(&claims, Algorithm::HS256, text.trim_end().as_bytes());
    gateway.get("/").bearer(&token).send().await.expect_status(200);
    let key = gateway.issue_key("acme", "free", &[]);
    let pepper = std::fs::read(made.join("api-key.pepper")).unwrap();
    for (said, file) in [
        ("made a new secret", "api-key.pepper"),
        ("made a new secret", "jwt.secret"),
        ("made a new, empty store", "db"),
    ] {
        let line = gateway.stderr().containing(&format!("made/here/{file}\"")).await;
        assert!(line.contains(said) && line.contains("warn"), "{line}");
    }

    let gateway = gateway.into_folder().start().await;
    gateway.get("/").bearer(&token).send().await.expect_status(200);
    gateway.get("/").key(&key).send().await.expect_status(200);
    assert_eq!(std::fs::read(made.join("api-key.pepper")).unwrap(), pepper);
    let err = gateway.stderr().text();
    assert!(!err.contains("made a new"), "{err}");
    for log in [gateway.stdout().text(), err] {
        assert!(!log.contains(text.trim_end()) && !log.contains(&token), "{log}");
    }
}

#[tokio::test]
async fn a_secret_that_others_can_read_is_refused_by_every_command_and_by_a_reload() {
    let folder = described().without_env("JWT_SECRET").key("acme", "free").folder();
    let (jwt, pepper) =
        (folder.path().join("data/jwt.secret"), folder.path().join("data/api-key.pepper"));
    for (path, what, mode) in [
        (&jwt, "the secret of issuer `default` cannot be used", 0o640),
        (&pepper, "the pepper of API keys cannot be used", 0o604),
    ] {
        secret::set_mode(path, mode);
        for line in [&["check"][..], &["keys", "list"], &["run"]] {
            let output = folder.cli(line);
            let err = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{line:?}: {err}");
            let file = path.file_name().unwrap().to_str().unwrap();
            let said = "others than its owner have access to `";
            for part in [
                what,
                said,
                &format!("/data/{file}` (mode"),
                &format!("(mode {mode:o})"),
                "chmod 600 ",
            ] {
                assert!(err.contains(part), "{part} in {line:?}: {err}");
            }
            let text = std::fs::read_to_string(path).unwrap();
            assert!(!err.contains(&text[..8]), "{err}");
        }
        secret::set_mode(path, 0o600);
    }
    assert!(succeed(&folder.cli(&["check"])).starts_with("ok: "));

    let gateway = folder.start().await;
    secret::set_mode(&jwt, 0o644);
    assert_eq!(gateway.reload_and_wait().await.result, "failure");
    gateway.stderr().containing("others than its owner have access").await;
    gateway.get("/").key("acme").send().await.expect_status(200);
    secret::set_mode(&jwt, 0o600);
    assert_eq!(gateway.reload_and_wait().await.result, "success");
}

#[tokio::test]
async fn a_new_pepper_ends_the_old_keys_and_only_the_log_knows_why() {
    let mut folder = described()
        .env("API_KEY_PEPPER", "the first pepper, which is long enough")
        .key("acme", "free")
        .folder();
    let (old, stranger) = (folder.issue_key("acme", "free", &[]), invented());
    let gateway = folder.start().await;
    gateway.get("/").key(&old).send().await.expect_status(200);

    folder = gateway.into_folder();
    folder.set_env("API_KEY_PEPPER", "the second pepper, which is long enough");
    let gateway = folder.start().await;
    let refused = gateway.get("/").key(&old).send().await;
    refused.expect_status(401).expect_code("invalid_key");
    let unknown = gateway.get("/").key(&stranger).send().await;
    let told = |answer: &crate::support::client::Answer| {
        answer.text().replace(answer.header("x-request-id").unwrap(), "ID")
    };
    assert_eq!(told(&refused), told(&unknown), "clients see no difference");
    let log = gateway.access_log(2).await;
    assert_eq!((&log[0]["cause"], &log[1]["cause"]), (&"other_pepper".into(), &"unknown".into()));
    let new = gateway.issue_key("acme", "free", &[]);
    eventually_async("a key under the new pepper", async || {
        (gateway.get("/").key(&new).send().await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_pepper_in_a_file_is_changed_by_a_reload() {
    let folder = described().toml("[auth.api_key]\npepper = \"file:../own.pepper\"").folder();
    let path = folder.path().join("own.pepper");
    secret::write(&path, &[b'a'; 40]);
    let old = folder.issue_key("acme", "free", &[]);
    let gateway = folder.start().await;
    gateway.get("/").key(&old).send().await.expect_status(200);
    for (pepper, status) in [([b'b'; 40], 401), ([b'a'; 40], 200)] {
        secret::write(&path, &pepper);
        eventually_async("the pepper to be taken", async || {
            (gateway.get("/").key(&old).send().await.status == status).then_some(())
        })
        .await;
    }
}

#[test]
fn a_key_for_a_gateway_with_another_pepper_is_not_issued_in_silence() {
    let mut folder =
        described().env("API_KEY_PEPPER", "the gateway's own, which is long enough").folder();
    folder.issue_key("acme", "free", &[]);
    // An operator's shell that lacks the variable would be refused.
    folder.set_env("API_KEY_PEPPER", "the shell's own, which is long enough");
    let output = folder.cli(&["keys", "issue", "acme"]);
    assert!(succeed(&output).starts_with("dh_live_"));
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(err.contains("warning: ") && err.contains("another pepper"), "{err}");
    assert!(err.contains("API_KEY_PEPPER"), "{err}");
    let listed = succeed(&folder.cli(&["keys", "list"]));
    assert_eq!(
        (listed.matches(" live ").count(), listed.matches(" other pepper ").count()),
        (1, 1)
    );
    // Once the new pepper is the one in use, it is not news any more.
    let output = folder.cli(&["keys", "issue", "acme"]);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

/// A consumer's key and token, and a folder whose secrets all are in files beside the store.
fn with_made_secrets() -> (Folder, String) {
    let folder = described().without_env("JWT_SECRET").key("acme", "free").folder();
    let secret = std::fs::read_to_string(folder.path().join("data/jwt.secret")).unwrap();
    let claims = json!({ "sub": "acme", "exp": now() + 3600 });
    let token = token(&claims, Algorithm::HS256, secret.trim_end().as_bytes());
    (folder, token)
}

/// What a command said that could not do what it was told.
#[track_caller]
fn refusal(output: &Output) -> String {
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    err
}

/// Lines that would have made a secret, or have to have one.
const COMMANDS: [&[&str]; 3] =
    [&["keys", "list"], &["keys", "issue", "acme"], &["consumers", "list"]];
const ADD: &[&str] = &["consumers", "add", "other", "--plan", "free"];

fn beside_a_lost_pepper(gateway: &Gateway) {
    for line in COMMANDS.into_iter().chain([ADD, &["check"], &["run"]]) {
        let err = refusal(&gateway.cli(line));
        assert!(err.contains("exists, but the pepper of its keys does not"), "{line:?}: {err}");
    }
}

fn beside_a_lost_jwt_secret(gateway: &Gateway) {
    for line in COMMANDS.into_iter().chain([ADD, &["check"]]) {
        succeed(&gateway.cli(line));
    }
}

fn beside_a_lost_folder(gateway: &Gateway) {
    for line in COMMANDS {
        let err = refusal(&gateway.cli(line));
        assert!(err.contains("there is no store at"), "{line:?}: {err}");
    }
    succeed(&gateway.cli(&["check"]));
}

#[tokio::test]
async fn a_secret_that_is_lost_while_the_gateway_runs_is_not_replaced_and_costs_nobody_anything() {
    type Case = (&'static str, &'static [&'static str], fn(&Gateway));
    let cases: [Case; 3] = [
        ("data/api-key.pepper", &["the pepper of API keys is gone"], beside_a_lost_pepper),
        ("data/jwt.secret", &["the secret of issuer `default` is gone"], beside_a_lost_jwt_secret),
        (
            "data",
            &["the pepper of API keys is gone", "the secret of issuer `default` is gone"],
            beside_a_lost_folder,
        ),
    ];
    let (folder, token) = with_made_secrets();
    let gateway = folder.start().await;
    gateway.get("/").key("acme").send().await.expect_status(200);
    gateway.get("/").bearer(&token).send().await.expect_status(200);
    let load = |name, value: &str| Load::on(gateway.address()).header(name, value).rate(50).start();
    let by_key = load("x-api-key", &gateway.key("acme"));
    let by_token = load("authorization", &format!("Bearer {token}"));
    for (lost, said, commands) in cases {
        let (path, away) = (gateway.folder().join(lost), gateway.folder().join("away"));
        let is_gone = |path: &Path| assert!(!path.exists(), "{lost} was made again");
        std::fs::rename(&path, &away).unwrap();
        gateway.metric_is("config_last_reload_successful", &[], 0.0).await;
        assert_eq!(gateway.reload_and_wait().await.result, "failure");
        is_gone(&path);
        let lines = gateway.stderr().all();
        let line = lines.iter().rfind(|line| line.contains("configuration is refused")).unwrap();
        assert!(said.iter().all(|said| line.contains(said)), "{line}");
        assert!(line.contains("put `"), "{line}");
        commands(&gateway);
        by_key.goes_on(30).await;
        by_token.goes_on(30).await;
        is_gone(&path);

        std::fs::rename(&away, &path).unwrap();
        gateway.metric_is("config_last_reload_successful", &[], 1.0).await;
        by_key.goes_on(10).await;
        by_token.goes_on(10).await;
    }
    assert!(!gateway.stderr().text().contains("made a new"));
    let key = gateway.issue_key("acme", "free", &[]);
    eventually_async("a new key", async || {
        (gateway.get("/").key(&key).send().await.status == 200).then_some(())
    })
    .await;
    by_key.stop().await.expect_only(200);
    by_token.stop().await.expect_only(200);
}

#[tokio::test]
async fn a_start_beside_a_store_makes_no_pepper_but_tells_of_a_new_secret_of_tokens() {
    let (folder, token) = with_made_secrets();
    let data = folder.path().join("data");
    let (pepper, jwt) = (data.join("api-key.pepper"), data.join("jwt.secret"));
    let kept = std::fs::read(&pepper).unwrap();
    for path in [&pepper, &jwt] {
        std::fs::remove_file(path).unwrap();
    }
    for line in COMMANDS.into_iter().chain([ADD, &["run"]]) {
        let err = refusal(&folder.cli(line));
        for part in [
            "error: the store `",
            "/gateway.db` exists, but the pepper of its keys does not",
            "help: restore `",
            "/api-key.pepper`, or set `API_KEY_PEPPER` if that was it",
            "to give up all keys, put 32 random bytes or more into `",
        ] {
            assert!(err.contains(part), "{part} in {line:?}: {err}");
        }
        assert!(!pepper.exists() && !jwt.exists(), "{line:?}");
    }

    secret::write(&pepper, &kept);
    let gateway = folder.start().await;
    gateway.get("/").key("acme").send().await.expect_status(200);
    gateway.get("/").bearer(&token).send().await.expect_status(401);
    let line = gateway.stderr().containing("made a new secret").await;
    assert!(line.contains("data/jwt.secret\"") && line.contains("warn"), "{line}");
    assert!(!gateway.stderr().text().contains("empty store"));
}
