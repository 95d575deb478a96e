//! Starting processes.

use std::{fmt, future::poll_fn, marker::PhantomData, pin::Pin, sync::Arc, task::Poll, time::Duration};

use channels::{Data, EndCell, Refused, data, hub::Hub};
use protocol::{
    control::{self, FromProcess, Number, SpawnFailure, Variable},
    ids::{MachineId, ProcessId},
    limits::{ARGUMENT_BYTES_MAX, ENV_BYTES_MAX, FRAME_ENDS_MAX, NAME_BYTES_MAX},
    resources::{Cores, Memory, ParseError},
};

use crate::{
    Child, Entry,
    control::{Control, SpawnAnswer},
    entry, harness,
};

/// Starts a new process of this program that runs `entry` with `args`.
///
/// It is a builder: nothing happens until it is awaited, or
/// [`start_blocking`](Spawn::start_blocking) is called. The process gets a copy of the arguments; ends of channels
/// in them move to it. `entry` is a function, an async function or a closure that captures nothing, with zero to
/// six parameters; several are given as a tuple.
///
/// ```no_run
/// # async fn example() -> Result<(), archean::Error> {
/// fn add(a: u32, b: u32) -> u32 {
///     a + b
/// }
/// let child = archean::spawn(add, (1, 2)).name("adder").await?;
/// assert_eq!(child.join().await?, 3);
/// # Ok(())
/// # }
/// ```
pub fn spawn<F: Entry<A, M>, A: Data, M>(entry: F, args: A) -> Spawn<F, A, M> {
    const {
        assert!(
            size_of::<F>() == 0,
            "an entry must capture nothing, and a `fn` pointer is no entry: name the function itself"
        )
    };
    // The value says that one exists; all that is needed of it is its type.
    let _ = entry;
    let name = std::any::type_name::<F>();
    Spawn {
        args,
        options: Options {
            entry: entry::offset_of::<F, A, M>(),
            name: short_name(name),
            cores: Ok(Cores::NONE),
            memory: Ok(Memory::NONE),
            env: Vec::new(),
            deadline: None,
            time_limit: None,
            near: None,
            apart_from: None,
        },
        entry: PhantomData,
    }
}

/// A process that is to be started; see [`spawn`].
#[must_use = "a spawn does nothing until it is awaited"]
pub struct Spawn<F, A, M> {
    args: A,
    options: Options,
    // A function's return type: so the future of an entry that spawns itself stays `Send`.
    entry: PhantomData<fn() -> (F, M)>,
}

struct Options {
    entry: u64,
    name: String,
    cores: Result<Cores, ParseError>,
    memory: Result<Memory, ParseError>,
    env: Vec<Variable>,
    deadline: Option<Duration>,
    time_limit: Option<Duration>,
    near: Option<ProcessId>,
    apart_from: Option<ProcessId>,
}

/// An amount of a resource: a value of its type, a number, or a text such as `"1/4"` and `"64 MiB"`.
pub trait Amount<R> {
    /// The amount.
    ///
    /// # Errors
    /// [`ParseError`] when a text is not an amount.
    fn amount(self) -> Result<R, ParseError>;
}

impl<R: std::str::FromStr<Err = ParseError>> Amount<R> for &str {
    fn amount(self) -> Result<R, ParseError> {
        self.parse()
    }
}

impl Amount<Cores> for Cores {
    fn amount(self) -> Result<Cores, ParseError> {
        Ok(self)
    }
}

impl Amount<Cores> for u32 {
    fn amount(self) -> Result<Cores, ParseError> {
        Ok(Cores::whole(self))
    }
}

impl Amount<Memory> for Memory {
    fn amount(self) -> Result<Memory, ParseError> {
        Ok(self)
    }
}

impl<F, A, M> Spawn<F, A, M> {
    /// Gives the process a name, which its output and the errors about it show. Without one it has its entry's.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.options.name = name.into();
        self
    }

    /// Reserves cores: a number (`2`) or a text (`"1/4"`, `"0.5"`). Without it none are reserved, and the process
    /// runs on what others leave. A process that reserves whole cores spins for a while (50 µs) before it sleeps.
    pub fn cores(mut self, cores: impl Amount<Cores>) -> Self {
        self.options.cores = cores.amount();
        self
    }

    /// Reserves memory, such as `"64 MiB"`. Without it none is reserved.
    pub fn memory(mut self, memory: impl Amount<Memory>) -> Self {
        self.options.memory = memory.amount();
        self
    }

    /// Sets a variable of its environment, which is otherwise that of the job's config and no more.
    pub fn env(mut self, name: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        self.options.env.push(Variable { name: name.into(), value: value.into() });
        self
    }

    /// How long it may wait until there is room for it. Without it, it waits as long as it takes.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.options.deadline = Some(deadline);
        self
    }

    /// Puts it on the machine of that process, which may be this one ([`me`](crate::me)). Without it, it is put on the
    /// machine of its parent if there is room, and else on another.
    pub fn near(mut self, process: impl Into<ProcessId>) -> Self {
        self.options.near = Some(process.into());
        self
    }

    /// Puts it on any machine but the one of that process.
    pub fn apart_from(mut self, process: impl Into<ProcessId>) -> Self {
        self.options.apart_from = Some(process.into());
        self
    }

    /// How long it may run; then it is killed.
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.options.time_limit = Some(limit);
        self
    }
}

