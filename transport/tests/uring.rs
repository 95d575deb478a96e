//! Two processes' sides of a link in one process: rings, sockets, io_uring, and threads that send, receive and compute.
#![expect(unsafe_code, reason = "payloads are written into a ring's memory")]

use std::{
    net::{TcpListener, TcpStream},
    os::fd::AsFd,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use protocol::{
    frame::frame_bytes,
    ids::{EndId, ProcessId},
};
use transport::{
    link::{Incoming, Keys, Outgoing},
    park,
    ring::{
        Consumer, Producer, Wake,
        wait::{self, begin_frame_wait, begin_room_wait, end_room_wait},
    },
    segment::{Files, Mapped},
    uring::{Host, Link, Links, News, Seated, Side},
};

/// What stands for a process: the words that wake it, and its links.
struct Process {
    bell: AtomicU32,
    event: AtomicU32,
    sleepers: AtomicU32,
    over: Mutex<Vec<Option<String>>>,
    sleeps: AtomicU64,
}

impl Process {
    fn new() -> (&'static Process, &'static Links) {
        let process: &Process = Box::leak(Box::new(Process {
            bell: AtomicU32::new(0),
            event: AtomicU32::new(0),
            sleepers: AtomicU32::new(0),
            over: Mutex::default(),
            sleeps: AtomicU64::new(0),
        }));
        let links = Links::new(process, [&process.bell, &process.event]).expect("io_uring");
        let links: &Links = Box::leak(Box::new(links));
        links.start().expect("a thread");
        (process, links)
    }

    /// As the hub sleeps.
    fn sleep(&self, links: &'static Links, mut begin: impl FnMut(), mut ready: impl FnMut() -> bool) {
        let mut seated = Seated::default();
        loop {
            let bell = self.bell.load(Ordering::SeqCst);
            self.sleepers.fetch_add(1, Ordering::SeqCst);
            begin();
            let mut is_ready = ready();
            if !is_ready {
                self.sleeps.fetch_add(1, Ordering::Relaxed);
                // The first sleep is bounded: see `wait::Sleep`.
                let deadline = Instant::now() + park::FIRST_SLEEP;
                links.park([bell, self.event.load(Ordering::SeqCst)], Some(deadline), &mut seated);
                is_ready = ready();
            }
            self.sleepers.fetch_sub(1, Ordering::SeqCst);
            if is_ready {
                return;
            }
        }
    }
}

impl Host for Process {
    fn listen(&self) -> u32 {
        self.event.load(Ordering::SeqCst)
    }

    fn tell(&self, _: &Link, news: News, asleep: bool) {
        if let Some(over) = news.over {
            self.over.lock().unwrap().push(over.err().map(|failure| failure.to_string()));
        }
        self.bell.fetch_add(1, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > u32::from(asleep) {
            park::wake(&self.bell);
        }
    }
}

fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let other = listener.accept().unwrap().0;
    for socket in [&one, &other] {
        socket.set_nodelay(true).unwrap();
    }
    (one, other)
}

struct Channel {
    producer: Producer<Arc<Mapped>>,
    consumer: Consumer<Arc<Mapped>>,
    from: (&'static Process, &'static Links, Arc<Link>),
    to: (&'static Process, &'static Links, Arc<Link>),
}

type End = (&'static Process, &'static Links);

fn channel(capacity: usize, is_sealed: bool, from: End, to: End) -> Channel {
    let keys = || is_sealed.then_some(Keys { frames: [1; 32], credits: [2; 32] });
    let files = || Files::create(capacity).unwrap();
    let (own, far, (one, other)) = (files(), files(), sockets());
    let sends = Arc::new(Mapped::for_producer(own.data.as_fd(), own.consumer.as_fd(), capacity).unwrap());
    sends.take_consumer(own.consumer.as_fd()).unwrap();
    sends.describe(7, "test");
    let fills = Arc::new(Mapped::for_link(far.data.as_fd(), far.consumer.as_fd(), capacity).unwrap());
    let link =
        |socket: TcpStream, side| Arc::new(Link::new(socket.into(), ProcessId(9), EndId(1), EndId(2), side));
    let outgoing = link(one, Side::Outgoing(Outgoing::new(sends.clone(), keys()).unwrap()));
    let incoming = link(other, Side::Incoming(Incoming::new(fills.clone(), keys())));
    from.1.add(&outgoing);
    to.1.add(&incoming);
    Channel {
        producer: Producer::new(sends),
        consumer: Consumer::new(fills),
        from: (from.0, from.1, outgoing),
        to: (to.0, to.1, incoming),
    }
}

fn send(
    producer: &mut Producer<Arc<Mapped>>,
    end: &(&'static Process, &'static Links, Arc<Link>),
    payload: &[u8],
) {
    let (process, links, link) = end;
    let needed = frame_bytes(payload.len(), 0);
    loop {
        if let Some(claim) = producer.claim(needed).unwrap() {
            // SAFETY: room for the payload was claimed.
            unsafe { claim.payload().copy_from_nonoverlapping(payload.as_ptr(), payload.len()) };
            if claim.publish(payload.len(), &[]) != Wake::No {
                links.rung(link);
            }
            return;
        }
        let memory = producer.memory().clone();
        let position = producer.position_for(needed);
        process.sleep(
            links,
            || {
                let _ = begin_room_wait(&memory, position);
            },
            || wait::is_consumed_to(&memory, position),
        );
        end_room_wait(&memory);
    }
}

/// Gives the next payload to `each`.
fn receive(
    consumer: &mut Consumer<Arc<Mapped>>,
    end: &(&'static Process, &'static Links, Arc<Link>),
    each: impl FnOnce(&[u8]),
) {
    let (process, links, link) = end;
    let memory = consumer.memory().clone();
    let position = consumer.position();
    if !wait::is_frame_at(&memory, position) {
        process.sleep(
            links,
            || {
                let _ = begin_frame_wait(&memory);
            },
            || wait::is_frame_at(&memory, position),
        );
    }
    let frame = consumer.peek().unwrap().expect("a frame");
    each(consumer.payload(&frame));
    if consumer.release(&frame) != Wake::No {
        links.rung(link);
    }
}

/// A payload of any size, told by its number.
fn payload(number: u64, bytes_max: usize) -> Vec<u8> {
    let len = 8 + (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) as usize % (bytes_max - 8);
    let mut payload = vec![number as u8; len];
    payload[..8].copy_from_slice(&number.to_le_bytes());
    payload
}

fn stream(capacity: usize, is_sealed: bool, messages: u64, bytes_max: usize) {
    let (from, to) = (Process::new(), Process::new());
    let Channel { mut producer, mut consumer, from, to } = channel(capacity, is_sealed, from, to);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for number in 0..messages {
                send(&mut producer, &from, &payload(number, bytes_max));
            }
            from.1.close(&from.2);
        });
        for number in 0..messages {
            receive(&mut consumer, &to, |found| assert_eq!(found, payload(number, bytes_max)));
        }
    });
    to.0.sleep(to.1, || (), || !to.0.over.lock().unwrap().is_empty());
    assert_eq!(*to.0.over.lock().unwrap(), [None]);
}

