//! What a manager and the scheduler tell each other about where processes run.

use std::{fmt, time::Duration};

use crate::{
    control::SpawnFailure,
    ids::{JobId, MachineId, ProcessId},
    resources::{Cores, Memory, Request},
};

/// What a machine has to give.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capacity {
    /// Its cores.
    pub cores: Cores,
    /// Its memory.
    pub memory: Memory,
    /// How many processes it may hold at once, whatever they ask for.
    pub processes: u32,
}

/// A process of a job.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Task {
    /// The job.
    pub job: JobId,
    /// The process.
    pub process: ProcessId,
}

/// Which machines will do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Locality {
    /// This one and no other.
    pub on: Option<MachineId>,
    /// Any but this one.
    pub not: Option<MachineId>,
    /// This one, if it has room.
    pub prefer: Option<MachineId>,
}

impl Locality {
    /// Whether that machine will do.
    pub fn allows(&self, machine: MachineId) -> bool {
        self.on.is_none_or(|on| on == machine) && self.not != Some(machine)
    }
}

/// From a manager to the scheduler.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ToScheduler {
    /// A machine is there.
    Join {
        /// Which.
        machine: MachineId,
        /// What it has.
        capacity: Capacity,
    },
    /// A machine is gone, and all that ran there.
    Leave {
        /// Which.
        machine: MachineId,
    },
    /// A process runs there already: said by who joins again.
    Runs {
        /// Which.
        task: Task,
        /// Where.
        machine: MachineId,
        /// What it has reserved.
        request: Request,
    },
    /// A process is to be placed.
    Want {
        /// Which.
        task: Task,
        /// What it asks for.
        request: Request,
        /// Where it may be.
        locality: Locality,
        /// How long it may wait; for ever when absent.
        deadline: Option<Duration>,
    },
    /// A process that waits, or that was placed and did not start, is not wanted any more.
    Withdraw {
        /// Which.
        task: Task,
    },
    /// A process that was placed has ended.
    Ended {
        /// Which.
        task: Task,
    },
}

/// From the scheduler to a manager.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FromScheduler {
    /// Start it there; its resources are reserved.
    Place {
        /// Which.
        task: Task,
        /// Where.
        machine: MachineId,
    },
    /// It will not be placed.
    Refuse {
        /// Which.
        task: Task,
        /// Why.
        refusal: Refusal,
    },
}

/// A resource that can run short.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shortage {
    /// Of cores.
    Cores {
        /// Asked for.
        wanted: Cores,
        /// Free on the machine that comes nearest.
        free: Cores,
        /// All that this machine has.
        total: Cores,
    },
    /// Of memory.
    Memory {
        /// Asked for.
        wanted: Memory,
        /// Free on the machine that comes nearest.
        free: Memory,
        /// All that this machine has.
        total: Memory,
    },
    /// Of room for one more process.
    Processes {
        /// All that the machine that comes nearest may hold.
        total: u32,
    },
    /// There is no machine that may hold it.
    Machines,
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Shortage::Cores { wanted, free, total } => {
                write!(f, "{wanted} cores wanted, {free} of {total} free")
            }
            Shortage::Memory { wanted, free, total } => {
                write!(f, "{wanted} of memory wanted, {free} of {total} free")
            }
            Shortage::Processes { total } => {
                write!(f, "room for one more process wanted, all {total} places are taken")
            }
            Shortage::Machines => write!(f, "a machine wanted, there is none"),
        }
    }
}

/// Why a process will not be placed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// No machine could ever hold it.
    #[error("it fits no machine, now or ever: {shortage}; ask for less")]
    NeverFits {
        /// What is short on the machine that comes nearest.
        shortage: Shortage,
    },
    /// Its deadline passed while it waited.
    #[error("its deadline passed after {waited:?} of waiting: {shortage}")]
    Deadline {
        /// How long it waited.
        waited: Duration,
        /// What it waited for.
        shortage: Shortage,
    },
    /// A process of that id is known already.
    #[error("a process of this id exists already")]
    Duplicate,
}

impl Refusal {
    /// The kind of failure that a spawn has by it.
    pub const fn failure(&self) -> SpawnFailure {
        match self {
            Refusal::NeverFits { .. } => SpawnFailure::NeverFits,
            Refusal::Deadline { .. } => SpawnFailure::Deadline,
            Refusal::Duplicate => SpawnFailure::Invalid,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_what_is_short() {
        let shortage =
            Shortage::Cores { wanted: Cores::whole(3), free: Cores::whole(1), total: Cores::whole(2) };
        assert_eq!(
            Refusal::NeverFits { shortage }.to_string(),
            "it fits no machine, now or ever: 3 cores wanted, 1 of 2 free; ask for less"
        );
    }
}
