//! The manager of a machine in a cluster: a daemon.
//!
//! It has one port, on which other managers and clients come by TLS, and data links by their hello. It tells the
//! scheduler what the machine has and what its jobs want, starts a [runner](crate::runner) for each job's part here,
//! and passes words and sockets on. Whatever a peer sends, it costs that peer's connection and no more.

mod clients;
mod jobs;
mod peers;
mod uplink;

pub use peers::image_offer;

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    io,
    net::SocketAddr,
    path::PathBuf,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use cluster::{Acceptor, Identity, IdentityError, Incoming, Revoked, Role};
use protocol::{
    fleet::{Asked, Host, Machine, PeerSaid},
    ids::{JobId, LinkId, MachineId},
    limits::{HANDSHAKE_TIME_MAX, HANDSHAKES_MAX},
    placement::Capacity,
    runner::{Linked, NotLinked},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, Semaphore, mpsc::UnboundedSender, oneshot},
    task::spawn_local,
    time::{sleep, timeout},
};
use tracing::warn;

use crate::{
    links::{self, Expected, Link},
    store::{Store, StoreError},
};
use jobs::Job;

/// What a manager needs to know at its start.
#[derive(Debug)]
pub struct Config {
    /// Where the machine's certificate and its images are kept.
    pub folder: PathBuf,
    /// Where the scheduler listens.
    pub scheduler: String,
    /// What the machine has to give.
    pub capacity: Capacity,
    /// Where other machines reach this one, if not where it listens.
    pub advertise: Option<SocketAddr>,
    /// Links between machines are encrypted.
    pub is_sealed: bool,
    /// So many bytes of images are kept.
    pub store_bytes: u64,
}

impl Config {
    fn images(&self) -> PathBuf {
        self.folder.join("images")
    }
}

/// Why a manager can't work.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Its certificate is missing or makes no sense.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Its images can't be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The operating system refuses something.
    #[error("the manager can't work here: {what}: {error}")]
    System {
        /// What.
        what: &'static str,
        /// How it refused.
        error: io::Error,
    },
}

/// Runs the manager for as long as the future lives. To be called in a `LocalSet` on a thread that lives as long as
/// the process.
///
/// # Errors
/// [`DaemonError`] when it can't start.
pub async fn run(config: Config, listener: TcpListener) -> Result<(), DaemonError> {
    let identity = Identity::load(&config.folder)?;
    let store = Rc::new(Store::open(&config.images(), config.store_bytes)?);
    let listens = listener.local_addr().map_err(|error| DaemonError::System { what: "listening", error })?;
    let revoked = Revoked::default();
    let acceptor = Acceptor::new(&identity, revoked.clone());
    let daemon = Rc::new(RefCell::new(Daemon {
        address: config.advertise.unwrap_or(listens),
        machine: None,
        identity: Rc::new(identity),
        config,
        renewal: None,
        acceptor,
        revoked,
        store,
        expected: Rc::new(Expected::new()),
        directory: BTreeMap::new(),
        uplink: None,
        peers: HashMap::new(),
        jobs: HashMap::new(),
        hosted: HashMap::new(),
        links: HashMap::new(),
        images: HashMap::new(),
        news: Rc::new(Notify::new()),
    }));
    spawn_local(uplink::keep(daemon.clone()));
    let undecided = Arc::new(Semaphore::new(UNDECIDED_MAX));
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "a connection was not accepted");
                sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        let Ok(permit) = undecided.clone().try_acquire_owned() else {
            warn!(%address, "too many connections that have not said who they are");
            continue;
        };
        let (daemon, acceptor) = (daemon.clone(), daemon.borrow().acceptor.clone());
        spawn_local(async move {
            match decide(&stream).await {
                Some(Kind::Tls) => {
                    let accepted = acceptor.accept(stream).await;
                    drop(permit);
                    greet(daemon, accepted, address).await;
                }
                Some(Kind::Link) => {
                    // Hellos have a bound of their own.
                    drop(permit);
                    on_link(daemon, stream).await;
                }
                None => {}
            }
        });
    }
}

/// Connections that have not said who they are.
const UNDECIDED_MAX: usize = 8 * HANDSHAKES_MAX;

