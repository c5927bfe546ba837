//! The memory of a process that has met so many keys.
//!
//! It is measured in a process of its own, that has done nothing else before.

use crate::gateway::Gateway;
use crate::stock::Stock;
use anyhow::{Context as _, Result, bail, ensure};
use futures_util::future::try_join_all;
use std::cell::RefCell;
use std::fs::File;
use std::io::{BufReader, Read as _};
use std::process::Command;

/// What the other process is told to do: `memory KNOWN URL FILE LENGTH`.
pub(crate) const COMMAND: &str = "memory";
const IN_FLIGHT: usize = 32;

/// Has another process meet as many keys as it may know.
pub(crate) fn run(url: &str, stock: &Stock, known: usize) -> Result<String> {
    let (file, length) = stock.file();
    let output = Command::new(std::env::current_exe()?)
        .args([COMMAND, &known.to_string(), url])
        .arg(file)
        .arg(length.to_string())
        .output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{error}");
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

/// What that process does.
pub(crate) fn measure(arguments: &[&str]) -> Result<()> {
    let [known, url, file, length] = arguments else { bail!("{COMMAND} KNOWN URL FILE LENGTH") };
    let (known, length): (usize, usize) = (known.parse()?, length.parse()?);
    let gateway = Gateway::start(url, known, u32::MAX)?;
    let one = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let keys = RefCell::new(BufReader::new(File::open(file)?));
    let left = RefCell::new(known);
    let client = || async {
        let mut key = vec![0; length];
        while left.replace_with(|left| left.saturating_sub(1)) > 0 {
            keys.borrow_mut().read_exact(&mut key)?;
            gateway.learn(&key).await?;
        }
        Ok::<_, anyhow::Error>(())
    };
    let (before, after) = one.block_on(gateway.during(async {
        let before = resident()?;
        try_join_all((0..IN_FLIGHT).map(|_| client())).await?;
        Ok((before, resident()?))
    }))?;
    let kept = gateway.directory.vitals().keys;
    let each = (after - before) * 1024.0 / kept as f64;
    println!(
        "memory, {known} keys met, {kept} known: {:.0} MiB resident, {:.0} MiB before; {each:.0} bytes \
         for each",
        after / 1024.0,
        before / 1024.0,
    );
    Ok(())
}

/// Resident memory of this process in KiB.
fn resident() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("VmRSS")?;
    Ok(line.split_whitespace().nth(1).context("VmRSS")?.parse()?)
}
