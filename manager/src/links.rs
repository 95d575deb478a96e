//! Opens data links to other machines, and answers those that are opened from there.
//!
//! The receiving side makes an [`Offer`] and keeps it in its [`Expected`]; the other side gets a copy over the control
//! connection, dials, and proves by a MAC that it has the secret. Both then have the same keys. An offer opens one
//! link, within ten seconds. What a stranger can cost is a descriptor and some hundred bytes, for five seconds.

mod expected;
mod options;

use std::{
    fmt,
    future::Future,
    io,
    net::{self, SocketAddr},
};

use protocol::{
    control::LinkKeys,
    hello::{HELLO_BYTES, Hello, HelloError, Mac, Nonce, REPLY_BYTES, Refusal, Reply, Terms},
    ids::LinkId,
    limits::HANDSHAKE_TIME_MAX,
};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    select,
    time::{error::Elapsed, timeout},
};

pub use expected::{Expected, TooManyOffers};

/// A link that one side expects, and the other may open.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Its name.
    pub link: LinkId,
    /// What only the two sides know.
    pub secret: Secret,
    /// What it is for, and its bounds.
    pub terms: Terms,
}

impl Offer {
    /// An offer with a name and a secret that nobody can guess.
    pub fn new(terms: Terms) -> Offer {
        Offer { link: LinkId(random()), secret: Secret(random()), terms }
    }
}

/// Thirty-two bytes that are not shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret(pub [u8; 32]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// The keys of a sealed link, as one side has them: it sends with what the other receives with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Keys {
    /// For what this side sends.
    pub send: Secret,
    /// For what it receives.
    pub receive: Secret,
}

impl Keys {
    /// What the process with the sender is told, if this is its side.
    pub fn of_sender(&self) -> LinkKeys {
        LinkKeys { frames: self.send.0.into(), credits: self.receive.0.into() }
    }

    /// What the process with the receiver is told, if this is its side.
    pub fn of_receiver(&self) -> LinkKeys {
        LinkKeys { frames: self.receive.0.into(), credits: self.send.0.into() }
    }

    /// The keys of who dialled.
    fn derive(secret: &Secret, hello: &Nonce, reply: &Nonce) -> Keys {
        let material = [&secret.0[..], hello, reply].concat();
        let key = |context| Secret(blake3::derive_key(context, &material));
        Keys { send: key("archean link v1: to who answers"), receive: key("archean link v1: to who dials") }
    }

    fn turned(self) -> Keys {
        Keys { send: self.receive, receive: self.send }
    }
}

/// A link that is open: nothing but the handshake has been sent or read.
#[derive(Debug)]
pub struct Link {
    /// The connection, in blocking mode and with all options set: it may be handed to a process, or driven here.
    pub stream: net::TcpStream,
    /// The keys; `None` when plain bytes were agreed on.
    pub keys: Option<Keys>,
}

/// A link could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("no link to {address}: {flaw}")]
pub struct DialError {
    /// The machine's data port.
    pub address: SocketAddr,
    /// Why not.
    pub flaw: DialFlaw,
}

/// Why a link could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum DialFlaw {
    /// No socket, or no connection.
    #[error(
        "connecting failed: {0}; check that the machine's manager runs, and that no firewall is in between"
    )]
    Connect(io::Error),
    /// It took too long.
    #[error(
        "it did not answer within {} s; check the network, and whether the machine is overloaded",
        HANDSHAKE_TIME_MAX.as_secs()
    )]
    Slow,
    /// The connection ended in the handshake.
    #[error("the connection ended in the handshake ({0}); try again")]
    Broken(io::Error),
    /// The other side gives a reason.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// Something else listens there.
    #[error("what answers there is no manager of Archean; check the address")]
    Garbage,
    /// The answer's MAC is wrong.
    #[error("the answer does not come from the machine that offered the link; somebody is in between")]
    Forged,
}

/// A connection did not become a link.
#[derive(Debug, thiserror::Error)]
#[error("no link for {peer}: {flaw}")]
pub struct AnswerError {
    /// Who connected.
    pub peer: SocketAddr,
    /// Why not.
    pub flaw: AnswerFlaw,
}