impl<F: Entry<A, M>, A: Data, M> Spawn<F, A, M> {
    /// Starts the process, blocking the thread until it runs.
    ///
    /// # Errors
    /// [`SpawnError`], with the arguments, whole.
    pub fn start_blocking(self) -> Result<Child<F::Out>, SpawnError<A>> {
        let name = self.options.name.clone();
        let (asked, args) = Asked::ask(self.args, self.options)?;
        let mut answer = Poll::Pending;
        asked.hub.wait_until(None, || {
            answer = asked.control.poll_spawn(asked.request, None);
            answer.is_ready()
        });
        match answer {
            Poll::Ready(answer) => asked.finish(answer, args, name),
            Poll::Pending => unreachable!("the wait has no deadline"),
        }
    }
}

impl<F, A, M> IntoFuture for Spawn<F, A, M>
where
    F: Entry<A, M>,
    A: Data + Send,
    M: 'static,
{
    type Output = Result<Child<F::Out>, SpawnError<A>>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    /// Starts the process.
    ///
    /// # Cancel safety
    /// Dropping the future before it completes ends what was started, and closes the ends in the arguments.
    fn into_future(self) -> Self::IntoFuture {
        let Spawn { args, options, .. } = self;
        Box::pin(async move {
            let name = options.name.clone();
            let (asked, args) = Asked::ask(args, options)?;
            let answer = poll_fn(|context| {
                asked.hub.drive();
                asked.control.poll_spawn(asked.request, Some(context.waker()))
            });
            let answer = answer.await;
            asked.finish(answer, args, name)
        })
    }
}

/// A spawn that the manager was asked for and has not answered.
struct Asked {
    hub: &'static Hub,
    control: &'static Control,
    request: u64,
    ends: Vec<Arc<EndCell>>,
    answered: bool,
}

impl Asked {
    fn ask<A: Data>(args: A, options: Options) -> Result<(Asked, A), SpawnError<A>> {
        match Asked::try_ask(&args, options) {
            Ok(asked) => Ok((asked, args)),
            Err(reason) => Err(SpawnError { args, reason }),
        }
    }

    fn try_ask<A: Data>(args: &A, options: Options) -> Result<Asked, SpawnReason> {
        let (Some(hub), Some(control)) = (Hub::get(), Control::get()) else {
            return Err(SpawnReason::NotInitialised);
        };
        let invalid = |error: ParseError| SpawnReason::Invalid(error.to_string());
        let (cores, memory) = (options.cores.map_err(invalid)?, options.memory.map_err(invalid)?);
        let env_bytes: usize = options.env.iter().map(|v| v.name.len() + v.value.len()).sum();
        if env_bytes > ENV_BYTES_MAX {
            let text = format!("an environment of {env_bytes} bytes is over the limit of {ENV_BYTES_MAX}");
            return Err(SpawnReason::Invalid(text));
        }
        if options.name.len() > NAME_BYTES_MAX {
            let bytes = options.name.len();
            let text = format!("a name of {bytes} bytes is over the limit of {NAME_BYTES_MAX}");
            return Err(SpawnReason::Invalid(text));
        }
        let packed = data::pack(args).map_err(SpawnReason::Serialise)?;
        if packed.bytes.len() > ARGUMENT_BYTES_MAX {
            let bytes = packed.bytes.len();
            return Err(SpawnReason::TooLarge { bytes, limit: ARGUMENT_BYTES_MAX });
        }
        if packed.ends.len() > FRAME_ENDS_MAX {
            return Err(SpawnReason::TooManyEnds { ends: packed.ends.len(), limit: FRAME_ENDS_MAX });
        }
        packed.ends.iter().try_for_each(|end| end.check_movable()).map_err(SpawnReason::End)?;
        let request = control.next_request();
        let ends: Vec<_> = packed.ends.iter().map(|end| end.id()).collect();
        let nanoseconds = |duration: Duration| duration.as_nanos().try_into().unwrap_or(u64::MAX);
        hub.tell(FromProcess::Spawn(control::Spawn {
            request,
            index: request,
            entry: options.entry,
            argument: packed.bytes,
            ends: protocol::ids::EndId::list_to_word(&ends),
            name: options.name,
            cores_shares: cores.shares(),
            memory_bytes: memory.bytes(),
            env: options.env,
            deadline_ns: options.deadline.map(nanoseconds),
            time_limit_ns: options.time_limit.map(nanoseconds),
            harness: harness::arguments(),
            near: options.near.map(|process| process.0),
            apart_from: options.apart_from.map(|process| process.0),
        }));
        Ok(Asked { hub, control, request, ends: packed.ends, answered: false })
    }

