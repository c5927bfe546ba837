//! Plans, policies, the deny list, usage and the audit, administered from the command line.

use crate::support::gateway::{Builder, Folder, Gateway, succeed};
use datahub_gateway::limits::usage::{Batch, Day, TaskId, UsageCount, UsageLog as _};
use datahub_gateway::stores::Embedded;
use datahub_gateway::telemetry::Clock;
use serde_json::{Value, json};
use std::io::Write as _;
use std::process::{Command, Output, Stdio};
use time::OffsetDateTime;

/// One route that answers `ok` to callers with a key or a token, and two plans.
fn described() -> Builder {
    let route = "path = \"/*\"\nauth = [\"api_key\", \"jwt\"]\n\
                 reply = { status = 200, body = \"ok\" }";
    Gateway::builder()
        .route("all", route)
        .toml("[auth.jwt.default]\n")
        .plan("free", "10/s")
        .plan("pro", "500/s")
}

/// A folder with a store that knows `acme`.
fn begun() -> Folder {
    let folder = described().folder();
    out(&folder, "consumers add acme --plan free");
    folder
}

fn run(folder: &Folder, line: &str) -> Output {
    folder.cli(&line.split_whitespace().collect::<Vec<_>>())
}

/// What a command printed that did what it was told, without a word of warning.
#[track_caller]
fn out(folder: &Folder, line: &str) -> String {
    let output = run(folder, line);
    let out = succeed(&output);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{line}");
    out
}

#[track_caller]
fn json_of(folder: &Folder, line: &str) -> Value {
    let out = out(folder, &format!("{line} --json"));
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
}

/// What a command said that gave up.
#[track_caller]
fn refusal(folder: &Folder, line: &str) -> String {
    let output = run(folder, line);
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), &*output.stdout), (Some(1), &b""[..]), "{line}: {err}");
    err
}

/// What a command printed that read `text` from its standard input.
fn fed(folder: &Folder, line: &str, text: &str) -> Output {
    let mut command = folder.command();
    command.args(line.split_whitespace()).stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn plans_and_policies_are_written_from_files_and_from_pipes() {
    let folder = begun();
    let text = "# what gold buys\n[limits.steady]\nrate = \"40/s\"\nburst = 80\n";
    std::fs::write(folder.path().join("gold.toml"), text).unwrap();
    for (command, word) in [("plans", "plan"), ("policies", "policy")] {
        let put = format!("{command} put gold gold.toml");
        assert_eq!(out(&folder, &put), format!("added {word} `gold`\n"));
        assert_eq!(out(&folder, &put), format!("unchanged {word} `gold`\n"));
        let shown = out(&folder, &format!("{command} show gold"));
        let body = json!({ "limits": { "steady": { "rate": "40/s", "burst": 80 } } });
        assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), body);
        let put = format!("{command} put gold -");
        assert_eq!(succeed(&fed(&folder, &put, &shown)), format!("unchanged {word} `gold`\n"));
        let other = text.replace("80", "90");
        assert_eq!(succeed(&fed(&folder, &put, &other)), format!("changed {word} `gold`\n"));
        let row = &json_of(&folder, &format!("{command} list"))[0];
        assert_eq!((&row["name"], &row["overrides_files"]), (&json!("gold"), &json!(false)));
        assert_eq!(row["body"]["limits"]["steady"]["burst"], 90);
    }
    assert_eq!(
        out(&folder, "plans put free gold.toml"),
        "added plan `free`; it goes before the plan of this name in the files\n"
    );
    let listed = out(&folder, "plans list");
    let rows: Vec<Vec<_>> = listed.lines().map(|line| line.split("  ").collect()).collect();
    let of = |row: usize| (rows[row][0], rows[row][1].trim());
    assert_eq!(of(1), ("free", "store, before files"), "{listed}");
    assert!(listed.contains("gold  store ") && listed.contains("pro   files "), "{listed}");
    assert_eq!(out(&folder, "consumers set-plan acme gold").lines().last(), Some("changed"));

    let refused = refusal(&folder, "plans remove gold");
    assert!(refused.contains("whoever has this plan is refused; say --yes to do it"), "{refused}");
    out(&folder, "plans remove gold --yes");
    let back = "the plan of this name in the files is in force again";
    assert_eq!(out(&folder, "plans remove free --yes"), format!("removed plan `free`: {back}\n"));
    assert_eq!(json_of(&folder, "plans list"), json!([]));
    assert_eq!(json_of(&folder, "policies list").as_array().unwrap().len(), 1);
}

