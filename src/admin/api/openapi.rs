//! The description of the API, for people and for the tools that make clients.
//!
//! It is written by hand, since it says what a type cannot: what an operation is for, and what each
//! status means. The tests hold it against the handlers.

use crate::admin::answers;
use axum::response::Response;
use http::StatusCode;

/// OpenAPI 3.1.
pub(super) const DOCUMENT: &str = include_str!("openapi.json");

pub(super) async fn document() -> Response {
    answers::answer(StatusCode::OK, "application/json", DOCUMENT)
}