/// What a connection is.
enum Kind {
    Tls,
    Link,
}

/// The first byte of a TLS handshake record.
const TLS_HANDSHAKE: u8 = 0x16;

async fn decide(stream: &TcpStream) -> Option<Kind> {
    let mut first = [0];
    match timeout(HANDSHAKE_TIME_MAX, stream.peek(&mut first)).await {
        Ok(Ok(1)) if first[0] == TLS_HANDSHAKE => Some(Kind::Tls),
        Ok(Ok(1)) => Some(Kind::Link),
        _ => None,
    }
}

async fn greet(daemon: Shared, accepted: Result<Incoming, cluster::AcceptError>, address: SocketAddr) {
    match accepted {
        Ok(Incoming::Peer(connection)) => match connection.peer().role {
            Role::Manager => peers::hear(daemon, connection).await,
            Role::Submit | Role::Admin => clients::serve(daemon, connection).await,
            role => warn!(%address, %role, "this role has nothing to say to a manager"),
        },
        Ok(Incoming::Enrolling(_)) => warn!(%address, "somebody without a certificate"),
        Err(error) => warn!(%address, %error, "not let in"),
    }
}

/// Somebody opens a data link.
async fn on_link(daemon: Shared, stream: TcpStream) {
    let expected = daemon.borrow().expected.clone();
    match links::answer(stream, &expected).await {
        Ok((offer, link)) => {
            let mut daemon = daemon.borrow_mut();
            if let Some(image) = daemon.images.remove(&offer.link) {
                let _ = image.send(link);
            } else if let Some((job, number)) = daemon.links.remove(&offer.link) {
                daemon.hand_over(job, number, link, false);
            }
        }
        Err(error) => warn!(%error, "no link"),
    }
}

type Shared = Rc<RefCell<Daemon>>;

/// All that the manager knows.
struct Daemon {
    address: SocketAddr,
    /// This machine's number, once the scheduler has said it.
    machine: Option<MachineId>,
    identity: Rc<Identity>,
    config: Config,
    /// A certificate that was asked for.
    renewal: Option<cluster::Request>,
    acceptor: Acceptor,
    revoked: Revoked,
    store: Rc<Store>,
    expected: Rc<Expected>,
    /// All machines of the cluster.
    directory: BTreeMap<MachineId, Machine>,
    /// The way to the scheduler, while there is one.
    uplink: Option<UnboundedSender<Asked>>,
    /// The ways to other managers.
    peers: HashMap<MachineId, UnboundedSender<PeerSaid>>,
    jobs: HashMap<JobId, Job>,
    /// Jobs that will have their homes here.
    hosted: HashMap<JobId, Host>,
    /// Links that are expected, with the numbers that their jobs know them by.
    links: HashMap<LinkId, (JobId, u64)>,
    /// Links by which images are expected.
    images: HashMap<LinkId, oneshot::Sender<Link>>,
    /// Something has changed that somebody may wait for.
    news: Rc<Notify>,
}

impl Daemon {
    fn ask(&self, word: Asked) {
        // While there is no scheduler, nothing needs to be said: when there is one, it is told all anew.
        if let Some(uplink) = &self.uplink {
            let _ = uplink.send(word);
        }
    }

    /// Gives a connected link to the job that it is for.
    fn hand_over(&self, job: JobId, number: u64, link: Link, is_sender: bool) {
        let keys = link.keys.map(|keys| if is_sender { keys.of_sender() } else { keys.of_receiver() });
        if let Some(job) = self.jobs.get(&job) {
            let word = Linked { link: number, keys };
            job.tell(protocol::runner::FromDaemon::Linked(word), vec![link.stream.into()]);
        }
    }

    fn not_linked(&self, job: JobId, number: u64, text: String) {
        if let Some(job) = self.jobs.get(&job) {
            job.tell(protocol::runner::FromDaemon::NotLinked(NotLinked { link: number, text }), Vec::new());
        }
    }

    fn address_of(&self, machine: MachineId) -> Result<SocketAddr, String> {
        let entry = self.directory.get(&machine).ok_or(format!("machine {machine} is not in the cluster"))?;
        entry.address.parse().map_err(|_| format!("`{}` is no address of a machine", entry.address))
    }
}
