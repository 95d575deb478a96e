use protocol::ending::Ending;

use super::*;

const A: ProcessId = ProcessId(1);
const B: ProcessId = ProcessId(2);
const C: ProcessId = ProcessId(3);

fn end(count: u64) -> EndId {
    EndId::new(A, count)
}

fn died(process: ProcessId) -> Cause {
    Cause { process, name: "p".into(), ending: Ending::Signalled { signal: 9, core: false } }
}

/// A channel made by A: `end(0)` sends, `end(1)` receives.
fn wired() -> Wiring {
    let mut wiring = Wiring::default();
    wiring.on_declare(A, end(1), end(0), 4096);
    wiring
}

fn give(wiring: &mut Wiring, ends: &[EndId], to: ProcessId) {
    wiring.pack(A, ends, Package::Arguments(to), &mut Vec::new()).unwrap();
    wiring.unpack(Package::Arguments(to), to);
}

#[test]
fn the_sender_hears_of_the_pair_first() {
    let (mut wiring, mut effects) = (wired(), Vec::new());
    give(&mut wiring, &[end(1)], B);
    wiring.on_open_sender(A, end(0), 7, &mut effects);
    assert_eq!(effects, []);
    wiring.on_open_receiver(B, end(1), &mut effects);
    let (sender, receiver) = (end(0), end(1));
    assert_eq!(
        effects,
        [
            Effect::Paired { to: A, sender, receiver_in: B },
            Effect::Incoming { to: B, receiver, sender, ring: 7, sender_in: A },
        ]
    );
}

#[test]
fn what_was_sent_before_the_reader_came_is_kept_when_the_sender_dies() {
    let (mut wiring, mut effects) = (wired(), Vec::new());
    give(&mut wiring, &[end(0)], B);
    wiring.on_open_sender(B, end(0), 7, &mut effects);
    wiring.on_death(&died(B), &mut effects);
    assert_eq!(effects, []);
    wiring.on_open_receiver(A, end(1), &mut effects);
    let (sender, receiver) = (end(0), end(1));
    assert_eq!(
        effects,
        [
            Effect::Incoming { to: A, receiver, sender, ring: 7, sender_in: B },
            Effect::SenderOver { to: A, receiver, sender, over: Over::Died(died(B)), last: true },
        ]
    );
}

#[test]
fn a_receiver_that_dies_takes_the_ends_on_their_way_to_it_along() {
    let (mut wiring, mut effects) = (wired(), Vec::new());
    wiring.on_declare(A, end(3), end(2), 4096);
    give(&mut wiring, &[end(1)], B);
    wiring.on_open_sender(A, end(0), 7, &mut effects);
    wiring.on_transfer(A, end(0), &[end(2)], &mut effects);
    wiring.on_open_receiver(A, end(3), &mut effects);
    assert_eq!(effects, []);
    wiring.on_death(&died(B), &mut effects);
    assert_eq!(
        effects,
        [
            Effect::ReceiverOver { to: A, sender: end(0), over: Over::Died(died(B)) },
            Effect::FreeRing(7),
            Effect::SenderOver { to: A, receiver: end(3), sender: end(2), over: never_read(), last: true },
        ]
    );
    // One more in a frame that was committed before the death was known.
    wiring.on_declare(A, end(5), end(4), 4096);
    wiring.on_transfer(A, end(0), &[end(5)], &mut effects);
    effects.clear();
    wiring.on_open_sender(A, end(4), 8, &mut effects);
    assert_eq!(
        effects,
        [Effect::ReceiverOver { to: A, sender: end(4), over: never_read() }, Effect::FreeRing(8)]
    );
}

#[test]
fn adoption_may_be_heard_of_before_the_transfer() {
    let (mut wiring, mut effects) = (wired(), Vec::new());
    wiring.on_declare(A, end(3), end(2), 4096);
    give(&mut wiring, &[end(1)], B);
    assert_eq!(wiring.on_adopt(B, &[end(3)]), Err(NotHeld(end(3))));
    assert_eq!(wiring.unheard(B, end(3)), Some(A));
    wiring.on_transfer(A, end(0), &[end(3)], &mut effects);
    assert_eq!(wiring.unheard(B, end(3)), None);
    assert_eq!(wiring.unheard(C, end(3)), Some(B), "it may have passed it on");
    assert_eq!(wiring.unheard(B, end(9)), Some(end(9).maker()), "it may have made it");
    assert_eq!(wiring.on_adopt(B, &[end(3)]), Ok(()));
    wiring.on_open_receiver(B, end(3), &mut effects);
    assert_eq!(effects, []);
}

#[test]
fn a_reserved_ring_is_known_to_the_reader_before_its_sender_is_used() {
    let (mut wiring, mut effects) = (wired(), Vec::new());
    wiring.pack(A, &[end(0)], Package::Arguments(B), &mut effects).unwrap();
    assert_eq!(wiring.senders_in(Package::Arguments(B)), [(end(0), 4096)]);
    wiring.unpack(Package::Arguments(B), B);
    wiring.on_reserve(B, end(0), 7, &mut effects);
    wiring.on_open_receiver(A, end(1), &mut effects);
    assert_eq!(effects.len(), 2, "the pair is told: {effects:?}");
    effects.clear();
    wiring.on_open_sender(B, end(0), 7, &mut effects);
    assert_eq!(effects, []);
    wiring.on_close(B, end(0), Over::Closed, &mut effects);
    assert!(matches!(effects[..], [Effect::SenderOver { to: A, last: true, .. }]), "{effects:?}");
}

