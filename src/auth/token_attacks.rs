//! Tokens that must not pass, and the few that must.

use super::Denied;
use super::algorithm::Algorithm as Alg;
use super::algorithm::Family;
use super::denied::InvalidReason as R;
use super::identity::Method;
use super::issuer::{Generation, IssuerKeys, JwtIssuer};
use super::jwks::Jwks;
use super::jwt::{Issuers, Unverified, Verified};
use super::key::{Key, KeySet};
use super::remote_keys::RemoteKeySets;
use super::signing::{Signer, base64url};
use crate::telemetry::Clock;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use std::sync::Arc;
use std::time::Duration;

const SECRET: &[u8] = b"the secret of the issuer, 32 bytes";
const NOW: u64 = 1_800_000_000;
const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;
const CLAIMS: &str = r#"{"iss":"https://id","aud":"api","sub":"alice","exp":1800000100}"#;

fn issuer() -> JwtIssuer {
    JwtIssuer {
        name: "main".into(),
        keys: secret(SECRET),
        issuer: Some("https://id".into()),
        audiences: vec!["api".into(), "other".into()],
        types: Vec::new(),
        leeway: Duration::from_secs(30),
        consumer_claim: "sub".into(),
        scopes_claim: "scope".into(),
        plan_claim: None,
        default_plan: None,
        headers: Vec::new(),
    }
}

fn secret(secret: &[u8]) -> IssuerKeys {
    given([Key::secret(None, Alg::Hs256, secret).unwrap()])
}

fn given(keys: impl IntoIterator<Item = Key>) -> IssuerKeys {
    IssuerKeys::Given(Arc::new(keys.into_iter().collect::<KeySet>()))
}

fn issuers(list: impl IntoIterator<Item = JwtIssuer>) -> Issuers {
    let remote = RemoteKeySets::new(Clock::manual());
    Issuers::new(list.into_iter().map(Arc::new).collect(), &remote)
}

fn sign_as(header: &[u8], claims: &[u8], secret: &[u8], algorithm: Algorithm) -> String {
    let signed = format!("{}.{}", base64url(header), base64url(claims));
    let key = EncodingKey::from_secret(secret);
    let signature = crypto::sign(signed.as_bytes(), &key, algorithm).unwrap();
    format!("{signed}.{signature}")
}

fn sign(header: &str, claims: &str) -> String {
    sign_as(header.as_bytes(), claims.as_bytes(), SECRET, Algorithm::HS256)
}

