//! Ids are newtypes, so that one kind can't be passed for another.

use std::fmt;

/// Names one process of a job.
///
/// It is a hash of the parent's id and of the parent's count of spawns, so that the same program makes the same
/// ids on every run. It is shown as sixteen hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ProcessId(pub u64);

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProcessId({self})")
    }
}

/// Names one job of a cluster. The only job of a cluster of its own is number zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct JobId(pub u64);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JobId({self})")
    }
}

/// Names one machine of a cluster.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct MachineId(pub u32);

impl fmt::Display for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Names one end of a channel: the process that made the end in the high half, that process's count of ends in
/// the low half. Unique within a job, and the same on every run of the same program.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct EndId(pub u128);

impl EndId {
    /// The `count`th end that `maker` made.
    pub const fn new(maker: ProcessId, count: u64) -> Self {
        EndId(((maker.0 as u128) << 64) | count as u128)
    }

    /// The process that made the end.
    pub const fn maker(self) -> ProcessId {
        ProcessId((self.0 >> 64) as u64)
    }

    /// The sixteen bytes that stand for the end in a frame's table and in control messages.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_le_bytes()
    }

    /// The end that these sixteen bytes stand for.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        EndId(u128::from_le_bytes(bytes))
    }
}

impl fmt::Display for EndId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.maker(), self.0 as u64)
    }
}

impl fmt::Debug for EndId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EndId({self})")
    }
}

/// Names one link between two machines: sixteen random bytes, used once.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(pub [u8; 16]);

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LinkId({self})")
    }
}

/// Names an image: the BLAKE3 hash of its manifest, or of the executable's bytes if it never left its machine.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageId(pub [u8; 32]);

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ImageId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_remembers_its_maker() {
        let end = EndId::new(ProcessId(7), 3);
        assert_eq!(end.maker(), ProcessId(7));
        assert_eq!(EndId::from_bytes(end.to_bytes()), end);
        assert_eq!(end.to_string(), "0000000000000007.3");
    }
}
