//! A peer that sends another type than the receiver expects, and ends beyond all measure.

use archean::{
    Ending, Reason, Receiver, RecvError, SpawnReason, channel,
    rkyv::{
        Archive, Deserialize, Place, Resolver, Serialize,
        rancor::Fallible,
        with::{ArchiveWith, DeserializeWith, SerializeWith},
    },
    spawn,
};

/// Goes into a message as a receiver of numbers, and comes out as a receiver of texts.
enum End {
    Numbers(Receiver<u32>),
    Texts(Receiver<String>),
}

#[archean::data]
struct Sly {
    #[rkyv(with = Confused)]
    end: End,
}

struct Confused;

type Numbers = Receiver<u32>;
type Archived = <Numbers as Archive>::Archived;

fn numbers(end: &End) -> &Numbers {
    match end {
        End::Numbers(numbers) => numbers,
        End::Texts(_) => panic!("it has come out already"),
    }
}

impl ArchiveWith<End> for Confused {
    type Archived = Archived;
    type Resolver = Resolver<Numbers>;

    fn resolve_with(end: &End, resolver: Self::Resolver, out: Place<Archived>) {
        numbers(end).resolve(resolver, out);
    }
}

impl<S: Fallible + ?Sized> SerializeWith<End, S> for Confused
where
    Numbers: Serialize<S>,
{
    fn serialize_with(end: &End, serialiser: &mut S) -> Result<Self::Resolver, S::Error> {
        numbers(end).serialize(serialiser)
    }
}

impl<D: Fallible + ?Sized> DeserializeWith<Archived, End, D> for Confused {
    fn deserialize_with(token: &Archived, deserialiser: &mut D) -> Result<End, D::Error> {
        token.deserialize(deserialiser).map(End::Texts)
    }
}

fn read(sly: Sly) -> (bool, String) {
    let End::Texts(mut texts) = sly.end else { panic!("it came out as it went in") };
    let error = texts.recv_blocking().unwrap_err();
    let again = texts.recv_blocking().unwrap_err();
    (matches!(error, RecvError::WrongType { .. }) && again == error, error.to_string())
}

#[archean::test]
fn both_sides_are_told_which_types_met() {
    let (mut sender, receiver) = channel::<u32>();
    let child = spawn(read, Sly { end: End::Numbers(receiver) }).start_blocking().unwrap();
    sender.send_blocking(7).unwrap();
    let (is_wrong_type, text) = child.join_blocking().unwrap();
    assert!(is_wrong_type, "{text}");
    assert!(text.contains("alloc::string::String") && text.contains("u32"), "{text}");
    let reset = loop {
        if let Err(error) = sender.send_blocking(8) {
            break error.reason;
        }
    };
    assert!(matches!(&reset, Reason::Reset(reason) if *reason == text), "{reset:?}");
}

fn count(receivers: Vec<Receiver<u8>>) -> usize {
    receivers.len()
}

fn give_many() -> Vec<Receiver<u8>> {
    (0..2000).map(|_| channel().1).collect()
}

#[archean::test]
fn too_many_ends_are_told_and_given_back() {
    let receivers: Vec<_> = (0..2000).map(|_| channel().1).collect();
    let error = spawn(count, receivers).start_blocking().unwrap_err();
    assert!(matches!(error.reason, SpawnReason::TooManyEnds { ends: 2000, .. }), "{error}");
    assert_eq!(error.args.len(), 2000);
    let error = spawn(give_many, ()).start_blocking().unwrap().join_blocking().unwrap_err();
    assert!(
        matches!(error.ending(), Ending::Failed { text } if text.contains("2000 channel ends")),
        "{error}"
    );
}
