//! Every bound of the system, in one place.
//!
//! A limit that a person can run into is named in the error that it causes, with the value that was too large.

use std::time::Duration;

/// The most bytes that the arguments of a spawn, or the result of a process, may take. Beyond it: a channel.
pub const ARGUMENT_BYTES_MAX: usize = 1 << 20;

/// The most bytes of one control message, its length word left out.
pub const CONTROL_BYTES_MAX: usize = ARGUMENT_BYTES_MAX + (256 << 10);

/// The most file descriptors that go along with one control message.
pub const CONTROL_FDS_MAX: usize = 8;

/// The most ends that one message, one argument or one result may hold.
pub const FRAME_ENDS_MAX: usize = 1024;

/// The capacity of a channel, in bytes, when none was asked for.
pub const RING_BYTES_DEFAULT: usize = 1 << 20;

/// The least capacity of a channel: one memory page is the least that can be mapped twice in a row.
pub const RING_BYTES_MIN: usize = 4 << 10;

/// The most capacity of a channel.
pub const RING_BYTES_MAX: usize = 1 << 30;

/// So many bytes of control messages may wait for a process that does not read them; then it is killed.
pub const CONTROL_WAITING_BYTES_MAX: usize = 64 << 20;

/// The most bytes that the archive of one message may take. One that is larger than its ring travels in parts.
pub const MESSAGE_BYTES_MAX: usize = 1 << 30;

/// Unused rings that a process is given ahead of need, so that a first send waits for nobody.
pub const SPARE_RINGS: usize = 2;

/// Rings that a process may have been given and not used yet; further wishes wait until it uses one.
pub const UNUSED_RINGS_MAX: usize = 256;

/// Ends of channels that the processes of one job may hold together.
pub const ENDS_MAX: usize = 1 << 20;

/// Connections that may wait until a process accepts them; further ones are refused.
pub const CONNECTIONS_WAITING_MAX: usize = 1024;

/// Of so many processes that have ended last it is remembered how, for those who want to connect to them.
pub const ENDED_REMEMBERED: usize = 1024;

/// The most bytes of a process's name.
pub const NAME_BYTES_MAX: usize = 128;

/// The most variables, and the most bytes of names and values together, that a spawn may set.
pub const ENV_VARIABLES_MAX: usize = 256;
/// See [`ENV_VARIABLES_MAX`].
pub const ENV_BYTES_MAX: usize = 64 << 10;

/// The most bytes of a panic's message, a reset's reason or a failure's text; longer ones are cut.
pub const TEXT_BYTES_MAX: usize = 8 << 10;

/// How much of a process's standard error is kept for its exit record.
pub const STDERR_TAIL_BYTES: usize = 4 << 10;

/// A line of output longer than this is cut into pieces, each marked.
pub const OUTPUT_LINE_BYTES_MAX: usize = 64 << 10;

/// Through so many processes an end may have passed, unused, before the manager has heard of the first of them. One
/// that has passed through more at once is taken for one that its holder does not hold.
pub const HEARING_HOPS_MAX: u32 = 256;

/// Processes of one machine that may exist at once, whatever they ask for. The open-file limit may lower it.
pub const PROCESSES_MAX: u32 = 8192;

/// Descriptors that the manager needs for each process: control socket, pidfd, two pipes, doorbell, counters and spares.
pub const FDS_PER_PROCESS: u64 = 11;

/// The most bytes of the name of a machine, a client or a cluster: what a certificate's common name may take.
pub const CERTIFICATE_NAME_BYTES_MAX: usize = 64;

/// The most bytes of a word from somebody without a certificate.
pub const ENROL_BYTES_MAX: usize = 16 << 10;

/// How long a handshake of a connection or a link may take, and how long somebody without a certificate may take to say what they want.
pub const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(5);

/// The most bytes that a link between two machines may have under way.
pub const LINK_WINDOW_BYTES_MAX: u64 = RING_BYTES_MAX as u64;

/// Connections that may be saying hello at once. A further one takes the place of the one that has taken longest.
pub const HANDSHAKES_MAX: usize = 256;

/// How long the offer of a link stands.
pub const OFFER_TIME_MAX: Duration = Duration::from_secs(10);

/// Offers of links that may stand at once.
pub const OFFERS_MAX: usize = 64 << 10;

/// How long the other side of a link may leave bytes unacknowledged, or say nothing at all, until it counts as lost.
pub const LINK_SILENCE_MAX: Duration = Duration::from_secs(10);

/// The most files of an image: its executable, its loader, its libraries.
pub const IMAGE_FILES_MAX: usize = 1024;

/// The most bytes that the files of an image take together.
pub const IMAGE_BYTES_MAX: u64 = 64 << 30;

/// The most bytes of the list of an image's files.
pub const MANIFEST_BYTES_MAX: usize = 512 << 10;

/// How long a transfer of an image may stand still in the middle of a file.
pub const IMAGE_STALL_MAX: Duration = Duration::from_secs(30);

/// How long who sends an image waits for the next wish: a receiver may be waiting for another transfer meanwhile.
pub const IMAGE_IDLE_MAX: Duration = Duration::from_secs(600);

const _: () =
    assert!(ARGUMENT_BYTES_MAX + FRAME_ENDS_MAX * 16 + ENV_BYTES_MAX + TEXT_BYTES_MAX < CONTROL_BYTES_MAX);
const _: () = assert!(RING_BYTES_MIN <= RING_BYTES_DEFAULT && RING_BYTES_DEFAULT <= RING_BYTES_MAX);
const _: () = assert!(RING_BYTES_MAX < u32::MAX as usize, "a frame's length is a u32");
const _: () = assert!(FRAME_ENDS_MAX <= u16::MAX as usize, "a frame counts its ends in a u16");
