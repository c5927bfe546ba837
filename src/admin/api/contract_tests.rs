//! The description against the router: neither has an operation that the other lacks.

use super::problem::Code;
use super::schema::Description;
use super::tests::start;
use super::{ROOT, routes};
use serde_json::Value;
use std::collections::BTreeSet;

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// A path of the description with something in its places.
fn filled(path: &str) -> String {
    path.replace("{id}", "0123456789abcdef").replace("{name}", "nobody")
}

#[tokio::test]
async fn the_description_has_exactly_the_operations_of_the_router() {
    let desk = start();
    let description = Description::load();
    let described: BTreeSet<_> = description
        .operations()
        .into_iter()
        .map(|(path, method, _)| (path.to_owned(), method.to_owned()))
        .collect();
    let mut answered = BTreeSet::new();
    for (path, _) in routes() {
        let path = format!("{ROOT}{path}");
        for method in METHODS {
            let answer = desk.send(&method.to_uppercase(), &filled(&path), None).await;
            assert_ne!(answer.code(), "not_found", "{method} {path}");
            if answer.status != 405 {
                answered.insert((path.clone(), method.to_owned()));
            }
        }
    }
    assert_eq!(described, answered);
}

#[test]
fn the_description_is_whole() {
    let description = Description::load();
    let root = description.root();
    assert_eq!(root["openapi"], "3.1.1");
    let mut ids = BTreeSet::new();
    for (path, method, operation) in description.operations() {
        let place = format!("{method} {path}");
        let id = operation["operationId"].as_str().unwrap();
        assert!(ids.insert(id), "{id} stands twice");
        assert!(!operation["summary"].as_str().unwrap().is_empty(), "{place}");
        let item = &root["paths"][path];
        let parameters = [&item["parameters"], &operation["parameters"]];
        let in_path: Vec<_> = parameters
            .into_iter()
            .filter_map(Value::as_array)
            .flatten()
            .map(|parameter| description.resolve(parameter))
            .filter(|parameter| parameter["in"] == "path")
            .map(|parameter| format!("{{{}}}", parameter["name"].as_str().unwrap()))
            .collect();
        let places = path.matches('{').count();
        assert_eq!(in_path.len(), places, "{place}");
        assert!(in_path.iter().all(|parameter| path.contains(parameter)), "{place}");
        for status in ["400", "401", "429", "500", "503"] {
            assert!(!operation["responses"][status].is_null(), "{place} {status}");
        }
    }
}

#[test]
fn whatever_the_description_refers_to_is_there_and_nothing_else() {
    let description = Description::load();
    let text = description.root().to_string();
    for (kind, members) in description.root()["components"].as_object().unwrap() {
        for name in members.as_object().unwrap().keys() {
            let used = text.contains(&format!("\"#/components/{kind}/{name}\""));
            assert!(used || kind == "securitySchemes", "{kind}/{name} is not used");
        }
    }
    let mut left = vec![description.root()];
    while let Some(value) = left.pop() {
        description.resolve(value);
        match value {
            Value::Array(items) => left.extend(items),
            Value::Object(members) => left.extend(members.values()),
            _ => {}
        }
    }
}

#[test]
fn every_code_is_described() {
    let description = Description::load();
    let schemas = &description.root()["components"]["schemas"];
    let described = schemas["Problem"]["properties"]["code"]["enum"].as_array().unwrap();
    let described: BTreeSet<_> = described.iter().map(|code| code.as_str().unwrap()).collect();
    let all: BTreeSet<_> = Code::ALL.iter().map(|code| code.told().1).collect();
    assert_eq!(described, all);
    assert_eq!(all.len(), Code::ALL.len());
}

#[tokio::test]
async fn the_description_is_served() {
    let served = start().get("/v1/openapi.json").await;
    assert_eq!(&served.body, Description::load().root());
}
