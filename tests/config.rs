//! Configuration folders against what operators are told about them.
//!
//! `tests/golden/config/*.txt` are cases: the files of a folder, then the report. A folder also has
//! a `conf/base.toml` with a listener, the upstream `billing` and the plan `free`, unless the case
//! brings its own. `UPDATE_GOLDEN=1` writes the reports anew; read the difference before it is
//! committed.

use datahub_gateway::config::{self, Fixed, Loaded, Report, SecretFiles};
use proptest::prelude::*;
use serde_json::Value;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const BASE: &str = "\
[listeners.public]
address = \"0.0.0.0:3000\"

[upstreams.billing]
endpoints = [\"10.0.0.1:8080\"]

[plans.free.limits.requests]
rate = \"10/s\"
";

fn environment(name: &str) -> Option<OsString> {
    match name {
        "LONG_SECRET" => Some("0123456789abcdef0123456789abcdef".into()),
        "SHORT_SECRET" => Some("hunter2".into()),
        "EMPTY_SECRET" => Some("".into()),
        _ => None,
    }
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A folder that exists as long as this value.
struct Folder(TempDir);

impl Folder {
    /// Files by their path from the folder that contains `conf`; all private.
    fn with(files: &[(&str, &str)]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        std::fs::create_dir(folder.conf()).unwrap();
        for (path, text) in files {
            folder.write(path, text, 0o600);
        }
        folder
    }

    fn write(&self, path: &str, text: impl AsRef<[u8]>, mode: u32) {
        let path = self.0.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    }

    fn conf(&self) -> PathBuf {
        self.0.path().join("conf")
    }

    fn load(&self) -> Result<Loaded, Report> {
        config::load_in(&self.conf(), SecretFiles::Leave, &environment)
    }

    fn told(&self, report: &Report) -> String {
        report
            .to_string()
            .replace(&format!("{}/", self.0.path().display()), "")
            .replace(&self.0.path().display().to_string(), "")
    }
}

/// The files of a case, and the report that is expected.
fn case(text: &str) -> (Vec<(String, u32, String)>, String) {
    let mut files: Vec<(String, u32, String)> = Vec::new();
    let mut lines = text.split_inclusive('\n');
    for line in &mut lines {
        match line.trim_end().strip_prefix("--- ") {
            Some("report") => break,
            Some(header) => {
                let (path, mode) = header.split_once(" mode ").unwrap_or((header, "600"));
                files.push((path.into(), u32::from_str_radix(mode, 8).unwrap(), String::new()));
            }
            None => files.last_mut().unwrap().2.push_str(line),
        }
    }
    (files, lines.collect())
}

#[test]
fn every_error_is_told_with_its_place_its_reason_and_a_way_out() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = String::new();
    let mut cases = 0;
    for entry in std::fs::read_dir(repository("tests/golden/config")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let (files, expected) = case(&text);
        let own = files.iter().any(|(file, ..)| file.starts_with("conf/base."));
        let folder = Folder::with(if own { &[] } else { &[("conf/base.toml", BASE)] });
        for (file, mode, text) in &files {
            folder.write(file, text, *mode);
        }
        let told = match folder.load() {
            Err(report) => folder.told(&report),
            Ok(loaded) if loaded.warnings.is_empty() => "nothing".to_owned(),
            Ok(loaded) => folder.told(&loaded.warnings),
        } + "\n";
        cases += 1;
        if update {
            let head = text.split("--- report").next().unwrap();
            std::fs::write(&path, format!("{head}--- report\n{told}")).unwrap();
        } else if told != expected {
            writeln!(wrong, "{}\nexpected:\n{expected}\nis:\n{told}", path.display()).unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(cases >= 40);
}
