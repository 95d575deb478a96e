//! The parts of jobs on this machine: each has a runner, which is started here and heard.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ffi::CString,
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    rc::Rc,
};

use protocol::{
    agent::{Begin, End, Expecting, FromHome, ToAgent},
    control::{Framing, encode},
    fleet::{Asked, Broken, Host, JobProcess, JobToAgent, JobToHome, JobWant, PeerSaid, SendImage, Told},
    hello::{Purpose, Terms},
    ids::{ImageId, JobId, LinkId, MachineId, ProcessId},
    limits::{LINK_WINDOW_BYTES_MAX, OFFER_TIME_MAX},
    runner::{FromDaemon, FromRunner, LinkTo, Over, Placed, Spec, Start, Stop, ToDaemon, ToRunner, Want},
};
use tokio::{
    io::unix::AsyncFd,
    sync::{
        mpsc::{self, UnboundedReceiver, UnboundedSender, unbounded_channel},
        oneshot,
    },
    task::spawn_local,
    time::timeout,
};
use tracing::{info, warn};
use transport::socket::Socket;

use super::{Daemon, Shared, peers, peers::short};
use crate::{
    launch::{self, Launch},
    links::{self, Offer, Secret},
    service::{SharedFd, watch},
    state::child_id,
    store::{self, Lease},
};

/// The part of a job on this machine.
pub(super) struct Job {
    /// The machine where it is decided.
    pub(super) home: MachineId,
    /// At home: the machines that have agents.
    pub(super) agents: BTreeSet<MachineId>,
    /// At home: the processes that the scheduler knows.
    pub(super) tasks: BTreeMap<u64, Task>,
    /// At home: whoever has started it.
    client: Option<mpsc::Sender<Told>>,
    runner: UnboundedSender<(FromDaemon, Vec<OwnedFd>)>,
    is_over: bool,
}

/// A process that the scheduler has placed, or is to place.
pub(super) struct Task {
    pub(super) want: Want,
    pub(super) machine: Option<MachineId>,
}

impl Task {
    /// What the scheduler calls it: it knows the root as zero.
    pub(super) fn name(&self) -> u64 {
        name(self.want.process)
    }
}

fn name(process: u64) -> u64 {
    if process == root() { 0 } else { process }
}

/// The root of every job.
fn root() -> u64 {
    child_id(ProcessId(0), 0).0
}

impl Job {
    /// Tells its runner.
    pub(super) fn tell(&self, word: FromDaemon, files: Vec<OwnedFd>) {
        // If the runner is gone, so is the job in a moment.
        let _ = self.runner.send((word, files));
    }

    pub(super) fn on_placed(&mut self, placed: Placed) {
        // One that is known was answered twice, because it was asked for again.
        if let Some(task) = self.tasks.get_mut(&placed.process).filter(|task| task.machine.is_none()) {
            task.machine = Some(MachineId(placed.machine));
            self.tell(FromDaemon::Placed(placed), Vec::new());
        }
    }
}

/// What is agreed on a link that carries an image.
pub(super) const fn image_terms(is_sealed: bool) -> Terms {
    Terms {
        purpose: Purpose::Image,
        is_sealed,
        window_bytes: IMAGE_WINDOW_BYTES,
        frame_bytes_max: IMAGE_WINDOW_BYTES,
    }
}

/// So much of an image may be under way.
const IMAGE_WINDOW_BYTES: u64 = 1 << 20;

fn channel_terms(window_bytes: u64, is_sealed: bool) -> Terms {
    Terms { purpose: Purpose::Channel, is_sealed, window_bytes, frame_bytes_max: window_bytes }
}

/// Starts the home of a job here. `client` hears what it prints and how it ends.
pub(super) fn start_home(
    shared: &Shared,
    id: JobId,
    host: &Host,
    spec: Spec,
    image: ImageId,
    lease: Lease,
    client: mpsc::Sender<Told>,
) -> Result<(), String> {
    let mut daemon = shared.borrow_mut();
    let machine = daemon.machine.ok_or("this machine has not joined its cluster yet")?;
    let want = Want {
        process: root(),
        cores_shares: host.cores_shares,
        memory_bytes: host.memory_bytes,
        ..Want::default()
    };
    let spec = Spec { cores_shares: host.cores_shares, memory_bytes: host.memory_bytes, ..spec };
    let (runner, words) = unbounded_channel();
    daemon.jobs.insert(
        id,
        Job {
            home: machine,
            agents: BTreeSet::new(),
            tasks: [(root(), Task { want, machine: Some(machine) })].into(),
            client: Some(client),
            runner,
            is_over: false,
        },
    );
    drop(daemon);
    info!(job = id.0, name = spec.name, principal = host.principal, image = short(&image), "job starts");
    let start = start_word(shared, id, machine, machine, image, spec);
    spawn_local(keep(shared.clone(), id, start, lease, words));
    Ok(())
}

