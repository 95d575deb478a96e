//! From words to checked types, and back.

use std::time::Duration;

use super::{CauseWord, EndingKind, EndingWord, ExitWord, OverWord};
use crate::{
    ending::{Cause, Ending, Exit, Over, Usage},
    ids::{EndId, ProcessId},
    limits::FRAME_ENDS_MAX,
};

/// A word that lacks a part, or has one that makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a control message has no sensible {0}")]
pub struct Malformed(pub &'static str);

impl EndId {
    /// The end that a word names.
    ///
    /// # Errors
    /// [`Malformed`] when it is not sixteen bytes.
    pub fn from_word(word: &[u8]) -> Result<EndId, Malformed> {
        word.try_into().map(EndId::from_bytes).map_err(|_| Malformed("end"))
    }

    /// The ends that a word lists.
    ///
    /// # Errors
    /// [`Malformed`] when it is not a multiple of sixteen bytes, or lists more than [`FRAME_ENDS_MAX`].
    pub fn list_from_word(word: &[u8]) -> Result<Vec<EndId>, Malformed> {
        let (entries, rest) = word.as_chunks();
        if !rest.is_empty() || entries.len() > FRAME_ENDS_MAX {
            return Err(Malformed("list of ends"));
        }
        Ok(entries.iter().copied().map(EndId::from_bytes).collect())
    }

    /// A list of ends as a word.
    pub fn list_to_word(ends: &[EndId]) -> Vec<u8> {
        ends.iter().flat_map(|end| end.to_bytes()).collect()
    }

    /// As a word.
    pub fn to_word(self) -> Vec<u8> {
        self.to_bytes().to_vec()
    }
}

impl From<&Ending> for EndingWord {
    fn from(ending: &Ending) -> Self {
        let word = |kind: EndingKind| EndingWord { kind: kind.into(), ..EndingWord::default() };
        match ending {
            Ending::Returned => word(EndingKind::Returned),
            Ending::Exited { code } => EndingWord { number: (*code).into(), ..word(EndingKind::Exited) },
            Ending::Failed { text } => EndingWord { text: text.clone(), ..word(EndingKind::Failed) },
            Ending::Panicked { message, location } => {
                EndingWord { text: message.clone(), location: location.clone(), ..word(EndingKind::Panicked) }
            }
            Ending::Signalled { signal, core } => {
                EndingWord { number: (*signal).into(), core: *core, ..word(EndingKind::Signalled) }
            }
            Ending::TimedOut { limit } => {
                EndingWord { limit_ns: nanoseconds(*limit), ..word(EndingKind::TimedOut) }
            }
            Ending::Killed { by } => EndingWord { text: by.clone(), ..word(EndingKind::Killed) },
            Ending::MachineLost { text } => {
                EndingWord { text: text.clone(), ..word(EndingKind::MachineLost) }
            }
        }
    }
}

impl TryFrom<EndingWord> for Ending {
    type Error = Malformed;

    fn try_from(word: EndingWord) -> Result<Self, Malformed> {
        let number = i32::try_from(word.number).map_err(|_| Malformed("number in an ending"));
        Ok(match word.kind() {
            EndingKind::Unknown => return Err(Malformed("kind of ending")),
            EndingKind::Returned => Ending::Returned,
            EndingKind::Exited => Ending::Exited { code: number? },
            EndingKind::Failed => Ending::Failed { text: word.text },
            EndingKind::Panicked => Ending::Panicked { message: word.text, location: word.location },
            EndingKind::Signalled => Ending::Signalled { signal: number?, core: word.core },
            EndingKind::TimedOut => Ending::TimedOut { limit: Duration::from_nanos(word.limit_ns) },
            EndingKind::Killed => Ending::Killed { by: word.text },
            EndingKind::MachineLost => Ending::MachineLost { text: word.text },
        })
    }
}

impl From<&Cause> for CauseWord {
    fn from(cause: &Cause) -> Self {
        CauseWord { process: cause.process.0, name: cause.name.clone(), ending: Some((&cause.ending).into()) }
    }
}

impl TryFrom<CauseWord> for Cause {
    type Error = Malformed;

    fn try_from(word: CauseWord) -> Result<Self, Malformed> {
        Ok(Cause {
            process: ProcessId(word.process),
            name: word.name,
            ending: word.ending.ok_or(Malformed("ending"))?.try_into()?,
        })
    }
}

impl From<&Over> for OverWord {
    fn from(over: &Over) -> Self {
        match over {
            Over::Closed => OverWord::default(),
            Over::Reset { reason } => OverWord { reason: Some(reason.clone()), died: None },
            Over::Died(cause) => OverWord { reason: None, died: Some(cause.into()) },
        }
    }
}

impl TryFrom<Option<OverWord>> for Over {
    type Error = Malformed;

    fn try_from(word: Option<OverWord>) -> Result<Self, Malformed> {
        match word.ok_or(Malformed("end of an end"))? {
            OverWord { died: Some(cause), .. } => Ok(Over::Died(cause.try_into()?)),
            OverWord { reason: Some(reason), .. } => Ok(Over::Reset { reason }),
            OverWord { .. } => Ok(Over::Closed),
        }
    }
}

impl From<&Exit> for ExitWord {
    fn from(exit: &Exit) -> Self {
        ExitWord {
            who: Some(CauseWord {
                process: exit.process.0,
                name: exit.name.clone(),
                ending: Some((&exit.ending).into()),
            }),
            wall_ns: nanoseconds(exit.usage.wall),
            user_ns: nanoseconds(exit.usage.user),
            system_ns: nanoseconds(exit.usage.system),
            memory_max_bytes: exit.usage.memory_max_bytes,
            stderr_tail: exit.stderr_tail.clone(),
            cause: exit.cause.as_ref().map(CauseWord::from),
        }
    }
}

impl TryFrom<Option<ExitWord>> for Exit {
    type Error = Malformed;

    fn try_from(word: Option<ExitWord>) -> Result<Self, Malformed> {
        let word = word.ok_or(Malformed("exit record"))?;
        let Cause { process, name, ending } =
            word.who.ok_or(Malformed("process in an exit record"))?.try_into()?;
        Ok(Exit {
            process,
            name,
            ending,
            usage: Usage {
                wall: Duration::from_nanos(word.wall_ns),
                user: Duration::from_nanos(word.user_ns),
                system: Duration::from_nanos(word.system_ns),
                memory_max_bytes: word.memory_max_bytes,
            },
            stderr_tail: word.stderr_tail,
            cause: word.cause.map(Cause::try_from).transpose()?,
        })
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    duration.as_nanos().try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ending_survives_the_way() {
        let endings = [
            Ending::Returned,
            Ending::Exited { code: -3 },
            Ending::Failed { text: "no".into() },
            Ending::Panicked { message: "boom".into(), location: "a.rs:1:2".into() },
            Ending::Signalled { signal: 11, core: true },
            Ending::TimedOut { limit: Duration::from_millis(5) },
            Ending::Killed { by: "its parent".into() },
            Ending::MachineLost { text: "machine 2 is silent".into() },
        ];
        for ending in endings {
            let cause = Cause { process: ProcessId(3), name: "c".into(), ending: ending.clone() };
            let exit = Exit {
                process: ProcessId(4),
                name: "d".into(),
                ending: ending.clone(),
                usage: Usage { wall: Duration::from_secs(1), memory_max_bytes: 7, ..Usage::default() },
                stderr_tail: "last".into(),
                cause: Some(cause.clone()),
            };
            assert_eq!(Exit::try_from(Some(ExitWord::from(&exit))), Ok(exit));
            let over = Over::Died(cause);
            assert_eq!(Over::try_from(Some(OverWord::from(&over))), Ok(over));
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(Exit::try_from(None), Err(Malformed("exit record")));
        assert_eq!(Ending::try_from(EndingWord::default()), Err(Malformed("kind of ending")));
        assert_eq!(EndId::from_word(&[1, 2]), Err(Malformed("end")));
        assert_eq!(EndId::list_from_word(&[0; 17]), Err(Malformed("list of ends")));
        assert_eq!(EndId::list_from_word(&vec![0; 16 * 1025]), Err(Malformed("list of ends")));
    }
}
