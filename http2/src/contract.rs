//! The contract of README.md, as code: a peer that sends anything, and checks after every frame.
//!
//! Nothing is timed. Work, memory and output are counted, so a breach is found on any machine.

#[cfg(test)]
mod attacks;
#[cfg(test)]
mod frames;
mod fuzz;
mod peer;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod search;
#[cfg(test)]
mod ticks;

pub use fuzz::{check, seeds};
pub use peer::{
    Breach, MAX_OUTPUT_PER_BYTE, MAX_OUTPUT_PER_RESPONSE_BYTE, MAX_WORK_PER_BYTE, MAX_WORK_PER_RESPONSE_BYTE,
    OPENING, Peer, Received, Usage,
};