#[test]
fn a_stream_arrives_whole_and_in_order() {
    stream(1 << 20, false, 100_000, 200);
    stream(1 << 20, true, 100_000, 200);
}

#[test]
fn small_rings_are_filled_again_and_again() {
    stream(4 << 10, false, 20_000, 2000);
    stream(4 << 10, true, 20_000, 2000);
}

#[test]
fn frames_as_large_as_the_ring_wait_for_no_other() {
    let largest = (64 << 10) - 64;
    stream(64 << 10, false, 500, largest);
    stream(64 << 10, true, 500, largest);
}

fn ping_pong(is_sealed: bool, rounds: u64) -> (u64, Duration) {
    let (one, other) = (Process::new(), Process::new());
    let there = channel(64 << 10, is_sealed, one, other);
    let back = channel(64 << 10, is_sealed, other, one);
    let start = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let (mut consumer, mut producer) = (there.consumer, back.producer);
            for _ in 0..rounds {
                let mut number = Vec::new();
                receive(&mut consumer, &there.to, |found| number.extend_from_slice(found));
                send(&mut producer, &back.from, &number);
            }
            // What it sent last goes without it.
        });
        let (mut consumer, mut producer) = (back.consumer, there.producer);
        for number in 0..rounds {
            send(&mut producer, &there.from, &number.to_le_bytes());
            receive(&mut consumer, &back.to, |found| assert_eq!(found, number.to_le_bytes()));
        }
    });
    (one.0.sleeps.load(Ordering::Relaxed), start.elapsed())
}

