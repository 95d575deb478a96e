//! Clients: each starts one job here, hears what it prints, and how it ends.

use std::time::Duration;

use cluster::{Connection, Peer, Reader, Writer};
use protocol::{
    fleet::{Asked, ClientSaid, Denied, FromClient, Host, JobProcess, StartJob, ToClient, Told},
    ids::{ImageId, JobId},
    limits::LINK_SILENCE_MAX,
};
use tokio::{sync::mpsc, task::spawn_local, time::timeout};
use tracing::warn;

use super::{Shared, jobs};

/// How long the scheduler's word about a job may be behind its client.
const HOST_TIME_MAX: Duration = Duration::from_secs(5);

/// So many words may wait for a client that reads slowly; then its job's output waits.
const WORDS: usize = 64;

/// Serves a client until it is gone.
pub(super) async fn serve(shared: Shared, connection: Connection) {
    let peer = connection.peer().clone();
    let (mut reader, writer) = connection.split();
    let (client, words) = mpsc::channel(WORDS);
    spawn_local(write(writer, words));
    let start = match timeout(LINK_SILENCE_MAX, reader.recv::<FromClient>()).await {
        Ok(Ok(Some(FromClient { word: Some(ClientSaid::Start(start)) }))) => start,
        _ => return warn!(%peer, "it did not say which job to start"),
    };
    let id = JobId(start.job);
    let started = tokio::select! {
        started = begin(&shared, &peer, start, client.clone()) => started,
        why = hear(&shared, id, &peer, &mut reader, &client) => Err(why),
    };
    if let Err(text) = started {
        warn!(%peer, job = id.0, text, "a job was not started");
        let _ = client.send(Told::Denied(Denied { text })).await;
        return;
    }
    let why = hear(&shared, id, &peer, &mut reader, &client).await;
    jobs::stop(&shared, id, why);
}

/// Hears a client until it is gone, and tells how that came.
async fn hear(
    shared: &Shared,
    id: JobId,
    peer: &Peer,
    reader: &mut Reader,
    client: &mpsc::Sender<Told>,
) -> String {
    loop {
        match timeout(LINK_SILENCE_MAX, reader.recv::<FromClient>()).await {
            Err(_) => return format!("{peer}, who is silent"),
            Ok(Err(_) | Ok(None)) => return format!("the loss of whoever had started the job, {peer}"),
            Ok(Ok(Some(FromClient { word: Some(ClientSaid::Stop(stop)) }))) => {
                jobs::stop(shared, id, stop.by)
            }
            Ok(Ok(Some(FromClient { word: Some(ClientSaid::Heartbeat(beat)) }))) => {
                // One that reads slowly has other signs of life.
                let _ = client.try_send(Told::Heartbeat(beat));
            }
            Ok(Ok(Some(_))) => {}
        }
    }
}

async fn begin(
    shared: &Shared,
    peer: &Peer,
    start: StartJob,
    client: mpsc::Sender<Told>,
) -> Result<(), String> {
    let id = JobId(start.job);
    let host = hosted(shared, id, peer).await?;
    let job = async {
        let image = ImageId(start.image.as_slice().try_into().map_err(|_| "an image's name has 32 bytes")?);
        let spec = start.spec.ok_or("a job without anything to run")?;
        let ask = client.clone();
        let ask = |word| ask.try_send(Told::SendImage(word)).map_err(|error| error.to_string());
        let lease = jobs::fetch(shared, image, ask).await?;
        jobs::start_home(shared, id, &host, spec, image, lease, client)
    };
    job.await.inspect_err(|_| {
        // What was reserved for it is given back.
        shared.borrow().ask(Asked::Gone(JobProcess { job: id.0, process: 0 }));
    })
}

/// What the scheduler has said of a job, if this client may start it.
async fn hosted(shared: &Shared, id: JobId, peer: &Peer) -> Result<Host, String> {
    let news = shared.borrow().news.clone();
    let wait = async {
        loop {
            let notified = news.notified();
            if let Some(host) = shared.borrow().hosted.get(&id) {
                break host.clone();
            }
            notified.await;
        }
    };
    let host = timeout(HOST_TIME_MAX, wait).await.map_err(|_| format!("no job {id} is expected here"))?;
    if host.principal != peer.name {
        return Err(format!("job {id} was submitted by somebody else than {peer}"));
    }
    shared.borrow_mut().hosted.remove(&id);
    Ok(host)
}

async fn write(mut writer: Writer, mut words: mpsc::Receiver<Told>) {
    while let Some(word) = words.recv().await {
        if writer.send(&ToClient { word: Some(word) }).await.is_err() {
            return;
        }
    }
    let _ = writer.close().await;
}
