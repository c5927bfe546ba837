//! What the compiler and clippy do not check, as ordinary tests: CONTRIBUTING.md says why.
//!
//! A finding is either mended or put into [`EXCEPTIONS`] with a reason; an exception that no
//! longer excuses anything fails as well.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops where it fails")]

#[path = "tidy/layers.rs"]
mod layers;
#[path = "tidy/source.rs"]
mod source;

use source::{Source, closing, line_of, words};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Rule, file, and why the rule does not apply there.
const EXCEPTIONS: &[(Rule, &str, &str)] =
    &[(Rule::Status, "src/proxy/account.rs", "records what was sent; 499 has no constant")];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Rule {
    Anyhow,
    DenyUnknown,
    Direction,
    Doc,
    Ignore,
    Length,
    Names,
    Pingora,
    Print,
    Statics,
    Status,
}

/// A place, by file and line, and what is wrong there.
type Finding = (String, usize, String);

const MAX_PRODUCTION_LINES: usize = 400;

#[test]
fn a_file_has_at_most_400_production_lines() {
    let long = production().filter_map(|source| {
        let lines = source.production_lines();
        let text = format!("{lines} production lines; split it by idea");
        (lines > MAX_PRODUCTION_LINES).then_some((source.path, 1, text))
    });
    verdict(Rule::Length, long);
}

#[test]
fn a_file_begins_with_what_it_is_for() {
    let bare = everywhere()
        .filter(|source| !source.text.starts_with("//! "))
        .map(|source| (source.path, 1, "no `//!` in the first line".to_owned()));
    verdict(Rule::Doc, bare);
}

#[test]
fn modules_use_only_what_is_below_them() {
    let upward = production().flat_map(|source| {
        let user = layers::module_of(&source.path).map(str::to_owned);
        let uses = layers::uses(&source);
        uses.into_iter().filter_map(move |(at, used)| {
            let user = user.as_deref()?;
            let refused = layers::may_use(user, &used) == Some(false);
            let text = format!("`{user}` may not use `{used}` (see ARCHITECTURE.md)");
            refused.then(|| (source.path.clone(), line_of(&source.code, at), text))
        })
    });
    verdict(Rule::Direction, upward);
}

#[test]
fn every_module_has_a_place_in_the_order() {
    let strangers = production().filter_map(|source| {
        let module = layers::module_of(&source.path)?;
        let text = format!("`{module}` is in no layer: add it to tests/tidy/layers.rs");
        layers::may_use(module, module).is_none().then_some((source.path.clone(), 1, text))
    });
    verdict(Rule::Direction, strangers.collect::<Vec<_>>().into_iter());
}

/// A type whose value changes behind a shared reference.
const INTERIOR: &[&str] = &[
    "Atomic",
    "ArcSwap",
    "Cell",
    "Counter",
    "DashMap",
    "Gauge",
    "Histogram",
    "Lazy",
    "Mutex",
    "Once",
    "Registry",
    "RwLock",
];

#[test]
fn nothing_global_changes() {
    let globals = production().flat_map(|source| {
        let code = source.production.clone();
        let statics = words(&code, "static").filter_map(|at| {
            // Not the lifetime `'static`, nor a bound on it.
            if code[..at].ends_with('\'') {
                return None;
            }
            let rest = &code[at..];
            let end = rest.find(['=', ';', '{']).unwrap_or(rest.len());
            let declared = &rest[..end];
            let changes = declared.starts_with("static mut")
                || INTERIOR.iter().any(|part| declared.contains(part));
            changes.then_some((at, "a static that changes; pass the value to who needs it"))
        });
        let macros = ["thread_local!", "lazy_static!"];
        let macros = macros.into_iter().flat_map(|name| {
            code.match_indices(name).map(|(at, _)| (at, "hidden global state")).collect::<Vec<_>>()
        });
        let found: Vec<_> = statics.chain(macros).collect();
        found
            .into_iter()
            .map(|(at, text)| (source.path.clone(), line_of(&source.code, at), text.to_owned()))
            .collect::<Vec<_>>()
    });
    verdict(Rule::Statics, globals);
}