#[test]
fn messages_go_to_and_fro() {
    for is_sealed in [false, true] {
        let (sleeps, time) = ping_pong(is_sealed, 5000);
        println!("{sleeps} sleeps, {:?} a round trip", time / 5000);
    }
}

#[test]
fn what_a_busy_thread_has_sent_goes_out() {
    let (from, to) = (Process::new(), Process::new());
    let Channel { mut producer, mut consumer, from, to } = channel(64 << 10, false, from, to);
    for number in 0..100_u64 {
        send(&mut producer, &from, &number.to_le_bytes());
    }
    // The sender's thread does nothing more for its link.
    for number in 0..100_u64 {
        receive(&mut consumer, &to, |found| assert_eq!(found, number.to_le_bytes()));
    }
}

#[test]
fn what_comes_to_a_busy_process_is_there_when_it_looks() {
    let (from, to) = (Process::new(), Process::new());
    let Channel { mut producer, consumer, from, .. } = channel(64 << 10, true, from, to);
    send(&mut producer, &from, b"hello");
    while !wait::is_frame_at(consumer.memory(), consumer.position()) {
        std::thread::yield_now();
    }
}

#[test]
fn several_threads_wait_on_one_process() {
    let (from, to) = (Process::new(), Process::new());
    let channels: Vec<_> = (0..8).map(|_| channel(16 << 10, false, from, to)).collect();
    std::thread::scope(|scope| {
        for (which, Channel { mut producer, mut consumer, from, to }) in channels.into_iter().enumerate() {
            let messages = 500 * (which as u64 + 1);
            scope.spawn(move || {
                for number in 0..messages {
                    send(&mut producer, &from, &payload(number, 300));
                }
            });
            scope.spawn(move || {
                for number in 0..messages {
                    receive(&mut consumer, &to, |found| assert_eq!(found, payload(number, 300)));
                }
            });
        }
    });
}

#[test]
fn a_broken_connection_is_named() {
    let to = Process::new();
    let capacity = 16 << 10;
    let (files, (one, other)) = (Files::create(capacity).unwrap(), sockets());
    let memory = Mapped::for_link(files.data.as_fd(), files.consumer.as_fd(), capacity).unwrap();
    let side = Side::Incoming(Incoming::new(Arc::new(memory), None));
    to.1.add(&Arc::new(Link::new(other.into(), ProcessId(9), EndId(1), EndId(2), side)));
    // The end comes in the middle of the description.
    std::io::Write::write_all(&mut &one, b"archean").unwrap();
    drop(one);
    to.0.sleep(to.1, || (), || !to.0.over.lock().unwrap().is_empty());
    let over = to.0.over.lock().unwrap()[0].clone().expect("an error");
    assert!(over.starts_with("the link to process 0000000000000009 broke: "), "{over}");
}

#[test]
fn all_that_is_committed_goes_before_the_end() {
    let (from, to) = (Process::new(), Process::new());
    let Channel { mut producer, mut consumer, from, to } = channel(1 << 20, true, from, to);
    let messages = 4000;
    for number in 0..messages {
        send(&mut producer, &from, &payload(number, 300));
    }
    from.1.drain(Instant::now() + Duration::from_secs(60));
    for number in 0..messages {
        receive(&mut consumer, &to, |found| assert_eq!(found, payload(number, 300)));
    }
    to.0.sleep(to.1, || (), || !to.0.over.lock().unwrap().is_empty());
}
