//! `plans`, `policies`, `tokens`, `usage` and `audit` as an operator types them.

use super::desk::Desk;
use crate::auth::documents::{DocumentKind, Documents as _};
use crate::auth::registry::Actor;
use crate::limits::usage::{Batch, Day, TaskId, UsageCount, UsageLog as _};
use serde_json::{Value, json};
use std::time::Duration;
use uuid::Uuid;

const GOLD: &str = "[limits.all]\nrate = \"9/s\"\n";

#[tokio::test]
async fn a_plan_is_taken_through_its_life() {
    let desk = Desk::new();
    let toml = desk.file("gold.toml", GOLD);
    let same = desk.file("gold.json", "\n{ \"limits\": { \"all\": { \"rate\": \"9/s\" } } }");
    let other = desk.file("other.toml", "[limits.all]\nrate = \"10/s\"\n");
    let put = async |file: &str| desk.run(&format!("plans put gold {file}")).await.out;
    assert_eq!(put(&toml).await, "added plan `gold`\n");
    assert_eq!(put(&same).await, "unchanged plan `gold`\n");
    assert_eq!(put(&other).await, "changed plan `gold`\n");
    let over = desk.run(&format!("plans put pro {toml}")).await.out;
    assert_eq!(over, "added plan `pro`; it goes before the plan of this name in the files\n");

    let listed = desk.run("plans list").await.out;
    let lines: Vec<_> = listed.lines().collect();
    assert_eq!(lines[0], "NAME  FROM                 UPDATED", "{listed}");
    assert_eq!(lines[1], "free  files                -", "{listed}");
    assert_eq!(lines[2], "gold  store                2027-01-15T08:00:00Z", "{listed}");
    assert_eq!(lines[3], "pro   store, before files  2027-01-15T08:00:00Z", "{listed}");

    let shown = desk.run("plans show gold").await.out;
    assert_eq!(put(&desk.file("shown", &shown)).await, "unchanged plan `gold`\n", "as it was");
    let described = desk.json("plans show pro").await;
    assert_eq!(
        described,
        json!({
            "name": "pro", "updated_at": "2027-01-15T08:00:00Z", "overrides_files": true,
            "body": { "limits": { "all": { "rate": "9/s" } } },
        })
    );
    let mut listed = desk.json("plans list").await[1].take();
    assert_eq!(listed.as_object_mut().unwrap().remove("compiles"), Some(json!(true)));
    assert_eq!(listed, described);

    let error = desk.refusal("plans remove gold").await;
    assert!(error.contains("whoever has this plan is refused; say --yes to do it"), "{error}");
    let removed = desk.run("plans remove gold --yes").await.out;
    assert_eq!(removed, "removed plan `gold`: whoever has this plan is refused\n");
    let removed = desk.run("plans remove pro --yes").await.out;
    assert!(removed.ends_with("the plan of this name in the files is in force again\n"));
    assert_eq!(desk.json("plans list").await, json!([]));
}

#[tokio::test]
async fn a_row_that_does_not_compile_is_not_said_to_be_in_force() {
    let desk = Desk::new();
    let by = Actor::named("newer");
    for name in ["careful", "newer"] {
        let body = json!({ "hours": "8-18" });
        desk.store.put_document(&by, DocumentKind::Policy, name, &body).await.unwrap();
    }
    let listed = desk.run("policies list").await.out;
    for name in ["careful", "newer  "] {
        assert!(listed.contains(&format!("{name}  store, not in force  2027")), "{listed}");
    }
    assert_eq!(desk.json("policies list").await[0]["compiles"], json!(false));
}

#[tokio::test]
async fn policies_are_kept_apart_from_plans() {
    let desk = Desk::new();
    let file = desk.file("beta", GOLD);
    assert_eq!(desk.run(&format!("policies put beta {file}")).await.out, "added policy `beta`\n");
    let error = desk.refusal("plans show beta").await;
    assert_eq!(error, "no plan in the store is called `beta`; `gateway plans list` shows all");
    let listed = desk.run("policies list").await.out;
    assert!(listed.contains("beta     store  2027") && listed.contains("careful  files  -"));
    let error = desk.refusal("policies show careful").await;
    assert!(error.ends_with("the policy of this name stands in the files"), "{error}");
    let error = desk.refusal("policies remove betta --yes").await;
    assert!(error.ends_with("did you mean `beta`?"), "{error}");
}