/// Why a connection did not become a link.
#[derive(Debug, thiserror::Error)]
pub enum AnswerFlaw {
    /// The connection ended before the hello did.
    #[error("it closed after {bytes} of the hello's {HELLO_BYTES} bytes")]
    Half {
        /// What came.
        bytes: usize,
    },
    /// The hello took too long.
    #[error("it sent {bytes} of the hello's {HELLO_BYTES} bytes in {} s", HANDSHAKE_TIME_MAX.as_secs())]
    Slow {
        /// What came.
        bytes: usize,
    },
    /// Newer connections needed its place.
    #[error("it sent {bytes} of the hello's {HELLO_BYTES} bytes, and too many others are waiting")]
    Displaced {
        /// What came.
        bytes: usize,
    },
    /// Its hello is no hello, or asks for something else than was offered.
    #[error(transparent)]
    Hello(HelloError),
    /// It does not know the link's secret.
    #[error("it does not have the secret of link {0}")]
    WrongToken(LinkId),
    /// The link was opened before.
    #[error("link {0} was opened before; a hello opens one link")]
    Replayed(LinkId),
    /// There is no such offer, or not any more.
    #[error("link {0} is not expected here; it was never offered, or too long ago")]
    Unexpected(LinkId),
    /// The system fails.
    #[error("{doing} failed: {error}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// What the kernel says.
        error: io::Error,
    },
}

/// Opens the link that the machine at `address` offers.
///
/// # Errors
/// [`DialError`] within ten seconds. Nothing is left of the attempt; the offer may be used up.
///
/// # Cancel safety
/// Dropping the future closes the connection; the offer may be used up.
pub async fn dial(address: SocketAddr, offer: &Offer) -> Result<Link, DialError> {
    open(address, offer).await.map_err(|flaw| DialError { address, flaw })
}

/// Reads the hello of whoever has connected, and accepts it if its link is expected.
///
/// # Errors
/// [`AnswerError`] within five seconds. The connection is closed; an offer that it named with the right secret is used
/// up, any other stands.
///
/// # Cancel safety
/// Dropping the future closes the connection; the offer may be used up.
pub async fn answer(stream: TcpStream, expected: &Expected) -> Result<(Offer, Link), AnswerError> {
    let peer = stream.peer_addr().unwrap_or(SocketAddr::from(([0; 4], 0)));
    accept(stream, expected).await.map_err(|flaw| AnswerError { peer, flaw })
}

async fn open(address: SocketAddr, offer: &Offer) -> Result<Link, DialFlaw> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = socket.map_err(DialFlaw::Connect)?;
    options::set_buffers(&socket, &offer.terms).map_err(DialFlaw::Connect)?;
    let mut stream =
        in_time(socket.connect(address)).await.map_err(|_| DialFlaw::Slow)?.map_err(DialFlaw::Connect)?;
    options::set(&stream, &offer.terms).map_err(DialFlaw::Connect)?;
    let hello = Hello { link: offer.link, terms: offer.terms, nonce: random() };
    let sent = hello.encode(|signed| hello_mac(&offer.secret, signed));
    let mut bytes = [0; REPLY_BYTES];
    let exchange = async {
        stream.write_all(&sent).await?;
        stream.read_exact(&mut bytes).await
    };
    in_time(exchange).await.map_err(|_| DialFlaw::Slow)?.map_err(DialFlaw::Broken)?;
    let reply = Reply::decode(&bytes).ok_or(DialFlaw::Garbage)?;
    reply.verdict.map_err(DialFlaw::Refused)?;
    let (signed, mac) = Reply::signed(&bytes);
    if !is_same(reply_mac(&offer.secret, &sent, signed), mac) {
        return Err(DialFlaw::Forged);
    }
    let keys = offer.terms.is_sealed.then(|| Keys::derive(&offer.secret, &hello.nonce, &reply.nonce));
    Ok(Link { stream: blocking(stream).map_err(DialFlaw::Broken)?, keys })
}

