//! `consumers` and `keys` as an operator types them, on a store of their own.

use super::desk::{Desk, api_keys};
use crate::auth::api_key::KeyForm;
use crate::auth::directory::{Answer, Source as _};
use serde_json::Value;
use std::time::Duration;

#[tokio::test]
async fn an_operator_adds_a_consumer_and_issues_a_key() {
    let desk = Desk::new();
    let added = desk.run("consumers add acme --plan pro --custom-id crm-7").await;
    assert!(added.out.contains("acme      pro   -         enabled  crm-7"), "{}", added.out);
    assert!(added.out.contains("gateway keys issue acme"), "{}", added.out);
    assert_eq!(added.err, "");

    let issued =
        desk.run("keys issue acme --name ci --scope read --scope write --expires-in 90d").await;
    let key = issued.out.lines().next().unwrap();
    let form = KeyForm::new(&api_keys());
    let id = form.parse(key.as_bytes()).unwrap().id();
    for part in [
        format!("id        {id}\n"),
        "consumer  acme\n".to_owned(),
        "scopes    read write\n".to_owned(),
        "ends      2027-04-15T08:00:00Z\n".to_owned(),
        "it cannot be shown again".to_owned(),
        "`x-api-key: <key>`".to_owned(),
    ] {
        assert!(issued.out.contains(&part), "{part:?} in {}", issued.out);
    }
    assert!(matches!(desk.store.look_up_key(id, 0).await, Answer::Known { .. }));

    let listed = desk.run("keys list").await.out;
    assert!(listed.contains(id.as_str()) && listed.contains("live"), "{listed}");
    let secret = key.rsplit('_').next().unwrap();
    assert!(!listed.contains(secret) && !desk.run("keys list --json").await.out.contains(secret));
}

#[tokio::test]
async fn tables_line_up() {
    let desk = Desk::new();
    desk.run("consumers add a --plan free").await;
    desk.run("consumers add a-longer-name --plan pro").await;
    desk.run("consumers disable a").await;
    let listed = desk.run("consumers list").await.out;
    let lines: Vec<_> = listed.lines().collect();
    assert_eq!(lines.len(), 3, "{listed}");
    let column = lines[0].find("PLAN").unwrap();
    assert!(
        lines[0].starts_with("USERNAME       PLAN  POLICIES  STATE     CUSTOM ID  ADDED"),
        "{listed}"
    );
    assert!(
        lines[1].starts_with("a ")
            && lines[1][column..].starts_with("free  -         disabled  -  ")
    );
    assert!(lines[2][column..].starts_with("pro   -         enabled   -  "), "{listed}");
    assert!(listed.lines().all(|line| line == line.trim_end()));
}

#[tokio::test]
async fn json_has_it_all() {
    let desk = Desk::new();
    let added = desk.json("consumers add acme --plan pro").await;
    assert_eq!(added["username"], "acme");
    assert_eq!(added["custom_id"], Value::Null);
    assert_eq!(added["enabled"], true);
    assert_eq!(added["created_at"], "2027-01-15T08:00:00Z");
    assert_eq!(desk.json("consumers list").await, serde_json::json!([added]));
    assert_eq!(desk.json("consumers show acme").await, added);

    let issued = desk.json("keys issue acme --expires-at 2027-02-01T00:00:00Z").await;
    assert!(issued["key"].as_str().unwrap().starts_with("dh_test_"));
    assert_eq!(issued["expires_at"], "2027-02-01T00:00:00Z");
    let listed = desk.json("keys list acme").await;
    assert_eq!(listed[0]["id"], issued["id"]);
    assert_eq!(listed[0].get("key"), None);
    let removed = desk.json("consumers remove acme --yes").await;
    assert_eq!(removed["removed_keys"], 1);
    assert_eq!(desk.json("consumers list").await, serde_json::json!([]));
}

