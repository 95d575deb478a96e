//! Other managers: a connection to each that there is something to say to, and those that they have made.

use cluster::{Connection, Role, connect};
use protocol::{
    agent::FromHome,
    cluster::Heartbeat,
    fleet::{PeerSaid, ToPeer},
    ids::{ImageId, JobId, LinkId, MachineId},
    limits::LINK_SILENCE_MAX,
    runner::{FromDaemon, MachineLost, MachineToHome},
};
use tokio::{
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    task::spawn_local,
    time::{interval, timeout},
};
use tracing::{info, warn};

use super::{Daemon, Shared, jobs, uplink::HEARTBEAT};
use crate::{
    links::{self, Offer, Secret},
    store,
};

/// Says something to another manager, in order with what was said before.
pub(super) fn say(shared: &Shared, machine: MachineId, word: PeerSaid) {
    let mut daemon = shared.borrow_mut();
    if let Some(way) = daemon.peers.get(&machine) {
        let _ = way.send(word);
        return;
    }
    let (way, words) = unbounded_channel();
    let _ = way.send(word);
    daemon.peers.insert(machine, way);
    spawn_local(reach(shared.clone(), machine, words));
}

/// Keeps the connection to a manager, until it is lost, and with it all that is between the two.
async fn reach(shared: Shared, machine: MachineId, words: UnboundedReceiver<PeerSaid>) {
    let why = match connect_to(&shared, machine).await {
        Ok(connection) => talk(connection, words).await,
        Err(why) => why,
    };
    shared.borrow_mut().peers.remove(&machine);
    on_lost(&shared, machine, &why);
}

async fn connect_to(shared: &Shared, machine: MachineId) -> Result<Connection, String> {
    let (address, name, identity) = {
        let daemon = shared.borrow();
        let name = daemon.directory.get(&machine).map(|entry| entry.name.clone());
        (daemon.address_of(machine)?, name, daemon.identity.clone())
    };
    let connection =
        connect(&address.to_string(), &identity, Role::Manager).await.map_err(|error| error.to_string())?;
    if Some(&connection.peer().name) != name.as_ref() {
        return Err(format!("{} answers in the place of machine {machine}", connection.peer()));
    }
    Ok(connection)
}

async fn talk(connection: Connection, mut words: UnboundedReceiver<PeerSaid>) -> String {
    let (mut reader, mut writer) = connection.split();
    let mut beat = interval(HEARTBEAT);
    let mut number = 0;
    let write = async {
        loop {
            let word = tokio::select! {
                word = words.recv() => match word {
                    Some(word) => word,
                    None => return "nothing more to say".to_owned(),
                },
                _ = beat.tick() => {
                    number += 1;
                    PeerSaid::Heartbeat(Heartbeat { number })
                }
            };
            if let Err(error) = writer.send(&ToPeer { word: Some(word) }).await {
                return error.to_string();
            }
        }
    };
    // Nothing comes on this connection but the signs of life that were sent.
    let read = async {
        loop {
            match timeout(LINK_SILENCE_MAX, reader.recv::<ToPeer>()).await {
                Err(_) => return format!("silent for {} s", LINK_SILENCE_MAX.as_secs()),
                Ok(Err(error)) => return error.to_string(),
                Ok(Ok(None)) => return "its manager closed the connection".to_owned(),
                Ok(Ok(Some(_))) => {}
            }
        }
    };
    tokio::select! {
        why = write => why,
        why = read => why,
    }
}

/// Hears a manager that has connected.
pub(super) async fn hear(shared: Shared, connection: Connection) {
    let peer = connection.peer().clone();
    let (mut reader, mut writer) = connection.split();
    let machine_of = |shared: &Shared| {
        let daemon = shared.borrow();
        daemon.directory.iter().find(|(_, entry)| entry.name == peer.name).map(|(machine, _)| *machine)
    };
    // It may have joined a moment ago, and the news of it be on their way here.
    let news = shared.borrow().news.clone();
    let known = async {
        loop {
            let notified = news.notified();
            if let Some(machine) = machine_of(&shared) {
                break machine;
            }
            notified.await;
        }
    };
    let Ok(machine) = timeout(LINK_SILENCE_MAX, known).await else {
        return warn!(%peer, "it is not in the cluster");
    };
    let why = loop {
        match timeout(LINK_SILENCE_MAX, reader.recv::<ToPeer>()).await {
            Err(_) => break format!("silent for {} s", LINK_SILENCE_MAX.as_secs()),
            Ok(Err(error)) => break error.to_string(),
            Ok(Ok(None)) => break "its manager closed the connection".to_owned(),
            Ok(Ok(Some(ToPeer { word: None }))) => {}
            Ok(Ok(Some(ToPeer { word: Some(PeerSaid::Heartbeat(beat)) }))) => {
                let word = Some(PeerSaid::Heartbeat(beat));
                if let Err(error) = writer.send(&ToPeer { word }).await {
                    break error.to_string();
                }
            }
            Ok(Ok(Some(ToPeer { word: Some(word) }))) => on_word(&shared, machine, word),
        }
    };
    on_lost(&shared, machine, &why);
}

