//! Where a program finds out what it is: the client of a job, its root, or a child that has an entry to run.
#![expect(unsafe_code, reason = "the environment is changed, and a descriptor put in its place")]

use std::{
    convert::Infallible,
    env,
    ffi::OsString,
    fmt::Display,
    hint::black_box,
    io::Write,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use channels::hub::{Hub, Parts};
use protocol::{
    control::{
        CONTROL_VARIABLE, Framing, FromManager, FromProcess, HARNESS_STDOUT_FD, Hello, LastWords, ToProcess,
        Welcome,
    },
    ids::{EndId, MachineId, ProcessId},
    limits::TEXT_BYTES_MAX,
    note::{Note, VERSION},
    resources::Cores,
};
use transport::{
    layout::EVENT_SLOT_BYTES,
    segment::{Counters, Doorbell, Words},
    socket::Socket,
};

use crate::{
    control::{Control, Wire},
    entry,
    spawn::Me,
};

/// The mark by which `archean run` knows a program that is built with this crate.
#[used]
#[unsafe(link_section = ".note.archean")]
static NOTE: Note = Note::THIS;

/// What a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Not part of a job.
    Outside,
    /// The root of a job.
    Root,
}

/// How long a process with whole cores of its own spins before it sleeps: twice what waking it would cost.
const SPIN: Duration = Duration::from_micros(50);

/// What a process exits with when something is wrong with how it was started.
const BROKEN_CODE: i32 = 125;

static ME: OnceLock<Me> = OnceLock::new();

/// Makes this process part of a job; to be called first thing in `main`.
///
/// * In a process that was spawned, it runs the entry and does not return.
/// * In the root of a job, it returns, and the program goes on.
/// * Otherwise the program was started by hand: then this process becomes the client of a new job on this machine
///   (it executes `archean run` with this program and its arguments), and the program starts anew as the job's
///   root. `archean` is looked for in `$ARCHEAN`, beside the program, and in `$PATH`.
///
/// `#[archean::main]` calls it. Calling it again does nothing.
///
/// The process ends with code 125 and a line on standard error when `archean` is not found.
pub fn init() {
    if enter() == Role::Outside {
        match become_client() {
            Err(text) => give_up(text),
        }
    }
}

/// The process itself.
///
/// # Panics
/// When the process is not part of a job; see [`init`].
pub fn me() -> Me {
    ME.get().expect("the process is part of a job: call `archean::init()` first").clone()
}

/// Finds out what this process is; in one that was spawned, runs its entry and does not return.
pub fn enter() -> Role {
    black_box(&NOTE);
    if ME.get().is_some() {
        return Role::Root;
    }
    let Some(fd) = env::var_os(CONTROL_VARIABLE) else { return Role::Outside };
    let started =
        connect(&fd).unwrap_or_else(|text| give_up(format_args!("this process can't join its job: {text}")));
    let Some((entry, argument, ends)) = started else { return Role::Root };
    // SAFETY: the offset comes from the parent's `spawn` through the manager, which started the parent's image.
    let finished = unsafe { entry::run_caught(entry, &argument, ends) };
    let hub = Hub::get().expect("the hub was installed");
    match finished {
        Ok(finished) => {
            let code = i32::from(finished.result.is_empty() && is_failure(&finished));
            // What the program has printed belongs before its end.
            let _ = std::io::stdout().flush();
            hub.tell(FromProcess::Finished(finished));
            std::process::exit(code);
        }
        Err(message) => {
            if LAST_WORDS.load(Ordering::Relaxed) == 0 {
                tell_last_words(hub, message, "a place that is not known".to_owned());
            }
            std::process::exit(101);
        }
    }
}

fn is_failure(finished: &protocol::control::Finished) -> bool {
    finished.ending.as_ref().is_some_and(|ending| ending.kind() != protocol::control::EndingKind::Returned)
}

/// What a child has to run: where, with what, with which ends.
type Work = (u64, Vec<u8>, Vec<EndId>);

/// Takes up the control socket; `None` for the root of a job.
fn connect(fd: &OsString) -> Result<Option<Work>, String> {
    let number = fd.to_str().and_then(|text| text.parse().ok());
    let number = number.ok_or_else(|| format!("${CONTROL_VARIABLE} is `{}`", fd.display()))?;
    let because = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
    let socket = Socket::inherited(number).map_err(because("its control socket is not there"))?;
    let mut incoming = Framing::default();
    let (welcome, files) = await_welcome(&socket, &mut incoming)?;
    let [doorbell, events, counters] =
        <[OwnedFd; 3]>::try_from(files).map_err(|_| "its files did not come".to_owned())?;
    if welcome.event_slot >= welcome.event_slots {
        return Err("its slot in the events file is none".to_owned());
    }
    let slots = welcome.event_slots as usize;
    let cores = Cores::from_shares(welcome.cores_shares);
    let control = Control::install(socket, incoming);
    let parts = Parts {
        process: ProcessId(welcome.process),
        wiring: Box::new(Wire(control)),
        doorbell: Doorbell::map(doorbell.as_fd()).map_err(because("its doorbell can't be mapped"))?,
        events: (
            Words::map(events.as_fd(), slots, EVENT_SLOT_BYTES, false)
                .map_err(because("its events file can't be mapped"))?,
            welcome.event_slot as usize,
        ),
        counters: Counters::map(counters.as_fd(), true)
            .map_err(because("its counters file can't be mapped"))?,
        event_count: welcome.event_count,
        may_link: welcome.links,
        spin: if cores.is_whole() { SPIN } else { Duration::ZERO },
    };
    let hub = Hub::install(parts).map_err(|_| "it has joined one already".to_owned())?;
    let me = Me {
        id: ProcessId(welcome.process),
        parent: welcome.parent.map(ProcessId),
        name: welcome.name.clone(),
        cores,
        machine: MachineId(welcome.machine),
    };
    ME.set(me).map_err(|_| "it has joined one already".to_owned())?;
    hub.tell_later(FromProcess::Hello(Hello { version: VERSION }));
    hook_panics(hub);
    settle_in(&welcome).map_err(because("its standard output can't be put in place"))?;
    let Welcome { entry, argument, ends, .. } = welcome;
    let ends = EndId::list_from_word(&ends).map_err(|error| error.to_string())?;
    Ok(entry.map(|entry| (entry, argument, ends)))
}

