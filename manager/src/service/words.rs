//! Deeds and reports as words between the home of a job and its agents, and back.

use std::time::Duration;

use protocol::{
    agent::{self, FromAgent, FromHome},
    control::{End as EndWord, Malformed, Number, ToManager, ToProcess},
    ids::{EndId, ProcessId},
    resources::{Cores, Memory, Request},
};

use super::home::{Deed, Report, Said};
use crate::{
    launch::End,
    state::{Effect, Files, Launch, NewRing},
};

/// A deed as a word; `None` for one that is no agent's.
pub(super) fn from_deed(deed: Deed) -> Option<FromHome> {
    let number = |number| Number { number };
    Some(match deed {
        Deed::Hear(hearing) => FromHome::Hear(number(hearing)),
        Deed::Expect(link) => FromHome::Expect(link),
        Deed::Dial(link) => FromHome::Dial(link),
        Deed::Drain(sender) => FromHome::Drain(EndWord { end: sender.to_word() }),
        Deed::Effect(Effect::Schedule(_)) => return None,
        Deed::Effect(Effect::Kill(process)) => FromHome::Kill(number(process.0)),
        Deed::Effect(Effect::FreeRing(ring)) => FromHome::FreeRing(number(ring)),
        Deed::Effect(Effect::MakeRing { to, ring, capacity, sender }) => {
            FromHome::MakeRing(from_ring(to, NewRing { ring, capacity, sender }))
        }
        Deed::Effect(Effect::Tell { to, word, files }) => {
            let (doorbell, ring) = match files {
                Files::None => (None, None),
                Files::Doorbell(process) => (Some(process.0), None),
                Files::Ring { ring, producer } => (Some(producer.0), Some(ring)),
            };
            FromHome::Tell(agent::Tell {
                process: to.0,
                word: Some(ToProcess { word: Some(*word) }),
                doorbell,
                ring,
            })
        }
        Deed::Effect(Effect::Launch(launch)) => FromHome::Launch(from_launch(*launch)),
    })
}

/// A word as a deed; `None` for one that is none, or that this version does not know.
///
/// # Errors
/// [`Malformed`] when it makes no sense.
pub(super) fn to_deed(word: FromHome) -> Result<Option<Deed>, Malformed> {
    Ok(Some(match word {
        FromHome::Begin(_) | FromHome::End(_) => return Ok(None),
        FromHome::Launch(launch) => Deed::Effect(Effect::Launch(Box::new(to_launch(launch)?))),
        FromHome::Kill(process) => Deed::Effect(Effect::Kill(ProcessId(process.number))),
        FromHome::MakeRing(word) => {
            let NewRing { ring, capacity, sender } = to_ring(&word)?;
            Deed::Effect(Effect::MakeRing { to: word.process(), ring, capacity, sender })
        }
        FromHome::FreeRing(ring) => Deed::Effect(Effect::FreeRing(ring.number)),
        FromHome::Tell(tell) => {
            let files = match (tell.doorbell, tell.ring) {
                (None, _) => Files::None,
                (Some(process), None) => Files::Doorbell(ProcessId(process)),
                (Some(producer), Some(ring)) => Files::Ring { ring, producer: ProcessId(producer) },
            };
            let word = tell.word.and_then(|word| word.word).ok_or(Malformed("word for a process"))?;
            Deed::Effect(Effect::Tell { to: ProcessId(tell.process), word: Box::new(word), files })
        }
        FromHome::Hear(hearing) => Deed::Hear(hearing.number),
        FromHome::Expect(link) => Deed::Expect(link),
        FromHome::Dial(link) => Deed::Dial(link),
        FromHome::Drain(sender) => Deed::Drain(EndId::from_word(&sender.end)?),
    }))
}

/// A report as a word.
pub(super) fn from_report(report: Report) -> FromAgent {
    let failed = |number, text| agent::Failed { number, sender: Vec::new(), text };
    match report {
        Report::Said(process, Said::Word(word)) => {
            FromAgent::Said(agent::Said { process: process.0, word: Some(ToManager { word: Some(*word) }) })
        }
        Report::Said(process, Said::Ended(ended)) => {
            let (end, usage, stderr_tail) = *ended;
            let (code, signal, core) = match end {
                End::Exited(code) => (Some(code), 0, false),
                End::Signalled { signal, core } => (None, signal, core),
            };
            let nanoseconds = |duration: Duration| duration.as_nanos().try_into().unwrap_or(u64::MAX);
            FromAgent::Ended(agent::Ended {
                process: process.0,
                code,
                signal,
                core,
                wall_ns: nanoseconds(usage.wall),
                user_ns: nanoseconds(usage.user),
                system_ns: nanoseconds(usage.system),
                memory_max_bytes: usage.memory_max_bytes,
                stderr_tail,
            })
        }
        Report::Launched(process, _) => FromAgent::Launched(Number { number: process.0 }),
        Report::LaunchFailed(process, text) => FromAgent::LaunchFailed(failed(process.0, text)),
        Report::RingFailed(ring, sender, text) => FromAgent::RingFailed(agent::Failed {
            sender: sender.map(EndId::to_word).unwrap_or_default(),
            ..failed(ring, text)
        }),
        Report::TimeLimit(process, limit) => FromAgent::TimeLimit(agent::TimeLimit {
            process: process.0,
            limit_ns: limit.as_nanos().try_into().unwrap_or(u64::MAX),
        }),
        Report::Violation(process, text) => FromAgent::Violation(failed(process.0, text)),
        Report::Heard(hearing) => FromAgent::Heard(Number { number: hearing }),
        Report::Expecting(link) => FromAgent::Expecting(link),
        Report::Linked(link) => FromAgent::Linked(Number { number: link }),
        Report::LinkFailed(link, text) => FromAgent::LinkFailed(failed(link, text)),
    }
}

