//! Real keys, and their bulk load.
//!
//! Keys and lines are made in pieces, so that this process stays small.

use crate::gateway::api_keys;
use crate::lab::Server;
use anyhow::{Context as _, Result, ensure};
use datahub_gateway::auth::api_key::KeyForm;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::NamedTempFile;

/// Keys of one consumer.
const OF_ONE: usize = 10;
/// Keys that are loaded at once.
const PIECE: usize = 50_000;

/// All keys, one after the other. They have the same length.
pub(crate) struct Stock {
    text: Vec<u8>,
    length: usize,
    /// The same, for another process.
    file: NamedTempFile,
    loading: Duration,
    table: String,
}

impl Stock {
    /// Makes keys and loads them as migrations/README.md says.
    pub(crate) fn load(server: &Server, database: &str, number: usize) -> Result<Self> {
        let form = KeyForm::new(&api_keys());
        let mut stock = Self {
            text: Vec::new(),
            length: form.generate()?.0.reveal().len(),
            file: NamedTempFile::new()?,
            loading: Duration::ZERO,
            table: String::new(),
        };
        let mut lines = String::new();
        for consumer in 0..number.div_ceil(OF_ONE) {
            writeln!(lines, "consumer-{consumer:07}\tname-{consumer:07}\tfree")?;
        }
        stock.copy(server, database, "consumers (id, username, plan)", &lines);
        for first in (0..number).step_by(PIECE) {
            lines.clear();
            for number in first..number.min(first + PIECE) {
                let (plain, proof) = form.generate()?;
                stock.text.extend_from_slice(plain.reveal().as_bytes());
                let consumer = number / OF_ONE;
                write!(lines, "{}\tconsumer-{consumer:07}\t\\\\x", proof.id)?;
                for byte in proof.digest.as_bytes() {
                    write!(lines, "{byte:02x}")?;
                }
                writeln!(lines, "\t{}\t{{orders:read}}", proof.pepper.as_u32())?;
            }
            stock.copy(server, database, "keys (id, consumer, digest, pepper, scopes)", &lines);
        }
        let began = Instant::now();
        server.sql(database, "ANALYZE consumers; ANALYZE keys");
        stock.loading += began.elapsed();
        ensure!(stock.text.len() == number * stock.length, "a key has another length");
        stock.file.write_all(&stock.text)?;
        stock.table = server.sql(database, "SELECT pg_size_pretty(pg_total_relation_size('keys'))");
        Ok(stock)
    }

    fn copy(&mut self, server: &Server, database: &str, into: &str, lines: &str) {
        let began = Instant::now();
        server.load(database, &format!("COPY {into} FROM STDIN"), lines);
        self.loading += began.elapsed();
    }

    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.text.len() / self.length
    }

    /// One of them.
    pub(crate) fn key(&self, number: usize) -> Result<&[u8]> {
        let begin = number * self.length;
        self.text.get(begin..begin + self.length).context("there are fewer keys")
    }

    /// Where they stand, each with so many bytes.
    pub(crate) fn file(&self) -> (&Path, usize) {
        (self.file.path(), self.length)
    }

    pub(crate) fn report(&self) -> String {
        let (number, seconds) = (self.len(), self.loading.as_secs_f64());
        let each = number as f64 / seconds;
        let size = &self.table;
        format!("bulk load: {number} keys in {seconds:.1} s, {each:.0} in a second; {size} on disk")
    }
}
