//! How messages speak of the configuration: what a key belongs to, and what was probably meant.

/// The kind of thing that a table of names holds: `route` for `routes`.
fn kind(path: &[&str]) -> Option<(&'static str, usize)> {
    Some(match path {
        ["admin", "tokens", _, ..] => ("admin token", 3),
        ["auth", "jwt", _, ..] => ("issuer", 3),
        ["listeners", _, ..] => ("listener", 2),
        ["plans", _, ..] => ("plan", 2),
        ["policies", _, ..] => ("policy", 2),
        ["routes", _, ..] => ("route", 2),
        ["upstreams", _, ..] => ("upstream", 2),
        _ => return None,
    })
}

/// A key or table, as a message names it: ``route `orders` ``, ``limit `burst` of plan `free` ``,
/// ``` `cors` of route `orders` ```, ``` `[http]` ```.
pub(crate) fn subject(path: &[&str]) -> String {
    let Some((kind, depth)) = kind(path) else {
        return match path {
            [] => "the configuration".to_owned(),
            path => format!("`[{}]`", path.join(".")),
        };
    };
    let name = path.get(depth - 1).copied().unwrap_or_default();
    let owner = format!("{kind} `{name}`");
    match path.get(depth..).unwrap_or_default() {
        [] => owner,
        ["limits", limit] => format!("limit `{limit}` of {owner}"),
        ["limits", limit, rest @ ..] => {
            format!("`{}` of limit `{limit}` of {owner}", rest.join("."))
        }
        rest => format!("`{}` of {owner}", rest.join(".")),
    }
}

/// The candidate that was probably meant, if any is near.
pub(crate) fn nearest<'a>(
    text: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let likeness = |candidate: &str| {
        let near = text.len().abs_diff(candidate.len()) <= 3;
        if near { strsim::jaro_winkler(text, candidate) } else { 0.0 }
    };
    candidates
        .into_iter()
        .map(|candidate| (likeness(candidate), candidate))
        .filter(|(likeness, candidate)| *likeness >= 0.82 || is_one_edit(text, candidate))
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, candidate)| candidate)
}

fn is_one_edit(text: &str, candidate: &str) -> bool {
    candidate.len() > 2 && strsim::osa_distance(text, candidate) == 1
}

/// `a`, `b` and `c`, in backticks.
pub(crate) fn listed<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let mut quoted: Vec<String> = words.into_iter().map(|word| format!("`{word}`")).collect();
    match quoted.pop() {
        None => String::new(),
        Some(last) if quoted.is_empty() => last,
        Some(last) => format!("{} and {last}", quoted.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_reads_as_a_person_would_say_it() {
        for (path, words) in [
            (&[][..], "the configuration"),
            (&["http"], "`[http]`"),
            (&["auth", "api_key"], "`[auth.api_key]`"),
            (&["auth", "jwt", "main"], "issuer `main`"),
            (&["routes", "a"], "route `a`"),
            (&["routes", "a", "cors"], "`cors` of route `a`"),
            (&["admin", "tokens", "ci"], "admin token `ci`"),
            (&["policies", "p", "limits", "l"], "limit `l` of policy `p`"),
            (&["plans", "p", "limits", "l"], "limit `l` of plan `p`"),
            (&["plans", "p", "limits", "l", "x"], "`x` of limit `l` of plan `p`"),
        ] {
            assert_eq!(subject(path), words);
        }
    }

    #[test]
    fn only_a_near_word_is_suggested() {
        let known = ["upstream", "redirect", "reply", "billing"];
        assert_eq!(nearest("upstraem", known), Some("upstream"));
        assert_eq!(nearest("bilingg", known), Some("billing"));
        assert_eq!(nearest("zzz", known), None);
        assert_eq!(nearest("off", ["on", "off-insecure"]), None);
    }
}