fn with_header(members: &str) -> String {
    sign(&format!(r#"{{"alg":"HS256",{members}}}"#), CLAIMS)
}

/// Good claims but for `members`, which must name what they replace.
fn with_claims(members: &str) -> String {
    let mut claims = String::from("{");
    for (name, value) in
        [("iss", "\"https://id\""), ("aud", "\"api\""), ("sub", "\"alice\""), ("exp", "1800000100")]
    {
        if !members.contains(&format!("\"{name}\":")) {
            claims.push_str(&format!("\"{name}\":{value},"));
        }
    }
    sign(HEADER, &format!("{claims}{members}}}"))
}

fn without(claim: &str) -> String {
    let members: Vec<_> = CLAIMS.trim_matches(['{', '}']).split(',').collect();
    let left: Vec<_> =
        members.into_iter().filter(|member| !member.starts_with(&format!("\"{claim}\""))).collect();
    sign(HEADER, &format!("{{{}}}", left.join(",")))
}

fn parts(token: &str) -> [&str; 3] {
    let mut parts = token.split('.');
    [parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap()]
}

fn verify(token: &str) -> Result<(), R> {
    check(&issuers([issuer()]), token).map(drop)
}

fn check(issuers: &Issuers, token: &str) -> Result<Verified, R> {
    match issuers.verify(token.as_bytes(), Duration::from_secs(NOW)) {
        Ok((verified, _)) => Ok(verified),
        Err(Unverified::Invalid(reason)) => Err(reason),
        Err(Unverified::Missing(_)) => panic!("no keys are fetched here"),
    }
}

#[test]
fn good_tokens_pass() {
    for token in [
        sign(HEADER, CLAIMS),
        sign(r#"{"alg":"HS256"}"#, CLAIMS),
        sign(r#"{"alg":"HS256","typ":"at+jwt","kid":"2026"}"#, CLAIMS),
        sign(" { \"alg\" : \"HS256\" } ", CLAIMS),
        with_claims(r#""aud":["x","other"]"#),
        with_claims(r#""exp":1800000100.5"#),
        with_claims(r#""exp":1.8000001e9"#),
        with_claims(r#""exp":1799999971"#),
        with_claims(r#""nbf":1800000030"#),
        with_claims(r#""iat":1800000000,"jti":"1","extra":{"a":[1,null,true,{"b":-1.5}]}"#),
        with_header(r#""jku":"https://evil.example/keys""#),
    ] {
        assert_eq!(verify(&token), Ok(()), "{token}");
    }
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn header_attacks() -> Vec<(&'static str, String, R)> {
    let none = |alg: &str| {
        let [_, claims, _] = parts(&sign(HEADER, CLAIMS)).map(str::to_owned);
        format!("{}.{claims}.", base64url(format!(r#"{{"alg":"{alg}"}}"#).as_bytes()))
    };
    let other = |alg: &str, algorithm| {
        sign_as(format!(r#"{{"alg":"{alg}"}}"#).as_bytes(), CLAIMS.as_bytes(), SECRET, algorithm)
    };
    let long = "k".repeat(129);
    vec![
        ("no algorithm", none("none"), R::Algorithm),
        ("no algorithm in capitals", none("NONE"), R::Algorithm),
        ("no algorithm in mixed letters", none("nOnE"), R::Algorithm),
        ("an empty algorithm", none(""), R::Algorithm),
        ("no algorithm but a signature", sign(r#"{"alg":"none"}"#, CLAIMS), R::Algorithm),
        ("an algorithm in small letters", sign(r#"{"alg":"hs256"}"#, CLAIMS), R::Algorithm),
        ("an algorithm with a space", sign(r#"{"alg":"HS256 "}"#, CLAIMS), R::Algorithm),
        ("HS384 with the right secret", other("HS384", Algorithm::HS384), R::Algorithm),
        ("HS512 with the right secret", other("HS512", Algorithm::HS512), R::Algorithm),
        ("RS256, the secret as public key", other("RS256", Algorithm::HS256), R::Algorithm),
        ("ES256", other("ES256", Algorithm::HS256), R::Algorithm),
        ("PS256", other("PS256", Algorithm::HS256), R::Algorithm),
        ("EdDSA", other("EdDSA", Algorithm::HS256), R::Algorithm),
        ("HS512 that says HS256", other("HS256", Algorithm::HS512), R::Signature),
        ("a missing algorithm", sign(r#"{"typ":"JWT"}"#, CLAIMS), R::Algorithm),
        ("an algorithm that is a number", sign(r#"{"alg":256}"#, CLAIMS), R::Algorithm),
        ("a list of algorithms", sign(r#"{"alg":["HS256"]}"#, CLAIMS), R::Algorithm),
        ("an algorithm that is null", sign(r#"{"alg":null}"#, CLAIMS), R::Algorithm),
        ("two algorithms", sign(r#"{"alg":"HS256","alg":"none"}"#, CLAIMS), R::Malformed),
        ("two, one of them escaped", with_header("\"\\u0061lg\":\"none\""), R::Malformed),
        ("crit", with_header(r#""crit":["exp"],"exp":1"#), R::Critical),
        ("an empty crit", with_header(r#""crit":[]"#), R::Critical),
        ("an unencoded payload", with_header(r#""b64":false"#), R::Critical),
        ("b64 that changes nothing", with_header(r#""b64":true"#), R::Critical),
        ("a compressed payload", with_header(r#""zip":"DEF""#), R::Critical),
        ("an encrypted payload", with_header(r#""enc":"A128GCM""#), R::Critical),
        ("a nested token", with_header(r#""cty":"JWT""#), R::Critical),
        ("a content type that is a number", with_header(r#""cty":1"#), R::Malformed),
        ("a type that is a list", with_header(r#""typ":["JWT"]"#), R::Malformed),
        ("a kid that is a number", with_header(r#""kid":0"#), R::Malformed),
        ("a kid that is an object", with_header(r#""kid":{}"#), R::Malformed),
        ("a long kid", with_header(&format!(r#""kid":"{long}""#)), R::Malformed),
        ("a header that is a list", sign(r#"["HS256"]"#, CLAIMS), R::Malformed),
        ("a header that is a text", sign(r#""HS256""#, CLAIMS), R::Malformed),
        ("a header and something", sign(r#"{"alg":"HS256"}{}"#, CLAIMS), R::Malformed),
        ("a header with a trailing comma", sign(r#"{"alg":"HS256",}"#, CLAIMS), R::Malformed),
        (
            "a header with a byte order mark",
            sign("\u{feff}{\"alg\":\"HS256\"}", CLAIMS),
            R::Malformed,
        ),
        (
            "a header that is not UTF-8",
            sign_as(
                b"{\"alg\":\"HS256\",\"x\":\"\xff\"}",
                CLAIMS.as_bytes(),
                SECRET,
                Algorithm::HS256,
            ),
            R::Malformed,
        ),
        (
            "a key in the header",
            sign_as(
                br#"{"alg":"HS256","jwk":{"kty":"oct","k":"ZXZpbA"}}"#,
                CLAIMS.as_bytes(),
                b"evil",
                Algorithm::HS256,
            ),
            R::Signature,
        ),
        (
            "a kid that points to an empty file",
            sign_as(
                br#"{"alg":"HS256","kid":"../../../dev/null"}"#,
                CLAIMS.as_bytes(),
                b"",
                Algorithm::HS256,
            ),
            R::Signature,
        ),
        (
            "a kid that is SQL",
            sign_as(
                br#"{"alg":"HS256","kid":"x' UNION SELECT 'evil"}"#,
                CLAIMS.as_bytes(),
                b"evil",
                Algorithm::HS256,
            ),
            R::Signature,
        ),
        (
            "keys at a URL",
            sign_as(
                br#"{"alg":"HS256","jku":"https://evil.example","x5u":"https://evil.example"}"#,
                CLAIMS.as_bytes(),
                b"evil",
                Algorithm::HS256,
            ),
            R::Signature,
        ),
    ]
}

fn claim_attacks() -> Vec<(&'static str, String, R)> {
    vec![
        ("no exp", without("exp"), R::NoExpiry),
        ("exp as text", with_claims(r#""exp":"1800000100""#), R::Malformed),
        ("exp as list", with_claims(r#""exp":[1800000100]"#), R::Malformed),
        ("exp as truth", with_claims(r#""exp":true"#), R::Malformed),
        ("exp as null", with_claims(r#""exp":null"#), R::Malformed),
        ("exp beyond all numbers", with_claims(r#""exp":1e400"#), R::Malformed),
        ("exp beyond time", with_claims(r#""exp":1e300"#), R::Malformed),
        ("exp beyond 64 bits", with_claims(r#""exp":18446744073709551615"#), R::Malformed),
        ("exp before 1970", with_claims(r#""exp":-1"#), R::Expired),
        ("exp zero", with_claims(r#""exp":0"#), R::Expired),
        ("exp at the end of the leeway", with_claims(r#""exp":1799999970"#), R::Expired),
        ("two exps", with_claims(r#""exp":1,"exp":1800000100"#), R::Malformed),
        ("nbf after the leeway", with_claims(r#""nbf":1800000031"#), R::NotYet),
        ("nbf as text", with_claims(r#""nbf":"0""#), R::Malformed),
        ("iat as text", with_claims(r#""iat":"0""#), R::Malformed),
        ("no audience", without("aud"), R::Audience),
        ("another audience", with_claims(r#""aud":"web""#), R::Audience),
        ("an audience that begins like ours", with_claims(r#""aud":"api2""#), R::Audience),
        ("an empty list of audiences", with_claims(r#""aud":[]"#), R::Audience),
        ("an audience that is a number", with_claims(r#""aud":1"#), R::Malformed),
        ("a number among audiences", with_claims(r#""aud":["api",1]"#), R::Malformed),
        ("an audience within an audience", with_claims(r#""aud":[["api"]]"#), R::Malformed),
        ("no issuer", without("iss"), R::Issuer),
        ("another issuer", with_claims(r#""iss":"https://evil""#), R::Issuer),
        ("an issuer with a slash more", with_claims(r#""iss":"https://id/""#), R::Issuer),
        ("an issuer in capitals", with_claims(r#""iss":"HTTPS://ID""#), R::Issuer),
        ("a list of issuers", with_claims(r#""iss":["https://id"]"#), R::Malformed),
        ("two issuers", with_claims(r#""iss":"https://evil","iss":"https://id""#), R::Malformed),
        ("scopes as a number", with_claims(r#""scope":7"#), R::Malformed),
        ("a number among scopes", with_claims(r#""scope":["a",7]"#), R::Malformed),
        (
            "a name that stands twice deep inside",
            with_claims(r#""x":[{"a":1,"a":2}]"#),
            R::Malformed,
        ),
        ("claims that are a list", sign(HEADER, "[]"), R::Malformed),
        ("claims that are nothing", sign(HEADER, ""), R::Malformed),
        (
            "claims that nest too deep",
            with_claims(&format!(r#""x":{}"#, "[".repeat(200))),
            R::Malformed,
        ),
    ]
}

fn name_attacks() -> Vec<(&'static str, String, R)> {
    vec![
        ("no subject", without("sub"), R::ConsumerClaim),
        ("an empty subject", with_claims(r#""sub":"""#), R::ConsumerClaim),
        ("a subject that is a number", with_claims(r#""sub":1"#), R::Malformed),
        (
            "a subject that breaks a line",
            with_claims(r#""sub":"a\r\nX-Admin: 1""#),
            R::ConsumerClaim,
        ),
        ("a subject with a zero byte", with_claims(r#""sub":"a\u0000""#), R::ConsumerClaim),
        ("a subject with a C1 control", with_claims(r#""sub":"a\u0085b""#), R::ConsumerClaim),
        ("a subject beyond ASCII", with_claims(r#""sub":"J\u00fcrgen""#), R::ConsumerClaim),
        (
            "a subject with a byte that may break a line",
            with_claims(r#""sub":"\u00c5""#),
            R::ConsumerClaim,
        ),
        ("a subject with a space behind", with_claims(r#""sub":"alice ""#), R::ConsumerClaim),
        (
            "a long subject",
            with_claims(&format!(r#""sub":"{}""#, "a".repeat(257))),
            R::ConsumerClaim,
        ),
    ]
}

fn shape_attacks() -> Vec<(&'static str, String, R)> {
    let good = sign(HEADER, CLAIMS);
    let [header, claims, signature] = parts(&good);
    let longer = base64url(br#"{"iss":"https://id","aud":"api","sub":"admin","exp":1800000100}"#);
    let last = signature.chars().last().unwrap();
    // 43 characters carry 256 bits and two spare ones, which must be zero.
    let spare = char::from(u8::try_from(last).unwrap() + 1);
    let zeros = "A".repeat(43);
    vec![
        ("nothing", String::new(), R::Malformed),
        ("two dots", "..".into(), R::Malformed),
        ("one part", header.into(), R::Malformed),
        ("two parts", format!("{header}.{claims}"), R::Malformed),
        ("four parts", format!("{good}.{signature}"), R::Malformed),
        ("five parts", format!("{header}.a.b.{claims}.{signature}"), R::Malformed),
        ("a dot behind", format!("{good}."), R::Malformed),
        ("a dot before", format!(".{good}"), R::Malformed),
        ("an empty signature", format!("{header}.{claims}."), R::Signature),
        ("a signature of zeros", format!("{header}.{claims}.{zeros}"), R::Signature),
        ("half a signature", format!("{header}.{claims}.{}", &signature[..20]), R::Signature),
        ("a longer signature", format!("{header}.{claims}.{signature}AAAA"), R::Signature),
        (
            "a signature with spare bits",
            {
                let start = &signature[..42];
                format!("{header}.{claims}.{start}{spare}")
            },
            R::Malformed,
        ),
        ("a padded signature", format!("{good}="), R::Malformed),
        ("padded claims", format!("{header}.{claims}==.{signature}"), R::Malformed),
        ("a space before", format!(" {good}"), R::Malformed),
        ("a space behind", format!("{good} "), R::Malformed),
        ("a line break inside", format!("{header}.\n{claims}.{signature}"), R::Malformed),
        ("the other base64", good.replace(['-', '_'], "+") + "+/", R::Malformed),
        ("letters that only look alike", good.replacen('e', "\u{435}", 1), R::Malformed),
        ("other claims, old signature", format!("{header}.{longer}.{signature}"), R::Signature),
        ("claims as header", format!("{claims}.{claims}.{signature}"), R::Algorithm),
        (
            "another secret",
            sign_as(HEADER.as_bytes(), CLAIMS.as_bytes(), b"guess", Algorithm::HS256),
            R::Signature,
        ),
        (
            "an empty secret",
            sign_as(HEADER.as_bytes(), CLAIMS.as_bytes(), b"", Algorithm::HS256),
            R::Signature,
        ),
        (
            "JSON instead of a token",
            format!(r#"{{"protected":"{header}","payload":"{claims}"}}"#),
            R::Malformed,
        ),
        ("two tokens", format!("{good},{good}"), R::Malformed),
        (
            "more than 8 KiB",
            sign(HEADER, &format!("{{\"x\":\"{}\"}}", "x".repeat(8192))),
            R::TooLong,
        ),
    ]
}

#[test]
fn attacks_are_refused_for_the_right_reason_in_the_same_words() {
    let attacks: Vec<_> =
        [header_attacks(), claim_attacks(), name_attacks(), shape_attacks()].concat();
    let (public, on_keys) = key_attacks();
    let checked =
        attacks.into_iter().map(|(name, token, reason)| (name.to_owned(), verify(&token), reason));
    let on_keys = on_keys
        .into_iter()
        .map(|(name, token, reason)| (name, check(&public, &token).map(drop), reason));
    let mut count = 0;
    for (name, refused, reason) in checked.chain(on_keys) {
        assert_eq!(refused, Err(reason), "{name}");
        let denied = Denied::Invalid { method: Method::Jwt, reason };
        assert_eq!(denied.to_string(), "the credential is not valid", "{name}");
        count += 1;
    }
    assert!(count >= 150, "{count} attacks");
}

/// An issuer that publishes a key of each kind, and has one that is not for signatures.
fn published() -> (Issuers, [Signer; 3]) {
    let signers = [Family::Rsa, Family::P256, Family::Ed25519].map(Signer::new);
    let [rsa, p256, ed] = &signers;
    let set = serde_json::json!({ "keys": [
        rsa.jwk_with(&serde_json::json!({ "kid": "rsa", "alg": "RS256" })),
        p256.jwk_with(&serde_json::json!({ "kid": "p256" })),
        ed.jwk_with(&serde_json::json!({ "kid": "ed" })),
        Signer::new(Family::P256).jwk_with(&serde_json::json!({ "kid": "enc", "use": "enc" })),
    ] });
    let set = Jwks::parse(set.to_string().as_bytes(), Alg::Rs256).unwrap();
    assert_eq!((set.keys.len(), set.refused.len()), (3, 1));
    let keys = IssuerKeys::Given(Arc::new(set.keys));
    let types = vec!["at+jwt".to_owned()];
    (issuers([JwtIssuer { keys, types, ..issuer() }]), signers)
}

/// What is tried against public keys.
#[expect(clippy::too_many_lines, reason = "a table")]
fn key_attacks() -> (Issuers, Vec<(String, String, R)>) {
    let (issuers, signers) = published();
    let [rsa, p256, ed] = &signers;
    let header =
        |alg: &str, kid: &str| format!(r#"{{"alg":"{alg}","kid":"{kid}","typ":"at+jwt"}}"#);
    let of = [(rsa, "rsa", Alg::Rs256), (p256, "p256", Alg::Es256), (ed, "ed", Alg::EdDsa)];
    let mut table: Vec<(String, String, R)> = Vec::new();
    for (signer, kid, own) in of {
        let good = signer.token(own, &header(own.name(), kid), CLAIMS);
        assert!(check(&issuers, &good).is_ok(), "{kid}");
        let mut attack = |name: &str, token: String, reason| {
            table.push((format!("{kid}: {name}"), token, reason));
        };
        // The public key as the secret of an HMAC, in each form in which it is known.
        let jwk = signer.jwk().to_string();
        let spki = signer.spki();
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{}", base64url(&spki));
        for (form, secret) in [("JWK", jwk.as_bytes()), ("DER", &*spki), ("PEM", pem.as_bytes())] {
            for (name, algorithm) in [
                ("HS256", Algorithm::HS256),
                ("HS384", Algorithm::HS384),
                ("HS512", Algorithm::HS512),
            ] {
                let token =
                    sign_as(header(name, kid).as_bytes(), CLAIMS.as_bytes(), secret, algorithm);
                attack(&format!("{name} with its {form}"), token, R::Algorithm);
            }
        }
        for other in Alg::ALL.iter().filter(|other| other.family() != Family::Secret) {
            if *other != own {
                let token = signer.token(own, &header(other.name(), kid), CLAIMS);
                attack(&format!("signed as {own:?}, named {other:?}"), token, R::Algorithm);
            }
        }
        let [first, claims, signature] = parts(&good);
        let none = base64url(header("none", kid).as_bytes());
        attack("none", format!("{none}.{claims}."), R::Algorithm);
        attack("none with a signature", format!("{none}.{claims}.{signature}"), R::Algorithm);
        attack("no signature", format!("{first}.{claims}."), R::Signature);
        let zeros = base64url(&[0; 64]);
        attack("a signature of zeros", format!("{first}.{claims}.{zeros}"), R::Signature);
        attack("a longer signature", format!("{first}.{claims}.{signature}AAAA"), R::Signature);
        let shorter = &signature[..signature.len() - 6];
        attack(
            "a shorter one",
            format!("{first}.{claims}.{}", &shorter[..shorter.len() & !3]),
            R::Signature,
        );
        let other = base64url(CLAIMS.replace("alice", "admin").as_bytes());
        attack("other claims", format!("{first}.{other}.{signature}"), R::Signature);
        attack(
            "a kid that nobody has",
            signer.token(own, &header(own.name(), "x"), CLAIMS),
            R::KeyUnknown,
        );
        attack(
            "no kid at all but its own key in the header",
            {
                let stranger = Signer::new(match own {
                    Alg::Es256 => Family::P256,
                    _ => Family::Ed25519,
                });
                let algorithm = match own {
                    Alg::Es256 => Alg::Es256,
                    _ => Alg::EdDsa,
                };
                let head = format!(
                    r#"{{"alg":"{}","typ":"at+jwt","jwk":{}}}"#,
                    algorithm.name(),
                    stranger.jwk()
                );
                stranger.token(algorithm, &head, CLAIMS)
            },
            R::Signature,
        );
        attack(
            "another type",
            signer.token(
                own,
                &format!(r#"{{"alg":"{}","kid":"{kid}","typ":"JWT"}}"#, own.name()),
                CLAIMS,
            ),
            R::Type,
        );
        attack(
            "no type",
            signer.token(own, &format!(r#"{{"alg":"{}","kid":"{kid}"}}"#, own.name()), CLAIMS),
            R::Type,
        );
        attack(
            "a type with something behind",
            signer.token(
                own,
                &format!(r#"{{"alg":"{}","kid":"{kid}","typ":"at+jwt;x"}}"#, own.name()),
                CLAIMS,
            ),
            R::Type,
        );
        attack(
            "unencoded",
            signer.token(
                own,
                &format!(r#"{{"alg":"{}","kid":"{kid}","b64":false,"crit":["b64"]}}"#, own.name()),
                CLAIMS,
            ),
            R::Critical,
        );
        attack(
            "expired",
            signer.token(own, &header(own.name(), kid), &CLAIMS.replace("1800000100", "1")),
            R::Expired,
        );
    }
    for (signer, kid, algorithm) in
        [(rsa, "p256", Alg::Rs256), (p256, "ed", Alg::Es256), (ed, "rsa", Alg::EdDsa)]
    {
        let token = signer.token(algorithm, &header(algorithm.name(), kid), CLAIMS);
        table.push((format!("{algorithm:?} with the kid `{kid}`"), token, R::Algorithm));
    }
    let enc = Signer::new(Family::P256).token(Alg::Es256, &header("ES256", "enc"), CLAIMS);
    table.push(("a key that is for encryption".to_owned(), enc, R::KeyUnknown));
    for (name, token) in es256_signatures(p256, &header("ES256", "p256")) {
        table.push((format!("p256: {name}"), token, R::Signature));
    }
    (issuers, table)
}

/// Signatures of ES256 that some library took, or could.
fn es256_signatures(signer: &Signer, header: &str) -> Vec<(&'static str, String)> {
    const ORDER: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc,
        0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    let good = signer.token(Alg::Es256, header, CLAIMS);
    let (signed, _) = good.rsplit_once('.').unwrap();
    let with = |r: &[u8], s: &[u8]| format!("{signed}.{}", base64url(&[r, s].concat()));
    let one = {
        let mut one = [0; 32];
        one[31] = 1;
        one
    };
    vec![
        ("r and s zero (CVE-2022-21449)", with(&[0; 32], &[0; 32])),
        ("r zero", with(&[0; 32], &one)),
        ("s zero", with(&one, &[0; 32])),
        ("r and s one", with(&one, &one)),
        ("r and s the order", with(&ORDER, &ORDER)),
        ("r the order, s one", with(&ORDER, &one)),
        ("all ones", with(&[0xff; 32], &[0xff; 32])),
        ("DER of zeros", with(&[0x30, 6, 2, 1, 0], &[2, 1, 0])),
        ("DER of ones", with(&[0x30, 6, 2, 1, 1], &[2, 1, 1])),
        ("96 bytes, as of P-384", with(&[1; 48], &[1; 48])),
        ("63 bytes", with(&[1; 32], &[1; 31])),
        ("65 bytes", with(&[1; 32], &[1; 33])),
    ]
}

#[test]
fn a_token_changed_in_any_character_is_refused() {
    let good = sign(HEADER, CLAIMS);
    for (place, letter) in good.char_indices() {
        let other = if letter == 'A' { "B" } else { "A" };
        let mut forged = good.clone();
        forged.replace_range(place..=place, other);
        assert!(verify(&forged).is_err(), "character {place}");
    }
    for end in 0..good.len() {
        assert!(verify(&good[..end]).is_err(), "only {end} characters");
    }
}

#[test]
fn the_issuer_is_picked_by_iss_and_proved_by_its_own_secret() {
    const SECOND: &[u8] = b"another secret of at least 32 byte";
    let second = JwtIssuer {
        name: "second".into(),
        keys: secret(SECOND),
        issuer: Some("https://second".into()),
        ..issuer()
    };
    let rotated = JwtIssuer { name: "new secret".into(), keys: secret(b"next"), ..issuer() };
    let any = JwtIssuer {
        name: "any".into(),
        keys: secret(b"whoever"),
        issuer: None,
        audiences: Vec::new(),
        ..issuer()
    };
    let all = issuers([issuer(), rotated, second, any]);
    let claims = |iss: &str| CLAIMS.replace("https://id", iss);
    for (name, iss, secret, expected) in [
        ("the first", "https://id", SECRET, Ok("main")),
        ("the same with its next secret", "https://id", b"next", Ok("new secret")),
        ("the second", "https://second", SECOND, Ok("second")),
        ("one that nobody names", "https://third", b"whoever", Ok("any")),
        ("the first with the second's secret", "https://id", SECOND, Err(R::Signature)),
        ("the second with anyone's secret", "https://second", b"whoever", Err(R::Signature)),
        ("nobody's with the first's secret", "https://third", SECRET, Err(R::Signature)),
    ] {
        let token = sign_as(HEADER.as_bytes(), claims(iss).as_bytes(), secret, Algorithm::HS256);
        let verified = check(&all, &token);
        assert_eq!(verified.as_ref().map(|v| &*v.issuer).map_err(|r| *r), expected, "{name}");
    }
}

#[test]
fn claims_are_read_as_the_issuer_says() {
    let issuer = JwtIssuer {
        consumer_claim: "client_id".into(),
        scopes_claim: "scp".into(),
        default_plan: Some("free".into()),
        ..issuer()
    };
    let all = issuers([issuer]);
    let read = |members: &str| check(&all, &with_claims(members)).unwrap();
    let verified = read(r#""client_id":"shop","scp":"a  b ","scope":"ignored""#);
    assert_eq!((&*verified.consumer, &*verified.subject), ("shop", "alice"));
    assert_eq!(verified.scopes.iter().map(|s| &**s).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(verified.ends_at, 1_800_000_130);
    assert_eq!(verified.default_plan.as_deref(), Some("free"));

    let verified = read(r#""client_id":"shop","scp":["x","y z"]"#);
    assert_eq!(verified.scopes.iter().map(|s| &**s).collect::<Vec<_>>(), ["x", "y z"]);
}

#[test]
fn any_change_of_an_issuer_is_another_generation() {
    let generation = |issuer: &JwtIssuer| Generation::of(issuer, &[Arc::new(issuer.clone())]);
    let one = generation(&issuer());
    assert!(generation(&issuer()) == one, "the same is the same");
    let changed: [fn(&mut JwtIssuer); 12] = [
        |i| i.name = "x".into(),
        |i| i.issuer = None,
        |i| i.issuer = Some(String::new()),
        |i| i.audiences = vec!["apiother".into()],
        |i| i.types = vec!["apiother".into()],
        |i| i.leeway = Duration::from_secs(31),
        |i| i.consumer_claim = "client".into(),
        |i| i.scopes_claim = "scp".into(),
        |i| i.plan_claim = Some("".into()),
        |i| i.default_plan = Some("".into()),
        |i| i.headers = vec![(http::HeaderName::from_static("x-a"), "b".into())],
        |i| i.headers = vec![(http::HeaderName::from_static("x-ab"), "".into())],
    ];
    let mut seen = vec![one];
    for change in changed {
        let mut issuer = issuer();
        change(&mut issuer);
        let generation = generation(&issuer);
        assert!(!seen.contains(&generation), "change {}", seen.len());
        seen.push(generation);
    }
    let any = JwtIssuer { issuer: None, ..issuer() };
    let beside = Generation::of(&any, &[Arc::new(any.clone()), Arc::new(issuer())]);
    assert!(beside != generation(&any), "which tokens it is tried with depends on the others");
}

#[test]
fn a_key_that_goes_takes_only_its_own_tokens_along() {
    let key = |kid: &str| Key::secret(Some(kid), Alg::Hs256, SECRET).unwrap();
    let of = |kids: &[&str]| {
        let keys = given(kids.iter().map(|kid| key(kid)).collect::<Vec<_>>());
        issuers([JwtIssuer { keys, ..issuer() }])
    };
    let verified = |kid: &str| {
        let token = with_header(&format!(r#""kid":"{kid}""#));
        of(&["old", "new"]).verify(token.as_bytes(), Duration::from_secs(NOW)).unwrap()
    };
    for (kid, kids, vouched) in [
        ("old", &["old", "new"][..], true),
        ("old", &["new", "newer"], false),
        ("new", &["new", "newer"], true),
        ("new", &["newer", "new"], true),
    ] {
        let (verified, generation) = verified(kid);
        assert_eq!(of(kids).vouch(&generation, &verified.key), vouched, "{kid} of {kids:?}");
    }
    let other = JwtIssuer { keys: given([key("old")]), leeway: Duration::ZERO, ..issuer() };
    let (verified, generation) = verified("old");
    assert!(!issuers([other]).vouch(&generation, &verified.key), "another generation");
}
