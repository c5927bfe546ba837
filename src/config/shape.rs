//! The structure of the files, against the JSON Schema that editors use too: unknown keys, wrong
//! types, unknown words, numbers out of range.
//!
//! serde would stop at the first of these. So this pass tells them all and takes what is wrong out
//! of the tree; serde then reads the rest, and the errors behind it are found in the same run.
//! What was taken out is remembered in [`Lost`], so that nothing is reported missing that is there.

use super::diagnostic::{Diagnostic, Findings};
use super::source::{SECRETS, Span};
use super::words;
use serde_json::Value;
use std::collections::BTreeSet;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Keys that are in the files but not in the tree, because something is wrong with them.
#[derive(Default)]
pub(crate) struct Lost(BTreeSet<Vec<String>>);

impl Lost {
    /// Whether this key, or a table that it is in, was taken out.
    pub(crate) fn contains(&self, path: &[&str]) -> bool {
        (1..=path.len()).any(|depth| {
            let path: Option<Vec<String>> =
                path.get(..depth).map(|path| path.iter().map(ToString::to_string).collect());
            path.is_some_and(|path| self.0.contains(&path))
        })
    }
}

/// Checks a tree, and leaves in it only what fits.
pub(crate) fn check(root: &mut DeTable<'_>, schema: &Value, findings: &mut Findings) -> Lost {
    let mut shape = Shape { schema, findings, lost: Lost::default(), path: Vec::new() };
    shape.table(schema, root);
    shape.lost
}

struct Shape<'s, 'f> {
    schema: &'s Value,
    findings: &'f mut Findings,
    lost: Lost,
    path: Vec<String>,
}

