//! What a manager and the scheduler tell each other about where processes run.

use std::{fmt, time::Duration};

use crate::{
    ids::{MachineId, ProcessId},
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
    /// A process is to be placed.
    Want {
        /// Which.
        process: ProcessId,
        /// What it asks for.
        request: Request,
        /// How long it may wait; for ever when absent.
        deadline: Option<Duration>,
    },
    /// A process that waits, or that was placed and did not start, is not wanted any more.
    Withdraw {
        /// Which.
        process: ProcessId,
    },
    /// A process that was placed has ended.
    Ended {
        /// Which.
        process: ProcessId,
    },
}

/// From the scheduler to a manager.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FromScheduler {
    /// Start it there; its resources are reserved.
    Place {
        /// Which.
        process: ProcessId,
        /// Where.
        machine: MachineId,
    },
    /// It will not be placed.
    Refuse {
        /// Which.
        process: ProcessId,
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
    /// There is no machine at all.
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
