//! The store in trouble: a gateway goes on with what it knows, says of the rest that it cannot say,
//! and finds back by itself; a command tells its operator what to do.

use crate::support::credential::{id_of, invented};
use crate::support::disk::SmallDisk;
use crate::support::gateway::{Builder, Folder, Gateway, succeed};
use crate::support::load::{Load, Running};
use crate::support::{eventually_async, secret};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

/// Everything answers `ok` to callers with a key or a token.
fn described() -> Builder {
    let route = "path = \"/*\"\nauth = [\"api_key\", \"jwt\"]\n\
                 reply = { status = 200, body = \"ok\" }";
    Gateway::builder().route("all", route).toml("[auth.jwt.default]\n").plan("free", "100000/s")
}

fn load(gateway: &Gateway) -> Running {
    Load::on(gateway.address()).header("x-api-key", &gateway.key("acme")).rate(100).start()
}

/// The store's file and those beside it.
fn files(gateway: &Gateway) -> [PathBuf; 3] {
    ["gateway.db", "gateway.db-wal", "gateway.db-shm"]
        .map(|name| gateway.folder().join("data").join(name))
}

/// Known callers are answered, unknown ones are told to come back, and nonsense is still refused.
async fn expect_an_outage(gateway: &Gateway) {
    eventually_async("the outage to be noticed", async || {
        (gateway.get("/").key(&invented()).send().await.status == 503).then_some(())
    })
    .await;
    for _ in 0..20 {
        gateway.get("/").key("acme").send().await.expect_status(200);
        for request in
            [gateway.get("/").key(&invented()), gateway.get("/").bearer(&gateway.token("somebody"))]
        {
            let answer = request.send().await;
            answer.expect_status(503).expect_code("directory_unavailable");
            let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
            assert!((1..=5).contains(&wait), "{wait}");
            answer.expect_no_header("www-authenticate");
            let kind = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity";
            assert_eq!(answer.json()["type"], kind);
        }
        gateway.get("/").key("dh_live_nonsense").send().await.expect_status(401);
    }
    let failures = gateway.metrics().await.sum("store_failures_total", &[]);
    assert!(failures >= 1.0, "{failures}");
}

/// Unknown callers are refused again, and a new key works, though nothing was restarted.
async fn expect_recovery(gateway: &Gateway) {
    eventually_async("the store to be found again", async || {
        (gateway.get("/").key(&invented()).send().await.status == 401).then_some(())
    })
    .await;
    gateway.stderr().containing("the store answers again").await;
    let key = gateway.issue_key("acme", "free", &[]);
    eventually_async("a new key", async || {
        (gateway.get("/").key(&key).send().await.status == 200).then_some(())
    })
    .await;
    succeed(&gateway.cli(&["keys", "revoke", &id_of(&key)]));
    let revoked = Instant::now();
    eventually_async("the revocation", async || {
        (gateway.get("/").key(&key).send().await.status == 401).then_some(())
    })
    .await;
    assert!(revoked.elapsed() < Duration::from_secs(1), "{:?}", revoked.elapsed());
}

#[tokio::test]
async fn a_store_that_is_gone_for_a_while_costs_known_callers_nothing() {
    let gateway = described().key("acme", "free").start().await;
    gateway.get("/").key("acme").send().await.expect_status(200);
    let running = load(&gateway);
    let [file, ..] = files(&gateway);
    let away = file.with_extension("away");
    for _ in 0..2 {
        running.goes_on(20).await;
        std::fs::rename(&file, &away).unwrap();
        expect_an_outage(&gateway).await;
        // Longer than a row is believed without asking.
        running.goes_on(200).await;
        std::fs::rename(&away, &file).unwrap();
        expect_recovery(&gateway).await;
    }
    running.stop().await.expect_only(200);
    let said = gateway.stderr().text();
    assert!(said.contains("keys in use keep working for a limited time"), "{said}");
    assert!(said.contains("the store cannot be read"), "{said}");
    assert!(said.lines().count() < 30, "the log is not flooded: {said}");
}

