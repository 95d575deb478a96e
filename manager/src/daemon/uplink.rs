//! The connection to the scheduler: kept, and made anew when it breaks.

use std::{
    rc::Rc,
    time::{Duration, SystemTime},
};

use cluster::{Acceptor, Connection, Identity, Role, connect};
use protocol::{
    cluster::{Certification, Heartbeat, Renew},
    fleet::{Answered, Asked, FromScheduler, JobProcess, JobWant, Join, Joined, Runs, ToScheduler},
    ids::{JobId, MachineId},
    limits::LINK_SILENCE_MAX,
    runner::FromDaemon,
};
use tokio::{
    sync::mpsc::unbounded_channel,
    task::spawn_local,
    time::{interval, sleep, timeout},
};
use tracing::{info, warn};

use super::Shared;

/// How often a sign of life is sent.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(1);

/// How long to wait before the next attempt, at first and at most.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Keeps the scheduler told, for ever. What runs goes on while there is none.
pub(super) async fn keep(daemon: Shared) {
    let mut pause = PAUSE_MIN;
    loop {
        let (scheduler, identity) = {
            let daemon = daemon.borrow();
            (daemon.config.scheduler.clone(), daemon.identity.clone())
        };
        match connect(&scheduler, &identity, Role::Scheduler).await {
            Ok(connection) => {
                let why = talk(&daemon, connection).await;
                daemon.borrow_mut().uplink = None;
                warn!(why, "the scheduler is lost; what runs goes on");
                pause = PAUSE_MIN;
            }
            Err(error) => warn!(%error, "no scheduler; trying again"),
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Talks until the connection is lost, and tells why.
async fn talk(daemon: &Shared, connection: Connection) -> String {
    let (mut reader, mut writer) = connection.split();
    let (outbox, mut words) = unbounded_channel();
    for word in daemon.borrow().introduction() {
        let _ = outbox.send(word);
    }
    daemon.borrow_mut().uplink = Some(outbox);
    let mut beat = interval(HEARTBEAT);
    let mut number = 0;
    let write = async {
        loop {
            let word = tokio::select! {
                Some(word) = words.recv() => word,
                _ = beat.tick() => {
                    number += 1;
                    daemon.borrow_mut().renewal().unwrap_or(Asked::Heartbeat(Heartbeat { number }))
                }
            };
            if let Err(error) = writer.send(&ToScheduler { word: Some(word) }).await {
                return error.to_string();
            }
        }
    };
    let read = async {
        loop {
            match timeout(LINK_SILENCE_MAX, reader.recv::<FromScheduler>()).await {
                Err(_) => return format!("silent for {} s", LINK_SILENCE_MAX.as_secs()),
                Ok(Err(error)) => return error.to_string(),
                Ok(Ok(None)) => return "it closed the connection".to_owned(),
                Ok(Ok(Some(FromScheduler { word: None }))) => {}
                Ok(Ok(Some(FromScheduler { word: Some(word) }))) => {
                    if let Err(why) = on_word(daemon, word) {
                        return why;
                    }
                }
            }
        }
    };
    tokio::select! {
        why = write => why,
        why = read => why,
    }
}

fn on_word(shared: &Shared, word: Answered) -> Result<(), String> {
    let mut daemon = shared.borrow_mut();
    match word {
        Answered::Welcome(welcome) => {
            let machine = MachineId(welcome.machine);
            if daemon.machine.is_some_and(|before| before != machine) && !daemon.jobs.is_empty() {
                return Err(format!("this machine was given another number, {machine}, while jobs run"));
            }
            info!(machine = machine.0, "joined");
            daemon.machine = Some(machine);
        }
        Answered::Placed(word) => {
            let placed = word.placed.ok_or("a placement without a process")?;
            if let Some(job) = daemon.jobs.get_mut(&JobId(word.job)) {
                job.on_placed(placed);
            }
        }
        Answered::Refused(word) => {
            let refused = word.refused.ok_or("a refusal without a process")?;
            if let Some(job) = daemon.jobs.get_mut(&JobId(word.job)) {
                job.tasks.remove(&refused.process);
                job.tell(FromDaemon::Refused(refused), Vec::new());
            }
        }
        Answered::Host(host) => {
            let id = JobId(host.job);
            daemon.hosted.insert(id, host);
            spawn_local(forget_host(shared.clone(), id));
        }
        Answered::Machines(word) => {
            let directory = word.machines.into_iter().map(|machine| (MachineId(machine.machine), machine));
            daemon.directory = directory.collect();
        }
        Answered::Revocations(word) => daemon.revoked.set(word.serials),
        Answered::Certified(word) => match word.answer {
            Some(Certification::Enrolled(enrolled)) => {
                if let Some(request) = daemon.renewal.take() {
                    let renewed = request.complete(&enrolled.chain, &enrolled.ca);
                    daemon.adopt(renewed.map_err(|error| error.to_string())?);
                }
            }
            Some(Certification::Denied(denied)) => warn!(denied.text, "the certificate is not renewed"),
            None => {}
        },
        Answered::Denied(denied) => return Err(denied.text),
        Answered::Heartbeat(_) | Answered::Accepted(_) => {}
    }
    daemon.news.notify_waiters();
    Ok(())
}

/// A job whose client does not come is not waited for.
async fn forget_host(shared: Shared, id: JobId) {
    sleep(LINK_SILENCE_MAX).await;
    let mut daemon = shared.borrow_mut();
    if daemon.hosted.remove(&id).is_some() {
        daemon.ask(Asked::Gone(JobProcess { job: id.0, process: 0 }));
    }
}

impl super::Daemon {
    /// The wish for a new certificate, when it is time and it was not asked for yet.
    fn renewal(&mut self) -> Option<Asked> {
        if self.renewal.is_some() || self.identity.renew_at() > SystemTime::now() {
            return None;
        }
        let request =
            cluster::Request::new().inspect_err(|error| warn!(%error, "no certificate is asked for"));
        let request = request.ok()?;
        let csr = request.csr().to_owned();
        self.renewal = Some(request);
        Some(Asked::Renew(Renew { csr }))
    }

    /// From now on, the machine shows this certificate.
    fn adopt(&mut self, identity: Identity) {
        if let Err(error) = identity.save(&self.config.folder) {
            warn!(%error, "the new certificate can't be kept");
        }
        info!("certificate renewed");
        self.acceptor = Acceptor::new(&identity, self.revoked.clone());
        self.identity = Rc::new(identity);
    }

    /// What a scheduler has to know that may know nothing.
    fn introduction(&self) -> Vec<Asked> {
        let capacity = &self.config.capacity;
        let mut words = vec![Asked::Join(Join {
            machine: self.machine.map(|machine| machine.0),
            address: self.address.to_string(),
            cores_shares: capacity.cores.shares(),
            memory_bytes: capacity.memory.bytes(),
            processes: capacity.processes,
        })];
        let tasks = || self.jobs.iter().flat_map(|(id, job)| job.tasks.values().map(move |task| (id, task)));
        for (id, task) in tasks() {
            if let Some(machine) = task.machine {
                words.push(Asked::Runs(Runs {
                    job: id.0,
                    process: task.name(),
                    cores_shares: task.want.cores_shares,
                    memory_bytes: task.want.memory_bytes,
                    machine: machine.0,
                }));
            }
        }
        for (id, task) in tasks().filter(|(_, task)| task.machine.is_none()) {
            words.push(Asked::Want(JobWant { job: id.0, want: Some(task.want.clone()) }));
        }
        words.push(Asked::Joined(Joined {}));
        words
    }
}
