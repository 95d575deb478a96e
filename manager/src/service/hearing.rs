//! In which order words count: what a process says may follow from what others have said before, on other sockets and
//! perhaps on other machines.

use protocol::{
    control::{FromProcess, Malformed},
    ids::ProcessId,
    limits::HEARING_HOPS_MAX,
};

use super::{
    Service, Shared,
    home::{Mind, Report, Said},
    processes::Rest,
};

/// What became of the next word of a process.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hearing {
    /// It was taken in.
    Taken,
    /// It waits for what another process has said on its machine.
    Later,
    /// There is none.
    Nothing,
}

impl Service {
    /// Takes in what a process has said.
    pub(super) fn read(shared: &Shared, process: ProcessId) -> Rest {
        let mut service = shared.borrow_mut();
        let rest = service.listen(process);
        service.hear_out(process);
        rest
    }

    /// Reads all that the processes of this machine have said.
    pub(super) fn read_all(shared: &Shared) {
        let mut service = shared.borrow_mut();
        for process in service.live.keys().copied().collect::<Vec<_>>() {
            while service.listen(process) == Rest::Now {}
        }
    }

    /// Reads words of a process, to be taken in.
    fn listen(&mut self, process: ProcessId) -> Rest {
        let Some(live) = self.live.get_mut(&process) else { return Rest::None };
        let mut words = Vec::new();
        let rest = live.read(&mut words);
        for word in words {
            self.mind.report(Report::Said(process, Said::Word(Box::new(word))));
        }
        rest.unwrap_or_else(|error| {
            self.mind.report(Report::Violation(process, error));
            Rest::None
        })
    }

    /// Takes in all that a process has said, as far as that can be.
    pub(super) fn hear_out(&mut self, process: ProcessId) {
        let mut next = Some(process);
        while let Some(process) = next {
            while self.hear(process, HEARING_HOPS_MAX) == Hearing::Taken {}
            // Those that were listened to on the way may have said more; their sockets don't call again for it.
            next = self.overheard.pop();
        }
    }

    /// Takes in all that can be.
    pub(super) fn hear_all(&mut self) {
        let Mind::Here(home) = &self.mind else { return };
        for process in home.unheard() {
            self.hear_out(process);
        }
    }

    /// Takes in the next word of a process, and before it those of others which it follows from.
    fn hear(&mut self, process: ProcessId, hops: u32) -> Hearing {
        let said = match &mut self.mind {
            Mind::Here(home) => home.next_said(process),
            Mind::Elsewhere(_) => None,
        };
        let word = match said {
            None => return Hearing::Nothing,
            Some(Said::Word(word)) => word,
            Some(Said::Ended(ended)) => {
                let (end, usage, stderr_tail) = *ended;
                if let Mind::Here(home) = &mut self.mind {
                    home.state.on_ended(process, end, usage, stderr_tail);
                }
                return Hearing::Taken;
            }
        };
        while hops > 0
            && let Mind::Here(home) = &mut self.mind
            && let Some(other) = home.state.unheard(process, &word)
        {
            let is_here = home.is_here(other);
            match self.hear(other, hops - 1) {
                Hearing::Taken => continue,
                Hearing::Later => return self.put_back(process, word),
                Hearing::Nothing => {}
            }
            if is_here {
                self.listen(other);
                self.overheard.push(other);
            } else if let Mind::Here(home) = &mut self.mind
                && !home.hear_out(process, other)
            {
                return self.put_back(process, word);
            }
            match self.hear(other, hops - 1) {
                Hearing::Taken => {}
                Hearing::Later => return self.put_back(process, word),
                Hearing::Nothing => break,
            }
        }
        let Mind::Here(home) = &mut self.mind else { return Hearing::Nothing };
        home.waits_no_more(process);
        if let Err(Malformed(what)) = home.state.on_word(process, *word) {
            home.state.on_violation(process, &format!("a control message without a sensible {what}"));
            home.forget_words(process);
        }
        Hearing::Taken
    }

    fn put_back(&mut self, process: ProcessId, word: Box<FromProcess>) -> Hearing {
        if let Mind::Here(home) = &mut self.mind {
            home.put_back(process, Said::Word(word));
        }
        Hearing::Later
    }
}