#[tokio::test]
async fn a_store_in_whose_place_there_is_nonsense_is_an_outage_until_it_is_put_back() {
    let gateway = described().key("acme", "free").start().await;
    gateway.get("/").key("acme").send().await.expect_status(200);
    let running = load(&gateway);
    let [file, ..] = files(&gateway);
    // All of it into the file, so that nothing can be read from beside it.
    let checkpoint = rusqlite::Connection::open(&file).unwrap();
    checkpoint.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(())).unwrap();
    drop(checkpoint);
    let good = std::fs::read(&file).unwrap();
    let put = |bytes: &[u8]| secret::write(&file, bytes);
    for (nonsense, said) in [
        (&b"nonsense "[..], "is not a store of this gateway"),
        (b"\0", "is not a store of this gateway"),
        (b"SQLite format 3\0", "is not a store of this gateway"),
        (b"", "there is no store at"),
    ] {
        put(&nonsense.iter().copied().cycle().take(64 * 1024).collect::<Vec<_>>());
        expect_an_outage(&gateway).await;
        // Looking must not make it worse: a new, empty store would know nobody.
        for line in [&["keys", "list"][..], &["keys", "issue", "acme"], &["consumers", "list"]] {
            let err = refusal(&gateway.cli(line));
            assert!(err.contains(said), "{err}");
        }
        expect_an_outage(&gateway).await;
        put(&good);
        eventually_async("the store to be found again", async || {
            (gateway.get("/").key(&invented()).send().await.status == 401).then_some(())
        })
        .await;
    }
    expect_recovery(&gateway).await;
    running.stop().await.expect_only(200);
}

#[tokio::test]
async fn a_store_that_is_written_over_never_makes_a_known_caller_unknown() {
    let gateway = described().key("acme", "free").start().await;
    gateway.get("/").key("acme").send().await.expect_status(200);
    let running = load(&gateway);
    running.goes_on(20).await;
    let good = files(&gateway).map(|path| std::fs::read(path).unwrap());
    for nonsense in [&b"nonsense "[..], b"\0"] {
        for (path, bytes) in files(&gateway).iter().zip(&good).take(2) {
            let length = bytes.len().max(64 * 1024);
            std::fs::write(path, nonsense.iter().copied().cycle().take(length).collect::<Vec<_>>())
                .unwrap();
        }
        for _ in 0..20 {
            let status = gateway.get("/").key(&invented()).send().await.status;
            assert!([401, 503].contains(&status), "{status}");
        }
        let err = refusal(&gateway.cli(&["keys", "issue", "acme"]));
        assert!(err.contains("gateway.db` "), "{err}");
        let ways = ["let `store.path` name another file", "restore a backup"];
        assert!(ways.iter().any(|way| err.contains(way)), "{err}");
        // Longer than a row is believed without asking.
        running.goes_on(200).await;
        for (path, bytes) in files(&gateway).iter().zip(&good) {
            std::fs::write(path, bytes).unwrap();
        }
        eventually_async("the store to be read again", async || {
            (gateway.get("/").key(&invented()).send().await.status == 401).then_some(())
        })
        .await;
    }
    running.stop().await.expect_only(200);
}

#[tokio::test]
async fn a_store_that_is_deleted_and_restored_from_a_backup_is_the_one_that_counts() {
    let gateway = described().key("acme", "free").key("later", "free").start().await;
    succeed(&gateway.cli(&["consumers", "disable", "later"]));
    gateway.metric_is("revocation_delay_seconds_count", &[], 1.0).await;
    for key in ["acme", "later"] {
        gateway.get("/").key(key).send().await;
    }
    let [file, ..] = files(&gateway);
    let backup = file.with_extension("backup");
    let source = rusqlite::Connection::open(&file).unwrap();
    source.execute("VACUUM INTO ?1", [backup.to_str().unwrap()]).unwrap();
    drop(source);
    // After the backup: what it does not know is void once it is back.
    succeed(&gateway.cli(&["consumers", "enable", "later"]));
    let new = gateway.issue_key("acme", "free", &[]);
    eventually_async("what was changed", async || {
        let statuses =
            [gateway.get("/").key("later").send().await, gateway.get("/").key(&new).send().await];
        statuses.iter().all(|answer| answer.status == 200).then_some(())
    })
    .await;

    for path in files(&gateway) {
        std::fs::remove_file(path).unwrap();
    }
    expect_an_outage(&gateway).await;
    gateway.get("/").key("later").send().await.expect_status(200);
    std::fs::rename(&backup, &file).unwrap();
    eventually_async("the backup to be found", async || {
        (gateway.get("/").key("later").send().await.status == 401).then_some(())
    })
    .await;
    gateway.get("/").key(&new).send().await.expect_status(401);
    gateway.get("/").key("acme").send().await.expect_status(200);
    expect_recovery(&gateway).await;
}

#[tokio::test]
async fn a_store_that_another_process_writes_to_for_long_keeps_commands_waiting_and_no_caller() {
    let gateway = described().key("acme", "free").start().await;
    let [file, ..] = files(&gateway);
    let other = rusqlite::Connection::open(&file).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let running = load(&gateway);
    let began = Instant::now();
    let output = gateway.cli(&["keys", "issue", "acme"]);
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("is locked by another process; `fuser "), "{err}");
    assert!(err.contains("let it finish, then try again"), "{err}");
    assert!(began.elapsed() > Duration::from_secs(4), "it waits: {:?}", began.elapsed());
    gateway.get("/").key("acme").send().await.expect_status(200);
    gateway.get("/").key(&invented()).send().await.expect_status(401);
    running.stop().await.expect_only(200);
    other.execute_batch("ROLLBACK").unwrap();
    succeed(&gateway.cli(&["keys", "issue", "acme"]));
}