#[tokio::test]
async fn a_content_that_cannot_be_put_in_force_is_refused() {
    let desk = Desk::new();
    let long = " ".repeat(256 * 1024 + 1);
    for (text, said) in [
        ("[other]\n", "is no plan that can be put in force\nerror: plan `gold` has no limits"),
        ("limits = ", "is not readable: TOML parse error at line 1"),
        ("{ \"limits\": ", "is not readable: EOF while parsing"),
        ("", "error: plan `gold` has no limits"),
        (&format!("[plans.gold]\n[plans.gold{}", &GOLD[1..]), "below `[plans.gold]`, without"),
        (&long, "is too long: at most 256 KiB are read"),
    ] {
        let error = desk.refusal(&format!("plans put gold {}", desk.file("x", text))).await;
        assert!(error.contains(said), "{said}: {error}");
    }
    let error = desk.refusal("plans put gold nowhere.toml").await;
    assert!(error.starts_with("`nowhere.toml` cannot be read: No such file"), "{error}");
    let error = desk.refusal(&format!("plans put \u{e4} {}", desk.file("x", GOLD))).await;
    assert!(error.contains("plan must be letters, digits and signs"), "{error}");
    assert_eq!(desk.store.load_documents().await.unwrap(), (Vec::new(), 0));
}

#[tokio::test]
async fn policies_of_a_consumer_are_set_shown_and_warned_of() {
    let desk = Desk::new();
    let added = desk.run("consumers add acme --plan pro --policy careful --policy carefull").await;
    assert!(added.out.contains("acme      pro   careful carefull  enabled"), "{}", added.out);
    assert_eq!(
        added.err,
        "warning: no policy is called `carefull`; requests are refused until there is one: \
         did you mean `careful`?\n"
    );
    desk.run(&format!("policies put beta {}", desk.file("x", GOLD))).await;
    let set = desk.run("consumers set-policies acme beta careful").await;
    assert!(set.out.contains("beta careful") && set.out.ends_with("changed\n"), "{}", set.out);
    assert_eq!(set.err, "");
    assert_eq!(desk.json("consumers show acme").await["policies"], json!(["beta", "careful"]));
    assert_eq!(desk.json("consumers set-policies acme").await["policies"], json!([]));
    let error = desk.refusal("consumers set-policies acme beta beta").await;
    assert!(error.contains("policies name `beta` twice"), "{error}");
}

#[tokio::test]
async fn a_plan_of_the_store_is_as_good_as_one_of_the_files() {
    let desk = Desk::new();
    let warned = desk.run("consumers add acme --plan gold").await.err;
    assert!(warned.contains("no plan is called `gold`") && warned.contains("`free`, `pro`"));
    desk.run(&format!("plans put gold {}", desk.file("x", GOLD))).await;
    assert_eq!(desk.run("consumers add shop --plan gold").await.err, "");
    assert_eq!(desk.run("keys issue shop").await.err, "");
    let warned = desk.run("consumers set-plan shop golt").await.err;
    assert!(warned.contains("did you mean `gold`?"), "{warned}");
}

#[tokio::test]
async fn tokens_are_denied_listed_and_allowed() {
    let desk = Desk::new();
    assert_eq!(desk.run("tokens list").await.out, "no tokens are denied\n");
    let denied = desk.run("tokens deny --issuer corporate --jti t-1 --for 24h --reason lost").await;
    assert!(denied.out.ends_with("denied: running gateways refuse them within a second\n"));
    let row = "0000000001  corporate  jti t-1  2027-01-16T08:00:00Z  lost    2027-01-15T08:00:00Z";
    assert_eq!(denied.out.lines().nth(1), Some(row));
    assert_eq!(denied.err, "");
    let line = "tokens deny --issuer corporate --subject bob --until 2027-02-01T00:00:00Z";
    let by_subject = desk.json(line).await;
    assert_eq!(
        by_subject,
        json!({
            "id": "0000000002", "issuer": "corporate", "jti": null, "subject": "bob",
            "issued_before": "2027-01-15T08:00:00Z", "until": "2027-02-01T00:00:00Z",
            "reason": null, "created_at": "2027-01-15T08:00:00Z",
        })
    );
    let earlier = format!("{line} --issued-before 2027-01-01T00:00:00Z");
    assert_eq!(desk.json(&earlier).await["issued_before"], "2027-01-01T00:00:00Z");
    let listed = desk.run("tokens list").await.out;
    assert!(listed.contains("sub bob, issued before 2027-01-15T08:00:00Z"), "{listed}");
    assert_eq!(desk.json("tokens list").await.as_array().unwrap()[1], by_subject);

    let allowed = desk.run("tokens allow 2").await.out;
    assert_eq!(allowed, "removed entry `0000000002`: what it alone denied is accepted again\n");
    let error = desk.refusal("tokens allow 2").await;
    assert_eq!(error, "no entry of the deny list has the id `2`; `gateway tokens list` shows all");
    // A token is taken for a minute after its end at most.
    desk.clock.advance(Duration::from_secs(86_400 + 60));
    assert_eq!(desk.json("tokens list").await.as_array().unwrap().len(), 1, "one has ended");
}

