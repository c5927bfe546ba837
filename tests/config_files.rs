//! The files of `conf/` and its JSON Schema against what the gateway reads.

#![expect(clippy::unwrap_used, reason = "a test ends where an assumption fails")]

use datahub_gateway::config;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn conf() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conf")
}

/// `UPDATE_GOLDEN=1` writes it anew.
#[test]
fn the_schema_for_editors_is_current() {
    let path = conf().join("schema.json");
    let current = format!("{:#}\n", config::json_schema());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &current).unwrap();
    }
    assert!(std::fs::read_to_string(&path).unwrap() == current, "run with UPDATE_GOLDEN=1");
}

/// Every `*.toml` of a folder and its folders.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "toml") {
            found.push(path);
        }
    }
    found
}

#[test]
fn every_shipped_file_names_the_schema_first() {
    for path in files(&conf()) {
        let text = std::fs::read_to_string(&path).unwrap();
        let schema = text.lines().next().unwrap().strip_prefix("#:schema ").unwrap();
        let schema = path.parent().unwrap().join(schema);
        assert_eq!(schema.canonicalize().unwrap(), conf().join("schema.json"), "{path:?}");
    }
}

/// A file as it is, and with the keys that stand behind a `#`.
fn shown(path: &Path) -> (Value, Value) {
    let text = std::fs::read_to_string(path).unwrap();
    let uncommented: String = (text.lines())
        .map(|line| match line.strip_prefix("# ") {
            Some(key) if is_key(key) => format!("{key}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    (toml::from_str(&text).unwrap(), toml::from_str(&uncommented).unwrap())
}

fn is_key(line: &str) -> bool {
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    line.starts_with('[')
        || line.split_once(" = ").is_some_and(|(key, value)| plain(key) && !value.is_empty())
}

struct Walk {
    schema: Value,
    seen: BTreeSet<String>,
    wrong: Vec<String>,
}

impl Walk {
    fn resolve<'s>(&'s self, mut schema: &'s Value) -> &'s Value {
        loop {
            let wrapped = schema.get("allOf").and_then(|all| all.get(0));
            let named = schema.get("$ref").and_then(Value::as_str);
            match wrapped.or(named.and_then(|name| self.schema.pointer(&name[1..]))) {
                Some(inner) => schema = inner,
                None => return schema,
            }
        }
    }

    /// Every key that the schema knows, as a path with `*` for names.
    fn known(&self, schema: &Value, path: &str, known: &mut BTreeSet<String>) {
        let schema = self.resolve(schema);
        for (key, inner) in
            schema.get("properties").and_then(Value::as_object).into_iter().flatten()
        {
            let path = format!("{path}.{key}");
            self.known(inner, &path, known);
            known.insert(path);
        }
        if let Some(inner) = schema.get("additionalProperties").filter(|it| it.is_object()) {
            self.known(inner, &format!("{path}.*"), known);
        }
    }

    /// Notes what a file shows, and compares what is behind a `#` with the default.
    fn shown(&mut self, schema: &Value, given: Option<&Value>, shown: &Value, path: &str) {
        let resolved = self.resolve(schema).clone();
        self.seen.insert(path.to_owned());
        if given.is_none()
            && let Some(default) = schema.get("default").or_else(|| resolved.get("default"))
            // What a table of names shows is an example.
            && default != &serde_json::json!({})
            && default != shown
        {
            self.wrong.push(format!("{path}: shown as {shown}, is {default}"));
        }
        for (key, value) in shown.as_object().into_iter().flatten() {
            let given = given.and_then(|it| it.get(key));
            let named = resolved.get("properties").and_then(|keys| keys.get(key));
            let named = named.map(|inner| (inner, format!("{path}.{key}")));
            let any = resolved.get("additionalProperties").filter(|it| it.is_object());
            match named.or_else(|| any.map(|inner| (inner, format!("{path}.*")))) {
                Some((inner, path)) => self.shown(&inner.clone(), given, value, &path),
                None => self.wrong.push(format!("{path}.{key}: no such key")),
            }
        }
    }
}

#[test]
fn the_shipped_files_show_every_key_and_its_default() {
    let schema = config::json_schema();
    let mut walk = Walk { schema: schema.clone(), seen: BTreeSet::new(), wrong: Vec::new() };
    for path in files(&conf()).iter().filter(|path| path.parent() == Some(&conf())) {
        let (given, shown) = shown(path);
        walk.shown(&schema, Some(&given), &shown, "");
    }
    let mut known = BTreeSet::new();
    walk.known(&schema, "", &mut known);
    let hidden: Vec<_> = known.difference(&walk.seen).collect();
    assert!(hidden.is_empty(), "not shown: {hidden:?}");
    assert!(walk.wrong.is_empty(), "{:#?}", walk.wrong);
    assert!(known.len() > 100);
}
