//! Configuration folders against what operators are told about them.
//!
//! `tests/golden/config/*.txt` are cases: the files of a folder, then the report (of a check, `at the
//! start` or `of a reload`). A folder also has
//! a `conf/base.toml` with a listener, the upstream `billing`, the plan `free` and an issuer, unless
//! the case brings its own; a file that is only `<chain>` or `<key>` becomes a certificate or its key.
//! `UPDATE_GOLDEN=1` writes the reports anew; read the difference before it
//! is committed.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test ends where an assumption fails"
)]

use datahub_gateway::cli;
use datahub_gateway::config::{self, Fixed, Loaded, Report, SecretFiles, StoreDef};
use datahub_gateway::limits::{
    Cost, Measure, OnStoreFailure, Precision, Quota, QuotaPeriod, Scope, Subject,
};
use proptest::prelude::*;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const BASE: &str = "\
[listeners.public]
address = \"0.0.0.0:3000\"

[upstreams.billing]
endpoints = [\"10.0.0.1:8080\"]

[plans.free.limits.requests]
rate = \"10/s\"

[auth.jwt.base]
secret = \"env:LONG_SECRET\"
";

fn environment(name: &str) -> Option<OsString> {
    match name {
        "LONG_SECRET" => Some("0123456789abcdef0123456789abcdef".into()),
        "OTHER_SECRET" => Some("fedcba9876543210fedcba9876543210".into()),
        "SHORT_SECRET" => Some("hunter2".into()),
        "EMPTY_SECRET" => Some("".into()),
        "SPACED_SECRET" => Some("0123456789abcdef 0123456789abcdef".into()),
        "GOOD_DATABASE" => Some("postgres://gateway:hunter2@db.internal/gateway".into()),
        "PLAIN_DATABASE" => Some("postgres://gateway:hunter2@db/gateway?sslmode=disable".into()),
        "GOOD_REDIS" => Some("rediss://:hunter2@redis.internal:6379".into()),
        "PLAIN_REDIS" => Some("redis://:hunter2@redis.internal:6379".into()),
        "ODD_MODE" => Some("postgres://gateway:hunter2@db/gateway?sslmode=bogus".into()),
        "NO_ROOT" => Some("postgres://gateway:hunter2@db/gateway?sslrootcert=/nope.pem".into()),
        "ODD_OPTION" => Some("postgres://gateway:hunter2@db/gateway?schema=x".into()),
        "TWO_SIGNS" => Some("postgres://gateway:hunter2@x?hunter2=1@db/gateway".into()),
        "THIRD_REDIS" => Some("redis://:hunter2@redis/3".into()),
        "ODD_PORT" => Some("redis://:hunter2@redis:x".into()),
        "NO_HOST" => Some("redis://user:hunter2@/0".into()),
        _ => None,
    }
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A folder that exists as long as this value.
struct Folder(TempDir);

impl Folder {
    /// Files by their path from the folder that contains `conf`; all private.
    fn with(files: &[(&str, &str)]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        std::fs::create_dir(folder.conf()).unwrap();
        for (path, text) in files {
            folder.write(path, text, 0o600);
        }
        folder
    }

    fn write(&self, path: &str, text: impl AsRef<[u8]>, mode: u32) {
        let path = self.0.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    }

    fn conf(&self) -> PathBuf {
        self.0.path().join("conf")
    }

    fn load(&self) -> Result<Loaded, Report> {
        self.load_with(SecretFiles::Leave)
    }

    fn load_with(&self, secrets: SecretFiles) -> Result<Loaded, Report> {
        config::load_in(&self.conf(), secrets, &environment)
    }

    fn told(&self, report: &Report) -> String {
        report.to_string().replace(&format!("{}/", self.0.path().display()), "")
    }
}

/// The files of a case, what becomes of missing secrets, and the report that is expected.
fn case(text: &str) -> (Vec<(String, u32, String)>, SecretFiles, String) {
    let mut files: Vec<(String, u32, String)> = Vec::new();
    let mut secrets = SecretFiles::Leave;
    let mut lines = text.split_inclusive('\n');
    for line in &mut lines {
        match line.trim_end().strip_prefix("--- ") {
            Some("report") => break,
            Some("report at the start") => {
                secrets = SecretFiles::Create;
                break;
            }
            Some("report of a reload") => {
                secrets = SecretFiles::Keep;
                break;
            }
            Some(header) => {
                let (path, mode) = header.split_once(" mode ").unwrap_or((header, "600"));
                files.push((path.into(), u32::from_str_radix(mode, 8).unwrap(), String::new()));
            }
            None => files.last_mut().unwrap().2.push_str(line),
        }
    }
    (files, secrets, lines.collect())
}

#[test]
fn every_error_is_told_with_its_place_its_reason_and_a_way_out() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = String::new();
    let mut cases = 0;
    for entry in std::fs::read_dir(repository("tests/golden/config")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let (files, secrets, expected) = case(&text);
        let own = files.iter().any(|(file, ..)| file.starts_with("conf/base."));
        let folder = Folder::with(if own { &[] } else { &[("conf/base.toml", BASE)] });
        let (chain, key) = certificate("api.example.com");
        let authority = authority();
        for (file, mode, text) in &files {
            let text = match text.trim_end() {
                "<chain>" => &chain,
                "<key>" => &key,
                "<authority>" => &authority,
                _ => text,
            };
            folder.write(file, text, *mode);
        }
        let told = match folder.load_with(secrets) {
            Err(report) => folder.told(&report),
            Ok(loaded) if loaded.warnings.is_empty() => "nothing".to_owned(),
            Ok(loaded) => folder.told(&loaded.warnings),
        } + "\n";
        cases += 1;
        if update {
            let head = text.strip_suffix(&expected).unwrap();
            std::fs::write(&path, format!("{head}{told}")).unwrap();
        } else if told != expected {
            writeln!(wrong, "{}\nexpected:\n{expected}\nis:\n{told}", path.display()).unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(cases >= 40);
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap().path();
        let target = to.join(entry.file_name().unwrap());
        if entry.is_dir() {
            copy(&entry, &target);
        } else {
            std::fs::copy(&entry, &target).unwrap();
        }
    }
}

/// What a task of a fleet is given.
fn fleet(name: &str) -> Option<OsString> {
    match name {
        "DATABASE_URL" | "DATABASE_REPLICA_URL" => Some("postgresql://gateway@db/gateway".into()),
        "REDIS_URL" => Some("rediss://redis:6379".into()),
        "API_KEY_PEPPER" | "JWT_SECRET" | "ADMIN_TOKEN_DEPLOY" | "ADMIN_TOKEN_SUPPORT" => {
            Some(format!("{name}{}", "x".repeat(32)).into())
        }
        _ => None,
    }
}

/// A certificate for a name, and its key.
fn certificate(name: &str) -> (String, String) {
    let pair = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    (pair.cert.pem(), pair.signing_key.serialize_pem())
}

/// The certificate of one that may sign others.
fn authority() -> String {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
}

#[test]
fn the_shipped_configuration_and_its_examples_can_be_run() {
    let shipped = repository("conf");
    let loaded = config::load_in(&shipped, SecretFiles::Leave, &|_| None).unwrap();
    assert_eq!((loaded.files, loaded.warnings.len()), (5, 0));

    let mut examples = 0;
    for entry in std::fs::read_dir(shipped.join("examples")).unwrap() {
        let entry = entry.unwrap();
        let folder = Folder::with(&[]);
        copy(&entry.path(), &folder.conf());
        let (chain, key) = certificate("api.example.com");
        if entry.file_name() == "tls" {
            folder.write("conf/tls/chain.pem", &chain, 0o644);
            folder.write("conf/tls/private-ca.pem", &chain, 0o644);
            folder.write("conf/tls/partners.pem", authority(), 0o644);
            folder.write("conf/tls/key.pem", &key, 0o600);
        }
        let given: &dyn Fn(&str) -> Option<OsString> =
            if entry.file_name() == "fleet" { &fleet } else { &|_| None };
        let loaded = config::load_in(&folder.conf(), SecretFiles::Leave, given)
            .unwrap_or_else(|report| panic!("{:?}\n{report}", entry.file_name()));
        assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
        let tls = usize::from(entry.file_name() == "tls");
        assert_eq!(loaded.config.certificates.len(), 2 * tls);
        assert_eq!(loaded.config.clients.len(), tls);
        examples += 1;
    }
    assert_eq!(examples, 7);
}

#[test]
fn a_check_ends_with_failure_only_if_something_is_wrong() {
    let listener = "[listeners.public]\naddress = \"127.0.0.1:0\"\n";
    let good = Folder::with(&[("conf/base.toml", listener)]);
    let bad = Folder::with(&[("conf/base.toml", "workers = \"many\"")]);
    let shown = |folder: &Folder| format!("{:?}", cli::check::check(&folder.conf()));
    assert_eq!(shown(&good), format!("{:?}", std::process::ExitCode::SUCCESS));
    assert_eq!(shown(&bad), format!("{:?}", std::process::ExitCode::FAILURE));
}

#[test]
fn what_runs_is_what_the_files_say() {
    let folder = Folder::with(&[("conf/base.toml", BASE)]);
    folder.write("conf/.hidden.toml", "not TOML", 0o600);
    folder.write("conf/notes.txt", "not TOML", 0o600);
    folder.write("conf/below/more.toml", "not TOML", 0o600);
    folder.write(
        "conf/routes.toml",
        r#"
        [routes.orders]
        path = ["/orders", "/v1/orders/*"]
        hosts = ["API.example.com"]
        auth = "jwt"
        upstream = "billing"
        timeouts = { per_try = "1s" }
        "#,
        0o600,
    );
    let loaded = folder.load().unwrap();
    let config = &loaded.config;
    let route = config.routes.first().unwrap();
    assert_eq!((config.routes.len(), route.matcher.paths.len(), loaded.files), (1, 2, 2));
    let config::ActionDef::Proxy { upstream, timeouts, stream: false } = &route.action else {
        panic!("{:?}", route.action)
    };
    let seconds = [timeouts.connect, timeouts.per_try, timeouts.total].map(|it| it.as_secs());
    assert_eq!((upstream.as_ref(), seconds), ("billing", [2, 1, 30]));
    let measure = config.plans.first().unwrap().rules.first().unwrap().measure;
    assert!(matches!(measure, Measure::Rate { burst, .. } if burst.get() == 10), "{measure:?}");
    assert_eq!(config.issuers.len(), 1);
}

#[test]
fn limits_and_policies_say_all_that_a_rule_can_be() {
    let folder = Folder::with(&[("conf/base.toml", BASE)]);
    folder.write(
        "conf/more.toml",
        r#"
        [plans.gold.limits.month]
        quota = "3000000/month"

        [policies.heavy]
        plans = ["gold", "free"]

        [policies.heavy.limits.each]
        rate = "10/min"
        per = "consumer"
        precision = "exact"
        on_store_failure = "closed"

        [routes.reports]
        path = "/reports"
        auth = "jwt"
        upstream = "billing"
        class = "heavy"
        policies = ["heavy"]

        [routes.reports.limits.flood]
        rate = "5/s"
        scope = "task"

        [routes.reports.limits.heavy]
        rate = "50/s"
        cost = 50
        per = { claim = "tenant" }

        [routes.reports.limits.parallel]
        concurrency = 10
        per = { header = "X-Tenant" }
        "#,
        0o600,
    );
    let config = folder.load().unwrap().config;
    let of_plan = &config.plans.iter().find(|plan| &*plan.name == "gold").unwrap().rules[0];
    let quota = Quota { permits: 3_000_000.try_into().unwrap(), per: QuotaPeriod::Month };
    assert_eq!(of_plan.measure, Measure::Quota(quota));
    assert_eq!(of_plan.subject, Subject::Consumer);
    let default = (Scope::Fleet, Precision::Leased, OnStoreFailure::Share);
    assert_eq!((of_plan.scope, of_plan.precision, of_plan.on_store_failure), default);

    let [heavy] = &config.policies[..] else { panic!("{:?}", config.policies) };
    let rule = &heavy.rules[0];
    assert_eq!((&*rule.id, &rule.subject), ("policy/heavy/each", &Subject::Consumer));
    assert_eq!(rule.precision, Precision::Exact);
    assert_eq!(rule.on_store_failure, OnStoreFailure::Closed);
    assert!(heavy.access.plans.as_ref().unwrap().contains("free"));

    let [reports] = &config.routes[..] else { panic!("{:?}", config.routes) };
    assert_eq!((&*reports.class, &*reports.policies[0]), ("heavy", "heavy"));
    let rule = &reports.limits[0];
    assert_eq!((rule.scope, &rule.subject), (Scope::Task, &Subject::Route));
    let [_, heavy, parallel] = &reports.limits[..] else { panic!("{:?}", reports.limits) };
    let fifty = 50.try_into().unwrap();
    assert_eq!(
        (heavy.cost.clone(), &heavy.subject),
        (Cost::Fixed(fifty), &Subject::Claim("tenant".into()))
    );
    assert_eq!(parallel.measure, Measure::Concurrency(10.try_into().unwrap()));
    let header = http::HeaderName::from_static("x-tenant");
    assert_eq!((parallel.scope, &parallel.subject), (Scope::Task, &Subject::Header(header)));
}

#[test]
fn missing_secrets_are_made_only_for_a_configuration_that_can_be_run() {
    let folder = Folder::with(&[("conf/base.toml", BASE), ("conf/jwt.toml", "[auth.jwt.own]\n")]);
    folder.write("conf/bad.toml", "workers = 0\n", 0o600);
    let load = || config::load_in(&folder.conf(), SecretFiles::Create, &environment);
    let data = folder.0.path().join("data");

    assert!(load().is_err());
    assert!(!data.exists());

    folder.write("conf/bad.toml", "workers = 1\n", 0o600);
    let (first, second) = (load().unwrap(), load().unwrap());
    let secrets = |loaded: &Loaded| {
        (loaded.config.api_key.pepper.clone(), loaded.config.issuers[1].keys.clone())
    };
    assert_eq!(secrets(&first), secrets(&second));
    let text = |name: &str| std::fs::read_to_string(data.join(name)).unwrap();
    assert_ne!(text("api-key.pepper"), text("jwt.secret"));
    for name in ["api-key.pepper", "jwt.secret"] {
        assert!(!format!("{:?}", first.config).contains(text(name).trim_end()), "{name}");
    }
    for name in ["api-key.pepper", "jwt.secret"] {
        let mode = std::fs::metadata(data.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(first.watched.iter().any(|path| path.ends_with(name)));
        assert!(first.created.iter().any(|path| path.ends_with(name)));
    }
    assert_eq!((first.created.len(), second.created.len()), (2, 0));
}

#[test]
fn a_lost_secret_is_never_replaced_by_a_reload_and_a_pepper_never_beside_a_store() {
    let folder = Folder::with(&[("conf/base.toml", BASE), ("conf/jwt.toml", "[auth.jwt.own]\n")]);
    let data = folder.0.path().join("data");
    let report = folder.load_with(SecretFiles::Keep).unwrap_err();
    assert!(!data.exists());
    for name in ["api-key.pepper", "jwt.secret"] {
        assert!(report.watched().iter().any(|path| path.ends_with(name)), "it may come back");
    }

    folder.write("data/gateway.db", "", 0o600);
    for secrets in [SecretFiles::Create, SecretFiles::Keep, SecretFiles::Leave] {
        let report = folder.load_with(secrets).unwrap_err().to_string();
        assert!(report.contains("pepper"), "{secrets:?}: {report}");
        let made = ["api-key.pepper", "jwt.secret"].map(|name| data.join(name).exists());
        assert_eq!(made, [false, false], "{secrets:?}");
    }
    folder.write("data/api-key.pepper", "p".repeat(32), 0o600);
    let before = folder.load_with(SecretFiles::Create).unwrap();
    assert_eq!(before.created, [folder.conf().join("../data/jwt.secret")]);
    let kept = folder.load_with(SecretFiles::Keep).unwrap();
    assert_eq!(kept.config, before.config);
}

const SECURE: &str = "
[listeners.secure]
address = \"127.0.0.1:0\"
tls = { certificate = \"tls/chain.pem\", key = \"file:tls/key.pem\" }
";

#[test]
fn a_renewed_certificate_is_taken_and_a_wrong_key_is_not() {
    let folder = Folder::with(&[("conf/base.toml", BASE), ("conf/tls.toml", SECURE)]);
    let (chain, key) = certificate("a.example.com");
    folder.write("conf/tls/chain.pem", &chain, 0o644);
    folder.write("conf/tls/key.pem", &key, 0o600);
    let before = folder.load().unwrap();
    assert!(before.watched.iter().any(|path| path.ends_with("tls/chain.pem")));
    assert!(before.watched.iter().any(|path| path.ends_with("tls/key.pem")));
    assert_eq!(before.config.certificates, folder.load().unwrap().config.certificates);

    let (chain, other_key) = certificate("a.example.com");
    folder.write("conf/tls/chain.pem", &chain, 0o644);
    let report = folder.load().unwrap_err().to_string();
    assert!(report.contains("the key does not belong to the certificate"), "{report}");
    assert!(!report.contains("BEGIN"));

    folder.write("conf/tls/key.pem", &other_key, 0o600);
    let after = folder.load().unwrap();
    assert_ne!(before.config.certificates, after.config.certificates);
    after.check_fixed(&before.config.fixed).unwrap();
}

#[test]
fn what_needs_a_restart_is_said_with_its_place() {
    let folder = Folder::with(&[("conf/base.toml", BASE)]);
    folder.write("conf/more.toml", "[listeners.extra]\naddress = \"127.0.0.1:0\"\n", 0o600);
    let running: Fixed = folder.load().unwrap().config.fixed;
    folder.load().unwrap().check_fixed(&running).unwrap();

    folder.write("conf/base.toml", BASE.replace("0.0.0.0:3000", "0.0.0.0:4000"), 0o600);
    folder.write(
        "conf/more.toml",
        "workers = 3\n\n[admin]\naddress = \"off\"\n\n[store]\npath = \"other.db\"\n\n\
         [listeners.added]\naddress = \"127.0.0.1:0\"\n",
        0o600,
    );
    let report = folder.load().unwrap().check_fixed(&running).unwrap_err();
    let told = folder.told(&report);
    for part in [
        "a change of `workers` needs a restart",
        "conf/more.toml:1:11",
        "running: 127.0.0.1:9901",
        "conf/more.toml:4:11",
        "a change of the store needs a restart",
        "a change of listener `public` needs a restart",
        "running: 0.0.0.0:3000",
        "the new listener `added` needs a restart",
        "removing listener `extra` needs a restart",
        "6 errors",
    ] {
        assert!(told.contains(part), "{part}\n{told}");
    }
}

#[test]
fn four_variables_are_all_that_a_fleet_needs() {
    let issuer = "[auth.jwt.default]\n[fleet]\nexpected = 3\n";
    let listener = "[listeners.public]\naddress = \"127.0.0.1:0\"\n";
    let folder = Folder::with(&[("conf/base.toml", listener), ("conf/more.toml", issuer)]);
    let with = |names: &'static [&'static str]| {
        let given = move |name: &str| fleet(name).filter(|_| names.contains(&name));
        config::load_in(&folder.conf(), SecretFiles::Create, &given)
    };
    let names = &["DATABASE_URL", "REDIS_URL", "JWT_SECRET", "API_KEY_PEPPER"];
    let loaded = with(names).unwrap();
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
    let fixed = loaded.config.fixed;
    let StoreDef::Postgres(postgres) = &fixed.store else { panic!("{:?}", fixed.store) };
    assert_eq!(postgres.url.expose(), "postgresql://gateway@db/gateway");
    assert_eq!((postgres.pool.get(), postgres.lookups_per_second.get()), (10, 5000));
    assert_eq!(fixed.redis.as_ref().unwrap().url.expose(), "rediss://redis:6379");
    assert_eq!((fixed.fleet.expected.get(), fixed.cache.keys.get()), (3, 50_000));
    assert!(postgres.replica_url.is_none() && fixed.admin.tokens.is_empty());
    assert!(!format!("{fixed:?}").contains("//"), "a URL is a secret: {fixed:?}");

    // Each of the secrets is missed, and none is made.
    for (names, variable) in [
        (&["DATABASE_URL", "REDIS_URL", "JWT_SECRET"][..], "API_KEY_PEPPER"),
        (&["DATABASE_URL", "REDIS_URL", "API_KEY_PEPPER"], "JWT_SECRET"),
    ] {
        let told = folder.told(&with(names).unwrap_err());
        assert!(told.contains(&format!("set `{variable}`")), "{told}");
        assert!(told.starts_with("error: ") && told.ends_with("1 error"), "{told}");
    }
    // Who prepares the store needs its URL only.
    let only = |name: &str| fleet(name).filter(|_| name == "DATABASE_URL");
    assert!(matches!(
        config::load_store_in(&folder.conf(), &only),
        Ok(StoreDef::Postgres(found)) if found == *postgres
    ));
    let example = config::load_store_in(&repository("conf/examples/fleet"), &only);
    assert!(matches!(example, Ok(StoreDef::Postgres(_))), "{example:?}");
    let told = folder.told(&with(&["DATABASE_REPLICA_URL"]).unwrap_err());
    assert!(told.contains("there is a replica, but no primary"), "{told}");
    assert!(!folder.0.path().join("data").exists());
}

#[test]
fn the_admin_api_has_one_token_by_a_variable_or_several_by_name() {
    let folder = Folder::with(&[("conf/base.toml", BASE)]);
    let given = |name: &str| {
        let token = (name == "ADMIN_TOKEN").then(|| "0123456789abcdef0123456789ABCDEF".into());
        token.or_else(|| environment(name))
    };
    let tokens = || {
        let loaded = config::load_in(&folder.conf(), SecretFiles::Leave, &given).unwrap();
        let tokens = loaded.config.fixed.admin.tokens;
        assert!(!format!("{tokens:?}").contains("0123"));
        let shown =
            |token: config::AdminToken| (token.name.to_string(), token.token.expose().to_owned());
        tokens.into_iter().map(shown).collect::<Vec<_>>()
    };
    let from = |name: &str, token: &str| (name.to_owned(), token.to_owned());
    assert_eq!(tokens(), [from("default", "0123456789abcdef0123456789ABCDEF")]);
    folder.write(
        "conf/more.toml",
        "[admin.tokens.ci]\ntoken = \"env:LONG_SECRET\"\n\
         [admin.tokens.bob]\ntoken = \"file:bob.token\"\n",
        0o600,
    );
    folder.write("conf/bob.token", "b".repeat(32) + "\n", 0o600);
    let long = "0123456789abcdef0123456789abcdef";
    assert_eq!(tokens(), [from("bob", &"b".repeat(32)), from("ci", long)]);
}

#[test]
fn the_region_of_cloudwatch_is_found_as_by_every_aws_client() {
    let load = |text: &str, variables: &[(&str, &str)]| {
        let folder = Folder::with(&[("conf/base.toml", BASE), ("conf/aws.toml", text)]);
        let environment = |name: &str| {
            let given = variables.iter().find(|(variable, _)| *variable == name);
            given.map(|(_, value)| OsString::from(*value)).or_else(|| environment(name))
        };
        let loaded = config::load_in(&folder.conf(), SecretFiles::Leave, &environment);
        loaded.map(|loaded| loaded.config.fixed.cloudwatch).map_err(|it| folder.told(&it))
    };
    let both = [("AWS_DEFAULT_REGION", "eu-west-1"), ("AWS_REGION", "us-east-1")];
    let named = "[cloudwatch]\nregion = \"us-west-2\"";
    for (text, variables, region) in [
        ("", &[][..], None),
        ("", &both[..], Some("us-east-1")),
        ("", &both[..1], Some("eu-west-1")),
        ("", &[("AWS_REGION", ""), both[0]], Some("eu-west-1")),
        (named, &both[..], Some("us-west-2")),
        ("[cloudwatch]\nregion = \"off\"", &both[..], None),
    ] {
        assert_eq!(load(text, variables).unwrap().region.as_deref(), region, "{variables:?}");
    }
    let told = load("", &[("AWS_REGION", "nowhere")]).unwrap_err();
    assert!(told.contains("`AWS_REGION`: no region has such a name"), "{told}");
    let found = load(named, &[]).unwrap();
    assert_eq!((&*found.environment, found.interval.as_secs()), ("development", 60));
    assert!(found.upstreams.is_empty() && found.endpoint.is_none());
}

#[test]
fn what_goes_to_cloudwatch_needs_a_restart_and_other_upstreams_do_not() {
    let folder = Folder::with(&[("conf/base.toml", BASE)]);
    folder.write("conf/aws.toml", "[cloudwatch]\nregion = \"us-east-1\"", 0o600);
    let running = folder.load().unwrap().config.fixed;
    folder.write("conf/more.toml", "[upstreams.a]\nendpoints = [\"10.0.0.2:80\"]", 0o600);
    folder.load().unwrap().check_fixed(&running).unwrap();
    folder.write("conf/aws.toml", "[cloudwatch]\nregion = \"us-west-2\"", 0o600);
    let told = folder.told(&folder.load().unwrap().check_fixed(&running).unwrap_err());
    for part in ["a change of what goes to CloudWatch", "conf/aws.toml:2:10", "running: us-east-1"]
    {
        assert!(told.contains(part), "`{part}` is not in:\n{told}");
    }
}

#[test]
fn what_a_fleet_shares_needs_a_restart_and_no_url_is_told() {
    let pepper = "[auth.api_key]\npepper = \"env:LONG_SECRET\"\n";
    let folder = Folder::with(&[("conf/base.toml", BASE), ("conf/pepper.toml", pepper)]);
    let (chain, _) = certificate("ca.example.com");
    folder.write("conf/ca.pem", &chain, 0o644);
    let fleet = |postgres: &str, redis: &str, rest: &str| {
        format!("[store.postgres]\n{postgres}\n[redis]\n{redis}\n{rest}\n")
    };
    let good = fleet(
        "url = \"env:GOOD_DATABASE\"",
        "url = \"env:GOOD_REDIS\"",
        "[fleet]\nexpected = 3\n[admin.tokens.ci]\ntoken = \"env:LONG_SECRET\"",
    );
    folder.write("conf/fleet.toml", &good, 0o600);
    let running = folder.load().unwrap().config.fixed;
    folder.load().unwrap().check_fixed(&running).unwrap();
    let told = |text: &str| {
        folder.write("conf/fleet.toml", text, 0o600);
        let report = folder.load().unwrap().check_fixed(&running).unwrap_err();
        let told = folder.told(&report);
        assert!(!told.contains("hunter2") && !told.contains("internal"), "{told}");
        told
    };
    let all = told(&fleet(
        "url = \"env:PLAIN_DATABASE\"",
        "url = \"env:PLAIN_REDIS\"",
        "[fleet]\nexpected = 4\n[cache]\nkeys = 9\n",
    ));
    for part in [
        "a change of the store needs a restart",
        "conf/fleet.toml:2:7",
        "running: another URL",
        "a change of Redis needs a restart",
        "running: another one",
        "a change of `expected` needs a restart",
        "running: 3",
        "a change of the cache needs a restart",
        "a change of the admin tokens needs a restart",
        "running: ci",
        "5 errors",
    ] {
        assert!(all.contains(part), "{part}\n{all}");
    }
    let with_ca = good.replace("DATABASE\"", "DATABASE\"\nca = \"ca.pem\"");
    assert!(told(&with_ca).contains("running: another authority"));
    assert!(told(&good.replace("DATABASE\"", "DATABASE\"\npool = 9")).contains("pool = 10"));
    assert!(told("").contains("running: PostgreSQL"));
}

#[test]
fn a_folder_that_is_too_much_is_refused() {
    let folder = Folder::with(&[("conf/base.toml", BASE)]);
    folder.write("conf/large.toml", "#".repeat(1024 * 1024 + 1), 0o600);
    folder.write("conf/binary.toml", b"a = 1\n\xff\xfe", 0o600);
    std::os::unix::fs::symlink("absent", folder.conf().join("dangling.toml")).unwrap();
    let report = folder.load().unwrap_err();
    let told = folder.told(&report);
    for part in ["it is larger than 1 MiB", "line 2 is not UTF-8", "No such file", "3 errors"] {
        assert!(told.contains(part), "{part}\n{told}");
    }
    assert!(report.summary().starts_with("3 errors; first: "), "{}", report.summary());

    let many = Folder::with(&[("conf/base.toml", BASE)]);
    for number in 0..256 {
        many.write(&format!("conf/{number}.toml"), "", 0o600);
    }
    assert!(many.load().unwrap_err().to_string().contains("more than 256 files"));

    let nowhere = config::load_in(Path::new("/absent"), SecretFiles::Leave, &environment);
    assert!(nowhere.unwrap_err().to_string().contains("--conf"));
}

#[test]
fn a_thousand_mistakes_make_a_short_report() {
    let text: String = (0..1000).map(|number| format!("[routes.r{number}]\n")).collect();
    let folder = Folder::with(&[("conf/base.toml", BASE), ("conf/routes.toml", &text)]);
    let report = folder.load().unwrap_err();
    let told = report.to_string();
    assert_eq!(report.len(), 3000);
    assert!(told.contains("(and 2900 more, not shown)") && told.ends_with("3000 errors"));
    assert!(told.len() < 100_000);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let folder = Folder::with(&[]);
        folder.write("conf/any.toml", bytes, 0o600);
        if let Err(report) = folder.load() {
            prop_assert!(!report.to_string().is_empty());
        }
    }

    #[test]
    fn no_change_of_the_shipped_files_makes_it_panic(
        file in 0..5_usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0..6_u8, any::<char>()), 1..8),
    ) {
        let folder = Folder::with(&[]);
        for (index, name) in ["gateway", "plans", "policies", "routes", "upstreams"].iter().enumerate() {
            let path = format!("conf/{name}.toml");
            let mut text = std::fs::read_to_string(repository(&path)).unwrap();
            if index == file {
                for (at, kind, symbol) in &changes {
                    change(&mut text, at, *kind, *symbol);
                }
            }
            folder.write(&path, text, 0o600);
        }
        match folder.load() {
            Ok(loaded) => prop_assert!(!loaded.config.fixed.listeners.is_empty()),
            Err(report) => prop_assert!(report.to_string().contains("error")),
        }
    }
}