#[tokio::test]
async fn a_denial_says_which_tokens_and_until_when() {
    let desk = Desk::new();
    let deny = "tokens deny --issuer corporate";
    for (line, said) in [
        (deny.to_owned(), "<--jti <ID>|--subject <SUB>>"),
        (format!("{deny} --jti t"), "<--until <TIME>|--for <SPAN>>"),
        (format!("{deny} --jti t --subject s --for 1h"), "cannot be used with"),
        (format!("{deny} --jti t --for 1h --until 2027-02-01T00:00:00Z"), "cannot be used with"),
        (
            format!("{deny} --jti t --for 1h --issued-before 2027-01-01T00:00:00Z"),
            "cannot be used with",
        ),
        (format!("{deny} --jti t --for soon"), "expected a span like `90d`"),
        (format!("{deny} --jti t --for 0s"), "the end of the entry must lie in the future"),
        (format!("{deny} --jti t --until 2020-01-01T00:00:00Z"), "must lie in the future"),
        ("tokens deny --jti t --for 1h".to_owned(), "--issuer <NAME>"),
    ] {
        let error = desk.refusal(&line).await;
        assert!(error.contains(said), "{line}: {error}");
    }
    assert_eq!(desk.json("tokens list").await, json!([]));
    for (issuer, hint) in
        [("corporat", "did you mean `corporate`?"), ("https://idp", "there are `corporate`")]
    {
        let error = desk.refusal(&format!("tokens deny --issuer {issuer} --jti t --for 1h")).await;
        let said = format!("no issuer is called `{issuer}`, so nothing would be refused: {hint}");
        assert_eq!(error, said);
    }
    assert_eq!(desk.json("tokens list").await, json!([]));
}

async fn use_some(desk: &Desk) {
    let row = |day, name: &str, class: &str, admitted, refused| UsageCount {
        day: Day(day),
        consumer: format!("id-{name}").into(),
        username: name.into(),
        class: class.into(),
        admitted,
        refused,
    };
    let usage = vec![
        row(20_833, "acme", "read", 1_000, 5),
        row(20_833, "acme", "write", 10, 0),
        row(20_832, "zeta", "read", 7, 0),
        row(20_818, "acme", "read", 3, 3),
    ];
    let batch = Batch { task: TaskId(Uuid::from_u128(1)), number: 1, usage, quotas: Vec::new() };
    desk.store.apply(&batch).await.unwrap();
}

#[tokio::test]
async fn usage_is_that_of_this_month_unless_said_otherwise() {
    let desk = Desk::new();
    let nothing = desk.run("usage").await.out;
    assert_eq!(nothing, "nothing was used from 2027-01-01 to 2027-01-15\n");
    use_some(&desk).await;
    let table = "DAY         CONSUMER  CLASS  ADMITTED  REFUSED\n\
                 2027-01-14  zeta      read   7         0\n\
                 2027-01-15  acme      read   1000      5\n\
                 2027-01-15  acme      write  10        0\n\
                 TOTAL                        1017      5\n";
    assert_eq!(desk.run("usage").await.out, table);
    for name in ["acme", "id-acme"] {
        let used = desk.json(&format!("usage --consumer {name} --from 2026-12-31")).await;
        assert_eq!(used["total"], json!({ "admitted": 1013, "refused": 8 }));
        assert_eq!((&used["from"], &used["to"]), (&json!("2026-12-31"), &json!("2027-01-15")));
        assert_eq!(
            used["usage"][0],
            json!({
                "day": "2026-12-31", "consumer": "id-acme", "username": "acme", "class": "read",
                "admitted": 3, "refused": 3,
            })
        );
    }
    let december = desk.json("usage --to 2026-12-31").await;
    assert_eq!(
        (&december["from"], december["total"]["admitted"].as_u64()),
        (&json!("2026-12-01"), Some(3))
    );
}