/// What a command says to a store that it cannot use.
#[track_caller]
fn refusal(output: &Output) -> String {
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    assert_eq!(err.lines().count(), 1, "one line: {err}");
    err
}

#[test]
fn a_file_that_is_no_store_is_left_alone_and_named_to_commands_and_at_the_start() {
    type Case = (&'static str, fn(&Path), &'static str);
    let fill: &[Case] = &[
        (
            "text",
            |path| {
                std::fs::write(path, "not a store, but long enough to look like a file".repeat(9))
                    .unwrap()
            },
            "is not a store of this gateway",
        ),
        (
            "another database",
            |path| {
                let other = rusqlite::Connection::open(path).unwrap();
                other.execute_batch("CREATE TABLE notes (text TEXT)").unwrap();
            },
            "is not a store of this gateway (application id 0x0, 1 tables); let `store.path` name another file",
        ),
        ("a folder", |path| std::fs::create_dir(path).unwrap(), "cannot be opened for writing"),
        (
            "a store from the future",
            |path| {
                let newer = rusqlite::Connection::open(path).unwrap();
                newer.pragma_update(None, "application_id", 0x4448_4757).unwrap();
                newer.pragma_update(None, "user_version", 99).unwrap();
            },
            "was written by a newer gateway (its schema is 99, this gateway knows 3); run the newer \
             version, or restore a backup from before the update",
        ),
    ];
    for (what, fill, said) in fill {
        let folder = described()
            .env("API_KEY_PEPPER", PEPPER)
            .toml("[store]\npath = \"../other/store\"")
            .folder();
        let path = folder.path().join("other/store");
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        fill(&path);
        let before = std::fs::read(&path).ok();
        let add = &["consumers", "add", "acme", "--plan", "free"];
        for line in [&["consumers", "list"][..], &["keys", "issue", "acme"], add, &["run"]] {
            let err = refusal(&folder.cli(line));
            assert!(err.starts_with("error: the "), "{what}: {err}");
            assert!(err.contains("other/store` ") && err.contains(said), "{what}: {err}");
        }
        assert_eq!(std::fs::read(&path).ok(), before, "{what}");
    }
}

#[test]
fn a_store_in_a_place_that_cannot_be_is_told_with_the_place() {
    let folder = || described().toml("[store]\npath = \"../ready.json/store\"").folder();
    let add = ["consumers", "add", "acme", "--plan", "free"];
    let open = |folder: &Folder| std::fs::write(folder.path().join("ready.json"), "").unwrap();
    let mut with_pepper = folder();
    with_pepper.set_env("API_KEY_PEPPER", PEPPER);
    open(&with_pepper);
    let err = refusal(&with_pepper.cli(&add));
    assert!(err.contains("ready.json` for the store cannot be made"), "{err}");
    assert!(err.contains("make it for the gateway's user, or let `store.path` name"), "{err}");
    let without = folder();
    open(&without);
    let err = String::from_utf8_lossy(&without.cli(&add).stderr).into_owned();
    assert!(err.contains("api-key.pepper` cannot be written"), "{err}");
    assert!(err.contains("set `API_KEY_PEPPER`, or let there be a folder for it"), "{err}");
}

const PEPPER: &str = "a pepper for tests, long enough to be one";

#[tokio::test]
async fn two_gateways_on_one_store_hear_of_everything_within_a_second() {
    let one = described().key("acme", "free").start().await;
    let path = files(&one)[0].display().to_string();
    let other = Gateway::builder()
        .route("all", "path = \"/*\"\nauth = [\"api_key\"]\nreply = { status = 200 }")
        .plan("free", "100000/s")
        .toml(&format!("[store]\npath = {path:?}"))
        .start()
        .await;
    let acme = one.key("acme");
    let (at_one, at_other) =
        (load(&one), Load::on(other.address()).header("x-api-key", &acme).rate(100).start());
    at_one.goes_on(20).await;
    at_other.goes_on(20).await;
    let new = succeed(&other.cli(&["keys", "issue", "acme"]));
    let new = new.lines().next().unwrap();
    succeed(&one.cli(&["keys", "revoke", &id_of(&acme)]));
    let revoked = Instant::now();
    for gateway in [&one, &other] {
        eventually_async("both to hear of both", async || {
            let old = gateway.get("/").key(&acme).send().await.status;
            let new = gateway.get("/").key(new).send().await.status;
            ((old, new) == (401, 200)).then_some(())
        })
        .await;
        assert!(revoked.elapsed() < Duration::from_secs(1), "{:?}", revoked.elapsed());
    }
    for running in [at_one, at_other] {
        let summary = running.stop().await;
        assert!(summary.failures().is_empty(), "{summary:?}");
    }
}

