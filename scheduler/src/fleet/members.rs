//! The connection of one member.

use std::cell::Cell;

use cluster::{Authority, Connection, Peer, Role, Writer};
use protocol::{
    cluster::{Certification, Certified, Denied as NotCertified},
    fleet::{Answered, Asked, Denied, FromScheduler, JobProcess, Machines, ToScheduler},
    ids::{JobId, MachineId, ProcessId},
    limits::LINK_SILENCE_MAX,
    placement::Task,
};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::spawn_local,
    time::timeout,
};
use tracing::{info, warn};

use super::{Shared, await_loss, capacity_of};

thread_local! {
    /// So many connections there were.
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

/// What a member has made of itself on a connection.
#[derive(Default)]
struct Session {
    machine: Option<MachineId>,
    job: Option<JobId>,
}

/// Hears a member until it is gone.
pub(super) async fn serve(fleet: Shared, authority: Authority, connection: Connection) {
    let peer = connection.peer().clone();
    let number = COUNT.replace(COUNT.get() + 1);
    let (mut reader, writer) = connection.split();
    let (answers, outbox) = unbounded_channel();
    spawn_local(write(writer, outbox));
    let mut session = Session::default();
    let why = loop {
        match timeout(LINK_SILENCE_MAX, reader.recv::<ToScheduler>()).await {
            Err(_) => break format!("silent for {} s", LINK_SILENCE_MAX.as_secs()),
            Ok(Err(error)) => break error.to_string(),
            Ok(Ok(None)) => break "it closed the connection".to_owned(),
            // A word that this version does not know.
            Ok(Ok(Some(ToScheduler { word: None }))) => {}
            Ok(Ok(Some(ToScheduler { word: Some(word) }))) => {
                let said = on_word(&fleet, &authority, &peer, number, &mut session, &answers, word);
                if let Err(text) = said {
                    let _ = answers.send(Answered::Denied(Denied { text: text.clone() }));
                    break text;
                }
            }
        }
    };
    if let Some(machine) = session.machine
        && fleet.borrow_mut().on_silent(machine, number)
    {
        warn!(%peer, machine = machine.0, why, "machine is silent");
        spawn_local(await_loss(fleet.clone(), machine));
    }
    if let Some(job) = session.job {
        fleet.borrow_mut().on_client_gone(job);
    }
}

fn on_word(
    fleet: &Shared,
    authority: &Authority,
    peer: &Peer,
    number: u64,
    session: &mut Session,
    answers: &UnboundedSender<Answered>,
    word: Asked,
) -> Result<(), String> {
    let is_manager = peer.role == Role::Manager;
    let may_submit = matches!(peer.role, Role::Admin | Role::Submit);
    let joined = || session.machine.ok_or("a manager joins before it says anything else".to_owned());
    let task = |of: JobProcess| Task { job: JobId(of.job), process: ProcessId(of.process) };
    match word {
        Asked::Heartbeat(heartbeat) => drop(answers.send(Answered::Heartbeat(heartbeat))),
        Asked::Renew(renew) => {
            let answer = match authority.renew(peer, &renew) {
                Ok(enrolled) => Certification::Enrolled(enrolled),
                Err(error) => Certification::Denied(NotCertified { text: error.to_string() }),
            };
            info!(%peer, "certificate renewed");
            let _ = answers.send(Answered::Certified(Certified { answer: Some(answer) }));
        }
        Asked::Join(join) if is_manager => {
            let capacity = capacity_of(&join);
            let way = (number, answers.clone());
            let had = join.machine.map(MachineId);
            session.machine = Some(fleet.borrow_mut().on_join(peer, had, join.address, capacity, way)?);
        }
        Asked::Runs(runs) if is_manager => fleet.borrow_mut().on_runs(joined()?, runs),
        Asked::Joined(_) if is_manager => fleet.borrow_mut().on_joined(joined()?),
        Asked::Want(word) if is_manager => {
            let want = word.want.ok_or("a wish without a process")?;
            fleet.borrow_mut().on_want(joined()?, JobId(word.job), &want);
        }
        Asked::Withdraw(of) if is_manager => fleet.borrow_mut().on_withdraw(joined()?, task(of)),
        Asked::Gone(of) if is_manager => fleet.borrow_mut().on_gone(joined()?, task(of)),
        Asked::Submit(submit) if may_submit && session.job.is_none() => {
            session.job = Some(fleet.borrow_mut().on_submit(peer, &submit, answers.clone()));
        }
        Asked::Status(_) if !is_manager => {
            let fleet = fleet.borrow();
            let machines = fleet.machines.keys().filter_map(|machine| fleet.describe(*machine)).collect();
            let _ = answers.send(Answered::Machines(Machines { machines }));
        }
        Asked::Submit(_) if session.job.is_none() => {
            return Err(format!(
                "{peer} may not start jobs: that takes a certificate with the role `submit` or `admin`"
            ));
        }
        _ => return Err(format!("{peer} may not say this")),
    }
    Ok(())
}

async fn write(mut writer: Writer, mut outbox: UnboundedReceiver<Answered>) {
    while let Some(word) = outbox.recv().await {
        if writer.send(&FromScheduler { word: Some(word) }).await.is_err() {
            return;
        }
    }
    // That it can't be closed in good order any more is nothing to anybody.
    let _ = writer.close().await;
}
