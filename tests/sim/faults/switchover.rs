//! An address that leads to another server from now on.

use super::{Fault, Stage, some_instances};
use crate::chance::Chance;
use crate::dialect::Role;

/// Switchover. Connections to the old server survive it, unless that goes down.
#[derive(Debug)]
struct Switchover {
    /// Number of the last transactions that the new server lacks.
    lost: usize,
    old: Old,
    /// Instances whose new connections lead to the old server as well, as their resolver is late.
    late: Vec<usize>,
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

pub fn make(chance: &mut Chance, focus: usize) -> Box<dyn Fault> {
    let lost = *chance.one_of(&[0, 0, 1, 2, 4]);
    let old = *chance.one_of(&[Old::GoesDown, Old::Follows, Old::IsReadOnly, Old::GoesOn]);
    // Of two servers that both take themselves for the primary, nobody can know the right one.
    let is_late = !matches!(old, Old::GoesOn) && chance.percent(50);
    let late = if is_late { some_instances(chance, focus) } else { vec![] };
    Box::new(Switchover { lost, old, late })
}

impl Fault for Switchover {
    fn begin(&self, stage: &Stage<'_>) {
        let (role, stays_up) = match self.old {
            Old::GoesDown => (Role::Primary, false),
            Old::Follows => (Role::Standby, true),
            Old::IsReadOnly => (Role::ReadOnly, true),
            Old::GoesOn => (Role::Primary, true),
        };
        let old = stage.world.switch_over(self.lost, role, stays_up);
        let mut state = stage.world.state();
        self.late.iter().for_each(|instance| state.nets[*instance].route = Some(old));
    }

    fn end(&self, stage: &Stage<'_>) {
        let mut state = stage.world.state();
        self.late.iter().for_each(|instance| state.nets[*instance].route = None);
    }

    fn hurts(&self) -> Vec<usize> {
        self.late.clone()
    }
}
