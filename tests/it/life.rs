//! The life of the process: how it starts or refuses to, how it stops, and what survives when it is killed.

mod fleet;
mod kill;
mod start;
mod stop;
