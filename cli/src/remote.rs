//! Jobs on a cluster: the program goes there, and what it prints comes back.

use std::{
    ffi::OsString,
    fs,
    net::SocketAddr,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use cluster::{Connection, Identity, Role, connect};
use manager::{JobEnd, JobError, JobSpec, Output, Stop, daemon::image_offer, links, store, store::Store};
use protocol::{
    cluster::Heartbeat,
    control::Variable,
    fleet::{
        Accepted, Answered, Asked, ClientSaid, FromClient, FromScheduler, SendImage, StartJob, Submit,
        ToClient, ToScheduler, Told,
    },
    ids::ImageId,
    limits::LINK_SILENCE_MAX,
    runner::{self, Spec},
};
use tokio::{
    sync::mpsc::{Receiver, Sender},
    task::spawn_local,
    time::{interval, timeout},
};

use crate::daemons::ADDRESS_FILE;

/// A cluster, as a client knows it.
pub(crate) struct Remote {
    folder: PathBuf,
    identity: Identity,
    scheduler: String,
}

/// Bytes of images that a client keeps.
const STORE_BYTES: u64 = 4 << 30;

/// How often a sign of life is sent.
const HEARTBEAT: Duration = Duration::from_secs(1);

impl Remote {
    /// The cluster whose client's folder that is: with an identity, and the scheduler's address.
    pub(crate) fn open(folder: &Path) -> Result<Remote, String> {
        let identity = Identity::load(&folder.join("admin")).or_else(|_| Identity::load(folder));
        let identity = identity.map_err(|error| error.to_string())?;
        let path = folder.join(ADDRESS_FILE);
        let scheduler = fs::read_to_string(&path).map_err(|error| {
            format!(
                "it is not known where the cluster's scheduler is ({}: {error}): write its address there",
                path.display()
            )
        })?;
        Ok(Remote { folder: folder.to_owned(), identity, scheduler: scheduler.trim().to_owned() })
    }

    /// The machines that have joined.
    pub(crate) async fn machines(&self) -> Result<usize, String> {
        let mut connection = self.connect_to_scheduler().await?;
        ask(&mut connection, Asked::Status(protocol::fleet::Status {})).await?;
        match answer(&mut connection).await? {
            Answered::Machines(machines) => Ok(machines.machines.len()),
            _ => Err("the scheduler answers something else than was asked".to_owned()),
        }
    }

    /// Runs a job there, to its end.
    pub(crate) async fn run_job(
        &self,
        program: &Path,
        spec: JobSpec,
        output: Sender<Output>,
        stop: Receiver<Stop>,
    ) -> Result<JobEnd, JobError> {
        self.try_run(program, spec, output, stop).await.map_err(JobError::Cluster)
    }

    async fn connect_to_scheduler(&self) -> Result<Connection, String> {
        let connected = connect(&self.scheduler, &self.identity, Role::Scheduler).await;
        connected.map_err(|error| error.to_string())
    }

    async fn try_run(
        &self,
        program: &Path,
        spec: JobSpec,
        output: Sender<Output>,
        mut stop: Receiver<Stop>,
    ) -> Result<JobEnd, String> {
        let store =
            Store::open(&self.folder.join("images"), STORE_BYTES).map_err(|error| error.to_string())?;
        let image = store.add(program).await.map_err(|error| error.to_string())?;
        let name = program_name(&spec);
        let submit = Submit {
            name: name.clone(),
            cores_shares: spec.request.cores.shares(),
            memory_bytes: spec.request.memory.bytes(),
        };
        let accepted = tokio::select! {
            accepted = self.submit(submit) => accepted?,
            Some(stop) = stop.recv() => return Err(format!("the job was given up: {stop:?}")),
        };
        let machine = accepted.machine.ok_or("the scheduler has placed the job on no machine")?;
        let address: SocketAddr =
            machine.address.parse().map_err(|_| format!("`{}` is no address", machine.address))?;
        let connection = connect(&address.to_string(), &self.identity, Role::Manager).await;
        let connection = connection.map_err(|error| error.to_string())?;
        if connection.peer().name != machine.name {
            return Err(format!("{} answers in the place of {}", connection.peer(), machine.name));
        }
        let start = StartJob { job: accepted.job, image: image.0.to_vec(), spec: Some(to_spec(spec, name)) };
        Session { store: Rc::new(store), image, address, output, stop }.run(connection, start).await
    }

    async fn submit(&self, submit: Submit) -> Result<Accepted, String> {
        let mut connection = self.connect_to_scheduler().await?;
        ask(&mut connection, Asked::Submit(submit)).await?;
        let (mut reader, mut writer) = connection.split();
        let mut beat = interval(HEARTBEAT);
        loop {
            let word = tokio::select! {
                word = timeout(LINK_SILENCE_MAX, reader.recv::<FromScheduler>()) => word,
                _ = beat.tick() => {
                    let word = Some(Asked::Heartbeat(Heartbeat { number: 0 }));
                    writer.send(&ToScheduler { word }).await.map_err(|error| error.to_string())?;
                    continue;
                }
            };
            let word = word.map_err(|_| "the scheduler is silent".to_owned())?;
            let word =
                word.map_err(|error| error.to_string())?.ok_or("the scheduler closed the connection")?;
            match word.word {
                Some(Answered::Accepted(accepted)) => return Ok(accepted),
                Some(Answered::Denied(denied)) => return Err(denied.text),
                _ => {}
            }
        }
    }
}

/// The connection to the manager of the job's home.
struct Session {
    store: Rc<Store>,
    image: ImageId,
    address: SocketAddr,
    output: Sender<Output>,
    stop: Receiver<Stop>,
}

impl Session {
    async fn run(mut self, connection: Connection, start: StartJob) -> Result<JobEnd, String> {
        let (mut reader, mut writer) = connection.split();
        let mut say = async |word| {
            writer.send(&FromClient { word: Some(word) }).await.map_err(|error| error.to_string())
        };
        say(ClientSaid::Start(start)).await?;
        let mut beat = interval(HEARTBEAT);
        loop {
            let word = tokio::select! {
                word = timeout(LINK_SILENCE_MAX, reader.recv::<ToClient>()) => word,
                _ = beat.tick() => {
                    say(ClientSaid::Heartbeat(Heartbeat { number: 0 })).await?;
                    continue;
                }
                Some(stop) = self.stop.recv() => {
                    say(ClientSaid::Stop(runner::Stop { by: stop.text().to_owned() })).await?;
                    continue;
                }
            };
            let word = word.map_err(|_| "the job's machine is silent".to_owned())?;
            let word = word.map_err(|error| format!("the job's machine is lost: {error}"))?;
            let word = word.ok_or("the job's machine closed the connection")?;
            match word.word {
                Some(Told::SendImage(word)) => self.send_image(word)?,
                Some(Told::Printed(printed)) => {
                    let output = Output {
                        name: printed.name.into(),
                        is_root: printed.is_root,
                        is_stderr: printed.is_stderr,
                        bytes: printed.bytes,
                        continues: printed.continues,
                    };
                    // Without a reader nobody wants it.
                    let _ = self.output.send(output).await;
                }
                Some(Told::Over(over)) if over.failed.is_empty() => {
                    let exit = over
                        .exit
                        .try_into()
                        .map_err(|error| format!("how the job ended is not known: {error}"))?;
                    return Ok(JobEnd { exit, processes: over.processes, left: 0 });
                }
                Some(Told::Over(over)) => return Err(over.failed),
                Some(Told::Denied(denied)) => return Err(denied.text),
                Some(Told::Heartbeat(_)) | None => {}
            }
        }
    }

    fn send_image(&self, word: SendImage) -> Result<(), String> {
        if word.image != self.image.0 {
            return Err("the job's machine asks for another program".to_owned());
        }
        let (offer, store, address) = (image_offer(&word)?, self.store.clone(), self.address);
        spawn_local(async move {
            // If it fails, the manager says what it lacks.
            if let Ok(link) = links::dial(address, &offer).await {
                let _ = store::serve(link, &store).await;
            }
        });
        Ok(())
    }
}

async fn ask(connection: &mut Connection, word: Asked) -> Result<(), String> {
    connection.send(&ToScheduler { word: Some(word) }).await.map_err(|error| error.to_string())
}

async fn answer(connection: &mut Connection) -> Result<Answered, String> {
    let answer = timeout(LINK_SILENCE_MAX, connection.recv::<FromScheduler>()).await;
    let answer = answer.map_err(|_| "the scheduler is silent".to_owned())?;
    let answer = answer.map_err(|error| error.to_string())?;
    answer.and_then(|answer| answer.word).ok_or("the scheduler says nothing".to_owned())
}

fn program_name(spec: &JobSpec) -> String {
    spec.image.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn to_spec(spec: JobSpec, name: String) -> Spec {
    let variables = |variables: Vec<(OsString, OsString)>| {
        let variable =
            |(name, value): (OsString, OsString)| Variable { name: name.into_vec(), value: value.into_vec() };
        variables.into_iter().map(variable).collect()
    };
    Spec {
        name,
        arguments: spec.arguments.iter().map(|argument| argument.as_bytes().to_vec()).collect(),
        env: variables(spec.env),
        process_env: variables(spec.process_env),
        cores_shares: spec.request.cores.shares(),
        memory_bytes: spec.request.memory.bytes(),
        wait: spec.wait,
        harness: spec.harness,
        directory: spec.directory.into_os_string().into_vec(),
    }
}