async fn accept(mut stream: TcpStream, expected: &Expected) -> Result<(Offer, Link), AnswerFlaw> {
    let (mut bytes, mut count) = ([0; HELLO_BYTES], 0);
    let (handshake, displaced) = expected.begin();
    let read = select! {
        biased;
        read = in_time(read_hello(&mut stream, &mut bytes, &mut count)) => Ok(read),
        _ = displaced => Err(()),
    };
    drop(handshake);
    match read {
        Err(()) => return Err(AnswerFlaw::Displaced { bytes: count }),
        Ok(Err(Elapsed { .. })) => return Err(AnswerFlaw::Slow { bytes: count }),
        Ok(Ok(read)) => read.map_err(|error| AnswerFlaw::Io { doing: "reading its hello", error })?,
    }
    if count < HELLO_BYTES {
        return Err(AnswerFlaw::Half { bytes: count });
    }
    let nonce = random();
    let checked = Hello::decode(&bytes).map_err(AnswerFlaw::Hello).and_then(|hello| {
        let offer = expected.take(&hello, &bytes)?;
        Ok((offer, hello))
    });
    let (offer, hello) = match checked {
        Ok(checked) => checked,
        Err(flaw) => {
            if let Some(refusal) = refusal(&flaw) {
                let reply = Reply { verdict: Err(refusal), nonce }.encode(|_| Mac::default());
                // It is refused in any case, so whether it hears why is up to the network.
                let _ = stream.try_write(&reply);
            }
            return Err(flaw);
        }
    };
    let io = |doing| move |error| AnswerFlaw::Io { doing, error };
    // The terms that count are those of the hello, which are within those of the offer.
    let offer = Offer { terms: hello.terms, ..offer };
    options::set_buffers(&stream, &offer.terms).map_err(io("setting the socket's buffers"))?;
    options::set(&stream, &offer.terms).map_err(io("setting the socket's options"))?;
    let reply = Reply { verdict: Ok(()), nonce }.encode(|signed| reply_mac(&offer.secret, &bytes, signed));
    let sent = in_time(stream.write_all(&reply)).await.map_err(|_| AnswerFlaw::Slow { bytes: count })?;
    sent.map_err(io("replying to its hello"))?;
    let keys = offer.terms.is_sealed.then(|| Keys::derive(&offer.secret, &hello.nonce, &nonce).turned());
    let link = Link { stream: blocking(stream).map_err(io("taking over its socket"))?, keys };
    Ok((offer, link))
}

/// Reads no byte beyond the hello: what follows belongs to whom the socket is handed to.
async fn read_hello(stream: &mut TcpStream, bytes: &mut [u8], count: &mut usize) -> io::Result<()> {
    while *count < bytes.len() {
        match stream.read(&mut bytes[*count..]).await? {
            0 => break,
            read => *count += read,
        }
    }
    Ok(())
}

fn refusal(flaw: &AnswerFlaw) -> Option<Refusal> {
    match flaw {
        AnswerFlaw::Hello(error) => error.refusal(),
        AnswerFlaw::WrongToken(_) | AnswerFlaw::Replayed(_) | AnswerFlaw::Unexpected(_) => {
            Some(Refusal::Unexpected)
        }
        _ => None,
    }
}

fn hello_mac(secret: &Secret, signed: &[u8]) -> Mac {
    *blake3::keyed_hash(&blake3::derive_key("archean link v1: MAC of the hello", &secret.0), signed)
        .as_bytes()
}

fn reply_mac(secret: &Secret, hello: &[u8; HELLO_BYTES], signed: &[u8]) -> Mac {
    let mut hasher =
        blake3::Hasher::new_keyed(&blake3::derive_key("archean link v1: MAC of the reply", &secret.0));
    *hasher.update(hello).update(signed).finalize().as_bytes()
}

/// Compares in a time that says nothing about where they differ: `blake3::Hash` does.
fn is_same(one: Mac, other: Mac) -> bool {
    blake3::Hash::from_bytes(one) == blake3::Hash::from_bytes(other)
}

async fn in_time<F: Future>(future: F) -> Result<F::Output, Elapsed> {
    timeout(HANDSHAKE_TIME_MAX, future).await
}

fn blocking(stream: TcpStream) -> io::Result<net::TcpStream> {
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// Bytes that nobody can guess.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the kernel gives random bytes");
    bytes
}

#[cfg(test)]
mod tests;
