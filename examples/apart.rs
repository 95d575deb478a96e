//! Two processes on two machines.

use archean::{Receiver, Sender, channel, me, spawn};

fn echo(mut rx: Receiver<Vec<u8>>, mut tx: Sender<Vec<u8>>) -> u64 {
    let mut count = 0;
    while let Ok(message) = rx.recv_owned_blocking() {
        tx.send_blocking(message).unwrap();
        count += 1;
    }
    count
}

fn main() {
    archean::init();
    let (mut tx, rx) = channel::<Vec<u8>>();
    let (tx2, mut rx2) = channel::<Vec<u8>>();
    let child = spawn(echo, (rx, tx2)).apart_from(&me()).start_blocking().unwrap();
    for n in 0..200usize {
        let message = vec![n as u8; n * 1000];
        tx.send_blocking(message.clone()).unwrap();
        assert_eq!(rx2.recv_owned_blocking().unwrap(), message);
    }
    drop(tx);
    println!("{}", child.join_blocking().unwrap());
}
