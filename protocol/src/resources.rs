//! Cores and memory, as people write them and as they are counted.

use std::{fmt, str::FromStr};

/// A number of processor cores, counted in shares.
///
/// One core is [`Cores::SHARES_PER_CORE`] shares. That number is a multiple of every number up to sixteen, and of
/// 32 and 64, so that three times `1/3` is exactly one core.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Cores(u64);

impl Cores {
    /// How many shares one core has.
    pub const SHARES_PER_CORE: u64 = 2_882_880;

    /// No reservation: the process runs on what others leave.
    pub const NONE: Cores = Cores(0);

    /// That many whole cores.
    pub const fn whole(cores: u32) -> Self {
        Cores(cores as u64 * Self::SHARES_PER_CORE)
    }

    /// From a number of shares.
    pub const fn from_shares(shares: u64) -> Self {
        Cores(shares)
    }

    /// As a number of shares.
    pub const fn shares(self) -> u64 {
        self.0
    }

    /// `true` for one or more cores without a fraction: such cores are the process's own, and it may spin on them.
    pub const fn is_whole(self) -> bool {
        self.0 > 0 && self.0.is_multiple_of(Self::SHARES_PER_CORE)
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / Self::SHARES_PER_CORE, self.0 % Self::SHARES_PER_CORE);
        if rest == 0 {
            return write!(f, "{whole}");
        }
        let divisor = greatest_common_divisor(rest, Self::SHARES_PER_CORE);
        let (numerator, denominator) = (rest / divisor, Self::SHARES_PER_CORE / divisor);
        match (whole, denominator <= 64) {
            (0, true) => write!(f, "{numerator}/{denominator}"),
            (_, true) => write!(f, "{whole}+{numerator}/{denominator}"),
            (_, false) => write!(f, "{:.3}", self.0 as f64 / Self::SHARES_PER_CORE as f64),
        }
    }
}

impl fmt::Debug for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cores({self})")
    }
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// A text that is not an amount of a resource.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not a number of cores.
    #[error("`{0}` is not a number of cores: write a number (`2`, `0.5`) or a fraction (`1/4`)")]
    Cores(String),
    /// Not an amount of memory.
    #[error("`{0}` is not an amount of memory: write a number and a unit (`64 MiB`, `2 GB`, `4096 B`)")]
    Memory(String),
    /// A number of cores or bytes that is larger than can be counted.
    #[error("`{0}` is more than can be counted")]
    TooMuch(String),
}

/// More cores than any machine has; keeps sums far from overflow.
const CORES_MAX: f64 = 1e6;

impl FromStr for Cores {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let wrong = || ParseError::Cores(text.to_owned());
        let number = |part: &str| match part.trim().parse::<f64>() {
            Ok(value) if value.is_finite() && value >= 0.0 => Ok(value),
            _ => Err(wrong()),
        };
        let cores = match text.split_once('/') {
            Some((numerator, denominator)) => match number(denominator)? {
                0.0 => return Err(wrong()),
                denominator => number(numerator)? / denominator,
            },
            None => number(text)?,
        };
        if cores > CORES_MAX {
            return Err(ParseError::TooMuch(text.to_owned()));
        }
        Ok(Cores((cores * Self::SHARES_PER_CORE as f64).round() as u64))
    }
}

impl From<u32> for Cores {
    fn from(cores: u32) -> Self {
        Cores::whole(cores)
    }
}

/// A number of bytes of memory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Memory(pub u64);