#[test]
fn the_file_format_denies_unknown_keys() {
    let schema = production().filter(|source| source.path.starts_with("src/config/schema"));
    let open = schema.flat_map(|source| {
        let lax = lax_types(&source.production);
        lax.into_iter()
            .map(|(at, name)| {
                let text = format!("`{name}` takes unknown keys: add deny_unknown_fields");
                (source.path.clone(), line_of(&source.code, at), text)
            })
            .collect::<Vec<_>>()
    });
    verdict(Rule::DenyUnknown, open);
}

/// Types with named fields that derive `Deserialize` and do not deny unknown keys.
fn lax_types(code: &str) -> Vec<(usize, String)> {
    let mut lax = Vec::new();
    for (at, _) in code.match_indices("#[derive(") {
        let derived = &code[at..closing(code, at + 1)];
        if words(derived, "Deserialize").next().is_none() {
            continue;
        }
        // The other attributes, before and after, up to the item itself.
        let attributes_from = code[..at].rfind(['}', ';']).map_or(0, |end| end + 1);
        let mut item = at;
        while code[item..].trim_start().starts_with("#[") {
            item += code[item..].find("#[").unwrap_or(0);
            item = closing(code, item + 1);
        }
        let attributes = &code[attributes_from..item];
        let end = code[item..].find(['{', ';', '(']).map_or(code.len(), |end| item + end);
        let head = &code[item..end];
        let body =
            if code[end..].starts_with('{') { &code[end + 1..closing(code, end)] } else { "" };
        let is_enum = words(head, "enum").next().is_some();
        let named_fields = if is_enum { body.contains('{') } else { !body.is_empty() };
        if named_fields && !attributes.contains("deny_unknown_fields") {
            let name = head.split_whitespace().last().unwrap_or("?");
            lax.push((at, name.to_owned()));
        }
    }
    lax
}

const FORBIDDEN_NAMES: &[&str] = &[
    "common", "core", "handler", "handlers", "helper", "helpers", "manager", "managers", "misc",
    "util", "utils",
];

#[test]
fn modules_are_nouns_of_the_domain() {
    let files = everywhere().flat_map(|source| {
        let by_path = source.path.trim_end_matches(".rs").split('/').map(|name| (1, name));
        let inline = words(&source.code, "mod").map(|at| {
            let name = source.code[at + "mod".len()..].trim_start();
            let end = name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(0);
            (line_of(&source.code, at), &name[..end])
        });
        by_path
            .chain(inline)
            .filter(|(_, name)| FORBIDDEN_NAMES.contains(name))
            .map(|(line, name)| (source.path.clone(), line, format!("`{name}` says nothing")))
            .collect::<Vec<_>>()
    });
    verdict(Rule::Names, files);
}

#[test]
fn only_the_command_line_prints() {
    let outside = production().filter(|source| layers::module_of(&source.path) != Some("cli"));
    let printing = outside.flat_map(|source| {
        mentions(
            source,
            &["print!", "println!", "eprint!", "eprintln!", "dbg!"],
            "only cli/ prints",
        )
    });
    verdict(Rule::Print, printing);
}

/// The statuses of refusals and failures.
const REFUSALS: &[&str] = &[
    "BAD_GATEWAY",
    "BAD_REQUEST",
    "CONFLICT",
    "EXPECTATION_FAILED",
    "FORBIDDEN",
    "GATEWAY_TIMEOUT",
    "GONE",
    "HTTP_VERSION_NOT_SUPPORTED",
    "INTERNAL_SERVER_ERROR",
    "LENGTH_REQUIRED",
    "METHOD_NOT_ALLOWED",
    "NOT_ACCEPTABLE",
    "NOT_FOUND",
    "NOT_IMPLEMENTED",
    "PAYLOAD_TOO_LARGE",
    "REQUEST_HEADER_FIELDS_TOO_LARGE",
    "REQUEST_TIMEOUT",
    "SERVICE_UNAVAILABLE",
    "TOO_MANY_REQUESTS",
    "UNAUTHORIZED",
    "UNSUPPORTED_MEDIA_TYPE",
    "UPGRADE_REQUIRED",
    "URI_TOO_LONG",
];

#[test]
fn only_one_place_picks_the_status_of_a_refusal() {
    // The operator's listener is a server of its own and answers for itself.
    let apart = ["src/proxy/reply.rs", "src/proxy/rejection.rs"];
    let others = production().filter(|source| {
        !apart.contains(&source.path.as_str()) && layers::module_of(&source.path) != Some("admin")
    });
    let picking = others.flat_map(|source| {
        let named: Vec<_> = REFUSALS.iter().map(|name| format!("StatusCode::{name}")).collect();
        let named: Vec<_> = named.iter().map(String::as_str).collect();
        mentions(source, &named, "return a reason; proxy/rejection.rs gives it a status")
    });
    verdict(Rule::Status, picking);
}