#[tokio::test]
async fn a_rotation_keeps_the_lifetime_and_names_both_keys() {
    let desk = Desk::new();
    desk.run("consumers add acme --plan pro").await;
    let old = desk.json("keys issue acme --expires-in 30d --name ci").await;
    let id = old["id"].as_str().unwrap();
    desk.clock.advance(Duration::from_secs(86_400));
    let new = desk.json(&format!("keys rotate {id} --overlap 1h")).await;
    assert_eq!(new["expires_at"], "2027-02-15T08:00:00Z", "30 days from now");
    assert_eq!((&new["name"], &new["replaces"]["id"]), (&old["name"], &old["id"]));
    assert_eq!(new["replaces"]["expires_at"], "2027-01-16T09:00:00Z");
    assert_ne!(new["key"], old["key"]);

    let text = desk.run(&format!("keys rotate {} --overlap 0s", new["id"].as_str().unwrap())).await;
    assert!(
        text.out.contains("replaces  ") && text.out.contains(", which ends 2027"),
        "{}",
        text.out
    );
    let error = desk.refusal(&format!("keys rotate {}", new["id"].as_str().unwrap())).await;
    assert!(error.contains("revoked or expired; issue a new one"), "{error}");
    let states: Vec<_> = desk.json("keys list").await.as_array().unwrap().clone();
    let states: Vec<_> = states.iter().map(|key| key["state"].as_str().unwrap()).collect();
    assert_eq!(states.iter().filter(|state| **state == "expired").count(), 1, "{states:?}");
}

#[tokio::test]
async fn a_leaked_key_is_revoked_by_pasting_it() {
    let desk = Desk::new();
    desk.run("consumers add acme --plan pro").await;
    let issued = desk.json("keys issue acme").await;
    let revoked = desk.run(&format!("keys revoke {}", issued["key"].as_str().unwrap())).await;
    assert!(revoked.out.contains("revoked `") && revoked.out.contains("within a second"));
    assert_eq!(desk.json("keys list").await[0]["state"], "revoked");
    for text in ["dh_", "dh_test", "x", "dh_test_short_x", "0123456789abcde!"] {
        let error = desk.refusal(&format!("keys revoke {text}")).await;
        assert!(error.contains("neither the id of a key"), "{error}");
    }
    let error = desk.refusal("keys revoke 0123456789abcdef").await;
    assert!(error.contains("no key has the id `0123456789abcdef`; `gateway keys list`"), "{error}");
}

#[tokio::test]
async fn mistakes_are_told_with_a_way_out() {
    let desk = Desk::new();
    desk.run("consumers add acme-shop --plan pro").await;
    for (line, expected) in [
        (
            "consumers show acme-shpo",
            "no consumer is called `acme-shpo`; did you mean `acme-shop`?",
        ),
        ("keys issue acmeshop", "did you mean `acme-shop`?"),
        ("keys list zzz", "no consumer is called `zzz`; `gateway consumers list` shows all"),
        ("consumers add acme-shop --plan pro", "username `acme-shop` is taken by another consumer"),
        ("consumers add \u{e4} --plan pro", "username must be letters, digits and signs of ASCII"),
        (
            "consumers remove acme-shop",
            "say --yes to do it, or `gateway consumers disable acme-shop`",
        ),
        ("keys issue acme-shop --expires-in 90", "expected a span like `90d`"),
        (
            "keys issue acme-shop --expires-at tomorrow",
            "expected a time like `2027-01-31T00:00:00Z`",
        ),
        ("keys issue acme-shop --expires-at 2020-01-01T00:00:00Z", "must lie in the future"),
        (
            "keys issue acme-shop --expires-in 1d --expires-at 2030-01-01T00:00:00Z",
            "cannot be used with",
        ),
        ("keys issue acme-shop --scope a\"b", "must not contain"),
    ] {
        let error = desk.refusal(line).await;
        assert!(error.contains(expected), "{line}: {error}");
    }
}

