//! Plans and policies that stand in the store as rows, compiled by the compiler of the files.
//!
//! ```text
//! Document ─▶ JSON ─▶ TOML text ─▶ document ─▶ shape ─▶ schema ─▶ compile ─▶ Plan │ PolicyDef
//! ```
//!
//! The text of a row is what its table would look like in a file, so that a report can show the line
//! that is wrong; nobody writes it to a disk.
//!
//! Must stay true: a row that does not compile changes nothing but itself, and nothing else takes its
//! place.

use super::compile::{self, Context};
use super::diagnostic::{Diagnostic, Findings, Report};
use super::document::Document as Tree;
use super::schema::{self, File};
use super::secret::Vault;
use super::source::Sources;
use super::{PolicyDef, shape};
use crate::auth::documents::{Document, DocumentKind};
use crate::expressions::Language;
use crate::limits::Plan;
use http::HeaderName;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Bytes of one row as text.
const MAX_ROW: usize = 256 * 1024;

/// What is in force of the store's rows, and what is wrong with the others.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    plans: BTreeMap<Arc<str>, Plan>,
    policies: BTreeMap<Arc<str>, PolicyDef>,
    refused: Vec<RefusedRow>,
}

/// A row that does not compile.
#[derive(Clone, Debug)]
pub struct RefusedRow {
    /// What it should be.
    pub kind: DocumentKind,
    /// Its name.
    pub name: Arc<str>,
    /// What is wrong with it.
    pub report: Arc<Report>,
    /// Whether what it was before stays in force.
    pub kept: bool,
}

impl Rows {
    /// Plans, by name.
    pub fn plans(&self) -> impl Iterator<Item = &Plan> {
        self.plans.values()
    }

    /// Policies, by name.
    pub fn policies(&self) -> impl Iterator<Item = &PolicyDef> {
        self.policies.values()
    }

    /// The plan of this name.
    #[must_use]
    pub fn plan(&self, name: &str) -> Option<&Plan> {
        self.plans.get(name)
    }

    /// The policy of this name.
    #[must_use]
    pub fn policy(&self, name: &str) -> Option<&PolicyDef> {
        self.policies.get(name)
    }

    /// Rows that do not compile.
    #[must_use]
    pub fn refused(&self) -> &[RefusedRow] {
        &self.refused
    }

    /// Names of rows of which nothing is in force: a table of such a name in the files must not take
    /// their place, since it may let through what the row was written against.
    pub fn withheld(&self, kind: DocumentKind) -> impl Iterator<Item = &Arc<str>> {
        let lost = move |row: &&RefusedRow| row.kind == kind && !row.kept;
        self.refused.iter().filter(lost).map(|row| &row.name)
    }

    /// The same, after `before`: a row that does not compile now stays what it was then.
    #[must_use]
    pub fn after(mut self, before: &Self) -> Self {
        for refused in &mut self.refused {
            let name = &refused.name;
            refused.kept = match refused.kind {
                DocumentKind::Plan => keep(&mut self.plans, name, before.plans.get(name).cloned()),
                DocumentKind::Policy => {
                    keep(&mut self.policies, name, before.policies.get(name).cloned())
                }
            };
        }
        self
    }
}

impl PartialEq for Rows {
    /// By what is in force and what is wrong.
    fn eq(&self, other: &Self) -> bool {
        let wrong = |rows: &Self| -> Vec<_> {
            let told =
                |it: &RefusedRow| (it.kind, Arc::clone(&it.name), it.kept, it.report.to_string());
            rows.refused.iter().map(told).collect()
        };
        self.plans == other.plans && self.policies == other.policies && wrong(self) == wrong(other)
    }
}

fn keep<T>(rows: &mut BTreeMap<Arc<str>, T>, name: &Arc<str>, known: Option<T>) -> bool {
    let kept = known.is_some();
    rows.extend(known.map(|known| (Arc::clone(name), known)));
    kept
}

/// Compiles rows, whose expressions do not read the header that carries API keys. It takes a while for
/// many: not for an event loop.
#[must_use]
pub fn compile_rows(documents: &[Document], key_header: &HeaderName) -> Rows {
    let schema = schema::describe();
    let mut rows = Rows::default();
    for Document { kind, name, body, .. } in documents {
        match compile_row(*kind, name, body, schema.as_value(), key_header) {
            Ok((plans, policies)) => {
                rows.plans.extend(plans.into_iter().map(|plan| (Arc::clone(&plan.name), plan)));
                let named = policies.into_iter().map(|policy| (Arc::clone(&policy.name), policy));
                rows.policies.extend(named);
            }
            Err(report) => rows.refused.push(RefusedRow {
                kind: *kind,
                name: Arc::clone(name),
                report: Arc::new(report),
                kept: false,
            }),
        }
    }
    rows
}

