//! Tables of mistakes and of evaluations, and texts that mean harm.

use super::*;
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use std::borrow::Cow;

struct Token;

impl Claims for Token {
    fn claim(&self, name: &str) -> Option<Cow<'_, str>> {
        match name {
            "tenant" => Some("acme".into()),
            "level" => Some("7".into()),
            "long" => Some("x".repeat(bounds::TEXT + 1).into()),
            _ => None,
        }
    }
}

fn headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("x-canary", "1"),
        ("x-list", "a"),
        ("x-list", "b"),
        ("content-length", "4096"),
        ("x-empty", ""),
        ("x-number", "12"),
        ("x-accent", "é"),
        ("cookie", "a=1"),
        ("cookie", "b=2"),
    ] {
        headers.append(
            HeaderName::from_static(name),
            HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        );
    }
    headers.append("x-bytes", HeaderValue::from_bytes(b"\xff\xfe").unwrap());
    headers
}

fn with_facts<T>(caller: bool, run: impl FnOnce(&Facts<'_>) -> T) -> T {
    let headers = headers();
    let scopes: Vec<Arc<str>> = vec!["orders:read".into(), "orders:write".into()];
    let facts = Facts {
        request: Request {
            method: "POST",
            path: "/v2/orders/7",
            host: "api.example.com",
            query: Some("debug&page=2&name=a%20b&twice=1&tw%69ce=1&plus=a+b&bad=%ff"),
            headers: &headers,
            address: "10.1.2.3".parse().unwrap(),
            tls: true,
            goes_on: false,
        },
        route: Some("orders"),
        caller: caller.then_some(Caller {
            consumer: "acme",
            id: "c1",
            plan: "gold",
            custom_id: None,
            scopes: &scopes,
            method: "api_key",
            key: "k1",
        }),
        claims: caller.then_some(&Token),
    };
    run(&facts)
}

fn compile(source: &str, wanted: Wanted) -> Result<Expression, Vec<Mistake>> {
    Language::default().compile(source, "test", Sees::Caller, wanted)
}

/// `true`, `7` or text, as it comes out; `absent`, or why it failed.
fn result(source: &str, caller: bool) -> String {
    for wanted in [Wanted::Condition, Wanted::Number, Wanted::Text] {
        if let Ok(expression) = compile(source, wanted) {
            return with_facts(caller, |facts| {
                let shown = expression.evaluate(facts, |value| {
                    (value.downcast_ref::<CelBool>().map(|it| it.inner().to_string()))
                        .or_else(|| value.downcast_ref::<CelInt>().map(|it| it.inner().to_string()))
                        .or_else(|| {
                            value.downcast_ref::<CelString<'_>>().map(|it| it.inner().to_owned())
                        })
                });
                match shown {
                    Ok(text) => text,
                    Err(Outcome::Absent) => "absent".to_owned(),
                    Err(Outcome::Failed(reason)) => format!("failed: {reason}"),
                }
            });
        }
    }
    format!("{:?}", compile(source, Wanted::Condition))
}

#[test]
fn expressions_read_the_request() {
    for (source, expected) in [
        ("request.method", "POST"),
        ("request.path", "/v2/orders/7"),
        ("request.host", "api.example.com"),
        ("request.address", "10.1.2.3"),
        ("request.scheme", "https"),
        ("request.size", "4096"),
        ("request.size / 1024 + 1", "5"),
        ("request.headers['x-canary']", "1"),
        ("request.headers['x-canary'] == '1'", "true"),
        ("request.headers['x-list']", "a, b"),
        ("request.headers['x-empty'] == ''", "true"),
        ("request.headers['x-accent']", "é"),
        ("request.headers['x-bytes']", "failed: a header or parameter is no text"),
        ("request.headers['x-bytes'] != '1'", "failed: a header or parameter is no text"),
        ("request.headers.cookie", "a=1; b=2"),
        ("'x-bytes' in request.headers", "true"),
        ("request.headers['x-none'] == '1'", "absent"),
        ("request.headers['x-none'] != '1'", "absent"),
        ("!(request.headers['x-none'] == '1')", "absent"),
        ("'x-none' in request.headers", "false"),
        ("!('x-none' in request.headers)", "true"),
        ("request.headers.host", "absent"),
        ("has(request.headers.host)", "false"),
        ("request.headers['x-none'] == '1' || request.query.page == '2'", "true"),
        ("request.headers['x-none'] == '1' && request.query.page == '3'", "false"),
        ("request.query.page", "2"),
        ("request.query.debug", ""),
        ("request.query.name", "a b"),
        ("request.query.plus", "a+b"),
        ("request.query.bad", "failed: a header or parameter is no text"),
        ("has(request.query.bad)", "true"),
        ("request.query.twice", "failed: a parameter stands twice"),
        (
            "request.query.twice == '1' || request.query.none == '1'",
            "failed: a parameter stands twice",
        ),
        ("request.query.twice == '1' || request.method == 'POST'", "true"),
        ("has(request.query.twice)", "true"),
        ("request.query.none", "absent"),
        ("has(request.query.debug)", "true"),
        ("has(request.query.none)", "false"),
        ("route.name", "orders"),
    ] {
        assert_eq!(result(source, true), expected, "{source}");
    }
}

#[test]
fn expressions_read_who_calls() {
    for (source, expected, of_nobody) in [
        ("caller.consumer", "acme", "absent"),
        ("caller.id", "c1", "absent"),
        ("caller.plan", "gold", "absent"),
        ("caller.plan != 'free'", "true", "absent"),
        ("caller.key", "k1", "absent"),
        ("caller.method", "api_key", "none"),
        ("caller.custom_id", "absent", "absent"),
        ("has(caller.custom_id)", "false", "false"),
        ("has(caller.plan)", "true", "false"),
        ("'orders:read' in caller.scopes", "true", "absent"),
        ("caller.scopes.exists(s, s.startsWith('orders:'))", "true", "absent"),
        ("caller.scopes.all(s, s.endsWith(':read'))", "false", "absent"),
        ("caller.scopes.filter(s, s.endsWith(':read')).size()", "1", "absent"),
        ("caller.scopes.map(s, s + '!')[1]", "orders:write!", "absent"),
        ("caller.scopes.exists_one(s, s == 'orders:read')", "true", "absent"),
        ("caller.scopes.map(s, s.endsWith('e'), s + '!')[0]", "orders:write!", "absent"),
        ("size(caller.scopes)", "2", "absent"),
        ("claims.tenant", "acme", "absent"),
        ("claims['tenant'] + ':' + request.method", "acme:POST", "absent"),
        ("int(claims.level) > 5", "true", "absent"),
        ("has(claims.none)", "false", "false"),
        ("'tenant' in claims", "true", "false"),
        ("claims.long == ''", "failed: a text is too long, or a list", "absent"),
        ("{'gold': 1, 'free': 10}[caller.plan]", "1", "absent"),
        ("{'silver': 1, 'free': 10}[caller.plan]", "absent", "absent"),
        ("caller.plan in {'gold': 1}", "true", "absent"),
    ] {
        assert_eq!(result(source, true), expected, "{source}");
        assert_eq!(result(source, false), of_nobody, "nobody: {source}");
    }
}

#[test]
fn operators_and_functions_do_what_they_say() {
    for (source, expected) in [
        ("1 + 2 * 3 - 4 / 2 % 3", "5"),
        ("-(3)", "-3"),
        ("--3", "3"),
        ("1 < 2 && 2 <= 2 && 'a' < 'b' && 2.5 > 1.5", "true"),
        ("true ? 'a' : 'b'", "a"),
        ("request.method == 'GET' ? 1 : request.method == 'POST' ? 2 : 3", "2"),
        ("size('é')", "1"),
        ("'héllo'.contains('é')", "true"),
        ("'AbC'.lowerAscii() + 'AbC'.upperAscii() + ' x '.trim()", "abcABCx"),
        ("request.path.split('/', 8)[1]", "v2"),
        ("request.path.split('/', 8).size()", "4"),
        ("request.path.split('/', 8).exists(p, p == 'orders')", "true"),
        ("request.path.split('/', 8)[9]", "failed: a list has no such item"),
        ("request.path.split('/', 8)[-1]", "failed: a list has no such item"),
        ("request.path.matches('^/v[0-9]+/')", "true"),
        ("request.path.matches(r'^/v\\d/orders$')", "false"),
        ("inNetwork(request.address, '10.0.0.0/8')", "true"),
        ("inNetwork(request.address, 'fd00::/8')", "false"),
        ("inNetwork('x', 'fd00::/8')", "failed: a function cannot take what it is given"),
        ("int('12') + int(3.7) + int(4)", "19"),
        ("string(12) + string(true) + string('x')", "12truex"),
        ("bool('true')", "true"),
        ("double('1.5') + 1.0 > 2.4", "true"),
        ("int(request.headers['x-number']) + 1", "13"),
        ("int(request.path)", "failed: a function cannot take what it is given"),
        ("1 in [1, 2]", "true"),
        ("[1, 2] + [3] == [1, 2, 3]", "true"),
        ("[] == [1]", "false"),
        ("{'a': 1}.a", "1"),
        ("has({'a': 1}.b)", "false"),
        ("{'a': 1}['b']", "absent"),
        ("1 / 0", "failed: division by zero"),
        ("1 % 0", "failed: division by zero"),
        ("9223372036854775807 + 1", "failed: a number is too large"),
        ("-9223372036854775807 - 2", "failed: a number is too large"),
        ("9223372036854775807 * 2", "failed: a number is too large"),
        ("request.size / (request.size - 4096) > 0 || true", "true"),
        ("[1, 2][request.size]", "failed: a list has no such item"),
    ] {
        assert_eq!(result(source, true), expected, "{source}");
    }
}

/// Text that nests, or goes on, as far as it can.
fn deep() -> Vec<String> {
    let times = |open: &str, middle: &str, close: &str, count: usize| {
        format!("{}{middle}{}", open.repeat(count), close.repeat(count))
    };
    let mut texts = Vec::new();
    for count in [10, 23, 24, 40, 95, 130, 190, 199, 398, 1000, 4000] {
        for (open, middle, close) in [
            ("(", "true", ")"),
            ("[", "1", "]"),
            ("{'a':", "1", "}"),
            ("!", "true", ""),
            ("!(", "true", ")"),
            ("-", "1", ""),
            ("- ", "1", ""),
            ("1+", "1", ""),
            ("1-", "1", ""),
            ("1<", "1", ""),
            ("true||", "true", ""),
            ("true&&", "true", ""),
            ("true?", "true", ":true"),
            ("true?true:", "true", ""),
            ("", "request", ".path"),
            ("", "request.path", ".trim()"),
            ("", "request.path", "[0]"),
            ("", "[1]", ".map(x,x)"),
            ("[1].map(x,", "x", ")"),
            ("has(", "x", ")"),
            ("size(", "'x'", ")"),
            ("request.headers[", "'x'", "]"),
            ("'", "", ""),
            ("''+", "''", ""),
            ("\\", "x", ""),
            ("'\\", "x'", ""),
            ("(", "", ""),
            ("a{", "", ""),
            ("?", "", ""),
            (".", "", ""),
            ("`", "", ""),
            ("é", "", ""),
            ("99", "", ""),
            ("1e", "9", ""),
            ("0x", "f", ""),
        ] {
            texts.push(times(open, middle, close, count));
        }
    }
    texts
}

#[test]
fn text_that_nests_deeply_or_goes_on_overflows_no_stack() {
    // A debug build takes many times the stack of a release build; threads here have 2 MiB.
    let thread = std::thread::Builder::new().stack_size(1 << 20);
    let run = thread.spawn(|| {
        let language = Language::default();
        for text in deep() {
            for wanted in [Wanted::Condition, Wanted::Number, Wanted::Text] {
                if let Ok(expression) = language.compile(&text, "test", Sees::Caller, wanted) {
                    with_facts(true, |facts| expression.evaluate(facts, |_| Some(())).ok());
                }
            }
        }
    });
    run.unwrap().join().unwrap();
}

/// Pieces of which most texts are nearly expressions.
const PIECES: &[&str] = &[
    "request",
    ".path",
    ".method",
    ".headers",
    ".query",
    "['x-canary']",
    "claims",
    ".tenant",
    "caller",
    ".scopes",
    ".exists(s, ",
    ".map(x, ",
    ".filter(x, ",
    "has(",
    "size(",
    "int(",
    "string(",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "'a'",
    "\"b\"",
    "1",
    "0",
    "-1",
    "9223372036854775807",
    "1.5",
    "1e308",
    "1u",
    "null",
    "true",
    "false",
    " + ",
    " - ",
    " * ",
    " / ",
    " % ",
    " == ",
    " != ",
    " < ",
    " in ",
    " && ",
    " || ",
    "!",
    " ? ",
    " : ",
    ", ",
    ".",
    "s",
    "x",
    "'",
    "\\",
    "@",
    "@0",
    "é",
    "\n",
    ".contains(",
    ".matches('a+')",
    "inNetwork(request.address, '10.0.0.0/8')",
    ".split('/', 2)",
    "[0]",
    "b'x'",
    "r'\\'",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_compiling_or_evaluating_panic(
        text in prop_oneof![
            "\\PC{0,200}",
            "[ -~]{0,200}",
            proptest::collection::vec(proptest::sample::select(PIECES), 1..30).prop_map(|it| it.concat()),
        ],
        pick in 0..3_usize,
    ) {
        let wanted = [Wanted::Condition, Wanted::Number, Wanted::Text][pick];
        match compile(&text, wanted) {
            Ok(expression) => for caller in [true, false] {
                let outcome = with_facts(caller, |facts| expression.evaluate(facts, |_| Some(())));
                let gave_up = Err(Outcome::Failed("the interpreter gave up".to_owned()));
                prop_assert_ne!(outcome, gave_up);
            },
            Err(mistakes) => {
                prop_assert!(!mistakes.is_empty());
                for mistake in mistakes {
                    prop_assert!(text.get(mistake.at).is_some());
                    prop_assert_ne!(mistake.label, "it cannot be read");
                }
            }
        }
    }
}
