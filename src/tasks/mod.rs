//! Work beside requests; every task is owned here and ends with the process.

pub mod demo;
pub mod feed;
pub mod health;
pub mod reload;
pub mod watch;
