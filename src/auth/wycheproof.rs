//! Signatures against the vectors of Project Wycheproof (Apache-2.0), `tests/vectors/`: what its keys
//! sign passes, and nothing else does.

use super::algorithm::Algorithm;
use super::compact;
use super::jwks::Jwks;
use super::jwt;
use super::key::{Key, KeySet};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const VECTORS: &str = include_str!("../../tests/vectors/json_web_signature_test.json");

/// Vectors that end otherwise than they say, and why that is right here.
const EXCUSED: [(u64, &str); 8] = [
    (346, "the key is for PS256, the token says PS384: the key decides"),
    (347, "P-521 is not supported, and the key names an algorithm that does not exist (ES521)"),
    (350, "as 346"),
    (351, "as 347"),
    (367, "not padded at all: byte for byte the vector 357, which is valid"),
    (370, "as 367"),
    (372, "a character that base64url does not have, in the header"),
    (373, "a character that base64url does not have, in the payload"),
];

fn keys(group: &Value) -> KeySet {
    let jwk = group.get("public").unwrap_or(&group["private"]);
    if jwk["kty"] == "oct" {
        let algorithm = Algorithm::parse(jwk["alg"].as_str().unwrap()).unwrap();
        let secret = compact::decode(jwk["k"].as_str().unwrap().as_bytes()).unwrap();
        let key = Key::secret(jwk["kid"].as_str(), algorithm, &secret).unwrap();
        return KeySet::new(vec![key]);
    }
    let set = json!({ "keys": [jwk] }).to_string();
    Jwks::parse(set.as_bytes(), Algorithm::Rs256).unwrap().keys
}

#[test]
fn what_a_key_signed_passes_and_nothing_else() {
    let vectors: Value = serde_json::from_str(VECTORS).unwrap();
    let (mut total, mut otherwise) = (0, BTreeMap::new());
    for group in vectors["testGroups"].as_array().unwrap() {
        let keys = keys(group);
        for test in group["tests"].as_array().unwrap() {
            let token = test["jws"].as_str().map_or_else(|| test["jws"].to_string(), str::to_owned);
            let proved = jwt::prove(token.as_bytes(), &keys);
            total += 1;
            if proved.is_ok() != (test["result"] == "valid") {
                let id = test["tcId"].as_u64().unwrap();
                otherwise.insert(id, format!("{} is {proved:?}", test["comment"]));
            }
        }
    }
    let excused: Vec<u64> = EXCUSED.iter().map(|(id, _)| *id).collect();
    assert_eq!(otherwise.keys().copied().collect::<Vec<_>>(), excused, "{otherwise:#?}");
    assert_eq!((total, total - excused.len()), (401, 393));
}