fn await_welcome(
    socket: &Socket,
    incoming: &mut Framing<OwnedFd>,
) -> Result<(Welcome, Vec<OwnedFd>), String> {
    // Small, because memory that is touched for the first time costs more than reading twice.
    let mut buffer = [0; 4 << 10];
    loop {
        match incoming.take::<ToProcess>().map_err(|error| error.to_string())? {
            Some((ToProcess { word: Some(FromManager::Welcome(welcome)) }, files)) => {
                return Ok((welcome, files));
            }
            Some(_) => return Err("its manager did not welcome it".to_owned()),
            None => {}
        }
        let mut files = Vec::new();
        match socket.read(&mut buffer, &mut files) {
            Ok(0) => return Err("its manager is gone".to_owned()),
            Ok(read) => incoming.feed(&buffer[..read], files),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                socket.wait_readable(None).map_err(|error| error.to_string())?;
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Takes away what only the start needed.
fn settle_in(welcome: &Welcome) -> std::io::Result<()> {
    if welcome.harness {
        // The harness has threads, and so the environment must stay; its real output goes where output belongs.
        // SAFETY: plain system calls on descriptors that the manager placed for this.
        let placed = unsafe {
            let placed = libc::dup2(HARNESS_STDOUT_FD, std::io::stdout().as_raw_fd());
            libc::close(HARNESS_STDOUT_FD);
            placed
        };
        return if placed < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) };
    }
    for variable in [CONTROL_VARIABLE, CLIENT_VARIABLE] {
        // SAFETY: `init` is documented to come first in `main`, when no other thread reads the environment.
        unsafe { env::remove_var(variable) };
    }
    Ok(())
}

/// Panics of which the manager was told.
static LAST_WORDS: AtomicU32 = AtomicU32::new(0);

/// A program that panics again and again, and catches it, need not tell each time.
const LAST_WORDS_MAX: u32 = 64;

/// Has the manager told of panics, before anything else can go wrong.
fn hook_panics(hub: &'static Hub) {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        before(panic);
        let payload = panic.payload();
        let message = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let message = message.or_else(|| payload.downcast_ref::<String>().cloned());
        let location =
            panic.location().map_or_else(|| "a place that is not known".to_owned(), ToString::to_string);
        tell_last_words(hub, message.unwrap_or_else(|| "a value that is no text".to_owned()), location);
    }));
}

fn tell_last_words(hub: &Hub, mut message: String, location: String) {
    if LAST_WORDS.fetch_add(1, Ordering::Relaxed) < LAST_WORDS_MAX {
        let end = (0..=TEXT_BYTES_MAX.min(message.len())).rev().find(|end| message.is_char_boundary(*end));
        message.truncate(end.unwrap_or(0));
        hub.tell(FromProcess::LastWords(LastWords { message, location }));
    }
}

/// Holds the id of the process that executes `archean`, to notice that it was no `archean` at all.
const CLIENT_VARIABLE: &str = "ARCHEAN_CLIENT";

/// Becomes `archean run` with this program.
fn become_client() -> Result<Infallible, String> {
    let own_id = std::process::id().to_string();
    if env::var_os(CLIENT_VARIABLE).is_some_and(|id| id == own_id.as_str()) {
        return Err(format!("{} is not the `archean` command", find_archean()?.display()));
    }
    let program =
        env::current_exe().map_err(|error| format!("this program does not find its own file: {error}"))?;
    let archean = find_archean()?;
    let error = Command::new(&archean)
        .arg("run")
        .arg("--")
        .arg(program)
        .args(env::args_os().skip(1))
        .env(CLIENT_VARIABLE, own_id)
        .exec();
    Err(format!("{} can't be executed: {error}", archean.display()))
}

/// Finds the `archean` command.
pub(crate) fn find_archean() -> Result<PathBuf, String> {
    if let Some(path) = env::var_os("ARCHEAN").filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        return if path.is_file() {
            Ok(path)
        } else {
            Err(format!("$ARCHEAN is {}, which is no file", path.display()))
        };
    }
    let program =
        env::current_exe().map_err(|error| format!("this program does not find its own file: {error}"))?;
    // Cargo puts tests and examples one folder below programs.
    let beside = program.ancestors().skip(1).take(2).map(Path::to_owned);
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders = beside.chain(env::split_paths(&path));
    folders.by_ref().map(|folder| folder.join("archean")).find(|file| file.is_file() && *file != program).ok_or_else(
        || {
            "this program runs as a job of Archean, but the command `archean` was found neither beside it nor in \
             $PATH: install it (`cargo install --path cli` in a checkout of Archean), or set $ARCHEAN to its file"
                .to_owned()
        },
    )
}

fn give_up(text: impl Display) -> ! {
    // There may be nobody who reads it.
    let _ = writeln!(std::io::stderr(), "archean: {text}");
    std::process::exit(BROKEN_CODE)
}
