//! `Cargo.lock` against the RustSec advisories packed in `tests/audit/`, with no network.
//!
//! An advisory that touches a locked version fails, be it a vulnerability or a notice such as
//! "unmaintained", until the version moves or [`ACCEPTED`] says why it stays. The hosted workflow
//! asks the live database besides (`deny.toml`). `tests/audit/pack.py` renews the file.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test stops where it fails"
)]

use std::cmp::Ordering;
use std::fmt::Write as _;

/// What we live with: id and reason.
const ACCEPTED: &[(&str, &str)] = &[
    (
        "RUSTSEC-2024-0388",
        "derivative is unmaintained; pingora-core brings it, a macro with no run-time part",
    ),
    (
        "RUSTSEC-2025-0134",
        "rustls-pemfile is unmaintained; pingora-rustls reads certificates with it",
    ),
];

#[derive(serde::Deserialize)]
struct Advisory {
    id: String,
    package: String,
    date: String,
    info: Option<String>,
    title: String,
    patched: Vec<String>,
    unaffected: Vec<String>,
}

#[derive(serde::Deserialize)]
struct Lock {
    package: Vec<Package>,
}

#[derive(serde::Deserialize)]
struct Package {
    name: String,
    version: String,
    /// Absent for what lies in this repository.
    source: Option<String>,
}

/// One dot-separated part of a pre-release; numbers come before words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Number(u64),
    Word(String),
}

/// A version, or the given parts of one in a requirement.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Version {
    numbers: [u64; 3],
    given: usize,
    pre: Vec<Part>,
}

impl Version {
    fn parse(text: &str) -> Self {
        let text = text.split('+').next().unwrap();
        let (numbers, pre) = text.split_once('-').unwrap_or((text, ""));
        let mut version = Self { numbers: [0; 3], given: 0, pre: Vec::new() };
        for number in numbers.split('.') {
            version.numbers[version.given] = number.parse().unwrap_or_else(|_| panic!("`{text}`"));
            version.given += 1;
        }
        version.pre = pre
            .split('.')
            .filter(|part| !part.is_empty())
            .map(|part| part.parse().map_or_else(|_| Part::Word(part.to_owned()), Part::Number))
            .collect();
        version
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        self.numbers.cmp(&other.numbers).then_with(|| {
            match (self.pre.is_empty(), other.pre.is_empty()) {
                (false, false) => self.pre.cmp(&other.pre),
                (mine, theirs) => mine.cmp(&theirs),
            }
        })
    }
}

/// Whether `version` fits one comparison, such as `>= 1.2` or `^0.3.1`.
fn fits_one(version: &Version, comparison: &str) -> bool {
    let at = comparison.find(|c: char| c.is_ascii_digit()).unwrap_or(comparison.len());
    let (operator, wanted) = comparison.split_at(at);
    let wanted = Version::parse(wanted);
    // How many leading numbers must be the same.
    let fixed = match operator.trim() {
        ">=" => return *version >= wanted,
        ">" => return *version > wanted,
        "<=" => return *version <= wanted,
        "<" => return *version < wanted,
        "=" if wanted.given == 3 => return *version == wanted,
        "=" => wanted.given,
        "~" => wanted.given.min(2),
        "^" | "" => wanted.numbers.iter().position(|n| *n != 0).unwrap_or(2) + 1,
        other => panic!("unknown operator `{other}`"),
    };
    *version >= wanted && version.numbers[..fixed] == wanted.numbers[..fixed]
}

fn fits_any(version: &Version, requirements: &[String]) -> bool {
    requirements.iter().any(|all| all.split(',').all(|one| fits_one(version, one.trim())))
}

#[test]
fn no_locked_version_is_under_an_advisory_that_nobody_has_looked_at() {
    let advisories: Vec<Advisory> =
        serde_json::from_str(include_str!("audit/advisories.json")).unwrap();
    let lock: Lock = toml::from_str(include_str!("../Cargo.lock")).unwrap();
    let mut accepted: Vec<&str> = ACCEPTED.iter().map(|(id, _)| *id).collect();
    let mut open = String::new();
    for package in lock.package.iter().filter(|package| package.source.is_some()) {
        let version = Version::parse(&package.version);
        for advisory in advisories.iter().filter(|advisory| advisory.package == package.name) {
            if fits_any(&version, &advisory.patched) || fits_any(&version, &advisory.unaffected) {
                continue;
            }
            if ACCEPTED.iter().any(|(id, _)| *id == advisory.id) {
                accepted.retain(|id| *id != advisory.id);
                continue;
            }
            writeln!(
                open,
                "{} {} {}: {} ({}; patched: {})",
                advisory.id,
                package.name,
                package.version,
                advisory.title,
                advisory.info.as_deref().unwrap_or("vulnerability"),
                if advisory.patched.is_empty() {
                    "no version".to_owned()
                } else {
                    advisory.patched.join(" or ")
                },
            )
            .unwrap();
        }
    }
    assert!(open.is_empty(), "move these versions, or accept with a reason:\n{open}");
    assert!(accepted.is_empty(), "accepted, but no longer in the tree: {accepted:?}");
    let newest = advisories.iter().map(|advisory| &advisory.date).max().unwrap();
    println!("{} packages, {} advisories up to {newest}", lock.package.len(), advisories.len());
}

#[test]
fn requirements_mean_what_cargo_means_by_them() {
    for (version, requirement, fits) in [
        ("1.2.3", ">= 1.2.3", true),
        ("1.2.3", "> 1.2.3", false),
        ("1.2.3-rc.1", ">= 1.2.3", false),
        ("1.2.3-rc.2", ">= 1.2.3-rc.1", true),
        ("1.2.3-rc.10", "> 1.2.3-rc.9", true),
        ("1.2.3-rc.1", "> 1.2.3-9", true),
        ("1.2.3", "^1.1", true),
        ("2.0.0", "^1.1", false),
        ("0.2.9", "^0.2.1", true),
        ("0.3.0", "^0.2.1", false),
        ("0.0.4", "^0.0.3", false),
        ("1.4.0", "~1.3", false),
        ("1.3.9", "~1.3", true),
        ("1.3.9", "=1.3", true),
        ("1.3.9", "=1.3.8", false),
        ("1.3.9", "1.3.8", true),
        ("0.23.5", ">= 0.22.1, < 0.23", false),
        ("1.0.0+build.7", "= 1.0.0", true),
    ] {
        let requirement = [requirement.to_owned()];
        assert_eq!(
            fits_any(&Version::parse(version), &requirement),
            fits,
            "{version} {requirement:?}"
        );
    }
}
