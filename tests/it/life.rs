//! The life of a process: start, reload, status, stop, and survival of kill -9.

mod clocks;
mod deny;
mod encoding;
mod fleet;
mod key_sets;
mod kill;
mod newer_schema;
mod pgbouncer;
mod release_before;
mod reload;
mod restored;
mod rolling;
mod sqlite_log;
mod start;
mod status;
mod stop;
mod tables;
mod trim;
mod unreachable;
