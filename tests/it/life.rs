//! The life of the process: how it starts or refuses to, what it takes up and tells while it runs, how it stops, and what
//! survives when it is killed.

mod deny;
mod fleet;
mod key_sets;
mod kill;
mod reload;
mod restored;
mod rolling;
mod start;
mod status;
mod stop;
mod trim;