/// A gateway whose store lies on a disk of its own; `None` where nothing can be mounted.
fn on_a_small_disk() -> Option<(Folder, SmallDisk)> {
    let folder = described().toml("[store]\npath = \"../small/store\"").folder();
    let at = folder.path().join("small");
    std::fs::create_dir(&at).unwrap();
    let disk = SmallDisk::mount(&at, 512 * 1024)?;
    Some((folder, disk))
}

#[tokio::test]
async fn a_full_disk_under_the_store_costs_no_caller_anything_and_tells_the_operator() {
    let Some((folder, disk)) = on_a_small_disk() else {
        // Without the right to mount, the test below is what there is.
        return;
    };
    let key = folder.issue_key("acme", "free", &[]);
    let unused = folder.issue_key("acme", "free", &[]);
    let gateway = folder.start().await;
    gateway.get("/").key(&key).send().await.expect_status(200);
    let running = Load::on(gateway.address()).header("x-api-key", &key).rate(100).start();
    disk.fill();
    let list = succeed(&gateway.cli(&["keys", "list"]));
    for line in [
        &["keys", "issue", "acme"][..],
        &["keys", "revoke", &id_of(&key)],
        &["consumers", "add", "other", "--plan", "free"],
    ] {
        let err = refusal(&gateway.cli(line));
        assert!(err.contains("there is no space left for the store"), "{line:?}: {err}");
        assert!(err.contains("nothing was changed: free some space on its disk"), "{err}");
    }
    assert_eq!(succeed(&gateway.cli(&["keys", "list"])), list, "nothing was changed");
    // Reading needs no space: who was not cached is known all the same.
    gateway.get("/").key(&unused).send().await.expect_status(200);
    gateway.get("/").key(&invented()).send().await.expect_status(401);
    running.goes_on(150).await;

    disk.free();
    succeed(&gateway.cli(&["keys", "revoke", &id_of(&unused)]));
    eventually_async("the revocation", async || {
        (gateway.get("/").key(&unused).send().await.status == 401).then_some(())
    })
    .await;
    running.stop().await.expect_only(200);
}

#[tokio::test]
async fn a_start_on_a_full_disk_says_so_and_a_gateway_that_was_killed_comes_back() {
    let Some((mut folder, disk)) = on_a_small_disk() else { return };
    disk.fill();
    let add = ["consumers", "add", "acme", "--plan", "free"];
    for line in [&["run"][..], &add] {
        let err = String::from_utf8_lossy(&folder.cli(line).stderr).into_owned();
        assert!(err.contains("api-key.pepper` cannot be written: No space left"), "{err}");
        assert!(err.contains("or free some space on its disk"), "{err}");
    }
    folder.set_env("API_KEY_PEPPER", PEPPER);
    for line in [&["run"][..], &add] {
        let err = refusal(&folder.cli(line));
        assert!(err.contains("there is no space left for the store"), "{err}");
    }
    disk.free();
    let key = folder.issue_key("acme", "free", &[]);
    disk.fill();
    // What SQLite shares between processes needs some space beside the file.
    assert!(refusal(&folder.cli(&["run"])).contains("there is no space left for the store"));
    disk.free();
    // A gateway that was killed has left it behind.
    let gateway = folder.start().await;
    disk.fill();
    let gateway = gateway.into_folder().start().await;
    gateway.get("/").key(&key).send().await.expect_status(200);
    gateway.get("/").key(&invented()).send().await.expect_status(401);
}

#[test]
fn a_command_that_may_write_no_more_says_so_and_changes_nothing() {
    let folder = described().key("acme", "free").folder();
    let list = succeed(&folder.cli(&["keys", "list"]));
    // What can be tried without the right to mount: no file may grow beyond 8 KiB.
    let command = folder.command();
    let limited = "trap '' XFSZ; ulimit -f 16; exec \"$@\"";
    let output = std::process::Command::new("sh")
        .args(["-c", limited, "sh"])
        .arg(command.get_program())
        .args(command.get_args())
        .args(["keys", "issue", "acme"])
        .env_clear()
        .envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .current_dir(folder.path())
        .output()
        .unwrap();
    let err = refusal(&output);
    assert!(
        err.contains("no space left for the store ") && err.contains("nothing was changed"),
        "{err}"
    );
    assert_eq!(succeed(&folder.cli(&["keys", "list"])), list);
}