/// Starts an agent of a job here, when its image is here.
pub(super) fn start_agent(shared: &Shared, id: JobId, home: MachineId, begin: Begin) {
    let (runner, words) = unbounded_channel();
    let job =
        Job { home, agents: BTreeSet::new(), tasks: BTreeMap::new(), client: None, runner, is_over: false };
    shared.borrow_mut().jobs.insert(id, job);
    let shared = shared.clone();
    spawn_local(async move {
        match bring(&shared, home, &begin).await {
            Ok((machine, image, lease)) => {
                info!(job = id.0, home = home.0, image = short(&image), "agent starts");
                let spec = Spec { name: begin.name, directory: begin.directory, ..Spec::default() };
                let start = start_word(&shared, id, machine, home, image, spec);
                keep(shared, id, start, lease, words).await;
            }
            Err(why) => {
                shared.borrow_mut().jobs.remove(&id);
                peers::say(&shared, home, PeerSaid::Broken(Broken { job: id.0, why }));
            }
        }
    });
}

fn start_word(
    shared: &Shared,
    job: JobId,
    machine: MachineId,
    home: MachineId,
    image: ImageId,
    spec: Spec,
) -> Start {
    let store = shared.borrow().config.images();
    Start {
        job: job.0,
        machine: machine.0,
        home: home.0,
        image: image.0.to_vec(),
        spec: Some(spec),
        store: store.as_os_str().as_bytes().to_vec(),
    }
}

/// Makes sure that a job's image is here.
async fn bring(
    shared: &Shared,
    home: MachineId,
    begin: &Begin,
) -> Result<(MachineId, ImageId, Lease), String> {
    let image = ImageId(begin.image.as_slice().try_into().map_err(|_| "an image's name has 32 bytes")?);
    let machine = shared.borrow().machine.ok_or("this machine has not joined its cluster yet")?;
    let ask = |word| {
        peers::say(shared, home, PeerSaid::SendImage(word));
        Ok(())
    };
    Ok((machine, image, fetch(shared, image, ask).await?))
}

/// Makes sure that an image is here; `ask` has somebody send it.
pub(super) async fn fetch(
    shared: &Shared,
    image: ImageId,
    ask: impl FnOnce(SendImage) -> Result<(), String>,
) -> Result<Lease, String> {
    let store = shared.borrow().store.clone();
    if !store.has(image) {
        let is_sealed = shared.borrow().config.is_sealed;
        let (sender, arrives) = oneshot::channel();
        let offer = {
            let mut daemon = shared.borrow_mut();
            let offer = daemon.expected.offer(image_terms(is_sealed)).map_err(|error| error.to_string())?;
            daemon.images.insert(offer.link, sender);
            offer
        };
        ask(SendImage { image: image.0.to_vec(), expecting: Some(expecting(0, &offer)), is_sealed })?;
        let arrived = timeout(OFFER_TIME_MAX, arrives).await;
        shared.borrow_mut().images.remove(&offer.link);
        let Ok(Ok(link)) = arrived else {
            return Err("the machine that has the program did not connect".into());
        };
        store::fetch(link, &store, image).await.map_err(|error| error.to_string())?;
    }
    store.lease(image).map_err(|error| error.to_string())
}

fn expecting(number: u64, offer: &Offer) -> Expecting {
    Expecting { link: number, id: offer.link.0.to_vec(), secret: offer.secret.0.to_vec() }
}

/// Runs a job's part to its end.
async fn keep(
    shared: Shared,
    id: JobId,
    start: Start,
    lease: Lease,
    words: UnboundedReceiver<(FromDaemon, Vec<OwnedFd>)>,
) {
    let why = match run(&shared, id, start, words).await {
        Ok(()) => "its runner has ended".to_owned(),
        Err(error) => format!("its runner failed: {error}"),
    };
    drop(lease);
    on_gone(&shared, id, why);
}

