//! Header names that some servers take for one another, because they read `_` as `-`.

use http::HeaderName;

/// Header names with more dashes than this have too many spellings with `_` to list.
const MAX_DASHES: usize = 4;

/// Whether a server that takes `_` for `-` would take both for one name.
pub(super) fn same(one: &HeaderName, other: &HeaderName) -> bool {
    let dashed = |byte: u8| if byte == b'_' { b'-' } else { byte };
    let (one, other) = (one.as_str().as_bytes(), other.as_str().as_bytes());
    one.len() == other.len()
        && one.iter().zip(other).all(|(one, other)| dashed(*one) == dashed(*other))
}

/// Every other spelling of `name` with `_` for `-`, or `-` for `_`.
pub(super) fn underscore_twins(name: &HeaderName) -> Vec<HeaderName> {
    let mut spellings = vec![String::new()];
    let mut dashes = 0;
    for letter in name.as_str().chars() {
        let is_dash = matches!(letter, '-' | '_');
        dashes += usize::from(is_dash);
        if is_dash && dashes <= MAX_DASHES {
            let with = |end: char| spellings.iter().map(move |start| format!("{start}{end}"));
            spellings = with('-').chain(with('_')).collect();
        } else {
            spellings.iter_mut().for_each(|spelling| spelling.push(letter));
        }
    }
    spellings
        .iter()
        .filter_map(|spelling| HeaderName::from_bytes(spelling.as_bytes()).ok())
        .filter(|spelling| spelling != name)
        .collect()
}
