//! Entries of every kind are accepted, and their types are found without help.

use archean::{Child, Error, Failure, Receiver, Sender};

fn none() -> u8 {
    1
}

async fn none_async() {}

fn one(number: u32) -> u32 {
    number
}

async fn two(left: u32, right: String) -> Result<u32, Failure> {
    Ok(left + right.parse::<u32>()?)
}

fn six(_: u8, _: u16, _: u32, _: u64, _: String, _: Vec<u8>) {}

fn generic<T: archean::Data + Clone>(value: T) -> T {
    value
}

fn with_ends(sender: Sender<u8>, receiver: Receiver<String>) -> (Sender<u8>, Receiver<String>) {
    (sender, receiver)
}

async fn spawns_itself(depth: u32) -> u32 {
    if depth == 0 {
        return 0;
    }
    let child = archean::spawn(spawns_itself, depth - 1).await.expect("it is started");
    child.join().await.expect("it returns") + 1
}

async fn all() -> Result<(), Error> {
    let _: Child<u8> = archean::spawn(none, ()).await?;
    let _: Child<()> = archean::spawn(none_async, ()).await?;
    let _: Child<u32> = archean::spawn(one, 1).await?;
    let _: u32 = archean::spawn(two, (1, "2".to_owned())).await?.result().await?;
    let _: Child<()> = archean::spawn(six, (1, 2, 3, 4, String::new(), vec![])).await?;
    let _: Child<u64> = archean::spawn(generic::<u64>, 7).await?;
    let _: Child<u32> = archean::spawn(spawns_itself, 3).await?;
    let _: Child<u32> = archean::spawn(|a: u32, b: u32| a + b, (1, 2)).await?;
    let _: Child<u32> = archean::spawn(|a: u32| async move { a }, 1).await?;
    let (sender, _) = archean::channel();
    let (_, receiver) = archean::channel();
    let _ = archean::spawn(with_ends, (sender, receiver)).await?.join().await?;
    Ok(())
}

fn is_send<T: Send>(_: T) {}

fn main() {
    is_send(all());
    is_send(spawns_itself(1));
}