#[tokio::test]
async fn unknown_plans_and_disabled_consumers_are_warned_of() {
    let desk = Desk::new();
    let warned = desk.run("consumers add acme --plan prO").await.err;
    assert!(warned.contains("no plan is called `prO`") && warned.contains("did you mean `pro`?"));
    let warned = desk.run("consumers set-plan acme gold").await.err;
    assert!(warned.contains("there are `free`, `pro`"), "{warned}");
    assert_eq!(desk.run("consumers set-plan acme free").await.err, "");
    let warned = desk.run("keys issue acme --plan platinum").await.err;
    assert!(warned.contains("no plan is called `platinum`"), "{warned}");
    desk.run("consumers disable acme").await;
    let warned = desk.run("keys issue acme").await.err;
    assert!(
        warned.contains("`acme` is disabled") && warned.contains("gateway consumers enable acme")
    );
    assert_eq!(desk.run("consumers enable acme").await.err, "");
}

#[tokio::test]
async fn empty_lists_say_what_to_do_next() {
    let desk = Desk::new();
    assert!(desk.run("consumers list").await.out.contains("gateway consumers add <name>"));
    assert!(desk.run("keys list").await.out.contains("gateway keys issue <consumer>"));
}

/// A pipe whose reader is gone.
struct Broken;

impl std::io::Write for Broken {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_key_that_could_not_be_printed_is_to_be_revoked() {
    let desk = Desk::new();
    desk.run("consumers add acme --plan pro").await;
    let error = desk.run_into("keys issue acme", &mut Broken).await.unwrap_err();
    let id = desk.json("keys list").await[0]["id"].as_str().unwrap().to_owned();
    assert!(error.contains(&format!("take it back with `gateway keys revoke {id}`")), "{error}");
}

#[tokio::test]
async fn long_lists_are_read_in_pages() {
    let desk = Desk::new();
    let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1200) \
               INSERT INTO consumers (id, username, custom_id, plan, enabled, created_at) \
               SELECT 'id' || i, 'user-' || i, NULL, 'free', 1, 0 FROM n";
    rusqlite::Connection::open(desk.store.path()).unwrap().execute(sql, ()).unwrap();
    assert_eq!(desk.json("consumers list").await.as_array().unwrap().len(), 1200);
    let error = desk.refusal("consumers show user-12OO").await;
    assert!(error.contains("did you mean `user-12"), "{error}");
}

#[tokio::test]
async fn a_key_is_bound_to_networks_and_a_wrong_one_is_refused_with_a_way_out() {
    let desk = Desk::new();
    desk.run("consumers add acme --plan pro").await;
    let issued = desk.run("keys issue acme --address 10.0.0.0/8 --address 192.0.2.7").await.out;
    assert!(issued.contains("from      10.0.0.0/8 192.0.2.7/32\n"), "{issued}");
    let listed = desk.json("keys list").await;
    assert_eq!(listed[0]["addresses"], serde_json::json!(["10.0.0.0/8", "192.0.2.7/32"]));
    let refused = desk.refusal("keys issue acme --address 10.1.0.0/8").await;
    assert!(refused.contains("did you mean `10.0.0.0/8`?"), "{refused}");
    let many: String = (0..17).map(|n| format!(" --address 10.0.{n}.0/24")).collect();
    let refused = desk.refusal(&format!("keys issue acme{many}")).await;
    assert!(refused.contains("a key has at most 16 networks"), "{refused}");
}

#[tokio::test]
async fn every_pepper_is_counted_though_no_key_needs_it() {
    let desk = Desk::new();
    let empty = desk.json("keys peppers").await;
    assert_eq!((&empty[0]["pepper"], &empty[0]["keys"]), (&"current".into(), &0.into()));
    desk.run("consumers add acme --plan pro").await;
    desk.run("keys issue acme").await;
    let counted = desk.run("keys peppers").await.out;
    let lines: Vec<Vec<_>> =
        counted.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["PEPPER", "VERSION", "KEYS"]);
    assert_eq!((lines[1][0], lines[1][2], lines.len()), ("current", "1", 2), "{counted}");
    assert_eq!(desk.json("keys list").await[0]["pepper"], "current");
}