/// A word as a report; `None` for one that is none, or that this version does not know.
///
/// # Errors
/// [`Malformed`] when it makes no sense.
pub(super) fn to_report(word: FromAgent) -> Result<Option<Report>, Malformed> {
    Ok(Some(match word {
        FromAgent::Said(said) => {
            let Some(word) = said.word.and_then(|word| word.word) else { return Ok(None) };
            Report::Said(ProcessId(said.process), Said::Word(Box::new(word)))
        }
        FromAgent::Launched(process) => Report::Launched(ProcessId(process.number), Vec::new()),
        FromAgent::LaunchFailed(failed) => Report::LaunchFailed(ProcessId(failed.number), failed.text),
        FromAgent::RingFailed(failed) => {
            let sender = match failed.sender.as_slice() {
                [] => None,
                sender => Some(EndId::from_word(sender)?),
            };
            Report::RingFailed(failed.number, sender, failed.text)
        }
        FromAgent::Ended(ended) => {
            let end = match ended.code {
                Some(code) => End::Exited(code),
                None => End::Signalled { signal: ended.signal, core: ended.core },
            };
            let (process, usage) = (ProcessId(ended.process), ended.usage());
            Report::Said(process, Said::Ended(Box::new((end, usage, ended.stderr_tail))))
        }
        FromAgent::TimeLimit(word) => {
            Report::TimeLimit(ProcessId(word.process), Duration::from_nanos(word.limit_ns))
        }
        FromAgent::Violation(failed) => Report::Violation(ProcessId(failed.number), failed.text),
        FromAgent::Heard(hearing) => Report::Heard(hearing.number),
        FromAgent::Expecting(link) => Report::Expecting(link),
        FromAgent::Linked(link) => Report::Linked(link.number),
        FromAgent::LinkFailed(failed) => Report::LinkFailed(failed.number, failed.text),
        FromAgent::Printed(_) => return Ok(None),
    }))
}

fn from_ring(process: ProcessId, ring: NewRing) -> agent::MakeRing {
    agent::MakeRing {
        process: process.0,
        ring: ring.ring,
        capacity: ring.capacity as u64,
        sender: ring.sender.map(EndId::to_word).unwrap_or_default(),
    }
}

fn to_ring(word: &agent::MakeRing) -> Result<NewRing, Malformed> {
    let capacity = usize::try_from(word.capacity).ok();
    let capacity = capacity.filter(|capacity| transport::segment::check_capacity(*capacity));
    let capacity = capacity.ok_or(Malformed("capacity of a ring"))?;
    Ok(NewRing { ring: word.ring, capacity, sender: word.sender()? })
}

fn from_launch(launch: Launch) -> agent::Launch {
    agent::Launch {
        process: launch.process.0,
        parent: launch.parent.map(|parent| parent.0),
        name: launch.name,
        entry: launch.entry,
        argument: launch.argument,
        ends: launch.ends,
        cores_shares: launch.request.cores.shares(),
        memory_bytes: launch.request.memory.bytes(),
        env: launch.env,
        harness: launch.harness,
        time_limit_ns: launch.time_limit.map(|limit| limit.as_nanos().try_into().unwrap_or(u64::MAX)),
        rings: launch.rings.into_iter().map(|ring| from_ring(launch.process, ring)).collect(),
    }
}

fn to_launch(word: agent::Launch) -> Result<Launch, Malformed> {
    Ok(Launch {
        process: ProcessId(word.process),
        parent: word.parent.map(ProcessId),
        name: word.name,
        entry: word.entry,
        argument: word.argument,
        ends: word.ends,
        request: Request { cores: Cores::from_shares(word.cores_shares), memory: Memory(word.memory_bytes) },
        env: word.env,
        harness: word.harness,
        time_limit: word.time_limit_ns.map(Duration::from_nanos),
        rings: word.rings.iter().map(to_ring).collect::<Result<_, _>>()?,
    })
}