    fn finish<A, R>(mut self, answer: SpawnAnswer, args: A, name: String) -> Result<Child<R>, SpawnError<A>> {
        self.answered = true;
        match answer {
            Ok(process) => {
                self.ends.iter().for_each(|end| end.mark_moved());
                Ok(Child::new(self.hub, self.control, process, name))
            }
            Err((failure, text)) => Err(SpawnError { args, reason: SpawnReason::from_answer(failure, text) }),
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if !self.answered {
            self.ends.iter().for_each(|end| end.mark_moved());
            self.control.forget_spawn(self.request);
            self.hub.tell(FromProcess::CancelSpawn(Number { number: self.request }));
        }
    }
}

/// A process that was not started, and why. The arguments are whole, with the ends in them.
#[derive(thiserror::Error)]
#[error("{reason}")]
pub struct SpawnError<A> {
    /// The arguments.
    pub args: A,
    /// Why it was not started.
    pub reason: SpawnReason,
}

impl<A> fmt::Debug for SpawnError<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpawnError").field("reason", &self.reason).finish_non_exhaustive()
    }
}

/// Why a process was not started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnReason {
    /// The program has not become part of a job.
    #[error("the process is not part of a job: call `archean::init()` first, or use `#[archean::main]`")]
    NotInitialised,
    /// No machine could ever hold it.
    #[error("the process was not started: {0}")]
    NeverFits(String),
    /// There was no room for it until its deadline.
    #[error("the process was not started: {0}")]
    Deadline(String),
    /// The operating system did not start it.
    #[error("the process was not started: {0}")]
    Launch(String),
    /// What was asked for makes no sense.
    #[error("the process was not started: {0}")]
    Invalid(String),
    /// The job is ending.
    #[error("the process was not started: {0}")]
    Stopping(String),
    /// The arguments are too large.
    #[error("arguments of {bytes} bytes are over the limit of {limit}: send them over a channel")]
    TooLarge {
        /// What they take.
        bytes: usize,
        /// What they may take.
        limit: usize,
    },
    /// The arguments hold too many channel ends.
    #[error("arguments with {ends} channel ends are over the limit of {limit}: send them over a channel")]
    TooManyEnds {
        /// What they hold.
        ends: usize,
        /// What they may hold.
        limit: usize,
    },
    /// The arguments' own `Serialize` failed.
    #[error("the arguments can't be serialised: {0}")]
    Serialise(String),
    /// A channel end in the arguments can't move.
    #[error("a channel end in the arguments can't move: {0}")]
    End(Refused),
}

impl SpawnReason {
    fn from_answer(failure: SpawnFailure, text: String) -> Self {
        match failure {
            SpawnFailure::NeverFits => SpawnReason::NeverFits(text),
            SpawnFailure::Deadline => SpawnReason::Deadline(text),
            SpawnFailure::Invalid => SpawnReason::Invalid(text),
            SpawnFailure::Stopping => SpawnReason::Stopping(text),
            SpawnFailure::Launch | SpawnFailure::Unknown => SpawnReason::Launch(text),
        }
    }
}

impl<F, A, M> fmt::Debug for Spawn<F, A, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spawn").field("name", &self.options.name).finish_non_exhaustive()
    }
}

/// The last part of a path, without generic arguments: `a::b::c::<D>` is `c`. Closures have no name of their own.
fn short_name(path: &str) -> String {
    let path = path.split('<').next().unwrap_or(path);
    let parts = path.trim_end_matches("::").rsplit("::");
    let mut parts = parts.filter(|part| !part.contains('{'));
    let name: String = parts.next().unwrap_or("process").chars().take(NAME_BYTES_MAX / 4).collect();
    if name.is_empty() { "process".to_owned() } else { name }
}

/// What a process knows of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Me {
    pub(crate) id: ProcessId,
    pub(crate) parent: Option<ProcessId>,
    pub(crate) name: String,
    pub(crate) cores: Cores,
    pub(crate) machine: MachineId,
}

impl From<&Me> for ProcessId {
    fn from(me: &Me) -> ProcessId {
        me.id
    }
}

impl Me {
    /// The machine that it runs on: zero when this machine is all there is.
    pub fn machine(&self) -> MachineId {
        self.machine
    }

    /// The process's id.
    pub fn id(&self) -> ProcessId {
        self.id
    }

    /// The id of the process that spawned it; `None` for the root of a job.
    pub fn parent(&self) -> Option<ProcessId> {
        self.parent
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The cores that are reserved for it.
    pub fn cores(&self) -> Cores {
        self.cores
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short() {
        assert_eq!(short_name("a::b::run_cell"), "run_cell");
        assert_eq!(short_name("a::b::run_cell::<c::D>"), "run_cell");
        assert_eq!(short_name("a::main::{{closure}}"), "main");
        assert_eq!(short_name(""), "process");
    }
}
