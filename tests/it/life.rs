//! The life of the process: how it starts or refuses to, how it stops, what survives when it is killed, and what it does
//! and tells meanwhile.

mod deny;
mod fleet;
mod kill;
mod start;
mod status;
mod stop;
mod trim;