async fn run(
    shared: &Shared,
    id: JobId,
    start: Start,
    mut words: UnboundedReceiver<(FromDaemon, Vec<OwnedFd>)>,
) -> io::Result<()> {
    let (ours, theirs) = Socket::pair()?;
    let program = OwnedFd::from(File::open("/proc/self/exe")?);
    let null = OwnedFd::from(File::open("/dev/null")?);
    let log = io::stderr().as_fd().try_clone_to_owned()?;
    let launched = launch::launch(&Launch {
        image: program.as_fd(),
        argv: &[c"archean".into(), c"runner".into()],
        env: &[] as &[CString],
        directory: c"/",
        descriptors: &[null.as_fd(), log.as_fd(), log.as_fd(), theirs.as_fd()],
    })
    .map_err(io::Error::other)?;
    drop(theirs);
    let mut port = Port { socket: watch(ours)?, framing: Framing::default(), outgoing: VecDeque::new() };
    port.say(FromDaemon::Start(start), Vec::new());
    let heard = loop {
        tokio::select! {
            said = port.next() => match said {
                Ok(Some(word)) => on_word(shared, id, word).await,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            },
            Some((word, files)) = words.recv() => port.say(word, files),
        }
    };
    // Without its socket it ends what it has, and then itself.
    drop(port);
    if let Ok(pidfd) = watch(SharedFd(Rc::new(launched.pidfd))) {
        let _ = pidfd.readable().await;
    }
    let _ = launch::reap(launched.pid);
    heard
}

/// The socket to a runner.
struct Port {
    socket: AsyncFd<Socket>,
    framing: Framing<OwnedFd>,
    outgoing: VecDeque<(Vec<u8>, usize, Vec<OwnedFd>)>,
}

impl Port {
    fn say(&mut self, word: FromDaemon, files: Vec<OwnedFd>) {
        let bytes = encode(&ToRunner { word: Some(word) }, files.len());
        self.outgoing.push_back((bytes, 0, files));
        self.write();
    }

    fn write(&mut self) {
        while let Some((bytes, sent, files)) = self.outgoing.front_mut() {
            let borrowed: Vec<_> = files.iter().map(AsFd::as_fd).collect();
            match self.socket.get_ref().write(&bytes[*sent..], &borrowed) {
                Ok(written) => {
                    *sent += written;
                    files.clear();
                    if *sent == bytes.len() {
                        self.outgoing.pop_front();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // It is gone, which is seen by reading.
                Err(_) => self.outgoing.clear(),
            }
        }
    }

    /// The next word, while what was said is being sent. It can be given up at any time.
    async fn next(&mut self) -> io::Result<Option<ToDaemon>> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            match self.framing.take::<FromRunner>() {
                Ok(Some((FromRunner { word: Some(word) }, _))) => return Ok(Some(word)),
                Ok(Some(_)) => continue,
                Ok(None) => {}
                Err(error) => return Err(io::Error::other(error)),
            }
            match self.socket.get_ref().read(&mut buffer, &mut Vec::new()) {
                Ok(0) => return Ok(None),
                Ok(read) => {
                    self.framing.feed(&buffer[..read], []);
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error),
            }
            let is_idle = self.outgoing.is_empty();
            tokio::select! {
                ready = self.socket.readable() => ready?.clear_ready(),
                ready = self.socket.writable(), if !is_idle => {
                    ready?.clear_ready();
                    self.write();
                }
            }
        }
    }
}

async fn on_word(shared: &Shared, id: JobId, word: ToDaemon) {
    let of = |process: u64| JobProcess { job: id.0, process: name(process) };
    match word {
        ToDaemon::Want(want) => {
            let mut daemon = shared.borrow_mut();
            let Some(job) = daemon.jobs.get_mut(&id) else { return };
            if want.process == root() {
                // Its place was reserved before the job came here.
                job.tell(
                    FromDaemon::Placed(Placed { process: want.process, machine: job.home.0 }),
                    Vec::new(),
                );
                return;
            }
            job.tasks.insert(want.process, Task { want: want.clone(), machine: None });
            daemon.ask(Asked::Want(JobWant { job: id.0, want: Some(want) }));
        }
        ToDaemon::Withdraw(process) => {
            let mut daemon = shared.borrow_mut();
            if daemon.jobs.get_mut(&id).is_some_and(|job| job.tasks.remove(&process.number).is_some()) {
                daemon.ask(Asked::Withdraw(of(process.number)));
            }
        }
        ToDaemon::Gone(process) => {
            let mut daemon = shared.borrow_mut();
            if daemon.jobs.get_mut(&id).is_some_and(|job| job.tasks.remove(&process.number).is_some()) {
                daemon.ask(Asked::Gone(of(process.number)));
            }
        }
        ToDaemon::ToAgent(word) => {
            let machine = MachineId(word.machine);
            if let Some(job) = shared.borrow_mut().jobs.get_mut(&id) {
                job.agents.insert(machine);
            }
            peers::say(shared, machine, PeerSaid::ToAgent(JobToAgent { job: id.0, word: word.word }));
        }
        ToDaemon::ToHome(word) => {
            let home = shared.borrow().jobs.get(&id).map(|job| job.home);
            if let Some(home) = home {
                peers::say(shared, home, PeerSaid::ToHome(JobToHome { job: id.0, word: Some(word) }));
            }
        }
        ToDaemon::Expect(to) => expect(shared, id, &to),
        ToDaemon::Dial(to) => {
            let shared = shared.clone();
            spawn_local(async move {
                let dialled = dial(&shared, &to).await;
                let daemon = shared.borrow();
                match dialled {
                    Ok(link) => daemon.hand_over(id, to.link, link, true),
                    Err(text) => daemon.not_linked(id, to.link, text),
                }
            });
        }
        ToDaemon::Printed(printed) => tell_client(shared, id, Told::Printed(printed)).await,
        ToDaemon::Over(over) => {
            if let Some(job) = shared.borrow_mut().jobs.get_mut(&id) {
                job.is_over = true;
            }
            tell_client(shared, id, Told::Over(Box::new(over))).await;
        }
    }
}