/// Whether a row would be put in force: for those who write it.
///
/// # Errors
/// Everything that is wrong with it.
pub fn check_row(
    kind: DocumentKind,
    name: &str,
    body: &Value,
    key_header: &HeaderName,
) -> Result<(), Report> {
    let schema = schema::describe();
    compile_row(kind, name, body, schema.as_value(), key_header).map(|_| ())
}

/// What is wrong with a row: where, as a JSON pointer (RFC 6901) into its body, and what. For those who
/// wrote it as JSON, and so know nothing of lines.
#[must_use]
pub fn faults_of_row(
    kind: DocumentKind,
    name: &str,
    body: &Value,
    key_header: &HeaderName,
) -> Vec<(String, String)> {
    let Err(report) = check_row(kind, name, body, key_header) else { return Vec::new() };
    let pointers = text(kind, name, body).map(|text| text.pointers).unwrap_or_default();
    let pointer = |line: Option<usize>| {
        line.and_then(|line| pointers.get(line.checked_sub(1)?).cloned()).unwrap_or_default()
    };
    report.by_line().map(|(line, told)| (pointer(line), told)).collect()
}

type Compiled = (Vec<Plan>, Vec<PolicyDef>);

fn compile_row(
    kind: DocumentKind,
    name: &str,
    body: &Value,
    schema: &Value,
    key_header: &HeaderName,
) -> Result<Compiled, Report> {
    let mut findings = Findings::default();
    // What a report shows as the path of its file.
    let shown: String = name.chars().take(64).collect::<String>().escape_debug().to_string();
    let place = format!("{} `{shown}` (a row of the store)", kind.as_str());
    let mut sources = Sources { dir: Path::new(&place).to_owned(), files: Vec::new() };
    let whole = || Diagnostic::error("this cannot be a row").at_file(Path::new(&place));
    match text(kind, name, body) {
        Ok(Text { lines, .. }) if lines.len() <= MAX_ROW => {
            sources.push(Path::new(&place).to_owned(), lines);
        }
        Ok(_) => findings.push(whole().help("it is larger than 256 KiB")),
        Err(reason) => findings.push(whole().help(reason)),
    }
    let sources = Arc::new(sources);
    if !findings.is_clean() {
        return Err(findings.into_report(&sources));
    }
    let mut tree = Tree::parse(&sources, &mut findings);
    let complete = tree.complete;
    let lost = shape::check(&mut tree.root, schema, &mut findings);
    let file = match File::deserialize(tree.into_deserializer()) {
        Ok(file) => file,
        Err(error) => {
            findings.push(whole().help(error.message().to_owned()));
            return Err(findings.into_report(&sources));
        }
    };
    // A row names no secret and no file.
    let nothing = |_: &str| None;
    let vault = Vault::new(Path::new(&place), &nothing);
    let mut cx = Context {
        language: Language::default().hiding(Some(key_header.clone())),
        claims: Vec::new(),
        sources: &sources,
        lost,
        complete,
        findings,
        vault,
        watched: Vec::new(),
    };
    let compiled = compile::compile_row(&file, &mut cx);
    let mut findings = cx.findings;
    match compiled {
        Some(compiled) if findings.is_clean() => Ok(compiled),
        _ => {
            if findings.is_clean() {
                findings.push(whole());
            }
            Err(findings.into_report(&sources))
        }
    }
}

/// A row as its table would stand in a file.
#[derive(Default)]
struct Text {
    lines: String,
    /// What each line is of the row's body, as a JSON pointer.
    pointers: Vec<String>,
}

impl Text {
    fn push(&mut self, pointer: String, line: &str) {
        self.lines.push_str(line);
        self.lines.push('\n');
        self.pointers.push(pointer);
    }
}

fn text(kind: DocumentKind, name: &str, body: &Value) -> Result<Text, String> {
    let table = match kind {
        DocumentKind::Plan => "plans",
        DocumentKind::Policy => "policies",
    };
    let mut out = Text::default();
    let Value::Object(keys) = body else {
        return Err("its body is not an object".to_owned());
    };
    write_table(&mut out, &format!("{table}.{}", bare(name)), "", keys, 0)?;
    Ok(out)
}

/// No table of a plan or a policy is deeper than this.
const DEEPEST: usize = 4;

fn write_table(
    out: &mut Text,
    path: &str,
    pointer: &str,
    keys: &serde_json::Map<String, Value>,
    depth: usize,
) -> Result<(), String> {
    if depth > DEEPEST {
        return Err("it is nested too deeply".to_owned());
    }
    let is_table = |value: &&Value| value.is_object();
    if depth == 0 || keys.is_empty() || !keys.values().all(|value| value.is_object()) {
        out.push(pointer.to_owned(), &format!("[{path}]"));
    }
    let below = |key: &str| format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"));
    for (key, value) in keys.iter().filter(|(_, value)| !is_table(value)) {
        out.push(below(key), &format!("{} = {}", bare(key), inline(value, depth)?));
    }
    for (key, value) in keys {
        if let Value::Object(inner) = value {
            let path = format!("{path}.{}", bare(key));
            write_table(out, &path, &below(key), inner, depth + 1)?;
        }
    }
    Ok(())
}

