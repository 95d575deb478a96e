//! A process on another machine, beside one on this one.

use std::time::Instant;

use archean::{Sender, me};
use benches::quantile;

use crate::at_most;

/// Where a process goes.
#[derive(Clone, Copy)]
enum Place {
    Here,
    Elsewhere,
}

/// Takes turns between this machine and the other one.
pub(crate) fn measure(is_quick: bool) {
    let rounds = if is_quick { 30 } else { 200 };
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..rounds {
        for (place, times) in [Place::Here, Place::Elsewhere].into_iter().zip(&mut times) {
            let elapsed = spawn_to_first_message(place);
            // In the first round the image goes over.
            if round > 0 {
                times.push(elapsed);
            }
        }
    }
    let [here, elsewhere] = times.map(|mut times| quantile(&mut times, 0.5));
    println!(
        "spawn to first message    on this machine {:8.0} us           on another {:8.0} us",
        here / 1e3,
        elsewhere / 1e3
    );
    at_most("spawn_on_another_machine_over_this_one", elsewhere / here, 2.0);
}

fn spawn_to_first_message(place: Place) -> f64 {
    let (sender, mut receiver) = archean::channel();
    let start = Instant::now();
    let hello = archean::spawn(say_hello, sender);
    let hello = match place {
        Place::Here => hello.near(&me()),
        Place::Elsewhere => hello.apart_from(&me()),
    };
    let child = hello.start_blocking().expect("a process is started");
    let machine = *receiver.recv_blocking().expect("it says hello");
    let elapsed = start.elapsed().as_nanos() as f64;
    let is_here = machine == u64::from(me().machine().0);
    assert_eq!(is_here, matches!(place, Place::Here), "it is in the wrong place");
    child.join_blocking().expect("it ends well");
    elapsed
}

fn say_hello(mut sender: Sender<u64>) {
    sender.send_blocking(me().machine().0.into()).expect("the parent listens");
}
