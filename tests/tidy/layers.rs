//! Which module may use which.

use crate::source::{Source, closing, is_word, words};

/// The modules from the top down. One may use what stands in a later line; in a line, what stands
/// further right, but for siblings, which do not know each other.
const LAYERS: &[(Kind, &[&str])] = &[
    (Kind::Ordered, &["main", "fuzzing", "cli", "server"]),
    (Kind::Ordered, &["admin", "tasks", "runtime"]),
    (Kind::Ordered, &["proxy"]),
    (Kind::Ordered, &["snapshot"]),
    (Kind::Ordered, &["config"]),
    (Kind::Ordered, &["stores"]),
    (Kind::Siblings, &["routing", "auth", "limits", "upstreams"]),
    (Kind::Ordered, &["expressions"]),
    (Kind::Ordered, &["telemetry"]),
];

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Ordered,
    Siblings,
}

fn place(module: &str) -> Option<(usize, usize)> {
    LAYERS.iter().enumerate().find_map(|(line, (_, modules))| {
        modules.iter().position(|name| *name == module).map(|column| (line, column))
    })
}

/// Whether `user` may name `used`; `None` if either is in no layer.
pub(crate) fn may_use(user: &str, used: &str) -> Option<bool> {
    let ((from, left), (to, right)) = (place(user)?, place(used)?);
    Some(match from.cmp(&to) {
        std::cmp::Ordering::Less => true,
        std::cmp::Ordering::Greater => false,
        std::cmp::Ordering::Equal => {
            left == right || (LAYERS[from].0 == Kind::Ordered && left < right)
        }
    })
}

/// The top-level module that a file under `src/` belongs to; `None` for the crate's root.
pub(crate) fn module_of(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("src/")?;
    let first = inside.split('/').next()?;
    let module = first.strip_suffix(".rs").unwrap_or(first);
    (module != "lib").then_some(module)
}

/// Every top-level module that the production code names, with the place.
pub(crate) fn uses(source: &Source) -> Vec<(usize, String)> {
    let code = &source.production;
    let mut found = Vec::new();
    for root in ["crate", "datahub_gateway"] {
        for at in words(code, root) {
            let after = at + root.len();
            if let Some(path) = code[after..].strip_prefix("::") {
                let start = after + "::".len();
                found.extend(first_segments(code, start, path).map(|name| (start, name)));
            }
        }
    }
    // `super::` out of a top-level module is `crate::` in disguise.
    let depth = source.path.split('/').count() - 1 - usize::from(source.path.ends_with("/mod.rs"));
    let climb = "super::".repeat(depth);
    if depth > 0 {
        for (at, _) in code.match_indices(&climb) {
            let name = segment(&code[at + climb.len()..]);
            let whole = !code[..at].ends_with("super::") && !code[..at].ends_with("self::");
            if whole && place(&name).is_some() {
                found.push((at, name));
            }
        }
    }
    found
}

/// `a` of `a::b`, or `a` and `c` of `{a::b, c}`.
fn first_segments(code: &str, start: usize, path: &str) -> std::vec::IntoIter<String> {
    if !path.starts_with('{') {
        return vec![segment(path)].into_iter();
    }
    let inside = &code[start + 1..closing(code, start) - 1];
    let mut names = Vec::new();
    let (mut depth, mut item) = (0_usize, String::new());
    for c in inside.chars().chain([',']) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(segment(std::mem::take(&mut item).trim())),
            _ => {}
        }
        if depth == 0 && c != ',' {
            item.push(c);
        }
    }
    names.retain(|name| !name.is_empty());
    names.into_iter()
}

fn segment(path: &str) -> String {
    path.bytes().take_while(|byte| is_word(*byte)).map(char::from).collect()
}

#[test]
fn modules_are_found_in_every_form_of_a_path() {
    let text = "use crate::{auth::{A, B}, limits, telemetry::Clock};\n\
                use crate::routing::Router;\n\
                fn f() -> crate::config::Config { super::stores::open() }\n\
                #[cfg(test)]\nmod tests { use crate::server::Server; }\n";
    let source = Source::new("src/proxy/mod.rs".to_owned(), text.to_owned());
    let mut names: Vec<_> = uses(&source).into_iter().map(|(_, name)| name).collect();
    names.sort();
    assert_eq!(names, ["auth", "config", "limits", "routing", "stores", "telemetry"]);
}

#[test]
fn the_order_goes_one_way_and_siblings_are_strangers() {
    for (user, used, allowed) in [
        ("main", "cli", Some(true)),
        ("server", "cli", Some(false)),
        ("proxy", "auth", Some(true)),
        ("auth", "proxy", Some(false)),
        ("auth", "limits", Some(false)),
        ("auth", "auth", Some(true)),
        ("auth", "telemetry", Some(true)),
        ("stores", "auth", Some(true)),
        ("config", "snapshot", Some(false)),
        ("auth", "Error", None),
    ] {
        assert_eq!(may_use(user, used), allowed, "{user} uses {used}");
    }
}
