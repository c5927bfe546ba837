//! Work beside requests; every task is owned here and ends with the process.

pub mod cloudwatch;
pub mod demo;
pub mod feed;
pub mod health;
pub mod jwks;
pub mod key_uses;
pub mod publish;
pub mod reload;
pub mod rows;
pub mod usage;
pub mod watch;
