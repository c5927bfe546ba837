//! Secrets: made private, refused when they are not, and changed without a word to clients.

use crate::support::credential::{invented, now, token};
use crate::support::gateway::{Builder, Gateway, succeed};
use crate::support::{eventually_async, secret};
use jsonwebtoken::Algorithm;
use serde_json::json;

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

    let gateway = gateway.into_folder().start().await;
    gateway.get("/").bearer(&token).send().await.expect_status(200);
    gateway.get("/").key(&key).send().await.expect_status(200);
    assert_eq!(std::fs::read(made.join("api-key.pepper")).unwrap(), pepper);
    for log in [gateway.stdout().text(), gateway.stderr().text()] {
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
    // An operator's shell that lacks the variable would have a pepper of its own made.
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