#[test]
fn a_consumer_has_policies_beside_its_plan() {
    let folder = begun();
    std::fs::write(folder.path().join("beta.toml"), "").unwrap();
    out(&folder, "policies put beta beta.toml");
    out(&folder, "policies put careful beta.toml");
    let added = json_of(&folder, "consumers add shop --plan pro --policy beta --policy careful");
    assert_eq!(added["policies"], json!(["beta", "careful"]));
    let set = out(&folder, "consumers set-policies shop careful");
    assert!(set.contains("pro   careful   enabled"), "{set}");
    assert_eq!(json_of(&folder, "consumers set-policies shop")["policies"], json!([]));
    let output = run(&folder, "consumers set-policies shop betta");
    succeed(&output);
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "warning: no policy is called `betta`; requests are refused until there is one: \
         did you mean `beta`?\n"
    );
}

#[test]
fn tokens_are_denied_listed_and_allowed_again() {
    let folder = begun();
    let one = json_of(&folder, "tokens deny --issuer default --jti t-1 --for 24h --reason lost");
    assert_eq!((&one["jti"], &one["reason"]), (&json!("t-1"), &json!("lost")));
    let until = "--until 2999-01-01T00:00:00Z";
    let other = json_of(&folder, &format!("tokens deny --issuer default --subject bob {until}"));
    assert_eq!(
        (&other["subject"], &other["until"]),
        (&json!("bob"), &json!("2999-01-01T00:00:00Z"))
    );
    assert_eq!(other["issued_before"], other["created_at"]);
    assert_eq!(json_of(&folder, "tokens list"), json!([one, other]));
    let listed = out(&folder, "tokens list");
    assert!(listed.starts_with("ID          ISSUER   TOKENS"), "{listed}");
    let id = one["id"].as_str().unwrap();
    assert_eq!(
        out(&folder, &format!("tokens allow {id}")),
        format!("removed entry `{id}`: what it alone denied is accepted again\n")
    );
    assert!(refusal(&folder, &format!("tokens allow {id}")).contains("`gateway tokens list`"));
    assert_eq!(json_of(&folder, "tokens list"), json!([other]));
    let error = refusal(&folder, "tokens deny --issuer elsewhere --jti t-2 --for 1h");
    assert!(
        error.contains("no issuer is called `elsewhere`, so nothing would be refused"),
        "{error}"
    );
    assert_eq!(json_of(&folder, "tokens list"), json!([other]));
}

#[tokio::test]
async fn usage_is_printed_with_its_totals() {
    let folder = begun();
    let now = Clock::system().unix_time().as_secs();
    let (today, yesterday) = (now / 86_400, now / 86_400 - 1);
    let row = |day: u64, name: &str, admitted| UsageCount {
        day: Day(u32::try_from(day).unwrap()),
        consumer: format!("id-{name}").into(),
        username: name.into(),
        class: "orders".into(),
        admitted,
        refused: 1,
    };
    let usage = vec![row(today, "acme", 20), row(yesterday, "acme", 300), row(today, "zeta", 4)];
    let task = TaskId(uuid::Uuid::from_u128(1));
    let store =
        Embedded::open_existing(&folder.path().join("data/gateway.db"), Clock::system()).unwrap();
    store.apply(&Batch { task, number: 1, usage, quotas: Vec::new() }).await.unwrap();
    let date = |day: u64| {
        let secs = i64::try_from(day * 86_400).unwrap();
        OffsetDateTime::from_unix_timestamp(secs).unwrap().date().to_string()
    };
    let days = format!("usage --from {} --to {}", date(yesterday), date(today));
    assert_eq!(
        out(&folder, &days),
        format!(
            "DAY         CONSUMER  CLASS   ADMITTED  REFUSED\n\
             {}  acme      orders  300       1\n\
             {}  acme      orders  20        1\n\
             {}  zeta      orders  4         1\n\
             TOTAL                         324       3\n",
            date(yesterday),
            date(today),
            date(today)
        )
    );
    let used = json_of(&folder, &format!("{days} --consumer acme"));
    assert_eq!(used["total"], json!({ "admitted": 320, "refused": 2 }));
    assert_eq!(used["usage"].as_array().unwrap().len(), 2);
    let err = refusal(&folder, "usage --consumer acne");
    assert_eq!(err, "error: no consumer is called `acne`; did you mean `acme`?\n");
    let err = refusal(&folder, "usage --from 2030-01-02 --to 2030-01-01");
    assert!(err.contains("nothing lies from 2030-01-02 to 2030-01-01"), "{err}");
}

