//! What a process tells of itself to others: metrics, traces and its log.

mod canary;
mod collector;
mod log;
mod metrics;
mod traces;
