//! Metrics, traces and the log of a process.

mod canary;
mod collector;
mod log;
mod metrics;
mod traces;