#[test]
fn errors_without_a_type_stay_at_the_top() {
    let below = production().filter(|source| {
        !matches!(layers::module_of(&source.path), Some("main" | "cli" | "server"))
    });
    let found = below.flat_map(|source| {
        mentions(source, &["anyhow"], "an enum with thiserror, so that callers can match")
    });
    verdict(Rule::Anyhow, found);
}

#[test]
fn only_proxy_speaks_the_hooks_of_pingora() {
    let outside = production().filter(|source| layers::module_of(&source.path) != Some("proxy"));
    let found =
        outside.flat_map(|source| mentions(source, &["ProxyHttp"], "proxy/ implements the hooks"));
    verdict(Rule::Pingora, found);
}

#[test]
fn no_test_is_left_out() {
    let found = everywhere().flat_map(|source| {
        let ignored = source.code.match_indices("#[ignore").map(|(at, _)| {
            let text = "a test that does not run: mend it, or give it a `make soak` size";
            (source.path.clone(), line_of(&source.code, at), text.to_owned())
        });
        ignored.collect::<Vec<_>>()
    });
    verdict(Rule::Ignore, found);
}

#[test]
fn lax_types_are_found_and_strict_ones_are_not() {
    let code = "\
        #[derive(Deserialize)]\npub struct Lax { a: u8 }\n\
        #[derive(Debug, Deserialize)]\n#[serde(deny_unknown_fields)]\nstruct Strict { a: u8 }\n\
        #[serde(deny_unknown_fields)]\n#[derive(Deserialize)]\nstruct Before { a: u8 }\n\
        #[derive(Deserialize)]\nstruct Tuple(u8);\n\
        #[derive(Deserialize)]\nenum Words { A, B }\n\
        #[derive(Deserialize)]\nenum LaxEnum { A { b: u8 } }\n\
        #[derive(Serialize)]\nstruct Out { a: u8 }\n";
    let names: Vec<_> = lax_types(code).into_iter().map(|(_, name)| name).collect();
    assert_eq!(names, ["Lax", "LaxEnum"]);
}

/// Fails with every finding that no exception excuses, and with every exception not needed.
fn verdict(rule: Rule, findings: impl Iterator<Item = Finding>) {
    let excused = |path: &str| EXCEPTIONS.iter().any(|(of, file, _)| *of == rule && *file == path);
    let (kept, found): (Vec<_>, Vec<_>) = findings.partition(|(path, ..)| excused(path));
    let mut report = String::new();
    for (path, line, text) in found {
        writeln!(report, "  {path}:{line}: {text}").unwrap();
    }
    for (of, file, reason) in EXCEPTIONS {
        if *of == rule && !kept.iter().any(|(path, ..)| path == file) {
            writeln!(report, "  exception for {file} ({reason}) excuses nothing").unwrap();
        }
    }
    assert!(report.is_empty(), "{rule:?}:\n{report}");
}

fn mentions(source: Source, names: &[&str], text: &str) -> Vec<Finding> {
    let code = &source.production;
    let at = names.iter().flat_map(|name| words(code, name));
    at.map(|at| (source.path.clone(), line_of(code, at), text.to_owned())).collect()
}

/// Every file that is part of the program.
fn production() -> impl Iterator<Item = Source> {
    let all: Vec<_> = sources("src").collect();
    let tests: Vec<_> = all.iter().flat_map(Source::test_modules).collect();
    let is_test = move |source: &Source| {
        tests.iter().any(|test| match test.strip_suffix('/') {
            Some(_) => source.path.starts_with(test),
            None => source.path == *test,
        })
    };
    all.into_iter().filter(move |source| !is_test(source))
}

fn everywhere() -> impl Iterator<Item = Source> {
    ["src", "tests", "benches", "examples"].into_iter().flat_map(sources)
}

fn sources(folder: &str) -> impl Iterator<Item = Source> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    rust_files(&root.join(folder), &mut files);
    files.sort();
    files.into_iter().map(move |file| Source::load(&root, &file))
}

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    // A folder that is not there has no files.
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}
