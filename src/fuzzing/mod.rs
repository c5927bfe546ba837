//! What must hold for whatever anybody sends: one function for each parser that strangers reach.
//!
//! A function here takes any bytes and panics when something is true that must never be. It asks for
//! more than "no panic": what is accepted must have one meaning, and mean to another reader what it
//! means to us. It says whether the bytes were accepted.
//!
//! `fuzz/` has a libFuzzer target for each function; the tests below run every seed of
//! `fuzz/corpus/`, and some hundred changes of each, wherever `cargo test` runs.
//!
//! In the library with the feature `fuzzing` only, and never in what ships.

#![expect(clippy::panic, reason = "a property that does not hold is a panic")]

mod credential;
mod head;
mod text;

pub use credential::{api_key, token};
pub use head::{forwarded_for, head, traceparent};
pub use text::{config_text, host, target};

/// A target by its name.
pub type Named = (&'static str, fn(&[u8]) -> bool);

/// Every target with its name, that of its folder in `fuzz/corpus/`.
pub const TARGETS: [Named; 8] = [
    ("api_key", api_key),
    ("config_text", config_text),
    ("forwarded_for", forwarded_for),
    ("head", head),
    ("host", host),
    ("target", target),
    ("token", token),
    ("traceparent", traceparent),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::{Path, PathBuf};

    /// Changes of each seed; a configuration takes as long to compile as a thousand heads to check.
    fn changes(name: &str) -> usize {
        if name == "config_text" { 20 } else { 400 }
    }

    /// Shows the bytes for which a property does not hold.
    struct Tried<'a>(&'static str, &'a [u8]);

    impl Drop for Tried<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("{}: b\"{}\"", self.0, self.1.escape_ascii());
            }
        }
    }

    fn corpus(name: &str) -> Vec<PathBuf> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let mut files: Vec<_> = fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        assert!(!files.is_empty(), "{} has no seed", folder.display());
        files
    }

    /// The same numbers in every run (Marsaglia's xorshift).
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, limit: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            usize::try_from(self.0 % limit.max(1) as u64).unwrap()
        }
    }

    /// Bytes that mean something to one parser or another.
    const TELLING: &[u8] = b"\0\t\r\n \"#%&'()*+,-./05:;<=>?@AFZ[\\]_`af{|}~\x7f\x80\xc0\xff";

    /// One to four small changes, as a fuzzer makes them.
    fn change(seed: &[u8], other: &[u8], numbers: &mut Numbers) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for _ in 0..=numbers.below(4) {
            let at = numbers.below(bytes.len() + 1);
            let telling = TELLING[numbers.below(TELLING.len())];
            match numbers.below(6) {
                0 => bytes.insert(at, telling),
                1 if at < bytes.len() => bytes[at] = telling,
                2 if at < bytes.len() => drop(bytes.remove(at)),
                3 if at < bytes.len() => bytes[at] ^= 1 << numbers.below(8),
                4 => {
                    let from = numbers.below(other.len() + 1);
                    let part = &other[from..other.len().min(from + numbers.below(16))];
                    drop(bytes.splice(at..at, part.iter().copied()));
                }
                _ => bytes.truncate(at.max(1)),
            }
        }
        bytes
    }

    #[test]
    fn every_property_holds_for_every_seed_and_its_neighbours() {
        for (name, property) in TARGETS {
            let seeds: Vec<_> = corpus(name).iter().map(|file| fs::read(file).unwrap()).collect();
            let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
            let mut accepted = 0;
            for seed in &seeds {
                let tried = Tried(name, seed);
                accepted += usize::from(property(seed));
                drop(tried);
                for _ in 0..changes(name) {
                    let other = &seeds[numbers.below(seeds.len())];
                    let bytes = change(seed, other, &mut numbers);
                    let tried = Tried(name, &bytes);
                    property(&bytes);
                    drop(tried);
                }
            }
            // A parser that takes nothing, or everything, has not been asked.
            assert!(0 < accepted && accepted < seeds.len(), "{name}: {accepted} seeds");
        }
    }

    /// Name and version of every package of a lock file.
    fn packages<'l>(lock: &'l str) -> Vec<(&'l str, &'l str)> {
        let text = |package: &'l str, key: &str| {
            let (_, rest) = package.split_once(key).unwrap();
            rest.split('"').next().unwrap()
        };
        let all = lock.split("[[package]]").skip(1);
        all.map(|package| (text(package, "name = \""), text(package, "version = \""))).collect()
    }

    #[test]
    fn what_is_fuzzed_is_built_from_the_same_crates() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let ours = fs::read_to_string(root.join("Cargo.lock")).unwrap();
        let fuzzed = fs::read_to_string(root.join("fuzz/Cargo.lock")).unwrap();
        let (ours, own) = (packages(&ours), ["arbitrary", "datahub-gateway-fuzz", "libfuzzer-sys"]);
        let other: Vec<_> = packages(&fuzzed)
            .into_iter()
            .filter(|package| !ours.contains(package) && !own.contains(&package.0))
            .collect();
        let way =
            "cp Cargo.lock fuzz/ && (cd fuzz && cargo metadata --format-version 1 >/dev/null)";
        assert!(other.is_empty(), "{other:?}; {way}");
    }

    #[test]
    fn every_target_is_one_of_libfuzzer() {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
        for (name, _) in TARGETS {
            let text = fs::read_to_string(fuzz.join(format!("fuzz_targets/{name}.rs"))).unwrap();
            assert!(text.contains(&format!("fuzzing::{name}(data)")), "{name}");
            assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
        }
        let files = fs::read_dir(fuzz.join("fuzz_targets")).unwrap().count();
        assert_eq!(files, TARGETS.len());
    }
}