#[test]
fn the_audit_names_the_user_that_the_system_knows() {
    let mut folder = begun();
    folder.set_env("USER", "mallory");
    folder.set_env("LOGNAME", "mallory");
    folder.set_env("HOSTNAME", "elsewhere");
    out(&folder, "consumers set-plan acme pro");
    out(&folder, "consumers set-plan acme pro");
    assert!(refusal(&folder, "consumers add acme --plan pro").contains("is taken"));
    let said = |command: &str, arg: &str| {
        let output = Command::new(command).arg(arg).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let me = format!("cli:{}@{}", said("id", "-un"), said("uname", "-n"));
    let audited = json_of(&folder, "audit");
    let told: Vec<_> =
        audited.as_array().unwrap().iter().map(|e| (&e["actor"], &e["action"])).collect();
    let (me, set, add) = (json!(me), json!("consumer.set_plan"), json!("consumer.add"));
    assert_eq!(told, [(&me, &set), (&me, &add)]);
    assert_eq!(audited[0]["detail"]["before"], "free");
    assert_eq!(json_of(&folder, "audit --limit 1"), json!([audited[0]]));
    let listed = out(&folder, "audit");
    assert!(listed.starts_with("TIME                  WHO"), "{listed}");
    assert!(listed.contains("before=free plan=pro username=acme"), "{listed}");
}

#[test]
fn a_store_that_is_one_file_needs_no_migration() {
    let folder = described().folder();
    for line in ["migrate", "migrate --dry-run"] {
        let said = out(&folder, line);
        assert!(said.starts_with("nothing to do: the store is the file `"), "{said}");
    }
    assert_eq!(json_of(&folder, "migrate --dry-run")["migrations"], json!([]));
    assert!(!folder.path().join("data/gateway.db").exists(), "nothing was made");
}

#[test]
fn a_mistake_ends_with_a_way_out_and_changes_nothing() {
    let folder = begun();
    std::fs::write(folder.path().join("gold.toml"), "[limits.all]\nrate = \"9/s\"\n").unwrap();
    std::fs::write(folder.path().join("torn.toml"), "[limits.all\n").unwrap();
    std::fs::write(folder.path().join("whole.toml"), "[plans.gold.limits]\n").unwrap();
    out(&folder, "plans put gold gold.toml");
    let before = out(&folder, "audit");
    for (line, said) in [
        ("plans put other nowhere.toml", "error: `nowhere.toml` cannot be read: No such file"),
        ("plans put other .", "error: `.` cannot be read: Is a directory"),
        ("plans put other torn.toml", "error: `torn.toml` is not readable: TOML parse error at"),
        ("plans put gold whole.toml", "only what stands below `[plans.gold]`, without the heading"),
        ("plans put b\u{e4}d gold.toml", "is no plan that can be put in force"),
        ("plans show golt", "error: no plan in the store is called `golt`; did you mean `gold`?\n"),
        ("plans show free", "the plan of this name stands in the files\n"),
        ("policies show gold", "error: no policy in the store is called `gold`; `gateway policies"),
        ("policies remove gold --yes", "error: no policy in the store is called `gold`"),
        ("tokens allow nothing", "error: no entry of the deny list has the id `nothing`; "),
        ("tokens deny --issuer default --jti t --for 0s", "the end of the entry must lie in the"),
        ("consumers set-policies acme a a", "error: policies name `a` twice\n"),
        ("consumers set-policies acne a", "did you mean `acme`?"),
    ] {
        let err = refusal(&folder, line);
        assert!(err.contains(said), "{line}: {err}");
    }
    let output = fed(&folder, "plans put other -", "limits = ");
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(err.starts_with("error: standard input is not readable: TOML parse error"), "{err}");
    for line in ["tokens deny --issuer default", "usage --from now", "audit --limit -1", "plans"] {
        assert_eq!(run(&folder, line).status.code(), Some(2), "{line}");
    }
    assert_eq!(out(&folder, "audit"), before);
}

#[test]
fn whoever_only_asks_makes_no_store() {
    let folder = described().folder();
    std::fs::write(folder.path().join("gold.toml"), "").unwrap();
    for line in [
        "audit",
        "plans list",
        "plans put gold gold.toml",
        "policies list",
        "tokens list",
        "tokens deny --issuer default --jti t --for 1h",
        "usage",
    ] {
        let err = refusal(&folder, line);
        assert!(err.contains("there is no store at"), "{line}: {err}");
    }
    assert!(!folder.path().join("data/gateway.db").exists(), "nothing was made");
}

#[tokio::test]
async fn a_running_gateway_takes_note_of_every_kind_of_change() {
    let gateway = described().key("acme", "free").start().await;
    gateway.get("/").key("acme").send().await.expect_status(200);
    std::fs::write(gateway.folder().join("gold.toml"), "").unwrap();
    for line in [
        "plans put gold gold.toml",
        "policies put beta gold.toml",
        "consumers set-policies acme beta",
        "tokens deny --issuer default --jti t-1 --for 1h",
    ] {
        succeed(&gateway.cli(&line.split_whitespace().collect::<Vec<_>>()));
    }
    gateway.metric_is("revocation_delay_seconds_count", &[], 4.0).await;
    let err = gateway.stderr().text();
    assert!(!err.contains("changes may have been missed"), "{err}");
}
