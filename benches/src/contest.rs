//! Contenders on two cores: the same two plays for all of them.
//!
//! The *lead*, on core 0, measures. Its *partner*, on core 1, is another process, or for contenders that know no
//! processes a thread. In a stream the partner sends and the lead receives; in round trips the lead sends and the
//! partner answers. Contenders have their turns one after another, so that each round meets the same weather.

use std::{
    collections::HashMap,
    hint::{black_box, spin_loop},
    thread,
    time::{Duration, Instant},
};

use archean::{Receiver, Sender};

use crate::{
    effort::Effort,
    payload::{Frames, sum},
    pin::{pin, pin_all},
};

/// An end that sends frames.
pub trait Outlet<const N: usize> {
    /// Sends a frame, waiting for room.
    fn send(&mut self, frame: &[u8; N]);

    /// Sends the next `count` frames.
    #[inline]
    fn send_all(&mut self, frames: &mut Frames<N>, count: u64) {
        for _ in 0..count {
            self.send(frames.following());
        }
    }
}

/// An end that receives frames.
pub trait Inlet<const N: usize> {
    /// Receives a frame, waiting for it, and gives its [`sum`].
    fn recv(&mut self) -> u64;

    /// Receives `count` frames, one at least; gives the sum of all, and when the first had come.
    #[inline]
    fn recv_all(&mut self, count: u64) -> (u64, Instant) {
        let mut total = self.recv();
        let start = Instant::now();
        for _ in 1..count {
            total = total.wrapping_add(self.recv());
        }
        (total, start)
    }
}

/// What the two sides do with each other.
#[archean::data]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Play {
    /// Frames from the partner to the lead, as fast as they go.
    Stream,
    /// Frames to and fro. Before each the lead spins for so many nanoseconds, in which a partner that ever sleeps
    /// falls asleep.
    RoundTrips(u64),
}

impl Play {
    /// The pause before a trip.
    #[inline]
    pub fn pause(self) {
        if let Play::RoundTrips(pause_ns @ 1..) = self {
            let end = Instant::now() + Duration::from_nanos(pause_ns);
            while Instant::now() < end {
                spin_loop();
            }
        }
    }
}

/// One contender's ends, in the lead or in its partner.
pub trait Side {
    /// The lead's part. It adds the nanoseconds of each round trip, or of all frames together but the first, to
    /// `times_ns`, which has the room.
    fn lead(&mut self, play: Play, count: u64, times_ns: &mut Vec<f64>);
    /// The partner's part.
    fn follow(&mut self, play: Play, count: u64);
}

/// The ends of a contender that carries frames of `N` bytes both ways.
#[derive(Debug)]
pub struct Ends<const N: usize, O, I> {
    outlet: O,
    inlet: I,
    frames: Frames<N>,
}

impl<const N: usize, O: Outlet<N>, I: Inlet<N>> Ends<N, O, I> {
    /// A side with these ends.
    pub fn new(outlet: O, inlet: I) -> Self {
        Ends { outlet, inlet, frames: Frames::default() }
    }
}

impl<const N: usize, O: Outlet<N>, I: Inlet<N>> Side for Ends<N, O, I> {
    fn lead(&mut self, play: Play, count: u64, times_ns: &mut Vec<f64>) {
        if play == Play::Stream {
            let (total, start) = self.inlet.recv_all(count);
            let elapsed = start.elapsed();
            assert_eq!(total, self.frames.sum_of_first(count), "frames were lost or damaged");
            times_ns.push(elapsed.as_nanos() as f64);
            return;
        }
        let (base, clock) = (self.frames.sum_of(0), quanta::Clock::new());
        self.frames.restart();
        for number in 1..=count {
            play.pause();
            let start = clock.raw();
            self.outlet.send(self.frames.following());
            let answer = self.inlet.recv();
            times_ns.push(clock.delta_as_nanos(start, clock.raw()) as f64);
            // The partner answers with the sum that it found as the number.
            let found = base.wrapping_add(number);
            assert_eq!(answer, base.wrapping_add(found), "a frame was damaged");
        }
    }

    fn follow(&mut self, play: Play, count: u64) {
        match play {
            Play::Stream => {
                self.frames.restart();
                self.outlet.send_all(&mut self.frames, count);
            }
            Play::RoundTrips(_) => {
                for _ in 0..count {
                    let found = self.inlet.recv();
                    self.outlet.send(self.frames.numbered(found));
                }
            }
        }
    }
}

/// The floor under a stream whose bytes are all read: to read as many in a buffer of one's own.
#[derive(Debug, Default)]
pub struct OwnBuffer<const N: usize>(Frames<N>);