#[tokio::test]
async fn a_mistake_in_a_question_for_usage_is_told() {
    let desk = Desk::new();
    desk.run("consumers add acme --plan pro").await;
    for (line, said) in [
        ("usage --consumer acmee", "no consumer is called `acmee`; did you mean `acme`?"),
        ("usage --from 2027-01-16", "nothing lies from 2027-01-16 to 2027-01-15"),
        ("usage --from yesterday", "expected a day like `2027-01-31`"),
        ("usage --to 2027-02-30", "expected a day like `2027-01-31`"),
    ] {
        let error = desk.refusal(line).await;
        assert!(error.contains(said), "{line}: {error}");
    }
    assert!(desk.run("usage --consumer acme").await.out.starts_with("nothing was used"));
}

#[tokio::test]
async fn long_reports_are_read_in_pages() {
    let desk = Desk::new();
    let row = |number: u32| UsageCount {
        day: Day(20_833),
        consumer: format!("id-{number}").into(),
        username: format!("c-{number}").into(),
        class: "all".into(),
        admitted: 1,
        refused: 0,
    };
    let usage = (0..1_200).map(row).collect();
    let batch = Batch { task: TaskId(Uuid::from_u128(1)), number: 1, usage, quotas: Vec::new() };
    desk.store.apply(&batch).await.unwrap();
    assert_eq!(desk.json("usage").await["total"]["admitted"], 1_200);
    let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1200) \
               INSERT INTO documents SELECT 'plan', 'plan-' || i, '{}', 0 FROM n; \
               WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1200) \
               INSERT INTO denials (issuer, jti, until, created_at) \
               SELECT 'corporate', i, 2000000000, 0 FROM n; \
               WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1200) \
               INSERT INTO audit (at, actor, action, subject, detail) \
               SELECT i, 'a', 'plan.put', i, '{}' FROM n;";
    rusqlite::Connection::open(desk.store.path()).unwrap().execute_batch(sql).unwrap();
    let length = |value: Value| value.as_array().unwrap().len();
    assert_eq!(length(desk.json("plans list").await), 1_200);
    assert_eq!(length(desk.json("tokens list").await), 1_200);
    assert_eq!(length(desk.json("audit --limit 1100").await), 1_100);
    assert_eq!(length(desk.json("audit").await), 50);
    assert_eq!(length(desk.json("audit --limit 5000").await), 1_200);
    let error = desk.refusal("plans show plan-12OO").await;
    assert!(error.contains("did you mean `plan-12"), "{error}");
}

#[tokio::test]
async fn the_audit_tells_who_changed_what() {
    let desk = Desk::new();
    assert_eq!(desk.run("audit").await.out, "nothing was changed yet\n");
    let added = desk.json("consumers add acme --plan free").await;
    desk.clock.advance(Duration::from_secs(1));
    desk.run("consumers set-plan acme pro").await;
    desk.run("consumers set-plan acme pro").await;
    desk.run(&format!("plans put gold {}", desk.file("x", GOLD))).await;
    desk.refusal("consumers add acme --plan free").await;
    let id = added["id"].as_str().unwrap();
    let listed = desk.run("audit").await.out;
    let lines: Vec<_> = listed.lines().collect();
    assert_eq!(lines.len(), 4, "{listed}");
    assert!(lines[0].starts_with("TIME                  WHO           WHAT"), "{listed}");
    assert!(lines[1].contains("cli:ann@desk  plan.put           gold"), "{listed}");
    assert!(
        lines[2].contains(&format!("consumer.set_plan  {id}  before=free plan=pro username=acme"))
    );
    assert!(lines[3].starts_with("2027-01-15T08:00:00Z") && lines[3].contains("consumer.add"));
    let last = desk.json("audit --limit 1").await;
    let gold = json!({ "limits": { "all": { "rate": "9/s" } } });
    assert_eq!(
        last,
        json!([{
            "id": 3, "at": "2027-01-15T08:00:01Z", "actor": "cli:ann@desk", "action": "plan.put",
            "subject": "gold", "detail": { "before": null, "body": gold, "new": true },
        }])
    );
    assert_eq!(desk.store.documents(DocumentKind::Plan, ALL).await.unwrap().len(), 1);
}

const ALL: crate::auth::registry::Page<'static> =
    crate::auth::registry::Page { after: None, limit: 1000 };