impl<'s> Shape<'s, '_> {
    /// Whether a value can stay.
    fn value(&mut self, schema: &'s Value, value: &mut Spanned<DeValue<'_>>) -> bool {
        let span = place(value.span());
        let Some(schema) = self.choose(schema, value.get_ref()) else {
            self.wrong_type(schema, value.get_ref(), span);
            return false;
        };
        match value.get_mut() {
            DeValue::Table(table) => {
                self.table(schema, table);
                true
            }
            DeValue::Array(list) => {
                let Some(items) = schema.get("items") else { return true };
                let mut all = true;
                for item in list.iter_mut() {
                    all &= self.value(items, item);
                }
                all
            }
            DeValue::String(text) => self.word(schema, text, span),
            DeValue::Integer(number) => {
                let number = i64::from_str_radix(number.as_str(), number.radix()).ok();
                self.number(schema, number, span)
            }
            DeValue::Boolean(_) | DeValue::Float(_) | DeValue::Datetime(_) => true,
        }
    }

    /// Follows a reference, and of several forms takes the one of this type.
    fn choose(&self, schema: &'s Value, value: &DeValue<'_>) -> Option<&'s Value> {
        let schema = self.resolve(schema);
        if let Some(forms) = schema.get("anyOf").and_then(Value::as_array) {
            return forms.iter().find_map(|form| self.choose(form, value));
        }
        let kind = match value {
            DeValue::Array(_) => "array",
            DeValue::Boolean(_) => "boolean",
            DeValue::Datetime(_) | DeValue::Float(_) => return None,
            DeValue::Integer(_) => "integer",
            DeValue::String(_) => "string",
            DeValue::Table(_) => "object",
        };
        let fits = kind_of(schema) == Some(kind);
        fits.then_some(schema)
    }

    /// A schema behind its references.
    fn resolve(&self, mut schema: &'s Value) -> &'s Value {
        // A use of a table wraps its reference once; no reference refers to another.
        for _ in 0..3 {
            let wrapped = schema.get("allOf").and_then(|all| all.get(0));
            let named = schema.get("$ref").and_then(Value::as_str);
            let named = named.and_then(|name| self.schema.pointer(name.trim_start_matches('#')));
            match wrapped.or(named) {
                Some(inner) => schema = inner,
                None => break,
            }
        }
        schema
    }

    fn table(&mut self, schema: &'s Value, table: &mut DeTable<'_>) {
        let mut gone = Vec::new();
        for (key, value) in &mut *table {
            let name = key.get_ref().to_string();
            self.path.push(name);
            let known = schema.get("properties").and_then(|keys| keys.get(key.get_ref().as_ref()));
            let known =
                known.or_else(|| schema.get("additionalProperties").filter(|it| it.is_object()));
            let stays = match known {
                Some(known) => {
                    let stays = self.value(known, value);
                    if !stays {
                        self.lost.0.insert(self.path.clone());
                    }
                    stays
                }
                None => {
                    self.unknown(schema, place(key.span()));
                    false
                }
            };
            self.path.pop();
            if !stays {
                gone.push(key.clone());
            }
        }
        for key in gone {
            table.remove(&key);
        }
    }

    fn unknown(&mut self, schema: &'s Value, span: Span) {
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        let (name, table) = path.split_last().map_or(("", &[][..]), |(name, rest)| (*name, rest));
        let keys: Vec<&str> = (schema.get("properties").and_then(Value::as_object))
            .map(|keys| keys.keys().map(String::as_str).collect())
            .unwrap_or_default();
        let near = words::nearest(name, keys.iter().copied());
        let help = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("the keys here are {}", words::listed(keys)),
        };
        let message = match table {
            [] => format!("unknown key `{name}`"),
            table => format!("unknown key `{name}` in {}", words::subject(table)),
        };
        let meant = near
            .map(|near| table.iter().copied().chain([near]).map(str::to_owned).collect::<Vec<_>>());
        let finding = Diagnostic::error(message).at(span, "there is no such key").help(help);
        let secret = near.is_some_and(|near| SECRETS.contains(&near))
            || matches!(table, ["auth" | "redis", ..] | ["admin", "tokens", ..])
            || matches!(table, ["store", "postgres", ..]);
        self.findings.push(if secret { finding.hide_rest() } else { finding });
        self.lost.0.extend(meant);
        self.lost.0.insert(self.path.clone());
    }

    fn wrong_type(&mut self, schema: &'s Value, value: &DeValue<'_>, span: Span) {
        let wanted = self.wanted(schema);
        let found = match value {
            DeValue::Array(_) => "a list",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date or time",
            DeValue::Float(_) => "a number with a fraction",
            DeValue::Integer(_) => "a number",
            DeValue::String(_) => "text",
            DeValue::Table(_) => "a table",
        };
        let key = self.key();
        let mut finding = Diagnostic::error(format!("{key} must be {wanted}"))
            .at(span, format!("this is {found}"));
        if let (DeValue::Integer(number), "text") = (value, wanted.as_str()) {
            finding = finding.help(format!("put it in quotes, with its unit: `\"{number}…\"`"));
        }
        self.findings.push(finding);
    }

    fn wanted(&self, schema: &'s Value) -> String {
        let schema = self.resolve(schema);
        if let Some(forms) = schema.get("anyOf").and_then(Value::as_array) {
            let forms: Vec<String> = forms.iter().map(|form| self.wanted(form)).collect();
            return forms.join(" or ");
        }
        match kind_of(schema) {
            Some("array") => "a list".to_owned(),
            Some("boolean") => "true or false".to_owned(),
            Some("integer") => "a whole number".to_owned(),
            Some("object") => "a table".to_owned(),
            _ => match words_of(schema).as_slice() {
                [] => "text".to_owned(),
                [only] => format!("`{only}`"),
                words => format!("one of {}", words::listed(words.iter().copied())),
            },
        }
    }

    fn word(&mut self, schema: &'s Value, text: &str, span: Span) -> bool {
        let known = words_of(schema);
        if known.is_empty() || known.contains(&text) {
            return true;
        }
        let is_per = self.path.last().is_some_and(|key| key == "per");
        let near = match text.to_ascii_lowercase().as_str() {
            "ip" if is_per => Some("address"),
            _ => words::nearest(text, known.iter().copied()),
        };
        let help = match (near, known.as_slice()) {
            (Some(near), _) => format!("did you mean `{near}`?"),
            (None, [only]) => format!("the only word here is `{only}`"),
            (None, known) if is_per => format!(
                "the values are {}, or a table, as `{{ claim = \"tenant\" }}`",
                words::listed(known.iter().copied())
            ),
            (None, known) => format!("the values are {}", words::listed(known.iter().copied())),
        };
        let message = format!("{} has no value `{}`", self.key(), text.escape_debug());
        self.findings.push(Diagnostic::error(message).at(span, "unknown value").help(help));
        false
    }

    fn number(&mut self, schema: &'s Value, number: Option<i64>, span: Span) -> bool {
        let least = schema.get("minimum").and_then(Value::as_i64).unwrap_or(i64::MIN);
        let most = schema.get("maximum").and_then(Value::as_i64).unwrap_or(i64::MAX);
        if number.is_some_and(|number| (least..=most).contains(&number)) {
            return true;
        }
        let key = self.key();
        self.findings.push(
            Diagnostic::error(format!("{key} is out of range"))
                .at(span, format!("it must be {least} to {most}")),
        );
        false
    }

    /// The key that is being looked at, as messages name it.
    fn key(&self) -> String {
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        match path.as_slice() {
            [key] => format!("`{key}`"),
            path => match words::subject(path) {
                named if named.starts_with("`[") => {
                    let (key, table) = path.split_last().map_or(("", path), |(k, t)| (*k, t));
                    format!("`{key}` of {}", words::subject(table))
                }
                named => named,
            },
        }
    }
}

fn place(range: std::ops::Range<usize>) -> Span {
    Span { start: range.start, end: range.end }
}

fn kind_of(schema: &Value) -> Option<&str> {
    match schema.get("type").and_then(Value::as_str) {
        None if !words_of(schema).is_empty() => Some("string"),
        kind => kind,
    }
}

/// The words that a text may be, where it may not be any.
fn words_of(schema: &Value) -> Vec<&str> {
    if let Some(list) = schema.get("enum").and_then(Value::as_array) {
        return list.iter().filter_map(Value::as_str).collect();
    }
    let forms = schema.get("oneOf").and_then(Value::as_array).map(Vec::as_slice);
    let forms = forms.unwrap_or_default();
    forms.iter().filter_map(|form| form.get("const").and_then(Value::as_str)).collect()
}