/// Waits for a client that is slow; one that is gone misses nothing that it could hear.
async fn tell_client(shared: &Shared, id: JobId, word: Told) {
    let client = shared.borrow().jobs.get(&id).and_then(|job| job.client.clone());
    if let Some(client) = client {
        let _ = client.send(word).await;
    }
}

fn expect(shared: &Shared, id: JobId, to: &LinkTo) {
    let mut daemon = shared.borrow_mut();
    let window = to.window.min(LINK_WINDOW_BYTES_MAX);
    match daemon.expected.offer(channel_terms(window, daemon.config.is_sealed)) {
        Ok(offer) => {
            daemon.links.insert(offer.link, (id, to.link));
            if let Some(job) = daemon.jobs.get(&id) {
                job.tell(FromDaemon::Expecting(expecting(to.link, &offer)), Vec::new());
            }
            // One that is never opened is forgotten with its offer.
            let (shared, link) = (shared.clone(), offer.link);
            spawn_local(async move {
                tokio::time::sleep(OFFER_TIME_MAX).await;
                forget_link(&shared, link);
            });
        }
        Err(error) => daemon.not_linked(id, to.link, error.to_string()),
    }
}

fn forget_link(shared: &Shared, link: LinkId) {
    let mut daemon = shared.borrow_mut();
    if let Some((job, number)) = daemon.links.remove(&link) {
        daemon.not_linked(job, number, "the sender's machine did not connect in time".into());
    }
}

async fn dial(shared: &Shared, to: &LinkTo) -> Result<links::Link, String> {
    let address = shared.borrow().address_of(MachineId(to.machine))?;
    let expecting = to.expecting.as_ref().ok_or("a link without a name")?;
    let link = LinkId(expecting.id.as_slice().try_into().map_err(|_| "a link's name has 16 bytes")?);
    let secret = Secret(expecting.secret.as_slice().try_into().map_err(|_| "a secret has 32 bytes")?);
    let is_sealed = shared.borrow().config.is_sealed;
    let offer = Offer { link, secret, terms: channel_terms(to.window, is_sealed) };
    links::dial(address, &offer).await.map_err(|error| error.to_string())
}

/// A job's part is no more.
fn on_gone(shared: &Shared, id: JobId, why: String) {
    let Some(job) = shared.borrow_mut().jobs.remove(&id) else { return };
    let Daemon { links, machine, .. } = &mut *shared.borrow_mut();
    links.retain(|_, (of, _)| *of != id);
    let is_home = *machine == Some(job.home);
    info!(job = id.0, why, "job's part ended");
    if !is_home {
        if !job.is_over {
            let (shared, home) = (shared.clone(), job.home);
            spawn_local(async move {
                peers::say(&shared, home, PeerSaid::Broken(Broken { job: id.0, why }));
            });
        }
        return;
    }
    let shared = shared.clone();
    spawn_local(async move {
        for process in job.tasks.into_keys() {
            shared.borrow().ask(Asked::Gone(JobProcess { job: id.0, process: name(process) }));
        }
        for machine in job.agents {
            let word = Some(ToAgent { word: Some(FromHome::End(End {})) });
            peers::say(&shared, machine, PeerSaid::ToAgent(JobToAgent { job: id.0, word }));
        }
        if let Some(client) = job.client.filter(|_| !job.is_over) {
            warn!(job = id.0, why, "a job's home failed");
            let over = Over { failed: why, ..Over::default() };
            let _ = client.send(Told::Over(Box::new(over))).await;
        }
    });
}

/// A job has to end.
pub(super) fn stop(shared: &Shared, id: JobId, by: String) {
    if let Some(job) = shared.borrow().jobs.get(&id) {
        job.tell(FromDaemon::Stop(Stop { by }), Vec::new());
    }
}
