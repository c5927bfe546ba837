//! Work beside requests; every task is owned here and ends with the process.

pub mod health;
