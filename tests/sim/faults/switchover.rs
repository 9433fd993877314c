//! An address that leads to another server from now on.

use super::{Fault, Stage};
use crate::chance::Chance;
use crate::dialect::Role;

/// Switchover. Connections to the old server survive it, unless that goes down.
#[derive(Debug)]
struct Switchover {
    /// Number of the last transactions that the new server lacks.
    lost: usize,
    old: Old,
}

/// What becomes of the old server.
#[derive(Debug, Clone, Copy)]
enum Old {
    GoesDown,
    Follows,
    IsReadOnly,
    /// It takes itself for the primary, and nobody else writes to it.
    GoesOn,
}

pub fn make(chance: &mut Chance) -> Box<dyn Fault> {
    let lost = *chance.one_of(&[0, 0, 1, 2, 4]);
    let old = *chance.one_of(&[Old::GoesDown, Old::Follows, Old::IsReadOnly, Old::GoesOn]);
    Box::new(Switchover { lost, old })
}

impl Fault for Switchover {
    fn begin(&self, stage: &Stage<'_>) {
        let (role, stays_up) = match self.old {
            Old::GoesDown => (Role::Primary, false),
            Old::Follows => (Role::Standby, true),
            Old::IsReadOnly => (Role::ReadOnly, true),
            Old::GoesOn => (Role::Primary, true),
        };
        stage.world.switch_over(self.lost, role, stays_up);
    }
}
