//! An address that leads to another server from now on.

use super::{Fault, Stage, some_instances};
use crate::dialect::Role;
use crate::plan::INSTANCES;
use crate::random::Random;

/// Switchover. Connections to the old server survive it, unless that goes down.
#[derive(Debug)]
pub(super) struct Switchover {
    /// Number of the last transactions that the new server lacks.
    pub lost: usize,
    pub old: Old,
    /// Instances whose new connections lead to the old server as well, as their resolver is late.
    pub late: Vec<usize>,
    /// Instances that can't reach the new server yet: their new connections are refused.
    pub refused: Vec<usize>,
    /// Instances whose open connections are reset.
    pub reset: Vec<usize>,
}

/// What becomes of the old server.
#[derive(Debug, Clone, Copy)]
pub(super) enum Old {
    GoesDown,
    Follows,
    IsReadOnly,
    /// It takes itself for the primary, and nobody else writes to it.
    GoesOn,
}

pub fn make(random: &mut Random, focus: usize) -> Box<dyn Fault> {
    Box::new(switchover(random, focus))
}

pub(super) fn switchover(random: &mut Random, focus: usize) -> Switchover {
    let lost = *random.one_of(&[0, 0, 0, 1, 2, 4, 9, 60]);
    let old = *random.one_of(&[Old::GoesDown, Old::Follows, Old::IsReadOnly, Old::GoesOn, Old::GoesOn]);
    // Of two servers that both take themselves for the primary, nobody can know the right one.
    let is_late = !matches!(old, Old::GoesOn) && random.percent(50);
    let late = if is_late { some_instances(random, focus) } else { vec![] };
    let is_refused = !is_late && random.percent(50);
    let refused = if is_refused { some_instances(random, focus) } else { vec![] };
    let others = (0..INSTANCES).filter(|instance| !refused.contains(instance));
    // Some go on with the old server while others have noticed already.
    let percent = *random.one_of(&[0, 0, 50, 50, 100]);
    let reset = others.filter(|_| random.percent(percent)).collect();
    Switchover { lost, old, late, refused, reset }
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
        let next = state.sessions + 1;
        self.late.iter().for_each(|instance| state.nets[*instance].route = Some(old));
        self.refused.iter().for_each(|instance| state.nets[*instance].is_refusing = true);
        self.reset.iter().for_each(|instance| state.nets[*instance].reset_before = next);
    }

    fn end(&self, stage: &Stage<'_>) {
        let mut state = stage.world.state();
        self.late.iter().for_each(|instance| state.nets[*instance].route = None);
        self.refused.iter().for_each(|instance| state.nets[*instance].is_refusing = false);
    }

    fn hurts(&self) -> Vec<usize> {
        self.late.iter().chain(&self.refused).copied().collect()
    }
}