impl<const N: usize> Side for OwnBuffer<N> {
    fn lead(&mut self, _: Play, count: u64, times_ns: &mut Vec<f64>) {
        let buffer = self.0.numbered(1);
        let start = Instant::now();
        for _ in 1..count {
            black_box(sum(black_box(buffer)));
        }
        times_ns.push(start.elapsed().as_nanos() as f64);
    }

    fn follow(&mut self, _: Play, _: u64) {}
}

/// Where a contender's partner is.
pub enum Partner {
    /// Nowhere: it plays alone.
    None,
    /// In the other process, which knows it by this number.
    Process(u32),
    /// In this one, on a thread of its own.
    Thread(Box<dyn Side + Send>),
}

/// A contender as the lead has it.
pub struct Contender {
    /// Its name in tables.
    pub name: &'static str,
    /// The lead's side.
    pub side: Box<dyn Side>,
    /// The other side.
    pub partner: Partner,
}

/// One turn of a contender.
#[derive(Debug)]
pub struct Turn {
    /// See [`Side::lead`].
    pub times_ns: Vec<f64>,
    /// Of both sides together.
    pub effort: Effort,
}

impl Contender {
    /// Has its turn, its partner on `core`.
    pub fn turn(&mut self, link: &mut Link, play: Play, count: u64, core: u32) -> Turn {
        let side = &mut self.side;
        let mut times_ns = Vec::with_capacity(if play == Play::Stream { 1 } else { count as usize });
        let lead = || side.lead(play, count, &mut times_ns);
        let (here, there) = match &mut self.partner {
            Partner::None => (Effort::of(lead).1, Effort::default()),
            Partner::Process(contender) => {
                link.say(Word::Follow(Part { contender: *contender, play, count, core }));
                let ((), here) = Effort::of_all(lead);
                let Word::Done(effort) = link.hear() else { panic!("the partner is out of step") };
                (here, effort)
            }
            Partner::Thread(partner) => thread::scope(|scope| {
                let partner = scope.spawn(move || {
                    pin(core as usize);
                    Effort::of(|| partner.follow(play, count)).1
                });
                let ((), here) = Effort::of(lead);
                (here, partner.join().expect("the partner has ended well"))
            }),
        };
        Turn { times_ns, effort: here + there }
    }
}

/// What lead and partner say to each other between turns.
#[archean::data]
#[derive(Debug)]
pub enum Word {
    /// Something that a contender's other side needs to be set up.
    Name(String),
    /// The partner's part of a turn is to be played.
    Follow(Part),
    /// It was played.
    Done(Effort),
}

/// The partner's part of a turn.
#[archean::data]
#[derive(Debug, Clone, Copy)]
pub struct Part {
    /// The contender's number.
    contender: u32,
    play: Play,
    /// How many frames or trips.
    count: u64,
    core: u32,
}

/// The way between lead and partner.
#[archean::data]
#[derive(Debug)]
pub struct Link {
    out: Sender<Word>,
    back: Receiver<Word>,
}

impl Link {
    /// The two ends of a way.
    pub fn pair() -> (Link, Link) {
        let ((there, inbox), (here, back)) = (archean::channel(), archean::channel());
        (Link { out: there, back }, Link { out: here, back: inbox })
    }

    /// Says a word to the other side.
    pub fn say(&mut self, word: Word) {
        self.out.send_blocking(word).expect("the other side listens");
    }

    /// Waits for a word of the other side.
    pub fn hear(&mut self) -> Word {
        self.back.recv_owned_blocking().expect("the other side speaks")
    }

    /// As [`say`](Self::say), for a name.
    pub fn say_name(&mut self, name: impl Into<String>) {
        self.say(Word::Name(name.into()));
    }

    /// Waits for a name.
    pub fn hear_name(&mut self) -> String {
        match self.hear() {
            Word::Name(name) => name,
            other => panic!("a name was to come, not {other:?}"),
        }
    }

    /// Plays the partner's part of all turns, until the lead has gone.
    pub fn follow(&mut self, contenders: Vec<Contender>) {
        let by_number = |contender: Contender| match contender.partner {
            Partner::Process(number) => Some((number, contender.side)),
            _ => None,
        };
        let mut sides: HashMap<u32, Box<dyn Side>> = contenders.into_iter().filter_map(by_number).collect();
        while let Ok(word) = self.back.recv_owned_blocking() {
            let Word::Follow(part) = word else { panic!("the lead is out of step") };
            let Part { contender, play, count, core } = part;
            pin_all(core as usize);
            let side = sides.get_mut(&contender).expect("both have the same contenders");
            let ((), effort) = Effort::of_all(|| side.follow(play, count));
            self.say(Word::Done(effort));
        }
    }
}