impl Memory {
    /// No reservation.
    pub const NONE: Memory = Memory(0);

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

/// The units of memory, largest first within each family.
const UNITS: [(&str, u64); 10] = [
    ("tib", 1 << 40),
    ("gib", 1 << 30),
    ("mib", 1 << 20),
    ("kib", 1 << 10),
    ("tb", 1_000_000_000_000),
    ("gb", 1_000_000_000),
    ("mb", 1_000_000),
    ("kb", 1_000),
    ("bytes", 1),
    ("b", 1),
];

/// Four exbibytes: more than any machine has; keeps sums far from overflow.
const MEMORY_MAX: f64 = (1u64 << 62) as f64;

impl FromStr for Memory {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let wrong = || ParseError::Memory(text.to_owned());
        let lower = text.trim().to_ascii_lowercase();
        let (number, unit) = UNITS
            .iter()
            .find_map(|(name, unit)| Some((lower.strip_suffix(name)?, *unit)))
            .ok_or_else(wrong)?;
        let value: f64 = number.trim().parse().map_err(|_| wrong())?;
        if !value.is_finite() || value < 0.0 {
            return Err(wrong());
        }
        let bytes = value * unit as f64;
        if bytes > MEMORY_MAX {
            return Err(ParseError::TooMuch(text.to_owned()));
        }
        Ok(Memory(bytes.round() as u64))
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
        match unit.into_iter().find(|(_, shift)| self.0 >> shift > 0) {
            Some((name, shift)) if self.0 & ((1 << shift) - 1) == 0 => {
                write!(f, "{} {name}", self.0 >> shift)
            }
            Some((name, shift)) => write!(f, "{:.1} {name}", self.0 as f64 / (1u64 << shift) as f64),
            None => write!(f, "{} B", self.0),
        }
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Memory({self})")
    }
}

/// What a process asks of a machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Request {
    /// Cores that nobody else may reserve meanwhile.
    pub cores: Cores,
    /// Memory that nobody else may reserve meanwhile.
    pub memory: Memory,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_add_up_exactly() {
        for parts in [2u64, 3, 5, 7, 11, 13, 16, 32, 64] {
            let one: Cores = format!("1/{parts}").parse().unwrap();
            assert_eq!(one.shares() * parts, Cores::SHARES_PER_CORE, "1/{parts}");
            assert_eq!(one.to_string(), format!("1/{parts}"));
        }
    }

    #[test]
    fn cores_as_people_write_them() {
        assert_eq!("2".parse(), Ok(Cores::whole(2)));
        assert_eq!("0.5".parse::<Cores>(), "1/2".parse());
        assert_eq!("3/2".parse::<Cores>().unwrap().to_string(), "1+1/2");
        assert!(Cores::whole(1).is_whole() && !"1.5".parse::<Cores>().unwrap().is_whole());
        for bad in ["", "many", "1/0", "-1", "nan", "inf", "1/2/3", "1/"] {
            assert_eq!(bad.parse::<Cores>(), Err(ParseError::Cores(bad.to_owned())), "{bad}");
        }
        assert_eq!("1e30".parse::<Cores>(), Err(ParseError::TooMuch("1e30".to_owned())));
    }

    #[test]
    fn memory_as_people_write_it() {
        assert_eq!("64 MiB".parse(), Ok(Memory(64 << 20)));
        assert_eq!("64mib".parse(), Ok(Memory(64 << 20)));
        assert_eq!("2GB".parse(), Ok(Memory(2_000_000_000)));
        assert_eq!("0.5 KiB".parse(), Ok(Memory(512)));
        assert_eq!(Memory(64 << 20).to_string(), "64 MiB");
        assert_eq!(Memory(1536).to_string(), "1.5 KiB");
        for bad in ["", "64", "64 parsecs", "MiB", "-1 B", "nan B"] {
            assert_eq!(bad.parse::<Memory>(), Err(ParseError::Memory(bad.to_owned())), "{bad}");
        }
        assert_eq!("9e9 TiB".parse::<Memory>(), Err(ParseError::TooMuch("9e9 TiB".to_owned())));
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = text.parse::<Cores>();
            let _ = text.parse::<Memory>();
        }

        #[test]
        fn whole_mebibytes_read_back(mib in 0u64..1024) {
            let memory = Memory(mib << 20);
            proptest::prop_assert_eq!(memory.to_string().parse(), Ok(memory));
        }
    }
}
