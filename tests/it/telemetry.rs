//! Metrics, traces and the log of a process.

mod canary;
mod collector;
mod export;
mod log;
mod metrics;
mod traces;
