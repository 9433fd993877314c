//! A primary that accepts no writes for a while: a full disk, or an operator.

use super::{Fault, Stage};
use crate::dialect::Role;
use crate::plan::INSTANCES;
use crate::random::Random;

/// Refusal of writes by the server at the address.
#[derive(Debug)]
struct ReadOnly;

pub fn make(_: &mut Random, _: usize) -> Box<dyn Fault> {
    Box::new(ReadOnly)
}

impl Fault for ReadOnly {
    fn begin(&self, stage: &Stage<'_>) {
        let state = &mut *stage.world.state();
        state.servers[state.address].role = Role::ReadOnly;
    }

    fn end(&self, stage: &Stage<'_>) {
        let state = &mut *stage.world.state();
        state.servers[state.address].role = Role::Primary;
    }

    fn hurts(&self) -> Vec<usize> {
        (0..INSTANCES).collect()
    }
}
