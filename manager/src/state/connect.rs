//! Processes that come to have channels which had none: one gives the other two ends.
//!
//! Until the other accepts them, the ends are in a package. It is lost with that process.

use std::collections::{BTreeMap, VecDeque};

use protocol::{
    control::{
        CauseWord, Connect, ConnectAnswer, ConnectFailure, ConnectRefusal, Connected, FromManager, Malformed,
    },
    ending::{Cause, Over},
    ids::{EndId, ProcessId},
    limits::{CONNECTIONS_WAITING_MAX, ENDED_REMEMBERED},
};

use super::{Process, State, check_capacity};
use crate::wiring::{NotHeld, Package};

/// A connection that was not accepted yet.
#[derive(Debug)]
pub(super) struct Connection {
    from: ProcessId,
    name: String,
    ends: [EndId; 2],
    capacity: usize,
}

/// Why there is no connection.
struct Refused(ConnectFailure, String, Option<Cause>);

impl State {
    /// A process wants another to have the far ends of two channels.
    pub(super) fn on_connect(&mut self, from: ProcessId, word: Connect) -> Result<(), Malformed> {
        let ends = EndId::list_from_word(&word.ends)?;
        let ends = <[EndId; 2]>::try_from(ends).map_err(|_| Malformed("pair of ends"))?;
        let (request, capacity) = (word.request, check_capacity(word.capacity)?);
        let connected = self.connect(from, ProcessId(word.process), ends, capacity);
        let refusal = connected.err().map(|Refused(failure, text, ended)| ConnectRefusal {
            failure: failure.into(),
            text,
            ended: ended.as_ref().map(CauseWord::from),
        });
        self.tell(from, FromManager::ConnectAnswer(ConnectAnswer { request, refusal }));
        Ok(())
    }

    fn connect(
        &mut self,
        from: ProcessId,
        to: ProcessId,
        ends: [EndId; 2],
        capacity: usize,
    ) -> Result<(), Refused> {
        let Some(record) = self.processes.get(&to) else {
            return Err(match self.ended_lately.get(to) {
                Some(cause) => Refused(ConnectFailure::Ended, cause.to_string(), Some(cause.clone())),
                None => {
                    let text = format!("there is no process {to} in this job, or it has ended long ago");
                    Refused(ConnectFailure::NoProcess, text, None)
                }
            });
        };
        let (count, runs) = (record.connections.len(), record.runs);
        if count >= CONNECTIONS_WAITING_MAX {
            let text = format!("{} has not accepted the {count} before", self.describe(to));
            return Err(Refused(ConnectFailure::TooMany, text, None));
        }
        let (mut effects, package) = (Vec::new(), Package::Connection(self.connections));
        ends.iter().for_each(|end| self.forget_sender(from, *end));
        let packed = self.wiring.pack(from, &ends, package, &mut effects);
        self.run_wiring(effects);
        if let Err(NotHeld(end)) = packed {
            let text = format!("the channel end {end} was used, or is not this process's");
            return Err(Refused(ConnectFailure::Invalid, text, None));
        }
        let name = self.processes.get(&from).map(|record| record.name.clone()).unwrap_or_default();
        let (number, connection) = (self.connections, Connection { from, name, ends, capacity });
        self.connections += 1;
        if runs {
            self.tell(to, connected(number, &connection));
        }
        self.record(to, |record| drop(record.connections.insert(number, connection)));
        Ok(())
    }

    /// A process runs, and can be told who has wanted a connection before.
    pub(super) fn tell_connections(&mut self, process: ProcessId) {
        let connections = self.processes.get(&process).into_iter().flat_map(|record| &record.connections);
        let words: Vec<_> = connections.map(|(number, connection)| connected(*number, connection)).collect();
        words.into_iter().for_each(|word| self.tell(process, word));
    }

    /// A process has accepted a connection. One that it was not offered changes nothing.
    pub(super) fn on_accept(&mut self, process: ProcessId, number: u64) {
        let record = self.processes.get_mut(&process);
        if record.and_then(|record| record.connections.remove(&number)).is_some() {
            self.wiring.unpack(Package::Connection(number), process);
        }
    }

    /// A process will not be started, and accepts nothing.
    pub(super) fn lose_connections(&mut self, record: &Process, reason: &str) {
        for number in record.connections.keys() {
            self.lose(Package::Connection(*number), reason);
        }
    }
}

fn connected(number: u64, connection: &Connection) -> FromManager {
    FromManager::Connected(Connected {
        connection: number,
        process: connection.from.0,
        name: connection.name.clone(),
        ends: EndId::list_to_word(&connection.ends),
        capacity: connection.capacity as u64,
    })
}

/// What becomes of connections that a process had not accepted when it ended.
pub(super) fn not_accepted(cause: &Cause) -> Over {
    if cause.ending.is_success() {
        Over::Reset { reason: format!("{} has ended without accepting the connection", cause.name) }
    } else {
        Over::Died(cause.clone())
    }
}

/// How those processes ended that ended last.
#[derive(Debug, Default)]
pub(super) struct EndedLately {
    causes: BTreeMap<ProcessId, Cause>,
    order: VecDeque<ProcessId>,
}

impl EndedLately {
    pub(super) fn add(&mut self, cause: Cause) {
        self.order.push_back(cause.process);
        self.causes.insert(cause.process, cause);
        if self.order.len() > ENDED_REMEMBERED
            && let Some(process) = self.order.pop_front()
        {
            self.causes.remove(&process);
        }
    }

    fn get(&self, process: ProcessId) -> Option<&Cause> {
        self.causes.get(&process)
    }
}

#[cfg(test)]
mod tests;
