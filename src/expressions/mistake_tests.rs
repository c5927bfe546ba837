//! What operators are told about expressions that are wrong: the place and the reason.

use super::*;

/// An expression, and for each mistake what stands at its place, and the message.
type Case = (&'static str, &'static [(&'static str, &'static str)]);

#[rustfmt::skip]
const CASES: &[Case] = &[
    ("request.methd == 'GET'", &[("methd", "`request` has no field `methd`")]),
    ("requst.method == 'GET'", &[("requst", "`requst` is unknown")]),
    ("method == 'GET'", &[("method", "`method` is unknown")]),
    ("tenant == 'a'", &[("tenant", "`tenant` is unknown")]),
    ("request == 'GET'", &[("request", "`request` is no value by itself")]),
    ("request.headers == 'x'", &[("headers", "`request.headers` is no value by itself")]),
    ("has(request.headers)", &[("has", "`request.headers` is no value by itself")]),
    ("request.headers['X-Canary'] == '1'", &[("'X-Canary'", "`X-Canary` is never among the headers")]),
    ("request.headers['x canary'] == '1'", &[("'x canary'", "`x canary` is not the name of a header")]),
    ("request.headers[request.path] == '1'", &[("request.path", "the name of an entry of `request.headers` must stand here")]),
    ("request.headers[0] == '1'", &[("0", "the name of an entry of `request.headers` must stand here")]),
    ("claims[request.path] == 'x'", &[("request.path", "the name of an entry of `claims` must stand here")]),
    ("route.nam == 'x'", &[("nam", "`route` has no field `nam`")]),
    ("caller.plan.name == 'x'", &[("name", "a string has no fields")]),
    ("request.method == GET", &[("GET", "`GET` is unknown")]),
    ("request.method", &[("request.method", "a condition is true or false")]),
    ("request.size == '1'", &[("==", "an int is never equal to a string")]),
    ("request.size > '1'", &[(">", "`>` does not take an int and a string")]),
    ("request.method == 'GET' && request.size", &[("request.size", "`&&` takes true and false")]),
    ("request.method && true", &[("request.method", "`&&` takes true and false")]),
    ("!request.path", &[("request.path", "`!` takes true and false")]),
    ("-request.path == 1", &[("-", "`-` does not take a string")]),
    ("request.path - 'a' == 'b'", &[("-", "`-` does not take a string and a string")]),
    ("request.path + 1 == 'b'", &[("+", "`+` does not take a string and an int")]),
    ("request.size + 1.5 > 2.0", &[("+", "`+` does not take an int and a double")]),
    ("caller.scopes == 'a'", &[("==", "a list of string is never equal to a string")]),
    ("'a' in request.path", &[("in", "`in` looks for a string in a string")]),
    ("1 in caller.scopes", &[("in", "an int is never equal to a string")]),
    ("caller.scopes['a'] == 'x'", &[("[", "an item of a list has a number")]),
    ("caller.scopes.exists(s, s > 1)", &[(">", "`>` does not take a string and an int")]),
    ("caller.scopes.exists(s, s)", &[("s", "`||` takes true and false")]),
    ("caller.scopes.exists(request, request == 'x')", &[("exists", "`request` is taken")]),
    ("caller.scopes.exists(s, caller.scopes.exists(t, s == t))", &[("exists", "a loop cannot be inside of a loop")]),
    ("caller.scopes.exists('s', true)", &[("'", "this is not an expression; argument must be a simple name")]),
    ("caller.scopes.exists(s)", &[("exists", "a list of string has no function `exists`")]),
    ("request.path.exists(s, s == 'x')", &[("exists", "only a list can be gone through")]),
    ("request.headers.exists(h, h == 'x')", &[("headers", "`request.headers` is no value by itself")]),
    ("request.path.startsWith()", &[("startsWith", "`startsWith` takes one text")]),
    ("request.path.startsWith(1)", &[("1", "`startsWith` takes a string")]),
    ("request.path.startWith('/v2')", &[("startWith", "a string has no function `startWith`")]),
    ("request.size.startsWith('1')", &[("startsWith", "`startsWith` is asked of an int")]),
    ("startsWith(request.path, '/v2')", &[("startsWith", "there is no function `startsWith`")]),
    ("contain(request.path, '/v2')", &[("contain", "there is no function `contain`")]),
    ("size(1) == 1", &[("size", "an int has no size")]),
    ("size() == 1", &[("size", "`size` takes one argument")]),
    ("size('a', 'b') == 1", &[("size", "`size` takes one argument")]),
    ("int(true) == 1", &[("true", "`int` does not take a bool")]),
    ("int(caller.scopes) == 1", &[("caller.scopes", "`int` does not take a list of string")]),
    ("caller.method == 'apikey'", &[("'apikey'", "`apikey` is never the method of a caller")]),
    ("'cookie' != caller.method", &[("'cookie'", "`cookie` is never the method of a caller")]),
    ("request.method == 'get'", &[("'get'", "`get` is never the method of a request")]),
    ("request.method in ['GET', 'put']", &[("'put'", "`put` is never the method of a request")]),
    ("request.address == '10.0.0.0/8'", &[("'10.0.0.0/8'", "`10.0.0.0/8` is never an address")]),
    ("request.path.startsWith('orders')", &[("'orders'", "no path begins with `orders`")]),
    ("request.path == 'orders'", &[("'orders'", "no path begins with `orders`")]),
    ("request.host == 'API.example.com:443'", &[("'API.example.com:443'", "`API.example.com:443` is never a host")]),
    ("request.host == '[::1]:443'", &[("'[::1]:443'", "`[::1]:443` is never a host")]),
    ("request.host == 'API.example.com'", &[("'API.example.com'", "`API.example.com` is never a host")]),
    ("request.path.matches('[')", &[("'['", "this is not a pattern")]),
    ("request.path.matches(request.host)", &[("request.host", "what `matches` looks for must stand here")]),
    ("request.path.matches('a{1000}{1000}')", &[("'a{1000}{1000}'", "this is not a pattern")]),
    ("inNetwork(request.address, '10.0.0.0/40')", &[("'10.0.0.0/40'", "this is not a network")]),
    ("inNetwork(request.address, '10.1.0.0/8')", &[("'10.1.0.0/8'", "`10.1.0.0/8` is not a network")]),
    ("inNetwork(request.address, request.host)", &[("request.host", "what `inNetwork` looks for must stand here")]),
    ("inNetwork(request.size, '10.0.0.0/8')", &[("request.size", "`inNetwork` takes an address")]),
    ("inNetwork('10.0.0.0/8')", &[("inNetwork", "`inNetwork` takes an address and a network")]),
    ("request.path.split('/') == ['a']", &[("split", "`split` takes a text, and into how many parts at most")]),
    ("request.path.split('/', 1000)[0] == 'a'", &[("1000", "`split` must be told how many parts there can be")]),
    ("true ? 'a' : 1", &[("?", "both sides of a choice must be of one kind")]),
    ("request.method == 'GET' ? true : 'x'", &[("?", "both sides of a choice must be of one kind")]),
    ("[1, 'a'][0] == 1", &[("'a'", "every item must be of one kind")]),
    ("{'a': 1, 'a': 2}.a == 1", &[("'a'", "a key stands twice in a map")]),
    ("{1: 2}[1] == 2", &[("1", "the key of a map must be a text"), ("[", "an entry of a map has a text")]),
    ("{'a': 1, 'b': 'x'}.a == 1", &[("'x'", "every value of a map must be of one kind")]),
    ("1u == 1u", &[("1u", "a number with `u` cannot stand in an expression"), ("1u", "a number with `u` cannot stand in an expression")]),
    ("b'a' == b'a'", &[("b'", "this before a quote cannot stand in an expression")]),
    ("request.path == null", &[("null", "`null` cannot stand in an expression")]),
    ("type(request.path) == string", &[("type", "there is no function `type`"), ("string", "`string` is unknown")]),
    ("Foo{a: 1}.a == 1", &[("{", "a message cannot stand in an expression")]),
    ("optional.of(1).hasValue()", &[("optional", "`optional` is unknown")]),
    ("request.?path == 'x'", &[(".", "this is not an expression; unsupported syntax '.?'")]),
    ("request.headers[?'x'] == 'x'", &[("[", "this is not an expression; unsupported syntax '[?'")]),
    ("[?1] == [1]", &[("?", "this is not an expression; unsupported syntax '?'")]),
    ("request.`path` == 'x'", &[(".", "this is not an expression; unsupported syntax: '`'")]),
    ("request.method ==", &[("=", "this is not an expression; something is missing behind this")]),
    ("request.method == 'GET' &&", &[("&", "this is not an expression; something is missing behind this")]),
    ("request.method = 'GET'", &[("=", "this is not an expression; `=` means nothing here")]),
    ("request.method === 'GET'", &[("=", "this is not an expression; `=` means nothing here")]),
    ("request.method == 'GET' and true", &[("and", "this is not an expression; `and` is not expected here")]),
    ("request.method == 'GET' || request.methd == 'PUT' || caller.pln == 'x'", &[("methd", "`request` has no field `methd`"), ("pln", "`caller` has no field `pln`")]),
    ("(request.method == 'GET'", &[("'", "this is not an expression; `)` is missing")]),
    ("request.method == 'GET')", &[(")", "this is not an expression; `)` is not expected here")]),
    ("request.method == 'GET", &[("'", "a text is not closed")]),
    (r#"request.method == "GE\q""#, &[(r#"\"#, "an escape does not exist")]),
    ("request.method == “GET”", &[("“", "this character cannot stand in an expression")]),
    ("# comment", &[("#", "this is not an expression; `#` means nothing here")]),
    ("true // comment", &[("//", "a comment cannot stand in an expression")]),
    ("'''a''' == 'a'", &[("'''", "a text in three quotes cannot stand in an expression")]),
    ("@0", &[("@", "this is not an expression; `@` means nothing here")]),
    ("if == 1", &[("if", "this is not an expression; reserved identifier: if")]),
    ("request.path == '/' ; true", &[(";", "this is not an expression; `;` means nothing here")]),
    ("request.path == '/' true", &[("true", "this is not an expression; `true` is not expected here")]),
    ("99999999999999999999 == 1", &[("99999999999999999999", "this is not an expression; invalid int literal")]),
    ("request..path == 'x'", &[(".", "this is not an expression; `..` is not expected here")]),
    (".request.path == 'x'", &[("request", "`.request` is unknown")]),
    ("request.path() == 'x'", &[("request", "`request` is no value by itself")]),
    ("timestamp('x') == 1", &[("timestamp", "there is no function `timestamp`")]),
    ("caller.scopes.exists(s, request.path.contains(s + request.path))", &[("caller.scopes.exists(s, request.path.contains(s + request.path))", "the expression can take too long")]),
    ("has(caller)", &[("caller", "this is not an expression; `has` takes a field, as `has(claims.tenant)`")]),
    ("has(caller.plan.x)", &[("caller", "a string has no fields")]),
    ("has('x')", &[("'", "this is not an expression; `has` takes a field, as `has(claims.tenant)`")]),
    ("true &&  false || (1)", &[("1", "`||` takes true and false")]),
    ("caller.scopes.all(claims, true)", &[("all", "`claims` is taken")]),
    ("{'a': 1}.b.c == 1", &[("c", "an int has no fields")]),
];

fn mistakes(source: &str, sees: Sees, wanted: Wanted) -> Vec<Mistake> {
    let language = Language::default().hiding(Some("x-api-key".parse().unwrap()));
    language.compile(source, "test", sees, wanted).err().unwrap_or_default()
}

#[test]
fn every_mistake_is_told_at_its_place() {
    for (source, expected) in CASES {
        let told = mistakes(source, Sees::Caller, Wanted::Condition);
        let shown: Vec<(&str, String)> = (told.iter())
            .map(|mistake| {
                let reason = match &*mistake.message {
                    message @ "this is not an expression" => {
                        format!("{message}; {}", mistake.label)
                    }
                    message => message.to_owned(),
                };
                (source.get(mistake.at.clone()).unwrap(), reason)
            })
            .collect();
        let shown: Vec<(&str, &str)> =
            shown.iter().map(|(place, message)| (*place, message.as_str())).collect();
        assert_eq!(shown, *expected, "{source}");
        for Mistake { label, help, .. } in told {
            assert!(!label.is_empty() && !help.is_empty(), "{source}");
        }
    }
}

#[test]
fn no_credential_is_read() {
    for name in
        ["authorization", "Authorization", "x-api-key", "X-API-Key", "x_api-key", "x_api_key"]
    {
        let source = format!("request.headers['{name}']");
        let told = mistakes(&source, Sees::Caller, Wanted::Text);
        assert_eq!(told.len(), 1, "{source}");
        assert_eq!(told[0].label, "a credential is nothing that expressions read");
    }
    let told = mistakes("request.headers.authorization", Sees::Caller, Wanted::Text);
    assert_eq!(told.len(), 1);
    assert_eq!(mistakes("request.headers['cookie']", Sees::Caller, Wanted::Text), []);
    assert!(
        Language::default()
            .compile("request.headers['x-api-key']", "test", Sees::Caller, Wanted::Text)
            .is_ok()
    );
}

#[test]
fn what_comes_out_must_be_what_the_place_needs() {
    for (source, wanted, message) in [
        ("request.size", Wanted::Condition, "a condition is true or false"),
        ("request.path", Wanted::Number, "a whole number must come out"),
        ("1.5", Wanted::Number, "a whole number must come out"),
        ("request.size", Wanted::Text, "a text must come out"),
        ("caller.scopes", Wanted::Text, "a text must come out"),
    ] {
        let told = mistakes(source, Sees::Caller, wanted);
        assert_eq!(told.len(), 1, "{source}");
        assert_eq!((told[0].at.clone(), &*told[0].message), (0..source.len(), message), "{source}");
    }
}

#[test]
fn a_route_is_looked_for_before_anybody_is_known() {
    for source in
        ["caller.plan == 'gold'", "claims.tenant == 'a'", "route.name == 'a'", "has(caller.plan)"]
    {
        let told = mistakes(source, Sees::Request, Wanted::Condition);
        assert_eq!(told.len(), 1, "{source}");
        assert!(told[0].message.ends_with("is not known while a route is looked for"), "{source}");
        assert!(mistakes(source, Sees::Caller, Wanted::Condition).is_empty(), "{source}");
    }
    assert!(mistakes("request.method == 'GET'", Sees::Request, Wanted::Condition).is_empty());
}

#[test]
fn what_is_too_much_is_refused_before_it_costs_anything() {
    let long = format!("request.path == '{}'", "a".repeat(5000));
    let many = vec!["request.size == 1"; 60].join(" || ");
    let wide = vec!["request.path.contains(request.host)"; 60].join(" || ");
    let concat = vec!["request.path"; 30].join(" + ") + " == ''";
    let sum = vec!["1"; 40].join(" + ") + " == 1";
    for (source, message) in [
        (&*long, "the expression is too long"),
        (&many, "the expression is too large"),
        (&wide, "the expression is too large"),
        (&concat, "the expression can take too long"),
        (&sum, "the expression nests too deeply"),
        (
            "caller.scopes.exists(s, caller.scopes.map(t, t + s).size() > 1)",
            "a loop cannot be inside of a loop",
        ),
        (
            "caller.scopes.exists(s, request.path.contains(s + request.path))",
            "the expression can take too long",
        ),
        (
            "request.path.split('/', 64).exists(p, p.matches('a+') && p.matches('b+'))",
            "the expression can take too long",
        ),
        (
            "caller.scopes.map(s, request.path + request.path)[0] == ''",
            "the expression can take too long",
        ),
    ] {
        let told = mistakes(source, Sees::Caller, Wanted::Condition);
        assert_eq!(told.first().map(|it| &*it.message), Some(message), "{source}");
    }
    for source in [
        "caller.scopes.exists(s, s.startsWith('orders:') && !s.endsWith('x'))",
        "caller.scopes.exists(s, s == request.headers['x-scope'])",
        "request.path.split('/', 16).exists(p, p.lowerAscii() == 'admin')",
        "request.headers['a'].matches('a+b+') && request.headers['b'].matches('[0-9]{1,64}')",
    ] {
        assert_eq!(mistakes(source, Sees::Caller, Wanted::Condition), [], "{source}");
    }
}

#[test]
fn an_expression_knows_what_it_reads() {
    let compile = |source: &str| {
        Language::default().compile(source, "test", Sees::Caller, Wanted::Condition).unwrap()
    };
    for (source, claims, asks) in [
        ("request.method == 'GET'", &[][..], false),
        ("caller.method == 'none'", &[], false),
        ("caller.plan == 'gold'", &[], true),
        ("has(caller.custom_id)", &[], true),
        ("claims.tenant == claims['org']", &["tenant", "org"], true),
        ("has(claims.tenant) || 'org' in claims", &["tenant", "org"], true),
    ] {
        let expression = compile(source);
        let read: Vec<&str> = expression.claims().map(|name| &**name).collect();
        assert_eq!((read.as_slice(), expression.asks_for_a_caller()), (claims, asks), "{source}");
    }
}

#[test]
fn a_text_that_a_request_can_have_is_compared() {
    for source in [
        "caller.method in ['api_key', 'jwt', 'mtls', 'none']",
        "request.method == 'M-SEARCH'",
        "request.address == '10.0.0.1' || request.address == '::1'",
        "request.address.startsWith('10.')",
        "request.path == '*' || request.path == '' || request.path.startsWith('')",
        "request.path.contains('orders') || request.path.endsWith('orders')",
        "request.path.lowerAscii().startsWith('orders')",
        "request.host == 'api.example.com' || request.host == '[::1]' || request.host == '::1'",
        "request.headers['x-host'] == 'API.example.com:443' || claims.method == 'get'",
    ] {
        let compiled = Language::default().compile(source, "", Sees::Caller, Wanted::Condition);
        assert!(compiled.is_ok(), "{source}: {compiled:?}");
    }
}