#[test]
fn an_end_with_a_reserved_ring_may_still_move_on() {
    let (mut wiring, mut effects) = (wired(), Vec::new());
    give(&mut wiring, &[end(0)], B);
    wiring.on_open_receiver(A, end(1), &mut effects);
    wiring.on_reserve(B, end(0), 7, &mut effects);
    effects.clear();
    wiring.pack(B, &[end(0)], Package::Arguments(C), &mut effects).unwrap();
    assert!(matches!(effects[..], [Effect::SenderOver { to: A, last: false, .. }]), "{effects:?}");
    wiring.unpack(Package::Arguments(C), C);
    effects.clear();
    wiring.on_open_sender(C, end(0), 8, &mut effects);
    assert_eq!(effects.len(), 2, "the new ring is paired: {effects:?}");
}

#[test]
fn an_end_that_was_used_stays() {
    let (mut wiring, mut effects) = (wired(), Vec::new());
    wiring.on_open_sender(A, end(0), 7, &mut effects);
    assert!(wiring.pack(A, &[end(0), end(1)], Package::Arguments(B), &mut effects).is_err());
    wiring.unpack(Package::Arguments(B), B);
    wiring.on_open_receiver(A, end(1), &mut effects);
    assert_eq!(effects.len(), 2, "both are still where they were: {effects:?}");
}

#[test]
fn the_last_of_several_senders_is_told_as_the_last() {
    let (mut wiring, mut effects) = (wired(), Vec::new());
    wiring.on_clone(A, end(0), end(2));
    give(&mut wiring, &[end(2)], B);
    wiring.on_open_receiver(A, end(1), &mut effects);
    wiring.on_close(A, end(0), Over::Closed, &mut effects);
    wiring.on_close(B, end(2), Over::Closed, &mut effects);
    let lasts = effects.iter().map(|effect| matches!(effect, Effect::SenderOver { last: true, .. }));
    assert_eq!(lasts.collect::<Vec<_>>(), [false, true]);
}

#[test]
fn nobody_speaks_for_an_end_of_another() {
    let (mut wiring, mut effects) = (wired(), Vec::new());
    wiring.on_close(C, end(0), Over::Closed, &mut effects);
    wiring.on_transfer(C, end(0), &[end(1)], &mut effects);
    assert!(wiring.on_adopt(C, &[end(1)]).is_err());
    assert!(wiring.pack(C, &[end(1)], Package::Result(C), &mut effects).is_err());
    assert_eq!(effects, []);
    wiring.on_open_receiver(C, end(1), &mut effects);
    assert!(matches!(effects[..], [Effect::SenderOver { to: C, last: true, .. }]), "{effects:?}");
}

proptest::proptest! {
    /// Whatever processes say: nothing is told twice, no ring is lost or given twice, and when all have died
    /// nothing is remembered.
    #[test]
    fn nothing_is_lost_and_nothing_left(steps in proptest::collection::vec((0u8..10, 1u64..4, 0u64..8, 0u64..8), 1..200)) {
        let (mut wiring, mut rings) = (Wiring::default(), 0);
        let mut all = Vec::new();
        for (step, process, one, other) in steps {
            let (process, one, other) = (ProcessId(process), end(one), end(other));
            let mut effects = Vec::new();
            match step {
                0 => wiring.on_declare(process, one, other, 4096),
                1 => wiring.on_clone(process, one, other),
                9 if wiring.ends.get(&one).is_none_or(|end| end.reserved.is_none()) => {
                    rings += 1;
                    wiring.on_reserve(process, one, rings, &mut effects);
                }
                // As a process does that was given a ring for the end.
                2 if let Some(ring) = wiring.held_by(process, one).and_then(|end| end.reserved) => {
                    wiring.on_open_sender(process, one, ring, &mut effects);
                }
                9 => {}
                2 => { rings += 1; wiring.on_open_sender(process, one, rings, &mut effects); }
                3 => wiring.on_open_receiver(process, one, &mut effects),
                4 => wiring.on_close(process, one, Over::Closed, &mut effects),
                5 => wiring.on_transfer(process, one, &[other], &mut effects),
                6 => { let _ = wiring.on_adopt(process, &[one]); }
                7 => { let _ = wiring.pack(process, &[one, other], Package::Arguments(ProcessId(other.0 as u64 % 3 + 1)), &mut effects); }
                _ => wiring.unpack(Package::Arguments(process), process),
            }
            all.append(&mut effects);
        }
        for process in 1..4 {
            wiring.on_package_lost(Package::Arguments(ProcessId(process)), &Over::Closed, &mut all);
            wiring.on_death(&died(ProcessId(process)), &mut all);
        }
        proptest::prop_assert!(wiring.is_empty(), "{wiring:?}");
        let mut told: Vec<u64> = all.iter().filter_map(|effect| match effect {
            Effect::FreeRing(ring) | Effect::Incoming { ring, .. } => Some(*ring),
            _ => None,
        }).collect();
        told.sort_unstable();
        proptest::prop_assert_eq!(told, (1..=rings).collect::<Vec<_>>());
    }
}
