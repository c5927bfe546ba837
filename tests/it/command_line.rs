//! The command line as an operator types it: what is printed where, with which exit code, beside a
//! running gateway and without one.

use crate::support::client::Client;
use crate::support::credential::{id_of, with_another_secret};
use crate::support::eventually_async;
use crate::support::gateway::{Builder, Folder, Gateway, succeed};
use crate::support::origin::Origin;
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Output};

/// The folder that is shipped.
const CONF: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/conf");

/// One route that answers `ok` to callers with a key, and three plans.
fn described() -> Builder {
    let route = "path = \"/*\"\nauth = [\"api_key\"]\nreply = { status = 200, body = \"ok\" }";
    Gateway::builder()
        .route("all", route)
        .plan("free", "10/s")
        .plan("pro", "500/s")
        .plan("enterprise", "1000/s")
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

/// The same with everything that differs from run to run covered: times, ids and keys.
fn covered(text: &str) -> String {
    let cover = |word: &str| {
        let bytes = word.as_bytes();
        let time = bytes.len() == 20 && bytes[10] == b'T' && word.ends_with('Z');
        let uuid = bytes.len() == 36 && word.matches('-').count() == 4;
        let key_id = bytes.len() == 16 && bytes.iter().all(u8::is_ascii_alphanumeric);
        match () {
            () if word.starts_with("dh_live_") => "KEY".to_owned(),
            () if time => "TIME".to_owned(),
            () if uuid => "UUID".to_owned(),
            () if key_id && bytes.iter().any(u8::is_ascii_uppercase) => "KEYID".to_owned(),
            () => word.to_owned(),
        }
    };
    let line = |line: &str| {
        let words: Vec<_> = line
            .split_whitespace()
            .map(|word| match word.trim_matches(['`', ',', ';']) {
                bare if bare.len() < word.len() => word.replace(bare, &cover(bare)),
                bare => cover(bare),
            })
            .collect();
        words.join(" ")
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[track_caller]
fn expect(folder: &Folder, line: &str, printed: &str) {
    assert_eq!(covered(&out(folder, line)), printed, "{line}");
}

#[test]
fn a_consumer_is_taken_through_its_life() {
    let folder = described().folder();
    let heading = "USERNAME PLAN POLICIES STATE CUSTOM ID ADDED ID";
    let row = |row: &str| format!("{heading}\n{row} TIME UUID");
    let before = run(&folder, "consumers list");
    let err = String::from_utf8_lossy(&before.stderr);
    assert!(!before.status.success() && err.contains("`gateway consumers add` make one"), "{err}");
    expect(
        &folder,
        "consumers add acme --plan free --custom-id crm-7",
        &(row("acme free - enabled crm-7") + "\nadded; issue a key: gateway keys issue acme"),
    );
    expect(&folder, "consumers show acme", &row("acme free - enabled crm-7"));
    expect(
        &folder,
        "consumers set-plan acme pro",
        &(row("acme pro - enabled crm-7") + "\nchanged"),
    );
    expect(
        &folder,
        "consumers disable acme",
        &(row("acme pro - disabled crm-7") + "\ndisabled: all of its keys and tokens are refused"),
    );
    expect(&folder, "consumers enable acme", &(row("acme pro - enabled crm-7") + "\nenabled"));
    out(&folder, "consumers add zeta --plan enterprise");
    expect(
        &folder,
        "consumers list",
        &format!(
            "{heading}\nacme pro - enabled crm-7 TIME UUID\nzeta enterprise - enabled - TIME UUID"
        ),
    );
    out(&folder, "keys issue acme");
    expect(&folder, "consumers remove acme --yes", "removed `acme` and 1 key");
    expect(&folder, "consumers list", &row("zeta enterprise - enabled -"));
    expect(&folder, "keys list", "no keys yet; issue one: gateway keys issue <consumer>");
    out(&folder, "consumers remove zeta --yes");
    expect(
        &folder,
        "consumers list",
        "no consumers yet; add one: gateway consumers add <name> --plan <plan>",
    );
}

#[test]
fn a_key_is_taken_through_its_life() {
    let folder = described().folder();
    out(&folder, "consumers add acme --plan free");
    let issued = out(&folder, "keys issue acme --name ci --scope read --scope write");
    let fields = "id KEYID\nconsumer acme\nscopes read write\nends never";
    let advice = "Keep it now: only a digest is stored, it cannot be shown again.\n\
                  Clients send it as `x-api-key: <key>`.";
    assert_eq!(covered(&issued), format!("KEY\n\n{fields}\n\n{advice}"));
    let first = id_of(issued.lines().next().unwrap());

    let heading = "ID CONSUMER NAME STATE PLAN SCOPES ADDRESSES ISSUED ENDS LAST USED";
    let listed = out(&folder, "keys list acme");
    assert_eq!(
        covered(&listed).replace(&first, "KEYID"),
        format!("{heading}\nKEYID acme ci live - read write - TIME never -")
    );
    let rotated = out(&folder, &format!("keys rotate {first} --overlap 1h"));
    assert_eq!(
        covered(&rotated).replace(&first, "KEYID"),
        format!("KEY\n\n{fields}\nreplaces KEYID, which ends TIME\n\n{advice}")
    );
    let second = id_of(rotated.lines().next().unwrap());
    let revoked = out(&folder, &format!("keys revoke {second}"));
    assert_eq!(
        revoked,
        format!("revoked `{second}` of `acme`; running gateways refuse it within a second\n")
    );
    assert_eq!(out(&folder, &format!("keys revoke {second}")), revoked, "again changes nothing");

    let states = json_of(&folder, "keys list");
    let states: Vec<_> = states.as_array().unwrap().iter().map(|key| &key["state"]).collect();
    assert!(states.contains(&&json!("live")) && states.contains(&&json!("revoked")), "{states:?}");
}

#[test]
fn machines_read_the_same_as_json() {
    let folder = described().folder();
    let added = json_of(&folder, "consumers add acme --plan pro --custom-id crm-7");
    assert_eq!(
        added,
        json!({
            "id": added["id"], "username": "acme", "custom_id": "crm-7", "plan": "pro",
            "policies": [], "enabled": true, "created_at": added["created_at"],
        })
    );
    assert_eq!(json_of(&folder, "consumers show acme"), added);
    assert_eq!(json_of(&folder, "consumers list"), json!([added]));
    assert_eq!(json_of(&folder, "consumers disable acme")["enabled"], false);
    assert_eq!(json_of(&folder, "consumers enable acme"), added);
    assert_eq!(json_of(&folder, "consumers set-plan acme free")["plan"], "free");

    let issued = json_of(&folder, "keys issue acme --name ci --expires-in 30d --scope read");
    let key = issued["key"].as_str().unwrap();
    assert!(key.starts_with("dh_live_") && issued["id"] == id_of(key), "{issued}");
    let mut without = issued.clone();
    without.as_object_mut().unwrap().remove("key");
    assert_eq!(json_of(&folder, "keys list acme"), json!([without]));
    let rotated = json_of(&folder, &format!("keys rotate {} --overlap 0s", id_of(key)));
    assert_eq!(rotated["replaces"]["id"], issued["id"]);
    assert_eq!(rotated["scopes"], json!(["read"]));
    let revoked = json_of(&folder, &format!("keys revoke {}", rotated["id"].as_str().unwrap()));
    assert_eq!(revoked["state"], "revoked");
    assert_eq!(json_of(&folder, "consumers remove acme --yes")["removed_keys"], 2);
}

#[test]
fn a_mistake_ends_with_a_way_out_on_standard_error_and_changes_nothing() {
    let folder = described().folder();
    out(&folder, "consumers add acme-shop --plan pro");
    out(&folder, "keys issue acme-shop");
    let before = (out(&folder, "consumers list"), out(&folder, "keys list"));
    for (line, code, said) in [
        (
            "consumers show acme-shpo",
            1,
            "error: no consumer is called `acme-shpo`; did you mean `acme-shop`?\n",
        ),
        (
            "keys issue nobody",
            1,
            "error: no consumer is called `nobody`; `gateway consumers list` shows all\n",
        ),
        ("keys list acme-sho", 1, "did you mean `acme-shop`?"),
        ("consumers set-plan acmeshop free", 1, "did you mean `acme-shop`?"),
        (
            "consumers add acme-shop --plan pro",
            1,
            "error: username `acme-shop` is taken by another consumer\n",
        ),
        ("consumers add b\u{e4}r --plan pro", 1, "must be letters, digits and signs of ASCII"),
        (
            "consumers remove acme-shop",
            1,
            "error: this removes `acme-shop` and all of its keys for good; say --yes to do it, or \
             `gateway consumers disable acme-shop` to be able to go back\n",
        ),
        (
            "keys revoke 0123456789abcdef",
            1,
            "error: no key has the id `0123456789abcdef`; `gateway keys list` shows all\n",
        ),
        ("keys revoke what", 1, "neither the id of a key (16 letters and digits) nor a whole key"),
        ("keys rotate 0123456789abcdef", 1, "no key has the id"),
        (
            "keys issue acme-shop --expires-at 2020-01-01T00:00:00Z",
            1,
            "error: the end of the key must lie in the future, and after the beginning\n",
        ),
        ("keys issue acme-shop --expires-in soon", 2, "expected a span like `90d`"),
        ("keys issue acme-shop --scope a\"b", 1, "scope must not contain"),
        ("consumers add other", 2, "--plan <PLAN>"),
        ("consumers", 2, "Usage: gateway consumers"),
        ("consumer list", 2, "a similar subcommand exists: 'consumers'"),
    ] {
        let output = run(&folder, line);
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{line}: {err}");
        assert!(err.contains(said), "{line}: {err}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{line}");
    }
    assert_eq!((out(&folder, "consumers list"), out(&folder, "keys list")), before);
}

#[test]
fn a_plan_that_nobody_has_defined_is_warned_of_beside_the_result() {
    let folder = described().folder();
    let warned = |line: &str| {
        let output = run(&folder, line);
        assert!(!succeed(&output).is_empty(), "{line}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert_eq!(
        warned("consumers add acme --plan enterprize"),
        "warning: no plan is called `enterprize`; requests are refused until there is one: \
         did you mean `enterprise`?\n"
    );
    let hint = "there are `enterprise`, `free`, `pro`";
    assert!(warned("consumers set-plan acme gold").contains(hint));
    assert!(warned("keys issue acme").contains("no plan is called `gold`"), "the consumer's plan");
    assert_eq!(warned("keys issue acme --plan free"), "", "the key has a plan of its own");
    assert!(warned("keys issue acme --plan gold --json").contains(hint));
}

#[test]
fn a_new_plan_of_a_consumer_says_which_keys_it_does_not_reach() {
    let folder = described().folder();
    out(&folder, "consumers add acme --plan free");
    out(&folder, "keys issue acme");
    let changed = out(&folder, "consumers set-plan acme pro");
    assert_eq!(changed.lines().last(), Some("changed"));
    out(&folder, "keys issue acme --plan enterprise");
    let revoked = out(&folder, "keys issue acme --plan enterprise");
    out(&folder, &format!("keys revoke {}", id_of(revoked.lines().next().unwrap())));
    let changed = out(&folder, "consumers set-plan acme free");
    assert_eq!(
        changed.lines().last(),
        Some("changed, but for 1 key with a plan of its own: gateway keys list acme")
    );
}

#[test]
fn commands_on_a_broken_configuration_show_what_is_wrong_with_it() {
    let folder = described().file("more.toml", "[plans.free]\nburst = 3\n").folder();
    for line in ["consumers list", "keys list"] {
        let output = run(&folder, line);
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{err}");
        assert!(err.starts_with("error: the configuration is not usable\n"), "{err}");
        assert!(err.contains("more.toml:1:"), "{err}");
    }
    assert!(!folder.path().join("data/gateway.db").exists(), "nothing was written");
}

#[tokio::test]
async fn consumers_and_keys_are_kept_while_the_gateway_runs_and_while_it_does_not() {
    let folder = described().folder();
    out(&folder, "consumers add before --plan pro");
    let before = json_of(&folder, "keys issue before")["key"].as_str().unwrap().to_owned();
    let gateway = folder.start().await;
    gateway.get("/").key(&before).send().await.expect_status(200);
    let during = gateway.issue_key("during", "pro", &[]);
    eventually_async("a key that was issued meanwhile", async || {
        (gateway.get("/").key(&during).send().await.status == 200).then_some(())
    })
    .await;
    let folder = gateway.into_folder();
    let after = folder.issue_key("after", "pro", &[]);
    let all = json_of(&folder, "keys list");
    assert_eq!(all.as_array().unwrap().len(), 3);
    let gateway = folder.start().await;
    for key in [&before, &during, &after] {
        gateway.get("/").key(key).send().await.expect_status(200);
    }
}

#[tokio::test]
async fn a_plain_key_is_printed_once_and_is_nowhere_else() {
    let origin = Origin::start().await;
    let gateway = described()
        .upstream("o", &[origin.address()])
        .route("there", "path = \"/there\"\nauth = [\"api_key\"]\nupstream = \"o\"")
        .key("acme", "pro")
        .start()
        .await;
    let (acme, other) = (gateway.key("acme"), gateway.issue_key("acme", "free", &["--json"]));
    gateway.get("/there").key(&acme).send().await.expect_status(200);
    // A key with a wrong secret is refused, and just as secret; so is one in a query.
    let wrong = with_another_secret(&acme);
    gateway.get("/there").key(&wrong).send().await.expect_status(401);
    gateway.get(&format!("/there?key={acme}")).send().await.expect_status(401);
    succeed(&gateway.cli(&["keys", "revoke", &other]));
    gateway.access_log(3).await;

    let mut seen = vec![
        gateway.stdout().text(),
        gateway.stderr().text(),
        Client::new(gateway.admin()).get("/metrics").send().await.text(),
    ];
    for line in [&["keys", "list"][..], &["keys", "list", "--json"], &["consumers", "list"]] {
        seen.push(succeed(&gateway.cli(line)));
    }
    seen.extend(origin.seen().iter().map(|seen| seen.head.text()));
    let folder = gateway.into_folder();
    let files = files_in(&folder.path().join("data"));
    assert!(files.iter().any(|(name, _)| name == "gateway.db"));
    for (name, bytes) in files {
        seen.push(format!("{name}: {}", String::from_utf8_lossy(&bytes)));
    }
    for key in [&acme, &other, &wrong] {
        let secret = key.rsplit('_').next().unwrap();
        let found: Vec<_> = seen.iter().filter(|text| text.contains(secret)).collect();
        assert!(found.is_empty(), "{found:?}");
    }
}

/// Every file of a folder, by name.
fn files_in(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let read = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.unwrap();
        let name = entry.file_name().to_string_lossy().into_owned();
        entry.path().is_file().then(|| (name, std::fs::read(entry.path()).unwrap()))
    };
    std::fs::read_dir(folder).unwrap().filter_map(read).collect()
}

/// The program, where `conf/` is not named by the test.
fn program(args: &[&str], at: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
    command.args(args).current_dir(at).env_clear().output().unwrap()
}

#[test]
fn the_shipped_configuration_is_checked_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let conf = folder.path().join("conf");
    std::fs::create_dir(&conf).unwrap();
    let mut files = 0;
    for (name, bytes) in files_in(Path::new(CONF)) {
        files += usize::from(name.ends_with(".toml"));
        std::fs::write(conf.join(name), bytes).unwrap();
    }
    // In a folder called `conf` it needs no word; elsewhere the folder is named.
    let elsewhere = tempfile::tempdir().unwrap();
    for (args, at) in [
        (&["check"][..], folder.path()),
        (&["--conf", conf.to_str().unwrap(), "check"], elsewhere.path()),
        (&["check", "--conf", CONF], elsewhere.path()),
    ] {
        let output = program(args, at);
        let out = succeed(&output);
        assert!(out.starts_with(&format!("ok: {files} files, 2 routes, 1 upstream, ")), "{out}");
        assert!(out.contains(", 3 plans (demo, free, pro), "), "{out}");
        assert!(out.ends_with(" 0 warnings\n"), "{out}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no store, no secrets");
    assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0);

    let broken = std::fs::read_to_string(conf.join("routes.toml")).unwrap();
    std::fs::write(conf.join("routes.toml"), broken.replace("\"demo\"", "\"dmeo\"")).unwrap();
    let output = program(&["check"], folder.path());
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &*output.stdout), (Some(1), &b""[..]), "{err}");
    assert!(err.contains("routes.toml:") && err.contains("did you mean `demo`"), "{err}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn an_output_that_nobody_reads_to_its_end_is_no_failure_and_a_full_one_is() {
    let folder = described().folder();
    out(&folder, "consumers add acme --plan free");
    let into = |line: &str, stdout: std::process::Stdio| {
        let mut command = folder.command();
        let output = command.args(line.split(' ')).stdout(stdout).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap().into();
    for line in ["check", "schema"] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        assert_eq!(into(line, writer.into()), (Some(0), String::new()));
        let (code, err) = into(line, full());
        assert_eq!(code, Some(1), "{err}");
        assert!(err.starts_with("error: the result could not be printed: No space"), "{err}");
    }
    let (code, err) = into("keys issue acme", full());
    let id = json_of(&folder, "keys list")[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains(&format!("take it back with `gateway keys revoke {id}`")), "{err}");
}

#[test]
fn many_commands_at_once_begin_one_store_under_one_pepper() {
    let folder = described().without_env("JWT_SECRET").toml("[auth.jwt.default]\n").folder();
    let names: Vec<_> = (0..8).map(|n| format!("consumer-{n}")).collect();
    let at_once = |lines: Vec<Vec<&str>>| {
        let children = lines.iter().map(|line| {
            let mut command = folder.command();
            let piped = std::process::Stdio::piped;
            command.args(line).stdout(piped()).stderr(piped()).spawn().unwrap()
        });
        let children: Vec<_> = children.collect();
        let outputs = children.into_iter().map(|child| child.wait_with_output().unwrap());
        outputs
            .map(|output| {
                assert_eq!(String::from_utf8_lossy(&output.stderr), "");
                succeed(&output)
            })
            .collect::<Vec<_>>()
    };
    at_once(names.iter().map(|name| vec!["consumers", "add", name, "--plan", "free"]).collect());
    let issued = at_once(names.iter().map(|name| vec!["keys", "issue", name]).collect());
    let mut keys: Vec<_> = issued.iter().map(|text| text.lines().next().unwrap()).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), names.len());
    let listed = json_of(&folder, "keys list");
    let listed = listed.as_array().unwrap();
    assert_eq!(listed.len(), names.len());
    assert!(listed.iter().all(|key| key["state"] == "live"), "one pepper: {listed:?}");
    let made: Vec<_> =
        files_in(&folder.path().join("data")).into_iter().map(|(name, _)| name).collect();
    assert!(made.iter().all(|name| !name.starts_with('.')), "no drafts are left: {made:?}");
}

#[test]
fn the_schema_knows_every_table_that_is_shipped() {
    let folder = tempfile::tempdir().unwrap();
    let output = program(&["schema"], folder.path());
    let schema: Value = serde_json::from_str(&succeed(&output)).unwrap();
    for (name, bytes) in files_in(Path::new(CONF)) {
        if !name.ends_with(".toml") {
            continue;
        }
        let table: toml::Table = String::from_utf8_lossy(&bytes).parse().unwrap();
        for key in table.keys() {
            assert!(schema["properties"].get(key).is_some(), "`{key}` of {name}");
        }
    }
    assert_eq!(schema["additionalProperties"], false, "editors mark unknown keys");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "it needs no configuration");
}