/// A value that is no table of its own.
fn inline(value: &Value, depth: usize) -> Result<String, String> {
    if depth > DEEPEST {
        return Err("it is nested too deeply".to_owned());
    }
    Ok(match value {
        Value::Null => return Err("it has a `null`; leave the key out instead".to_owned()),
        Value::Bool(_) => value.to_string(),
        Value::Number(number) if number.is_i64() || number.is_f64() => value.to_string(),
        Value::Number(_) => return Err(format!("the number {value} is too large")),
        Value::String(text) => quoted(text),
        Value::Array(items) => {
            let items: Result<Vec<String>, String> =
                items.iter().map(|item| inline(item, depth + 1)).collect();
            format!("[{}]", items?.join(", "))
        }
        Value::Object(keys) => {
            let keys: Result<Vec<String>, String> = (keys.iter())
                .map(|(key, value)| Ok(format!("{} = {}", bare(key), inline(value, depth + 1)?)))
                .collect();
            format!("{{ {} }}", keys?.join(", "))
        }
    })
}

/// A key, with quotes if it needs them.
fn bare(key: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if !key.is_empty() && key.bytes().all(plain) { key.to_owned() } else { quoted(key) }
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for symbol in text.chars() {
        match symbol {
            '"' | '\\' => out.extend(['\\', symbol]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            symbol if symbol.is_control() => {
                let escaped = format!("\\U{:08X}", u32::from(symbol));
                out.push_str(&escaped);
            }
            symbol => out.push(symbol),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::UnixTime;
    use proptest::prelude::*;
    use serde_json::json;

    fn document(kind: DocumentKind, name: &str, body: Value) -> Document {
        Document { kind, name: name.into(), body, updated_at: UnixTime::from_secs(0) }
    }

    const KEY_HEADER: HeaderName = HeaderName::from_static("x-api-key");

    #[test]
    fn a_row_reads_no_credential() {
        let per = json!({ "expr": "request.headers['x-api-key']" });
        let body = json!({ "limits": { "all": { "rate": "5/s", "per": per } } });
        let told = told(DocumentKind::Policy, "gate", &body);
        assert!(told.contains("`x-api-key` carries a credential"), "{told}");
    }

    fn plan(name: &str, rate: &str) -> Document {
        let limits = json!({ "limits": { "requests": { "rate": rate, "burst": 7 } } });
        document(DocumentKind::Plan, name, limits)
    }

    fn told(kind: DocumentKind, name: &str, body: &Value) -> String {
        check_row(kind, name, body, &KEY_HEADER).unwrap_err().to_string()
    }

    #[test]
    fn a_row_is_compiled_as_the_same_table_in_a_file() {
        let policy = json!({
            "scopes": ["read"], "addresses": ["10.0.0.0/8"], "consumers": ["a\"b\\ é"],
            "limits": { "daily": { "quota": "10000/day", "precision": "exact" }, "b": {
                "rate": "1/s", "scope": "task" } },
        });
        let rows = compile_rows(
            &[
                plan("gold", "5/s"),
                document(DocumentKind::Policy, "internal", policy),
                document(DocumentKind::Plan, "empty", json!({})),
            ],
            &KEY_HEADER,
        );
        assert!(rows.refused().is_empty(), "{:?}", rows.refused());
        let rule = &rows.plan("gold").unwrap().rules[0];
        assert_eq!((&*rule.id, &*rule.name), ("plan/gold/requests", "requests"));
        let internal = rows.policy("internal").unwrap();
        let ids: Vec<&str> = internal.rules.iter().map(|rule| &*rule.id).collect();
        assert_eq!(ids, ["policy/internal/b", "policy/internal/daily"]);
        assert!(internal.access.consumers.as_ref().unwrap().contains("a\"b\\ é"));
        assert!(rows.plan("empty").unwrap().rules.is_empty());
    }

    #[test]
    fn what_is_wrong_with_a_row_is_told_with_its_line() {
        let body = json!({ "limits": { "requests": { "rate": "5/sec", "brust": 3 } } });
        let told = told(DocumentKind::Plan, "gold", &body);
        for part in [
            "`5/sec` is not a rate",
            "plan `gold` (a row of the store):4:8",
            "unknown key `brust` in limit `requests` of plan `gold`",
            "did you mean `burst`?",
            "2 errors",
        ] {
            assert!(told.contains(part), "{part}\n{told}");
        }
    }

    #[test]
    fn who_wrote_json_is_told_the_member() {
        let body = json!({
            "limits": { "a/b": { "rate": "5/sec", "brust": 3 }, "second": { "rate": "5/sec" } },
            "scopes": 7,
        });
        let mut told = faults_of_row(DocumentKind::Policy, "gold", &body, &KEY_HEADER);
        told.sort();
        let pointers: Vec<&str> = told.iter().map(|(pointer, _)| &**pointer).collect();
        let expected = [
            "/limits/a~1b",
            "/limits/a~1b/brust",
            "/limits/a~1b/rate",
            "/limits/second/rate",
            "/scopes",
        ];
        assert_eq!(pointers, expected, "{told:?}");
        assert!(told[3].1.starts_with("`5/sec` is not a rate; "), "{told:?}");
        assert!(!told.iter().any(|(_, told)| told.contains('\n') || told.contains("-->")));
        let whole = faults_of_row(DocumentKind::Plan, "gold", &json!([]), &KEY_HEADER);
        assert_eq!(
            whole,
            [(String::new(), "this cannot be a row; its body is not an object".into())]
        );
        assert!(faults_of_row(DocumentKind::Plan, "gold", &json!({}), &KEY_HEADER).is_empty());
    }

    #[test]
    fn what_cannot_be_a_table_is_refused() {
        let deep = json!({ "limits": { "a": { "b": { "c": { "d": { "e": 1 } } } } } });
        for (body, part) in [
            (json!([]), "not an object"),
            (json!({ "limits": null }), "`null`"),
            (json!({ "limits": { "a": { "burst": u64::MAX } } }), "too large"),
            (json!({ "limits": [[[[[[1]]]]]] }), "nested too deeply"),
            (deep, "nested too deeply"),
            (json!({ "limits": { "a": { "rate": 3 } } }), "must be text"),
            (json!({ "limits": { "a": {} } }), "counts nothing"),
            (json!({ "routes": {} }), "unknown key `routes`"),
            (json!({ "limits": { "a": { "rate": "x".repeat(300_000) } } }), "256 KiB"),
        ] {
            let told = told(DocumentKind::Plan, "gold", &body);
            assert!(told.contains(part), "{part}\n{told}");
        }
        assert!(told(DocumentKind::Policy, "a b", &json!({})).contains("is not a name"));
        assert!(told(DocumentKind::Policy, "", &json!({})).contains("is not a name"));
        assert!(told(DocumentKind::Plan, "a.b\"]\n[x", &json!({})).contains("is not a name"));
    }

    #[test]
    fn a_row_that_no_longer_compiles_stays_what_it_was_and_one_that_is_gone_is_gone() {
        let before = compile_rows(&[plan("gold", "5/s"), plan("gone", "5/s")], &KEY_HEADER);
        let now = compile_rows(
            &[plan("gold", "5/sec"), plan("new", "no"), plan("good", "1/s")],
            &KEY_HEADER,
        );
        assert!(now.plan("gold").is_none());
        let now = now.after(&before);
        assert_eq!(now.plan("gold"), before.plan("gold"));
        let names: Vec<&str> = now.plans().map(|plan| &*plan.name).collect();
        assert_eq!(names, ["gold", "good"]);
        let refused: Vec<_> = now.refused().iter().map(|it| (&*it.name, it.kept)).collect();
        assert_eq!(refused, [("gold", true), ("new", false)]);
        assert_eq!(now.withheld(DocumentKind::Plan).map(|it| &**it).collect::<Vec<_>>(), ["new"]);
        assert_eq!(now.withheld(DocumentKind::Policy).count(), 0);
        assert!(now != before && before == before.clone());
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(6, 40, 6, |inner| {
            let key = prop_oneof![
                any::<String>(),
                proptest::sample::select(vec!["limits", "rate", "scopes", "addresses"])
                    .prop_map(str::to_owned),
            ];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(key, inner, 0..6)
                    .prop_map(|keys| Value::Object(keys.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_row_makes_it_panic_and_what_it_writes_is_toml(
            name in any::<String>(),
            body in any_json(),
        ) {
            if let Ok(written) = text(DocumentKind::Policy, &name, &body) {
                prop_assert_eq!(written.lines.lines().count(), written.pointers.len());
                let read: toml::Table = written.lines.parse().unwrap();
                let known = read["policies"].as_table().unwrap();
                prop_assert!(known.contains_key(&name) && read.len() == 1 && known.len() == 1);
            }
            for kind in [DocumentKind::Plan, DocumentKind::Policy] {
                if let Err(report) = check_row(kind, &name, &body, &KEY_HEADER) {
                    prop_assert!(!report.is_empty());
                }
            }
        }
    }
}
