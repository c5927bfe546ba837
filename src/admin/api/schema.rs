//! As much of JSON Schema (2020-12) as `openapi.json` uses, for tests. A keyword that is not known
//! here fails, so that nothing in the description goes unchecked.

use super::{notation, openapi};
use serde_json::{Map, Value, json};

/// The description.
pub(super) struct Description(Value);

impl Description {
    pub(super) fn load() -> Self {
        Self(serde_json::from_str(openapi::DOCUMENT).unwrap())
    }

    pub(super) fn root(&self) -> &Value {
        &self.0
    }

    /// What `value` refers to, if it refers to something.
    pub(super) fn resolve<'v>(&'v self, value: &'v Value) -> &'v Value {
        match value.get("$ref").and_then(Value::as_str) {
            Some(target) => {
                let pointer = target.strip_prefix('#').unwrap();
                self.resolve(self.0.pointer(pointer).unwrap_or_else(|| panic!("no {target}")))
            }
            None => value,
        }
    }

    /// Every operation: path, method in lower case, and its object.
    pub(super) fn operations(&self) -> Vec<(&str, &str, &Value)> {
        let mut all = Vec::new();
        for (path, item) in self.0["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                if method != "parameters" {
                    all.push((path.as_str(), method.as_str(), operation));
                }
            }
        }
        all
    }

    /// The path that `path` is an instance of.
    pub(super) fn template_of(&self, path: &str) -> Option<&str> {
        let path = path.split('?').next().unwrap();
        let parts: Vec<_> = path.split('/').collect();
        let mut all = self.0["paths"].as_object().unwrap().keys();
        all.find(|template| {
            let template: Vec<_> = template.split('/').collect();
            template.len() == parts.len()
                && template
                    .iter()
                    .zip(&parts)
                    .all(|(one, other)| one.starts_with('{') || one == other)
        })
        .map(String::as_str)
    }

    /// What is wrong with `value`; empty if it is valid.
    pub(super) fn check(&self, schema: &Value, value: &Value) -> Vec<String> {
        let mut wrong = Vec::new();
        self.visit(schema, value, "", &mut wrong);
        wrong
    }

    fn visit(&self, schema: &Value, value: &Value, place: &str, wrong: &mut Vec<String>) {
        let schema = self.resolve(schema).as_object().unwrap();
        for (keyword, rule) in schema {
            if let Err(what) = self.holds(schema, keyword, rule, value, place, wrong) {
                wrong.push(format!("{place}: {what}: {value}"));
            }
        }
    }

    fn holds(
        &self,
        schema: &Map<String, Value>,
        keyword: &str,
        rule: &Value,
        value: &Value,
        place: &str,
        wrong: &mut Vec<String>,
    ) -> Result<(), String> {
        let length = value.as_str().map(|text| text.chars().count() as u64);
        let items = value.as_array();
        let ok = match keyword {
            "description" | "default" => true,
            "type" => is_of(rule, value),
            "enum" => rule.as_array().unwrap().contains(value),
            "minLength" => length.is_none_or(|it| it >= rule.as_u64().unwrap()),
            "maxLength" => length.is_none_or(|it| it <= rule.as_u64().unwrap()),
            "maxItems" => items.is_none_or(|it| it.len() as u64 <= rule.as_u64().unwrap()),
            "minimum" => value.as_i64().is_none_or(|it| it >= rule.as_i64().unwrap()),
            "maximum" => value.as_i64().is_none_or(|it| it <= rule.as_i64().unwrap()),
            "minProperties" => {
                value.as_object().is_none_or(|it| it.len() as u64 >= rule.as_u64().unwrap())
            }
            "uniqueItems" => {
                items.is_none_or(|it| (1..it.len()).all(|at| !it[..at].contains(&it[at])))
            }
            "pattern" => value.as_str().is_none_or(|text| matches(rule.as_str().unwrap(), text)),
            "format" => value.as_str().is_none_or(|text| match rule.as_str().unwrap() {
                "date-time" => notation::read_time(&json!(text)).is_ok(),
                "date" => notation::parse_day(text).is_some(),
                other => panic!("format {other}"),
            }),
            "anyOf" => rule.as_array().unwrap().iter().any(|it| self.check(it, value).is_empty()),
            "items" => {
                for (at, item) in items.into_iter().flatten().enumerate() {
                    self.visit(rule, item, &format!("{place}/{at}"), wrong);
                }
                true
            }
            "properties" => {
                for (name, schema) in rule.as_object().unwrap() {
                    if let Some(member) = value.get(name) {
                        self.visit(schema, member, &format!("{place}/{name}"), wrong);
                    }
                }
                true
            }
            "required" => rule.as_array().unwrap().iter().all(|name| {
                value.as_object().is_none_or(|it| it.contains_key(name.as_str().unwrap()))
            }),
            "additionalProperties" => {
                assert_eq!(rule, &json!(false));
                value.as_object().is_none_or(|members| {
                    members.keys().all(|name| schema["properties"].get(name).is_some())
                })
            }
            other => panic!("the keyword {other} is not checked"),
        };
        if ok { Ok(()) } else { Err(format!("{keyword} {rule}")) }
    }
}

fn is_of(rule: &Value, value: &Value) -> bool {
    match rule {
        Value::Array(any) => any.iter().any(|rule| is_of(rule, value)),
        rule => match rule.as_str().unwrap() {
            "array" => value.is_array(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_i64() || value.is_u64(),
            "null" => value.is_null(),
            "object" => value.is_object(),
            "string" => value.is_string(),
            other => panic!("type {other}"),
        },
    }
}

/// The few patterns that there are.
fn matches(pattern: &str, text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|it| it.is_ascii_alphanumeric());
    match pattern {
        "^[!-~]+$" => !text.is_empty() && text.bytes().all(|it| it.is_ascii_graphic()),
        "^[0-9A-Za-z]{16}$" => text.len() == 16 && digits(text),
        "^dh_[a-z0-9]+_[0-9A-Za-z]{16}_[0-9A-Za-z]{33}$" => {
            let parts: Vec<_> = text.split('_').collect();
            parts.len() == 4
                && parts[0] == "dh"
                && digits(parts[1])
                && (parts[2].len(), parts[3].len()) == (16, 33)
                && digits(parts[2])
                && digits(parts[3])
        }
        "^[0-9]+(s|m|min|h|d|w)$" => {
            text.starts_with(|c: char| c.is_ascii_digit())
                && notation::read_span(&json!(text)).is_ok()
        }
        other => panic!("the pattern {other} is not checked"),
    }
}

#[test]
fn what_does_not_fit_the_description_is_found() {
    let description = Description::load();
    let page = json!({ "$ref": "#/components/schemas/ConsumerPage" });
    let fits = json!({ "items": [], "next_cursor": null });
    assert_eq!(description.check(&page, &fits), Vec::<String>::new());
    for value in [
        json!({ "items": [] }),
        json!({ "items": [], "next_cursor": 5 }),
        json!({ "items": {}, "next_cursor": null }),
        json!({ "items": [], "next_cursor": null, "more": true }),
        json!({ "items": [{ "id": "x" }], "next_cursor": null }),
    ] {
        assert!(!description.check(&page, &value).is_empty(), "{value}");
    }
}