/// One slip of an operator's hand.
fn change(text: &mut String, at: &prop::sample::Index, kind: u8, symbol: char) {
    const LIKELY: [&str; 8] = ["\"", "[", "]", "{", "=", "\n", "# ", "."];
    let at = text.floor_char_boundary(at.index(text.len() + 1));
    let rest = text[at..].to_owned();
    let line = rest.find('\n').map_or(rest.len(), |end| end + 1);
    match kind {
        0 => text.truncate(at),
        1 => text.insert(at, symbol),
        2 => text.insert_str(at, LIKELY[symbol as usize % LIKELY.len()]),
        3 => text.insert_str(at, &rest[..line]),
        4 => text.replace_range(at..at + line, ""),
        _ => *text = text.replacen("# ", "", 1 + symbol as usize % 60),
    }
}

#[test]
fn nesting_cannot_exhaust_the_stack() {
    for dots in [1, 7, 8, 79] {
        let dotted = vec!["a"; dots].join(".");
        for depth in [4, 7, 8, 9, 16, 70] {
            let tables = format!("{}1{}", format!("{{{dotted}=").repeat(depth), "}".repeat(depth));
            let lists = format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
            for value in [tables, lists] {
                let folder = Folder::with(&[("conf/base.toml", BASE)]);
                folder.write("conf/deep.toml", format!("{dotted} = {value}\n"), 0o600);
                assert!(folder.load().is_err());
            }
        }
    }
    let open = "[".repeat(100_000);
    assert!(Folder::with(&[("conf/a.toml", &format!("a = {open}"))]).load().is_err());
}