fn on_word(shared: &Shared, machine: MachineId, word: PeerSaid) {
    match word {
        PeerSaid::ToAgent(word) => {
            let job = JobId(word.job);
            let Some(said) = word.word else { return };
            if let Some(FromHome::Begin(begin)) = said.word {
                if !shared.borrow().jobs.contains_key(&job) {
                    jobs::start_agent(shared, job, machine, begin);
                }
                return;
            }
            if let Some(job) = shared.borrow().jobs.get(&job).filter(|job| job.home == machine) {
                job.tell(FromDaemon::ToAgent(said), Vec::new());
            }
        }
        PeerSaid::ToHome(word) => {
            let daemon = shared.borrow();
            if let Some(job) = daemon.jobs.get(&JobId(word.job)).filter(|job| job.agents.contains(&machine)) {
                let word = MachineToHome { machine: machine.0, word: word.word };
                job.tell(FromDaemon::FromAgent(word), Vec::new());
            }
        }
        PeerSaid::Broken(broken) => {
            let mut daemon = shared.borrow_mut();
            if let Some(job) = daemon.jobs.get_mut(&JobId(broken.job)) {
                job.lose(machine, &broken.why);
            }
        }
        PeerSaid::SendImage(word) => {
            let shared = shared.clone();
            spawn_local(async move {
                if let Err(why) = send_image(&shared, machine, word).await {
                    warn!(machine = machine.0, why, "an image was not sent");
                }
            });
        }
        PeerSaid::Heartbeat(_) => {}
    }
}

/// Sends an image to a manager that expects it.
async fn send_image(
    shared: &Shared,
    machine: MachineId,
    word: protocol::fleet::SendImage,
) -> Result<(), String> {
    let (address, store) = {
        let daemon = shared.borrow();
        (daemon.address_of(machine)?, daemon.store.clone())
    };
    let offer = image_offer(&word)?;
    let link = links::dial(address, &offer).await.map_err(|error| error.to_string())?;
    let bytes = store::serve(link, &store).await.map_err(|error| error.to_string())?;
    info!(machine = machine.0, bytes, "image sent");
    Ok(())
}

/// The offer of a link for an image, as it came over the control connection.
pub fn image_offer(word: &protocol::fleet::SendImage) -> Result<Offer, String> {
    let expecting = word.expecting.as_ref().ok_or("a wish for an image without a link")?;
    let link = LinkId(expecting.id.as_slice().try_into().map_err(|_| "a link's name has 16 bytes")?);
    let secret = Secret(expecting.secret.as_slice().try_into().map_err(|_| "a secret has 32 bytes")?);
    Ok(Offer { link, secret, terms: jobs::image_terms(word.is_sealed) })
}

/// A manager is lost to this one, and so are all parts of jobs there.
fn on_lost(shared: &Shared, machine: MachineId, why: &str) {
    let mut daemon = shared.borrow_mut();
    let Daemon { jobs, .. } = &mut *daemon;
    for job in jobs.values_mut() {
        job.lose(machine, why);
    }
}

impl jobs::Job {
    /// A machine is lost to this job.
    fn lose(&mut self, machine: MachineId, why: &str) {
        if self.agents.remove(&machine) || self.home == machine {
            let word = MachineLost { machine: machine.0, why: why.to_owned() };
            self.tell(FromDaemon::MachineLost(word), Vec::new());
        }
    }
}

/// Sixteen bytes of hash, as a short name of an image in logs.
pub(super) fn short(image: &ImageId) -> String {
    image.to_string()[..12].to_owned()
}
