//! The port for plans and policies that stand in the store as rows.
//!
//! A row's document has the shape that the same table has in a file, as JSON. The store does not look
//! into it: `config` compiles it, with the rules for files, before it is written and again when it is
//! put in force. A row goes before the table of its name in the files.

use super::denied::Outage;
use super::identity::UnixTime;
use super::registry::{Actor, Page, RegistryError};
use async_trait::async_trait;
use serde_json::Value;
use std::sync::Arc;

/// Rows of one kind that a gateway puts in force; more are refused when they are written.
pub const MAX_DOCUMENTS: usize = 10_000;

/// What a document describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DocumentKind {
    /// As `[plans.*]`.
    Plan,
    /// As `[policies.*]`.
    Policy,
}

impl DocumentKind {
    /// As it stands in the store, in changes and in messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Plan => "plan",
            Self::Policy => "policy",
        }
    }
}

/// A row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// What it describes.
    pub kind: DocumentKind,
    /// Its name, as consumers and routes refer to it.
    pub name: Arc<str>,
    /// The table, as JSON.
    pub body: Value,
    /// When it was last written.
    pub updated_at: UnixTime,
}

/// Plans and policies as rows.
#[async_trait]
pub trait Documents: Send + Sync {
    /// All rows of both kinds, read in one statement, and the revision they were read at. From the
    /// authority itself: what is put in force must not be older than the change that asked for it.
    async fn load_documents(&self) -> Result<(Vec<Document>, u64), Outage>;

    /// Rows of one kind, by name.
    async fn documents(
        &self,
        kind: DocumentKind,
        page: Page<'_>,
    ) -> Result<Vec<Document>, RegistryError>;

    /// One row.
    async fn document(&self, kind: DocumentKind, name: &str) -> Result<Document, RegistryError>;

    /// Writes a row, new or not. The same body again changes nothing.
    async fn put_document(
        &self,
        by: &Actor,
        kind: DocumentKind,
        name: &str,
        body: &Value,
    ) -> Result<Document, RegistryError>;

    /// Removes a row; the table of that name in the files, if there is one, is in force again.
    async fn remove_document(
        &self,
        by: &Actor,
        kind: DocumentKind,
        name: &str,
    ) -> Result<Document, RegistryError>;
}
